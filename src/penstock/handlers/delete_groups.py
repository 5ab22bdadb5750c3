"""DeleteGroups (key 42), versions 0-3: delete empty groups with their committed offsets.

3 adds a message per group, which Kafka leaves null for everything that can happen here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.groups.deferred import Deferred
from penstock.protocol.messages.delete_groups import (
    DeletableGroupResult,
    DeleteGroupsRequest,
    DeleteGroupsResponse,
)

if TYPE_CHECKING:
    from penstock.groups.context import GroupContext
    from penstock.groups.ports import RequestHeader


def handle(
    ctx: GroupContext, _header: RequestHeader, request: DeleteGroupsRequest
) -> DeleteGroupsResponse | Deferred[DeleteGroupsResponse]:
    result = ctx.coordinator.delete_groups(request.groups_names)
    if result.done():
        return _response(result.result())
    answer: Deferred[DeleteGroupsResponse] = Deferred()
    result.add_done_callback(lambda done: answer.set_result(_response(done.result())))
    return answer


def _response(results: dict[str, int]) -> DeleteGroupsResponse:
    return DeleteGroupsResponse(
        results=[
            DeletableGroupResult(group_id=group_id, error_code=error)
            for group_id, error in results.items()
        ]
    )
