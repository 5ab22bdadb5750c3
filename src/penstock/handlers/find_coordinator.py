"""FindCoordinator (key 10), versions 0-6: which broker coordinates a group.

1 adds the key type, 4 many keys at once (KIP-699), 6 share coordinators (KIP-932). The first
request for a group creates `__consumer_offsets`. Left out: transaction coordinators (the code is
one that clients do not retry) and share coordinators (INVALID_REQUEST).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.groups import codes
from penstock.protocol.messages.find_coordinator import (
    Coordinator,
    FindCoordinatorRequest,
    FindCoordinatorResponse,
)

if TYPE_CHECKING:
    from penstock.groups.context import GroupContext
    from penstock.groups.ports import RequestHeader

GROUP = 0
TRANSACTION = 1

_NOWHERE = (-1, "", -1)


def handle(
    ctx: GroupContext, header: RequestHeader, request: FindCoordinatorRequest
) -> FindCoordinatorResponse:
    key_type = request.key_type if header.api_version >= 1 else GROUP
    error, (node_id, host, port) = _find(ctx, header, key_type)
    if header.api_version >= 4:
        return FindCoordinatorResponse(
            coordinators=[
                Coordinator(key=key, node_id=node_id, host=host, port=port, error_code=error)
                for key in request.coordinator_keys
            ]
        )
    return FindCoordinatorResponse(
        error_code=error,
        # Kafka spells success out as well.
        error_message=codes.MESSAGES.get(error) if error else "NONE",
        node_id=node_id,
        host=host,
        port=port,
    )


def _find(
    ctx: GroupContext, header: RequestHeader, key_type: int
) -> tuple[int, tuple[int, str, int]]:
    if key_type == TRANSACTION:
        return codes.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, _NOWHERE
    if key_type != GROUP:
        return codes.INVALID_REQUEST, _NOWHERE
    if ctx.offsets_topic.partition_count() == 0:
        ctx.offsets_topic.create()
        if ctx.offsets_topic.partition_count() == 0:
            # Still being created: the client asks again.
            return codes.COORDINATOR_NOT_AVAILABLE, _NOWHERE
    return codes.NONE, ctx.offsets_topic.endpoint(header)
