"""The native engine as Python sees it: plain data that goes down and up, and one Protocol.

Purpose: `engine.py` implements `EnginePort` over the compiled module, and tests implement it in
memory; everything else in Python depends on this file only. Nothing here decides anything and
nothing here imports the extension.

Thread rule: every method is called on the control loop's thread (or before it runs). Methods
release the GIL while C works and never call back into Python.

Order of a start: `open` (takes the `.lock` of every log directory, reads checkpoints), `bind`
(listening sockets exist, nothing is accepted, ports are known), `publish` (one ClusterUpdate, then
every topic), `serve` (accepting begins). Order of a stop: `stop(graceful=True)` (stop accepting,
answer what is in progress, flush, clean-shutdown marker, unlock). While `stop` runs, the loop still
drains and answers: it is called from another thread than the loop's, and it is the one exception
to the thread rule. The eventfd stays valid until the engine object is released.

`engine.py` offers two functions: `create_engine() -> EnginePort` and
`message_codec() -> penstock.protocol.codec.MessageCodec`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Sequence

# Values of TopicLogConfig.cleanup_policy (bits); 0 keeps everything for ever.
CLEANUP_DELETE = 1
CLEANUP_COMPACT = 2

# Values of TopicLogConfig.message_timestamp_type.
TIMESTAMP_CREATE_TIME = 0
TIMESTAMP_LOG_APPEND_TIME = 1

# Values of TopicLogConfig.compression_type: the codec ids of a record batch, or "as the producer".
COMPRESSION_PRODUCER = -1
COMPRESSION_NONE = 0
COMPRESSION_GZIP = 1
COMPRESSION_SNAPPY = 2
COMPRESSION_LZ4 = 3
COMPRESSION_ZSTD = 4


class _Record:
    """Value object: keyword construction, equality and repr by its slots. Treat as frozen."""

    __slots__: tuple[str, ...] = ()

    def __init__(self, **fields: object) -> None:
        for name in self.__slots__:
            setattr(self, name, fields.pop(name))
        if fields:
            raise TypeError(f"{type(self).__name__} has no field {', '.join(fields)}")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and all(
            getattr(self, name) == getattr(other, name) for name in self.__slots__
        )

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, name) for name in self.__slots__))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"{type(self).__name__}({fields})"


class ListenerSpec(_Record):
    """One socket to bind. `port` 0 takes a free port. `protocol` is PLAINTEXT in this release."""

    __slots__ = ("host", "name", "port", "protocol")
    name: str
    host: str
    port: int
    protocol: str


class EngineSettings(_Record):
    """What the engine needs to know once. `limits` maps a `penstock.*` or Kafka configuration key
    to its integer value (unit as in the key's name); a key that is absent keeps C's default."""

    __slots__ = (
        "cluster_id",
        "durability",
        "io_threads",
        "limits",
        "log_dirs",
        "node_id",
        "reactors",
    )
    node_id: int
    cluster_id: str
    log_dirs: tuple[str, ...]
    durability: str  # "os"
    reactors: int  # 0: CPUs in the affinity mask, at most 4
    io_threads: int  # 0: the engine's default
    limits: dict[str, int]


class TopicLogConfig(_Record):
    """The effective configuration of one topic, defaults resolved, as plain integers.

    `*_ms` are milliseconds, `*_bytes` bytes; -1 means unlimited where Kafka says so;
    `min_cleanable_dirty_ratio_ppm` is the ratio times 1,000,000; booleans are 0 or 1.
    """

    __slots__ = (
        "cleanup_policy",
        "compression_gzip_level",
        "compression_lz4_level",
        "compression_type",
        "compression_zstd_level",
        "delete_retention_ms",
        "file_delete_delay_ms",
        "flush_messages",
        "flush_ms",
        "index_interval_bytes",
        "max_compaction_lag_ms",
        "max_message_bytes",
        "message_timestamp_after_max_ms",
        "message_timestamp_before_max_ms",
        "message_timestamp_type",
        "min_cleanable_dirty_ratio_ppm",
        "min_compaction_lag_ms",
        "min_insync_replicas",
        "preallocate",
        "retention_bytes",
        "retention_ms",
        "segment_bytes",
        "segment_index_bytes",
        "segment_jitter_ms",
        "segment_ms",
        "unclean_leader_election",
    )
    cleanup_policy: int
    compression_gzip_level: int
    compression_lz4_level: int
    compression_type: int
    compression_zstd_level: int
    delete_retention_ms: int
    file_delete_delay_ms: int
    flush_messages: int
    flush_ms: int
    index_interval_bytes: int
    max_compaction_lag_ms: int
    max_message_bytes: int
    message_timestamp_after_max_ms: int
    message_timestamp_before_max_ms: int
    message_timestamp_type: int
    min_cleanable_dirty_ratio_ppm: int
    min_compaction_lag_ms: int
    min_insync_replicas: int
    preallocate: int
    retention_bytes: int
    retention_ms: int
    segment_bytes: int
    segment_index_bytes: int
    segment_jitter_ms: int
    segment_ms: int
    unclean_leader_election: int


class TopicUpsert(_Record):
    """Create a topic or replace what the image knows of it. Partitions that the topic already has
    keep their logs; new ones are opened (or created) lazily, at first use, in `log_dir_index`.

    `partitions`: (index, leader_epoch, log_dir_index), dense from 0, in order. `topic_id`: 16
    bytes.
    """

    __slots__ = ("config", "is_internal", "name", "partitions", "topic_id")
    name: str
    topic_id: bytes
    is_internal: bool
    partitions: tuple[tuple[int, int, int], ...]
    config: TopicLogConfig


class TopicRemove(_Record):
    """Take a topic out of the image and delete its directories (rename to -delete first)."""

    __slots__ = ("topic_id",)
    topic_id: bytes


class BrokerEndpoint(_Record):
    """How one broker is reached through one listener. `rack` None: no rack."""

    __slots__ = ("host", "listener", "node_id", "port", "rack")
    listener: str
    node_id: int
    host: str
    port: int
    rack: str | None


class ClusterUpdate(_Record):
    """The cluster as Metadata describes it; a client sees the endpoints of its own listener.

    `auto_create` mirrors auto.create.topics.enable: when false, Metadata with unknown topics is
    answered in C and never passed up.
    """

    __slots__ = ("auto_create", "cluster_id", "controller_id", "endpoints", "node_id")
    cluster_id: str
    node_id: int
    controller_id: int
    endpoints: tuple[BrokerEndpoint, ...]
    auto_create: bool


class ControlRequest(_Record):
    """One request that C does not answer itself. `frame` starts at the request header (behind the
    4-byte length) and is owned by Python. `token` is answered exactly once: `respond`,
    `redispatch` or `close_connection`."""

    __slots__ = (
        "api_key",
        "api_version",
        "client_host",
        "frame",
        "listener",
        "principal",
        "token",
    )
    token: int
    api_key: int
    api_version: int
    frame: bytes | memoryview
    client_host: str  # numeric address, without port
    listener: str
    principal: str  # "User:ANONYMOUS" without authentication


class PartitionOffsets(_Record):
    """One consistent set, read together. -1 high_watermark never occurs: 0 <= all."""

    __slots__ = ("high_watermark", "last_stable", "log_end", "log_start")
    log_start: int
    last_stable: int
    high_watermark: int
    log_end: int


class PartitionSize(_Record):
    """Bytes of one partition's segments on disk."""

    __slots__ = ("partition", "size_bytes", "topic_id")
    topic_id: bytes
    partition: int
    size_bytes: int


class LogDirInfo(_Record):
    """One log directory. `error`: 0, or 56 (KAFKA_STORAGE_ERROR) when it is offline.
    `total_bytes` and `usable_bytes` describe its file system, -1 when unknown."""

    __slots__ = ("error", "partitions", "path", "total_bytes", "usable_bytes")
    path: str
    error: int
    total_bytes: int
    usable_bytes: int
    partitions: tuple[PartitionSize, ...]


class EnginePort(Protocol):
    """The native engine. Failures raise `penstock.errors.EngineError`, whose `kafka_code` is the
    Kafka error code that describes it best."""

    # -- life ---------------------------------------------------------------------------------
    def open(self, settings: EngineSettings) -> None:
        """Lock and read every log directory. A lock held by another process, an unreadable
        directory: `penstock.errors.StartError` with one sentence for the user."""
        ...

    def bind(self, listeners: Sequence[ListenerSpec]) -> list[int]:
        """Bound port of each listener, in order. Port in use: `StartError`."""
        ...

    def serve(self) -> None:
        """Begin to accept connections."""
        ...

    def stop(self, graceful: bool = True) -> None:
        """Blocks. Graceful: as the module comment says. Otherwise: threads end, descriptors
        close, nothing is flushed and no marker is written. Idempotent."""
        ...

    def abandon_after_fork(self) -> None:
        """In a forked child: close listeners and lock descriptors, touch nothing else."""
        ...

    # -- requests -----------------------------------------------------------------------------
    def eventfd(self) -> int:
        """Readable when `drain` has something. C writes it once per batch."""
        ...

    def drain(self, limit: int = 256) -> list[ControlRequest]:
        """Take up to `limit` requests and clear the eventfd; if more are left it stays readable."""
        ...

    def respond(self, token: int, payload: bytes | bytearray | memoryview) -> None:
        """`payload`: response header and body, without the length. Copied before return. Unknown
        or stale tokens (connection gone) are ignored."""
        ...

    def redispatch(self, token: int) -> None:
        """Have C answer the original frame (Metadata) from the image as it is now. It does not
        come up again: topics still missing are answered as unknown or invalid."""
        ...

    def close_connection(self, token: int) -> None:
        """The frame cannot be answered: close the connection it came from."""
        ...

    # -- image --------------------------------------------------------------------------------
    def publish(self, deltas: Sequence[TopicUpsert | TopicRemove | ClusterUpdate]) -> None:
        """Apply in order and make visible to all reactors at once, before return."""
        ...

    # -- partitions ---------------------------------------------------------------------------
    def append(
        self, topic_id: bytes, partition: int, batch: bytes | bytearray | memoryview
    ) -> int | Future[int]:
        """Append one record batch (magic 2, any base offset, CRC set) as leader; the base offset
        it got. A plain int when the acknowledgement is due at once (durability `os`)."""
        ...

    def read(self, topic_id: bytes, partition: int, offset: int, max_bytes: int) -> bytes:
        """Whole batches from the one that contains `offset`, up to the high watermark, at least
        one batch and otherwise at most `max_bytes`; b"" at the end. OFFSET_OUT_OF_RANGE outside."""
        ...

    def offsets(self, topic_id: bytes, partition: int) -> PartitionOffsets: ...

    def delete_records(self, topic_id: bytes, partition: int, offset: int) -> int:
        """Raise the log start offset (-1: to the high watermark); the new low watermark."""
        ...

    def describe_log_dirs(self) -> list[LogDirInfo]: ...

    # -- periodic work (queued to I/O threads; returns at once) --------------------------------
    def run_retention(self) -> None: ...

    def checkpoint(self) -> None:
        """Write recovery-point and log-start-offset checkpoints."""
        ...

    # -- tables of the group coordinator: OffsetTable, MemberTable of groups.ports ---
    def offset_table(self) -> Any: ...

    def member_table(self) -> Any: ...

    def statistics(self) -> dict[str, int]:
        """Counters and gauges by name."""
        ...
