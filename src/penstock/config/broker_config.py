"""The broker's configuration: where values come from, what they are, what is refused.

Sources, strongest first: `--set`, environment, file, default. Dynamic values (AlterConfigs) lie
above all of them and are set by the server; they are kept apart, because DescribeConfigs names the
source of each value. Only this room reads the environment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.config.broker_keys import BROKER_KEYS, LIMIT_KEYS, PENSTOCK_KEYS, Row
from penstock.config.values import Value, parse_checked
from penstock.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Variables of the images and scripts around Kafka that are not configuration.
_NOT_CONFIG = frozenset(
    (
        "KAFKA_HOME",
        "KAFKA_VERSION",
        "KAFKA_DEBUG",
        "KAFKA_OPTS",
        "KAFKA_HEAP_OPTS",
        "KAFKA_JMX_OPTS",
        "KAFKA_JMX_PORT",
        "KAFKA_JMX_HOSTNAME",
        "KAFKA_GC_LOG_OPTS",
        "KAFKA_JVM_PERFORMANCE_OPTS",
        "KAFKA_LOG4J_OPTS",
        "KAFKA_LOG4J_ROOT_LOGLEVEL",
        "KAFKA_LOG4J_LOGGERS",
        "KAFKA_TOOLS_LOG4J_LOGLEVEL",
        "KAFKA_BIN_PATH",
    )
)
_DEFAULT_LISTENER = "PLAINTEXT://127.0.0.1:9092"
_LATER_SECURITY = ("SSL", "SASL_PLAINTEXT", "SASL_SSL")


def key_row(name: str) -> Row | None:
    return BROKER_KEYS.get(name) or PENSTOCK_KEYS.get(name)


class Listener:
    """One entry of `listeners` or `advertised.listeners`. An empty host is every address."""

    __slots__ = ("host", "name", "port")

    def __init__(self, name: str, host: str, port: int) -> None:
        self.name = name
        self.host = host
        self.port = port

    def __repr__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.name}://{host}:{self.port}"


class BrokerConfig:
    """Typed view of all sources. `static` is what the user wrote, by key, as text."""

    def __init__(self, static: Mapping[str, str]) -> None:
        self.static: dict[str, str] = dict(static)
        self.dynamic_default: dict[str, str] = {}
        self.dynamic_broker: dict[str, str] = {}
        self._parsed: dict[str, Value] = {}
        for name, raw in self.static.items():
            row = key_row(name)
            if row is not None:
                parse_checked(name, row, raw)

    # -- single values -------------------------------------------------------------------------
    def get(self, name: str) -> Value:
        """The effective value of a known key, typed; KeyError for an unknown one."""
        if name not in self._parsed:
            row = BROKER_KEYS.get(name) or PENSTOCK_KEYS[name]
            raw = row[1]
            for source in (self.dynamic_broker, self.dynamic_default, self.static):
                if name in source:
                    raw = source[name]
                    break
            self._parsed[name] = parse_checked(name, row, raw)
        return self._parsed[name]

    def integer(self, name: str) -> int:
        value = self.get(name)
        if not isinstance(value, int):
            raise ConfigError(f"Invalid value {value} for configuration {name}: a number is needed")
        return value

    def flag(self, name: str) -> bool:
        return self.get(name) is True

    def text(self, name: str) -> str | None:
        value = self.get(name)
        return value if isinstance(value, str) else None

    def items(self, name: str) -> list[str]:
        value = self.get(name)
        return list(value) if isinstance(value, list) else []

    def set_dynamic(
        self, *, default: Mapping[str, str] | None = None, broker: Mapping[str, str] | None = None
    ) -> None:
        """Replace the values that AlterConfigs has set for the cluster or for this broker."""
        if default is not None:
            self.dynamic_default = dict(default)
        if broker is not None:
            self.dynamic_broker = dict(broker)
        self._parsed.clear()

    # -- derived -------------------------------------------------------------------------------
    @property
    def node_id(self) -> int:
        if "node.id" not in self.static and self.static.get("broker.id", "-1").strip() != "-1":
            return self.integer("broker.id")
        return self.integer("node.id")

    @property
    def log_dirs(self) -> list[str]:
        dirs = self.items("log.dirs")
        if not dirs and "log.dir" in self.static:
            dirs = self.items("log.dir")
        return dirs or ["penstock-data"]

    @property
    def durability(self) -> str:
        return self.text("penstock.durability") or "os"

    @property
    def cluster_id(self) -> str | None:
        return self.text("penstock.cluster.id")

    def listeners(self) -> list[Listener]:
        """What to bind, without the listeners of controllers."""
        given = self.items("listeners") if "listeners" in self.static else [_DEFAULT_LISTENER]
        controllers = set(self.items("controller.listener.names"))
        parsed = parse_listeners("listeners", given)
        return [one for one in parsed if one.name not in controllers]

    def advertised(self) -> list[Listener]:
        given = self.items("advertised.listeners")
        return parse_listeners("advertised.listeners", given)

    def protocol_of(self, listener: str) -> str:
        """The security protocol of a listener, by listener.security.protocol.map."""
        raw = self.text("listener.security.protocol.map") or ""
        for entry in raw.split(","):
            name, colon, protocol = entry.strip().rpartition(":")
            if colon and name.strip().upper() == listener.upper():
                return protocol.strip().upper()
        raise ConfigError(
            f"No security protocol defined for listener {listener}: "
            f"name it in listener.security.protocol.map"
        )

    def limits(self) -> dict[str, int]:
        """Values of the engine's limits that the user set or that Kafka gives a default."""
        found: dict[str, int] = {}
        for name in LIMIT_KEYS:
            value = self.get(name)
            if isinstance(value, int):
                found[name] = value
        return found

    def effective_default(self, synonyms: Iterable[tuple[str, int]]) -> Value:
        """The default that broker keys give a topic configuration: the first that is not null,
        times its factor (retention in hours, say); a negative product means unlimited (-1)."""
        for name, factor in synonyms:
            value = self.get(name)
            if value is None:
                continue
            if factor == 1:
                return value
            assert isinstance(value, int)
            return value * factor if value >= 0 else -1
        return None

    # -- what cannot work ----------------------------------------------------------------------
    def check_start(self) -> None:
        """ConfigError for a combination that must not start."""
        if self.durability == "fsync":
            raise ConfigError(
                "penstock.durability=fsync is not in this release: a later one brings it; "
                "set penstock.durability=os"
            )
        bound = self.listeners()
        if not bound:
            raise ConfigError("listeners: every listener is named in controller.listener.names")
        seen: set[str] = set()
        for one in bound:
            if one.name in seen:
                raise ConfigError(f"Each listener must have a different name, listeners: {bound}")
            seen.add(one.name)
            protocol = self.protocol_of(one.name)
            if protocol in _LATER_SECURITY:
                raise ConfigError(
                    f"listener {one} uses {protocol}: TLS and SASL are not in this release, "
                    "a later one brings them"
                )
            if protocol != "PLAINTEXT":
                raise ConfigError(
                    f"Invalid value {protocol} for configuration listener.security.protocol.map: "
                    "String must be one of: PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL"
                )
            if not is_loopback(one.host) and not self.flag("penstock.insecure"):
                raise ConfigError(
                    f"listener {one} can be reached from other machines and has neither TLS nor "
                    "SASL: bind 127.0.0.1, or set penstock.insecure=true to accept that"
                )
        for one in self.advertised():
            if one.host in ("0.0.0.0", "::"):
                raise ConfigError(
                    "advertised.listeners cannot use the nonroutable meta-address "
                    f"{one.host}. Use a routable IP address."
                )
            if one.name not in seen and one.name not in self.items("controller.listener.names"):
                raise ConfigError(
                    f"advertised.listeners: {one.name} is not one of listeners: {bound}"
                )

    def warning(self) -> str | None:
        """One sentence that names unknown keys and keys of Kafka without a meaning here."""
        unknown: list[str] = []
        idle: list[str] = []
        for name in self.static:
            row = key_row(name)
            if row is not None:
                if "e" not in row[3]:
                    idle.append(name)
            elif not name.startswith("listener.name."):
                unknown.append(name)
            else:
                idle.append(name)
        parts: list[str] = []
        if unknown:
            parts.append("unknown configuration keys: " + ", ".join(sorted(unknown)))
        if idle:
            parts.append("keys of Kafka without effect here: " + ", ".join(sorted(idle)))
        return "; ".join(parts) or None


def is_loopback(host: str) -> bool:
    if host == "localhost" or host == "::1":
        return True
    parts = host.split(".")
    return len(parts) == 4 and parts[0] == "127" and all(part.isdigit() for part in parts)


def parse_listeners(key: str, items: Iterable[str]) -> list[Listener]:
    """`NAME://host:port`, IPv6 hosts in brackets."""
    found: list[Listener] = []
    for item in items:
        name, separator, address = item.partition("://")
        host, colon, port = address.rpartition(":")
        digits = port.isascii() and port.isdigit()
        if not separator or not name or not colon or not digits or int(port) > 65535:
            raise ConfigError(
                f"Invalid value {item} for configuration {key}: "
                "a listener is NAME://HOST:PORT with a port from 0 to 65535"
            )
        found.append(Listener(name.upper(), host.strip("[]"), int(port)))
    return found


def from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Configuration out of KAFKA_* and PENSTOCK_* variables.

    The rule is the apache/kafka image's: the rest in lower case, `___` is `-`, `__` is `_`, `_` is
    `.`. KAFKA_CFG_* (seen often) means the same. PENSTOCK_X is `penstock.x` where such a key exists
    and `x` otherwise. CLUSTER_ID and KAFKA_CLUSTER_ID give penstock.cluster.id.
    """
    found: dict[str, str] = {}
    for variable, value in environ.items():
        prefix, _, rest = variable.partition("_")
        if variable in ("CLUSTER_ID", "KAFKA_CLUSTER_ID"):
            found.setdefault("penstock.cluster.id", value)
        elif prefix in ("KAFKA", "PENSTOCK") and rest and variable not in _NOT_CONFIG:
            if prefix == "KAFKA" and rest.startswith("CFG_"):
                rest = rest[4:]
            name = _variable_to_key(rest)
            own = "penstock." + name
            found[own if prefix == "PENSTOCK" and own in PENSTOCK_KEYS else name] = value
    return found


def _variable_to_key(text: str) -> str:
    lowered = text.lower().replace("___", "-").replace("__", "\0").replace("_", ".")
    return lowered.replace("\0", "_")


def parse_set(argument: str) -> tuple[str, str]:
    """`key=value` of --set."""
    name, equals, value = argument.partition("=")
    if not equals or not name.strip():
        raise ConfigError(f"--set {argument}: key=value is needed")
    return name.strip(), value


def load(
    path: str | None, settings: Iterable[str] = (), environ: Mapping[str, str] | None = None
) -> BrokerConfig:
    """Read all sources. ConfigError names the file or the key at fault."""
    static: dict[str, str] = {}
    if path is not None:
        from penstock.config.properties import decode, parse_properties

        try:
            with open(path, "rb") as stream:
                static.update(parse_properties(decode(stream.read())))
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    if environ:
        static.update(from_environment(environ))
    static.update(parse_set(argument) for argument in settings)
    return BrokerConfig(static)
