"""Reads the generated schema table: tests make a value for every field of every version."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

TABLE = Path(__file__).resolve().parents[2] / "native" / "wire" / "schema_table.c"
INTEGERS = {
    "INT8": (-(2**7), 2**7 - 1),
    "INT16": (-(2**15), 2**15 - 1),
    "UINT16": (0, 2**16 - 1),
    "INT32": (-(2**31), 2**31 - 1),
    "UINT32": (0, 2**32 - 1),
    "INT64": (-(2**63), 2**63 - 1),
}


@dataclass(frozen=True)
class Field:
    name: str
    struct: int
    kind: str
    array: bool
    default_null: bool
    versions: tuple[int, int]
    nullable: tuple[int, int]
    tag: int

    def present(self, version: int) -> bool:
        return self.versions[0] <= version <= self.versions[1]

    def may_be_null(self, version: int) -> bool:
        return self.nullable[0] <= version <= self.nullable[1]


@dataclass(frozen=True)
class Struct:
    name: str
    fields: tuple[Field, ...]


@dataclass(frozen=True)
class Message:
    name: str
    module: str
    root: int
    api_key: int
    first: int
    last: int
    kind: str

    def make(self, struct: int, **fields: Any) -> Any:
        cls = getattr(import_module("penstock.protocol." + self.module), structs()[struct].name)
        return cls(**fields)


@cache
def _sections() -> tuple[dict[int, str], list[str], list[str], list[str]]:
    text = TABLE.read_text()
    names, offset = {}, 0
    for name in re.findall(r'^    "(.*)\\0"', text, re.MULTILINE):
        names[offset] = name
        offset += len(name) + 1
    tables = re.findall(r"\[\] = \{\n(.*?)\n\};", text, re.DOTALL)
    rows = [[line.split("{")[1].split("}")[0] for line in t.splitlines()] for t in tables]
    return names, rows[0], rows[1], rows[2]


@cache
def structs() -> list[Struct]:
    names, fields, rows, _ = _sections()
    parsed = []
    for row in fields:
        name, struct, kind, flags, first, last, null_first, null_last, tag, _ = row.split(", ")
        parsed.append(
            Field(
                names[int(name)],
                int(struct),
                kind.removeprefix("PST_SCHEMA_"),
                "PST_SCHEMA_ARRAY" in flags,
                "PST_SCHEMA_DEFAULT_NULL" in flags,
                (int(first), int(last)),
                (int(null_first), int(null_last)),
                int(tag),
            )
        )
    made = []
    for row in rows:
        name, at, count = map(int, row.split(", "))
        made.append(Struct(names[name], tuple(parsed[at : at + count])))
    return made


@cache
def messages() -> list[Message]:
    names, _, _, rows = _sections()
    made = []
    for row in rows:
        name, module, root, key, first, last, _, kind = row.split(", ")
        made.append(
            Message(
                names[int(name)],
                names[int(module)],
                int(root),
                int(key),
                int(first),
                int(last),
                kind.removeprefix("PST_SCHEMA_").lower(),
            )
        )
    return made


def find(kind: str, api_key: int) -> Message:
    return next(m for m in messages() if m.kind == kind and m.api_key == api_key)


def scalars(field: Field, *, tame: bool) -> st.SearchStrategy[Any]:
    """Values of one element. `tame` keeps to what oracles with richer types can hold too: known
    error codes, times within datetime's range, no NaN."""
    if tame and field.name == "error_code":
        return st.integers(-1, 99)
    if field.kind in INTEGERS:
        low, high = INTEGERS[field.kind]
        if tame:
            low, high = max(low, 0), min(high, 2**41)
        return st.integers(low, high)
    if field.kind == "BOOL":
        return st.booleans()
    if field.kind == "FLOAT64":
        return st.floats(allow_nan=False)
    if field.kind == "UUID":
        return st.binary(min_size=16, max_size=16)
    if field.kind == "STRING":
        return st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
    return st.binary(max_size=24)


def values(
    message: Message, struct: int, version: int, *, tame: bool = False
) -> st.SearchStrategy[Any]:
    """Objects of one struct with every field of the version drawn and all others left alone."""
    drawn = {}
    for field in structs()[struct].fields:
        if not field.present(version):
            continue
        if field.kind == "STRUCT":
            element = values(message, field.struct, version, tame=tame)
        else:
            element = scalars(field, tame=tame)
        if field.array:
            element = st.lists(element, max_size=3)
        if field.may_be_null(version):
            element = st.none() | element
        drawn[field.name] = element
    return st.fixed_dictionaries(drawn).map(lambda fields: message.make(struct, **fields))


def full(message: Message, struct: int, version: int) -> Any:
    """One object with something in every field: arrays of two, strings of three bytes."""
    fields = {}
    for field in structs()[struct].fields:
        if not field.present(version):
            continue
        if field.kind == "STRUCT":
            value = full(message, field.struct, version)
        else:
            value = {
                "BOOL": True,
                "FLOAT64": 1.5,
                "UUID": bytes(range(16)),
                "STRING": "abc",
                "BYTES": b"xyz",
            }.get(field.kind, 7)
        fields[field.name] = [value, value] if field.array else value
    return message.make(struct, **fields)
