"""The group coordinator: performs what the step functions decide.

Owner: the control loop's thread; nothing here blocks or awaits. It holds the container of groups
(which may hold other kinds than classic ones), the timers, and the queue of appends of each
`__consumer_offsets` partition. Records go to the log first; a change that has to be durable is
applied and answered only when its append ended, in the order of the appends. It knows nothing of
the wire: `handlers/` turns messages into these calls.

Invariants (tests cite them):
 (1) what was appended to one partition takes effect in the order of the appends;
 (2) every waiter is answered exactly once, whatever happens to its group;
 (3) an append that ends after its partition was unloaded changes nothing.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Protocol, cast

from penstock.errors import PenstockError
from penstock.groups import codes, records
from penstock.groups.classic_group import (
    PREPARING,
    STABLE,
    ClassicGroup,
    ClassicMember,
    Protocols,
    bytes_of,
)
from penstock.groups.deferred import Deferred
from penstock.groups.expiry import expired_offsets
from penstock.groups.ports import (
    ZERO_ID,
    Clock,
    MemberTable,
    OffsetEntry,
    OffsetsLog,
    OffsetTable,
    TimerHandle,
    Timers,
)
from penstock.groups.ports import (
    Appended as AppendHandle,
)
from penstock.groups.state import (
    Appended,
    CancelTimer,
    DropGroup,
    Effect,
    EndSession,
    Event,
    Join,
    JoinResult,
    Leave,
    LeaveResult,
    Loaded,
    Reply,
    SessionExpired,
    StartSession,
    StartTimer,
    Sync,
    SyncResult,
    Unload,
    WriteGroup,
    check_commit,
    check_heartbeat,
    step,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from penstock.groups.config import GroupSettings

OFFSETS_TOPIC = "__consumer_offsets"

# One offset to commit: topic id, topic, partition, offset, leader epoch, metadata.
Commit = tuple[bytes, str, int, int, int, str]
Record = tuple[bytes, "bytes | None"]


class Group(Protocol):
    """What the container knows of any kind of group."""

    @property
    def kind(self) -> str: ...

    @property
    def group_id(self) -> str: ...

    @property
    def partition(self) -> int: ...


def java_string_hash(text: str) -> int:
    """java.lang.String.hashCode: over UTF-16 code units, as a signed 32-bit number."""
    value = 0
    if text.isascii():
        for unit in text.encode():
            value = (31 * value + unit) & 0xFFFFFFFF
    else:
        raw = text.encode("utf-16-be", "surrogatepass")
        for index in range(0, len(raw), 2):
            value = (31 * value + (raw[index] << 8 | raw[index + 1])) & 0xFFFFFFFF
    return value - 0x1_0000_0000 if value & 0x8000_0000 else value


def partition_of(group_id: str, partition_count: int) -> int:
    """The `__consumer_offsets` partition of a group, as Kafka computes it: its Utils.abs maps the
    one number without a positive twin to 0."""
    value = java_string_hash(group_id)
    return (0 if value == -0x8000_0000 else abs(value)) % partition_count


class GroupCoordinator:
    """Serves the groups of every offsets partition that is loaded here."""

    def __init__(
        self,
        *,
        settings: GroupSettings,
        log: OffsetsLog,
        offsets: OffsetTable,
        members: MemberTable,
        clock: Clock,
        timers: Timers,
    ) -> None:
        self.settings = settings
        self._log = log
        self._offsets = offsets
        self._members = members
        self._clock = clock
        self._timers = timers
        self._groups: dict[str, Group] = {}
        # Per offsets partition: appends that have not ended, oldest first.
        self._queues: list[deque[tuple[AppendHandle, Callable[[int], None]]]] = []
        self._broken: set[int] = set()
        self._running = True
        self._group_timers: dict[tuple[str, str], TimerHandle] = {}
        self._session_timer: TimerHandle | None = None
        self._session_at = 0
        self._expiry_timer: TimerHandle | None = None
        self._events: deque[tuple[ClassicGroup, Event]] = deque()
        self._stepping = False
        self._skipped_records = 0

    # -- life -----------------------------------------------------------------------------------
    def load(self, partition_count: int) -> None:
        """`__consumer_offsets` is here with that many partitions: replay them and serve. Doing it
        again for a topic that is loaded already does nothing."""
        if partition_count == len(self._queues) or not self._running:
            return
        if self._queues:
            self.unload()
        self._queues = [deque() for _ in range(partition_count)]
        for partition in range(partition_count):
            try:
                self._replay_partition(partition)
            except (OSError, ValueError, MemoryError, PenstockError) as error:
                self._load_failed(partition, error)
        for group in list(self._groups.values()):
            if isinstance(group, ClassicGroup):
                self._dispatch(group, Loaded())
        self._schedule_expiry()

    def unload(self) -> None:
        """The offsets topic is gone (it was deleted): forget its groups and offsets. Whoever waits
        gets NOT_COORDINATOR and asks again who the coordinator is."""
        if self._expiry_timer is not None:
            self._expiry_timer.cancel()
            self._expiry_timer = None
        for group in list(self._groups.values()):
            if isinstance(group, ClassicGroup):
                self._dispatch(group, Unload(codes.NOT_COORDINATOR))
        self._groups.clear()
        for group_id in list(self._offsets.groups()):
            self._offsets.remove_group(group_id)
        queues, self._queues = self._queues, []
        self._broken.clear()
        for queue in queues:
            while queue:
                queue.popleft()[1](codes.NOT_COORDINATOR)

    def stop(self) -> None:
        """No timer fires afterwards, and every waiter is answered."""
        if self._running:
            self._running = False
            self.unload()
            if self._session_timer is not None:
                self._session_timer.cancel()
                self._session_timer = None

    def topic_created(self, topic: str, partition_count: int) -> None:
        """To be called for every topic that is published for the first time."""
        if topic == OFFSETS_TOPIC:
            self.load(partition_count)

    def topic_deleted(self, topic: str, topic_id: bytes) -> None:
        """To be called for every topic that is deleted: its committed offsets go with it."""
        if topic == OFFSETS_TOPIC:
            self.unload()
            return
        gone: dict[int, list[tuple[str, str, int]]] = {}
        for group_id in self._offsets.groups():
            group = self._groups.get(group_id)
            if group is None:
                continue
            for entry in self._offsets.iterate(group_id):
                if entry.topic == topic and entry.topic_id in (ZERO_ID, topic_id):
                    gone.setdefault(group.partition, []).append((group_id, topic, entry.partition))
        for partition, keys in gone.items():
            self._append_tombstones(partition, keys, [], lambda _: None)

    def statistics(self) -> dict[str, int]:
        """Sizes of everything that grows, and what a load left out."""
        return {
            "groups": len(self._groups),
            "members": self._members.size(),
            "offsets": self._offsets.size(),
            "pending_appends": sum(len(queue) for queue in self._queues),
            "timers": len(self._group_timers),
            "broken_partitions": len(self._broken),
            "skipped_records": self._skipped_records,
        }

    # -- groups ---------------------------------------------------------------------------------
    def gate(self, group_id: str) -> int:
        """Can this group be served now? 0, or the code for a request about it."""
        if not self._running:
            return codes.COORDINATOR_NOT_AVAILABLE
        if not self._queues:
            return codes.NOT_COORDINATOR
        if self._broken and partition_of(group_id, len(self._queues)) in self._broken:
            return codes.NOT_COORDINATOR
        return codes.NONE

    def group(self, group_id: str) -> Group | None:
        return self._groups.get(group_id)

    def groups(self) -> list[Group]:
        return list(self._groups.values())

    def _new_group(self, group_id: str) -> ClassicGroup:
        group = ClassicGroup(
            group_id, partition_of(group_id, len(self._queues)), self._clock.wall_ms()
        )
        self._groups[group_id] = group
        return group

    def _is_full(self) -> bool:
        return len(self._groups) >= self.settings.max_groups

    # -- requests -------------------------------------------------------------------------------
    def join(
        self,
        *,
        group_id: str,
        member_id: str,
        instance_id: str | None,
        client_id: str,
        client_host: str,
        session_timeout_ms: int,
        rebalance_timeout_ms: int,
        protocol_type: str,
        protocols: Protocols,
        api_version: int,
    ) -> Deferred[JoinResult]:
        """JoinGroup: answered when the rebalance completes."""
        error = self._check_join(group_id, session_timeout_ms, protocols)
        if error:
            return Deferred.of(JoinResult(error, member_id=member_id))
        group = self._groups.get(group_id)
        created = group is None
        if group is None:
            if member_id:
                return Deferred.of(JoinResult(codes.UNKNOWN_MEMBER_ID, member_id=member_id))
            if self._is_full():
                return Deferred.of(JoinResult(codes.POLICY_VIOLATION))
            group = self._new_group(group_id)
        if not isinstance(group, ClassicGroup):
            return Deferred.of(JoinResult(codes.INCONSISTENT_GROUP_PROTOCOL))
        new_id = "" if member_id else _new_member_id(instance_id or client_id)
        waiter: Deferred[JoinResult] = Deferred()
        self._dispatch(
            group,
            Join(
                waiter,
                member_id,
                instance_id,
                client_id,
                client_host,
                session_timeout_ms,
                rebalance_timeout_ms,
                protocol_type,
                protocols,
                api_version,
                new_id,
                created,
            ),
        )
        return waiter

    def _check_join(self, group_id: str, session_timeout_ms: int, protocols: Protocols) -> int:
        if not self._running:
            return codes.COORDINATOR_NOT_AVAILABLE
        if not group_id:
            return codes.INVALID_GROUP_ID
        settings = self.settings
        if not (
            settings.min_session_timeout_ms <= session_timeout_ms <= settings.max_session_timeout_ms
        ):
            return codes.INVALID_SESSION_TIMEOUT
        if bytes_of(protocols) > settings.max_subscription_bytes:
            return codes.POLICY_VIOLATION
        return self.gate(group_id)

    def sync(
        self,
        *,
        group_id: str,
        member_id: str,
        instance_id: str | None,
        generation: int,
        protocol_type: str | None,
        protocol_name: str | None,
        assignments: dict[str, bytes],
    ) -> Deferred[SyncResult]:
        """SyncGroup: answered when the leader's assignments are in the log."""
        group, error = self._classic(group_id, codes.UNKNOWN_MEMBER_ID)
        if group is None:
            return Deferred.of(SyncResult(error))
        waiter: Deferred[SyncResult] = Deferred()
        self._dispatch(
            group,
            Sync(
                waiter,
                member_id,
                instance_id,
                generation,
                protocol_type,
                protocol_name,
                assignments,
            ),
        )
        return waiter

    def heartbeat(
        self, group_id: str, member_id: str, instance_id: str | None, generation: int
    ) -> int:
        """Heartbeat: the code to answer."""
        group = self._groups.get(group_id)
        if not isinstance(group, ClassicGroup):
            group, error = self._classic(group_id, codes.UNKNOWN_MEMBER_ID)
            if group is None:
                return error
        error = check_heartbeat(group, member_id, instance_id, generation)
        if error in (codes.NONE, codes.REBALANCE_IN_PROGRESS):
            self._keep_alive(group, member_id)
        return error

    def leave(
        self, *, group_id: str, members: tuple[tuple[str, str | None], ...]
    ) -> Deferred[LeaveResult]:
        """LeaveGroup of one or more members, each (member id, instance id)."""
        group, error = self._classic(group_id, codes.UNKNOWN_MEMBER_ID)
        if group is None:
            if error == codes.UNKNOWN_MEMBER_ID:
                unknown = tuple((member, instance, error) for member, instance in members)
                return Deferred.of(LeaveResult(codes.NONE, unknown))
            return Deferred.of(LeaveResult(error))
        waiter: Deferred[LeaveResult] = Deferred()
        self._dispatch(group, Leave(waiter, members))
        return waiter

    def commit(
        self,
        *,
        group_id: str,
        member_id: str,
        instance_id: str | None,
        generation: int,
        api_version: int,
        retention_ms: int,
        commits: list[Commit],
    ) -> int | Deferred[int]:
        """OffsetCommit of offsets whose topics, partitions and metadata the caller has checked.

        The code to answer, at once when the append has ended already.
        """
        group = self._groups.get(group_id)
        if group is None:
            error = self.gate(group_id)
            if error:
                return error
            if generation >= 0:
                return codes.GROUP_ID_NOT_FOUND if api_version >= 9 else codes.ILLEGAL_GENERATION
            if self._is_full():
                return codes.POLICY_VIOLATION
            # A consumer that manages its own partitions, or an administrator: a simple group.
            group = self._new_group(group_id)
        if not isinstance(group, ClassicGroup):
            return codes.UNKNOWN_MEMBER_ID
        error = check_commit(group, member_id, instance_id, generation)
        if error:
            return error
        if group.state in (STABLE, PREPARING):
            self._keep_alive(group, member_id)
        if not commits:
            return codes.NONE
        now = self._clock.wall_ms()
        expire_at = -1 if retention_ms == -1 else now + retention_ms
        batch: list[Record] = [
            (
                records.encode_offset_key(group_id, topic, partition),
                records.encode_offset_value(
                    records.OffsetCommitValue(
                        offset, leader_epoch, metadata, now, expire_at, topic_id
                    )
                ),
            )
            for topic_id, topic, partition, offset, leader_epoch, metadata in commits
        ]
        outcome = _Outcome()
        self._append(
            group.partition,
            batch,
            now,
            partial(self._committed, outcome, group_id, commits, now, expire_at),
        )
        return outcome.take()

    def _committed(
        self,
        outcome: _Outcome,
        group_id: str,
        commits: list[Commit],
        now: int,
        expire_at: int,
        error: int,
    ) -> None:
        if not error:
            if group_id not in self._groups:
                # Deleted by a request whose append came before this one.
                self._new_group(group_id)
            put = self._offsets.put
            try:
                for topic_id, topic, partition, offset, leader_epoch, metadata in commits:
                    put(
                        group_id,
                        topic_id,
                        topic,
                        partition,
                        offset,
                        leader_epoch,
                        metadata,
                        now,
                        expire_at,
                    )
            except MemoryError:
                error = codes.POLICY_VIOLATION
        outcome.set(error)

    def settle(self, group_id: str) -> int | Deferred[int]:
        """0 once every commit that came before this call has taken effect, or the code that says
        why the group's offsets cannot be read. An OffsetFetch behind an OffsetCommit of the same
        connection therefore reads what it committed."""
        error = self.gate(group_id)
        if error:
            return error
        group = self._groups.get(group_id)
        if group is None:
            return codes.NONE
        queue = self._queues[group.partition]
        if not queue:
            return codes.NONE
        handle, _ = queue[-1]
        waiter: Deferred[int] = Deferred()
        # Whether those commits succeeded is their own business; an unload is everyone's.
        queue.append((handle, lambda _: waiter.set_result(self.gate(group_id))))
        return waiter

    def committed(self, group_id: str, topic: str, partition: int) -> OffsetEntry | None:
        return self._offsets.get(group_id, topic, partition)

    def all_committed(self, group_id: str) -> Iterator[OffsetEntry]:
        return self._offsets.iterate(group_id)

    def delete_offsets(
        self, group_id: str, topics: list[tuple[str, list[int]]]
    ) -> Deferred[tuple[int, frozenset[str]]]:
        """OffsetDelete: (error of the whole request, topics that the group reads and keeps)."""
        if not group_id:
            return Deferred.of((codes.INVALID_GROUP_ID, frozenset()))
        group, error = self._classic(group_id, codes.GROUP_ID_NOT_FOUND)
        if group is None:
            return Deferred.of((error, frozenset()))
        if not group.is_empty() and group.protocol_type != "consumer":
            return Deferred.of((codes.NON_EMPTY_GROUP, frozenset()))
        kept = frozenset(topic for topic, _ in topics if group.is_subscribed(topic))
        keys = [
            (group_id, topic, partition)
            for topic, partitions in topics
            if topic not in kept
            for partition in partitions
            # One that is still being committed is deleted behind its commit.
            if self._queues[group.partition]
            or self._offsets.get(group_id, topic, partition) is not None
        ]
        answer: Deferred[tuple[int, frozenset[str]]] = Deferred()
        self._append_tombstones(
            group.partition, keys, [], lambda code: answer.set_result((code, kept))
        )
        return answer

    def delete_groups(self, group_ids: Iterable[str]) -> Deferred[dict[str, int]]:
        """DeleteGroups: the code of each group, when all of it is in the log."""
        results: dict[str, int] = {}
        by_partition: dict[int, list[str]] = {}
        for group_id in dict.fromkeys(group_ids):
            group, error = self._classic(group_id, codes.GROUP_ID_NOT_FOUND)
            if group is None:
                results[group_id] = error
            elif not group.is_empty():
                results[group_id] = codes.NON_EMPTY_GROUP
            else:
                results[group_id] = codes.NONE
                by_partition.setdefault(group.partition, []).append(group_id)
        answer: Deferred[dict[str, int]] = Deferred()
        left = len(by_partition)
        if not left:
            answer.set_result(results)

        def done(names: list[str], code: int) -> None:
            nonlocal left
            left -= 1
            for name in names:
                results[name] = code
            if not left:
                answer.set_result(results)

        for partition, names in by_partition.items():
            keys = [
                (name, entry.topic, entry.partition)
                for name in names
                for entry in self._offsets.iterate(name)
            ]
            self._append_tombstones(partition, keys, names, partial(done, names))
        return answer

    def _classic(self, group_id: str, missing: int) -> tuple[ClassicGroup | None, int]:
        """The classic group, or the code that says why there is none."""
        group = self._groups.get(group_id)
        if isinstance(group, ClassicGroup):
            return group, codes.NONE
        if not group_id and missing == codes.UNKNOWN_MEMBER_ID:
            # Membership needs a name; offsets of the unnamed group are Kafka's old habit.
            ready = codes.NONE if self._running else codes.COORDINATOR_NOT_AVAILABLE
            return None, ready or codes.INVALID_GROUP_ID
        return None, self.gate(group_id) or missing

    # -- effects --------------------------------------------------------------------------------
    def _dispatch(self, group: ClassicGroup, event: Event) -> None:
        """Steps never nest: an event that an effect brings about waits its turn."""
        self._events.append((group, event))
        if self._stepping:
            return
        self._stepping = True
        try:
            while self._events:
                group, event = self._events.popleft()
                _, effects = step(group, event, self.settings, self._clock.wall_ms())
                for effect in effects:
                    self._perform(group, effect)
        finally:
            self._stepping = False

    def _perform(self, group: ClassicGroup, effect: Effect) -> None:
        if isinstance(effect, Reply):
            cast("Deferred[object]", effect.waiter).set_result(effect.result)
        elif isinstance(effect, StartSession):
            deadline = self._clock.monotonic_ms() + effect.timeout_ms
            self._members.upsert(group.group_id, effect.member_id, group.generation, deadline)
            self._watch_sessions(deadline)
        elif isinstance(effect, EndSession):
            self._members.remove(group.group_id, effect.member_id)
        elif isinstance(effect, StartTimer):
            self._start_timer(group, effect)
        elif isinstance(effect, CancelTimer):
            handle = self._group_timers.pop((group.group_id, effect.key), None)
            if handle is not None:
                handle.cancel()
        elif isinstance(effect, WriteGroup):
            self._write_group(group, effect)
        else:
            self._drop_group(group, effect)

    def _drop_group(self, group: ClassicGroup, _effect: DropGroup) -> None:
        """Takes its effect so that the type checkers tell when another kind has no branch above."""
        if self._groups.get(group.group_id) is group:
            del self._groups[group.group_id]

    def _write_group(self, group: ClassicGroup, effect: WriteGroup) -> None:
        try:
            value = records.encode_group_value(effect.value)
        except ValueError:
            # A client's string that no record can hold.
            self._dispatch(group, Appended(effect.then, codes.UNKNOWN_SERVER_ERROR))
            return
        self._append(
            group.partition,
            [(records.encode_group_key(group.group_id), value)],
            self._clock.wall_ms(),
            lambda error: self._dispatch(group, Appended(effect.then, error)),
        )

    def _start_timer(self, group: ClassicGroup, effect: StartTimer) -> None:
        key = (group.group_id, effect.key)
        old = self._group_timers.pop(key, None)
        if old is not None:
            old.cancel()

        def fire() -> None:
            self._group_timers.pop(key, None)
            if self._groups.get(group.group_id) is group:
                self._dispatch(group, effect.event)

        when = self._clock.monotonic_ms() + effect.delay_ms
        self._group_timers[key] = self._timers.call_at(when, fire)

    # -- sessions -------------------------------------------------------------------------------
    def _keep_alive(self, group: ClassicGroup, member_id: str) -> None:
        deadline = self._clock.monotonic_ms() + group.members[member_id].session_timeout_ms
        if not self._members.touch(group.group_id, member_id, deadline):
            # Its session ended unnoticed while it waited for an answer of ours.
            self._members.upsert(group.group_id, member_id, group.generation, deadline)
            self._watch_sessions(deadline)

    def _watch_sessions(self, deadline: int) -> None:
        """One timer for all sessions, at the earliest deadline that may be due."""
        if self._session_timer is not None:
            if self._session_at <= deadline:
                return
            self._session_timer.cancel()
        self._session_at = deadline
        self._session_timer = self._timers.call_at(deadline, self._expire_sessions)

    def _expire_sessions(self) -> None:
        self._session_timer = None
        for group_id, member_id in self._members.expired(self._clock.monotonic_ms()):
            group = self._groups.get(group_id)
            if isinstance(group, ClassicGroup):
                self._dispatch(group, SessionExpired(member_id))
        following = self._members.next_deadline()
        if following != -1:
            self._watch_sessions(following)

    # -- appends --------------------------------------------------------------------------------
    def _append(
        self, partition: int, batch: list[Record], now: int, then: Callable[[int], None]
    ) -> None:
        """Append, and call `then` with 0 or a code for clients when that took effect (1)."""
        handle = self._log.append(partition, batch, now)
        queue = self._queues[partition]
        if not queue and handle.done():
            then(_append_error(handle))
            return
        queue.append((handle, then))
        handle.add_done_callback(partial(self._drain, queue))

    def _drain(self, queue: deque[tuple[AppendHandle, Callable[[int], None]]], _: object) -> None:
        # After an unload the queue is empty: whoever waited has been told (3).
        while queue and queue[0][0].done():
            handle, then = queue.popleft()
            then(_append_error(handle))

    def _append_tombstones(
        self,
        partition: int,
        keys: list[tuple[str, str, int]],
        group_ids: list[str],
        then: Callable[[int], None],
    ) -> None:
        """Delete offsets, and then groups, if they are still empty when the append ended."""
        if not keys and not group_ids:
            then(codes.NONE)
            return
        batch: list[Record] = [(records.encode_offset_key(*key), None) for key in keys]
        batch += [(records.encode_group_key(group_id), None) for group_id in group_ids]

        def deleted(error: int) -> None:
            if not error:
                for key in keys:
                    self._offsets.remove(*key)
                for group_id in group_ids:
                    self._forget(group_id)
            then(error)

        self._append(partition, batch, self._clock.wall_ms(), deleted)

    def _forget(self, group_id: str) -> None:
        group = self._groups.get(group_id)
        if not isinstance(group, ClassicGroup) or not group.is_empty():
            # A member joined while the tombstone was on its way; its group is written again when
            # that rebalance ends.
            return
        for member_id in group.pending_joins:
            self._members.remove(group_id, member_id)
        if next(self._offsets.iterate(group_id), None) is None:
            del self._groups[group_id]
        else:
            # Committed to in between: what is left is a simple group.
            self._new_group(group_id)

    # -- offset expiry --------------------------------------------------------------------------
    def _schedule_expiry(self) -> None:
        if self._expiry_timer is not None:
            self._expiry_timer.cancel()
        interval = self.settings.offsets_retention_check_interval_ms
        when = self._clock.monotonic_ms() + interval
        self._expiry_timer = self._timers.call_at(when, self._expiry_due)

    def _expiry_due(self) -> None:
        self._expiry_timer = None
        self.expire_offsets()
        self._schedule_expiry()

    def expire_offsets(self) -> None:
        """Write tombstones for offsets past their retention, and for empty groups left without
        any (rule 39)."""
        now = self._clock.wall_ms()
        keys: dict[int, list[tuple[str, str, int]]] = {}
        gone: dict[int, list[str]] = {}
        for group in self._groups.values():
            if not isinstance(group, ClassicGroup) or self._queues[group.partition]:
                continue
            entries = self._offsets.iterate(group.group_id)
            expired, all_gone = expired_offsets(
                group, entries, now, self.settings.offsets_retention_ms
            )
            if expired:
                keys.setdefault(group.partition, []).extend(
                    (group.group_id, entry.topic, entry.partition) for entry in expired
                )
            if all_gone and group.is_empty() and not group.pending_joins:
                gone.setdefault(group.partition, []).append(group.group_id)
        for partition in sorted(keys.keys() | gone.keys()):
            self._append_tombstones(
                partition, keys.get(partition, []), gone.get(partition, []), lambda _: None
            )

    # -- loading --------------------------------------------------------------------------------
    def _load_failed(self, partition: int, error: Exception) -> None:
        """Its groups are not served: answering from half of the records would lose offsets."""
        self._broken.add(partition)
        for group_id, group in list(self._groups.items()):
            if group.partition == partition:
                del self._groups[group_id]
                self._offsets.remove_group(group_id)
        import logging

        logging.getLogger("penstock.groups").error(
            "cannot load %s-%d, its groups are not served: %s", OFFSETS_TOPIC, partition, error
        )

    def _replay_partition(self, partition: int) -> None:
        for _, _, key, value in self._log.read_all(partition):
            kind = records.record_type(key)
            if kind in (records.OFFSET_COMMIT, records.LEGACY_OFFSET_COMMIT):
                self._replay_offset(partition, key, value)
            elif kind == records.GROUP_METADATA:
                self._replay_group(partition, key, value)
            else:
                self._skipped_records += 1

    def _replay_offset(self, partition: int, key: bytes, raw: bytes | None) -> None:
        group_id, topic, index = records.decode_offset_key(key)
        if raw is None:
            self._offsets.remove(group_id, topic, index)
            return
        value = records.decode_offset_value(raw)
        if group_id not in self._groups:
            self._groups[group_id] = ClassicGroup(group_id, partition, self._clock.wall_ms())
        self._offsets.put(
            group_id,
            value.topic_id,
            topic,
            index,
            value.offset,
            value.leader_epoch,
            value.metadata,
            value.commit_timestamp,
            value.expire_timestamp,
        )

    def _replay_group(self, partition: int, key: bytes, raw: bytes | None) -> None:
        group_id = records.decode_group_key(key).group
        if raw is None:
            self._groups.pop(group_id, None)
            return
        self._groups[group_id] = group_from_record(
            group_id, partition, records.decode_group_value(raw)
        )


def group_from_record(
    group_id: str, partition: int, value: records.GroupMetadataValue
) -> ClassicGroup:
    """A group as its record describes it: Stable with members, else Empty."""
    timestamp = value.current_state_timestamp
    group = ClassicGroup(group_id, partition, None if timestamp == -1 else timestamp)
    group.generation = value.generation
    group.protocol_type = value.protocol_type or None
    group.protocol_name = value.protocol
    for member in value.members:
        group.add(
            ClassicMember(
                member_id=member.member_id,
                instance_id=member.group_instance_id,
                client_id=member.client_id,
                client_host=member.client_host,
                rebalance_timeout_ms=(
                    member.session_timeout
                    if member.rebalance_timeout == -1
                    else member.rebalance_timeout
                ),
                session_timeout_ms=member.session_timeout,
                protocol_type=value.protocol_type,
                protocols=((value.protocol or "", member.subscription),),
                assignment=member.assignment,
            ),
            None,
        )
    if group.members:
        group.state = STABLE
        if value.leader in group.members:
            group.leader = value.leader
    group.subscribed = group.subscribed_topics()
    return group


def _new_member_id(prefix: str) -> str:
    """As Kafka makes them: the instance id or the client id, and a random UUID."""
    # Imported at the first join: the module is slow to load, and a start needs none of it.
    from uuid import uuid4

    return f"{prefix}-{uuid4()}"


class _Outcome:
    """A code that may be there at once: then no Deferred is made."""

    __slots__ = ("_code", "_waiter")

    def __init__(self) -> None:
        self._code: int | None = None
        self._waiter: Deferred[int] | None = None

    def set(self, code: int) -> None:
        if self._waiter is not None:
            self._waiter.set_result(code)
        else:
            self._code = code

    def take(self) -> int | Deferred[int]:
        if self._code is not None:
            return self._code
        self._waiter = Deferred()
        return self._waiter


def _append_error(handle: AppendHandle) -> int:
    error = handle.exception()
    if error is None:
        return codes.NONE
    code = getattr(error, "kafka_code", getattr(error, "code", codes.UNKNOWN_SERVER_ERROR))
    return codes.from_append_error(int(code))
