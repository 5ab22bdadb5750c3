"""The real Python clients behind one small interface, each in its default settings unless a test
says otherwise.

Blocking and single-threaded on purpose: the tests read like a list of what a user does.
"""

from __future__ import annotations

import asyncio
import subprocess
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")
DEADLINE_SECONDS = 60.0


class Got(NamedTuple):
    """One consumed record; `timestamp` in ms since the epoch."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    timestamp: int


class Adapter(Protocol):
    """What every client must be able to do for the common list."""

    name: str
    codecs: tuple[str, ...]

    def create_topic(self, topic: str, partitions: int, config: dict[str, str]) -> None: ...
    def delete_topic(self, topic: str) -> None: ...
    def topics(self) -> set[str]: ...
    def topic_config(self, topic: str) -> dict[str, str]: ...
    def produce(
        self,
        topic: str,
        values: list[bytes],
        *,
        key: bytes | None = None,
        codec: str = "none",
        acks: int | str = "all",
        idempotent: bool = False,
        timestamps: list[int] | None = None,
    ) -> None: ...
    def read(self, topic: str, partitions: int, count: int) -> list[Got]: ...
    def offsets_for_time(self, topic: str, timestamp: int) -> int | None: ...
    def join(self, group: str, topic: str) -> Member: ...


class Member(Protocol):
    """One member of a consumer group."""

    def poll(self, seconds: float) -> list[Got]: ...
    def commit(self) -> None: ...
    def assigned(self) -> set[int]: ...
    def close(self) -> None: ...


def until(condition: Callable[[], bool], what: str) -> None:
    """Polls `condition` (which itself waits inside a client) until it holds."""
    end = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {DEADLINE_SECONDS:.0f} s: {what}")


class Confluent:
    """confluent-kafka (librdkafka)."""

    name = "confluent-kafka"
    codecs = ("none", "gzip", "snappy", "lz4", "zstd")

    def __init__(self, bootstrap: str) -> None:
        from confluent_kafka.admin import AdminClient

        self.bootstrap = {"bootstrap.servers": bootstrap}
        self.admin = AdminClient(self.bootstrap)

    def create_topic(self, topic: str, partitions: int, config: dict[str, str]) -> None:
        from confluent_kafka.admin import NewTopic

        self.admin.create_topics([NewTopic(topic, partitions, config=config)])[topic].result(30)

    def delete_topic(self, topic: str) -> None:
        self.admin.delete_topics([topic])[topic].result(30)

    def topics(self) -> set[str]:
        return set(self.admin.list_topics(timeout=30).topics)

    def topic_config(self, topic: str) -> dict[str, str]:
        from confluent_kafka.admin import ConfigResource, ResourceType

        resource = ConfigResource(ResourceType.TOPIC, topic)
        entries = self.admin.describe_configs([resource])[resource].result(30)
        return {name: entry.value for name, entry in entries.items()}

    def produce(
        self,
        topic: str,
        values: list[bytes],
        *,
        key: bytes | None = None,
        codec: str = "none",
        acks: int | str = "all",
        idempotent: bool = False,
        timestamps: list[int] | None = None,
    ) -> None:
        from confluent_kafka import Producer

        errors: list[object] = []
        config: dict[str, object] = {
            **self.bootstrap,
            "compression.codec": codec,
            "acks": acks,
            "enable.idempotence": idempotent,
        }
        producer = Producer(config)
        for number, value in enumerate(values):
            extra = {"timestamp": timestamps[number]} if timestamps else {}
            producer.produce(
                topic,
                value,
                key,
                on_delivery=lambda error, _message: errors.append(error) if error else None,
                **extra,
            )
        left = producer.flush(DEADLINE_SECONDS)
        assert not errors
        assert left == 0

    def read(self, topic: str, partitions: int, count: int) -> list[Got]:
        from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

        consumer = Consumer({**self.bootstrap, "group.id": "unused"})
        consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in range(partitions)])
        try:
            return self._take(consumer, count)
        finally:
            consumer.close()

    def _take(self, consumer: Any, count: int) -> list[Got]:
        got: list[Got] = []

        def enough() -> bool:
            got.extend(self.records(consumer.consume(1000, 1.0)))
            return len(got) >= count

        until(enough, f"{count} records")
        return got

    @staticmethod
    def records(messages: list[Any]) -> list[Got]:
        for message in messages:
            assert message.error() is None, message.error()
        return [
            Got(m.partition(), m.offset(), m.key(), m.value(), m.timestamp()[1]) for m in messages
        ]

    def offsets_for_time(self, topic: str, timestamp: int) -> int | None:
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer({**self.bootstrap, "group.id": "unused"})
        try:
            found = consumer.offsets_for_times([TopicPartition(topic, 0, timestamp)], timeout=30)
        finally:
            consumer.close()
        offset: int = found[0].offset
        return offset if offset >= 0 else None

    def join(self, group: str, topic: str) -> Member:
        return ConfluentMember(self.bootstrap, group, topic)


class ConfluentMember:
    """A librdkafka consumer of a group."""

    def __init__(self, bootstrap: dict[str, str], group: str, topic: str) -> None:
        from confluent_kafka import Consumer

        self.consumer = Consumer(
            {
                **bootstrap,
                "group.id": group,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
            }
        )
        self.consumer.subscribe([topic])

    def poll(self, seconds: float) -> list[Got]:
        return Confluent.records(self.consumer.consume(500, seconds))

    def commit(self) -> None:
        self.consumer.commit(asynchronous=False)

    def assigned(self) -> set[int]:
        return {part.partition for part in self.consumer.assignment()}

    def close(self) -> None:
        self.consumer.close()


class KafkaPython:
    """kafka-python."""

    name = "kafka-python"
    codecs = ("none", "gzip", "snappy", "lz4", "zstd")

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap

    def _admin(self) -> Any:
        from kafka.admin import KafkaAdminClient

        return KafkaAdminClient(bootstrap_servers=self.bootstrap)

    def create_topic(self, topic: str, partitions: int, config: dict[str, str]) -> None:
        from kafka.admin import NewTopic

        admin = self._admin()
        admin.create_topics([NewTopic(topic, partitions, 1, topic_configs=config)])
        admin.close()

    def delete_topic(self, topic: str) -> None:
        admin = self._admin()
        admin.delete_topics([topic])
        admin.close()

    def topics(self) -> set[str]:
        admin = self._admin()
        found = set(admin.list_topics())
        admin.close()
        return found

    def topic_config(self, topic: str) -> dict[str, str]:
        from kafka.admin import ConfigResource, ConfigResourceType

        admin = self._admin()
        resource = ConfigResource(ConfigResourceType.TOPIC, topic)
        found = admin.describe_configs([resource], config_filter="all")
        admin.close()
        return flatten_config(found)

    def produce(
        self,
        topic: str,
        values: list[bytes],
        *,
        key: bytes | None = None,
        codec: str = "none",
        acks: int | str = "all",
        idempotent: bool = False,
        timestamps: list[int] | None = None,
    ) -> None:
        from kafka import KafkaProducer

        producer = KafkaProducer(
            bootstrap_servers=self.bootstrap,
            compression_type=None if codec == "none" else codec,
            acks=acks,
            enable_idempotence=idempotent,
        )
        futures = [
            producer.send(topic, value, key, timestamp_ms=timestamps[n] if timestamps else None)
            for n, value in enumerate(values)
        ]
        producer.flush(DEADLINE_SECONDS)
        for future in futures:
            future.get(DEADLINE_SECONDS)
        producer.close()

    def read(self, topic: str, partitions: int, count: int) -> list[Got]:
        from kafka import KafkaConsumer, TopicPartition

        consumer = KafkaConsumer(bootstrap_servers=self.bootstrap, enable_auto_commit=False)
        parts = [TopicPartition(topic, p) for p in range(partitions)]
        consumer.assign(parts)
        consumer.seek_to_beginning(*parts)
        got: list[Got] = []

        def enough() -> bool:
            got.extend(self.records(consumer.poll(timeout_ms=1000)))
            return len(got) >= count

        try:
            until(enough, f"{count} records")
        finally:
            consumer.close()
        return got

    @staticmethod
    def records(polled: dict[Any, list[Any]]) -> list[Got]:
        return [
            Got(r.partition, r.offset, r.key, r.value, r.timestamp)
            for records in polled.values()
            for r in records
        ]

    def offsets_for_time(self, topic: str, timestamp: int) -> int | None:
        from kafka import KafkaConsumer, TopicPartition

        consumer = KafkaConsumer(bootstrap_servers=self.bootstrap)
        part = TopicPartition(topic, 0)
        found = consumer.offsets_for_times({part: timestamp})[part]
        consumer.close()
        return None if found is None else found.offset

    def join(self, group: str, topic: str) -> Member:
        return KafkaPythonMember(self.bootstrap, group, topic)


class KafkaPythonMember:
    """A kafka-python consumer of a group."""

    def __init__(self, bootstrap: str, group: str, topic: str) -> None:
        from kafka import KafkaConsumer

        self.consumer = KafkaConsumer(
            topic,
            bootstrap_servers=bootstrap,
            group_id=group,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )

    def poll(self, seconds: float) -> list[Got]:
        return KafkaPython.records(self.consumer.poll(timeout_ms=int(seconds * 1000)))

    def commit(self) -> None:
        self.consumer.commit()

    def assigned(self) -> set[int]:
        return {part.partition for part in self.consumer.assignment()}

    def close(self) -> None:
        self.consumer.close()


class Aiokafka:
    """aiokafka, driven from a loop of its own."""

    name = "aiokafka"
    codecs = ("none", "gzip", "snappy", "lz4", "zstd")

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        self.loop = asyncio.new_event_loop()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(asyncio.wait_for(work, DEADLINE_SECONDS))

    async def _with_admin(self, work: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
        from aiokafka.admin import AIOKafkaAdminClient

        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        try:
            return await work(admin)
        finally:
            await admin.close()

    def create_topic(self, topic: str, partitions: int, config: dict[str, str]) -> None:
        from aiokafka.admin import NewTopic

        new = NewTopic(topic, partitions, 1, topic_configs=config)
        self.run(self._with_admin(lambda admin: admin.create_topics([new])))

    def delete_topic(self, topic: str) -> None:
        self.run(self._with_admin(lambda admin: admin.delete_topics([topic])))

    def topics(self) -> set[str]:
        return set(self.run(self._with_admin(lambda admin: admin.list_topics())))

    def topic_config(self, topic: str) -> dict[str, str]:
        from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

        resource = ConfigResource(ConfigResourceType.TOPIC, topic)
        return flatten_config(
            self.run(self._with_admin(lambda admin: admin.describe_configs([resource])))
        )

    def produce(
        self,
        topic: str,
        values: list[bytes],
        *,
        key: bytes | None = None,
        codec: str = "none",
        acks: int | str = "all",
        idempotent: bool = False,
        timestamps: list[int] | None = None,
    ) -> None:
        from aiokafka import AIOKafkaProducer

        async def work() -> None:
            producer = AIOKafkaProducer(
                bootstrap_servers=self.bootstrap,
                compression_type=None if codec == "none" else codec,
                acks=acks,
                enable_idempotence=idempotent,
            )
            await producer.start()
            try:
                futures = [
                    await producer.send(
                        topic, value, key, timestamp_ms=timestamps[n] if timestamps else None
                    )
                    for n, value in enumerate(values)
                ]
                await producer.flush()
                for future in futures:
                    await future
            finally:
                await producer.stop()

        self.run(work())

    def read(self, topic: str, partitions: int, count: int) -> list[Got]:
        from aiokafka import AIOKafkaConsumer, TopicPartition

        async def work() -> list[Got]:
            consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap, enable_auto_commit=False)
            await consumer.start()
            try:
                parts = [TopicPartition(topic, p) for p in range(partitions)]
                consumer.assign(parts)
                await consumer.seek_to_beginning(*parts)
                got: list[Got] = []
                while len(got) < count:
                    got += KafkaPython.records(await consumer.getmany(timeout_ms=1000))
                return got
            finally:
                await consumer.stop()

        return self.run(work())

    def offsets_for_time(self, topic: str, timestamp: int) -> int | None:
        from aiokafka import AIOKafkaConsumer, TopicPartition

        async def work() -> int | None:
            consumer = AIOKafkaConsumer(bootstrap_servers=self.bootstrap)
            await consumer.start()
            try:
                part = TopicPartition(topic, 0)
                found = (await consumer.offsets_for_times({part: timestamp}))[part]
                return None if found is None else found.offset
            finally:
                await consumer.stop()

        return self.run(work())

    def join(self, group: str, topic: str) -> Member:
        return AiokafkaMember(self, group, topic)


class AiokafkaMember:
    """An aiokafka consumer of a group; its background work runs only while a method does."""

    def __init__(self, client: Aiokafka, group: str, topic: str) -> None:
        from aiokafka import AIOKafkaConsumer

        self.client = client

        async def start() -> Any:
            consumer = AIOKafkaConsumer(
                topic,
                bootstrap_servers=client.bootstrap,
                group_id=group,
                auto_offset_reset="earliest",
                enable_auto_commit=False,
            )
            await consumer.start()
            return consumer

        self.consumer = client.run(start())

    def poll(self, seconds: float) -> list[Got]:
        return KafkaPython.records(
            self.client.run(self.consumer.getmany(timeout_ms=int(seconds * 1000)))
        )

    def commit(self) -> None:
        self.client.run(self.consumer.commit())

    def assigned(self) -> set[int]:
        return {part.partition for part in self.consumer.assignment()}

    def close(self) -> None:
        self.client.run(self.consumer.stop())


def flatten_config(found: Any) -> dict[str, str]:
    """kafka-python's and aiokafka's answers to DescribeConfigs, old tuples and new dictionaries
    alike.
    """
    entries: dict[str, str] = {}
    pending = [found]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            for name, value in item.items():
                if isinstance(value, str):
                    entries[name] = value
                elif isinstance(value, dict) and "value" in value:
                    entries[name] = value["value"]
                else:
                    pending.append(value)
            if "config_names" in item or "name" in item:
                entries[item.get("name") or item["config_names"]] = item.get("value", "")
        elif isinstance(item, list | tuple):
            if len(item) >= 2 and isinstance(item[0], str) and isinstance(item[1], str | None):
                entries[item[0]] = item[1] or ""
            pending.extend(part for part in item if not isinstance(part, str))
        elif hasattr(item, "resources"):
            pending.append(item.resources)
    return entries


def kcat(bootstrap: str, *arguments: str, stdin: bytes = b"", timeout: float = 60) -> bytes:
    """Runs Debian's kcat; its standard output."""
    done = subprocess.run(
        ["kcat", "-b", bootstrap, *arguments],
        input=stdin,
        capture_output=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout
