"""Kafka's message definitions, read from the published jars and made uniform.

The jars come through Maven's own client and stay in the build directory; only what is generated
from them is committed.
"""

from __future__ import annotations

import json
import keyword
import re
import subprocess
import tomllib
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KAFKA_VERSION = "4.4.0"
UNBOUNDED = 32767
JARS = (
    "kafka-clients",
    "kafka-group-coordinator",
    "kafka-transaction-coordinator",
    "kafka-share-coordinator",
    "kafka-storage",
)
SLF4J = "org.slf4j:slf4j-api:1.7.36"
# Definitions of KRaft's own log and of tiered storage: no room here reads them.
SKIPPED_TYPES = frozenset({"metadata"})
SKIPPED_NAMES = frozenset(
    {
        "KRaftVersionRecord",
        "LeaderChangeMessage",
        "SnapshotFooterRecord",
        "SnapshotHeaderRecord",
        "VotersRecord",
    }
)


@dataclass(frozen=True, slots=True)
class Versions:
    """A closed range; empty when first > last."""

    first: int
    last: int

    @staticmethod
    def parse(text: str | None) -> Versions:
        if text is None or text == "none":
            return Versions(UNBOUNDED, -1)
        if text.endswith("+"):
            return Versions(int(text[:-1]), UNBOUNDED)
        first, _, last = text.partition("-")
        return Versions(int(first), int(last or first))

    def __bool__(self) -> bool:
        return self.first <= self.last


@dataclass(slots=True)
class Field:
    name: str
    type: str  # primitive, or the name of a struct
    array: bool
    versions: Versions
    nullable: Versions
    tag: int  # -1: not tagged
    compact: bool  # False: never in compact form (RequestHeader.ClientId)
    default: int | float | bool | str | None  # meaning of None: null, see default_null
    default_null: bool
    struct: Struct | None
    about: str

    @property
    def attribute(self) -> str:
        return snake(self.name)


@dataclass(slots=True)
class Struct:
    name: str
    fields: list[Field]
    python_name: str = ""


@dataclass(slots=True)
class Message:
    name: str
    kind: str  # request, response, header, data, coordinator-key, coordinator-value
    api_key: int
    versions: Versions
    flexible: Versions
    root: Struct
    structs: list[Struct] = field(default_factory=list)  # children before parents, root last
    module: str = ""

    @property
    def api_name(self) -> str:
        return re.sub(r"(Request|Response)$", "", self.name)


@dataclass(frozen=True, slots=True)
class ErrorCode:
    code: int
    name: str
    retriable: bool
    message: str


@dataclass(frozen=True, slots=True)
class SupportedApi:
    name: str
    key: int
    first: int
    last: int
    advertised_first: int
    where: str
    barrier: bool


def snake(name: str) -> str:
    """FooBarID -> foo_bar_id; a Python keyword gets an underscore behind it."""
    text = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
    return text + "_" if keyword.iskeyword(text) else text


def parse_json(text: str) -> dict[str, Any]:
    """Kafka's definitions are JSON with // comments on lines of their own or behind a value."""
    kept = []
    for line in text.splitlines():
        inside, at = False, 0
        while at < len(line):
            if line[at] == '"':
                inside = not inside
            elif not inside and line.startswith("//", at):
                line = line[:at]
            at += 1
        kept.append(line)
    parsed: dict[str, Any] = json.loads("\n".join(kept))
    return parsed


def fetch_jars(folder: Path) -> dict[str, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {name: f"org.apache.kafka:{name}:{KAFKA_VERSION}" for name in JARS}
    wanted["slf4j-api"] = SLF4J
    found = {}
    for name, coordinates in wanted.items():
        path = folder / f"{name}-{coordinates.rpartition(':')[2]}.jar"
        if not path.exists():
            subprocess.run(
                [
                    "mvn",
                    "-q",
                    "-B",
                    "dependency:copy",
                    f"-Dartifact={coordinates}",
                    f"-DoutputDirectory={folder}",
                ],
                check=True,
                cwd=folder,
            )
        found[name] = path
    return found


def read_errors(jars: dict[str, Path], here: Path) -> list[ErrorCode]:
    class_path = f"{jars['kafka-clients']}:{jars['slf4j-api']}"
    output = subprocess.run(
        ["java", "-cp", class_path, str(here / "PrintErrors.java")],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ).stdout
    errors = []
    for line in output.splitlines():
        code, name, retriable, message = line.split("\t")
        errors.append(ErrorCode(int(code), name, retriable == "true", message))
    return sorted(errors, key=lambda error: error.code)


def read_supported(path: Path) -> list[SupportedApi]:
    with path.open("rb") as stream:
        rows = tomllib.load(stream)["api"]
    apis = []
    for row in rows:
        if row["where"] not in ("reactor", "control"):
            raise ValueError(f"{path.name}: {row['name']}: where = {row['where']!r}")
        apis.append(
            SupportedApi(
                row["name"],
                row["key"],
                row["min"],
                row["max"],
                row.get("advertised_min", row["min"]),
                row["where"],
                row.get("barrier", False),
            )
        )
    return sorted(apis, key=lambda api: api.key)


def read_messages(jars: dict[str, Path]) -> list[Message]:
    messages = []
    for jar in JARS:
        with zipfile.ZipFile(jars[jar]) as archive:
            for name in sorted(archive.namelist()):
                if not name.endswith(".json"):
                    continue
                raw = parse_json(archive.read(name).decode())
                if raw["type"] in SKIPPED_TYPES or raw["name"] in SKIPPED_NAMES:
                    continue
                if raw["validVersions"] == "none":
                    continue
                messages.append(_message(raw))
    order = {"header": 0, "request": 1, "response": 1}
    messages.sort(
        key=lambda m: (
            order.get(m.kind, 2),
            m.api_key if m.kind in order else 0,
            m.kind if m.kind in order else "",
            m.name,
        )
    )
    _place(messages)
    return messages


def _message(raw: dict[str, Any]) -> Message:
    common = {entry["name"]: entry["fields"] for entry in raw.get("commonStructs", [])}
    built: dict[str, Struct] = {}
    order: list[Struct] = []

    def struct(name: str, fields: list[dict[str, Any]]) -> Struct:
        if name not in built:
            made = Struct(name, [])
            built[name] = made
            made.fields = [convert(entry) for entry in fields]
            order.append(made)
        return built[name]

    def convert(entry: dict[str, Any]) -> Field:
        text = entry["type"]
        array = text.startswith("[]")
        kind = text[2:] if array else text
        nested = None
        if kind[0].isupper():
            nested = struct(kind, entry.get("fields") or common.get(kind, []))
        tag = int(entry.get("tag", -1))
        default, default_null = _default(entry.get("default"), kind, array)
        return Field(
            name=entry["name"],
            type=kind,
            array=array,
            versions=Versions.parse(entry["taggedVersions"] if tag >= 0 else entry["versions"]),
            nullable=Versions.parse(entry.get("nullableVersions")),
            tag=tag,
            compact=entry.get("flexibleVersions") != "none",
            default=default,
            default_null=default_null,
            struct=nested,
            about=entry.get("about", ""),
        )

    root = struct(raw["name"], raw["fields"])
    return Message(
        name=raw["name"],
        kind=raw["type"],
        api_key=int(raw.get("apiKey", -1)),
        versions=Versions.parse(raw["validVersions"]),
        flexible=Versions.parse(raw["flexibleVersions"]),
        root=root,
        structs=order,
    )


def _default(raw: object, kind: str, array: bool) -> tuple[int | float | bool | str | None, bool]:
    if raw == "null":
        return None, True
    if array or kind[0].isupper() or kind in ("bytes", "records", "uuid"):
        return None, False
    if kind == "string":
        return str(raw or ""), False
    if kind == "bool":
        return str(raw).lower() == "true", False
    if kind == "float64":
        return float(str(raw or "0")), False
    return int(str(raw or "0"), 0), False


def _place(messages: list[Message]) -> None:
    """Chooses each message's Python module and each struct's class name within it."""
    modules: dict[str, list[Message]] = {}
    for message in messages:
        if message.kind in ("request", "response"):
            message.module = "messages." + snake(message.api_name)
        elif message.kind == "header":
            message.module = "messages.headers"
        else:
            message.module = "records." + snake(re.sub(r"(Key|Value)$", "", message.name))
        modules.setdefault(message.module, []).append(message)
    for members in modules.values():
        owners: dict[str, int] = {}
        for struct in _structs(members):
            owners[struct.name] = owners.get(struct.name, 0) + 1
        for message in members:
            for struct in message.structs:
                shared = owners[struct.name] > 1 and struct is not message.root
                struct.python_name = (message.name if shared else "") + struct.name


def _structs(messages: list[Message]) -> Iterator[Struct]:
    for message in messages:
        yield from message.structs
