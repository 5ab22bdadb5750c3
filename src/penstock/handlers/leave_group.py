"""LeaveGroup (key 13), versions 0-5: members go, or an administrator removes them.

Up to 2 one member and one code; 3 many members, also by instance id alone (KIP-345); 5 a reason
(not kept). Left out: groups of other kinds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.groups.deferred import Deferred
from penstock.protocol.messages.leave_group import (
    LeaveGroupRequest,
    LeaveGroupResponse,
    MemberResponse,
)

if TYPE_CHECKING:
    from penstock.groups.context import GroupContext
    from penstock.groups.ports import RequestHeader
    from penstock.groups.state import LeaveResult


def handle(
    ctx: GroupContext, header: RequestHeader, request: LeaveGroupRequest
) -> LeaveGroupResponse | Deferred[LeaveGroupResponse]:
    version = header.api_version
    if version < 3:
        members: tuple[tuple[str, str | None], ...] = ((request.member_id, None),)
    else:
        members = tuple((m.member_id, m.group_instance_id) for m in request.members)
    result = ctx.coordinator.leave(group_id=request.group_id, members=members)
    if result.done():
        return _response(result.result(), version)
    answer: Deferred[LeaveGroupResponse] = Deferred()
    result.add_done_callback(lambda done: answer.set_result(_response(done.result(), version)))
    return answer


def _response(result: LeaveResult, version: int) -> LeaveGroupResponse:
    if version < 3:
        error = result.error or (result.members[0][2] if result.members else 0)
        return LeaveGroupResponse(error_code=error)
    return LeaveGroupResponse(
        error_code=result.error,
        members=[
            MemberResponse(member_id=member_id, group_instance_id=instance_id, error_code=error)
            for member_id, instance_id, error in result.members
        ],
    )
