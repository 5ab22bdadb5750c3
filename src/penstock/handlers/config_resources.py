"""Configuration resources as the config handlers share them: kinds, lookups, changes.

Not a handler. Numbers of resource kinds are Kafka's ConfigResource.Type.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from penstock.config import describe
from penstock.config.broker_keys import BROKER_KEYS, PENSTOCK_KEYS
from penstock.config.group_keys import CLIENT_METRICS_KEYS, GROUP_KEYS
from penstock.config.values import parse_checked
from penstock.errors import ConfigError, KafkaError
from penstock.metadata import plan
from penstock.metadata.names import name_problem
from penstock.protocol import errors_table as codes

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence
    from typing import Any, Protocol, TypeVar

    from penstock.config.values import KeyRow
    from penstock.handlers.context import Context

    Operations = Sequence[tuple[str, int, str | None]]
    Change = Callable[[Mapping[str, str]], dict[str, str]]

    class Named(Protocol):
        """A resource of AlterConfigs or IncrementalAlterConfigs."""

        resource_type: int
        resource_name: str

    AnyNamed = TypeVar("AnyNamed", bound=Named)

TOPIC: Final = 2
BROKER: Final = 4
BROKER_LOGGER: Final = 8
CLIENT_METRICS: Final = 16
GROUP: Final = 32
KINDS: Final = (TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP)


_LEVELS = {"TRACE": 5, "DEBUG": 10, "INFO": 20, "WARN": 30, "ERROR": 40, "FATAL": 50}
_LOGGERS = {"root": "", "penstock": "penstock"}


# -- describing ---------------------------------------------------------------------------------
def entries_of(ctx: Context, kind: int, name: str) -> list[describe.Entry]:
    """All configuration of one resource; KafkaError when it cannot be described."""
    if kind == TOPIC:
        problem = name_problem(name)
        if problem is not None:
            raise KafkaError(codes.INVALID_TOPIC_EXCEPTION, problem)
        topic = ctx.topics.index.get(name)
        if topic is None:
            raise KafkaError(codes.UNKNOWN_TOPIC_OR_PARTITION, "")
        return describe.topic_entries(topic.configs, ctx.config)
    if kind == BROKER:
        if name == "":
            return describe.default_broker_entries(ctx.config)
        if _broker_id(name) != ctx.node_id:
            raise KafkaError(
                codes.INVALID_REQUEST,
                f"Unexpected broker id, expected {ctx.node_id} or empty string, but received "
                f"{name}",
            )
        return describe.broker_entries(ctx.config)
    if kind == BROKER_LOGGER:
        check_logger_broker(ctx, name)
        return [
            describe.Entry(shown, _level(logger), describe.SOURCE_LOGGER, False, False, (), 0)
            for shown, logger in _LOGGERS.items()
        ]
    if kind == GROUP:
        _need_name(name, "Group name must not be empty.")
        return describe.group_entries(
            ctx.topics.resource_configs.get(("group", name), {}), ctx.config
        )
    if kind == CLIENT_METRICS:
        _need_name(name, "Client metrics subscription name must not be empty")
        return describe.client_metrics_entries(
            ctx.topics.resource_configs.get(("client-metrics", name), {})
        )
    raise KafkaError(codes.INVALID_REQUEST, "Unsupported resource type: UNKNOWN")


def _need_name(name: str, message: str) -> None:
    if not name:
        raise KafkaError(codes.INVALID_REQUEST, message)


def _broker_id(name: str) -> int:
    try:
        return int(name)
    except ValueError:
        raise KafkaError(
            codes.INVALID_REQUEST, f"Broker id must be an integer, but it is: {name}"
        ) from None


def check_logger_broker(ctx: Context, name: str) -> None:
    if _broker_id(name) != ctx.node_id:
        raise KafkaError(
            codes.INVALID_REQUEST,
            f"Unexpected broker id, expected {ctx.node_id} but received {name}",
        )


def _level(logger: str) -> str:
    level = logging.getLogger(logger).getEffectiveLevel()
    return next((name for name, value in _LEVELS.items() if value >= level), "FATAL")


# -- changing -----------------------------------------------------------------------------------
async def alter_each(
    resources: Sequence[AnyNamed], alter_one: Callable[[AnyNamed], Coroutine[Any, Any, None]]
) -> list[tuple[AnyNamed, int, str | None]]:
    """Each resource with its error code and message; one that is named twice is refused."""
    keys = [(one.resource_type, one.resource_name) for one in resources]
    outcomes: list[tuple[AnyNamed, int, str | None]] = []
    for resource in resources:
        code, message = 0, None
        try:
            if keys.count((resource.resource_type, resource.resource_name)) > 1:
                raise KafkaError(codes.INVALID_REQUEST, "Each resource must appear at most once.")
            await alter_one(resource)
        except KafkaError as error:
            code, message = error.code, error.message
        outcomes.append((resource, code, message))
    return outcomes


async def alter(
    ctx: Context,
    kind: int,
    name: str,
    change_of: Callable[[Rules], Change],
    validate_only: bool,
) -> None:
    """Change one resource (not a logger); `change_of` makes the change out of the kind's rules."""
    if kind == TOPIC:
        await _alter_topic(ctx, name, change_of, validate_only)
        return
    if kind == BROKER:
        if name != "" and _broker_id(name) != ctx.node_id:
            raise KafkaError(
                codes.INVALID_REQUEST,
                f"Unexpected broker id, expected {ctx.node_id}, but received {name}",
            )
        rules = Rules(_row_of_broker, lambda new, old: _check_broker(new, old, name))
        await ctx.topics.alter_resource_configs(
            "broker", name, change_of(rules), validate_only=validate_only
        )
        return
    if kind in (GROUP, CLIENT_METRICS):
        stored = "group" if kind == GROUP else "client-metrics"
        table = GROUP_KEYS if kind == GROUP else CLIENT_METRICS_KEYS
        _need_name(
            name,
            "Default group resources are not allowed."
            if kind == GROUP
            else "Subscription name can't be empty",
        )
        rules = Rules(table.get, lambda new, _: _check_table(kind, new))
        await ctx.topics.alter_resource_configs(
            stored, name, change_of(rules), validate_only=validate_only
        )
        return
    raise KafkaError(codes.INVALID_REQUEST, f"Unknown resource type {kind}")


class Rules:
    """How a kind of resource is validated: `row_of(name)` and `check(new, old)`."""

    __slots__ = ("check", "default_of", "row_of")

    def __init__(
        self,
        row_of: Callable[[str], KeyRow | None],
        check: Callable[[Mapping[str, str], Mapping[str, str]], None],
        default_of: Callable[[str], str | None] | None = None,
    ) -> None:
        self.row_of = row_of
        self.check = check
        self.default_of = default_of or self._table_default

    def is_list(self, name: str) -> bool:
        row = self.row_of(name)
        return row is not None and row[0] == "list"

    def _table_default(self, name: str) -> str | None:
        row = self.row_of(name)
        return row[1] if row is not None else None


async def _alter_topic(
    ctx: Context, name: str, change_of: Callable[[Rules], Change], validate_only: bool
) -> None:
    _need_name(name, "Default topic resources are not allowed.")
    problem = name_problem(name)
    if problem is not None:
        raise KafkaError(codes.INVALID_TOPIC_EXCEPTION, problem)
    if ctx.topics.index.get(name) is None:
        raise KafkaError(codes.UNKNOWN_TOPIC_OR_PARTITION, f"The topic '{name}' does not exist.")
    from penstock.config.topic_keys import TOPIC_KEYS

    rules = Rules(
        TOPIC_KEYS.get,
        lambda new, _: plan.checked_topic_configs(new, ctx.config),
        lambda key: plan.topic_key_default(key, ctx.config),
    )
    await ctx.topics.alter_topic_configs(name, change_of(rules), validate_only=validate_only)


def _row_of_broker(name: str) -> KeyRow | None:
    return BROKER_KEYS.get(name) or PENSTOCK_KEYS.get(name)


def _check_broker(new: Mapping[str, str], old: Mapping[str, str], broker: str) -> None:
    static: list[str] = []
    one_broker_only: list[str] = []
    for name in new:
        row = _row_of_broker(name)
        if row is None or (name in old and old[name] == new[name]):
            continue
        flags = row[3]
        if "d" not in flags and "p" not in flags:
            static.append(name)
        elif "p" in flags and broker == "":
            one_broker_only.append(name)
    if static:
        raise KafkaError(
            codes.INVALID_REQUEST,
            f"Cannot update these configs dynamically: [{', '.join(static)}]",
        )
    if one_broker_only:
        raise KafkaError(
            codes.INVALID_REQUEST,
            "Cannot update these configs at default cluster level, broker id must be specified: "
            f"[{', '.join(one_broker_only)}]",
        )
    for name, value in new.items():
        row = _row_of_broker(name)
        if row is not None:
            try:
                parse_checked(name, row, value)
            except ConfigError as error:
                raise KafkaError(codes.INVALID_REQUEST, str(error)) from error


def _check_table(kind: int, new: Mapping[str, str]) -> None:
    table = GROUP_KEYS if kind == GROUP else CLIENT_METRICS_KEYS
    for name, value in new.items():
        row = table.get(name)
        if row is None and kind == GROUP:
            raise KafkaError(codes.INVALID_CONFIG, f"Unknown group config name: {name}")
        if row is None:
            raise KafkaError(codes.INVALID_REQUEST, f"Unknown client metrics configuration: {name}")
        try:
            parse_checked(name, row, value)
        except ConfigError as error:
            raise KafkaError(codes.INVALID_CONFIG, str(error)) from error


def alter_loggers(operations: Operations, validate_only: bool) -> None:
    """Set or reset levels of this process's loggers; all operations are checked first."""
    for name, kind, value in operations:
        if kind in (plan.APPEND, plan.SUBTRACT):
            word = "APPEND" if kind == plan.APPEND else "SUBTRACT"
            raise KafkaError(
                codes.INVALID_REQUEST,
                f"{word} operation is not allowed for the BROKER_LOGGER resource",
            )
        if name not in _LOGGERS:
            raise KafkaError(codes.INVALID_CONFIG, f"Logger {name} does not exist!")
        if kind == plan.DELETE and name == "root":
            raise KafkaError(
                codes.INVALID_REQUEST,
                "Removing the log level of the root logger is not allowed",
            )
        if kind == plan.SET and (value or "").upper() not in _LEVELS:
            raise KafkaError(
                codes.INVALID_CONFIG,
                f"Cannot set the log level of {name} to {value} as it is not a supported log "
                f"level. Valid log levels are {', '.join(sorted(_LEVELS))}",
            )
    if not validate_only:
        for name, kind, value in operations:
            level = logging.NOTSET if kind == plan.DELETE else _LEVELS[(value or "").upper()]
            logging.getLogger(_LOGGERS[name]).setLevel(level)
