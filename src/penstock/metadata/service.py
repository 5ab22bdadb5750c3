"""Topics of the cluster: the asynchronous shell around plan.py.

Owner: the control loop; mutations are serialised by one lock, so each sees the outcome of the one
before. Order of a change: plan, store (durable), publish to the engine, then the index here: a
request is answered after publication. A deletion leaves a tombstone in the store until the engine
has taken the topic away, so that a crash between the two does not leave its directories behind.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from json import dumps, loads
from typing import TYPE_CHECKING, Any

from penstock.engine_port import TopicLogConfig, TopicRemove, TopicUpsert
from penstock.errors import KafkaError
from penstock.metadata import plan
from penstock.metadata.model import Topic, TopicIndex, decode_topic, encode_topic
from penstock.metadata.names import INTERNAL_TOPICS, OFFSETS_TOPIC, id_text, new_topic_id
from penstock.metadata.plan import NewTopic
from penstock.metadata.store import Delete, Put, StoreFailed
from penstock.metadata.topic_config import log_config
from penstock.protocol import errors_table as codes

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from penstock.config.broker_config import BrokerConfig
    from penstock.metadata.store import KV, MetaStore

    Publish = Callable[[Sequence[Any]], None]

_log = logging.getLogger("penstock.metadata")

TOPIC_PREFIX = b"/topics/"
DELETING_PREFIX = b"/topics-deleting/"
CONFIG_PREFIX = b"/config/"
_OPS_PER_TXN = 90


class TopicService:
    """Create, grow, delete, configure; and what every handler reads."""

    def __init__(
        self,
        store: MetaStore,
        publish: Publish,
        config: BrokerConfig,
        node_id: int,
        new_id: Callable[[], bytes] = new_topic_id,
    ) -> None:
        self.index = TopicIndex()
        self.brokers: tuple[int, ...] = (node_id,)
        # Called with topics that were published for the first time, and that were deleted.
        self.on_created: list[Callable[[Sequence[Topic]], None]] = []
        self.on_deleted: list[Callable[[Sequence[Topic]], None]] = []
        self.resource_configs: dict[tuple[str, str], dict[str, str]] = {}
        self._store = store
        self._publish = publish
        self._config = config
        self._node_id = node_id
        self._new_id = new_id
        self._lock: asyncio.Lock | None = None
        self._background: set[asyncio.Task[None]] = set()
        self._creating: set[str] = set()
        self._dir_counts = [0] * max(1, len(config.log_dirs))
        self._log_configs: dict[tuple[tuple[str, str], ...], TopicLogConfig] = {}

    # -- start ---------------------------------------------------------------------------------
    def load(
        self, topics: Iterable[KV], deleting: Iterable[KV], configs: Iterable[KV]
    ) -> list[Any]:
        """Take over what the store has; the deltas to publish. Called before the loop runs."""
        for entry in configs:
            kind, _, name = entry.key[len(CONFIG_PREFIX) :].decode().partition("/")
            self.resource_configs[(kind, name)] = loads(entry.value)
        self._apply_broker_configs()
        deltas: list[Any] = []
        for entry in topics:
            topic = decode_topic(entry.value)
            self._remember(topic)
            deltas.append(self._upsert(topic))
        for entry in deleting:
            topic = decode_topic(entry.value)
            deltas.append(self._upsert(topic))
            deltas.append(TopicRemove(topic_id=topic.topic_id))
        return deltas

    async def forget_deleted(self, deleting: Sequence[KV]) -> None:
        """Drop the tombstones of an earlier run, once `load`'s deltas are published."""
        for at in range(0, len(deleting), _OPS_PER_TXN):
            await self._store.txn((), [Delete(kv.key) for kv in deleting[at : at + _OPS_PER_TXN]])

    # -- topics --------------------------------------------------------------------------------
    async def create_topics(
        self, specs: Sequence[NewTopic], *, validate_only: bool = False
    ) -> list[Topic | KafkaError]:
        """One outcome per spec, in order. Equal names in one request are all refused."""
        async with self._mutation():
            outcomes = self._plan_all(specs)
            made = [one for one in outcomes if isinstance(one, Topic)]
            if validate_only or not made:
                return outcomes
            await self._write([Put(_topic_key(one.name), encode_topic(one)) for one in made])
            self._publish([self._upsert(one) for one in made])
            for one in made:
                self._remember(one)
            for callback in self.on_created:
                callback(made)
            return outcomes

    def _plan_all(self, specs: Sequence[NewTopic]) -> list[Topic | KafkaError]:
        names = [spec.name for spec in specs]
        repeated: set[str] = (
            {name for name in names if names.count(name) > 1}
            if (len(set(names)) != len(names))
            else set()
        )
        scratch = _Overlay(self.index)
        counts = list(self._dir_counts)

        def choose_dir() -> int:
            at = counts.index(min(counts))
            counts[at] += 1
            return at

        outcomes: list[Topic | KafkaError] = []
        too_large: KafkaError | None = None
        try:
            plan.check_request_size(specs, self._config.integer("num.partitions"))
        except KafkaError as error:
            too_large = error
        for spec in specs:
            try:
                if spec.name in repeated:
                    raise KafkaError(codes.INVALID_REQUEST, "Duplicate topic name.")
                if too_large is not None:
                    raise too_large
                topic = plan.plan_create(
                    spec, scratch, self._config, self.brokers, self._new_id, choose_dir
                )
                scratch.put(topic)
                outcomes.append(topic)
            except KafkaError as error:
                outcomes.append(error)
        return outcomes

    async def delete_topics(
        self, wanted: Sequence[tuple[str | None, bytes | None]]
    ) -> list[Topic | KafkaError]:
        """`wanted`: (name, None) or (None, topic id). One outcome per entry, in order."""
        async with self._mutation():
            outcomes: list[Topic | KafkaError] = []
            gone: list[Topic] = []
            for name, topic_id in wanted:
                if topic_id is not None:
                    topic = self.index.by_id(topic_id)
                    code = codes.UNKNOWN_TOPIC_ID
                else:
                    topic = self.index.get(name or "")
                    code = codes.UNKNOWN_TOPIC_OR_PARTITION
                if topic is None or topic in gone:
                    outcomes.append(KafkaError(code, codes.ERRORS[code].message))
                else:
                    outcomes.append(topic)
                    gone.append(topic)
            if not gone:
                return outcomes
            operations: list[Put | Delete] = []
            for topic in gone:
                operations.append(Delete(_topic_key(topic.name)))
                operations.append(Put(_deleting_key(topic), encode_topic(topic)))
            await self._write(operations)
            for topic in gone:
                self.index.remove(topic)
                for one in topic.partitions:
                    self._dir_counts[one.log_dir % len(self._dir_counts)] -= 1
            self._publish([TopicRemove(topic_id=topic.topic_id) for topic in gone])
            for callback in self.on_deleted:
                callback(gone)
            await self._write([Delete(_deleting_key(topic)) for topic in gone])
            return outcomes

    async def create_partitions(
        self,
        name: str,
        count: int,
        assignments: Sequence[Sequence[int]] | None,
        *,
        validate_only: bool = False,
    ) -> Topic:
        async with self._mutation():
            topic = self._existing(name)
            counts = list(self._dir_counts)

            def choose_dir() -> int:
                at = counts.index(min(counts))
                counts[at] += 1
                return at

            grown = plan.plan_grow(topic, count, assignments, self.brokers, choose_dir)
            if not validate_only:
                await self._replace(topic, grown)
            return grown

    async def alter_topic_configs(
        self,
        name: str,
        change: Callable[[Mapping[str, str]], dict[str, str]],
        *,
        validate_only: bool = False,
    ) -> None:
        """`change` maps the present overrides to the new ones; KafkaError when they are invalid."""
        async with self._mutation():
            topic = self._existing(name)
            configs = change(topic.configs)
            plan.checked_topic_configs(configs, self._config)
            if validate_only or configs == dict(topic.configs):
                return
            changed = Topic(
                name=topic.name,
                topic_id=topic.topic_id,
                partitions=topic.partitions,
                configs=configs,
            )
            await self._replace(topic, changed)

    async def ensure_internal_topic(self, name: str) -> Topic:
        """The internal topic `name`, created with Kafka's settings when it is not there."""
        present = self.index.get(name)
        if present is not None:
            return present
        prefix = "offsets.topic" if name == OFFSETS_TOPIC else "transaction.state.log"
        config = self._config
        factor = min(config.integer(f"{prefix}.replication.factor"), len(self.brokers))
        spec = NewTopic(
            name=name,
            partitions=config.integer(f"{prefix}.num.partitions"),
            replication_factor=factor,
            configs=(
                ("cleanup.policy", "compact"),
                ("compression.type", "producer"),
                ("segment.bytes", str(max(config.integer(f"{prefix}.segment.bytes"), 1 << 20))),
            ),
        )
        outcome = (await self.create_topics([spec]))[0]
        if isinstance(outcome, Topic):
            return outcome
        present = self.index.get(name)
        if present is None:
            raise outcome
        return present

    def begin_auto_create(self, names: Sequence[str]) -> None:
        """`auto_create` in a task of its own, for the names that none is creating yet."""
        import asyncio

        fresh = [name for name in dict.fromkeys(names) if name not in self._creating]
        if not fresh:
            return

        def done(task: asyncio.Task[None]) -> None:
            self._background.discard(task)
            self._creating.difference_update(fresh)
            if not task.cancelled() and task.exception() is not None:
                _log.error("topics could not be created", exc_info=task.exception())

        self._creating.update(fresh)
        task = asyncio.get_running_loop().create_task(self.auto_create(fresh))
        self._background.add(task)
        task.add_done_callback(done)

    async def wait_auto_created(self) -> None:
        """Until nothing that `begin_auto_create` began is under way."""
        import asyncio

        await asyncio.gather(*self._background)

    async def auto_create(self, names: Sequence[str]) -> None:
        """Create those of `names` that are missing, with the broker's defaults. What cannot be
        created (a name Kafka refuses, say) is left out: the engine answers for it."""
        missing = [name for name in dict.fromkeys(names) if self.index.get(name) is None]
        with suppress(StoreFailed):
            for name in [name for name in missing if name in INTERNAL_TOPICS]:
                await self.ensure_internal_topic(name)
            specs = [NewTopic(name=name) for name in missing if name not in INTERNAL_TOPICS]
            if specs:
                await self.create_topics(specs)

    # -- configuration of other resources ------------------------------------------------------
    async def alter_resource_configs(
        self,
        kind: str,
        name: str,
        change: Callable[[Mapping[str, str]], dict[str, str]],
        *,
        validate_only: bool = False,
    ) -> None:
        """`kind`: broker (name "" is the cluster's default), group or client-metrics."""
        async with self._mutation():
            present = self.resource_configs.get((kind, name), {})
            configs = change(present)
            if validate_only or configs == present:
                return
            key = CONFIG_PREFIX + f"{kind}/{name}".encode()
            value = dumps(configs, separators=(",", ":")).encode()
            await self._write([Put(key, value) if configs else Delete(key)])
            if configs:
                self.resource_configs[(kind, name)] = configs
            else:
                self.resource_configs.pop((kind, name), None)
            if kind == "broker":
                self._apply_broker_configs()
                self._publish([self._upsert(topic) for topic in self.index])

    def _apply_broker_configs(self) -> None:
        self._config.set_dynamic(
            default=self.resource_configs.get(("broker", ""), {}),
            broker=self.resource_configs.get(("broker", str(self._node_id)), {}),
        )
        self._log_configs.clear()

    # -- inside --------------------------------------------------------------------------------
    def _mutation(self) -> asyncio.Lock:
        if self._lock is None:
            import asyncio

            self._lock = asyncio.Lock()
        return self._lock

    def _existing(self, name: str) -> Topic:
        topic = self.index.get(name)
        if topic is None:
            code = codes.UNKNOWN_TOPIC_OR_PARTITION
            raise KafkaError(code, codes.ERRORS[code].message)
        return topic

    async def _replace(self, old: Topic, new: Topic) -> None:
        await self._write([Put(_topic_key(new.name), encode_topic(new))])
        self._publish([self._upsert(new)])
        self.index.put(new)
        for one in new.partitions[len(old.partitions) :]:
            self._dir_counts[one.log_dir % len(self._dir_counts)] += 1

    async def _write(self, operations: Sequence[Put | Delete]) -> None:
        for at in range(0, len(operations), _OPS_PER_TXN):
            await self._store.txn((), operations[at : at + _OPS_PER_TXN])

    def _remember(self, topic: Topic) -> None:
        self.index.put(topic)
        for one in topic.partitions:
            self._dir_counts[one.log_dir % len(self._dir_counts)] += 1

    def _upsert(self, topic: Topic) -> TopicUpsert:
        key = tuple(sorted(topic.configs.items()))
        if key not in self._log_configs:
            self._log_configs[key] = log_config(topic.configs, self._config)
        return TopicUpsert(
            name=topic.name,
            topic_id=topic.topic_id,
            is_internal=topic.is_internal,
            partitions=tuple(
                (at, one.leader_epoch, one.log_dir) for at, one in enumerate(topic.partitions)
            ),
            config=self._log_configs[key],
        )


class _Overlay(TopicIndex):
    """The index with the topics of one request on top, so that they see each other."""

    def __init__(self, below: TopicIndex) -> None:
        super().__init__()
        self._below = below

    def get(self, name: str) -> Topic | None:
        return super().get(name) or self._below.get(name)

    def colliding(self, name: str) -> str | None:
        return super().colliding(name) or self._below.colliding(name)


def _topic_key(name: str) -> bytes:
    return TOPIC_PREFIX + name.encode()


def _deleting_key(topic: Topic) -> bytes:
    return DELETING_PREFIX + id_text(topic.topic_id).encode()
