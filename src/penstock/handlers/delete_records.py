"""DeleteRecords 0-2. With one replica the low watermark is reached at once: no waiting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.errors import EngineError
from penstock.metadata.topic_config import effective_value
from penstock.protocol import errors_table as codes
from penstock.protocol.messages.delete_records import (
    DeleteRecordsPartitionResult,
    DeleteRecordsRequest,
    DeleteRecordsResponse,
    DeleteRecordsTopicResult,
)

if TYPE_CHECKING:
    from penstock.handlers.context import Context, RequestHeader
    from penstock.metadata.model import Topic


def handle(
    ctx: Context, header: RequestHeader, request: DeleteRecordsRequest
) -> DeleteRecordsResponse:
    return DeleteRecordsResponse(
        topics=[
            DeleteRecordsTopicResult(
                name=topic.name,
                partitions=[
                    _delete(ctx, topic.name, one.partition_index, one.offset)
                    for one in topic.partitions
                ],
            )
            for topic in request.topics
        ]
    )


def _delete(ctx: Context, name: str, partition: int, offset: int) -> DeleteRecordsPartitionResult:
    low_watermark, code = -1, 0
    topic = ctx.topics.index.get(name)
    if topic is None or not 0 <= partition < len(topic.partitions):
        code = codes.UNKNOWN_TOPIC_OR_PARTITION
    elif topic.is_internal:
        code = codes.INVALID_TOPIC_EXCEPTION
    elif not _may_delete(ctx, topic):
        code = codes.POLICY_VIOLATION
    elif offset < -1:
        code = codes.OFFSET_OUT_OF_RANGE
    else:
        try:
            low_watermark = ctx.engine.delete_records(topic.topic_id, partition, offset)
        except EngineError as error:
            code = error.kafka_code
    return DeleteRecordsPartitionResult(
        partition_index=partition, low_watermark=low_watermark, error_code=code
    )


def _may_delete(ctx: Context, topic: Topic) -> bool:
    policy = effective_value("cleanup.policy", topic.configs, ctx.config)
    return isinstance(policy, list) and "delete" in policy
