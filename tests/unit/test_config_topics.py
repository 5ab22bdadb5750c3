"""Topic configuration: Kafka's messages, and what the engine gets."""

from __future__ import annotations

import pytest

from penstock.config.broker_config import BrokerConfig
from penstock.config.describe import topic_entries
from penstock.errors import ConfigError
from penstock.metadata.topic_config import log_config, validate_topic_config

BROKER = BrokerConfig({})

# (overrides, what Apache Kafka 4.4.0 answers to CreateTopics with them)
KAFKA_SAYS = [
    ({"foo": "1"}, "Unknown topic config name: foo"),
    (
        {"segment.bytes": "x"},
        "Invalid value x for configuration segment.bytes: Not a number of type INT",
    ),
    (
        {"segment.bytes": "5"},
        "Invalid value 5 for configuration segment.bytes: Value must be at least 1048576",
    ),
    (
        {"cleanup.policy": "foo"},
        (
            "Invalid value foo for configuration cleanup.policy: String must be one of: compact, "
            "delete"
        ),
    ),
    (
        {"compression.type": "foo"},
        (
            "Invalid value foo for configuration compression.type: String must be one of: "
            "uncompressed, zstd, lz4, snappy, gzip, producer"
        ),
    ),
    (
        {"compression.gzip.level": "11"},
        (
            "Invalid value 11 for configuration compression.gzip.level: Value must be between 1 "
            "and 9 or equal to -1"
        ),
    ),
    (
        {"compression.zstd.level": "100"},
        (
            "Invalid value 100 for configuration compression.zstd.level: Value must be no "
            "more than 22"
        ),
    ),
    (
        {"preallocate": "maybe"},
        (
            "Invalid value maybe for configuration preallocate: Expected value to be either "
            "true or false"
        ),
    ),
    (
        {"min.cleanable.dirty.ratio": "2"},
        (
            "Invalid value 2.0 for configuration min.cleanable.dirty.ratio: Value must be no more "
            "than 1"
        ),
    ),
    (
        {"retention.ms": "-2"},
        "Invalid value -2 for configuration retention.ms: Value must be at least -1",
    ),
    (
        {"leader.replication.throttled.replicas": "x"},
        (
            "Invalid value [x] for configuration leader.replication.throttled.replicas: "
            "leader.replication.throttled.replicas must be the literal '*' or a list of "
            "replicas in the following format: "
            "[partitionId]:[brokerId],[partitionId]:[brokerId],..."
        ),
    ),
    (
        {"remote.storage.enable": "true"},
        (
            "Tiered Storage functionality is disabled in the broker. Topic cannot be "
            "configured with remote log storage."
        ),
    ),
    (
        {"min.compaction.lag.ms": "10", "max.compaction.lag.ms": "5"},
        "conflict topic config setting min.compaction.lag.ms (10) > max.compaction.lag.ms (5)",
    ),
    ({"message.format.version": "3.0"}, "Unknown topic config name: message.format.version"),
]


@pytest.mark.parametrize(("overrides", "message"), KAFKA_SAYS)
def test_refusal_is_in_kafkas_words(overrides: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate_topic_config(overrides, BROKER)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "overrides",
    [
        {"cleanup.policy": "delete,delete"},
        {"cleanup.policy": ""},
        {"segment.bytes": " 2000000 "},
        {"internal.segment.bytes": "2"},
        {"remote.log.copy.disable": "true"},
        {"segment.jitter.ms": "9999999999"},
        {"leader.replication.throttled.replicas": "0:1,1:1"},
    ],
)
def test_what_kafka_takes_is_taken(overrides: dict[str, str]) -> None:
    validate_topic_config(overrides, BROKER)


def test_broker_keys_give_defaults_nearest_first() -> None:
    hours = BrokerConfig({"log.retention.hours": "2", "log.roll.hours": "1"})
    assert log_config({}, hours).retention_ms == 7_200_000
    assert log_config({}, hours).segment_ms == 3_600_000
    both = BrokerConfig({"log.retention.hours": "2", "log.retention.ms": "5"})
    assert log_config({}, both).retention_ms == 5
    assert log_config({"retention.ms": "9"}, both).retention_ms == 9
    assert log_config({}, BrokerConfig({"log.retention.minutes": "-1"})).retention_ms == -1


def test_engine_gets_plain_integers() -> None:
    config = log_config(
        {
            "cleanup.policy": "compact,delete",
            "compression.type": "zstd",
            "message.timestamp.type": "LogAppendTime",
            "min.cleanable.dirty.ratio": "0.25",
            "preallocate": "true",
            "internal.segment.bytes": "100",
        },
        BROKER,
    )
    assert config.cleanup_policy == 3
    assert config.compression_type == 4
    assert config.message_timestamp_type == 1
    assert config.min_cleanable_dirty_ratio_ppm == 250_000
    assert config.preallocate == 1
    assert config.segment_bytes == 100
    assert all(type(getattr(config, name)) is int for name in config.__slots__)


def test_description_names_source_and_synonyms_as_kafka_does() -> None:
    config = BrokerConfig({"log.retention.hours": "100"})
    config.set_dynamic(default={"message.max.bytes": "2000000"}, broker={"log.retention.ms": "5"})
    found = {entry.name: entry for entry in topic_entries({"retention.ms": "1000"}, config)}
    assert found["retention.ms"].value == "1000"
    assert [tuple(one) for one in found["retention.ms"].synonyms] == [
        ("retention.ms", "1000", 1),
        ("log.retention.ms", "5", 2),
        ("log.retention.hours", "100", 4),
        ("log.retention.hours", "168", 5),
    ]
    assert (found["max.message.bytes"].value, found["max.message.bytes"].source) == ("2000000", 3)
    assert found["segment.ms"].synonyms == ()
    assert found["segment.ms"].value == "604800000"
    assert "internal.segment.bytes" not in found
    assert len(found) == 37
