"""Membership of classic groups: joins, rebalances, static members, sessions, limits."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from penstock.errors import ConfigError
from penstock.groups import codes
from penstock.groups.classic_group import (
    COMPLETING,
    EMPTY,
    PREPARING,
    STABLE,
    ClassicGroup,
    subscription_topics,
)
from penstock.groups.config import GroupSettings, read_settings
from penstock.groups.memory import MemoryGroups
from penstock.groups.state import JoinResult, SyncResult

if TYPE_CHECKING:
    from penstock.groups.deferred import Deferred


def subscription(*topics: str) -> bytes:
    raw = struct.pack(">hi", 1, len(topics))
    for topic in topics:
        raw += struct.pack(">h", len(topic)) + topic.encode()
    return raw + b"\xff\xff\xff\xff\x00\x00\x00\x00"


RANGE = (("range", subscription("foo")),)


class Groups(MemoryGroups):
    """Shorter calls."""

    def join(
        self,
        member_id: str = "",
        *,
        group: str = "grp",
        instance: str | None = None,
        protocols: tuple[tuple[str, bytes], ...] = RANGE,
        kind: str = "consumer",
        version: int = 9,
        session: int = 10_000,
        rebalance: int = 60_000,
    ) -> Deferred[JoinResult]:
        return self.coordinator.join(
            group_id=group,
            member_id=member_id,
            instance_id=instance,
            client_id="c",
            client_host="/h",
            session_timeout_ms=session,
            rebalance_timeout_ms=rebalance,
            protocol_type=kind,
            protocols=protocols,
            api_version=version,
        )

    def enter(self, **kwargs: object) -> tuple[str, Deferred[JoinResult]]:
        """A dynamic member: the first answer names its id, the second join waits."""
        first = self.join(**kwargs).result()  # type: ignore[arg-type]
        assert first.error == codes.MEMBER_ID_REQUIRED
        return first.member_id, self.join(first.member_id, **kwargs)  # type: ignore[arg-type]

    def sync(
        self,
        member_id: str,
        generation: int,
        assignments: dict[str, bytes] | None = None,
        *,
        group: str = "grp",
        instance: str | None = None,
        kind: str | None = "consumer",
        name: str | None = "range",
    ) -> Deferred[SyncResult]:
        return self.coordinator.sync(
            group_id=group,
            member_id=member_id,
            instance_id=instance,
            generation=generation,
            protocol_type=kind,
            protocol_name=name,
            assignments=assignments or {},
        )

    def leave(self, *members: tuple[str, str | None], group: str = "grp") -> list[int]:
        result = self.coordinator.leave(group_id=group, members=members).result()
        assert result.error == codes.NONE
        return [error for _, _, error in result.members]

    def stable(self, count: int = 1, **kwargs: object) -> list[str]:
        """A stable group of dynamic members; the first one leads."""
        entered = [self.enter(**kwargs) for _ in range(count)]
        self.clock.advance(self.settings.initial_rebalance_delay_ms * (count + 2))
        results = [joined.result() for _, joined in entered]
        assert all(result.error == codes.NONE for result in results)
        name = str(kwargs.get("group", "grp"))
        syncs = [
            self.sync(
                r.member_id, r.generation, {m: m.encode() for m, _, _ in r.members}, group=name
            )
            for r in reversed(results)
        ]
        assert all(s.result().assignment for s in syncs)
        return [member for member, _ in entered]

    def state(self, group: str = "grp") -> str:
        return self.classic(group).state

    def classic(self, group: str = "grp") -> ClassicGroup:
        found = self.coordinator.group(group)
        assert isinstance(found, ClassicGroup)
        return found


def test_a_dynamic_member_is_told_its_id_first_from_version_4() -> None:
    groups = Groups()
    first = groups.join(version=4).result()
    assert first.error == codes.MEMBER_ID_REQUIRED
    assert first.member_id.startswith("c-")
    assert not groups.join(first.member_id, version=4).done()
    assert not groups.join(group="old", version=3).done()


def test_a_pending_member_id_is_forgotten_after_its_session_timeout() -> None:
    groups = Groups()
    member = groups.join().result().member_id
    groups.clock.advance(10_001)
    assert groups.join(member).result().error == codes.UNKNOWN_MEMBER_ID


def test_the_first_rebalance_waits_for_more_members_and_not_longer_than_they_allow() -> None:
    groups = Groups(GroupSettings(initial_rebalance_delay_ms=3000))
    _, one = groups.enter()
    groups.clock.advance(2_999)
    assert not one.done()
    _, two = groups.enter()
    groups.clock.advance(2_999)
    assert not one.done()
    groups.clock.advance(2)
    assert one.result().generation == two.result().generation == 1
    assert len(one.result().members) == 2
    assert two.result().members == ()
    assert one.result().leader == two.result().leader == one.result().member_id

    short = Groups(GroupSettings(initial_rebalance_delay_ms=3000))
    _, first = short.enter(rebalance=5_000)
    short.clock.advance(2_000)
    short.enter(rebalance=5_000)
    short.clock.advance(2_000)
    short.enter(rebalance=5_000)
    short.clock.advance(1_000)
    assert first.done()


def test_sync_gives_each_member_what_the_leader_assigned() -> None:
    groups = Groups()
    leader, follower = (joined for _, joined in (groups.enter(), groups.enter()))
    groups.clock.advance(9_000)
    lead, follow = leader.result(), follower.result()
    waiting = groups.sync(follow.member_id, 1)
    assert not waiting.done()
    assert groups.state() == COMPLETING
    done = groups.sync(lead.member_id, 1, {lead.member_id: b"L", follow.member_id: b"F"})
    assert done.result() == SyncResult(0, "consumer", "range", b"L")
    assert waiting.result() == SyncResult(0, "consumer", "range", b"F")
    assert groups.state() == STABLE
    # A stable group answers again at once.
    assert groups.sync(follow.member_id, 1).result().assignment == b"F"


def test_sync_errors() -> None:
    groups = Groups()
    assert groups.sync("m", 1).result().error == codes.UNKNOWN_MEMBER_ID
    (member,) = groups.stable()
    assert groups.sync("other", 1).result().error == codes.UNKNOWN_MEMBER_ID
    assert groups.sync(member, 2).result().error == codes.ILLEGAL_GENERATION
    assert groups.sync(member, 1, kind="x").result().error == codes.INCONSISTENT_GROUP_PROTOCOL
    assert groups.sync(member, 1, name="x").result().error == codes.INCONSISTENT_GROUP_PROTOCOL
    assert groups.sync(member, 1, group="").result().error == codes.INVALID_GROUP_ID
    groups.enter()
    assert groups.sync(member, 1).result().error == codes.REBALANCE_IN_PROGRESS


def test_heartbeat_follows_the_states() -> None:
    groups = Groups()
    beat = groups.coordinator.heartbeat
    assert beat("grp", "m", None, 1) == codes.UNKNOWN_MEMBER_ID
    assert beat("", "m", None, 1) == codes.INVALID_GROUP_ID
    (member,) = groups.stable()
    assert beat("grp", member, None, 1) == codes.NONE
    assert beat("grp", member, None, 0) == codes.ILLEGAL_GENERATION
    assert beat("grp", "other", None, 1) == codes.UNKNOWN_MEMBER_ID
    assert beat("grp", member, "instance", 1) == codes.UNKNOWN_MEMBER_ID
    groups.enter()
    assert beat("grp", member, None, 1) == codes.REBALANCE_IN_PROGRESS
    joined = groups.join(member).result()
    assert beat("grp", member, None, joined.generation) == codes.NONE
    groups.leave((member, None))
    assert beat("grp", member, None, joined.generation) == codes.UNKNOWN_MEMBER_ID


def test_a_member_without_heartbeats_is_removed_and_the_others_rebalance() -> None:
    groups = Groups()
    one, two = groups.stable(2)
    for _ in range(3):
        groups.clock.advance(4_000)
        groups.coordinator.heartbeat("grp", one, None, 1)
    assert groups.state() == PREPARING
    assert list(groups.classic().members) == [one]
    rejoined = groups.join(one).result()
    assert rejoined.generation == 2
    assert [m for m, _, _ in rejoined.members] == [one]
    assert groups.coordinator.heartbeat("grp", two, None, 1) == codes.UNKNOWN_MEMBER_ID


def test_the_last_member_that_goes_leaves_an_empty_group_with_a_new_generation() -> None:
    groups = Groups()
    groups.stable()
    groups.clock.advance(10_001)
    assert groups.state() == EMPTY
    assert groups.classic().generation == 2
    assert groups.members.size() == 0


def test_who_does_not_rejoin_within_the_rebalance_timeout_is_out() -> None:
    groups = Groups()
    one, two = groups.stable(2, rebalance=20_000, session=300_000)
    _, three = groups.enter(rebalance=20_000, session=300_000)
    rejoined = groups.join(one, rebalance=20_000, session=300_000)
    groups.clock.advance(19_999)
    assert not rejoined.done()
    groups.clock.advance(1)
    assert rejoined.result().generation == three.result().generation == 2
    assert two not in groups.classic().members


def test_the_leader_that_does_not_rejoin_is_replaced() -> None:
    groups = Groups()
    one, two = groups.stable(2, rebalance=20_000, session=300_000)
    assert groups.classic().leader == one
    rejoined = groups.join(two, protocols=(("range", subscription("bar")),), session=300_000)
    groups.clock.advance(60_001)
    assert rejoined.result().leader == two
    assert len(rejoined.result().members) == 1


def test_who_does_not_sync_within_the_rebalance_timeout_is_out() -> None:
    groups = Groups()
    lead_id, leader = groups.enter(rebalance=20_000, session=300_000)
    lazy_id, _ = groups.enter(rebalance=20_000, session=300_000)
    groups.clock.advance(9_000)
    synced = groups.sync(lead_id, 1, {lead_id: b"x"})
    assert synced.done()
    assert groups.state() == STABLE
    groups.clock.advance(20_000)
    assert groups.state() == PREPARING
    assert lazy_id not in groups.classic().members
    assert leader.done()


def test_a_follower_that_rejoins_unchanged_keeps_the_generation_and_a_leader_does_not() -> None:
    groups = Groups()
    one, two = groups.stable(2)
    again = groups.join(two).result()
    assert (again.error, again.generation, again.members) == (0, 1, ())
    assert groups.state() == STABLE
    groups.join(one)
    assert groups.state() == PREPARING


def test_a_lost_join_answer_is_given_again_while_the_group_waits_for_the_assignment() -> None:
    groups = Groups()
    member, _ = groups.enter()
    groups.clock.advance(9_000)
    assert groups.state() == COMPLETING
    again = groups.join(member).result()
    assert again.generation == 1
    assert len(again.members) == 1


def test_a_second_request_of_a_member_releases_the_first() -> None:
    groups = Groups()
    _, first = groups.enter()
    member = groups.classic().leader
    assert member is not None
    second = groups.join(member)
    assert first.result().error == codes.REBALANCE_IN_PROGRESS
    groups.clock.advance(9_000)
    assert second.result().error == codes.NONE
    groups.join("x")
    three, _ = groups.enter()
    groups.join(member)
    groups.join(three)
    waiting = groups.sync(three, 2)
    groups.sync(three, 2)
    assert waiting.result().error == codes.REBALANCE_IN_PROGRESS


def test_a_rebalance_releases_who_waits_for_an_assignment() -> None:
    groups = Groups()
    _, one = groups.enter()
    follower, two = groups.enter()
    groups.clock.advance(9_000)
    assert one.done()
    assert two.done()
    waiting = groups.sync(follower, 1)
    groups.enter()
    assert waiting.result().error == codes.REBALANCE_IN_PROGRESS


def test_a_member_that_leaves_while_it_waits_is_answered() -> None:
    groups = Groups()
    groups.enter()
    follower, joined = groups.enter()
    assert groups.leave((follower, None)) == [0]
    assert joined.result().error == codes.UNKNOWN_MEMBER_ID
    follower, _ = groups.enter()
    groups.clock.advance(9_000)
    waiting = groups.sync(follower, 1)
    assert groups.leave((follower, None)) == [0]
    assert waiting.result().error == codes.UNKNOWN_MEMBER_ID


def test_protocols_must_fit_the_group() -> None:
    groups = Groups()
    wrong = codes.INCONSISTENT_GROUP_PROTOCOL
    assert groups.join(kind="").result().error == wrong
    assert groups.join(protocols=()).result().error == wrong
    groups.stable()
    assert groups.join(kind="connect").result().error == wrong
    assert groups.join(protocols=(("sticky", b""),)).result().error == wrong


def test_the_protocol_with_most_votes_among_the_common_ones_wins() -> None:
    groups = Groups()
    first = groups.enter(protocols=(("a", b"1"), ("b", b"2"), ("c", b"3")))[1]
    groups.enter(protocols=(("c", b"4"), ("b", b"5")))
    groups.enter(protocols=(("b", b"6"), ("c", b"7"), ("d", b"8")))
    groups.clock.advance(60_000)
    result = first.result()
    assert result.protocol_name == "b"
    assert sorted(metadata for _, _, metadata in result.members) == [b"2", b"5", b"6"]


@pytest.mark.parametrize("session", [5_999, 1_800_001, -1])
def test_session_timeouts_have_bounds(session: int) -> None:
    groups = Groups()
    result = groups.join(session=session).result()
    assert result.error == codes.INVALID_SESSION_TIMEOUT
    assert groups.join(group="").result().error == codes.INVALID_GROUP_ID


def test_joining_with_an_id_needs_a_group_that_knows_it() -> None:
    groups = Groups()
    assert groups.join("m").result().error == codes.UNKNOWN_MEMBER_ID
    groups.stable()
    assert groups.join("m").result().error == codes.UNKNOWN_MEMBER_ID


def test_group_max_size_refuses_newcomers_only() -> None:
    groups = Groups(GroupSettings(max_size=2))
    one, two = groups.stable(2)
    assert groups.join().result().error == codes.GROUP_MAX_SIZE_REACHED
    assert not groups.join(one).done()
    assert groups.join(two).result().generation == 2


def test_a_group_over_a_lowered_limit_shrinks_to_who_rejoins_first() -> None:
    groups = Groups()
    one, two, three = groups.stable(3, session=300_000)
    groups.settings = GroupSettings(max_size=2)
    groups.start()
    assert groups.state() == PREPARING
    first = groups.join(one, session=300_000)
    second = groups.join(three, session=300_000)
    assert groups.join(two, session=300_000).result().error == codes.GROUP_MAX_SIZE_REACHED
    groups.clock.advance(60_000)
    assert first.result().error == second.result().error == codes.NONE
    assert set(groups.classic().members) == {one, three}


def test_limits_of_groups_and_of_subscriptions() -> None:
    groups = Groups(GroupSettings(max_groups=1, max_subscription_bytes=100))
    assert groups.join(protocols=(("a", b"x" * 100),)).result().error == codes.POLICY_VIOLATION
    groups.join()
    assert groups.join(group="second").result().error == codes.POLICY_VIOLATION


# -- static members -----------------------------------------------------------------------------
def static_pair(groups: Groups) -> tuple[str, str]:
    one = groups.join(instance="one")
    two = groups.join(instance="two")
    groups.clock.advance(9_000)
    ids = one.result().member_id, two.result().member_id
    follower = groups.sync(ids[1], 1, instance="two")
    groups.sync(ids[0], 1, {ids[0]: b"1", ids[1]: b"2"}, instance="one")
    assert follower.done()
    return ids


def test_a_static_member_that_comes_back_takes_its_place_without_a_rebalance() -> None:
    groups = Groups()
    one, two = static_pair(groups)
    back = groups.join(instance="two").result()
    assert back.error == codes.NONE
    assert back.generation == 1
    assert back.member_id != two
    assert back.leader == one
    assert groups.state() == STABLE
    assert groups.sync(back.member_id, 1, instance="two").result().assignment == b"2"
    # Rule 42: the old id is fenced everywhere and nothing of it is left.
    fenced = codes.FENCED_INSTANCE_ID
    assert groups.coordinator.heartbeat("grp", two, "two", 1) == fenced
    assert groups.join(two, instance="two").result().error == fenced
    assert groups.sync(two, 1, instance="two").result().error == fenced
    assert groups.leave((two, "two")) == [fenced]
    assert groups.coordinator.heartbeat("grp", two, None, 1) == codes.UNKNOWN_MEMBER_ID
    assert groups.members.size() == 2


def test_a_static_leader_that_comes_back_is_told_to_skip_the_assignment_from_version_9() -> None:
    groups = Groups()
    static_pair(groups)
    back = groups.join(instance="one", version=9).result()
    assert back.skip_assignment
    assert back.leader == back.member_id
    assert len(back.members) == 2
    older = groups.join(instance="one", version=8).result()
    assert not older.skip_assignment
    assert older.leader == back.member_id != older.member_id
    assert older.members == ()


def test_a_static_member_with_other_protocols_brings_a_rebalance() -> None:
    groups = Groups()
    both = (("range", subscription("foo")), ("sticky", subscription("foo")))
    one = groups.join(instance="one", protocols=both)
    groups.clock.advance(9_000)
    member = one.result().member_id
    groups.sync(member, 1, {member: b"1"}, instance="one")
    back = groups.join(instance="one", protocols=(("sticky", b""), ("range", b"")))
    assert back.result().generation == 2
    assert back.result().protocol_name == "sticky"


def test_a_static_member_that_comes_back_during_the_assignment_brings_a_rebalance() -> None:
    groups = Groups()
    one = groups.join(instance="one")
    two = groups.join(instance="two")
    groups.clock.advance(9_000)
    waiting = groups.sync(two.result().member_id, 1, instance="two")
    back = groups.join(instance="two")
    assert waiting.result().error == codes.FENCED_INSTANCE_ID
    assert groups.state() == PREPARING
    again = groups.join(one.result().member_id, instance="one")
    assert again.result().generation == back.result().generation == 2


def test_two_clients_with_one_instance_id_fence_the_first_that_waits() -> None:
    groups = Groups()
    first = groups.join(instance="one")
    second = groups.join(instance="one")
    assert first.result().error == codes.FENCED_INSTANCE_ID
    groups.clock.advance(9_000)
    assert second.result().error == codes.NONE


def test_a_static_member_is_removed_by_its_session_or_by_its_instance_id() -> None:
    groups = Groups()
    one, _ = static_pair(groups)
    assert groups.leave(("", "nobody"), ("", "two"), ("", None)) == [
        codes.UNKNOWN_MEMBER_ID,
        codes.NONE,
        codes.UNKNOWN_MEMBER_ID,
    ]
    assert groups.state() == PREPARING
    groups.clock.advance(10_001)
    assert groups.state() == EMPTY
    assert groups.classic().static == {}
    assert one not in groups.classic().members


def test_a_static_member_survives_a_rebalance_it_misses_until_its_session_ends() -> None:
    groups = Groups()
    one, two = static_pair(groups)
    groups.clock.advance(5_000)
    rejoined = groups.join(one, instance="one", rebalance=1_000)
    groups.clock.advance(5_001)
    # Its session ended before the rebalance timeout.
    assert rejoined.result().generation == 2
    assert two not in groups.classic().members


def test_a_failed_write_takes_a_static_swap_back() -> None:
    groups = Groups()
    _, two = static_pair(groups)
    groups.log.fail_with = 56
    back = groups.join(instance="two").result()
    assert back.error == codes.NOT_COORDINATOR
    groups.log.fail_with = None
    assert groups.coordinator.heartbeat("grp", two, "two", 1) == codes.NONE


# -- appends ------------------------------------------------------------------------------------
def test_assignments_are_given_out_only_when_they_are_in_the_log() -> None:
    groups = Groups()
    member, _ = groups.enter()
    groups.clock.advance(9_000)
    groups.log.held = True
    waiting = groups.sync(member, 1, {member: b"x"})
    assert not waiting.done()
    groups.log.release()
    assert waiting.result().assignment == b"x"


def test_a_failed_write_of_the_assignments_is_told_and_the_group_rebalances() -> None:
    groups = Groups()
    member, _ = groups.enter()
    groups.clock.advance(9_000)
    groups.log.fail_with = 19
    failed = groups.sync(member, 1, {member: b"x"}).result()
    assert failed.error == codes.COORDINATOR_NOT_AVAILABLE
    groups.log.fail_with = None
    assert groups.join(member).result().generation == 2


def test_a_rebalance_that_overtakes_the_write_wins() -> None:
    groups = Groups()
    member, _ = groups.enter()
    groups.clock.advance(9_000)
    groups.log.held = True
    waiting = groups.sync(member, 1, {member: b"x"})
    newcomer = groups.join().result().member_id
    joined = groups.join(newcomer)
    assert waiting.result().error == codes.REBALANCE_IN_PROGRESS
    groups.log.release()
    assert groups.state() == PREPARING
    groups.join(member)
    assert joined.result().generation == 2


def test_a_group_that_could_not_be_written_does_not_exist() -> None:
    groups = Groups()
    groups.log.fail_with = 56
    groups.join(version=3)
    assert groups.coordinator.groups() == []
    assert groups.coordinator.statistics()["timers"] == 0
    groups.log.fail_with = None
    assert groups.stable()


def test_leaving_is_answered_when_the_empty_group_is_in_the_log() -> None:
    groups = Groups()
    (member,) = groups.stable()
    groups.log.held = True
    left = groups.coordinator.leave(group_id="grp", members=((member, None),))
    assert not left.done()
    groups.log.release()
    assert left.result().members == ((member, None, 0),)


# -- restarts -----------------------------------------------------------------------------------
def test_a_restart_keeps_members_and_gives_them_a_new_session() -> None:
    groups = Groups()
    one, two = groups.stable(2)
    groups.start()
    assert groups.state() == STABLE
    assert groups.coordinator.heartbeat("grp", one, None, 1) == codes.NONE
    assert groups.sync(two, 1).result().assignment == two.encode()
    groups.clock.advance(10_001)
    assert groups.state() == EMPTY


def test_a_restart_keeps_static_members() -> None:
    groups = Groups()
    _, two = static_pair(groups)
    swapped = groups.join(instance="two").result().member_id
    groups.start()
    assert groups.coordinator.heartbeat("grp", two, "two", 1) == codes.FENCED_INSTANCE_ID
    assert groups.coordinator.heartbeat("grp", swapped, "two", 1) == codes.NONE


def test_unloading_answers_everyone_and_forgets_everything() -> None:
    groups = Groups()
    groups.stable(group="other")
    _, joined = groups.enter()
    groups.topics.delete("__consumer_offsets")
    assert joined.result().error == codes.NOT_COORDINATOR
    assert groups.coordinator.heartbeat("other", "m", None, 1) == codes.NOT_COORDINATOR
    assert groups.coordinator.statistics()["groups"] == 0
    assert groups.clock.pending() <= 1
    for log in groups.log.logs:
        log.clear()
    groups.topics.create()
    assert groups.stable(group="other")


def test_the_monotonic_clock_alone_decides_on_sessions() -> None:
    groups = Groups()
    (member,) = groups.stable()
    groups.clock.jump_wall(365 * 86_400_000)
    assert groups.coordinator.heartbeat("grp", member, None, 1) == codes.NONE
    groups.clock.jump_wall(-10 * 365 * 86_400_000)
    groups.clock.advance(9_000)
    assert groups.state() == STABLE


def test_a_stopped_coordinator_says_so() -> None:
    groups = Groups()
    _, joined = groups.enter()
    groups.coordinator.stop()
    assert joined.result().error == codes.NOT_COORDINATOR
    assert groups.join().result().error == codes.COORDINATOR_NOT_AVAILABLE
    assert groups.clock.pending() == 0


def test_settings_are_read_by_kafkas_names() -> None:
    settings = read_settings(
        {
            "group.max.size": "5",
            "offsets.retention.minutes": 1,
            "group.min.session.timeout.ms": 100,
        }
    )
    assert (settings.max_size, settings.offsets_retention_ms) == (5, 60_000)
    assert settings.min_session_timeout_ms == 100
    assert read_settings({}) == GroupSettings()
    with pytest.raises(ConfigError, match=r"group\.max\.size"):
        read_settings({"group.max.size": 0})


def test_subscriptions_that_lie_are_not_read() -> None:
    assert subscription_topics(subscription("a", "bc")) == ["a", "bc"]
    assert subscription_topics(b"") is None
    assert subscription_topics(struct.pack(">hi", 0, 2**31 - 1)) is None
    assert subscription_topics(struct.pack(">hi", 0, -1)) is None
    assert subscription_topics(struct.pack(">hihx", 0, 1, 5)) is None
    assert subscription_topics(struct.pack(">hih", -1, 0, 0)) is None
    good = subscription("a", "bc")
    for size in range(10):
        assert subscription_topics(good[:size]) is None
