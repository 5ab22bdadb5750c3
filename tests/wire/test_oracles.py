"""Every served key and version against kio and kafka-python, both directions: they read what we
write and see the same values, and what they write again is byte for byte what we wrote."""

from __future__ import annotations

import datetime
import enum
import io
import re
import uuid
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kafka.protocol as kafka_protocol
import pytest
import wire_schema
from hypothesis import given, settings
from kio import index as kio_index
from kio.serial import entity_reader, entity_writer

from penstock._codec import MessageCodec
from penstock.protocol.api_table import SUPPORTED

if TYPE_CHECKING:
    from kafka.protocol.api_message import ApiMessage

CODEC = MessageCodec()
CASES = [
    pytest.param(kind, key, version, id=f"{api.name}-{kind}-{version}")
    for key, api in SUPPORTED.items()
    for kind in ("request", "response")
    for version in range(api.min, api.max + 1)
]
# Versions newer than the pinned oracles know: (key, version).
UNKNOWN_TO_KIO = {(18, 5), (42, 3)}
# kafka-python turns authorized operations into a set of names, and reads any ApiVersions response
# with an error as version 0: kio alone judges these two.
READ_OTHERWISE_BY_KAFKA_PYTHON = {("response", 15), ("response", 18)}


def frame_of(kind: str, key: int, version: int, value: Any) -> bytes:
    """The encoded message without its header."""
    if kind == "request":
        whole = CODEC.encode_request(key, version, 1, None, value)
        empty = 10 + (1 if flexible(key, version) else 0)
        return whole[empty:]
    whole = CODEC.encode_response(key, version, 1, value)
    return whole[4 + (1 if flexible(key, version) and key != 18 else 0) :]


@cache
def flexible_from() -> dict[int, int]:
    """First flexible version by key, out of the C table (name, key, six versions, flexible ...)."""
    table = Path(__file__).parents[2].joinpath("native/wire/api_table.c").read_text()
    rows = re.findall(r'^    \{"\w+", (\d+), (?:-?\d+, ){5}(\d+|INT16_MAX),', table, re.MULTILINE)
    return {int(key): 1 << 15 if first == "INT16_MAX" else int(first) for key, first in rows}


def flexible(key: int, version: int) -> bool:
    return version >= flexible_from()[key]


def milliseconds(delta: datetime.timedelta) -> int:
    return delta // datetime.timedelta(milliseconds=1)


def plain(value: Any) -> Any:
    """An oracle's scalar as ours."""
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, datetime.timedelta):
        return milliseconds(value)
    if isinstance(value, datetime.datetime):
        return milliseconds(value - datetime.datetime.fromtimestamp(0, datetime.UTC))
    if isinstance(value, uuid.UUID):
        return value.bytes
    return value


def same(ours: Any, theirs: Any, where: str) -> None:
    if hasattr(ours, "__slots__") and not isinstance(ours, (bytes, str)):
        for name in ours.__slots__:
            # An oracle's class lacks the fields that its version does not have.
            other = next(
                (getattr(theirs, n) for n in aliases(name) if hasattr(theirs, n)), Ellipsis
            )
            if other is not Ellipsis:
                same(getattr(ours, name), other, f"{where}.{name}")
        return
    if isinstance(ours, list):
        assert theirs is not None, where
        assert len(ours) == len(theirs), where
        for index, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            same(mine, other, f"{where}[{index}]")
        return
    other = plain(theirs)
    if ours == bytes(16) and other is None:
        return  # kio reads the zero uuid as none
    if isinstance(other, float) and isinstance(ours, int):
        other = int(other)
    assert ours == other, where


def aliases(name: str) -> tuple[str, ...]:
    return (name, name.removesuffix("_ms"), name + "_")


@pytest.mark.parametrize(("kind", "key", "version"), CASES)
def test_kio_agrees(kind: str, key: int, version: int) -> None:
    message = wire_schema.find(kind, key)
    if (key, version) in UNKNOWN_TO_KIO:
        pytest.skip("newer than kio")
    loader = kio_index.load_request_schema if kind == "request" else kio_index.load_response_schema
    entity = loader(key, version)
    read, write = entity_reader(entity), entity_writer(entity)

    @settings(max_examples=3, deadline=None)
    @given(wire_schema.values(message, message.root, version, tame=True))
    def check(value: Any) -> None:
        frame = frame_of(kind, key, version, value)
        theirs, size = read(frame, 0)
        assert size == len(frame)
        same(value, theirs, message.name)
        out = io.BytesIO()
        write(out, theirs)
        assert out.getvalue() == frame

    check()


def kafka_python_class(name: str) -> type[ApiMessage] | None:
    for module in ("admin", "consumer", "metadata", "producer", "sasl"):
        found = getattr(import_module(f"{kafka_protocol.__name__}.{module}"), name, None)
        if found is not None:
            return found
    return None


@pytest.mark.parametrize(("kind", "key", "version"), CASES)
def test_kafka_python_agrees(kind: str, key: int, version: int) -> None:
    message = wire_schema.find(kind, key)
    cls = kafka_python_class(message.name)
    if (kind, key) in READ_OTHERWISE_BY_KAFKA_PYTHON:
        pytest.skip("kafka-python gives it another shape")
    if cls is None or not cls.min_version <= version <= cls.max_version:
        pytest.skip("unknown to kafka-python")

    @settings(max_examples=2, deadline=None)
    @given(wire_schema.values(message, message.root, version, tame=True))
    def check(value: Any) -> None:
        frame = frame_of(kind, key, version, value)
        theirs = cls.decode(frame, version=version)
        same(value, theirs, message.name)
        theirs._header = None  # a decoded message lacks it, and encode() asks
        assert bytes(theirs.encode(version=version)) == frame

    check()
