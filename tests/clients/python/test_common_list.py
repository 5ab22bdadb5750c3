"""What every client must be able to do against a broker of ours, in its default settings."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from adapters import Adapter, Aiokafka, Confluent, Got, KafkaPython, until

if TYPE_CHECKING:
    from collections.abc import Callable

    import penstock

CLIENTS: list[Callable[[str], Adapter]] = [Confluent, KafkaPython, Aiokafka]
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]


@pytest.fixture(params=CLIENTS, ids=lambda kind: kind.name)
def client(request: pytest.FixtureRequest, penstock_broker: penstock.Broker) -> Adapter:
    return request.param(penstock_broker.bootstrap_servers)


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> str:
    return "".join(c if c.isalnum() else "-" for c in request.node.name)


def values(got: list[Got]) -> list[bytes | None]:
    return [record.value for record in sorted(got)]


def numbered(count: int, tag: bytes = b"value") -> list[bytes]:
    return [b"%s-%06d" % (tag, number) for number in range(count)]


@pytest.mark.parametrize("codec", CODECS)
def test_records_of_every_codec_come_back(client: Adapter, topic: str, codec: str) -> None:
    client.create_topic(topic, 1, {})
    client.produce(topic, numbered(500), codec=codec)
    assert values(client.read(topic, 1, 500)) == numbered(500)


@pytest.mark.parametrize("codec", [codec for codec in CODECS if codec != "none"])
def test_the_topics_codec_replaces_the_producers(client: Adapter, topic: str, codec: str) -> None:
    client.create_topic(topic, 1, {"compression.type": codec})
    client.produce(topic, numbered(300))
    assert values(client.read(topic, 1, 300)) == numbered(300)


@pytest.mark.parametrize("acks", [0, 1, "all"])
def test_every_kind_of_acks(client: Adapter, topic: str, acks: int | str) -> None:
    client.create_topic(topic, 1, {})
    client.produce(topic, numbered(100), acks=acks)
    assert values(client.read(topic, 1, 100)) == numbered(100)


def test_an_idempotent_producer_writes_in_order(client: Adapter, topic: str) -> None:
    client.create_topic(topic, 1, {})
    client.produce(topic, numbered(2000), idempotent=True)
    assert values(client.read(topic, 1, 2000)) == numbered(2000)


def test_keys_choose_one_partition_and_survive(client: Adapter, topic: str) -> None:
    client.create_topic(topic, 4, {})
    client.produce(topic, numbered(50), key=b"same")
    got = client.read(topic, 4, 50)
    assert {record.key for record in got} == {b"same"}
    assert len({record.partition for record in got}) == 1


def test_seek_by_time_finds_the_first_record_not_before_it(client: Adapter, topic: str) -> None:
    client.create_topic(topic, 1, {})
    start = int(time.time() * 1000) - 100_000
    stamps = [start + number * 1000 for number in range(50)]
    client.produce(topic, numbered(50), timestamps=stamps)
    assert client.offsets_for_time(topic, stamps[20]) == 20
    assert client.offsets_for_time(topic, stamps[20] - 1) == 20
    assert client.offsets_for_time(topic, stamps[20] + 1) == 21
    assert client.offsets_for_time(topic, stamps[49] + 1) is None


def test_topics_are_created_described_and_deleted(client: Adapter, topic: str) -> None:
    client.create_topic(topic, 3, {"retention.ms": "123456"})
    assert topic in client.topics()
    config = client.topic_config(topic)
    assert config["retention.ms"] == "123456"
    assert config["segment.bytes"] == "1073741824"
    client.delete_topic(topic)
    until(lambda: topic not in client.topics(), f"{topic} is gone")


def test_a_group_rebalances_and_resumes_from_its_commits(client: Adapter, topic: str) -> None:
    client.create_topic(topic, 4, {})
    for part in range(8):
        client.produce(topic, numbered(100, b"part%d" % part), key=b"key%d" % part)
    first = client.join(f"group-{topic}", topic)
    got: list[Got] = []
    until(lambda: (got.extend(first.poll(0.5)), len(got) >= 800)[1], "the first member reads all")
    first.commit()
    assert first.assigned() == {0, 1, 2, 3}
    second = client.join(f"group-{topic}", topic)

    def shared() -> bool:
        first.poll(0.3)
        second.poll(0.3)
        return len(first.assigned()) == 2 and len(second.assigned()) == 2

    until(shared, "two members share four partitions")
    assert first.assigned() | second.assigned() == {0, 1, 2, 3}
    first.close()
    until(lambda: (second.poll(0.3), len(second.assigned()) == 4)[1], "the second owns all again")
    client.produce(topic, numbered(10, b"late"), key=b"late")
    late: list[Got] = []
    until(lambda: (late.extend(second.poll(0.5)), len(late) >= 10)[1], "the late records")
    assert values(late) == numbered(10, b"late")
    second.close()
