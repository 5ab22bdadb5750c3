"""Committed offsets: fencing, simple groups, order of effects, expiry, deletion, topic ids."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.groups import codes
from penstock.groups.config import GroupSettings
from penstock.groups.deferred import Deferred
from penstock.groups.memory import Header, MemoryGroups
from penstock.handlers import (
    delete_groups,
    describe_groups,
    find_coordinator,
    heartbeat,
    join_group,
    leave_group,
    list_groups,
    offset_commit,
    offset_delete,
    offset_fetch,
    sync_group,
)
from penstock.protocol.messages import (
    delete_groups as delete_groups_api,
)
from penstock.protocol.messages import (
    describe_groups as describe_groups_api,
)
from penstock.protocol.messages import (
    find_coordinator as find_api,
)
from penstock.protocol.messages import (
    heartbeat as heartbeat_api,
)
from penstock.protocol.messages import (
    join_group as join_api,
)
from penstock.protocol.messages import (
    leave_group as leave_api,
)
from penstock.protocol.messages import (
    list_groups as list_groups_api,
)
from penstock.protocol.messages import (
    offset_commit as commit_api,
)
from penstock.protocol.messages import (
    offset_delete as delete_api,
)
from penstock.protocol.messages import (
    offset_fetch as fetch_api,
)
from penstock.protocol.messages import (
    sync_group as sync_api,
)

HOUR = 3_600_000
WEEK = 7 * 24 * HOUR


def answer(value: Any) -> Any:
    return value.result() if isinstance(value, Deferred) else value


class Groups(MemoryGroups):
    """Requests through the handlers, as the server makes them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.foo = self.topics.add("foo", 3)
        self.bar = self.topics.add("bar", 1)

    def member(self, group: str = "grp", topic: bytes = b"\x00\x03foo") -> str:
        metadata = b"\x00\x00\x00\x00\x00\x01" + topic + b"\xff\xff\xff\xff"
        request = join_api.JoinGroupRequest(
            group_id=group,
            session_timeout_ms=1_800_000,
            rebalance_timeout_ms=1_000,
            protocol_type="consumer",
            protocols=[join_api.JoinGroupRequestProtocol(name="range", metadata=metadata)],
        )
        request.member_id = answer(join_group.handle(self.context, Header(9), request)).member_id
        joined = join_group.handle(self.context, Header(9), request)
        self.clock.advance(3_000)
        result = answer(joined)
        assert result.error_code == 0
        synced = answer(
            sync_group.handle(
                self.context,
                Header(5),
                sync_api.SyncGroupRequest(
                    group_id=group,
                    generation_id=result.generation_id,
                    member_id=result.member_id,
                    protocol_type="consumer",
                    protocol_name="range",
                    assignments=[
                        sync_api.SyncGroupRequestAssignment(
                            member_id=result.member_id, assignment=b"\x01"
                        )
                    ],
                ),
            )
        )
        assert synced.error_code == 0
        return str(result.member_id)

    def commit_later(
        self,
        offset: int = 100,
        *,
        group: str = "grp",
        member: str = "",
        generation: int = -1,
        topic: str = "foo",
        topic_id: bytes = bytes(16),
        partition: int = 0,
        version: int = 9,
        metadata: str | None = None,
        retention: int = -1,
        instance: str | None = None,
    ) -> Any:
        return offset_commit.handle(
            self.context,
            Header(version),
            commit_api.OffsetCommitRequest(
                group_id=group,
                generation_id_or_member_epoch=generation,
                member_id=member,
                group_instance_id=instance,
                retention_time_ms=retention,
                topics=[
                    commit_api.OffsetCommitRequestTopic(
                        name=topic,
                        topic_id=topic_id,
                        partitions=[
                            commit_api.OffsetCommitRequestPartition(
                                partition_index=partition,
                                committed_offset=offset,
                                committed_leader_epoch=3,
                                committed_metadata=metadata,
                            )
                        ],
                    )
                ],
            ),
        )

    def commit(self, offset: int = 100, **kwargs: Any) -> int:
        return int(answer(self.commit_later(offset, **kwargs)).topics[0].partitions[0].error_code)

    def fetch_later(
        self,
        group: str = "grp",
        *,
        topic: str = "foo",
        topic_id: bytes = bytes(16),
        partitions: tuple[int, ...] = (0,),
        version: int = 9,
        everything: bool = False,
    ) -> Any:
        if version < 8:
            request = fetch_api.OffsetFetchRequest(
                group_id=group,
                topics=(
                    None
                    if everything
                    else [
                        fetch_api.OffsetFetchRequestTopic(
                            name=topic, partition_indexes=list(partitions)
                        )
                    ]
                ),
            )
        else:
            asked = fetch_api.OffsetFetchRequestGroup(
                group_id=group,
                topics=(
                    None
                    if everything
                    else [
                        fetch_api.OffsetFetchRequestTopics(
                            name=topic, topic_id=topic_id, partition_indexes=list(partitions)
                        )
                    ]
                ),
            )
            request = fetch_api.OffsetFetchRequest(groups=[asked])
        return offset_fetch.handle(self.context, Header(version), request)

    def fetch(self, group: str = "grp", **kwargs: Any) -> list[int]:
        response = answer(self.fetch_later(group, **kwargs))
        found = response.groups[0] if response.groups else response
        assert found.error_code == 0
        return [p.committed_offset for topic in found.topics for p in topic.partitions]

    def delete_offsets(self, topic: str = "foo", group: str = "grp", partition: int = 0) -> Any:
        return answer(
            offset_delete.handle(
                self.context,
                Header(0),
                delete_api.OffsetDeleteRequest(
                    group_id=group,
                    topics=[
                        delete_api.OffsetDeleteRequestTopic(
                            name=topic,
                            partitions=[
                                delete_api.OffsetDeleteRequestPartition(partition_index=partition)
                            ],
                        )
                    ],
                ),
            )
        )

    def delete(self, *names: str) -> dict[str, int]:
        response = answer(
            delete_groups.handle(
                self.context,
                Header(3),
                delete_groups_api.DeleteGroupsRequest(groups_names=list(names)),
            )
        )
        return {result.group_id: result.error_code for result in response.results}

    def leave(self, member: str, version: int = 5, group: str = "grp") -> Any:
        request = leave_api.LeaveGroupRequest(group_id=group, member_id=member)
        if version >= 3:
            request.members = [leave_api.MemberIdentity(member_id=member)]
        return answer(leave_group.handle(self.context, Header(version), request))

    def describe(self, group: str, version: int = 6) -> Any:
        return describe_groups.handle(
            self.context, Header(version), describe_groups_api.DescribeGroupsRequest(groups=[group])
        ).groups[0]

    def listed(self, **filters: list[str]) -> list[tuple[str, str, str]]:
        response = list_groups.handle(
            self.context, Header(5), list_groups_api.ListGroupsRequest(**filters)
        )
        return [(g.group_id, g.group_state, g.group_type) for g in response.groups]


@pytest.mark.parametrize("version", range(2, 11))
def test_commit_errors_of_every_version(version: int) -> None:
    # The cases of Kafka's OffsetCommitRequestTest with the classic protocol.
    groups = Groups()
    member = groups.member()
    topic: dict[str, Any] = {"version": version}
    if version >= 10:
        topic["topic_id"] = groups.foo
    assert groups.commit(member=member, generation=1, **topic) == codes.NONE
    unknown = codes.GROUP_ID_NOT_FOUND if version >= 9 else codes.ILLEGAL_GENERATION
    assert groups.commit(group="unknown", member=member, generation=1, **topic) == unknown
    assert groups.commit(group="", member=member, generation=1, **topic) == unknown
    assert groups.commit(member="", generation=1, **topic) == codes.UNKNOWN_MEMBER_ID
    assert groups.commit(member=member, generation=2, **topic) == codes.ILLEGAL_GENERATION
    assert groups.commit(group="other", **topic) == codes.NONE
    assert groups.fetch("other") == [100]
    # Without a member, a group that has members takes nothing.
    assert groups.commit(**topic) == codes.UNKNOWN_MEMBER_ID


def test_unknown_topics_and_partitions() -> None:
    groups = Groups()
    missing = codes.UNKNOWN_TOPIC_OR_PARTITION
    assert groups.commit(topic="none") == missing
    assert groups.commit(partition=3) == missing
    assert groups.commit(partition=-1) == missing
    assert groups.commit(version=10, topic_id=b"x" * 16) == codes.UNKNOWN_TOPIC_ID
    assert groups.coordinator.groups() == []


def test_metadata_has_a_limit() -> None:
    groups = Groups(GroupSettings(offset_metadata_max_bytes=4))
    assert groups.commit(metadata="1234") == codes.NONE
    assert groups.commit(metadata="12345") == codes.OFFSET_METADATA_TOO_LARGE
    response = answer(groups.fetch_later())
    partition = response.groups[0].topics[0].partitions[0]
    assert (partition.metadata, partition.committed_leader_epoch) == ("1234", 3)


def test_a_commit_during_the_assignment_is_refused_and_during_the_join_accepted() -> None:
    groups = Groups()
    member = groups.member()
    request = join_api.JoinGroupRequest(
        group_id="grp",
        session_timeout_ms=10_000,
        rebalance_timeout_ms=5_000,
        protocol_type="consumer",
        protocols=[join_api.JoinGroupRequestProtocol(name="range", metadata=b"")],
    )
    request.member_id = answer(join_group.handle(groups.context, Header(9), request)).member_id
    join_group.handle(groups.context, Header(9), request)
    assert groups.commit(member=member, generation=1) == codes.NONE
    groups.clock.advance(5_000)
    assert groups.commit(member=request.member_id, generation=2) == codes.REBALANCE_IN_PROGRESS
    assert groups.commit(member=member, generation=1) == codes.UNKNOWN_MEMBER_ID
    assert groups.fetch() == [100]


def test_a_static_member_commits_under_its_own_id_only() -> None:
    groups = Groups()
    member = groups.member()
    unknown = codes.UNKNOWN_MEMBER_ID
    assert groups.commit(member=member, generation=1, instance="i") == unknown


def test_commits_take_effect_in_order_and_a_fetch_behind_them_sees_them() -> None:
    groups = Groups()
    groups.log.held = True
    first = groups.commit_later(1)
    second = groups.commit_later(2)
    fetched = groups.fetch_later()
    third = groups.commit_later(3)
    assert not any(waiter.done() for waiter in (first, second, fetched, third))
    groups.log.release(1)
    assert [w.done() for w in (first, second, fetched)] == [True, False, False]
    groups.log.release(1)
    assert [w.done() for w in (second, third)] == [True, False]
    assert fetched.result().groups[0].topics[0].partitions[0].committed_offset == 2
    groups.log.release()
    groups.log.held = False
    assert groups.fetch() == [3]


def test_a_failed_append_commits_nothing() -> None:
    groups = Groups()
    groups.commit(1)
    for storage, told in (
        (56, codes.NOT_COORDINATOR),
        (3, codes.COORDINATOR_NOT_AVAILABLE),
        (10, codes.UNKNOWN_SERVER_ERROR),
        (-1, codes.UNKNOWN_SERVER_ERROR),
    ):
        groups.log.fail_with = storage
        assert groups.commit(2) == told
    groups.log.fail_with = None
    assert groups.fetch() == [1]


def test_an_unload_fences_the_commits_on_their_way() -> None:
    groups = Groups()
    groups.log.held = True
    waiting = groups.commit_later(7)
    fetch = groups.fetch_later()
    groups.topics.delete("__consumer_offsets")
    partition = waiting.result().topics[0].partitions[0]
    assert partition.error_code == codes.NOT_COORDINATOR
    assert fetch.result().groups[0].error_code == codes.NOT_COORDINATOR
    groups.log.held = False
    for log in groups.log.logs:
        log.clear()
    groups.topics.create()
    groups.log.release()
    assert groups.fetch() == [-1]
    assert groups.commit(8) == codes.NONE


@pytest.mark.parametrize("version", range(1, 11))
def test_fetch_of_every_version(version: int) -> None:
    groups = Groups()
    for partition in range(3):
        groups.commit(100 + partition, partition=partition)
    topic_id = groups.foo if version >= 10 else bytes(16)
    asked: dict[str, Any] = {
        "topic_id": topic_id,
        "version": version,
        "partitions": (0, 1, 5),
    }
    assert groups.fetch(**asked) == [100, 101, -1]
    assert groups.fetch("unknown", **asked) == [-1, -1, -1]
    if version >= 2:
        assert groups.fetch(version=version, everything=True) == [100, 101, 102]
        assert groups.fetch("unknown", version=version, everything=True) == []
    groups.topics.delete("__consumer_offsets")
    response = answer(groups.fetch_later(**asked))
    if version == 1:
        codes_found = {p.error_code for t in response.topics for p in t.partitions}
        assert codes_found == {codes.NOT_COORDINATOR}
    else:
        found = response if version < 8 else response.groups[0]
        assert found.error_code == codes.NOT_COORDINATOR


def test_fetch_by_id_does_not_mix_up_topics_of_one_name() -> None:
    groups = Groups()
    groups.commit(5)
    response = answer(groups.fetch_later(version=10, topic_id=b"?" * 16))
    partition = response.groups[0].topics[0].partitions[0]
    assert (partition.error_code, partition.committed_offset) == (codes.UNKNOWN_TOPIC_ID, -1)
    # The deletion of the topic is not noticed by the coordinator here.
    groups.topics.topics.pop("foo")
    assert groups.fetch(version=10, everything=True) == []
    new_id = groups.topics.add("foo", 3)
    assert groups.fetch(version=10, topic_id=new_id) == [-1]
    assert groups.fetch(version=9) == [5]


def test_ids_that_name_no_topic_are_answered_last() -> None:
    # Kafka's OffsetFetchRequestTest compares the whole list.
    groups = Groups()
    known, unknown = groups.topics.topic_id("foo"), b"?" * 16
    assert known is not None
    topics = [
        fetch_api.OffsetFetchRequestTopics(topic_id=one, partition_indexes=[0])
        for one in (unknown, known)
    ]
    asked = fetch_api.OffsetFetchRequestGroup(group_id="g", topics=topics)
    request = fetch_api.OffsetFetchRequest(groups=[asked])
    response = answer(offset_fetch.handle(groups.context, Header(10), request))
    assert [one.topic_id for one in response.groups[0].topics] == [known, unknown]


def test_deleting_a_topic_deletes_its_offsets() -> None:
    groups = Groups()
    groups.commit(5)
    groups.commit(6, topic="bar")
    groups.topics.delete("foo")
    assert groups.fetch(everything=True) == [6]
    groups.start()
    assert groups.fetch(everything=True) == [6]


def test_everything_committed_is_there_after_a_restart() -> None:
    groups = Groups()
    member = groups.member("consumers")
    groups.commit(5, group="consumers", member=member, generation=1, metadata="x")
    groups.commit(6)
    groups.commit(7)
    groups.start()
    assert groups.fetch() == [7]
    assert groups.fetch("consumers") == [5]
    assert groups.describe("consumers").group_state == "Stable"
    assert sorted(groups.listed()) == [
        ("consumers", "Stable", "classic"),
        ("grp", "Empty", "classic"),
    ]


def test_a_partition_that_cannot_be_read_is_not_served() -> None:
    groups = Groups()
    groups.commit(5)
    partition = groups.coordinator.group("grp").partition  # type: ignore[union-attr]
    groups.log.logs[partition].append((9, 0, b"\x00\x01\x00", b""))
    groups.start()
    assert answer(groups.fetch_later()).groups[0].error_code == codes.NOT_COORDINATOR
    assert groups.commit(6) == codes.NOT_COORDINATOR
    assert groups.commit(6, group="elsewhere") == codes.NONE


def test_records_of_other_kinds_of_groups_are_left_alone() -> None:
    groups = Groups()
    groups.log.logs[0].append((0, 0, b"\x00\x03\x00\x01g", b"\x00\x00\x00\x00\x00\x01"))
    groups.start()
    assert groups.coordinator.statistics()["skipped_records"] == 1
    assert groups.commit(6) == codes.NONE


# -- OffsetDelete, DeleteGroups -----------------------------------------------------------------
def test_offset_delete_keeps_what_the_group_reads() -> None:
    groups = Groups()
    member = groups.member()
    groups.commit(1, member=member, generation=1)
    groups.commit(2, member=member, generation=1, topic="bar")
    kept = groups.delete_offsets("foo").topics[0].partitions[0]
    assert kept.error_code == codes.GROUP_SUBSCRIBED_TO_TOPIC
    assert groups.delete_offsets("bar").topics[0].partitions[0].error_code == codes.NONE
    assert groups.fetch(everything=True) == [1]
    missing = codes.UNKNOWN_TOPIC_OR_PARTITION
    assert groups.delete_offsets("bar", partition=9).topics[0].partitions[0].error_code == missing
    assert groups.delete_offsets("none").topics[0].partitions[0].error_code == missing
    assert groups.delete_offsets(group="unknown").error_code == codes.GROUP_ID_NOT_FOUND
    assert groups.delete_offsets(group="").error_code == codes.INVALID_GROUP_ID
    groups.start()
    assert groups.fetch(everything=True) == [1]


def test_offset_delete_of_a_busy_group_of_another_type_is_refused() -> None:
    groups = Groups()
    joined = groups.coordinator.join(
        group_id="connect",
        member_id="",
        instance_id=None,
        client_id="c",
        client_host="/h",
        session_timeout_ms=10_000,
        rebalance_timeout_ms=1_000,
        protocol_type="connect",
        protocols=(("p", b""),),
        api_version=3,
    )
    groups.clock.advance(3_000)
    assert joined.done()
    assert groups.delete_offsets(group="connect").error_code == codes.NON_EMPTY_GROUP


def test_delete_groups_takes_empty_groups_with_their_offsets() -> None:
    groups = Groups()
    member = groups.member()
    groups.commit(1, member=member, generation=1)
    groups.commit(2, group="simple")
    assert groups.delete("grp", "simple", "unknown", "grp") == {
        "grp": codes.NON_EMPTY_GROUP,
        "simple": codes.NONE,
        "unknown": codes.GROUP_ID_NOT_FOUND,
    }
    groups.leave(member)
    assert groups.delete("grp") == {"grp": codes.NONE}
    assert groups.listed() == []
    groups.start()
    assert groups.listed() == []
    assert groups.fetch() == groups.fetch("simple") == [-1]


def test_a_commit_behind_a_deletion_survives_it() -> None:
    groups = Groups()
    groups.commit(1, partition=1)
    groups.log.held = True
    deleted = delete_groups.handle(
        groups.context, Header(3), delete_groups_api.DeleteGroupsRequest(groups_names=["grp"])
    )
    committed = groups.commit_later(2)
    groups.log.release()
    groups.log.held = False
    assert answer(deleted).results[0].error_code == 0
    assert committed.result().topics[0].partitions[0].error_code == 0
    assert groups.fetch(everything=True) == [2]
    groups.start()
    assert groups.fetch(everything=True) == [2]


# -- expiry -------------------------------------------------------------------------------------
def test_offsets_of_a_simple_group_expire_one_by_one() -> None:
    groups = Groups()
    groups.commit(1)
    groups.clock.advance(WEEK // 2)
    groups.commit(2, partition=1)
    groups.clock.advance(WEEK // 2 + HOUR)
    assert groups.fetch(everything=True) == [2]
    groups.clock.advance(WEEK // 2 + HOUR)
    assert groups.listed() == []
    groups.start()
    assert groups.listed() == []


def test_offsets_count_from_when_the_group_became_empty() -> None:
    groups = Groups()
    member = groups.member()
    groups.commit(1, member=member, generation=1)
    for _ in range(400):
        groups.clock.advance(1_700_000)
        beat = heartbeat.handle(
            groups.context,
            Header(4),
            heartbeat_api.HeartbeatRequest(group_id="grp", generation_id=1, member_id=member),
        )
        assert beat.error_code == 0
    assert WEEK < 400 * 1_700_000
    assert groups.fetch() == [1]
    groups.leave(member)
    groups.clock.advance(WEEK - HOUR)
    assert groups.fetch() == [1]
    groups.start()
    groups.clock.advance(HOUR // 2)
    assert groups.fetch() == [1]
    groups.clock.advance(HOUR)
    assert groups.fetch() == [-1]
    assert groups.listed() == []


def test_a_stable_group_loses_offsets_of_topics_it_does_not_read_any_more() -> None:
    groups = Groups()
    member = groups.member()
    groups.commit(1, member=member, generation=1)
    groups.commit(2, member=member, generation=1, topic="bar")
    groups.clock.jump_wall(WEEK + 1)
    groups.coordinator.expire_offsets()
    assert groups.fetch(everything=True) == [1]


def test_an_offset_with_an_expiry_of_its_own_follows_it() -> None:
    groups = Groups()
    groups.commit(1, version=4, retention=HOUR)
    groups.commit(2, version=4, partition=1, retention=2 * WEEK)
    groups.start()
    groups.clock.advance(HOUR)
    groups.coordinator.expire_offsets()
    assert groups.fetch(everything=True) == [2]
    groups.clock.advance(WEEK)
    assert groups.fetch(everything=True) == [2]


def test_a_wall_clock_that_goes_back_expires_nothing() -> None:
    groups = Groups()
    groups.commit(1)
    groups.clock.jump_wall(-10 * WEEK)
    groups.clock.advance(2 * WEEK)
    assert groups.fetch() == [1]


# -- DescribeGroups, ListGroups, LeaveGroup, FindCoordinator -------------------------------------
def test_describe_groups() -> None:
    groups = Groups()
    member = groups.member()
    stable = groups.describe("grp")
    assert (stable.group_state, stable.protocol_type, stable.protocol_data) == (
        "Stable",
        "consumer",
        "range",
    )
    described = stable.members[0]
    assert (described.member_id, described.client_id, described.client_host) == (
        member,
        "client",
        "/127.0.0.1",
    )
    assert described.member_assignment == b"\x01"
    assert described.member_metadata.startswith(b"\x00\x00")
    unknown = groups.describe("unknown")
    assert (unknown.group_state, unknown.error_code) == ("Dead", codes.GROUP_ID_NOT_FOUND)
    assert unknown.error_message == "Group unknown not found."
    older = groups.describe("unknown", version=5)
    assert (older.group_state, older.error_code, older.error_message) == ("Dead", 0, None)
    groups.leave(member)
    empty = groups.describe("grp")
    assert (empty.group_state, empty.protocol_type, empty.members) == ("Empty", "consumer", [])


def test_list_groups_filters_ignore_case() -> None:
    groups = Groups()
    groups.member()
    groups.commit(1, group="simple")
    assert groups.listed(states_filter=["stable"]) == [("grp", "Stable", "classic")]
    assert groups.listed(states_filter=["EMPTY"]) == [("simple", "Empty", "classic")]
    assert len(groups.listed(types_filter=["Classic"])) == 2
    assert groups.listed(types_filter=["consumer"]) == []
    assert groups.listed(types_filter=["nonsense"]) == []


@pytest.mark.parametrize("version", range(6))
def test_leave_errors_of_every_version(version: int) -> None:
    # The cases of Kafka's LeaveGroupRequestTest.
    groups = Groups()
    member = groups.member()
    assert groups.leave(member, version, group="").error_code == codes.INVALID_GROUP_ID
    for group, who in (("unknown", member), ("grp", "stranger")):
        response = groups.leave(who, version, group=group)
        if version >= 3:
            assert response.error_code == codes.NONE
            assert [m.error_code for m in response.members] == [codes.UNKNOWN_MEMBER_ID]
        else:
            assert response.error_code == codes.UNKNOWN_MEMBER_ID
    assert groups.leave(member, version).error_code == codes.NONE
    assert groups.describe("grp").group_state == "Empty"


def find(groups: Groups, version: int, key_type: int = 0) -> Any:
    return find_coordinator.handle(
        groups.context,
        Header(version),
        find_api.FindCoordinatorRequest(
            key="grp", key_type=key_type, coordinator_keys=["grp", "other"] if version >= 4 else []
        ),
    )


@pytest.mark.parametrize("version", range(7))
def test_find_coordinator_creates_the_offsets_topic(version: int) -> None:
    groups = Groups(topic_exists=False)
    assert groups.commit(1) == codes.NOT_COORDINATOR
    response = find(groups, version)
    if version >= 4:
        assert [c.key for c in response.coordinators] == ["grp", "other"]
        assert {(c.node_id, c.host, c.port, c.error_code) for c in response.coordinators} == {
            (1, "localhost", 9092, 0)
        }
    else:
        assert (response.error_code, response.node_id, response.port) == (0, 1, 9092)
    assert groups.commit(1) == codes.NONE


def test_find_coordinator_of_other_kinds_is_refused_for_good() -> None:
    groups = Groups()
    refused = codes.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
    assert find(groups, 3, 1).error_code == refused
    assert {c.error_code for c in find(groups, 6, 1).coordinators} == {refused}
    assert find(groups, 3, 2).error_code == codes.INVALID_REQUEST
    assert {c.error_code for c in find(groups, 6, 2).coordinators} == {codes.INVALID_REQUEST}
    # Version 0 has no key type.
    assert find(groups, 0, 1).error_code == codes.NONE
