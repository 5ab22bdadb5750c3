"""Handlers of configuration, over MemoryEngine: what Kafka 4.4.0 answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from control_bench import Bench

from penstock.metadata.plan import APPEND, SET, NewTopic
from penstock.protocol import errors_table as codes
from penstock.protocol.messages import alter_configs as ac
from penstock.protocol.messages import describe_configs as dc
from penstock.protocol.messages import incremental_alter_configs as ia
from penstock.protocol.messages import list_config_resources as lr

if TYPE_CHECKING:
    from collections.abc import Iterator

TOPIC, BROKER, LOGGER, METRICS, GROUP = 2, 4, 8, 16, 32


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench({"log.retention.hours": "100"})
    made.run(made.topics.create_topics([NewTopic(name="tt")]))
    yield made
    made.close()


def describe(bench: Bench, kind: int, name: str, **fields: object) -> dc.DescribeConfigsResult:
    request = dc.DescribeConfigsRequest(
        resources=[
            dc.DescribeConfigsResource(
                resource_type=kind,
                resource_name=name,
                configuration_keys=fields.pop("keys", None),  # type: ignore[arg-type]
            )
        ],
        include_synonyms=True,
        include_documentation=True,
    )
    result: dc.DescribeConfigsResult = bench.call(32, 4, request).results[0]
    return result


def alter(
    bench: Bench, kind: int, name: str, key: str, value: str | None, operation: int = SET
) -> tuple[int, str | None]:
    request = ia.IncrementalAlterConfigsRequest(
        resources=[
            ia.AlterConfigsResource(
                resource_type=kind,
                resource_name=name,
                configs=[ia.AlterableConfig(name=key, config_operation=operation, value=value)],
            )
        ]
    )
    result = bench.call(44, 1, request).responses[0]
    return result.error_code, result.error_message


def test_topic_configs_have_type_source_and_documentation(bench: Bench) -> None:
    assert alter(bench, TOPIC, "tt", "retention.ms", "1000") == (0, None)
    result = describe(bench, TOPIC, "tt")
    found = {one.name: one for one in result.configs}
    assert (found["retention.ms"].value, found["retention.ms"].config_source) == ("1000", 1)
    assert found["retention.ms"].config_type == 5
    assert all(one.documentation for one in result.configs)
    assert not any(one.read_only or one.is_sensitive for one in result.configs)
    assert [one.name for one in found["retention.ms"].synonyms] == [
        "retention.ms",
        "log.retention.hours",
        "log.retention.hours",
    ]


def test_only_asked_keys_are_described(bench: Bench) -> None:
    result = describe(bench, TOPIC, "tt", keys=["segment.ms", "none"])
    assert [one.name for one in result.configs] == ["segment.ms"]


def test_broker_configs(bench: Bench) -> None:
    assert alter(bench, BROKER, "0", "log.retention.ms", "5") == (0, None)
    assert alter(bench, BROKER, "0", "plugin.secret", "x") == (0, None)
    found = {one.name: one for one in describe(bench, BROKER, "0").configs}
    assert (found["log.retention.ms"].value, found["log.retention.ms"].config_source) == ("5", 2)
    assert (found["node.id"].value, found["node.id"].config_source) == ("0", 4)
    assert found["node.id"].read_only
    assert not found["log.retention.ms"].read_only
    assert (found["ssl.key.password"].value, found["ssl.key.password"].is_sensitive) == (None, True)
    assert (found["plugin.secret"].value, found["plugin.secret"].is_sensitive) == (None, True)
    assert found["penstock.durability"].value == "os"
    assert describe(bench, BROKER, "").configs == []


@pytest.mark.parametrize(
    ("kind", "name", "code", "message"),
    [
        (TOPIC, "nope", codes.UNKNOWN_TOPIC_OR_PARTITION, ""),
        (
            BROKER,
            "9",
            codes.INVALID_REQUEST,
            "Unexpected broker id, expected 0 or empty string, but received 9",
        ),
        (BROKER, "abc", codes.INVALID_REQUEST, "Broker id must be an integer, but it is: abc"),
        (GROUP, "", codes.INVALID_REQUEST, "Group name must not be empty."),
        (0, "x", codes.INVALID_REQUEST, "Unsupported resource type: UNKNOWN"),
    ],
)
def test_what_cannot_be_described(
    bench: Bench, kind: int, name: str, code: int, message: str
) -> None:
    result = describe(bench, kind, name)
    assert (result.error_code, result.error_message) == (code, message)


@pytest.mark.parametrize(
    ("kind", "name", "key", "value", "code", "message"),
    [
        (
            TOPIC,
            "tt",
            "retention.ms",
            "abc",
            codes.INVALID_CONFIG,
            "Invalid value abc for configuration retention.ms: Not a number of type LONG",
        ),
        (TOPIC, "tt", "foo", "abc", codes.INVALID_CONFIG, "Unknown topic config name: foo"),
        (
            TOPIC,
            "nope",
            "retention.ms",
            "1",
            codes.UNKNOWN_TOPIC_OR_PARTITION,
            "The topic 'nope' does not exist.",
        ),
        (
            TOPIC,
            "",
            "retention.ms",
            "1",
            codes.INVALID_REQUEST,
            "Default topic resources are not allowed.",
        ),
        (
            BROKER,
            "0",
            "num.partitions",
            "3",
            codes.INVALID_REQUEST,
            "Cannot update these configs dynamically: [num.partitions]",
        ),
        (
            BROKER,
            "",
            "log.cleaner.threads",
            "x",
            codes.INVALID_REQUEST,
            "Invalid value x for configuration log.cleaner.threads: Not a number of type INT",
        ),
        (
            BROKER,
            "",
            "listeners",
            "PLAINTEXT://:1",
            codes.INVALID_REQUEST,
            (
                "Cannot update these configs at default cluster level, broker id must "
                "be specified: [listeners]"
            ),
        ),
        (
            BROKER,
            "",
            "min.insync.replicas",
            "0",
            codes.INVALID_REQUEST,
            "Invalid value 0 for configuration min.insync.replicas: Value must be at least 1",
        ),
        (
            LOGGER,
            "0",
            "nope",
            "DEBUG",
            codes.INVALID_CONFIG,
            "Logger nope does not exist!",
        ),
        (GROUP, "g", "foo", "1", codes.INVALID_CONFIG, "Unknown group config name: foo"),
        (
            METRICS,
            "cm",
            "foo",
            "1",
            codes.INVALID_REQUEST,
            "Unknown client metrics configuration: foo",
        ),
        (0, "cm", "foo", "1", codes.INVALID_REQUEST, "Unknown resource type 0"),
    ],
)
def test_alteration_is_refused_as_kafka_does(
    bench: Bench, kind: int, name: str, key: str, value: str, code: int, message: str
) -> None:
    assert alter(bench, kind, name, key, value) == (code, message)


def test_logger_operations_other_than_set_and_delete_are_refused(bench: Bench) -> None:
    assert alter(bench, LOGGER, "0", "root", "DEBUG", APPEND) == (
        codes.INVALID_REQUEST,
        "APPEND operation is not allowed for the BROKER_LOGGER resource",
    )


def test_group_configs_are_kept_and_described(bench: Bench) -> None:
    assert alter(bench, GROUP, "g", "consumer.session.timeout.ms", "46000") == (0, None)
    found = {one.name: one for one in describe(bench, GROUP, "g").configs}
    one = found["consumer.session.timeout.ms"]
    assert (one.value, one.config_source) == ("46000", 8)
    assert [(x.name, x.value, x.source) for x in one.synonyms] == [
        ("consumer.session.timeout.ms", "46000", 8),
        ("group.consumer.session.timeout.ms", "45000", 5),
    ]
    assert len(found) == 27


def test_alter_configs_replaces_all_overrides(bench: Bench) -> None:
    alter(bench, TOPIC, "tt", "segment.ms", "7")
    request = ac.AlterConfigsRequest(
        resources=[
            ac.AlterConfigsResource(
                resource_type=TOPIC,
                resource_name="tt",
                configs=[ac.AlterableConfig(name="retention.ms", value="9")],
            )
        ]
    )
    assert bench.call(33, 2, request).responses[0].error_code == 0
    topic = bench.topics.index.get("tt")
    assert topic is not None
    assert topic.configs == {"retention.ms": "9"}
    assert bench.engine.topics[topic.topic_id].config.retention_ms == 9
    request.validate_only = True
    request.resources[0].configs = []
    assert bench.call(33, 2, request).responses[0].error_code == 0
    assert bench.topics.index.get("tt") == topic


def test_list_config_resources(bench: Bench) -> None:
    alter(bench, GROUP, "g", "consumer.session.timeout.ms", "46000")
    alter(bench, METRICS, "cm", "interval.ms", "1000")
    everything = bench.call(74, 1, lr.ListConfigResourcesRequest()).config_resources
    assert {(one.resource_type, one.resource_name) for one in everything} == {
        (TOPIC, "tt"),
        (BROKER, "0"),
        (LOGGER, "0"),
        (METRICS, "cm"),
        (GROUP, "g"),
    }
    old = bench.call(74, 0, lr.ListConfigResourcesRequest()).config_resources
    assert [(one.resource_type, one.resource_name) for one in old] == [(METRICS, "cm")]
    refused = bench.call(74, 1, lr.ListConfigResourcesRequest(resource_types=[3]))
    assert refused.error_code == codes.UNSUPPORTED_VERSION
