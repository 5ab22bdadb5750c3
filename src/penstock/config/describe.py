"""Configuration as DescribeConfigs and CreateTopics show it: value, source, synonyms, type.

Pure functions over the tables and a BrokerConfig. Numbers are Kafka's (DescribeConfigsResponse).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from penstock.config.broker_keys import BROKER_KEYS, PENSTOCK_KEYS
from penstock.config.group_keys import CLIENT_METRICS_KEYS, GROUP_KEYS
from penstock.config.topic_keys import TOPIC_KEYS
from penstock.config.values import to_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from penstock.config.broker_config import BrokerConfig

SOURCE_TOPIC = 1
SOURCE_BROKER = 2
SOURCE_DEFAULT_BROKER = 3
SOURCE_STATIC = 4
SOURCE_DEFAULT = 5
SOURCE_LOGGER = 6
SOURCE_CLIENT_METRICS = 7
SOURCE_GROUP = 8

TYPE_NUMBERS = {
    "unknown": 0,
    "boolean": 1,
    "string": 2,
    "int": 3,
    "short": 4,
    "long": 5,
    "double": 6,
    "list": 7,
    "class": 8,
    "password": 9,
}


class Synonym(NamedTuple):
    name: str
    value: str | None
    source: int


class Entry(NamedTuple):
    name: str
    value: str | None
    source: int
    read_only: bool
    sensitive: bool
    synonyms: tuple[Synonym, ...]
    type: int


def broker_synonyms(name: str) -> tuple[str, ...]:
    """Keys that stand for the same thing, nearest first, as Kafka lists them."""
    if name in ("log.retention.ms", "log.retention.minutes", "log.retention.hours"):
        at = ("log.retention.ms", "log.retention.minutes", "log.retention.hours").index(name)
        return ("log.retention.ms", "log.retention.minutes", "log.retention.hours")[at:]
    return (name,)


def _sources(names: Iterable[str], config: BrokerConfig, per_broker: bool) -> list[Synonym]:
    names = tuple(names)
    found: list[Synonym] = []
    layers: list[tuple[Mapping[str, str], int]] = []
    if per_broker:
        layers.append((config.dynamic_broker, SOURCE_BROKER))
    layers.append((config.dynamic_default, SOURCE_DEFAULT_BROKER))
    layers.append((config.static, SOURCE_STATIC))
    for layer, source in layers:
        found += [_synonym(name, layer[name], source) for name in names if name in layer]
    for name in names:
        row = BROKER_KEYS.get(name) or PENSTOCK_KEYS.get(name)
        if row is not None and row[1] is not None:
            found.append(_synonym(name, row[1], SOURCE_DEFAULT))
    return found


def _synonym(name: str, value: str, source: int) -> Synonym:
    row = BROKER_KEYS.get(name)
    hidden = row is not None and row[0] == "password"
    return Synonym(name, None if hidden else value, source)


def topic_entries(overrides: Mapping[str, str], config: BrokerConfig) -> list[Entry]:
    """Every topic configuration with its value for one topic."""
    entries: list[Entry] = []
    for name, row in TOPIC_KEYS.items():
        if "i" in row[3] and name not in overrides:
            continue
        synonyms: list[Synonym] = []
        if name in overrides:
            synonyms.append(Synonym(name, overrides[name], SOURCE_TOPIC))
        if row[4]:
            synonyms += _sources(broker_synonyms(row[4][0][0]), config, True)
        if name in overrides:
            value: str | None = overrides[name]
        else:
            effective = config.effective_default(row[4])
            value = row[1] if effective is None else to_text(effective)
        source = synonyms[0].source if synonyms else _weakest_source(row[4], config)
        entries.append(
            Entry(name, value, source, False, False, tuple(synonyms), TYPE_NUMBERS[row[0]])
        )
    return entries


def _weakest_source(synonyms: Iterable[tuple[str, int]], config: BrokerConfig) -> int:
    """A default that comes from a key in other units (hours, say) has no synonym in Kafka's list,
    but it has a source."""
    for name, _ in synonyms:
        if config.get(name) is not None:
            return SOURCE_STATIC if name in config.static else SOURCE_DEFAULT
    return SOURCE_DEFAULT


def broker_entries(config: BrokerConfig) -> list[Entry]:
    """Every broker configuration, and what this broker was given beyond those."""
    entries: list[Entry] = []
    for table in (BROKER_KEYS, PENSTOCK_KEYS):
        for name, row in table.items():
            if "i" in row[3] and name not in config.static:
                continue
            entries.append(_broker_entry(name, config))
    known = {entry.name for entry in entries}
    for layer, source in (
        (config.dynamic_broker, SOURCE_BROKER),
        (config.dynamic_default, SOURCE_DEFAULT_BROKER),
        (config.static, SOURCE_STATIC),
    ):
        for name in layer:
            if name not in known:
                known.add(name)
                # Unknown keys may be secrets of a plug-in: shown without their value.
                entries.append(
                    Entry(name, None, source, True, True, (Synonym(name, None, source),), 0)
                )
    return entries


def _broker_entry(name: str, config: BrokerConfig) -> Entry:
    row = BROKER_KEYS.get(name) or PENSTOCK_KEYS[name]
    synonyms = _sources(broker_synonyms(name), config, True)
    sensitive = row[0] == "password"
    value = None if sensitive else _own_text(name, row[1], config)
    source = synonyms[0].source if synonyms else SOURCE_DEFAULT
    read_only = "d" not in row[3] and "p" not in row[3]
    return Entry(name, value, source, read_only, sensitive, tuple(synonyms), TYPE_NUMBERS[row[0]])


def _own_text(name: str, default: str | None, config: BrokerConfig) -> str | None:
    for layer in (config.dynamic_broker, config.dynamic_default, config.static):
        if name in layer:
            return layer[name]
    return default


def default_broker_entries(config: BrokerConfig) -> list[Entry]:
    """The cluster-wide dynamic defaults, and nothing else."""
    entries: list[Entry] = []
    for name, value in config.dynamic_default.items():
        row = BROKER_KEYS.get(name)
        sensitive = row is None or row[0] == "password"
        shown = None if sensitive else value
        entries.append(
            Entry(
                name,
                shown,
                SOURCE_DEFAULT_BROKER,
                row is None,
                sensitive,
                (Synonym(name, shown, SOURCE_DEFAULT_BROKER),),
                TYPE_NUMBERS[row[0]] if row else 0,
            )
        )
    return entries


def group_entries(overrides: Mapping[str, str], config: BrokerConfig) -> list[Entry]:
    entries: list[Entry] = []
    for name, row in GROUP_KEYS.items():
        synonyms: list[Synonym] = []
        if name in overrides:
            synonyms.append(Synonym(name, overrides[name], SOURCE_GROUP))
        default = row[1]
        if row[4] is not None:
            below = _sources((row[4],), config, True)
            synonyms += below
            default = below[0].value if below else default
        elif default is not None:
            synonyms.append(Synonym(name, default, SOURCE_DEFAULT))
        entries.append(
            Entry(
                name,
                overrides.get(name, default),
                synonyms[0].source if synonyms else 5,
                False,
                False,
                tuple(synonyms),
                TYPE_NUMBERS[row[0]],
            )
        )
    return entries


def client_metrics_entries(overrides: Mapping[str, str]) -> list[Entry]:
    entries: list[Entry] = []
    for name, row in CLIENT_METRICS_KEYS.items():
        given = name in overrides
        source = SOURCE_CLIENT_METRICS if given else SOURCE_DEFAULT
        synonyms = (Synonym(name, overrides[name], source),) if given else ()
        entries.append(
            Entry(
                name,
                overrides.get(name, row[1]),
                source,
                False,
                False,
                synonyms,
                TYPE_NUMBERS[row[0]],
            )
        )
    return entries
