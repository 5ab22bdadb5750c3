"""IncrementalAlterConfigs 0-1: set, delete, append, subtract. Left out: alter.config.policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.handlers import config_resources as resources
from penstock.metadata import plan
from penstock.protocol.messages.incremental_alter_configs import (
    AlterConfigsResource,
    AlterConfigsResourceResponse,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penstock.handlers.context import Context, RequestHeader


async def handle(
    ctx: Context, header: RequestHeader, request: IncrementalAlterConfigsRequest
) -> IncrementalAlterConfigsResponse:
    outcomes = await resources.alter_each(
        request.resources, lambda one: _alter(ctx, one, request.validate_only)
    )
    responses = [
        AlterConfigsResourceResponse(
            error_code=code,
            error_message=message,
            resource_type=one.resource_type,
            resource_name=one.resource_name,
        )
        for one, code, message in outcomes
    ]
    return IncrementalAlterConfigsResponse(responses=responses)


async def _alter(ctx: Context, resource: AlterConfigsResource, validate_only: bool) -> None:
    kind = resource.resource_type
    operations = [(one.name, one.config_operation, one.value) for one in resource.configs]
    if kind == resources.BROKER_LOGGER:
        resources.check_logger_broker(ctx, resource.resource_name)
        resources.alter_loggers(operations, validate_only)
        return

    def change_of(rules: resources.Rules) -> resources.Change:
        def change(present: Mapping[str, str]) -> dict[str, str]:
            new = plan.incremental(present, operations, rules.default_of, rules.is_list)
            rules.check(new, present)
            return new

        return change

    await resources.alter(ctx, kind, resource.resource_name, change_of, validate_only)
