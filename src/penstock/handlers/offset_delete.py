"""OffsetDelete (key 47), version 0: forget committed offsets of topics nobody in the group reads.

Left out: nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.groups import codes
from penstock.groups.deferred import Deferred
from penstock.protocol.messages.offset_delete import (
    OffsetDeleteRequest,
    OffsetDeleteResponse,
    OffsetDeleteResponsePartition,
    OffsetDeleteResponseTopic,
)

if TYPE_CHECKING:
    from penstock.groups.context import GroupContext
    from penstock.groups.ports import RequestHeader


def handle(
    ctx: GroupContext, _header: RequestHeader, request: OffsetDeleteRequest
) -> OffsetDeleteResponse | Deferred[OffsetDeleteResponse]:
    known: list[tuple[str, list[int]]] = []
    for topic in request.topics:
        count = ctx.topics.partition_count(topic.name)
        indexes = [p.partition_index for p in topic.partitions if 0 <= p.partition_index < count]
        if indexes:
            known.append((topic.name, indexes))
    result = ctx.coordinator.delete_offsets(request.group_id, known)
    asked = dict(known)
    if result.done():
        return _response(request, asked, *result.result())
    answer: Deferred[OffsetDeleteResponse] = Deferred()
    result.add_done_callback(
        lambda done: answer.set_result(_response(request, asked, *done.result()))
    )
    return answer


def _response(
    request: OffsetDeleteRequest, known: dict[str, list[int]], error: int, kept: frozenset[str]
) -> OffsetDeleteResponse:
    if error:
        return OffsetDeleteResponse(error_code=error, topics=[])
    topics: list[OffsetDeleteResponseTopic] = []
    for topic in request.topics:
        valid = frozenset(known.get(topic.name, ()))
        done = codes.GROUP_SUBSCRIBED_TO_TOPIC if topic.name in kept else codes.NONE
        topics.append(
            OffsetDeleteResponseTopic(
                name=topic.name,
                partitions=[
                    OffsetDeleteResponsePartition(
                        partition_index=p.partition_index,
                        error_code=(
                            done if p.partition_index in valid else codes.UNKNOWN_TOPIC_OR_PARTITION
                        ),
                    )
                    for p in topic.partitions
                ],
            )
        )
    return OffsetDeleteResponse(topics=topics)
