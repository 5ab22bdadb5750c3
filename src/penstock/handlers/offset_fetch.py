"""OffsetFetch (key 9), versions 1-10: committed offsets of some partitions, or all of a group.

2 adds null topics (all) and the code of the whole group, 5 the leader epoch, 7 RequireStable, 8
many groups at once, 10 topic ids. RequireStable changes nothing until transactions exist: every
fetch already waits for the commits before it. Left out: member id and epoch of KIP-848 groups (9).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.groups import codes
from penstock.groups.deferred import Deferred
from penstock.groups.ports import ZERO_ID, OffsetEntry, RequestHeader
from penstock.protocol.messages.offset_fetch import (
    OffsetFetchRequest,
    OffsetFetchRequestGroup,
    OffsetFetchRequestTopic,
    OffsetFetchRequestTopics,
    OffsetFetchResponse,
    OffsetFetchResponseGroup,
    OffsetFetchResponsePartition,
    OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
)

if TYPE_CHECKING:
    from penstock.groups.context import GroupContext

_NO_OFFSET = -1


def handle(
    ctx: GroupContext, header: RequestHeader, request: OffsetFetchRequest
) -> OffsetFetchResponse | Deferred[OffsetFetchResponse]:
    version = header.api_version
    names = [request.group_id] if version < 8 else [group.group_id for group in request.groups]
    unsettled: list[Deferred[int]] = []
    for name in names:
        settled = ctx.coordinator.settle(name)
        if not isinstance(settled, int):
            unsettled.append(settled)
    if not unsettled:
        return _respond(ctx, version, request)
    answer: Deferred[OffsetFetchResponse] = Deferred()
    left = len(unsettled)

    def one_settled(_: object) -> None:
        nonlocal left
        left -= 1
        if not left:
            answer.set_result(_respond(ctx, version, request))

    for waiter in unsettled:
        waiter.add_done_callback(one_settled)
    return answer


def _respond(ctx: GroupContext, version: int, request: OffsetFetchRequest) -> OffsetFetchResponse:
    if version >= 8:
        return OffsetFetchResponse(groups=[_group(ctx, version, g) for g in request.groups])
    asked: list[OffsetFetchRequestTopics] | None = None
    if request.topics is not None:
        asked = [
            OffsetFetchRequestTopics(name=t.name, partition_indexes=t.partition_indexes)
            for t in request.topics
        ]
    group = OffsetFetchRequestGroup(group_id=request.group_id, topics=asked)
    found = _group(ctx, version, group)
    if found.error_code and version < 2:
        # No place for the code of the group: every partition carries it.
        return OffsetFetchResponse(
            topics=[_all_failed(topic, found.error_code) for topic in request.topics or ()]
        )
    return OffsetFetchResponse(
        error_code=found.error_code,
        topics=[
            OffsetFetchResponseTopic(
                name=topic.name,
                partitions=[
                    OffsetFetchResponsePartition(
                        partition_index=p.partition_index,
                        committed_offset=p.committed_offset,
                        committed_leader_epoch=p.committed_leader_epoch,
                        metadata=p.metadata,
                        error_code=p.error_code,
                    )
                    for p in topic.partitions
                ],
            )
            for topic in found.topics
        ],
    )


def _all_failed(topic: OffsetFetchRequestTopic, error: int) -> OffsetFetchResponseTopic:
    return OffsetFetchResponseTopic(
        name=topic.name,
        partitions=[
            OffsetFetchResponsePartition(
                partition_index=index, committed_offset=_NO_OFFSET, metadata="", error_code=error
            )
            for index in topic.partition_indexes
        ],
    )


def _group(
    ctx: GroupContext, version: int, asked: OffsetFetchRequestGroup
) -> OffsetFetchResponseGroup:
    answer = OffsetFetchResponseGroup(group_id=asked.group_id, topics=[])
    answer.error_code = ctx.coordinator.gate(asked.group_id)
    if answer.error_code:
        return answer
    if asked.topics is None:
        answer.topics = _all_topics(ctx, version, asked.group_id)
    else:
        answer.topics = [_topic(ctx, version, asked.group_id, topic) for topic in asked.topics]
        if version >= 10:
            # As Kafka answers: ids that name no topic come last.
            answer.topics.sort(key=lambda topic: not topic.name)
    return answer


def _topic(
    ctx: GroupContext, version: int, group_id: str, asked: OffsetFetchRequestTopics
) -> OffsetFetchResponseTopics:
    name: str | None = asked.name
    wanted_id = ZERO_ID
    if version >= 10:
        wanted_id = asked.topic_id
        name = ctx.topics.topic_name(wanted_id)
    answer = OffsetFetchResponseTopics(name=name or "", topic_id=wanted_id, partitions=[])
    for index in asked.partition_indexes:
        if not name:
            answer.partitions.append(_nothing(index, codes.UNKNOWN_TOPIC_ID))
            continue
        entry = ctx.coordinator.committed(group_id, name, index)
        if entry is None or _is_of_another_topic(entry, wanted_id):
            answer.partitions.append(_nothing(index, codes.NONE))
        else:
            answer.partitions.append(_partition(entry))
    return answer


def _is_of_another_topic(entry: OffsetEntry, wanted_id: bytes) -> bool:
    """A topic of the same name that was deleted since: its offsets say nothing about this one."""
    return wanted_id != ZERO_ID and entry.topic_id not in (ZERO_ID, wanted_id)


def _all_topics(ctx: GroupContext, version: int, group_id: str) -> list[OffsetFetchResponseTopics]:
    topics: dict[str, OffsetFetchResponseTopics | None] = {}
    for entry in ctx.coordinator.all_committed(group_id):
        if entry.topic not in topics:
            topic_id: bytes | None = ZERO_ID
            if version >= 10:
                topic_id = ctx.topics.topic_id(entry.topic)
            # By id, a topic that is gone cannot be named.
            topics[entry.topic] = (
                None
                if topic_id is None
                else OffsetFetchResponseTopics(name=entry.topic, topic_id=topic_id, partitions=[])
            )
        answer = topics[entry.topic]
        if answer is not None:
            answer.partitions.append(_partition(entry))
    return [topic for topic in topics.values() if topic is not None]


def _partition(entry: OffsetEntry) -> OffsetFetchResponsePartitions:
    return OffsetFetchResponsePartitions(
        partition_index=entry.partition,
        committed_offset=entry.offset,
        committed_leader_epoch=entry.leader_epoch,
        metadata=entry.metadata,
    )


def _nothing(index: int, error: int) -> OffsetFetchResponsePartitions:
    return OffsetFetchResponsePartitions(
        partition_index=index,
        committed_offset=_NO_OFFSET,
        committed_leader_epoch=-1,
        metadata="",
        error_code=error,
    )
