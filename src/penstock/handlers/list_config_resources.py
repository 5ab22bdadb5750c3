"""ListConfigResources 0-1. Version 0 lists client metrics subscriptions only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.handlers import config_resources as resources
from penstock.protocol import errors_table as codes
from penstock.protocol.messages.list_config_resources import (
    ConfigResource,
    ListConfigResourcesRequest,
    ListConfigResourcesResponse,
)

if TYPE_CHECKING:
    from penstock.handlers.context import Context, RequestHeader


def handle(
    ctx: Context, header: RequestHeader, request: ListConfigResourcesRequest
) -> ListConfigResourcesResponse:
    if header.api_version == 0:
        kinds = [resources.CLIENT_METRICS]
    else:
        kinds = list(dict.fromkeys(request.resource_types)) or list(resources.KINDS)
    if any(kind not in resources.KINDS for kind in kinds):
        return ListConfigResourcesResponse(error_code=codes.UNSUPPORTED_VERSION)
    return ListConfigResourcesResponse(
        config_resources=[
            ConfigResource(resource_name=name, resource_type=kind)
            for kind in kinds
            for name in _names(ctx, kind)
        ]
    )


def _names(ctx: Context, kind: int) -> list[str]:
    if kind == resources.TOPIC:
        return sorted(topic.name for topic in ctx.topics.index)
    if kind in (resources.BROKER, resources.BROKER_LOGGER):
        return [str(broker) for broker in ctx.topics.brokers]
    stored = "group" if kind == resources.GROUP else "client-metrics"
    return sorted(name for found, name in ctx.topics.resource_configs if found == stored)
