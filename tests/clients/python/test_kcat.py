"""Debian's kcat in the modes that people type."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from adapters import kcat

if TYPE_CHECKING:
    import penstock


def test_write_and_read_lines(penstock_broker: penstock.Broker) -> None:
    bootstrap = penstock_broker.bootstrap_servers
    kcat(bootstrap, "-t", "kcat-lines", "-P", stdin=b"one\ntwo\nthree\n")
    assert kcat(bootstrap, "-t", "kcat-lines", "-C", "-e", "-q") == b"one\ntwo\nthree\n"


def test_keys_format_and_offsets(penstock_broker: penstock.Broker) -> None:
    bootstrap = penstock_broker.bootstrap_servers
    kcat(bootstrap, "-t", "kcat-keys", "-P", "-K", ":", stdin=b"a:1\nb:2\nc:3\n")
    got = kcat(bootstrap, "-t", "kcat-keys", "-C", "-e", "-q", "-o", "1", "-f", "%k=%s@%o\n")
    assert got == b"b=2@1\nc=3@2\n"
    assert kcat(bootstrap, "-t", "kcat-keys", "-C", "-e", "-q", "-o", "-1") == b"3\n"


def test_metadata_as_json(penstock_broker: penstock.Broker) -> None:
    bootstrap = penstock_broker.bootstrap_servers
    kcat(bootstrap, "-t", "kcat-json", "-P", stdin=b"x\n")
    listed = json.loads(kcat(bootstrap, "-L", "-J"))
    assert listed["brokers"][0]["name"] == bootstrap
    assert "kcat-json" in {topic["topic"] for topic in listed["topics"]}


def test_offset_of_a_timestamp(penstock_broker: penstock.Broker) -> None:
    bootstrap = penstock_broker.bootstrap_servers
    kcat(bootstrap, "-t", "kcat-query", "-P", stdin=b"x\ny\n")
    assert b"offset 0" in kcat(bootstrap, "-Q", "-t", "kcat-query:0:1")
