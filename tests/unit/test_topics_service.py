"""The topic service: what is stored, published and remembered, in which order."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from control_bench import Bench

from penstock.engine_port import TopicRemove, TopicUpsert
from penstock.errors import KafkaError, StartError
from penstock.metadata import log_dirs
from penstock.metadata.adopt import find_topics
from penstock.metadata.model import Topic
from penstock.metadata.names import id_text, new_topic_id
from penstock.metadata.plan import NewTopic
from penstock.metadata.producer_ids import BLOCK_SIZE, ProducerIds
from penstock.metadata.service import DELETING_PREFIX, TOPIC_PREFIX, TopicService
from penstock.metadata.store import Put
from penstock.protocol import errors_table as codes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench({"log.dirs": "/a,/b", "num.partitions": "4"})
    yield made
    made.close()


def test_created_topic_is_stored_published_and_known(bench: Bench) -> None:
    (topic,) = bench.run(bench.topics.create_topics([NewTopic(name="t")]))
    assert isinstance(topic, Topic)
    assert bench.store.get_now(TOPIC_PREFIX + b"t") is not None
    assert bench.engine.topics[topic.topic_id].name == "t"
    assert bench.topics.index.get("t") == topic


def test_partitions_spread_over_log_directories(bench: Bench) -> None:
    (topic,) = bench.run(bench.topics.create_topics([NewTopic(name="t")]))
    assert [one[2] for one in bench.engine.topics[topic.topic_id].partitions] == [0, 1, 0, 1]


def test_validate_only_changes_nothing(bench: Bench) -> None:
    (topic,) = bench.run(bench.topics.create_topics([NewTopic(name="t")], validate_only=True))
    assert isinstance(topic, Topic)
    assert bench.engine.published == []
    assert bench.topics.index.get("t") is None


def test_equal_names_are_all_refused_and_others_made(bench: Bench) -> None:
    outcomes = bench.run(
        bench.topics.create_topics([NewTopic(name=name) for name in ("a", "b", "a", "c.d", "c_d")])
    )
    found = [one.code if isinstance(one, KafkaError) else 0 for one in outcomes]
    assert found == [
        codes.INVALID_REQUEST,
        0,
        codes.INVALID_REQUEST,
        0,
        codes.INVALID_TOPIC_EXCEPTION,
    ]


def test_same_name_created_twice_at_once_exists_once(bench: Bench) -> None:
    async def both() -> list[object]:
        one, two = await asyncio.gather(
            bench.topics.create_topics([NewTopic(name="t")]),
            bench.topics.create_topics([NewTopic(name="t")]),
        )
        return [*one, *two]

    first, second = bench.run(both())
    assert isinstance(first, Topic)
    assert isinstance(second, KafkaError)
    assert second.code == codes.TOPIC_ALREADY_EXISTS


def test_deletion_removes_it_everywhere(bench: Bench) -> None:
    told: list[str] = []
    bench.topics.on_deleted.append(lambda gone: told.extend(one.name for one in gone))
    (topic,) = bench.run(bench.topics.create_topics([NewTopic(name="t")]))
    outcomes = bench.run(bench.topics.delete_topics([("t", None), (None, topic.topic_id)]))
    assert outcomes[0] == topic
    assert outcomes[1].code == codes.UNKNOWN_TOPIC_ID
    assert bench.engine.published[-1] == TopicRemove(topic_id=topic.topic_id)
    assert bench.topics.index.get("t") is None
    assert bench.store.scan_now(b"/topics")[0] == []
    assert told == ["t"]


def test_deletion_that_was_cut_off_is_finished_at_the_next_start(bench: Bench) -> None:
    (topic,) = bench.run(bench.topics.create_topics([NewTopic(name="t")]))
    stored = bench.store.get_now(TOPIC_PREFIX + b"t")
    assert stored is not None
    key = DELETING_PREFIX + id_text(topic.topic_id).encode()
    bench.store.txn_now((), [Put(key, stored.value)])
    again = TopicService(bench.store, bench.engine.publish, bench.config, 0)
    deleting = bench.store.scan_now(DELETING_PREFIX)[0]
    deltas = again.load([], deleting, [])
    assert isinstance(deltas[0], TopicUpsert)
    assert deltas[1] == TopicRemove(topic_id=topic.topic_id)
    assert again.index.get("t") is None
    bench.run(again.forget_deleted(deleting))
    assert bench.store.scan_now(DELETING_PREFIX)[0] == []


def test_topics_are_there_after_a_restart(bench: Bench) -> None:
    bench.run(bench.topics.create_topics([NewTopic(name="t", configs=[("retention.ms", "7")])]))
    again = TopicService(bench.store, bench.engine.publish, bench.config, 0)
    (delta,) = again.load(bench.store.scan_now(TOPIC_PREFIX)[0], [], [])
    assert again.index.get("t") == bench.topics.index.get("t")
    assert delta.config.retention_ms == 7


def test_dynamic_broker_default_reaches_every_topic(bench: Bench) -> None:
    (topic,) = bench.run(bench.topics.create_topics([NewTopic(name="t")]))
    bench.run(
        bench.topics.alter_resource_configs("broker", "", lambda _: {"log.retention.ms": "77"})
    )
    assert bench.engine.topics[topic.topic_id].config.retention_ms == 77


def test_offsets_topic_gets_kafkas_settings(bench: Bench) -> None:
    topic = bench.run(bench.topics.ensure_internal_topic("__consumer_offsets"))
    assert len(topic.partitions) == 50
    assert topic.configs["cleanup.policy"] == "compact"
    assert topic.configs["segment.bytes"] == "104857600"
    assert topic.is_internal
    assert bench.run(bench.topics.ensure_internal_topic("__consumer_offsets")) is topic


def test_auto_creation_leaves_out_what_cannot_be(bench: Bench) -> None:
    bench.run(bench.topics.auto_create(["a", "b c", "a", "__consumer_offsets"]))
    assert {topic.name for topic in bench.topics.index} == {"a", "__consumer_offsets"}


def test_ten_thousand_topics_in_one_request(bench: Bench) -> None:
    specs = [NewTopic(name=f"t{at}", partitions=1) for at in range(10_000)]
    outcomes = bench.run(bench.topics.create_topics(specs))
    assert all(isinstance(one, Topic) for one in outcomes)


def test_producer_ids_never_come_twice(bench: Bench) -> None:
    first = ProducerIds(bench.store)
    taken = [bench.run(first.next()) for _ in range(BLOCK_SIZE + 1)]
    second = ProducerIds(bench.store)
    taken += [bench.run(second.next()) for _ in range(3)]
    assert len(set(taken)) == len(taken)
    assert taken[:2] == [0, 1]


def test_two_allocators_at_once_get_different_blocks(bench: Bench) -> None:
    async def both() -> list[int]:
        return list(
            await asyncio.gather(ProducerIds(bench.store).next(), ProducerIds(bench.store).next())
        )

    assert sorted(bench.run(both())) == [0, BLOCK_SIZE]


def test_identity_is_written_once_and_kept(tmp_path: Path) -> None:
    dirs = [str(tmp_path / "a"), str(tmp_path / "b")]
    identity = log_dirs.identify(dirs, 3, None)
    log_dirs.write_identity(identity, 3)
    again = log_dirs.identify(dirs, 3, None)
    assert again == (identity.cluster_id, ())
    assert "version=1" in (tmp_path / "a" / "meta.properties").read_text()


def test_directory_of_another_node_or_cluster_is_refused(tmp_path: Path) -> None:
    dirs = [str(tmp_path)]
    log_dirs.write_identity(log_dirs.identify(dirs, 3, "one"), 3)
    with pytest.raises(StartError, match=r"belongs to node\.id 3"):
        log_dirs.identify(dirs, 4, None)
    with pytest.raises(StartError, match="belongs to cluster one"):
        log_dirs.identify(dirs, 3, "two")


def test_directory_that_kafka_wrote_is_taken_over(tmp_path: Path) -> None:
    topic_id = new_topic_id()
    for name in ("t-0", "t-2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "partition.metadata").write_text(
            f"version: 0\ntopic_id: {id_text(topic_id)}"
        )
    (tmp_path / "t-2" / "leader-epoch-checkpoint").write_text("0\n2\n0 0\n4 100\n")
    (tmp_path / "__cluster_metadata-0").mkdir()
    (tmp_path / "x-1").mkdir()
    (topic,) = find_topics([str(tmp_path)], 0)
    assert (topic.name, topic.topic_id) == ("t", topic_id)
    assert [one.leader_epoch for one in topic.partitions] == [0, 0, 4]
