"""One module per API key; each opens with its versions and what is left out.

A handler is a plain function `handle(ctx, header, request)` that returns the response, something
to await, or `REDISPATCH`. Its effects happen before it returns, or in order. `HANDLERS` names the
module of each key; modules are imported at first use, so that a start does not pay for them.
"""

from __future__ import annotations

from typing import Final

HANDLERS: Final[dict[int, str]] = {
    3: "metadata",
    8: "offset_commit",
    9: "offset_fetch",
    10: "find_coordinator",
    11: "join_group",
    12: "heartbeat",
    13: "leave_group",
    14: "sync_group",
    15: "describe_groups",
    16: "list_groups",
    19: "create_topics",
    20: "delete_topics",
    21: "delete_records",
    22: "init_producer_id",
    32: "describe_configs",
    33: "alter_configs",
    35: "describe_log_dirs",
    37: "create_partitions",
    42: "delete_groups",
    44: "incremental_alter_configs",
    45: "alter_partition_reassignments",
    46: "list_partition_reassignments",
    47: "offset_delete",
    60: "describe_cluster",
    74: "list_config_resources",
    75: "describe_topic_partitions",
}
