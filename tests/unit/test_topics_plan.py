"""Creating, growing and configuring topics: Kafka 4.4.0's codes and words."""

from __future__ import annotations

import pytest

from penstock.config.broker_config import BrokerConfig
from penstock.errors import KafkaError
from penstock.metadata import names, plan
from penstock.metadata.model import Partition, Topic, TopicIndex, decode_topic, encode_topic
from penstock.metadata.plan import APPEND, DELETE, SET, SUBTRACT, NewTopic
from penstock.protocol import errors_table as codes

CONFIG = BrokerConfig({"num.partitions": "3"})


def create(spec: NewTopic, index: TopicIndex | None = None) -> Topic:
    return plan.plan_create(
        spec, index or TopicIndex(), CONFIG, (0,), names.new_topic_id, lambda: 0
    )


def index_of(*present: str) -> TopicIndex:
    index = TopicIndex()
    for name in present:
        index.put(create(NewTopic(name=name)))
    return index


REFUSED = [
    (
        NewTopic(name="."),
        codes.INVALID_TOPIC_EXCEPTION,
        "Topic name is invalid: '.' is not allowed",
    ),
    (
        NewTopic(name="a b"),
        codes.INVALID_TOPIC_EXCEPTION,
        (
            "Topic name is invalid: 'a b' contains one or more characters other than ASCII "
            "alphanumerics, '.', '_' and '-'"
        ),
    ),
    (
        NewTopic(name="a" * 250),
        codes.INVALID_TOPIC_EXCEPTION,
        (
            f"Topic name is invalid: the length of '{'a' * 250}' is longer than the max allowed "
            "length 249"
        ),
    ),
    (NewTopic(name="tt"), codes.TOPIC_ALREADY_EXISTS, "Topic 'tt' already exists."),
    (
        NewTopic(name="a_b"),
        codes.INVALID_TOPIC_EXCEPTION,
        "Topic 'a_b' collides with existing topic: a.b",
    ),
    (
        NewTopic(name="__cluster_metadata"),
        codes.INVALID_REQUEST,
        "Creation of internal topic __cluster_metadata is prohibited.",
    ),
    (
        NewTopic(name="x", partitions=1, replication_factor=3),
        codes.INVALID_REPLICATION_FACTOR,
        (
            "Unable to replicate the partition 3 time(s): The target replication factor of "
            "3 cannot be reached because only 1 broker(s) are registered or some brokers have all "
            "their log directories cordoned."
        ),
    ),
    (
        NewTopic(name="x", replication_factor=0),
        codes.INVALID_REPLICATION_FACTOR,
        "Replication factor must be larger than 0, or -1 to use the default value.",
    ),
    (
        NewTopic(name="x", partitions=0),
        codes.INVALID_PARTITIONS,
        "Number of partitions was set to an invalid non-positive value.",
    ),
    (
        NewTopic(name="x", assignments=[(0, [0, 0])]),
        codes.INVALID_REPLICA_ASSIGNMENT,
        "The manual partition assignment includes the broker 0 more than once.",
    ),
    (
        NewTopic(name="x", assignments=[(0, [7])]),
        codes.INVALID_REPLICA_ASSIGNMENT,
        "The manual partition assignment includes broker 7, but no such broker is registered.",
    ),
    (
        NewTopic(name="x", assignments=[(0, [])]),
        codes.INVALID_REPLICA_ASSIGNMENT,
        "The manual partition assignment includes an empty replica list.",
    ),
    (
        NewTopic(name="x", assignments=[(1, [0])]),
        codes.INVALID_REPLICA_ASSIGNMENT,
        "partitions should be a consecutive 0-based integer sequence",
    ),
    (
        NewTopic(name="x", partitions=2, assignments=[(0, [0])]),
        codes.INVALID_REQUEST,
        "A manual partition assignment was specified, but numPartitions was not set to -1.",
    ),
    (
        NewTopic(name="x", configs=[("retention.ms", None)]),
        codes.INVALID_CONFIG,
        "Null value not supported for topic configs: retention.ms",
    ),
    (
        NewTopic(name="x", configs=[("foo", "1")]),
        codes.INVALID_CONFIG,
        "Unknown topic config name: foo",
    ),
]


@pytest.mark.parametrize(("spec", "code", "message"), REFUSED)
def test_creation_is_refused_as_kafka_does(spec: NewTopic, code: int, message: str) -> None:
    with pytest.raises(KafkaError) as caught:
        create(spec, index_of("tt", "a.b"))
    assert (caught.value.code, caught.value.message) == (code, message)


def test_defaults_fill_what_is_minus_one() -> None:
    topic = create(NewTopic(name="x"))
    assert len(topic.partitions) == 3
    assert topic.partitions[0] == Partition(0, 0, 0, (0,), (0,), 0)


def test_replicas_go_round_the_brokers() -> None:
    topic = plan.plan_create(
        NewTopic(name="x", partitions=3, replication_factor=2),
        TopicIndex(),
        CONFIG,
        (1, 2, 3),
        names.new_topic_id,
        lambda: 0,
    )
    assert [one.replicas for one in topic.partitions] == [(1, 2), (2, 3), (3, 1)]


def test_request_beyond_ten_thousand_partitions_is_refused() -> None:
    with pytest.raises(KafkaError, match="Excessively large number of partitions per request"):
        plan.check_request_size([NewTopic(name="x", partitions=10_001)], 1)
    plan.check_request_size([NewTopic(name="x", partitions=10_000)], 1)


GROWTH_REFUSED = [
    (3, None, codes.INVALID_PARTITIONS, "Topic already has 3 partition(s)."),
    (
        1,
        None,
        codes.INVALID_PARTITIONS,
        "The topic x currently has 3 partition(s); 1 would not be an increase.",
    ),
    (
        5,
        [[0]],
        codes.INVALID_REPLICA_ASSIGNMENT,
        "Attempted to add 2 additional partition(s), but only 1 assignment(s) were specified.",
    ),
    (
        4,
        [[5]],
        codes.INVALID_REPLICA_ASSIGNMENT,
        "The manual partition assignment includes broker 5, but no such broker is registered.",
    ),
]


@pytest.mark.parametrize(("count", "assignments", "code", "message"), GROWTH_REFUSED)
def test_growth_is_refused_as_kafka_does(
    count: int, assignments: list[list[int]] | None, code: int, message: str
) -> None:
    with pytest.raises(KafkaError) as caught:
        plan.plan_grow(create(NewTopic(name="x")), count, assignments, (0,), lambda: 0)
    assert (caught.value.code, caught.value.message) == (code, message)


def test_growth_keeps_what_is_there() -> None:
    topic = create(NewTopic(name="x"))
    grown = plan.plan_grow(topic, 5, None, (0,), lambda: 0)
    assert grown.partitions[:3] == topic.partitions
    assert len(grown.partitions) == 5
    assert grown.topic_id == topic.topic_id


def change(present: dict[str, str], *operations: tuple[str, int, str | None]) -> dict[str, str]:
    return plan.incremental(
        present,
        operations,
        lambda name: plan.topic_key_default(name, CONFIG),
        plan.topic_key_is_list,
    )


def test_incremental_operations() -> None:
    assert change({}, ("retention.ms", SET, "1")) == {"retention.ms": "1"}
    assert change({"retention.ms": "1"}, ("retention.ms", DELETE, None)) == {}
    assert change({}, ("foo", DELETE, None)) == {}
    assert change({}, ("cleanup.policy", APPEND, "compact")) == {"cleanup.policy": "delete,compact"}
    assert change({"cleanup.policy": "delete,compact"}, ("cleanup.policy", SUBTRACT, "delete")) == {
        "cleanup.policy": "compact"
    }


@pytest.mark.parametrize(
    ("operations", "code", "message"),
    [
        (
            [("retention.ms", APPEND, "1")],
            codes.INVALID_CONFIG,
            "Can't APPEND to key retention.ms because its type is not LIST.",
        ),
        (
            [("retention.ms", SET, "1"), ("retention.ms", SET, "2")],
            codes.INVALID_REQUEST,
            "Error due to duplicate config keys",
        ),
        (
            [("retention.ms", SET, None)],
            codes.INVALID_REQUEST,
            "Null value not supported for : retention.ms",
        ),
    ],
)
def test_incremental_refusals(
    operations: list[tuple[str, int, str | None]], code: int, message: str
) -> None:
    with pytest.raises(KafkaError) as caught:
        change({}, *operations)
    assert (caught.value.code, caught.value.message) == (code, message)


def test_topic_survives_its_stored_form() -> None:
    topic = create(NewTopic(name="x", configs=[("retention.ms", "5")]))
    assert decode_topic(encode_topic(topic)) == topic


def test_stored_form_of_ten_thousand_partitions_fits_a_value() -> None:
    topic = create(NewTopic(name="x" * 249, partitions=10_000))
    assert len(encode_topic(topic)) < 1024 * 1024


def test_topic_ids_are_random_uuids_of_version_4() -> None:
    made = {names.new_topic_id() for _ in range(1000)}
    assert len(made) == 1000
    for one in made:
        assert one[6] >> 4 == 4
        assert one[8] >> 6 == 2
        text = names.id_text(one)
        assert not text.startswith("-")
        assert names.id_from_text(text) == one


def test_collisions_are_found_and_forgotten() -> None:
    index = index_of("a.b")
    assert index.colliding("a_b") == "a.b"
    assert index.colliding("a.b") is None
    topic = index.get("a.b")
    assert topic is not None
    index.remove(topic)
    assert index.colliding("a_b") is None
    assert len(index) == 0
