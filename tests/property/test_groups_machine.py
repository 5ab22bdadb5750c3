"""A classic group under random clients, time, appends that lag or fail, unloads and restarts.

What must hold, whatever happens:
 - a partition has one owner in a generation;
 - a commit of a generation that is over, or of a member that is gone, changes nothing;
 - a committed offset is what the last successful commit said, before and after a restart;
 - every waiter is answered in the end, and exactly once (a second answer raises);
 - the invariants that classic_group.py states.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from penstock.groups import codes
from penstock.groups.classic_group import COMPLETING, EMPTY, ClassicGroup
from penstock.groups.config import GroupSettings
from penstock.groups.deferred import Deferred
from penstock.groups.memory import MemoryGroups
from penstock.groups.tables import MemoryMemberTable

if TYPE_CHECKING:
    from penstock.groups.coordinator import Group
    from penstock.groups.state import JoinResult, SyncResult

PARTITIONS = 6
CLIENTS = 5


class Client:
    """A consumer as it sees itself."""

    def __init__(self, index: int) -> None:
        # The last two are static members; both may run twice under one instance id.
        self.instance = f"instance-{index % 2}" if index >= 3 else None
        self.name = self.instance or f"client-{index}"
        self.member_id = ""
        self.generation = -1
        self.members: tuple[str, ...] = ()
        self.protocol: str | None = None
        self.join: Deferred[JoinResult] | None = None
        self.sync: Deferred[SyncResult] | None = None

    def forget(self) -> None:
        self.member_id = ""
        self.generation = -1


class ClassicGroupMachine(RuleBasedStateMachine):
    @initialize(max_size=st.sampled_from([2, 3, 100]))
    def begin(self, max_size: int) -> None:
        self.world = MemoryGroups(GroupSettings(max_size=max_size))
        self.world.topics.add("foo", PARTITIONS)
        self.clients = [Client(index) for index in range(CLIENTS)]
        self.waiters: list[Deferred[object]] = []
        self.life = 0
        self.group: Group | None = None
        self.newest = 0
        self.owners: dict[tuple[int, int, int], str] = {}
        self.committed: dict[int, int] = {}
        self.pending: list[tuple[Deferred[int], int, int]] = []
        self.next_offset = 1

    # -- the clients ------------------------------------------------------------------------
    @rule(index=st.integers(0, CLIENTS - 1), both=st.booleans(), old=st.booleans())
    def join(self, index: int, both: bool, old: bool) -> None:
        client = self.clients[index]
        if client.join is not None:
            return
        protocols = (("range", b"r"), ("sticky", b"s")) if both else (("range", b"r"),)
        client.join = self.world.coordinator.join(
            group_id="grp",
            member_id=client.member_id,
            instance_id=client.instance,
            client_id=client.name,
            client_host="/h",
            session_timeout_ms=10_000,
            rebalance_timeout_ms=15_000,
            protocol_type="consumer",
            protocols=protocols,
            api_version=3 if old else 9,
        )
        self.waiters.append(client.join)  # type: ignore[arg-type]
        self.settle()

    @rule(index=st.integers(0, CLIENTS - 1))
    def sync(self, index: int) -> None:
        client = self.clients[index]
        if client.generation < 0 or client.sync is not None:
            return
        assignments = dict.fromkeys(client.members, b"")
        for partition in range(PARTITIONS):
            if client.members:
                owner = client.members[partition % len(client.members)]
                assignments[owner] += bytes([partition])
        client.sync = self.world.coordinator.sync(
            group_id="grp",
            member_id=client.member_id,
            instance_id=client.instance,
            generation=client.generation,
            protocol_type="consumer",
            protocol_name=client.protocol,
            assignments=assignments,
        )
        self.waiters.append(client.sync)  # type: ignore[arg-type]
        self.settle()

    @rule(index=st.integers(0, CLIENTS - 1))
    def heartbeat(self, index: int) -> None:
        client = self.clients[index]
        error = self.world.coordinator.heartbeat(
            "grp", client.member_id, client.instance, client.generation
        )
        if error == codes.NONE:
            assert client.generation == self.newest
        elif error in (codes.UNKNOWN_MEMBER_ID, codes.FENCED_INSTANCE_ID):
            client.forget()

    @rule(index=st.integers(0, CLIENTS - 1), by_instance=st.booleans())
    def leave(self, index: int, by_instance: bool) -> None:
        client = self.clients[index]
        member = "" if by_instance else client.member_id
        self.waiters.append(
            self.world.coordinator.leave(  # type: ignore[arg-type]
                group_id="grp", members=((member, client.instance),)
            )
        )
        self.settle()

    @rule(index=st.integers(0, CLIENTS - 1), partition=st.integers(0, 2), lie=st.integers(-1, 1))
    def commit(self, index: int, partition: int, lie: int) -> None:
        client = self.clients[index]
        group = self.world.coordinator.group("grp")
        was_empty = group is None or (isinstance(group, ClassicGroup) and group.state == EMPTY)
        generation = client.generation + lie
        offset, self.next_offset = self.next_offset, self.next_offset + 1
        outcome = self.world.coordinator.commit(
            group_id="grp",
            member_id=client.member_id,
            instance_id=client.instance,
            generation=generation,
            api_version=9,
            retention_ms=-1,
            commits=[(bytes(16), "foo", partition, offset, -1, "")],
        )
        if isinstance(outcome, Deferred) or outcome == codes.NONE:
            # It was accepted: by an empty group, or from a member of the newest generation.
            assert (generation < 0 and was_empty) or generation == self.newest
        if isinstance(outcome, Deferred):
            self.pending.append((outcome, partition, offset))
        elif outcome == codes.NONE:
            self.committed[partition] = offset

    @rule(count=st.integers(1, 3), first=st.integers(0, 2), lie=st.integers(-1, 1))
    def gather(self, count: int, first: int, lie: int) -> None:
        """Chance alone seldom makes a stable group."""
        some = range(first, first + count)
        for _ in range(2):
            for index in some:
                self.join(index, True, False)
        for _ in range(4):
            self.pass_time(5_000)
            for index in some:
                self.heartbeat(index)
        for index in some:
            self.sync(index)
        for index in some:
            self.commit(index, index % 3, lie)

    # -- the world --------------------------------------------------------------------------
    @rule(by=st.sampled_from([1, 500, 3_000, 5_000, 9_999, 15_001, 400_000]))
    def pass_time(self, by: int) -> None:
        self.world.clock.advance(by)
        self.settle()

    @rule(held=st.booleans())
    def hold_appends(self, held: bool) -> None:
        self.world.log.held = held
        if not held:
            self.world.log.release()
        self.settle()

    @rule(some=st.integers(1, 3))
    def end_some_appends(self, some: int) -> None:
        self.world.log.release(some)
        self.settle()

    @precondition(lambda self: not self.world.log.held)
    @rule(code=st.sampled_from([None, None, 19, 56]))
    def fail_appends(self, code: int | None) -> None:
        self.world.log.fail_with = code

    @rule()
    def restart(self) -> None:
        self.world.coordinator.stop()
        # What was on its way may end in the log or not; here it does not.
        self.world.log._waiting.clear()
        self.settle()
        assert all(waiter.done() for waiter in self.waiters)
        self.world.start()
        self.settle()
        for client in self.clients:
            # A generation whose assignment was never written is unknown now.
            if client.generation > self.newest:
                client.forget()

    def settle(self) -> None:
        """Let the clients read their answers."""
        for client in self.clients:
            if client.join is not None and client.join.done():
                self.joined(client, client.join.result())
                client.join = None
            if client.sync is not None and client.sync.done():
                self.synced(client, client.sync.result())
                client.sync = None
        for done, partition, offset in [p for p in self.pending if p[0].done()]:
            if done.result() == codes.NONE:
                self.committed[partition] = offset
        self.pending = [p for p in self.pending if not p[0].done()]
        group = self.world.coordinator.group("grp")
        if group is not self.group:
            # Deleted, or never written: whoever has the name next counts from the start.
            self.group = group
            self.life += 1
            self.newest = group.generation if isinstance(group, ClassicGroup) else 0

    def joined(self, client: Client, result: JoinResult) -> None:
        if result.error == codes.NONE:
            assert result.generation >= self.newest
            self.newest = max(self.newest, result.generation)
            client.member_id = result.member_id
            client.generation = result.generation
            client.protocol = result.protocol_name
            client.members = tuple(member for member, _, _ in result.members)
            if result.members and not result.skip_assignment:
                assert result.leader == result.member_id
        elif result.error == codes.MEMBER_ID_REQUIRED:
            client.member_id = result.member_id
            client.generation = -1
        elif result.error != codes.REBALANCE_IN_PROGRESS:
            client.forget()

    def synced(self, client: Client, result: SyncResult) -> None:
        if result.error == codes.NONE:
            for partition in result.assignment:
                owner = self.owners.setdefault(
                    (self.life, client.generation, partition), client.name
                )
                assert owner == client.name
        elif result.error in (codes.UNKNOWN_MEMBER_ID, codes.FENCED_INSTANCE_ID):
            client.forget()

    # -- what always holds ------------------------------------------------------------------
    @invariant()
    def offsets_are_those_of_the_last_commits(self) -> None:
        for partition in range(3):
            entry = self.world.coordinator.committed("grp", "foo", partition)
            found = None if entry is None else entry.offset
            assert found == self.committed.get(partition)

    @invariant()
    def the_group_is_consistent(self) -> None:
        group = self.world.coordinator.group("grp")
        if not isinstance(group, ClassicGroup):
            return
        self.newest = max(self.newest, group.generation)
        members = group.members.values()
        assert group.awaiting_join == sum(m.join_waiter is not None for m in members)
        listed = Counter(name for m in members for name in {name for name, _ in m.protocols})
        assert group.supported == dict(listed)
        assert group.static == {
            m.instance_id: m.member_id for m in members if m.instance_id is not None
        }
        assert (group.leader in group.members) if group.members else group.leader is None
        assert all(key == m.member_id for key, m in group.members.items())
        assert group.state == COMPLETING or all(m.sync_waiter is None for m in members)
        assert group.pending_syncs <= group.members.keys()
        assert not (group.pending_joins & group.members.keys())
        if group.state == EMPTY:
            assert not group.members

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        self.world.log.fail_with = None
        self.world.log.held = False
        self.world.log.release()
        # Nobody does anything any more: sessions end, and with them every wait.
        self.world.clock.advance(2_000_000)
        self.settle()
        assert all(waiter.done() for waiter in self.waiters)
        group = self.world.coordinator.group("grp")
        assert not isinstance(group, ClassicGroup) or group.state == EMPTY
        assert self.world.members.size() == 0
        assert self.world.coordinator.statistics()["timers"] == 0


TestClassicGroup = ClassicGroupMachine.TestCase
TestClassicGroup.settings = settings(
    max_examples=60,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


class MemberTableMachine(RuleBasedStateMachine):
    """The member table against a dictionary that is searched from end to end."""

    def __init__(self) -> None:
        super().__init__()
        self.table = MemoryMemberTable()
        self.model: dict[tuple[str, str], int] = {}
        self.now = 0

    keys = st.tuples(st.sampled_from("gh"), st.sampled_from("abc"))

    @rule(key=keys, after=st.integers(1, 50))
    def upsert(self, key: tuple[str, str], after: int) -> None:
        self.table.upsert(*key, 1, self.now + after)
        self.model[key] = self.now + after

    @rule(key=keys, after=st.integers(1, 50))
    def touch(self, key: tuple[str, str], after: int) -> None:
        assert self.table.touch(*key, self.now + after) == (key in self.model)
        if key in self.model:
            self.model[key] = self.now + after

    @rule(key=keys)
    def remove(self, key: tuple[str, str]) -> None:
        assert self.table.remove(*key) == (self.model.pop(key, None) is not None)

    @rule(by=st.integers(0, 30))
    def expire(self, by: int) -> None:
        self.now += by
        due = {key for key, deadline in self.model.items() if deadline <= self.now}
        found = self.table.expired(self.now)
        assert sorted(found) == sorted(due)
        assert [self.model[key] for key in found] == sorted(self.model[key] for key in due)
        for key in due:
            del self.model[key]

    @invariant()
    def the_next_deadline_is_never_late(self) -> None:
        earliest = min(self.model.values(), default=-1)
        following = self.table.next_deadline()
        assert following <= earliest if self.model else following == -1
        assert self.table.size() == len(self.model)


TestMemberTable = MemberTableMachine.TestCase
TestMemberTable.settings = settings(max_examples=50, stateful_step_count=50, deadline=None)
