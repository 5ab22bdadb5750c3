"""CreateTopics 2-7. Left out: throttling by controller mutation quota, create.topic.policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.config.describe import topic_entries
from penstock.errors import KafkaError
from penstock.metadata.plan import NewTopic
from penstock.protocol.messages.create_topics import (
    CreatableTopic,
    CreatableTopicConfigs,
    CreatableTopicResult,
    CreateTopicsRequest,
    CreateTopicsResponse,
)

if TYPE_CHECKING:
    from penstock.handlers.context import Context, RequestHeader
    from penstock.metadata.model import Topic


async def handle(
    ctx: Context, header: RequestHeader, request: CreateTopicsRequest
) -> CreateTopicsResponse:
    specs = [_spec(topic) for topic in request.topics]
    outcomes = await ctx.topics.create_topics(specs, validate_only=request.validate_only)
    results: list[CreatableTopicResult] = []
    refused: set[str] = set()
    for spec, outcome in zip(specs, outcomes, strict=True):
        if isinstance(outcome, KafkaError):
            # A name given twice is answered once, as in Kafka.
            if spec.name not in refused:
                refused.add(spec.name)
                results.append(_failure(spec.name, outcome))
        else:
            results.append(_success(ctx, outcome))
    return CreateTopicsResponse(topics=results)


def _spec(topic: CreatableTopic) -> NewTopic:
    return NewTopic(
        name=topic.name,
        partitions=topic.num_partitions,
        replication_factor=topic.replication_factor,
        assignments=[(one.partition_index, one.broker_ids) for one in topic.assignments],
        configs=[(one.name, one.value) for one in topic.configs],
    )


def _failure(name: str, error: KafkaError) -> CreatableTopicResult:
    return CreatableTopicResult(name=name, error_code=error.code, error_message=error.message)


def _success(ctx: Context, topic: Topic) -> CreatableTopicResult:
    configs = [
        CreatableTopicConfigs(
            name=entry.name,
            value=entry.value,
            read_only=entry.read_only,
            config_source=entry.source,
            is_sensitive=entry.sensitive,
        )
        for entry in topic_entries(topic.configs, ctx.config)
    ]
    return CreatableTopicResult(
        name=topic.name,
        topic_id=topic.topic_id,
        error_code=0,
        error_message=None,
        num_partitions=len(topic.partitions),
        replication_factor=topic.replication_factor,
        configs=configs,
    )
