"""AlterConfigs 0-2: replaces all overrides of a resource. Left out: alter.config.policy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.errors import KafkaError
from penstock.handlers import config_resources as resources
from penstock.metadata import plan
from penstock.protocol import errors_table as codes
from penstock.protocol.messages.alter_configs import (
    AlterConfigsRequest,
    AlterConfigsResource,
    AlterConfigsResourceResponse,
    AlterConfigsResponse,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from penstock.handlers.context import Context, RequestHeader


async def handle(
    ctx: Context, header: RequestHeader, request: AlterConfigsRequest
) -> AlterConfigsResponse:
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
    return AlterConfigsResponse(responses=responses)


async def _alter(ctx: Context, resource: AlterConfigsResource, validate_only: bool) -> None:
    kind = resource.resource_type
    if kind == resources.BROKER_LOGGER:
        raise KafkaError(codes.INVALID_REQUEST, f"Unexpected resource type {kind}.")
    operations = [(one.name, plan.SET, one.value) for one in resource.configs]

    def change_of(rules: resources.Rules) -> resources.Change:
        def change(present: Mapping[str, str]) -> dict[str, str]:
            new = plan.incremental({}, operations, rules.default_of, rules.is_list)
            rules.check(new, present)
            return new

        return change

    await resources.alter(ctx, kind, resource.resource_name, change_of, validate_only)
