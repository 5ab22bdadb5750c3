"""Composition root of one broker: builds everything, starts and stops it in order.

Threads: `start` and `stop` run on the caller's thread; between them everything in Python runs on
the control loop, an asyncio loop in a thread of its own. Only this module constructs services.

Order of a start: configuration, identity of the directories, engine (locks), store, topics,
sockets, image, control loop, accepting. What is only needed later (group coordinator, handlers) is
imported and built at first use, because the time to the first record is measured.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING, Any

from penstock.engine_port import BrokerEndpoint, ClusterUpdate, EngineSettings, ListenerSpec
from penstock.errors import PenstockError, StartError
from penstock.handlers.context import Context
from penstock.handlers.dispatch import Dispatcher
from penstock.metadata.log_dirs import identify, write_identity
from penstock.metadata.names import OFFSETS_TOPIC
from penstock.metadata.producer_ids import ProducerIds
from penstock.metadata.service import CONFIG_PREFIX, DELETING_PREFIX, TOPIC_PREFIX, TopicService
from penstock.metadata.sqlite_store import SqliteStore
from penstock.metadata.store import Put

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from penstock.config.broker_config import BrokerConfig, Listener
    from penstock.engine_port import EnginePort
    from penstock.groups.context import GroupContext
    from penstock.metadata.model import Topic
    from penstock.metadata.store import KV
    from penstock.protocol.codec import MessageCodec

_log = logging.getLogger("penstock.server")

_STORE_NAME = "penstock-metadata.db"
_CLUSTER_KEY = b"/cluster/id"
_STOP_SECONDS = 30.0


class Server:
    """One broker. `start` once, `stop` once (idempotent)."""

    def __init__(
        self,
        config: BrokerConfig,
        *,
        engine: EnginePort | None = None,
        codec: MessageCodec | None = None,
    ) -> None:
        self.config = config
        self.endpoints: tuple[BrokerEndpoint, ...] = ()
        self.cluster_id = ""
        self._engine = engine
        self._codec = codec
        self._store: SqliteStore | None = None
        self._topics: TopicService | None = None
        self._groups: GroupContext | None = None
        self._dispatcher: Dispatcher | None = None
        self._deleting: list[KV] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_ready = threading.Event()
        self._thread: threading.Thread | None = None
        self._stopped = False

    # -- life ----------------------------------------------------------------------------------
    def start(self) -> None:
        """Blocks until clients are served. PenstockError with one sentence when it cannot be."""
        warning = self.config.warning()
        if warning:
            _log.warning("%s", warning)
        self.config.check_start()
        try:
            self._start()
        except BaseException:
            self.stop(graceful=False)
            raise

    def _start(self) -> None:
        config = self.config
        node_id = config.node_id
        identity = identify(config.log_dirs, node_id, config.cluster_id)
        self.cluster_id = identity.cluster_id
        # The loop's thread imports asyncio while the engine reads the disk.
        self._thread = threading.Thread(target=self._run_loop, name="penstock-control", daemon=True)
        self._thread.start()
        engine, codec = self._native()
        engine.open(
            EngineSettings(
                cluster_id=self.cluster_id,
                durability=config.durability,
                io_threads=config.integer("penstock.io.threads"),
                limits=config.limits(),
                log_dirs=tuple(os.path.abspath(path) for path in config.log_dirs),
                node_id=node_id,
                reactors=config.integer("penstock.reactors"),
            )
        )
        write_identity(identity, node_id)
        store = self._store = self._open_store()
        topics = self._topics = TopicService(store, engine.publish, config, node_id)
        self._deleting = store.scan_now(DELETING_PREFIX)[0]
        deltas = topics.load(
            store.scan_now(TOPIC_PREFIX)[0], self._deleting, store.scan_now(CONFIG_PREFIX)[0]
        )
        listeners = config.listeners()
        ports = engine.bind(
            [
                ListenerSpec(
                    host=one.host,
                    name=one.name,
                    port=one.port,
                    protocol=config.protocol_of(one.name),
                )
                for one in listeners
            ]
        )
        self.endpoints = self._advertise(listeners, ports)
        engine.publish([self._cluster_update(), *deltas])
        ctx = Context(
            config=config,
            engine=engine,
            topics=topics,
            producer_ids=ProducerIds(store),
            cluster_id=self.cluster_id,
            endpoints=self.endpoints,
            groups=self._group_context,
        )
        self._dispatcher = Dispatcher(ctx, engine, codec)
        self._loop_ready.wait()
        self._on_loop(self._begin)
        engine.serve()

    def _native(self) -> tuple[EnginePort, MessageCodec]:
        if self._engine is None or self._codec is None:
            from penstock.engine import create_engine, message_codec

            self._engine = self._engine or create_engine()
            self._codec = self._codec or message_codec()
        return self._engine, self._codec

    def stop(self, graceful: bool = True) -> None:
        """Blocks. Graceful: answer what is in progress, flush, clean-shutdown marker; EngineError
        when a log could not be closed cleanly: the next start recovers it."""
        if self._stopped:
            return
        self._stopped = True
        loop = self._loop
        if graceful and loop is not None and self._groups is not None:
            self._on_loop(self._groups.coordinator.stop)
        try:
            if self._engine is not None:
                self._engine.stop(graceful)
        finally:
            if self._thread is not None and self._thread.is_alive():
                self._loop_ready.wait()
                if self._loop is not None:
                    self._loop.call_soon_threadsafe(self._loop.stop)
                self._thread.join(_STOP_SECONDS)
            if self._store is not None:
                self._store.close()

    def abandon_after_fork(self) -> None:
        """In a forked child: the broker stays the parent's."""
        self._stopped = True
        if self._engine is not None:
            self._engine.abandon_after_fork()

    # -- what callers ask ----------------------------------------------------------------------
    @property
    def bootstrap(self) -> str:
        """host:port of the first listener, as clients shall use it."""
        first = self.endpoints[0]
        host = f"[{first.host}]" if ":" in first.host else first.host
        return f"{host}:{first.port}"

    @property
    def bound_ports(self) -> tuple[int, ...]:
        return tuple(one.port for one in self.endpoints)

    def statistics(self) -> dict[str, int]:
        found = dict(self._engine.statistics()) if self._engine else {}
        if self._dispatcher is not None:
            for name, value in self._dispatcher.statistics().items():
                found[f"control.{name}"] = value
        if self._groups is not None:
            for name, value in self._groups.coordinator.statistics().items():
                found[f"groups.{name}"] = value
        return found

    # -- pieces of a start ---------------------------------------------------------------------
    def _open_store(self) -> SqliteStore:
        import sqlite3

        directory = self.config.log_dirs[0]
        path = os.path.join(directory, _STORE_NAME)
        try:
            store = SqliteStore(path)
            if store.revision == 0:
                self._first_start(store)
        except sqlite3.Error as error:
            raise StartError(f"cannot use the metadata file {path}: {error}") from error
        return store

    def _first_start(self, store: SqliteStore) -> None:
        from penstock.metadata.adopt import find_topics

        operations = [Put(_CLUSTER_KEY, self.cluster_id.encode())]
        found = find_topics(self.config.log_dirs, self.config.node_id)
        if found:
            from penstock.metadata.model import encode_topic

            _log.warning("took over %d topics that the log directories hold", len(found))
            operations = [
                *[Put(TOPIC_PREFIX + one.name.encode(), encode_topic(one)) for one in found],
                *operations,
            ]
        for at in range(0, len(operations), 90):
            store.txn_now((), operations[at : at + 90])

    def _advertise(
        self, listeners: Sequence[Listener], ports: Sequence[int]
    ) -> tuple[BrokerEndpoint, ...]:
        named = {one.name: one for one in self.config.advertised()}
        rack = self.config.text("broker.rack")
        found: list[BrokerEndpoint] = []
        for one, port in zip(listeners, ports, strict=True):
            shown = named.get(one.name, one)
            host = shown.host
            if host in ("", "0.0.0.0", "::"):
                import socket

                host = socket.gethostname()
            found.append(
                BrokerEndpoint(
                    listener=one.name,
                    node_id=self.config.node_id,
                    host=host,
                    port=(shown.port if one.name in named else 0) or port,
                    rack=rack,
                )
            )
        return tuple(found)

    def _cluster_update(self) -> ClusterUpdate:
        return ClusterUpdate(
            auto_create=self.config.flag("auto.create.topics.enable"),
            cluster_id=self.cluster_id,
            controller_id=self.config.node_id,
            endpoints=self.endpoints,
            node_id=self.config.node_id,
        )

    # -- the control loop ----------------------------------------------------------------------
    def _run_loop(self) -> None:
        try:
            import asyncio

            loop = self._loop = asyncio.SelectorEventLoop()
            asyncio.set_event_loop(loop)
        finally:
            self._loop_ready.set()
        try:
            loop.run_forever()
        finally:
            for task in asyncio.all_tasks(loop):
                task.cancel()
            loop.run_until_complete(asyncio.sleep(0))
            loop.close()

    def _on_loop(self, work: Callable[[], object]) -> None:
        """Run `work` on the loop and wait for it; its exception is raised here."""
        assert self._loop is not None
        done = threading.Event()
        failure: list[BaseException] = []

        def run() -> None:
            try:
                work()
            except BaseException as error:
                failure.append(error)
            done.set()

        self._loop.call_soon_threadsafe(run)
        if not done.wait(_STOP_SECONDS):
            raise PenstockError("the control loop does not answer")
        if failure:
            raise failure[0]

    def _begin(self) -> None:
        """First work of the loop."""
        loop, engine = self._loop, self._engine
        topics, dispatcher = self._topics, self._dispatcher
        assert loop is not None
        assert engine is not None
        assert topics is not None
        assert dispatcher is not None
        loop.add_reader(engine.eventfd(), dispatcher.drain)
        topics.on_created.append(self._topics_created)
        topics.on_deleted.append(self._topics_deleted)
        if topics.index.get(OFFSETS_TOPIC) is not None:
            # Queued before any request can be: groups are there when the first one asks.
            loop.call_soon(self._group_context)
        if self._deleting:
            loop.create_task(topics.forget_deleted(self._deleting))
        self._every("log.retention.check.interval.ms", engine.run_retention)
        self._every("log.flush.offset.checkpoint.interval.ms", engine.checkpoint)

    def _every(self, key: str, work: Callable[[], None]) -> None:
        """Repeat `work`; a failure is logged and does not end the repetition."""
        loop = self._loop
        assert loop is not None
        seconds = max(self.config.integer(key), 1) / 1000

        def run() -> None:
            try:
                work()
            except Exception:
                _log.exception("periodic work of %s failed", key)
            loop.call_later(seconds, run)

        loop.call_later(seconds, run)

    # -- groups --------------------------------------------------------------------------------
    def _group_context(self) -> GroupContext:
        """The group coordinator, built at first use, on the loop."""
        if self._groups is not None:
            return self._groups
        from penstock.groups.config import read_settings
        from penstock.groups.context import GroupContext
        from penstock.groups.coordinator import GroupCoordinator
        from penstock.handlers import group_glue as glue

        topics, engine, codec = self._topics, self._engine, self._codec
        assert topics is not None
        assert engine is not None
        assert codec is not None
        assert self._loop is not None
        names = [
            "group.min.session.timeout.ms",
            "group.max.session.timeout.ms",
            "group.initial.rebalance.delay.ms",
            "group.max.size",
            "offset.metadata.max.bytes",
            "offsets.retention.check.interval.ms",
            "offsets.topic.num.partitions",
            "offsets.retention.minutes",
        ]
        coordinator = GroupCoordinator(
            settings=read_settings({name: self.config.get(name) for name in names}),
            log=glue.EngineOffsetsLog(topics, engine, codec),
            offsets=engine.offset_table(),
            members=engine.member_table(),
            clock=glue.SystemClock(),
            timers=glue.LoopTimers(self._loop),
        )
        self._groups = GroupContext(
            coordinator=coordinator,
            topics=glue.TopicNames(topics),
            offsets_topic=glue.OffsetsTopicPort(topics, self.endpoints),
        )
        present = topics.index.get(OFFSETS_TOPIC)
        if present is not None:
            coordinator.load(len(present.partitions))
        return self._groups

    def _topics_created(self, made: Sequence[Topic]) -> None:
        if self._groups is not None:
            for topic in made:
                self._groups.coordinator.topic_created(topic.name, len(topic.partitions))

    def _topics_deleted(self, gone: Sequence[Topic]) -> None:
        if self._groups is not None:
            for topic in gone:
                self._groups.coordinator.topic_deleted(topic.name, topic.topic_id)


def describe_failure(error: BaseException) -> str:
    """One sentence for a person, out of whatever stopped a start."""
    if isinstance(error, PenstockError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        where = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror}{where}"
    text: Any = str(error) or type(error).__name__
    return str(text)
