"""decode(encode(x)) == x for every message and version that the table holds, and clean failure for
every cut and every lie about a length."""

# ruff: noqa: PT011 - ValueError without more is the contract
from __future__ import annotations

import struct

import pytest
import wire_schema
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock._codec import MessageCodec

CODEC = MessageCodec()
MESSAGES = [m for m in wire_schema.messages() if m.kind != "header"]


def encode(message: wire_schema.Message, version: int, value: object) -> bytes:
    if message.kind == "request":
        return CODEC.encode_request(message.api_key, version, 99, "client", value)
    if message.kind == "response":
        return CODEC.encode_response(message.api_key, version, 99, value)
    return CODEC.encode_record(message.name, version, value)


def decode(message: wire_schema.Message, version: int, frame: bytes) -> object:
    if message.kind == "request":
        return CODEC.decode_request(message.api_key, version, frame)[1]
    if message.kind == "response":
        return CODEC.decode_response(message.api_key, version, frame)[1]
    return CODEC.decode_record(message.name, frame)[1]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: m.name)
def test_decoding_what_was_encoded_gives_the_same_message(message: wire_schema.Message) -> None:
    @settings(max_examples=2 * (message.last - message.first + 1), deadline=None)
    @given(st.data())
    def check(data: st.DataObject) -> None:
        version = data.draw(st.integers(message.first, message.last))
        value = data.draw(wire_schema.values(message, message.root, version))
        frame = encode(message, version, value)
        assert decode(message, version, frame) == value
        assert encode(message, version, decode(message, version, frame)) == frame

    check()


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: m.name)
def test_defaults_round_trip(message: wire_schema.Message) -> None:
    for version in range(message.first, message.last + 1):
        value = message.make(message.root)
        assert decode(message, version, encode(message, version, value)) == value


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: m.name)
def test_every_cut_is_refused(message: wire_schema.Message) -> None:
    for version in range(message.first, message.last + 1):
        frame = encode(message, version, wire_schema.full(message, message.root, version))
        assert decode(message, version, frame) == wire_schema.full(message, message.root, version)
        for size in range(len(frame)):
            with pytest.raises(ValueError):
                decode(message, version, frame[:size])


@pytest.mark.parametrize("message", MESSAGES, ids=lambda m: m.name)
def test_every_length_that_lies_fails_cleanly(message: wire_schema.Message) -> None:
    """Whatever stands at any place is overwritten with what a length could be; the result is a
    message or a ValueError, and never takes memory beyond the arena's cap."""
    lies = [
        struct.pack(">i", -1), struct.pack(">i", 0), struct.pack(">i", 2**31 - 1),
        struct.pack(">h", -1), struct.pack(">h", 0), struct.pack(">h", 2**15 - 1),
        b"\0", b"\x7f", b"\xff\xff\xff\xff\x0f", b"\x80\x80\x80\x80\x80\x80",
    ]  # fmt: skip
    version = message.last
    frame = encode(message, version, wire_schema.full(message, message.root, version))
    skip = 2 if message.kind not in ("request", "response") else 0  # record type or version
    for at in range(skip, min(len(frame), 250)):
        for lie in lies:
            try:
                decode(message, version, frame[:at] + lie + frame[at + len(lie) :])
            except ValueError:
                continue


def test_unknown_tagged_fields_are_skipped() -> None:
    """KIP-482: a reader ignores tags that it does not know."""
    frame = CODEC.encode_response(12, 4, 1, wire_schema.find("response", 12).make(
        wire_schema.find("response", 12).root, error_code=7
    ))  # fmt: skip
    assert frame.endswith(b"\0")
    longer = frame[:-1] + b"\x02\x05\x03abc\x64\x00"
    assert CODEC.decode_response(12, 4, longer) == CODEC.decode_response(12, 4, frame)
    with pytest.raises(ValueError):
        CODEC.decode_response(12, 4, frame[:-1] + b"\xff\x7f" + b"\x05\x00" * 300)


def test_values_that_the_wire_cannot_hold_are_refused() -> None:
    heartbeat = wire_schema.find("request", 12)

    def encode_with(**fields: object) -> None:
        CODEC.encode_request(12, 4, 1, None, heartbeat.make(heartbeat.root, **fields))

    for fields in (
        {"group_id": None},
        {"group_id": "x" * 32768},
        {"generation_id": 2**31},
        {"generation_id": 2**70},
        {"group_id": "\ud800"},
    ):
        with pytest.raises(ValueError):
            encode_with(**fields)
    for fields in ({"group_id": 5}, {"generation_id": "5"}, {"generation_id": None}):
        with pytest.raises((TypeError, ValueError)):
            encode_with(**fields)
    with pytest.raises(TypeError):
        CODEC.encode_request(12, 4, 1, None, wire_schema.find("request", 11).make(
            wire_schema.find("request", 11).root
        ))  # fmt: skip


def test_unknown_keys_versions_and_names_are_lookup_errors() -> None:
    with pytest.raises(LookupError):
        CODEC.decode_request(12, 5, b"\0" * 40)
    with pytest.raises(LookupError):
        CODEC.decode_request(4, 0, b"\0" * 40)
    with pytest.raises(LookupError):
        CODEC.decode_record("NoSuchRecord", b"\0\0")
    with pytest.raises(LookupError):
        CODEC.decode_record("FetchRequest", b"\0\0")
    with pytest.raises(LookupError):
        CODEC.decode_record("GroupMetadataKey", b"\0\x01")


def test_invalid_utf8_is_refused() -> None:
    heartbeat = wire_schema.find("request", 12)
    frame = CODEC.encode_request(12, 4, 1, None, heartbeat.make(heartbeat.root, group_id="abc"))
    with pytest.raises(ValueError):
        CODEC.decode_request(12, 4, frame.replace(b"abc", b"a\xffc"))
