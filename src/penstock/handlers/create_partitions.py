"""CreatePartitions 0-3. Left out: throttling by mutation quota."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.errors import KafkaError
from penstock.protocol import errors_table as codes
from penstock.protocol.messages.create_partitions import (
    CreatePartitionsRequest,
    CreatePartitionsResponse,
    CreatePartitionsTopic,
    CreatePartitionsTopicResult,
)

if TYPE_CHECKING:
    from penstock.handlers.context import Context, RequestHeader


async def handle(
    ctx: Context, header: RequestHeader, request: CreatePartitionsRequest
) -> CreatePartitionsResponse:
    names = [topic.name for topic in request.topics]
    results = [
        _result(name, codes.INVALID_REQUEST, "Duplicate topic name.")
        for name in dict.fromkeys(name for name in names if names.count(name) > 1)
    ]
    for topic in request.topics:
        if names.count(topic.name) == 1:
            results.append(await _grow(ctx, topic, request.validate_only))  # noqa: PERF401
    return CreatePartitionsResponse(results=results)


async def _grow(
    ctx: Context, topic: CreatePartitionsTopic, validate_only: bool
) -> CreatePartitionsTopicResult:
    assignments = None
    if isinstance(topic.assignments, list):
        assignments = [one.broker_ids for one in topic.assignments]
    try:
        await ctx.topics.create_partitions(
            topic.name, topic.count, assignments, validate_only=validate_only
        )
    except KafkaError as error:
        return _result(topic.name, error.code, error.message)
    return _result(topic.name, 0, None)


def _result(name: str, code: int, message: str | None) -> CreatePartitionsTopicResult:
    return CreatePartitionsTopicResult(name=name, error_code=code, error_message=message)
