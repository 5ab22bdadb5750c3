"""Which committed offsets of a group are past their retention (KIP-211, rule 39). Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.groups.classic_group import CONSUMER_PROTOCOL, STABLE, ClassicGroup

if TYPE_CHECKING:
    from collections.abc import Iterable

    from penstock.groups.ports import OffsetEntry


def expired_offsets(
    group: ClassicGroup, entries: Iterable[OffsetEntry], now_ms: int, retention_ms: int
) -> tuple[list[OffsetEntry], bool]:
    """(offsets to delete, whether nothing is left then). `now_ms` is wall clock.

    Cases:
      a simple group               each offset counts from its commit
      an empty group               all count from the moment it became empty
      a stable consumer group      topics nobody subscribes to: each offset from its commit
      any other group with members nothing expires
    An offset whose commit named an expiry of its own (OffsetCommit 2-4) follows that instead.
    """
    from_commit = True
    if group.protocol_type is not None:
        if group.is_empty():
            from_commit = group.state_timestamp is None
        elif not (
            group.protocol_type == CONSUMER_PROTOCOL
            and group.subscribed is not None
            and group.state == STABLE
        ):
            return [], False
    expired: list[OffsetEntry] = []
    all_gone = True
    for entry in entries:
        if group.is_subscribed(entry.topic):
            all_gone = False
        elif _is_expired(entry, now_ms, retention_ms, None if from_commit else group):
            expired.append(entry)
        else:
            all_gone = False
    return expired, all_gone


def _is_expired(
    entry: OffsetEntry, now_ms: int, retention_ms: int, since_empty: ClassicGroup | None
) -> bool:
    if entry.expire_timestamp != -1:
        return now_ms >= entry.expire_timestamp
    base = entry.commit_timestamp
    if since_empty is not None and since_empty.state_timestamp is not None:
        base = since_empty.state_timestamp
    return now_ms - base >= retention_ms
