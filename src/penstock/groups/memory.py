"""The coordinator's ports in memory, with a clock that is moved by hand.

Purpose: unit and property tests now, the seeded simulator later. Nothing here is used by a broker.
"""

from __future__ import annotations

import heapq
from itertools import count
from typing import TYPE_CHECKING

from penstock.errors import EngineError
from penstock.groups.config import GroupSettings
from penstock.groups.context import GroupContext
from penstock.groups.coordinator import OFFSETS_TOPIC, GroupCoordinator, Record
from penstock.groups.deferred import Deferred
from penstock.groups.tables import MemoryMemberTable, MemoryOffsetTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from penstock.groups.ports import RequestHeader


class ManualTimer:
    """A timer that can be cancelled."""

    def __init__(self, fn: Callable[[], None]) -> None:
        self.fn: Callable[[], None] | None = fn

    def cancel(self) -> None:
        self.fn = None


class ManualClock:
    """`ports.Clock` and `ports.Timers`: time passes in `advance` only."""

    def __init__(self, wall_ms: int = 1_700_000_000_000) -> None:
        self._monotonic = 1_000
        self._wall_offset = wall_ms - self._monotonic
        self._queue: list[tuple[int, int, ManualTimer]] = []
        self._order = count()

    def monotonic_ms(self) -> int:
        return self._monotonic

    def wall_ms(self) -> int:
        return self._monotonic + self._wall_offset

    def jump_wall(self, by_ms: int) -> None:
        """The wall clock is set; monotonic time does not notice."""
        self._wall_offset += by_ms

    def call_at(self, when_ms: int, fn: Callable[[], None]) -> ManualTimer:
        timer = ManualTimer(fn)
        heapq.heappush(self._queue, (when_ms, next(self._order), timer))
        return timer

    def advance(self, by_ms: int) -> None:
        """Let time pass; timers fire in order, each at its own time."""
        end = self._monotonic + by_ms
        while self._queue and self._queue[0][0] <= end:
            when, _, timer = heapq.heappop(self._queue)
            self._monotonic = max(self._monotonic, when)
            fn, timer.fn = timer.fn, None
            if fn is not None:
                fn()
        self._monotonic = end

    def pending(self) -> int:
        """Timers that would still fire."""
        return sum(timer.fn is not None for _, _, timer in self._queue)


class MemoryOffsetsLog:
    """`ports.OffsetsLog`: appends end at once, or when `release` is called while `held`."""

    def __init__(self, partitions: int = 50) -> None:
        self.logs: list[list[tuple[int, int, bytes, bytes | None]]] = [
            [] for _ in range(partitions)
        ]
        self.held = False
        self.fail_with: int | None = None
        self._waiting: list[tuple[Deferred[int], int, list[Record], int]] = []

    def append(self, partition: int, records: list[Record], now_ms: int) -> Deferred[int]:
        done: Deferred[int] = Deferred()
        if self.held:
            self._waiting.append((done, partition, records, now_ms))
        else:
            self._write(done, partition, records, now_ms)
        return done

    def _write(
        self, done: Deferred[int], partition: int, records: list[Record], now_ms: int
    ) -> None:
        if self.fail_with is not None:
            done.set_exception(EngineError("append refused", self.fail_with))
            return
        log = self.logs[partition]
        base = len(log)
        for key, value in records:
            log.append((len(log), now_ms, key, value))
        done.set_result(base)

    def release(self, appends: int = -1) -> None:
        """End the oldest `appends` held appends (-1: all)."""
        if appends < 0:
            appends = len(self._waiting)
        for _ in range(min(appends, len(self._waiting))):
            self._write(*self._waiting.pop(0))

    def read_all(self, partition: int) -> Iterable[tuple[int, int, bytes, bytes | None]]:
        return list(self.logs[partition])


class MemoryTopics:
    """`ports.TopicView` and `ports.OffsetsTopic` over a dictionary."""

    def __init__(self) -> None:
        self.topics: dict[str, tuple[bytes, int]] = {}
        self._next = count(1)
        self.coordinator: GroupCoordinator | None = None
        self.offsets_partitions = 50

    def add(self, name: str, partitions: int) -> bytes:
        topic_id = next(self._next).to_bytes(16, "big")
        self.topics[name] = (topic_id, partitions)
        if self.coordinator is not None:
            self.coordinator.topic_created(name, partitions)
        return topic_id

    def delete(self, name: str) -> None:
        topic_id, _ = self.topics.pop(name)
        if self.coordinator is not None:
            self.coordinator.topic_deleted(name, topic_id)

    def topic_id(self, name: str) -> bytes | None:
        found = self.topics.get(name)
        return None if found is None else found[0]

    def topic_name(self, topic_id: bytes) -> str | None:
        return next((name for name, (known, _) in self.topics.items() if known == topic_id), None)

    # One class, two ports: without a name it is asked about the offsets topic.
    def partition_count(self, name: str = OFFSETS_TOPIC) -> int:
        found = self.topics.get(name)
        return 0 if found is None else found[1]

    def create(self) -> None:
        self.add(OFFSETS_TOPIC, self.offsets_partitions)

    def endpoint(self, _header: RequestHeader) -> tuple[int, str, int]:
        return 1, "localhost", 9092


class Header:
    """`ports.RequestHeader`."""

    def __init__(self, api_version: int, client_id: str | None = "client") -> None:
        self.api_version = api_version
        self.client_id = client_id
        self.correlation_id = 1
        self.client_host = "127.0.0.1"


class MemoryGroups:
    """A whole coordinator in memory, and a way to restart it on the same log."""

    def __init__(
        self,
        settings: GroupSettings | None = None,
        log: MemoryOffsetsLog | None = None,
        *,
        topic_exists: bool = True,
    ) -> None:
        self.clock = ManualClock()
        self.log = log if log is not None else MemoryOffsetsLog()
        self.settings = settings if settings is not None else GroupSettings()
        self.topics = MemoryTopics()
        self.topics.offsets_partitions = len(self.log.logs)
        self.start()
        if topic_exists:
            self.topics.create()

    def start(self) -> None:
        """A new coordinator: memory gone, log and clock kept."""
        self.offsets = MemoryOffsetTable()
        self.members = MemoryMemberTable()
        self.coordinator = GroupCoordinator(
            settings=self.settings,
            log=self.log,
            offsets=self.offsets,
            members=self.members,
            clock=self.clock,
            timers=self.clock,
        )
        self.topics.coordinator = self.coordinator
        self.context = GroupContext(
            coordinator=self.coordinator, topics=self.topics, offsets_topic=self.topics
        )
        if OFFSETS_TOPIC in self.topics.topics:
            self.coordinator.load(self.topics.partition_count())
