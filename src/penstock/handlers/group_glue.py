"""The group coordinator's ports (penstock.groups.ports) over topics, engine, codec and loop.

Owner: the control loop.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from penstock.errors import EngineError
from penstock.groups.deferred import Deferred
from penstock.metadata.names import OFFSETS_TOPIC

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

    from penstock.engine_port import BrokerEndpoint, EnginePort
    from penstock.groups.ports import Appended, RequestHeader
    from penstock.metadata.service import TopicService
    from penstock.protocol.codec import MessageCodec

_READ_BYTES = 1 << 20


class SystemClock:
    """ports.Clock."""

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000


class LoopTimers:
    """ports.Timers on asyncio, whose clock is the monotonic one."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def call_at(self, when_ms: int, fn: Callable[[], None]) -> asyncio.TimerHandle:
        return self._loop.call_at(when_ms / 1000, fn)


class TopicNames:
    """ports.TopicView."""

    def __init__(self, topics: TopicService) -> None:
        self._index = topics.index

    def topic_id(self, name: str) -> bytes | None:
        topic = self._index.get(name)
        return topic.topic_id if topic else None

    def topic_name(self, topic_id: bytes) -> str | None:
        topic = self._index.by_id(topic_id)
        return topic.name if topic else None

    def partition_count(self, name: str) -> int:
        topic = self._index.get(name)
        return len(topic.partitions) if topic else 0


class EngineOffsetsLog:
    """ports.OffsetsLog: the partitions of `__consumer_offsets` in the engine."""

    def __init__(self, topics: TopicService, engine: EnginePort, codec: MessageCodec) -> None:
        self._topics = topics
        self._engine = engine
        self._codec = codec

    def append(
        self, partition: int, records: list[tuple[bytes, bytes | None]], now_ms: int
    ) -> Appended:
        try:
            batch = self._codec.build_batch([(now_ms, key, value, ()) for key, value in records])
            done = self._engine.append(self._topic_id(), partition, batch)
        except Exception as error:
            return Deferred.failed(error)
        return Deferred.of(done) if isinstance(done, int) else done

    def read_all(self, partition: int) -> Iterator[tuple[int, int, bytes, bytes | None]]:
        topic_id = self._topic_id()
        ends = self._engine.offsets(topic_id, partition)
        at = ends.log_start
        while at < ends.log_end:
            data = self._engine.read(topic_id, partition, at, _READ_BYTES)
            following = _end_of(data)
            if following <= at:
                return
            for offset, timestamp, key, value, _ in self._codec.decode_batches(data):
                if offset >= at and key is not None:
                    yield offset, timestamp, key, value
            at = following

    def _topic_id(self) -> bytes:
        topic = self._topics.index.get(OFFSETS_TOPIC)
        if topic is None:
            raise EngineError(f"{OFFSETS_TOPIC} does not exist", 15)
        return topic.topic_id


def _end_of(data: bytes) -> int:
    """Offset after the last whole batch of `data`, which begins at a batch; -1 for none."""
    at, end = 0, -1
    while len(data) - at >= 61:
        size = 12 + int.from_bytes(data[at + 8 : at + 12], "big", signed=True)
        if size < 61 or size > len(data) - at:
            break
        base = int.from_bytes(data[at : at + 8], "big", signed=True)
        end = base + int.from_bytes(data[at + 23 : at + 27], "big", signed=True) + 1
        at += size
    return end


class OffsetsTopicPort:
    """ports.OffsetsTopic."""

    def __init__(self, topics: TopicService, endpoints: tuple[BrokerEndpoint, ...]) -> None:
        self._topics = topics
        self._endpoints = endpoints

    def partition_count(self) -> int:
        topic = self._topics.index.get(OFFSETS_TOPIC)
        return len(topic.partitions) if topic else 0

    def create(self) -> None:
        """The dispatcher has awaited the creation before it came here; a failure was logged."""

    def endpoint(self, header: RequestHeader) -> tuple[int, str, int]:
        listener = getattr(header, "listener", None)
        for one in self._endpoints:
            if one.listener == listener:
                return one.node_id, one.host, one.port
        first = self._endpoints[0]
        return first.node_id, first.host, first.port
