"""DescribeCluster 0-2. A broker answers for brokers, never for controllers (endpoint type 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.handlers.context import CLUSTER_OPERATIONS, OPERATIONS_NOT_ASKED
from penstock.protocol import errors_table as codes
from penstock.protocol.messages.describe_cluster import (
    DescribeClusterBroker,
    DescribeClusterRequest,
    DescribeClusterResponse,
)

if TYPE_CHECKING:
    from penstock.handlers.context import Context, RequestHeader

_BROKERS = 1
_CONTROLLERS = 2


def handle(
    ctx: Context, header: RequestHeader, request: DescribeClusterRequest
) -> DescribeClusterResponse:
    if request.endpoint_type == _CONTROLLERS:
        return DescribeClusterResponse(
            error_code=codes.MISMATCHED_ENDPOINT_TYPE,
            error_message="The request was sent to an endpoint of type BROKER, but we wanted an "
            "endpoint of type CONTROLLER",
        )
    if request.endpoint_type != _BROKERS:
        return DescribeClusterResponse(
            error_code=codes.UNSUPPORTED_ENDPOINT_TYPE,
            error_message=f"Unsupported endpoint type {request.endpoint_type}",
        )
    asked = request.include_cluster_authorized_operations
    return DescribeClusterResponse(
        cluster_id=ctx.cluster_id,
        controller_id=ctx.node_id,
        brokers=[
            DescribeClusterBroker(
                broker_id=one.node_id, host=one.host, port=one.port, rack=one.rack
            )
            for one in ctx.endpoints_of(header.listener)
        ],
        cluster_authorized_operations=CLUSTER_OPERATIONS if asked else OPERATIONS_NOT_ASKED,
    )
