"""OffsetCommit (key 8), versions 2-10: store offsets for a member, or for a group without members.

2-4 carry a retention of their own, 6 adds the leader epoch, 7 the instance id (KIP-345), 9 answers
GROUP_ID_NOT_FOUND for an unknown group, 10 names topics by id. Left out: fencing by the member
epoch of KIP-848 groups, transactional commits (another request).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.groups import codes
from penstock.groups.deferred import Deferred
from penstock.groups.ports import ZERO_ID, RequestHeader
from penstock.protocol.messages.offset_commit import (
    OffsetCommitRequest,
    OffsetCommitResponse,
    OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
)

if TYPE_CHECKING:
    from penstock.groups.context import GroupContext
    from penstock.groups.coordinator import Commit


def handle(
    ctx: GroupContext, header: RequestHeader, request: OffsetCommitRequest
) -> OffsetCommitResponse | Deferred[OffsetCommitResponse]:
    by_id = header.api_version >= 10
    commits: list[Commit] = []
    waiting: list[OffsetCommitResponsePartition] = []
    valid = False
    response = OffsetCommitResponse(topics=[])
    limit = ctx.coordinator.settings.offset_metadata_max_bytes
    for topic in request.topics:
        partitions: list[OffsetCommitResponsePartition] = []
        name: str | None
        topic_id: bytes | None
        if by_id:
            topic_id = topic.topic_id
            name = ctx.topics.topic_name(topic_id)
            missing = codes.UNKNOWN_TOPIC_ID
        else:
            name = topic.name
            topic_id = ctx.topics.topic_id(name)
            missing = codes.UNKNOWN_TOPIC_OR_PARTITION
        response.topics.append(
            OffsetCommitResponseTopic(
                name=name or topic.name, topic_id=topic_id or ZERO_ID, partitions=partitions
            )
        )
        if name is None or topic_id is None:
            partitions.extend(
                OffsetCommitResponsePartition(
                    partition_index=asked.partition_index, error_code=missing
                )
                for asked in topic.partitions
            )
            continue
        count = ctx.topics.partition_count(name)
        for asked in topic.partitions:
            answer = OffsetCommitResponsePartition(partition_index=asked.partition_index)
            partitions.append(answer)
            metadata = asked.committed_metadata or ""
            if not 0 <= asked.partition_index < count:
                answer.error_code = codes.UNKNOWN_TOPIC_OR_PARTITION
                continue
            valid = True
            waiting.append(answer)
            if len(metadata) > limit:
                answer.error_code = codes.OFFSET_METADATA_TOO_LARGE
            else:
                commits.append(
                    (
                        topic_id,
                        name,
                        asked.partition_index,
                        asked.committed_offset,
                        asked.committed_leader_epoch,
                        metadata,
                    )
                )
    if not valid:
        return response
    outcome = ctx.coordinator.commit(
        group_id=request.group_id,
        member_id=request.member_id,
        instance_id=request.group_instance_id,
        generation=request.generation_id_or_member_epoch,
        api_version=header.api_version,
        retention_ms=request.retention_time_ms,
        commits=commits,
    )
    if isinstance(outcome, int):
        return _answered(response, waiting, outcome)
    later: Deferred[OffsetCommitResponse] = Deferred()
    outcome.add_done_callback(
        lambda done: later.set_result(_answered(response, waiting, done.result()))
    )
    return later


def _answered(
    response: OffsetCommitResponse, waiting: list[OffsetCommitResponsePartition], error: int
) -> OffsetCommitResponse:
    if error:
        # The group's answer comes before what is wrong with one partition's metadata.
        for partition in waiting:
            partition.error_code = error
    return response
