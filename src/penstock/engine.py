"""The engine port over the compiled module: plain records go in, plain records come out.

Owner: the control loop's thread, except `stop`. The only importer of `penstock._native`; it
converts and remembers (names of listeners, frames that may go back, partitions for
DescribeLogDirs) and decides nothing about Kafka.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from penstock import _native
from penstock.engine_port import (
    ClusterUpdate,
    ControlRequest,
    LogDirInfo,
    PartitionOffsets,
    PartitionSize,
    TopicRemove,
    TopicUpsert,
)
from penstock.errors import EngineError, StartError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penstock.engine_port import EnginePort, EngineSettings, ListenerSpec, TopicLogConfig
    from penstock.groups.ports import MemberTable, OffsetTable
    from penstock.protocol.codec import MessageCodec

_ANONYMOUS = "User:ANONYMOUS"
_STORAGE_ERROR = 56

# The order in which _native takes a topic's configuration.
_CONFIG_FIELDS = (
    "segment_bytes",
    "segment_ms",
    "segment_jitter_ms",
    "segment_index_bytes",
    "index_interval_bytes",
    "retention_ms",
    "retention_bytes",
    "file_delete_delay_ms",
    "max_message_bytes",
    "message_timestamp_before_max_ms",
    "message_timestamp_after_max_ms",
    "message_timestamp_type",
    "compression_type",
    "compression_gzip_level",
    "compression_lz4_level",
    "compression_zstd_level",
    "cleanup_policy",
    "min_insync_replicas",
    "preallocate",
)

_Topic = tuple[bytes, bytes, bool, tuple[tuple[int, int, int], ...], tuple[int, ...]]


def create_engine() -> EnginePort:
    return NativeEngine()


def message_codec() -> MessageCodec:
    from penstock._codec import MessageCodec as Codec

    return Codec()


def _config(config: TopicLogConfig) -> tuple[int, ...]:
    return tuple(int(getattr(config, name)) for name in _CONFIG_FIELDS)


class NativeEngine:
    """Implements `engine_port.EnginePort`; see there."""

    def __init__(self) -> None:
        self._native: _native.Engine | None = None
        self._log_dirs: tuple[str, ...] = ()
        self._listeners: tuple[str, ...] = ()
        # Requests that C can answer itself later, until they are answered.
        self._frames: dict[int, _native.Frame] = {}
        self._partitions: dict[bytes, tuple[tuple[int, int, int], ...]] = {}

    def _engine(self) -> _native.Engine:
        if self._native is None:
            raise EngineError("the engine is not open")
        return self._native

    # -- life ----------------------------------------------------------------------------------
    def open(self, settings: EngineSettings) -> None:
        if settings.durability != "os":
            raise StartError(
                f"penstock.durability={settings.durability} is not there yet: "
                f"use penstock.durability=os"
            )
        self._log_dirs = settings.log_dirs
        self._native = _native.open_engine(
            settings.node_id,
            [os.fsencode(path) for path in settings.log_dirs],
            settings.reactors,
            settings.io_threads,
            settings.limits,
        )

    def bind(self, listeners: Sequence[ListenerSpec]) -> list[int]:
        ports = self._engine().bind([(one.host, one.port) for one in listeners])
        self._listeners = tuple(one.name for one in listeners)
        return ports

    def serve(self) -> None:
        self._engine().serve()

    def stop(self, graceful: bool = True) -> None:
        if self._native is None:
            return
        try:
            self._native.stop(graceful)
        finally:
            while self._frames:
                self._frames.popitem()[1].release()

    def abandon_after_fork(self) -> None:
        if self._native is not None:
            self._native.abandon()

    # -- requests ------------------------------------------------------------------------------
    def eventfd(self) -> int:
        return self._engine().eventfd()

    def drain(self, limit: int = 256) -> list[ControlRequest]:
        found: list[ControlRequest] = []
        for token, key, version, data, peer, listener, frame in self._engine().drain(limit):
            if frame is not None:
                self._frames[token] = frame
            found.append(
                ControlRequest(
                    api_key=key,
                    api_version=version,
                    client_host=peer,
                    frame=data,
                    listener=self._listeners[listener],
                    principal=_ANONYMOUS,
                    token=token,
                )
            )
        return found

    def _forget(self, token: int) -> None:
        frame = self._frames.pop(token, None)
        if frame is not None:
            frame.release()

    def respond(self, token: int, payload: bytes | bytearray | memoryview) -> None:
        self._forget(token)
        self._engine().respond(token, payload)

    def redispatch(self, token: int) -> None:
        frame = self._frames.pop(token, None)
        if frame is None:
            self._engine().close_connection(token)
        else:
            self._engine().redispatch(token, frame)

    def close_connection(self, token: int) -> None:
        self._forget(token)
        self._engine().close_connection(token)

    # -- image ---------------------------------------------------------------------------------
    def publish(self, deltas: Sequence[TopicUpsert | TopicRemove | ClusterUpdate]) -> None:
        """Neighbouring topics become one image; an id that comes up again starts the next."""
        topics: list[_Topic] = []
        removed: list[bytes] = []
        seen: set[bytes] = set()
        failed = 0
        for delta in deltas:
            if isinstance(delta, ClusterUpdate):
                failed += self._publish_topics(topics, removed, seen)
                self._publish_cluster(delta)
                continue
            if delta.topic_id in seen:
                failed += self._publish_topics(topics, removed, seen)
            seen.add(delta.topic_id)
            if isinstance(delta, TopicUpsert):
                topics.append(
                    (
                        delta.name.encode(),
                        delta.topic_id,
                        delta.is_internal,
                        delta.partitions,
                        _config(delta.config),
                    )
                )
            else:
                removed.append(delta.topic_id)
        failed += self._publish_topics(topics, removed, seen)
        if failed:
            import logging

            logging.getLogger("penstock.engine").error(
                "%d partitions are offline: their logs could not be opened", failed
            )

    def _publish_topics(self, topics: list[_Topic], removed: list[bytes], seen: set[bytes]) -> int:
        failed = 0
        if topics or removed:
            failed = self._engine().publish_topics(topics, removed)
            for _, topic_id, _, partitions, _ in topics:
                self._partitions[topic_id] = partitions
            for topic_id in removed:
                self._partitions.pop(topic_id, None)
            topics.clear()
            removed.clear()
        seen.clear()
        return failed

    def _publish_cluster(self, update: ClusterUpdate) -> None:
        own = [one for one in update.endpoints if one.node_id == update.node_id]
        rack = own[0].rack if own else None
        self._engine().publish_cluster(
            update.cluster_id.encode(),
            update.node_id,
            update.controller_id,
            None if rack is None else rack.encode(),
            [
                (one.host.encode(), one.port, self._listeners.index(one.listener))
                for one in own
                if one.listener in self._listeners
            ],
            update.auto_create,
        )

    # -- partitions ----------------------------------------------------------------------------
    def append(self, topic_id: bytes, partition: int, batch: bytes | bytearray | memoryview) -> int:
        return self._engine().append(topic_id, partition, batch)

    def read(self, topic_id: bytes, partition: int, offset: int, max_bytes: int) -> bytes:
        return self._engine().read(topic_id, partition, offset, max_bytes)

    def offsets(self, topic_id: bytes, partition: int) -> PartitionOffsets:
        start, stable, watermark, end = self._engine().offsets(topic_id, partition)
        return PartitionOffsets(
            log_start=start, last_stable=stable, high_watermark=watermark, log_end=end
        )

    def delete_records(self, topic_id: bytes, partition: int, offset: int) -> int:
        return self._engine().delete_records(topic_id, partition, offset)

    def describe_log_dirs(self) -> list[LogDirInfo]:
        engine = self._engine()
        sizes: list[list[PartitionSize]] = [[] for _ in self._log_dirs]
        for topic_id, partitions in self._partitions.items():
            for index, _, log_dir in partitions:
                try:
                    size = engine.log_size(topic_id, index)
                except EngineError:
                    continue  # offline: its directory says so
                sizes[log_dir].append(
                    PartitionSize(topic_id=topic_id, partition=index, size_bytes=size)
                )
        found: list[LogDirInfo] = []
        for number, path in enumerate(self._log_dirs):
            total, usable, online = engine.dir_info(number)
            found.append(
                LogDirInfo(
                    path=path,
                    error=0 if online else _STORAGE_ERROR,
                    total_bytes=total,
                    usable_bytes=usable,
                    partitions=tuple(sizes[number]),
                )
            )
        return found

    # -- periodic work -------------------------------------------------------------------------
    def run_retention(self) -> None:
        self._engine().run_retention()

    def checkpoint(self) -> None:
        self._engine().checkpoint()

    # -- tables --------------------------------------------------------------------------------
    def offset_table(self) -> OffsetTable:
        from penstock.groups.ports import OffsetEntry

        return _native.OffsetTable(self._engine(), OffsetEntry)

    def member_table(self) -> MemberTable:
        return _native.MemberTable(self._engine())

    def statistics(self) -> dict[str, int]:
        return {} if self._native is None else self._native.statistics()
