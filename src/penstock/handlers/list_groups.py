"""ListGroups (key 16), versions 0-5: the groups this broker coordinates.

4 adds states and a filter on them (KIP-518), 5 types and a filter on them (KIP-848); both filters
ignore case. Left out: nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.groups import codes
from penstock.groups.classic_group import ClassicGroup
from penstock.protocol.messages.list_groups import (
    ListedGroup,
    ListGroupsRequest,
    ListGroupsResponse,
)

if TYPE_CHECKING:
    from penstock.groups.context import GroupContext
    from penstock.groups.ports import RequestHeader


def handle(
    ctx: GroupContext, _header: RequestHeader, request: ListGroupsRequest
) -> ListGroupsResponse:
    if ctx.coordinator.gate("") == codes.COORDINATOR_NOT_AVAILABLE:
        return ListGroupsResponse(error_code=codes.COORDINATOR_NOT_AVAILABLE, groups=[])
    states = {state.lower().strip() for state in request.states_filter or ()}
    types = {kind.lower() for kind in request.types_filter or ()}
    groups: list[ListedGroup] = []
    for group in ctx.coordinator.groups():
        if not isinstance(group, ClassicGroup) or (types and group.kind not in types):
            continue
        if states and group.state.lower() not in states:
            continue
        groups.append(
            ListedGroup(
                group_id=group.group_id,
                protocol_type=group.protocol_type or "",
                group_state=group.state,
                group_type=group.kind,
            )
        )
    return ListGroupsResponse(groups=groups)
