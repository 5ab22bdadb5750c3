"""DescribeConfigs 1-4: topics, brokers, their loggers, groups, client metrics subscriptions.

Documentation is given for topic configurations and the broker keys behind them. Loggers are ours
(root and penstock), not Kafka's class names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.errors import KafkaError
from penstock.handlers.config_resources import TOPIC, entries_of
from penstock.protocol.messages.describe_configs import (
    DescribeConfigsRequest,
    DescribeConfigsResource,
    DescribeConfigsResourceResult,
    DescribeConfigsResponse,
    DescribeConfigsResult,
    DescribeConfigsSynonym,
)

if TYPE_CHECKING:
    from penstock.config.describe import Entry
    from penstock.handlers.context import Context, RequestHeader


def handle(
    ctx: Context, header: RequestHeader, request: DescribeConfigsRequest
) -> DescribeConfigsResponse:
    return DescribeConfigsResponse(
        results=[_describe(ctx, one, request) for one in request.resources]
    )


def _describe(
    ctx: Context, resource: DescribeConfigsResource, request: DescribeConfigsRequest
) -> DescribeConfigsResult:
    try:
        entries = entries_of(ctx, resource.resource_type, resource.resource_name)
    except KafkaError as error:
        return DescribeConfigsResult(
            error_code=error.code,
            error_message=error.message,
            resource_type=resource.resource_type,
            resource_name=resource.resource_name,
        )
    if resource.configuration_keys:
        wanted = set(resource.configuration_keys)
        entries = [entry for entry in entries if entry.name in wanted]
    docs = _documentation(resource.resource_type) if request.include_documentation else {}
    return DescribeConfigsResult(
        error_code=0,
        error_message=None,
        resource_type=resource.resource_type,
        resource_name=resource.resource_name,
        configs=[_result(entry, request.include_synonyms, docs) for entry in entries],
    )


def _documentation(kind: int) -> dict[str, str]:
    from penstock.config.topic_docs import TOPIC_DOCS
    from penstock.config.topic_keys import TOPIC_KEYS

    if kind == TOPIC:
        return TOPIC_DOCS
    return {
        key: f"Default of the topic configuration {name}. {TOPIC_DOCS[name]}"
        for name, row in TOPIC_KEYS.items()
        for key, _ in row[4]
    }


def _result(
    entry: Entry, include_synonyms: bool, docs: dict[str, str]
) -> DescribeConfigsResourceResult:
    synonyms = entry.synonyms if include_synonyms else ()
    return DescribeConfigsResourceResult(
        name=entry.name,
        value=entry.value,
        read_only=entry.read_only,
        config_source=entry.source,
        is_sensitive=entry.sensitive,
        synonyms=[
            DescribeConfigsSynonym(name=one.name, value=one.value, source=one.source)
            for one in synonyms
        ],
        config_type=entry.type,
        documentation=docs.get(entry.name),
    )
