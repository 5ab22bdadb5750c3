"""JoinGroup (key 11), versions 0-9: become a member of a classic group and wait for its rebalance.

4 asks new dynamic members to come back with the id they are given (KIP-394), 5 adds static members
(KIP-345), 7 the protocol type, 8 a reason (not kept), 9 SkipAssignment (KIP-814). Left out: joining
a KIP-848 group with this request (that kind of group is not served yet).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.groups.deferred import Deferred
from penstock.protocol.messages.join_group import (
    JoinGroupRequest,
    JoinGroupResponse,
    JoinGroupResponseMember,
)

if TYPE_CHECKING:
    from penstock.groups.context import GroupContext
    from penstock.groups.ports import RequestHeader
    from penstock.groups.state import JoinResult


def handle(
    ctx: GroupContext, header: RequestHeader, request: JoinGroupRequest
) -> JoinGroupResponse | Deferred[JoinGroupResponse]:
    version = header.api_version
    result = ctx.coordinator.join(
        group_id=request.group_id,
        member_id=request.member_id,
        instance_id=request.group_instance_id,
        client_id=header.client_id or "",
        client_host=f"/{header.client_host}",
        session_timeout_ms=request.session_timeout_ms,
        rebalance_timeout_ms=(
            request.session_timeout_ms if version == 0 else request.rebalance_timeout_ms
        ),
        protocol_type=request.protocol_type,
        protocols=tuple((p.name, bytes(p.metadata)) for p in request.protocols),
        api_version=version,
    )
    if result.done():
        return _response(result.result(), version)
    answer: Deferred[JoinGroupResponse] = Deferred()
    result.add_done_callback(lambda done: answer.set_result(_response(done.result(), version)))
    return answer


def _response(result: JoinResult, version: int) -> JoinGroupResponse:
    protocol_name = result.protocol_name
    if protocol_name is None and version < 7:
        protocol_name = ""
    return JoinGroupResponse(
        error_code=result.error,
        generation_id=result.generation,
        protocol_type=result.protocol_type,
        protocol_name=protocol_name,
        leader=result.leader,
        skip_assignment=result.skip_assignment,
        member_id=result.member_id,
        members=[
            JoinGroupResponseMember(
                member_id=member_id, group_instance_id=instance_id, metadata=metadata
            )
            for member_id, instance_id, metadata in result.members
        ],
    )
