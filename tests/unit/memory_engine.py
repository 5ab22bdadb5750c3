"""EnginePort in memory, and a codec whose frames are Python objects: for tests without sockets."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

from penstock.engine_port import (
    ClusterUpdate,
    ControlRequest,
    EngineSettings,
    ListenerSpec,
    LogDirInfo,
    PartitionOffsets,
    PartitionSize,
    TopicRemove,
    TopicUpsert,
)
from penstock.errors import EngineError, StartError
from penstock.groups.tables import MemoryMemberTable, MemoryOffsetTable

if TYPE_CHECKING:
    from collections.abc import Sequence

UNKNOWN_TOPIC = 3
OUT_OF_RANGE = 1


class _Log:
    def __init__(self) -> None:
        self.start = 0
        self.end = 0
        self.batches: list[tuple[int, bytes]] = []


class MemoryEngine:
    """Keeps what it was told, for tests to look at. `offer` plays a client's request."""

    def __init__(self) -> None:
        self.settings: EngineSettings | None = None
        self.topics: dict[bytes, TopicUpsert] = {}
        self.cluster: ClusterUpdate | None = None
        self.published: list[Any] = []
        self.answers: dict[int, bytes] = {}
        self.redispatched: list[int] = []
        self.closed: list[int] = []
        self.serving = False
        self.stopped: bool | None = None
        self.abandoned = False
        self.retention_runs = 0
        self.checkpoints = 0
        self.refuse_port: int | None = None
        self._logs: dict[tuple[bytes, int], _Log] = {}
        self._queue: list[ControlRequest] = []
        self._eventfd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._tokens = 0
        self._offsets = MemoryOffsetTable()
        self._members = MemoryMemberTable()

    # -- life
    def open(self, settings: EngineSettings) -> None:
        self.settings = settings

    def bind(self, listeners: Sequence[ListenerSpec]) -> list[int]:
        for one in listeners:
            if one.port == self.refuse_port:
                raise StartError(f"{one.host}:{one.port} is in use")
        return [one.port or 40000 + at for at, one in enumerate(listeners)]

    def serve(self) -> None:
        self.serving = True

    def stop(self, graceful: bool = True) -> None:
        self.serving = False
        self.stopped = graceful

    def abandon_after_fork(self) -> None:
        self.abandoned = True

    def close_eventfd(self) -> None:
        os.close(self._eventfd)

    # -- requests
    def offer(self, api_key: int, api_version: int, frame: Any, **fields: Any) -> int:
        """Queue a request; its token."""
        self._tokens += 1
        values = {
            "client_host": "127.0.0.1",
            "listener": "PLAINTEXT",
            "principal": "User:ANONYMOUS",
        }
        values.update(fields)
        self._queue.append(
            ControlRequest(
                token=self._tokens, api_key=api_key, api_version=api_version, frame=frame, **values
            )
        )
        os.eventfd_write(self._eventfd, 1)
        return self._tokens

    def eventfd(self) -> int:
        return self._eventfd

    def drain(self, limit: int = 256) -> list[ControlRequest]:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._eventfd)
        taken, self._queue = self._queue[:limit], self._queue[limit:]
        if self._queue:
            os.eventfd_write(self._eventfd, 1)
        return taken

    def respond(self, token: int, payload: bytes | bytearray | memoryview) -> None:
        assert token not in self.answers, "answered twice"
        self.answers[token] = bytes(payload)

    def redispatch(self, token: int) -> None:
        self.redispatched.append(token)

    def close_connection(self, token: int) -> None:
        self.closed.append(token)

    # -- image
    def publish(self, deltas: Sequence[Any]) -> None:
        for delta in deltas:
            self.published.append(delta)
            if isinstance(delta, TopicUpsert):
                self.topics[delta.topic_id] = delta
            elif isinstance(delta, TopicRemove):
                self.topics.pop(delta.topic_id, None)
                for key in [key for key in self._logs if key[0] == delta.topic_id]:
                    del self._logs[key]
            else:
                self.cluster = delta

    # -- partitions
    def _log(self, topic_id: bytes, partition: int) -> _Log:
        topic = self.topics.get(topic_id)
        if topic is None or not 0 <= partition < len(topic.partitions):
            raise EngineError("no such partition", UNKNOWN_TOPIC)
        return self._logs.setdefault((topic_id, partition), _Log())

    def append(self, topic_id: bytes, partition: int, batch: Any) -> int:
        log = self._log(topic_id, partition)
        base = log.end
        data = base.to_bytes(8, "big") + bytes(batch)[8:]
        log.end = base + int.from_bytes(data[23:27], "big") + 1
        log.batches.append((base, data))
        return base

    def read(self, topic_id: bytes, partition: int, offset: int, max_bytes: int) -> bytes:
        log = self._log(topic_id, partition)
        if not log.start <= offset <= log.end:
            raise EngineError("offset out of range", OUT_OF_RANGE)
        found = b""
        for at, (base, data) in enumerate(log.batches):
            end = log.batches[at + 1][0] if at + 1 < len(log.batches) else log.end
            if end > offset and base < log.end:
                if found and len(found) + len(data) > max_bytes:
                    break
                found += data
        return found

    def offsets(self, topic_id: bytes, partition: int) -> PartitionOffsets:
        log = self._log(topic_id, partition)
        return PartitionOffsets(
            log_start=log.start, last_stable=log.end, high_watermark=log.end, log_end=log.end
        )

    def delete_records(self, topic_id: bytes, partition: int, offset: int) -> int:
        log = self._log(topic_id, partition)
        wanted = log.end if offset == -1 else offset
        if wanted > log.end:
            raise EngineError("offset out of range", OUT_OF_RANGE)
        log.start = max(log.start, wanted)
        return log.start

    def describe_log_dirs(self) -> list[LogDirInfo]:
        sizes = tuple(
            PartitionSize(
                topic_id=topic_id,
                partition=partition,
                size_bytes=sum(len(data) for _, data in log.batches),
            )
            for (topic_id, partition), log in self._logs.items()
        )
        return [
            LogDirInfo(
                path="/memory", error=0, total_bytes=1000, usable_bytes=500, partitions=sizes
            )
        ]

    # -- the rest
    def run_retention(self) -> None:
        self.retention_runs += 1

    def checkpoint(self) -> None:
        self.checkpoints += 1

    def offset_table(self) -> MemoryOffsetTable:
        return self._offsets

    def member_table(self) -> MemoryMemberTable:
        return self._members

    def statistics(self) -> dict[str, int]:
        return {"topics": len(self.topics)}


class _Wire:
    def __init__(self, correlation_id: int, client_id: str) -> None:
        self.correlation_id = correlation_id
        self.client_id = client_id


class ObjectCodec:
    """Frames are names of objects kept here. What is not known is refused as bad bytes are."""

    def __init__(self) -> None:
        self._objects: dict[bytes, Any] = {}

    def frame(self, value: Any) -> bytes:
        name = b"object-%d" % len(self._objects)
        self._objects[name] = value
        return name

    def value(self, frame: bytes) -> Any:
        return self._objects[frame]

    def decode_request(self, api_key: int, version: int, frame: bytes) -> tuple[Any, Any]:
        if frame not in self._objects:
            raise ValueError("bytes are cut off")
        return _Wire(7, "test"), self._objects[frame]

    def encode_response(
        self, api_key: int, version: int, correlation_id: int, message: Any
    ) -> bytes:
        assert correlation_id == 7
        return self.frame(message)
