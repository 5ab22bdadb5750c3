"""The generated Python tables and classes: complete, cheap to import, equal to the core's."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from penstock.protocol import api_table, codec, errors_table
from penstock.protocol.messages.fetch import FetchRequest, FetchTopic
from penstock.protocol.messages.metadata import MetadataRequest

ROOT = Path(__file__).resolve().parents[2]


def test_supported_is_what_the_toml_file_says() -> None:
    with (ROOT / "schema" / "supported.toml").open("rb") as stream:
        rows = tomllib.load(stream)["api"]
    assert sorted(api_table.SUPPORTED) == sorted(row["key"] for row in rows)
    for row in rows:
        api = api_table.SUPPORTED[row["key"]]
        assert (api.name, api.min, api.max, api.where) == (
            row["name"], row["min"], row["max"], row["where"],
        )  # fmt: skip
        assert api.barrier == row.get("barrier", False)
        assert api.advertised_min == row.get("advertised_min", row["min"])


def test_transactions_are_not_advertised() -> None:
    assert not {24, 25, 26, 28, 65, 66} & set(api_table.SUPPORTED)


def test_error_table_has_every_code_from_minus_one_on() -> None:
    assert len(errors_table.ERRORS) == 138
    assert sorted(errors_table.ERRORS) == list(range(-1, 137))
    assert errors_table.ERRORS[errors_table.UNSUPPORTED_VERSION].code == 35
    assert errors_table.ERRORS[6].name == "NOT_LEADER_OR_FOLLOWER"
    assert errors_table.ERRORS[6].retriable
    assert not errors_table.ERRORS[errors_table.TOPIC_ALREADY_EXISTS].retriable


def test_c_error_codes_equal_python_ones() -> None:
    text = (ROOT / "native" / "wire" / "error_codes.h").read_text()
    found = {name: int(code) for name, code in re.findall(r"PST_KAFKA_(\w+) = (-?\d+)", text)}
    assert found == {error.name: error.code for error in errors_table.ERRORS.values()}


def test_a_message_module_loads_nothing_heavy() -> None:
    code = (
        "import sys, penstock; before = set(sys.modules); "
        "import penstock.protocol.messages.fetch; "
        "print(' '.join(set(sys.modules) - before))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"dataclasses", "asyncio", "enum", "json"} & set(loaded)


def test_defaults_are_fresh_and_null_is_kept() -> None:
    first, second = FetchRequest(), FetchRequest()
    first.topics.append(FetchTopic(topic="a"))
    assert second.topics == []
    assert MetadataRequest(topics=None).topics is None
    assert MetadataRequest().topics == []
    assert FetchRequest() == FetchRequest() != FetchRequest(max_bytes=1)
    assert "max_wait_ms=0" in repr(FetchRequest())
    with pytest.raises(AttributeError):
        first.no_such_field = 1  # type: ignore[attr-defined]


def test_extension_has_every_method_of_the_protocol() -> None:
    extension = pytest.importorskip("penstock._codec")
    declared = {
        name for name, value in vars(codec.MessageCodec).items()
        if inspect.isfunction(value) and not name.startswith("_")
    }  # fmt: skip
    public = {name for name in vars(extension.MessageCodec) if not name.startswith("_")}
    assert declared == public
    stub = (ROOT / "src" / "penstock" / "_codec.pyi").read_text()
    assert set(re.findall(r"def (\w+)\(", stub)) - {"__init__"} == public
