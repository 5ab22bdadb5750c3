"""The data of one classic group and the operations that keep its indexes consistent.

Owner: `state.step` changes a group; everyone else only reads it. Nothing here replies, writes or
reads a clock. What Kafka calls ClassicGroup; facts from Apache Kafka 4.4's group coordinator.

Invariants (tests cite them):
 (1) `awaiting_join` is the number of members with a join waiter;
 (2) `supported[name]` is the number of members that list protocol `name`;
 (3) `static` maps an instance id to the one member id that owns it now;
 (4) `leader` is a member id, or None when there is no member;
 (5) a member has a sync waiter only in CompletingRebalance.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

EMPTY = "Empty"
PREPARING = "PreparingRebalance"
COMPLETING = "CompletingRebalance"
STABLE = "Stable"
DEAD = "Dead"

CONSUMER_PROTOCOL = "consumer"

Protocols = tuple[tuple[str, bytes], ...]


class ClassicMember:
    """One member. `join_waiter` and `sync_waiter` are opaque: whoever sent the request."""

    __slots__ = (
        "assignment",
        "client_host",
        "client_id",
        "instance_id",
        "is_new",
        "join_waiter",
        "member_id",
        "protocol_type",
        "protocols",
        "rebalance_timeout_ms",
        "session_timeout_ms",
        "sync_waiter",
    )

    def __init__(
        self,
        *,
        member_id: str,
        instance_id: str | None,
        client_id: str,
        client_host: str,
        rebalance_timeout_ms: int,
        session_timeout_ms: int,
        protocol_type: str,
        protocols: Protocols,
        assignment: bytes = b"",
    ) -> None:
        self.member_id = member_id
        self.instance_id = instance_id
        self.client_id = client_id
        self.client_host = client_host
        self.rebalance_timeout_ms = rebalance_timeout_ms
        self.session_timeout_ms = session_timeout_ms
        self.protocol_type = protocol_type
        self.protocols = protocols
        self.assignment = assignment
        self.join_waiter: object | None = None
        self.sync_waiter: object | None = None
        self.is_new = False

    def metadata(self, protocol: str | None) -> bytes:
        """The member's metadata for `protocol`; empty when it does not list it."""
        for name, metadata in self.protocols:
            if name == protocol:
                return metadata
        return b""

    def is_kept_alive(self) -> bool:
        """True when an expired session is ignored: the member waits for an answer of ours. A new
        member can be gone while it waits, so for it only the join timeout counts."""
        if self.is_new:
            return False
        return self.join_waiter is not None or self.sync_waiter is not None


class ClassicGroup:
    """One group of the classic protocol, or a simple group (offsets only, no protocol type)."""

    kind = "classic"

    __slots__ = (
        "awaiting_join",
        "generation",
        "group_id",
        "leader",
        "members",
        "new_member_added",
        "partition",
        "pending_joins",
        "pending_syncs",
        "previous_state",
        "protocol_name",
        "protocol_type",
        "state",
        "state_timestamp",
        "static",
        "subscribed",
        "supported",
    )

    def __init__(self, group_id: str, partition: int, state_timestamp: int | None) -> None:
        self.group_id = group_id
        self.partition = partition
        self.state = EMPTY
        self.previous_state = DEAD
        # Wall clock, milliseconds; None when the record that was loaded is too old to say.
        self.state_timestamp = state_timestamp
        self.protocol_type: str | None = None
        self.protocol_name: str | None = None
        self.generation = 0
        self.leader: str | None = None
        self.members: dict[str, ClassicMember] = {}
        self.static: dict[str, str] = {}
        self.pending_joins: set[str] = set()
        self.pending_syncs: set[str] = set()
        self.awaiting_join = 0
        self.supported: dict[str, int] = {}
        # Topics the members subscribe to; None when that is unknown.
        self.subscribed: frozenset[str] | None = None
        self.new_member_added = False

    # -- questions ----------------------------------------------------------------------------
    def is_empty(self) -> bool:
        return self.state == EMPTY

    def all_joined(self) -> bool:
        return len(self.members) == self.awaiting_join and not self.pending_joins

    def rebalance_timeout_ms(self) -> int:
        return max((m.rebalance_timeout_ms for m in self.members.values()), default=0)

    def supports(self, protocol_type: str, protocols: Protocols) -> bool:
        """May a member with these protocols be in the group?"""
        if self.state == EMPTY:
            return bool(protocol_type) and bool(protocols)
        if self.protocol_type is None or self.protocol_type != protocol_type:
            return False
        count = len(self.members)
        return any(self.supported.get(name, 0) == count for name, _ in protocols)

    def select_protocol(self) -> str:
        """Each member votes for its first protocol that all members list; most votes win."""
        count = len(self.members)
        candidates = {name for name, listed in self.supported.items() if listed == count}
        votes: dict[str, int] = {}
        for member in self.members.values():
            for name, _ in member.protocols:
                if name in candidates:
                    votes[name] = votes.get(name, 0) + 1
                    break
        return max(votes, key=lambda name: votes[name])

    def is_subscribed(self, topic: str) -> bool:
        """Does a member read `topic`? A consumer group whose subscriptions cannot be read counts
        as subscribed to everything."""
        if self.subscribed is None:
            return self.protocol_type == CONSUMER_PROTOCOL
        return topic in self.subscribed

    # -- changes ------------------------------------------------------------------------------
    def transition(self, state: str, now_ms: int) -> None:
        self.previous_state = self.state
        self.state = state
        self.state_timestamp = now_ms

    def add(self, member: ClassicMember, join_waiter: object | None) -> None:
        if member.instance_id is not None:
            self.static[member.instance_id] = member.member_id
        if not self.members:
            self.protocol_type = member.protocol_type
        if self.leader is None:
            self.leader = member.member_id
        self.members[member.member_id] = member
        self._count_protocols(member, 1)
        member.join_waiter = join_waiter
        if join_waiter is not None:
            self.awaiting_join += 1
        self.pending_joins.discard(member.member_id)

    def remove(self, member_id: str) -> ClassicMember | None:
        """Take a member (or a pending member id) out; the caller has answered its waiters."""
        member = self.members.pop(member_id, None)
        if member is not None:
            self._count_protocols(member, -1)
            if member.join_waiter is not None:
                self.awaiting_join -= 1
            if member.instance_id is not None:
                self.static.pop(member.instance_id, None)
        if self.leader == member_id:
            self.leader = next(iter(self.members), None)
        self.pending_joins.discard(member_id)
        self.pending_syncs.discard(member_id)
        return member

    def update(
        self,
        member: ClassicMember,
        protocols: Protocols,
        rebalance_timeout_ms: int,
        session_timeout_ms: int,
    ) -> None:
        self._count_protocols(member, -1)
        member.protocols = protocols
        self._count_protocols(member, 1)
        member.rebalance_timeout_ms = rebalance_timeout_ms
        member.session_timeout_ms = session_timeout_ms

    def set_join_waiter(self, member: ClassicMember, waiter: object | None) -> None:
        if member.join_waiter is None and waiter is not None:
            self.awaiting_join += 1
        elif member.join_waiter is not None and waiter is None:
            self.awaiting_join -= 1
        member.join_waiter = waiter

    def rename_static(self, old_id: str, new_id: str) -> ClassicMember:
        """Give the static member `old_id` a new member id, keeping its place. The old id is
        forgotten everywhere, so that a request that still carries it is fenced. The caller has
        answered the waiters of the old one."""
        member = self.members[old_id]
        # Rebuilt, so that the members keep their order.
        self.members = {
            (new_id if known == old_id else known): value for known, value in self.members.items()
        }
        member.member_id = new_id
        member.is_new = False
        if self.leader == old_id:
            self.leader = new_id
        if member.instance_id is not None:
            self.static[member.instance_id] = new_id
        if old_id in self.pending_syncs:
            self.pending_syncs.discard(old_id)
            self.pending_syncs.add(new_id)
        return member

    def elect_leader(self) -> bool:
        """Make sure that the leader takes part in this rebalance; False when nobody does."""
        if self.leader is None:
            return False
        current = self.members.get(self.leader)
        if current is not None and current.join_waiter is not None:
            return True
        for member in self.members.values():
            if member.join_waiter is not None:
                self.leader = member.member_id
                return True
        return False

    def next_generation(self, now_ms: int) -> None:
        self.generation = 1 if self.generation == 0x7FFFFFFF else self.generation + 1
        if self.members:
            self.protocol_name = self.select_protocol()
            self.subscribed = self.subscribed_topics()
            self.transition(COMPLETING, now_ms)
        else:
            self.protocol_name = None
            self.subscribed = self.subscribed_topics()
            self.transition(EMPTY, now_ms)
        self.pending_syncs.clear()

    def subscribed_topics(self) -> frozenset[str] | None:
        """Topics in the members' subscriptions, None when that cannot be known."""
        if self.protocol_type != CONSUMER_PROTOCOL:
            return None
        if not self.members:
            return frozenset()
        if self.protocol_name is None:
            return None
        topics: set[str] = set()
        for member in self.members.values():
            listed = subscription_topics(member.metadata(self.protocol_name))
            if listed is None:
                return None
            topics.update(listed)
        return frozenset(topics)

    def _count_protocols(self, member: ClassicMember, by: int) -> None:
        for name in {name for name, _ in member.protocols}:
            count = self.supported.get(name, 0) + by
            if count:
                self.supported[name] = count
            else:
                self.supported.pop(name, None)


def subscription_topics(metadata: bytes) -> list[str] | None:
    """Topic names of a ConsumerProtocolSubscription, None when the bytes are none.

    Every version begins as version 0 does (int16 version, array of strings), which is all that is
    read here, so that newer assignors need no change.
    """
    size = len(metadata)
    if size < 6:
        return None
    version, count = struct.unpack_from(">hi", metadata)
    # Each topic takes at least its two length bytes.
    if version < 0 or count < 0 or count > (size - 6) // 2:
        return None
    at = 6
    topics: list[str] = []
    for _ in range(count):
        if size - at < 2:
            return None
        (length,) = struct.unpack_from(">h", metadata, at)
        at += 2
        if length < 0 or length > size - at:
            return None
        try:
            topics.append(metadata[at : at + length].decode())
        except UnicodeDecodeError:
            return None
        at += length
    return topics


def bytes_of(protocols: Iterable[tuple[str, bytes]]) -> int:
    """What a member's subscription costs us: the sum over its protocols."""
    return sum(len(name) + len(metadata) for name, metadata in protocols)
