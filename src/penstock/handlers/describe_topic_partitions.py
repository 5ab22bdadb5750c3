"""DescribeTopicPartitions 0, in pages: topics by name, partitions by number, a cursor for more.

Eligible leader replicas are empty: a broker alone has none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.handlers.context import TOPIC_OPERATIONS
from penstock.metadata.names import ZERO_ID, name_problem
from penstock.protocol import errors_table as codes
from penstock.protocol.messages.describe_topic_partitions import (
    DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsResponse,
    DescribeTopicPartitionsResponsePartition,
    DescribeTopicPartitionsResponseTopic,
)
from penstock.protocol.messages.describe_topic_partitions import (
    DescribeTopicPartitionsResponseCursor as Cursor,
)

if TYPE_CHECKING:
    from penstock.handlers.context import Context, RequestHeader
    from penstock.metadata.model import Topic


def handle(
    ctx: Context, header: RequestHeader, request: DescribeTopicPartitionsRequest
) -> DescribeTopicPartitionsResponse:
    first_name, first_partition = "", 0
    if request.cursor is not None:
        first_name = request.cursor.topic_name
        first_partition = request.cursor.partition_index
    everything = not request.topics
    names = (
        [topic.name for topic in ctx.topics.index]
        if everything
        else [topic.name for topic in request.topics]
    )
    ceiling = ctx.config.integer("max.request.partition.size.limit")
    left = max(min(request.response_partition_limit, ceiling), 1)
    response = DescribeTopicPartitionsResponse()
    for name in sorted(set(names)):
        if name < first_name:
            continue
        topic = ctx.topics.index.get(name)
        if topic is None:
            response.topics.append(_unknown(name))
            continue
        start = max(first_partition, 0) if name == first_name else 0
        if left == 0:
            response.next_cursor = Cursor(topic_name=name, partition_index=start)
            break
        page = _page(topic, start, left)
        response.topics.append(page)
        left -= len(page.partitions)
        end = start + len(page.partitions)
        if end < len(topic.partitions):
            response.next_cursor = Cursor(topic_name=name, partition_index=end)
            break
    return response


def _unknown(name: str) -> DescribeTopicPartitionsResponseTopic:
    bad = name_problem(name) is not None
    return DescribeTopicPartitionsResponseTopic(
        error_code=codes.INVALID_TOPIC_EXCEPTION if bad else codes.UNKNOWN_TOPIC_OR_PARTITION,
        name=name,
        topic_id=ZERO_ID,
    )


def _page(topic: Topic, start: int, limit: int) -> DescribeTopicPartitionsResponseTopic:
    return DescribeTopicPartitionsResponseTopic(
        error_code=0,
        name=topic.name,
        topic_id=topic.topic_id,
        is_internal=topic.is_internal,
        topic_authorized_operations=TOPIC_OPERATIONS,
        partitions=[
            DescribeTopicPartitionsResponsePartition(
                error_code=0,
                partition_index=start + at,
                leader_id=one.leader,
                leader_epoch=one.leader_epoch,
                replica_nodes=list(one.replicas),
                isr_nodes=list(one.isr),
                eligible_leader_replicas=[],
                last_known_elr=[],
                offline_replicas=[],
            )
            for at, one in enumerate(topic.partitions[start : start + limit])
        ],
    )
