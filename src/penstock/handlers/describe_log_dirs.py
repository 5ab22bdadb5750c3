"""DescribeLogDirs 1-5. Without followers the offset lag is 0; directories are never cordoned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.protocol.messages.describe_log_dirs import (
    DescribeLogDirsPartition,
    DescribeLogDirsRequest,
    DescribeLogDirsResponse,
    DescribeLogDirsResult,
    DescribeLogDirsTopic,
)

if TYPE_CHECKING:
    from penstock.engine_port import LogDirInfo
    from penstock.handlers.context import Context, RequestHeader


def handle(
    ctx: Context, header: RequestHeader, request: DescribeLogDirsRequest
) -> DescribeLogDirsResponse:
    wanted: set[tuple[str, int]] | None = None
    if isinstance(request.topics, list):
        wanted = {(one.topic, partition) for one in request.topics for partition in one.partitions}
    return DescribeLogDirsResponse(
        results=[_result(ctx, one, wanted) for one in ctx.engine.describe_log_dirs()]
    )


def _result(
    ctx: Context, info: LogDirInfo, wanted: set[tuple[str, int]] | None
) -> DescribeLogDirsResult:
    topics: dict[str, list[DescribeLogDirsPartition]] = {}
    for one in info.partitions:
        topic = ctx.topics.index.by_id(one.topic_id)
        if topic is None or (wanted is not None and (topic.name, one.partition) not in wanted):
            continue
        topics.setdefault(topic.name, []).append(
            DescribeLogDirsPartition(
                partition_index=one.partition,
                partition_size=one.size_bytes,
                offset_lag=0,
                is_future_key=False,
            )
        )
    return DescribeLogDirsResult(
        error_code=info.error,
        log_dir=info.path,
        total_bytes=info.total_bytes,
        usable_bytes=info.usable_bytes,
        topics=[
            DescribeLogDirsTopic(name=name, partitions=partitions)
            for name, partitions in topics.items()
        ],
    )
