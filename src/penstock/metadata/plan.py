"""What a request to create, grow, delete or configure topics may do: pure functions.

Each returns the new value or raises KafkaError with Kafka's code and words (as Kafka 4.4.0's
controller answers). Nothing here stores or publishes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from penstock.config.topic_keys import TOPIC_KEYS
from penstock.config.values import to_text
from penstock.errors import ConfigError, KafkaError
from penstock.metadata.model import Partition, Topic, TopicIndex, shared_partition
from penstock.metadata.names import CLUSTER_METADATA_TOPIC, name_problem
from penstock.metadata.topic_config import validate_topic_config
from penstock.protocol import errors_table as codes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from penstock.config.broker_config import BrokerConfig

MAX_PARTITIONS_PER_REQUEST = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTopic:
    """-1 partitions or replicas: the broker's default. `assignments`: (partition, brokers)."""

    name: str
    partitions: int = -1
    replication_factor: int = -1
    assignments: Sequence[tuple[int, Sequence[int]]] = ()
    configs: Sequence[tuple[str, str | None]] = ()


def check_request_size(topics: Sequence[NewTopic], default_partitions: int) -> None:
    """KafkaError when one request asks for more partitions than Kafka's controller allows."""
    total = 0
    for topic in topics:
        if topic.assignments:
            total += len(topic.assignments)
        else:
            total += default_partitions if topic.partitions == -1 else max(topic.partitions, 0)
    if total > MAX_PARTITIONS_PER_REQUEST:
        raise KafkaError(
            codes.POLICY_VIOLATION, "Excessively large number of partitions per request."
        )


def plan_create(
    spec: NewTopic,
    index: TopicIndex,
    config: BrokerConfig,
    brokers: Sequence[int],
    new_id: Callable[[], bytes],
    choose_dir: Callable[[], int],
) -> Topic:
    """The topic that `spec` asks for."""
    if spec.name == CLUSTER_METADATA_TOPIC:
        raise KafkaError(
            codes.INVALID_REQUEST,
            f"Creation of internal topic {CLUSTER_METADATA_TOPIC} is prohibited.",
        )
    problem = name_problem(spec.name)
    if problem is not None:
        raise KafkaError(codes.INVALID_TOPIC_EXCEPTION, problem)
    if index.get(spec.name) is not None:
        raise KafkaError(codes.TOPIC_ALREADY_EXISTS, f"Topic '{spec.name}' already exists.")
    other = index.colliding(spec.name)
    if other is not None:
        raise KafkaError(
            codes.INVALID_TOPIC_EXCEPTION,
            f"Topic '{spec.name}' collides with existing topic: {other}",
        )
    configs = _new_configs(spec, config)
    manual = bool(spec.assignments)
    replicas = _assigned(spec, brokers) if manual else _placed(spec, config, brokers)
    partitions = tuple(_partition(one, choose_dir()) for one in replicas)
    return Topic(name=spec.name, topic_id=new_id(), partitions=partitions, configs=configs)


def _partition(replicas: tuple[int, ...], log_dir: int) -> Partition:
    return shared_partition(replicas[0], 0, 0, replicas, replicas, log_dir)


def _new_configs(spec: NewTopic, config: BrokerConfig) -> dict[str, str]:
    nulls = [name for name, value in spec.configs if value is None]
    if nulls:
        raise KafkaError(
            codes.INVALID_CONFIG,
            f"Null value not supported for topic configs: {','.join(nulls)}",
        )
    configs = {name: value for name, value in spec.configs if value is not None}
    checked_topic_configs(configs, config)
    return configs


def checked_topic_configs(configs: Mapping[str, str], config: BrokerConfig) -> None:
    try:
        validate_topic_config(configs, config)
    except ConfigError as error:
        raise KafkaError(codes.INVALID_CONFIG, str(error)) from error


def _assigned(spec: NewTopic, brokers: Sequence[int]) -> list[tuple[int, ...]]:
    if spec.replication_factor != -1:
        raise KafkaError(
            codes.INVALID_REQUEST,
            "A manual partition assignment was specified, but replication factor was not set to "
            "-1.",
        )
    if spec.partitions != -1:
        raise KafkaError(
            codes.INVALID_REQUEST,
            "A manual partition assignment was specified, but numPartitions was not set to -1.",
        )
    found: dict[int, tuple[int, ...]] = {}
    expected = -1
    for partition, replicas in spec.assignments:
        if partition in found:
            raise KafkaError(
                codes.INVALID_REPLICA_ASSIGNMENT,
                f"Found multiple manual partition assignments for partition {partition}",
            )
        found[partition] = check_assignment(replicas, expected, brokers)
        expected = len(replicas)
    if sorted(found) != list(range(len(found))):
        raise KafkaError(
            codes.INVALID_REPLICA_ASSIGNMENT,
            "partitions should be a consecutive 0-based integer sequence",
        )
    return [found[partition] for partition in range(len(found))]


def check_assignment(
    replicas: Sequence[int], expected: int, brokers: Sequence[int]
) -> tuple[int, ...]:
    """A manual assignment; `expected` replicas where other partitions set that, else -1."""
    if not replicas:
        raise KafkaError(
            codes.INVALID_REPLICA_ASSIGNMENT,
            "The manual partition assignment includes an empty replica list.",
        )
    seen: set[int] = set()
    for broker in sorted(replicas):
        if broker not in brokers:
            raise KafkaError(
                codes.INVALID_REPLICA_ASSIGNMENT,
                f"The manual partition assignment includes broker {broker}, but no such broker is "
                "registered.",
            )
        if broker in seen:
            raise KafkaError(
                codes.INVALID_REPLICA_ASSIGNMENT,
                f"The manual partition assignment includes the broker {broker} more than once.",
            )
        seen.add(broker)
    if expected != -1 and len(replicas) != expected:
        raise KafkaError(
            codes.INVALID_REPLICA_ASSIGNMENT,
            f"The manual partition assignment includes a partition with {len(replicas)} "
            "replica(s), but this is not consistent with previous partitions, which have "
            f"{expected} replica(s).",
        )
    return tuple(replicas)


def _placed(spec: NewTopic, config: BrokerConfig, brokers: Sequence[int]) -> list[tuple[int, ...]]:
    if spec.replication_factor < -1 or spec.replication_factor == 0:
        raise KafkaError(
            codes.INVALID_REPLICATION_FACTOR,
            "Replication factor must be larger than 0, or -1 to use the default value.",
        )
    if spec.partitions < -1 or spec.partitions == 0:
        raise KafkaError(
            codes.INVALID_PARTITIONS,
            "Number of partitions was set to an invalid non-positive value.",
        )
    count = config.integer("num.partitions") if spec.partitions == -1 else spec.partitions
    factor = spec.replication_factor
    if factor == -1:
        factor = config.integer("default.replication.factor")
    if factor > len(brokers):
        raise KafkaError(
            codes.INVALID_REPLICATION_FACTOR,
            f"Unable to replicate the partition {factor} time(s): The target replication factor "
            f"of {factor} cannot be reached because only {len(brokers)} broker(s) are registered "
            "or some brokers have all their log directories cordoned.",
        )
    ring = list(brokers)
    return [
        tuple(ring[(partition + at) % len(ring)] for at in range(factor))
        for partition in range(count)
    ]


def plan_grow(
    topic: Topic,
    count: int,
    assignments: Sequence[Sequence[int]] | None,
    brokers: Sequence[int],
    choose_dir: Callable[[], int],
) -> Topic:
    """`topic` with `count` partitions in all."""
    present = len(topic.partitions)
    if count == present:
        raise KafkaError(codes.INVALID_PARTITIONS, f"Topic already has {present} partition(s).")
    if count < present:
        raise KafkaError(
            codes.INVALID_PARTITIONS,
            f"The topic {topic.name} currently has {present} partition(s); {count} would not be "
            "an increase.",
        )
    added = count - present
    if assignments is not None and len(assignments) != added:
        raise KafkaError(
            codes.INVALID_REPLICA_ASSIGNMENT,
            f"Attempted to add {added} additional partition(s), but only {len(assignments)} "
            "assignment(s) were specified.",
        )
    if added > MAX_PARTITIONS_PER_REQUEST:
        raise KafkaError(
            codes.POLICY_VIOLATION, "Excessively large number of partitions per request."
        )
    factor = topic.replication_factor
    new: list[Partition] = []
    for at in range(added):
        if assignments is not None:
            replicas = check_assignment(assignments[at], factor, brokers)
        else:
            ring = list(brokers)
            replicas = tuple(ring[(present + at + i) % len(ring)] for i in range(factor))
        new.append(_partition(replicas, choose_dir()))
    return Topic(
        name=topic.name,
        topic_id=topic.topic_id,
        partitions=topic.partitions + tuple(new),
        configs=topic.configs,
    )


# -- configuration operations -----------------------------------------------------------------
SET, DELETE, APPEND, SUBTRACT = range(4)


def incremental(
    present: Mapping[str, str],
    operations: Sequence[tuple[str, int, str | None]],
    default_of: Callable[[str], str | None],
    is_list: Callable[[str], bool],
) -> dict[str, str]:
    """Overrides after IncrementalAlterConfigs; `operations` are (name, operation, value)."""
    names = [name for name, _, _ in operations]
    if len(set(names)) != len(names):
        raise KafkaError(codes.INVALID_REQUEST, "Error due to duplicate config keys")
    nulls = [name for name, kind, value in operations if kind != DELETE and value is None]
    if nulls:
        raise KafkaError(codes.INVALID_REQUEST, f"Null value not supported for : {','.join(nulls)}")
    new = dict(present)
    for name, kind, value in operations:
        if kind == DELETE:
            new.pop(name, None)
        elif kind == SET and value is not None:
            new[name] = value
        elif kind in (APPEND, SUBTRACT) and value is not None:
            word = "APPEND" if kind == APPEND else "SUBTRACT"
            if not is_list(name):
                raise KafkaError(
                    codes.INVALID_CONFIG,
                    f"Can't {word} to key {name} because its type is not LIST.",
                )
            items = _split(new.get(name, default_of(name) or ""))
            for item in _split(value):
                if kind == APPEND and item not in items:
                    items.append(item)
                elif kind == SUBTRACT:
                    items = [one for one in items if one != item]
            new[name] = ",".join(items)
        else:
            raise KafkaError(codes.INVALID_REQUEST, f"Unknown operation type {kind}")
    return new


def _split(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def topic_key_is_list(name: str) -> bool:
    return name in TOPIC_KEYS and TOPIC_KEYS[name][0] == "list"


def topic_key_default(name: str, config: BrokerConfig) -> str | None:
    row = TOPIC_KEYS.get(name)
    if row is None:
        return None
    value = config.effective_default(row[4])
    return row[1] if value is None else to_text(value)
