"""Topics as values: replaced, never edited. Their stored form is JSON, readable in any store."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from json import JSONEncoder, loads
from typing import TYPE_CHECKING

from penstock.metadata.names import INTERNAL_TOPICS, collision_key, id_from_text, id_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True, slots=True)
class Partition:
    """`log_dir`: index in log.dirs of the replica on this broker. Epochs as in Kafka."""

    leader: int
    leader_epoch: int
    partition_epoch: int
    replicas: tuple[int, ...]
    isr: tuple[int, ...]
    log_dir: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """`partitions` is dense from 0; `configs` are the overrides, as text."""

    name: str
    topic_id: bytes
    partitions: tuple[Partition, ...]
    configs: Mapping[str, str]

    @property
    def is_internal(self) -> bool:
        return self.name in INTERNAL_TOPICS

    @property
    def replication_factor(self) -> int:
        return len(self.partitions[0].replicas) if self.partitions else 0


@lru_cache(maxsize=1024)
def shared_partition(
    leader: int,
    leader_epoch: int,
    partition_epoch: int,
    replicas: tuple[int, ...],
    isr: tuple[int, ...],
    log_dir: int,
) -> Partition:
    """A Partition; equal ones are one object, for most of many thousands are equal."""
    return Partition(leader, leader_epoch, partition_epoch, replicas, isr, log_dir)


_encode = JSONEncoder(separators=(",", ":")).encode


def encode_topic(topic: Topic) -> bytes:
    partitions = [
        [one.leader, one.leader_epoch, one.partition_epoch, one.replicas, one.isr, one.log_dir]
        for one in topic.partitions
    ]
    document = {
        "id": id_text(topic.topic_id),
        "name": topic.name,
        "partitions": partitions,
        "configs": dict(topic.configs),
    }
    return _encode(document).encode()


def decode_topic(data: bytes) -> Topic:
    document = loads(data)
    partitions = tuple(
        shared_partition(leader, epoch, partition_epoch, tuple(replicas), tuple(isr), log_dir)
        for leader, epoch, partition_epoch, replicas, isr, log_dir in document["partitions"]
    )
    return Topic(
        name=document["name"],
        topic_id=id_from_text(document["id"]),
        partitions=partitions,
        configs=document["configs"],
    )


class TopicIndex:
    """All topics, by name and by id. Owner: the control loop."""

    def __init__(self) -> None:
        self._by_name: dict[str, Topic] = {}
        self._by_id: dict[bytes, Topic] = {}
        self._by_collision: dict[str, set[str]] = {}

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[Topic]:
        return iter(list(self._by_name.values()))

    def get(self, name: str) -> Topic | None:
        return self._by_name.get(name)

    def by_id(self, topic_id: bytes) -> Topic | None:
        return self._by_id.get(topic_id)

    def colliding(self, name: str) -> str | None:
        """Another topic's name that differs from `name` only in '.' against '_'."""
        others = self._by_collision.get(collision_key(name), set()) - {name}
        return min(others) if others else None

    def put(self, topic: Topic) -> None:
        self._by_name[topic.name] = topic
        self._by_id[topic.topic_id] = topic
        self._by_collision.setdefault(collision_key(topic.name), set()).add(topic.name)

    def remove(self, topic: Topic) -> None:
        del self._by_name[topic.name]
        del self._by_id[topic.topic_id]
        names = self._by_collision[collision_key(topic.name)]
        names.discard(topic.name)
        if not names:
            del self._by_collision[collision_key(topic.name)]
