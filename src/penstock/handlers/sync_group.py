"""SyncGroup (key 14), versions 0-5: the leader hands in the assignment, every member gets its own.

5 makes protocol type and name mandatory (KIP-559). Left out: groups of other kinds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.groups import codes
from penstock.groups.deferred import Deferred
from penstock.protocol.messages.sync_group import SyncGroupRequest, SyncGroupResponse

if TYPE_CHECKING:
    from penstock.groups.context import GroupContext
    from penstock.groups.ports import RequestHeader
    from penstock.groups.state import SyncResult


def handle(
    ctx: GroupContext, header: RequestHeader, request: SyncGroupRequest
) -> SyncGroupResponse | Deferred[SyncGroupResponse]:
    if header.api_version >= 5 and (request.protocol_type is None or request.protocol_name is None):
        return SyncGroupResponse(error_code=codes.INCONSISTENT_GROUP_PROTOCOL)
    result = ctx.coordinator.sync(
        group_id=request.group_id,
        member_id=request.member_id,
        instance_id=request.group_instance_id,
        generation=request.generation_id,
        protocol_type=request.protocol_type,
        protocol_name=request.protocol_name,
        assignments={a.member_id: bytes(a.assignment) for a in request.assignments},
    )
    if result.done():
        return _response(result.result())
    answer: Deferred[SyncGroupResponse] = Deferred()
    result.add_done_callback(lambda done: answer.set_result(_response(done.result())))
    return answer


def _response(result: SyncResult) -> SyncGroupResponse:
    return SyncGroupResponse(
        error_code=result.error,
        protocol_type=result.protocol_type,
        protocol_name=result.protocol_name,
        assignment=result.assignment,
    )
