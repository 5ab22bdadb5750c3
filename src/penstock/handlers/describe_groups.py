"""DescribeGroups (key 15), versions 0-6: state and members of classic groups.

3 adds authorized operations (all of them: there is no authorizer), 4 the instance id, 6
GROUP_ID_NOT_FOUND with a message instead of a dead group (KIP-1043). Left out: other kinds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.groups import codes
from penstock.groups.classic_group import DEAD, STABLE, ClassicGroup
from penstock.protocol.messages.describe_groups import (
    DescribedGroup,
    DescribedGroupMember,
    DescribeGroupsRequest,
    DescribeGroupsResponse,
)

if TYPE_CHECKING:
    from penstock.groups.context import GroupContext
    from penstock.groups.ports import RequestHeader

# What Kafka answers without an authorizer: READ, DELETE, DESCRIBE, DESCRIBE_CONFIGS and
# ALTER_CONFIGS of a group, as bits of AclOperation.
_ALL_OPERATIONS = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11


def handle(
    ctx: GroupContext, header: RequestHeader, request: DescribeGroupsRequest
) -> DescribeGroupsResponse:
    return DescribeGroupsResponse(
        groups=[
            _describe(ctx, header.api_version, group_id, request.include_authorized_operations)
            for group_id in request.groups
        ]
    )


def _describe(
    ctx: GroupContext, version: int, group_id: str, with_operations: bool
) -> DescribedGroup:
    error = ctx.coordinator.gate(group_id)
    if error:
        return DescribedGroup(group_id=group_id, error_code=error)
    group = ctx.coordinator.group(group_id)
    if not isinstance(group, ClassicGroup):
        answer = DescribedGroup(group_id=group_id, group_state=DEAD)
        if version >= 6:
            answer.error_code = codes.GROUP_ID_NOT_FOUND
            answer.error_message = (
                f"Group {group_id} not found."
                if group is None
                else f"Group {group_id} is not a classic group."
            )
    else:
        stable = group.state == STABLE
        answer = DescribedGroup(
            group_id=group_id,
            group_state=group.state,
            protocol_type=group.protocol_type or "",
            protocol_data=(group.protocol_name or "") if stable else "",
            members=[
                DescribedGroupMember(
                    member_id=member.member_id,
                    group_instance_id=member.instance_id,
                    client_id=member.client_id,
                    client_host=member.client_host,
                    member_metadata=member.metadata(group.protocol_name) if stable else b"",
                    member_assignment=member.assignment,
                )
                for member in group.members.values()
            ],
        )
    if version >= 3 and with_operations and answer.error_code == codes.NONE:
        answer.authorized_operations = _ALL_OPERATIONS
    return answer
