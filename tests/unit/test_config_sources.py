"""Where configuration comes from, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock.config.broker_config import BrokerConfig, from_environment, load
from penstock.config.broker_keys import BROKER_KEYS, PENSTOCK_KEYS
from penstock.config.properties import decode, parse_properties
from penstock.config.topic_docs import TOPIC_DOCS, page
from penstock.config.topic_keys import TOPIC_KEYS
from penstock.config.values import parse_checked
from penstock.errors import ConfigError


def test_properties_follow_javas_syntax() -> None:
    text = (
        "# comment\n! comment\n\na=1\nb : 2\nc 3\n  d\\ e = f \\\n    g\nh\\=i=j\\u0041\\t.\n"
        "k\nlog.dirs=/a,\\\n         /b\nl=first\nl=last\r\nm=c:\\\\x\n"
    )
    assert parse_properties(text) == {
        "a": "1",
        "b": "2",
        "c": "3",
        "d e": "f g",
        "h=i": "jA\t.",
        "k": "",
        "log.dirs": "/a,/b",
        "l": "last",
        "m": "c:\\x",
    }


def test_properties_that_are_not_utf8_are_read_as_latin1() -> None:
    assert parse_properties(decode(b"a=\xe9")) == {"a": "\u00e9"}


def test_set_lies_over_environment_over_file(tmp_path: Path) -> None:
    file = tmp_path / "server.properties"
    file.write_text("num.partitions=2\nlog.dirs=/x\nnode.id=5\n")
    environ = {"KAFKA_NUM_PARTITIONS": "3", "KAFKA_NODE_ID": "6", "KAFKA_HEAP_OPTS": "-Xmx1g"}
    config = load(str(file), ["num.partitions=4"], environ)
    assert config.integer("num.partitions") == 4
    assert config.node_id == 6
    assert config.log_dirs == ["/x"]
    assert config.warning() is None


def test_environment_names_follow_the_images_rule() -> None:
    assert from_environment(
        {
            "KAFKA_LISTENER_NAME_A___B_C__D": "1",
            "KAFKA_CFG_NODE_ID": "2",
            "PENSTOCK_DURABILITY": "os",
            "PENSTOCK_NUM_PARTITIONS": "3",
            "CLUSTER_ID": "abc",
            "PATH": "/bin",
            "KAFKA_OPTS": "x",
        }
    ) == {
        "listener.name.a-b.c_d": "1",
        "node.id": "2",
        "penstock.durability": "os",
        "num.partitions": "3",
        "penstock.cluster.id": "abc",
    }


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("num.partitions", "x", "Not a number of type INT"),
        ("num.partitions", "0", "Value must be at least 1"),
        ("num.partitions", "99999999999", "Not a number of type INT"),
        ("auto.create.topics.enable", "yes", "Expected value to be either true or false"),
        ("log.cleaner.min.cleanable.ratio", "2", "Value must be no more than 1"),
        ("penstock.durability", "maybe", "String must be one of: os, fsync"),
        ("log.cleanup.policy", "keep", "String must be one of: compact, delete"),
    ],
)
def test_impossible_value_names_key_value_and_what_is_allowed(
    key: str, value: str, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        BrokerConfig({key: value})
    assert key in str(caught.value)
    assert value in str(caught.value) or "2.0" in str(caught.value)
    assert message in str(caught.value)


def test_unknown_and_idle_keys_are_named_in_one_warning() -> None:
    config = BrokerConfig({"foo.bar": "1", "num.io.threads": "8", "num.partitions": "2"})
    assert config.warning() == (
        "unknown configuration keys: foo.bar; keys of Kafka without effect here: num.io.threads"
    )


def test_fsync_is_refused_with_a_sentence() -> None:
    with pytest.raises(ConfigError, match="later one brings it"):
        BrokerConfig({"penstock.durability": "fsync"}).check_start()


def test_listener_that_others_reach_needs_insecure() -> None:
    settings = {"listeners": "PLAINTEXT://0.0.0.0:9092", "advertised.listeners": "PLAINTEXT://h:1"}
    with pytest.raises(ConfigError, match=r"penstock\.insecure=true"):
        BrokerConfig(settings).check_start()
    BrokerConfig({**settings, "penstock.insecure": "true"}).check_start()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.1.2.3"])
def test_loopback_listeners_need_nothing(host: str) -> None:
    BrokerConfig({"listeners": f"PLAINTEXT://{host}:0"}).check_start()


def test_tls_listener_is_refused() -> None:
    with pytest.raises(ConfigError, match="TLS and SASL"):
        BrokerConfig({"listeners": "SSL://127.0.0.1:9093"}).check_start()


def test_controller_listeners_are_not_bound() -> None:
    config = BrokerConfig(
        {
            "listeners": "PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093",
            "controller.listener.names": "CONTROLLER",
            "process.roles": "broker,controller",
        }
    )
    config.check_start()
    assert [one.name for one in config.listeners()] == ["PLAINTEXT"]


@pytest.mark.parametrize("text", ["nonsense", "PLAINTEXT://x", "PLAINTEXT://x:70000", "://x:1"])
def test_listener_that_cannot_be_read_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match="NAME://HOST:PORT"):
        BrokerConfig({"listeners": text}).listeners()


def test_meta_address_cannot_be_advertised() -> None:
    config = BrokerConfig(
        {
            "listeners": "PLAINTEXT://127.0.0.1:1",
            "advertised.listeners": "PLAINTEXT://0.0.0.0:1",
        }
    )
    with pytest.raises(ConfigError, match="nonroutable"):
        config.check_start()


def test_every_default_passes_its_own_check() -> None:
    for table in (BROKER_KEYS, PENSTOCK_KEYS, TOPIC_KEYS):
        for name, row in table.items():
            parse_checked(name, row, row[1])


def test_topic_synonyms_are_broker_keys() -> None:
    for row in TOPIC_KEYS.values():
        assert all(key in BROKER_KEYS for key, _ in row[4])


def test_page_of_topic_configurations_is_up_to_date() -> None:
    path = Path(__file__).parents[2] / "docs" / "topic-configs.md"
    assert path.read_text() == page()
    assert set(TOPIC_DOCS) == set(TOPIC_KEYS)
