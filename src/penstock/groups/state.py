"""The classic group protocol as a step function: (group, event) -> (group, effects).

Pure in what matters: no clock, no I/O, no event loop. The group object is owned by its
coordinator and changed in place (it is returned for the shape of the function); what must happen
outside is returned as effects, to be performed in order.

    Empty ──join──► PreparingRebalance ──all joined, or timer──► CompletingRebalance
      ▲                ▲          │ nobody left                       │ leader's sync is written
      │                │          ▼                                   ▼
      └──────record────│──────── Empty          join, leave, ◄───── Stable
                       └─────────────────────── session lost
    any ──unload, failed creation──► Dead

Functions on the edges: `_join`, `_complete_join`, `_sync`, `_appended`, `_prepare_rebalance`,
`_unload`. Facts: KIP-62, 345, 394, 559, 800, 814 and Apache Kafka 4.4's new group coordinator.

Where Kafka drops a waiter without an answer (a second JoinGroup or SyncGroup of one member, a
member that leaves while it waits for its assignment) the waiter is answered here: responses leave
in request order, so a lost one would block its connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from penstock.groups import codes
from penstock.groups.classic_group import (
    COMPLETING,
    DEAD,
    EMPTY,
    PREPARING,
    STABLE,
    ClassicGroup,
    ClassicMember,
    Protocols,
)
from penstock.groups.records import GroupMetadataValue, MemberMetadata

if TYPE_CHECKING:
    from collections.abc import Callable

    from penstock.groups.config import GroupSettings

JOIN_TIMER = "join"
SYNC_TIMER = "sync"


# -- results: what a waiter is answered with ---------------------------------------------------
class JoinResult(NamedTuple):
    error: int = codes.NONE
    member_id: str = ""
    generation: int = -1
    protocol_type: str | None = None
    protocol_name: str | None = None
    leader: str = ""
    skip_assignment: bool = False
    # (member id, instance id, metadata); only the leader gets them.
    members: tuple[tuple[str, str | None, bytes], ...] = ()


class SyncResult(NamedTuple):
    error: int = codes.NONE
    protocol_type: str | None = None
    protocol_name: str | None = None
    assignment: bytes = b""


class LeaveResult(NamedTuple):
    error: int = codes.NONE
    # (member id, instance id, error), in the order of the request
    members: tuple[tuple[str, str | None, int], ...] = ()


# -- events ------------------------------------------------------------------------------------
class Join(NamedTuple):
    """JoinGroup. `new_member_id` is used when `member_id` is empty; `created` says that the group
    did not exist before this request."""

    waiter: object
    member_id: str
    instance_id: str | None
    client_id: str
    client_host: str
    session_timeout_ms: int
    rebalance_timeout_ms: int
    protocol_type: str
    protocols: Protocols
    api_version: int
    new_member_id: str
    created: bool


class Sync(NamedTuple):
    waiter: object
    member_id: str
    instance_id: str | None
    generation: int
    protocol_type: str | None
    protocol_name: str | None
    assignments: dict[str, bytes]


class Leave(NamedTuple):
    waiter: object
    # (member id, instance id)
    members: tuple[tuple[str, str | None], ...]


class SessionExpired(NamedTuple):
    member_id: str


class InitialJoinTimer(NamedTuple):
    """The initial rebalance delay ran out; `remaining_ms` is what may still be added to it."""

    delay_ms: int
    remaining_ms: int


class JoinTimer(NamedTuple):
    """The rebalance timeout ran out."""


class SyncTimer(NamedTuple):
    """Members of `generation` had their time to send SyncGroup."""

    generation: int


class Loaded(NamedTuple):
    """The group was read from the log: sessions begin anew."""


class Unload(NamedTuple):
    """The partition is gone; whoever waits is told `error`."""

    error: int


class Created(NamedTuple):
    """The record of a new group is written."""


class Emptied(NamedTuple):
    """The record of an empty generation is written. `waiter`: a LeaveGroup that caused it."""

    waiter: object | None
    result: LeaveResult | None


class Assigned(NamedTuple):
    """The record with the leader's assignments is written."""

    generation: int
    assignments: dict[str, bytes]


class StaticReplaced(NamedTuple):
    """The record with a static member's new id is written. The rest is what to go back to."""

    old_id: str
    new_id: str
    old_protocols: Protocols
    old_rebalance_timeout_ms: int
    old_session_timeout_ms: int
    old_leader: str | None
    api_version: int


Written: TypeAlias = "Created | Emptied | Assigned | StaticReplaced"


class Appended(NamedTuple):
    """An append ended; `error` 0, or the code for the clients."""

    what: Written
    error: int


Asked: TypeAlias = "Join | Sync | Leave"
Elapsed: TypeAlias = "SessionExpired | InitialJoinTimer | JoinTimer | SyncTimer"
Event: TypeAlias = "Asked | Elapsed | Loaded | Unload | Appended"


# -- effects -----------------------------------------------------------------------------------
class Reply(NamedTuple):
    waiter: object
    result: JoinResult | SyncResult | LeaveResult


class WriteGroup(NamedTuple):
    """Append the group's record, then give `Appended(then, error)` back to `step`."""

    value: GroupMetadataValue
    then: Written


class StartTimer(NamedTuple):
    """One timer per key and group; starting it again replaces it."""

    key: str
    delay_ms: int
    event: Event


class CancelTimer(NamedTuple):
    key: str


class StartSession(NamedTuple):
    member_id: str
    timeout_ms: int


class EndSession(NamedTuple):
    member_id: str


class DropGroup(NamedTuple):
    """The group was never written: forget it."""


Effect: TypeAlias = (
    "Reply | WriteGroup | StartTimer | CancelTimer | StartSession | EndSession | DropGroup"
)


class _Step:
    """One step under way: its group, its effects, and the two things the rules depend on."""

    __slots__ = ("effects", "group", "now_ms", "settings")

    def __init__(self, group: ClassicGroup, settings: GroupSettings, now_ms: int) -> None:
        self.group = group
        self.settings = settings
        self.now_ms = now_ms
        self.effects: list[Effect] = []


def step(
    group: ClassicGroup, event: Event, settings: GroupSettings, now_ms: int
) -> tuple[ClassicGroup, list[Effect]]:
    """Apply one event. `now_ms` is wall clock: it only ends up in the group's record."""
    at = _Step(group, settings, now_ms)
    _HANDLERS[type(event)](at, event)
    return group, at.effects


# -- questions without effects: the hot requests ------------------------------------------------
def check_member(group: ClassicGroup, member_id: str, instance_id: str | None) -> int:
    """Is this the member it says it is? 0, UNKNOWN_MEMBER_ID or FENCED_INSTANCE_ID (KIP-345)."""
    if instance_id is not None:
        owner = group.static.get(instance_id)
        if owner is None:
            return codes.UNKNOWN_MEMBER_ID
        if owner != member_id:
            return codes.FENCED_INSTANCE_ID
    if member_id not in group.members:
        return codes.UNKNOWN_MEMBER_ID
    return codes.NONE


def check_heartbeat(
    group: ClassicGroup, member_id: str, instance_id: str | None, generation: int
) -> int:
    """The answer to Heartbeat. On 0 and REBALANCE_IN_PROGRESS the session goes on."""
    state = group.state
    if state == DEAD:
        return codes.COORDINATOR_NOT_AVAILABLE
    error = check_member(group, member_id, instance_id)
    if error:
        return error
    if generation != group.generation:
        return codes.ILLEGAL_GENERATION
    if state == PREPARING:
        return codes.REBALANCE_IN_PROGRESS
    if state == EMPTY:
        return codes.UNKNOWN_MEMBER_ID
    return codes.NONE


def check_commit(
    group: ClassicGroup, member_id: str, instance_id: str | None, generation: int
) -> int:
    """May this member commit offsets now? Rule 38: generation, member and instance must match;
    without a member, only an empty group takes commits."""
    state = group.state
    if state == DEAD:
        return codes.COORDINATOR_NOT_AVAILABLE
    if generation < 0 and state == EMPTY:
        return codes.NONE
    if generation >= 0 or member_id or instance_id is not None:
        error = check_member(group, member_id, instance_id)
        if error:
            return error
        if generation != group.generation:
            return codes.ILLEGAL_GENERATION
    elif state != EMPTY:
        return codes.UNKNOWN_MEMBER_ID
    if state == COMPLETING:
        return codes.REBALANCE_IN_PROGRESS
    return codes.NONE


# -- JoinGroup ---------------------------------------------------------------------------------
def _join(at: _Step, join: Join) -> None:
    group = at.group
    effects_before = len(at.effects)
    wrote = False
    if not _accepts(at, join.member_id):
        if join.member_id:
            _drop_member(at, join.member_id)
        _reply(at, join.waiter, JoinResult(codes.GROUP_MAX_SIZE_REACHED))
    elif join.member_id == "":
        _join_new(at, join)
    else:
        _join_known(at, join)
    wrote = any(isinstance(effect, WriteGroup) for effect in at.effects[effects_before:])
    if join.created and not wrote and group.state != DEAD:
        # The group exists from here on, so its log has to know it.
        value = GroupMetadataValue(
            protocol_type="",
            generation=group.generation,
            protocol=None,
            leader=None,
            current_state_timestamp=_timestamp(group),
            members=[],
        )
        at.effects.append(WriteGroup(value, Created()))


def _accepts(at: _Step, member_id: str) -> bool:
    """group.max.size: members who wait again come before newcomers, so that a group which is
    over its limit (the limit was lowered) shrinks by who comes last."""
    group = at.group
    limit = at.settings.max_size
    if group.state in (EMPTY, DEAD):
        return True
    member = group.members.get(member_id)
    if group.state == PREPARING:
        return (member is not None and member.join_waiter is not None) or (
            group.awaiting_join < limit
        )
    return member is not None or len(group.members) < limit


def _join_new(at: _Step, join: Join) -> None:
    group = at.group
    if group.state == DEAD:
        _reply(at, join.waiter, JoinResult(codes.COORDINATOR_NOT_AVAILABLE))
    elif not group.supports(join.protocol_type, join.protocols):
        _reply(at, join.waiter, JoinResult(codes.INCONSISTENT_GROUP_PROTOCOL))
    elif join.instance_id is not None:
        owner = group.static.get(join.instance_id)
        if owner is None:
            _add_member(at, join, join.new_member_id)
        else:
            _replace_static(at, join, owner)
    elif join.api_version >= 4:
        # KIP-394: the id first, so that a client that retries does not become two members.
        group.pending_joins.add(join.new_member_id)
        at.effects.append(StartSession(join.new_member_id, join.session_timeout_ms))
        _reply(at, join.waiter, JoinResult(codes.MEMBER_ID_REQUIRED, member_id=join.new_member_id))
    else:
        _add_member(at, join, join.new_member_id)


def _join_known(at: _Step, join: Join) -> None:
    group = at.group
    member_id = join.member_id

    def refuse(error: int) -> None:
        _reply(at, join.waiter, JoinResult(error, member_id=member_id))

    if group.state == DEAD:
        refuse(codes.COORDINATOR_NOT_AVAILABLE)
        return
    if not group.supports(join.protocol_type, join.protocols):
        refuse(codes.INCONSISTENT_GROUP_PROTOCOL)
        return
    if member_id in group.pending_joins:
        if join.instance_id is not None:
            # Static members never wait for an id.
            refuse(codes.UNKNOWN_SERVER_ERROR)
        else:
            _add_member(at, join, member_id)
        return
    error = check_member(group, member_id, join.instance_id)
    if error:
        refuse(error)
        return
    member = group.members[member_id]
    same = member.protocols == join.protocols
    if group.state == PREPARING or (group.state == COMPLETING and not same):
        _update_and_rebalance(at, join, member)
    elif group.state == COMPLETING:
        # The answer to its first JoinGroup was lost: give it again.
        _reply(at, join.waiter, _joined(group, member, with_members=group.leader == member_id))
    elif group.state == STABLE:
        if group.leader == member_id or not same:
            # The leader rejoins for what the metadata does not show (new partitions, say).
            _update_and_rebalance(at, join, member)
        else:
            _reply(at, join.waiter, _joined(group, member, with_members=False))
    else:
        refuse(codes.UNKNOWN_MEMBER_ID)


def _add_member(at: _Step, join: Join, member_id: str) -> None:
    group = at.group
    member = ClassicMember(
        member_id=member_id,
        instance_id=join.instance_id,
        client_id=join.client_id,
        client_host=join.client_host,
        rebalance_timeout_ms=join.rebalance_timeout_ms,
        session_timeout_ms=join.session_timeout_ms,
        protocol_type=join.protocol_type,
        protocols=join.protocols,
    )
    member.is_new = True
    if group.state == PREPARING and group.previous_state == EMPTY:
        group.new_member_added = True
    group.add(member, join.waiter)
    # It cannot send heartbeats while it waits, and a disconnect does not show: a client that is
    # gone is dropped after the join timeout, one that is still there retries.
    at.effects.append(StartSession(member_id, at.settings.new_member_join_timeout_ms))
    _rebalance_or_complete(at)


def _update_and_rebalance(at: _Step, join: Join, member: ClassicMember) -> None:
    group = at.group
    _supersede_join(at, member)
    group.update(member, join.protocols, join.rebalance_timeout_ms, join.session_timeout_ms)
    group.set_join_waiter(member, join.waiter)
    _rebalance_or_complete(at)


def _supersede_join(at: _Step, member: ClassicMember) -> None:
    """The member asks again: its earlier request is answered with something it retries."""
    _finish_join(at, member, JoinResult(codes.REBALANCE_IN_PROGRESS, member_id=member.member_id))


def _replace_static(at: _Step, join: Join, old_id: str) -> None:
    """A static member came back without its id (KIP-345): it takes the old one's place, and the
    old one is fenced wherever it still waits or asks."""
    group = at.group
    member = group.members[old_id]
    _finish_join(at, member, JoinResult(codes.FENCED_INSTANCE_ID, member_id=old_id))
    _finish_sync(at, member, SyncResult(codes.FENCED_INSTANCE_ID))
    at.effects.append(EndSession(old_id))
    undo = StaticReplaced(
        old_id,
        join.new_member_id,
        member.protocols,
        member.rebalance_timeout_ms,
        member.session_timeout_ms,
        group.leader,
        join.api_version,
    )
    group.rename_static(old_id, join.new_member_id)
    group.update(member, join.protocols, join.rebalance_timeout_ms, join.session_timeout_ms)
    group.set_join_waiter(member, join.waiter)
    at.effects.append(StartSession(member.member_id, member.session_timeout_ms))
    if group.state == STABLE:
        if group.select_protocol() == group.protocol_name:
            # The assignment stays valid: no rebalance, only the new id has to be written.
            at.effects.append(WriteGroup(group_value(group, None), undo))
        else:
            _rebalance_or_complete(at)
    elif group.state == COMPLETING:
        # The leader may already assign to the old id.
        _prepare_rebalance(at)
    else:
        _maybe_complete(at)


# -- rebalance ---------------------------------------------------------------------------------
def _rebalance_or_complete(at: _Step) -> None:
    if at.group.state in (STABLE, COMPLETING, EMPTY):
        _prepare_rebalance(at)
    else:
        _maybe_complete(at)


def _prepare_rebalance(at: _Step) -> None:
    group = at.group
    if group.state == COMPLETING:
        for member in group.members.values():
            member.assignment = b""
        _release_syncs(at, codes.REBALANCE_IN_PROGRESS)
    group.pending_syncs.clear()
    at.effects.append(CancelTimer(SYNC_TIMER))
    initial = group.state == EMPTY
    group.transition(PREPARING, at.now_ms)
    if initial:
        # A new group: give its other members time to arrive before the first assignment.
        group.new_member_added = False
        delay = at.settings.initial_rebalance_delay_ms
        remaining = max(group.rebalance_timeout_ms() - delay, 0)
        at.effects.append(StartTimer(JOIN_TIMER, delay, InitialJoinTimer(delay, remaining)))
    elif group.all_joined():
        _complete_join(at)
    else:
        at.effects.append(StartTimer(JOIN_TIMER, group.rebalance_timeout_ms(), JoinTimer()))


def _maybe_complete(at: _Step) -> None:
    group = at.group
    if group.state == PREPARING and group.previous_state != EMPTY and group.all_joined():
        _complete_join(at)


def _complete_join(at: _Step) -> None:
    """Who has not joined is out (static members stay until their session ends); the next
    generation begins."""
    group = at.group
    at.effects.append(CancelTimer(JOIN_TIMER))
    missing = [
        member.member_id
        for member in group.members.values()
        if member.join_waiter is None and member.instance_id is None
    ]
    for member_id in missing:
        _drop_member(at, member_id)
    if not group.elect_leader() and group.members:
        # Only absent static members are left: wait until they come back or their sessions end.
        at.effects.append(StartTimer(JOIN_TIMER, group.rebalance_timeout_ms(), JoinTimer()))
        return
    group.next_generation(at.now_ms)
    if group.state == EMPTY:
        at.effects.append(WriteGroup(group_value(group, {}), Emptied(None, None)))
        return
    for member in group.members.values():
        is_leader = group.leader == member.member_id
        _finish_join(at, member, _joined(group, member, with_members=is_leader))
        at.effects.append(StartSession(member.member_id, member.session_timeout_ms))
        member.is_new = False
        group.pending_syncs.add(member.member_id)
    at.effects.append(
        StartTimer(SYNC_TIMER, group.rebalance_timeout_ms(), SyncTimer(group.generation))
    )


def _initial_join_timer(at: _Step, event: InitialJoinTimer) -> None:
    group = at.group
    if group.state != PREPARING:
        return
    if group.new_member_added and event.remaining_ms != 0:
        group.new_member_added = False
        delay = min(at.settings.initial_rebalance_delay_ms, event.remaining_ms)
        remaining = max(event.remaining_ms - event.delay_ms, 0)
        at.effects.append(StartTimer(JOIN_TIMER, delay, InitialJoinTimer(delay, remaining)))
    else:
        _complete_join(at)


def _join_timer(at: _Step, _event: JoinTimer) -> None:
    if at.group.state == PREPARING:
        _complete_join(at)


# -- SyncGroup ---------------------------------------------------------------------------------
def _sync(at: _Step, sync: Sync) -> None:
    group = at.group
    error = _check_sync(group, sync)
    if error:
        _reply(at, sync.waiter, SyncResult(error))
        return
    member = group.members[sync.member_id]
    _sync_received(at, sync.member_id)
    if group.state == STABLE:
        _reply(at, sync.waiter, _synced(group, member))
        return
    _finish_sync(at, member, SyncResult(codes.REBALANCE_IN_PROGRESS))
    member.sync_waiter = sync.waiter
    if group.leader == sync.member_id:
        assignments = {known: sync.assignments.get(known, b"") for known in group.members}
        at.effects.append(
            WriteGroup(group_value(group, assignments), Assigned(group.generation, assignments))
        )


def _check_sync(group: ClassicGroup, sync: Sync) -> int:
    if group.state == DEAD:
        return codes.COORDINATOR_NOT_AVAILABLE
    if group.state == EMPTY:
        return codes.UNKNOWN_MEMBER_ID
    error = check_member(group, sync.member_id, sync.instance_id)
    if error:
        return error
    if sync.generation != group.generation:
        return codes.ILLEGAL_GENERATION
    if _differs(sync.protocol_type, group.protocol_type) or _differs(
        sync.protocol_name, group.protocol_name
    ):
        return codes.INCONSISTENT_GROUP_PROTOCOL
    if group.state == PREPARING:
        return codes.REBALANCE_IN_PROGRESS
    return codes.NONE


def _differs(asked: str | None, known: str | None) -> bool:
    return asked is not None and known is not None and asked != known


def _sync_received(at: _Step, member_id: str) -> None:
    group = at.group
    group.pending_syncs.discard(member_id)
    if not group.pending_syncs:
        at.effects.append(CancelTimer(SYNC_TIMER))


def _sync_timer(at: _Step, event: SyncTimer) -> None:
    group = at.group
    if event.generation != group.generation or group.state not in (COMPLETING, STABLE):
        return
    if not group.pending_syncs:
        return
    for member_id in sorted(group.pending_syncs):
        _drop_member(at, member_id)
    _prepare_rebalance(at)


# -- LeaveGroup and lost sessions --------------------------------------------------------------
def _leave(at: _Step, leave: Leave) -> None:
    group = at.group
    if group.state == DEAD:
        _reply(at, leave.waiter, LeaveResult(codes.COORDINATOR_NOT_AVAILABLE))
        return
    answers: list[tuple[str, str | None, int]] = []
    left = False
    for member_id, instance_id in leave.members:
        error = _leave_one(at, member_id, instance_id)
        left = left or error == codes.NONE
        answers.append((member_id, instance_id, error))
    result = LeaveResult(codes.NONE, tuple(answers))
    first = len(at.effects)
    if left and group.state in (STABLE, COMPLETING):
        _rebalance_or_complete(at)
    elif left and group.state == PREPARING:
        _maybe_complete(at)
    for index in range(first, len(at.effects)):
        effect = at.effects[index]
        if isinstance(effect, WriteGroup) and isinstance(effect.then, Emptied):
            # Answered when the empty group is in the log.
            at.effects[index] = WriteGroup(effect.value, Emptied(leave.waiter, result))
            return
    _reply(at, leave.waiter, result)


def _leave_one(at: _Step, member_id: str, instance_id: str | None) -> int:
    group = at.group
    if member_id == "":
        # An administrator removes a static member by its instance id.
        owner = group.static.get(instance_id) if instance_id is not None else None
        if owner is None:
            return codes.UNKNOWN_MEMBER_ID
        _drop_member(at, owner)
        return codes.NONE
    if member_id not in group.pending_joins:
        error = check_member(group, member_id, instance_id)
        if error:
            return error
    _drop_member(at, member_id)
    return codes.NONE


def _session_expired(at: _Step, event: SessionExpired) -> None:
    group = at.group
    member_id = event.member_id
    if group.state == DEAD:
        return
    if member_id in group.pending_joins:
        group.remove(member_id)
        if group.state == PREPARING and group.all_joined():
            # During the initial delay too: nobody else is expected.
            _complete_join(at)
        return
    member = group.members.get(member_id)
    if member is None or member.is_kept_alive():
        return
    _drop_member(at, member_id)
    if group.state in (STABLE, COMPLETING):
        _prepare_rebalance(at)
    elif group.state == PREPARING and group.all_joined():
        _complete_join(at)


def _drop_member(at: _Step, member_id: str) -> None:
    """Answer whatever the member waits for, and take it out."""
    group = at.group
    member = group.members.get(member_id)
    if member is not None:
        # UNKNOWN_MEMBER_ID makes a client that is still there join anew.
        _finish_join(at, member, JoinResult(codes.UNKNOWN_MEMBER_ID))
        _finish_sync(at, member, SyncResult(codes.UNKNOWN_MEMBER_ID))
    if member is not None or member_id in group.pending_joins:
        at.effects.append(EndSession(member_id))
    group.remove(member_id)


# -- appends that ended ------------------------------------------------------------------------
def _appended(at: _Step, event: Appended) -> None:
    what = event.what
    if isinstance(what, Assigned):
        _assignments_written(at, what, event.error)
    elif isinstance(what, StaticReplaced):
        _static_written(at, what, event.error)
    elif isinstance(what, Emptied):
        # Without the record the previous generation would come back after a crash, and time out:
        # safe, so only the LeaveGroup that waits hears of it.
        if what.waiter is not None and what.result is not None:
            failed = LeaveResult(event.error)
            _reply(at, what.waiter, failed if event.error else what.result)
    elif event.error:
        _unload(at, Unload(event.error))
        at.effects.append(DropGroup())


def _assignments_written(at: _Step, what: Assigned, error: int) -> None:
    group = at.group
    if group.state != COMPLETING or group.generation != what.generation:
        return
    if error:
        for member in group.members.values():
            member.assignment = b""
        _release_syncs(at, error)
        _prepare_rebalance(at)
        return
    for member in group.members.values():
        member.assignment = what.assignments.get(member.member_id, b"")
    _release_syncs(at, codes.NONE)
    group.transition(STABLE, at.now_ms)


def _static_written(at: _Step, what: StaticReplaced, error: int) -> None:
    group = at.group
    member = group.members.get(what.new_id)
    if member is None or member.join_waiter is None:
        return
    if group.state != STABLE:
        # A rebalance began meanwhile: it will answer.
        return
    if error:
        _finish_join(
            at,
            member,
            JoinResult(
                error,
                "",
                group.generation,
                group.protocol_type,
                group.protocol_name,
                what.old_leader or "",
            ),
        )
        group.update(
            member, what.old_protocols, what.old_rebalance_timeout_ms, what.old_session_timeout_ms
        )
        at.effects.append(EndSession(what.new_id))
        group.rename_static(what.new_id, what.old_id)
        at.effects.append(StartSession(member.member_id, member.session_timeout_ms))
    elif what.api_version >= 9:
        # KIP-814: the leader learns the members, and that it must not assign.
        is_leader = group.leader == member.member_id
        result = _joined(group, member, with_members=is_leader)
        _finish_join(at, member, result._replace(skip_assignment=is_leader))
    else:
        # Older clients are told the old leader, so that one that led does not assign again.
        result = _joined(group, member, with_members=False)
        _finish_join(at, member, result._replace(leader=what.old_leader or ""))


# -- load and unload ---------------------------------------------------------------------------
def _loaded(at: _Step, _event: Loaded) -> None:
    group = at.group
    for member in group.members.values():
        at.effects.append(StartSession(member.member_id, member.session_timeout_ms))
    if len(group.members) > at.settings.max_size:
        # The limit was lowered: rebalance, and admit only as many as it allows.
        _prepare_rebalance(at)


def _unload(at: _Step, event: Unload) -> None:
    group = at.group
    for member in group.members.values():
        _finish_join(at, member, JoinResult(event.error, member_id=member.member_id))
        _finish_sync(at, member, SyncResult(event.error))
        at.effects.append(EndSession(member.member_id))
    for member_id in group.pending_joins:
        at.effects.append(EndSession(member_id))
    at.effects.append(CancelTimer(JOIN_TIMER))
    at.effects.append(CancelTimer(SYNC_TIMER))
    group.transition(DEAD, at.now_ms)


# -- small parts -------------------------------------------------------------------------------
def _reply(at: _Step, waiter: object, result: JoinResult | SyncResult | LeaveResult) -> None:
    at.effects.append(Reply(waiter, result))


def _finish_join(at: _Step, member: ClassicMember, result: JoinResult) -> None:
    if member.join_waiter is not None:
        _reply(at, member.join_waiter, result)
        at.group.set_join_waiter(member, None)


def _finish_sync(at: _Step, member: ClassicMember, result: SyncResult) -> None:
    if member.sync_waiter is not None:
        _reply(at, member.sync_waiter, result)
        member.sync_waiter = None


def _release_syncs(at: _Step, error: int) -> None:
    """Answer everyone who waits for an assignment. Their sessions begin anew: while they waited,
    an expiry was ignored and nothing was left to expire."""
    for member in at.group.members.values():
        if member.sync_waiter is not None:
            result = SyncResult(error) if error else _synced(at.group, member)
            _finish_sync(at, member, result)
            at.effects.append(StartSession(member.member_id, member.session_timeout_ms))


def _joined(group: ClassicGroup, member: ClassicMember, *, with_members: bool) -> JoinResult:
    members: tuple[tuple[str, str | None, bytes], ...] = ()
    if with_members:
        members = tuple(
            (m.member_id, m.instance_id, m.metadata(group.protocol_name))
            for m in group.members.values()
        )
    return JoinResult(
        codes.NONE,
        member.member_id,
        group.generation,
        group.protocol_type,
        group.protocol_name,
        group.leader or "",
        False,
        members,
    )


def _synced(group: ClassicGroup, member: ClassicMember) -> SyncResult:
    return SyncResult(codes.NONE, group.protocol_type, group.protocol_name, member.assignment)


def _timestamp(group: ClassicGroup) -> int:
    return -1 if group.state_timestamp is None else group.state_timestamp


def group_value(group: ClassicGroup, assignments: dict[str, bytes] | None) -> GroupMetadataValue:
    """The group's record. `assignments` None: those that the members have now."""
    return GroupMetadataValue(
        protocol_type=group.protocol_type or "",
        generation=group.generation,
        protocol=group.protocol_name,
        leader=group.leader,
        current_state_timestamp=_timestamp(group),
        members=[
            MemberMetadata(
                member_id=member.member_id,
                group_instance_id=member.instance_id,
                client_id=member.client_id,
                client_host=member.client_host,
                rebalance_timeout=member.rebalance_timeout_ms,
                session_timeout=member.session_timeout_ms,
                subscription=member.metadata(group.protocol_name),
                assignment=(
                    member.assignment
                    if assignments is None
                    else assignments.get(member.member_id, b"")
                ),
            )
            for member in group.members.values()
        ],
    )


_HANDLERS: dict[type, Callable[[_Step, Any], None]] = {
    Join: _join,
    Sync: _sync,
    Leave: _leave,
    SessionExpired: _session_expired,
    InitialJoinTimer: _initial_join_timer,
    JoinTimer: _join_timer,
    SyncTimer: _sync_timer,
    Loaded: _loaded,
    Unload: _unload,
    Appended: _appended,
}
