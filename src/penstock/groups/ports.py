"""What the group coordinator needs from the rest of the broker, as small Protocols.

Purpose: the server implements these; the tests implement them in memory. Nothing here decides
anything. Every method is called on the control loop's thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

ZERO_ID = bytes(16)


class OffsetEntry(NamedTuple):
    """One committed offset.

    `leader_epoch` -1: none. `commit_timestamp` is wall clock milliseconds. `expire_timestamp` is
    wall clock milliseconds or -1 (the broker's retention applies). `topic_id` of 16 zero bytes: the
    record was written before topic ids were stored.
    """

    topic_id: bytes
    topic: str
    partition: int
    offset: int
    leader_epoch: int
    metadata: str
    commit_timestamp: int
    expire_timestamp: int


class OffsetTable(Protocol):
    """Committed offsets by (group, topic name, partition). In memory or in C (broker room)."""

    def put(
        self,
        group: str,
        topic_id: bytes,
        topic: str,
        partition: int,
        offset: int,
        leader_epoch: int,
        metadata: str,
        commit_timestamp: int,
        expire_timestamp: int,
    ) -> None:
        """Insert or replace. Raises MemoryError when the table is at its bound."""
        ...

    def get(self, group: str, topic: str, partition: int) -> OffsetEntry | None: ...

    def remove(self, group: str, topic: str, partition: int) -> bool:
        """True when there was one."""
        ...

    def remove_group(self, group: str) -> int:
        """Forget everything of one group; how many offsets that were."""
        ...

    def iterate(self, group: str) -> Iterator[OffsetEntry]:
        """A snapshot, grouped by topic, partitions of a topic in ascending order."""
        ...

    def groups(self) -> Iterator[str]:
        """A snapshot of the groups that have at least one offset."""
        ...

    def size(self) -> int: ...


class MemberTable(Protocol):
    """Session deadlines by (group, member). Deadlines are monotonic milliseconds."""

    def upsert(self, group: str, member: str, generation: int, deadline: int) -> None: ...

    def touch(self, group: str, member: str, deadline: int) -> bool:
        """Move the deadline of a known member; False when it is not there."""
        ...

    def remove(self, group: str, member: str) -> bool: ...

    def expired(self, now: int) -> list[tuple[str, str]]:
        """Take out and return every (group, member) whose deadline is <= now, oldest first."""
        ...

    def next_deadline(self) -> int:
        """A time no later than the earliest deadline, or -1 when the table is empty. It may be
        early (deadlines that moved are corrected lazily): asking `expired` then returns nothing."""
        ...

    def size(self) -> int: ...


class Appended(Protocol):
    """asyncio.Future and `deferred.Deferred` both are one."""

    def done(self) -> bool: ...

    def exception(self) -> BaseException | None: ...

    def add_done_callback(self, callback: Callable[[Any], object], /) -> object: ...


class OffsetsLog(Protocol):
    """The partitions of `__consumer_offsets`."""

    def append(
        self, partition: int, records: list[tuple[bytes, bytes | None]], now_ms: int
    ) -> Appended:
        """Append as one record batch (a value of None is a tombstone), timestamp `now_ms`.

        Completes with the base offset once the records are as durable as the mode says, in the
        order of the calls for one partition. Fails with an exception that has `kafka_code` or
        `code` (Kafka's number). It never raises.
        """
        ...

    def read_all(self, partition: int) -> Iterable[tuple[int, int, bytes, bytes | None]]:
        """(offset, timestamp, key, value) of every record, in order, for loading. Control records
        and records without a key are left out. An empty partition costs nothing."""
        ...


class RecordCodec(Protocol):
    """Kafka's coordinator records. `records.py` has a pure Python one.

    Encoded bytes begin with an int16: the version for a value, the record type for a key.
    """

    def encode_record(self, name: str, version: int, message: Any, /) -> bytes: ...

    def decode_record(self, name: str, data: bytes) -> Any:
        """Raises ValueError for bytes that are not such a record."""
        ...


class TopicView(Protocol):
    """Topics as this broker knows them now."""

    def topic_id(self, name: str) -> bytes | None: ...

    def topic_name(self, topic_id: bytes) -> str | None: ...

    def partition_count(self, name: str) -> int:
        """0 for an unknown topic."""
        ...


class Clock(Protocol):
    def monotonic_ms(self) -> int:
        """For every timeout."""
        ...

    def wall_ms(self) -> int:
        """For record timestamps and retention, nothing else."""
        ...


class TimerHandle(Protocol):
    def cancel(self) -> None: ...


class Timers(Protocol):
    def call_at(self, when_ms: int, fn: Callable[[], None]) -> TimerHandle:
        """Call `fn` on the control loop at monotonic time `when_ms` or soon after, once."""
        ...


class OffsetsTopic(Protocol):
    """Life of the topic `__consumer_offsets`, and where its coordinator listens."""

    def partition_count(self) -> int:
        """0 while the topic does not exist."""
        ...

    def create(self) -> None:
        """Create it with Kafka's settings (compact, `offsets.topic.*`); returns when it is
        published, or after starting what will publish it. Failures are the server's to report."""
        ...

    def endpoint(self, header: RequestHeader, /) -> tuple[int, str, int]:
        """(node id, host, port) of the coordinator, for the listener the request came through."""
        ...


class RequestHeader(Protocol):
    """What a handler reads of the request header and its connection."""

    @property
    def api_version(self) -> int: ...

    @property
    def client_id(self) -> str | None: ...

    @property
    def correlation_id(self) -> int: ...

    @property
    def client_host(self) -> str: ...
