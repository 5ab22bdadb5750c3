"""Typed settings of the group coordinator, read once from a mapping of Kafka's names."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from penstock.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping


class GroupSettings(NamedTuple):
    """Defaults are Kafka 4.4's; `*_ms` are milliseconds, `*_bytes` bytes.

    The last three have no Kafka name: Kafka has no such bound. A named tuple, because importing
    dataclasses costs more than the rest of this room at start.
    """

    min_session_timeout_ms: int = 6_000
    max_session_timeout_ms: int = 1_800_000
    initial_rebalance_delay_ms: int = 3_000
    max_size: int = 2_147_483_647
    offset_metadata_max_bytes: int = 4_096
    offsets_retention_ms: int = 7 * 24 * 60 * 60_000
    offsets_retention_check_interval_ms: int = 600_000
    offsets_topic_partitions: int = 50
    # A JoinGroup of a member that has not been told its id yet is given up after this long.
    new_member_join_timeout_ms: int = 300_000
    max_groups: int = 10_000
    max_subscription_bytes: int = 64 * 1024


_NAMES = {
    "group.min.session.timeout.ms": "min_session_timeout_ms",
    "group.max.session.timeout.ms": "max_session_timeout_ms",
    "group.initial.rebalance.delay.ms": "initial_rebalance_delay_ms",
    "group.max.size": "max_size",
    "offset.metadata.max.bytes": "offset_metadata_max_bytes",
    "offsets.retention.check.interval.ms": "offsets_retention_check_interval_ms",
    "offsets.topic.num.partitions": "offsets_topic_partitions",
}
_AT_LEAST_ONE = (
    "group.max.size",
    "offsets.retention.minutes",
    "offsets.retention.check.interval.ms",
    "offsets.topic.num.partitions",
)


def read_settings(values: Mapping[str, object]) -> GroupSettings:
    """Settings from Kafka's configuration names; absent names keep Kafka's default.

    Values may be numbers or their decimal text. Raises ConfigError for anything else, and for a
    value below Kafka's minimum.
    """
    found: dict[str, int] = {}
    for name, field in _NAMES.items():
        if values.get(name) is not None:
            found[field] = _integer(name, values[name])
    minutes = values.get("offsets.retention.minutes")
    if minutes is not None:
        found["offsets_retention_ms"] = _integer("offsets.retention.minutes", minutes) * 60_000
    return GroupSettings(**found)


def _integer(name: str, value: object) -> int:
    try:
        number = int(str(value))
    except ValueError:
        raise ConfigError(f"{name}={value}: a whole number is required") from None
    if number < 1 and name in _AT_LEAST_ONE:
        raise ConfigError(f"{name}={value}: must be at least 1")
    return number
