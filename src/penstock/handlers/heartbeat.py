"""Heartbeat (key 12), versions 0-4: keep a member's session, and learn of a rebalance.

3 adds the instance id (KIP-345). Left out: groups of other kinds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.protocol.messages.heartbeat import HeartbeatRequest, HeartbeatResponse

if TYPE_CHECKING:
    from penstock.groups.context import GroupContext
    from penstock.groups.ports import RequestHeader


def handle(
    ctx: GroupContext, _header: RequestHeader, request: HeartbeatRequest
) -> HeartbeatResponse:
    return HeartbeatResponse(
        error_code=ctx.coordinator.heartbeat(
            request.group_id, request.member_id, request.group_instance_id, request.generation_id
        )
    )
