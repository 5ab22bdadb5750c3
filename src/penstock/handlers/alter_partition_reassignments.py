"""AlterPartitionReassignments 0-1.

A broker alone holds every replica, so a valid target is where the replicas are already: it is
checked as Kafka's controller checks it, and nothing moves. Hence no reassignment is ever in
progress that null replicas could cancel, and the replication factor (1) cannot change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.errors import KafkaError
from penstock.metadata.plan import check_assignment
from penstock.protocol import errors_table as codes
from penstock.protocol.messages.alter_partition_reassignments import (
    AlterPartitionReassignmentsRequest,
    AlterPartitionReassignmentsResponse,
    ReassignablePartition,
    ReassignablePartitionResponse,
    ReassignableTopicResponse,
)

if TYPE_CHECKING:
    from penstock.handlers.context import Context, RequestHeader


def handle(
    ctx: Context, header: RequestHeader, request: AlterPartitionReassignmentsRequest
) -> AlterPartitionReassignmentsResponse:
    return AlterPartitionReassignmentsResponse(
        allow_replication_factor_change=request.allow_replication_factor_change,
        error_message=None,
        responses=[
            ReassignableTopicResponse(
                name=topic.name,
                partitions=[_reassign(ctx, topic.name, one) for one in topic.partitions],
            )
            for topic in request.topics
        ],
    )


def _reassign(
    ctx: Context, name: str, wanted: ReassignablePartition
) -> ReassignablePartitionResponse:
    answer = ReassignablePartitionResponse(
        partition_index=wanted.partition_index, error_message=None
    )
    try:
        _check(ctx, name, wanted)
    except KafkaError as error:
        answer.error_code, answer.error_message = error.code, error.message
    return answer


def _check(ctx: Context, name: str, wanted: ReassignablePartition) -> None:
    topic = ctx.topics.index.get(name)
    if topic is None:
        raise KafkaError(codes.UNKNOWN_TOPIC_OR_PARTITION, f"Unable to find a topic named {name}.")
    if not 0 <= wanted.partition_index < len(topic.partitions):
        raise KafkaError(
            codes.UNKNOWN_TOPIC_OR_PARTITION,
            f"Unable to find partition {name}:{wanted.partition_index}.",
        )
    if wanted.replicas is None:
        code = codes.NO_REASSIGNMENT_IN_PROGRESS
        raise KafkaError(code, codes.ERRORS[code].message)
    check_assignment(wanted.replicas, -1, ctx.topics.brokers)
