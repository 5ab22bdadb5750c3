"""What the handlers of group requests are given."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.groups.coordinator import GroupCoordinator
    from penstock.groups.ports import OffsetsTopic, TopicView


class GroupContext:
    """One per broker; the server builds it."""

    __slots__ = ("coordinator", "offsets_topic", "topics")

    def __init__(
        self, *, coordinator: GroupCoordinator, topics: TopicView, offsets_topic: OffsetsTopic
    ) -> None:
        self.coordinator = coordinator
        self.topics = topics
        self.offsets_topic = offsets_topic
