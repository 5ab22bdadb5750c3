"""Kafka's own records of `__consumer_offsets` for classic groups and committed offsets.

Purpose: the schemas OffsetCommitKey/Value and GroupMetadataKey/Value in the versions that Apache
Kafka 4.4 writes (offset value 4, or 1 with an expiry of its own; group value 3), and all older
ones for reading. Fields have Kafka's names in snake case. It leaves out the records of consumer,
share and streams groups: their types are reported, never touched.

Bytes from the log are outside data: every read is bounded, and bad bytes raise ValueError.
"""

from __future__ import annotations

import struct
from typing import Any, NamedTuple

from penstock.groups.ports import ZERO_ID

# Record types: the int16 that begins a key.
LEGACY_OFFSET_COMMIT = 0
OFFSET_COMMIT = 1
GROUP_METADATA = 2

OFFSET_VALUE_VERSION = 4
OFFSET_VALUE_VERSION_WITH_EXPIRY = 1
GROUP_VALUE_VERSION = 3


class OffsetCommitKey(NamedTuple):
    group: str
    topic: str
    partition: int


class OffsetCommitValue(NamedTuple):
    """`commit_timestamp` and `expire_timestamp` are wall clock milliseconds; -1: none."""

    offset: int
    leader_epoch: int
    metadata: str
    commit_timestamp: int
    expire_timestamp: int
    topic_id: bytes


class GroupMetadataKey(NamedTuple):
    group: str


class MemberMetadata(NamedTuple):
    member_id: str
    group_instance_id: str | None
    client_id: str
    client_host: str
    rebalance_timeout: int
    session_timeout: int
    subscription: bytes
    assignment: bytes


class GroupMetadataValue(NamedTuple):
    protocol_type: str
    generation: int
    protocol: str | None
    leader: str | None
    current_state_timestamp: int
    members: list[MemberMetadata]


class Cursor:
    """Bounded reader over one record: every method raises ValueError at the end of the bytes."""

    __slots__ = ("at", "data", "end")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.end = len(data)

    def take(self, size: int) -> bytes:
        if size < 0 or size > self.end - self.at:
            raise ValueError("record ends early")
        start = self.at
        self.at = start + size
        return self.data[start : start + size]

    def int16(self) -> int:
        return int.from_bytes(self.take(2), "big", signed=True)

    def int32(self) -> int:
        return int.from_bytes(self.take(4), "big", signed=True)

    def int64(self) -> int:
        return int.from_bytes(self.take(8), "big", signed=True)

    def unsigned_varint(self) -> int:
        value = 0
        for shift in range(0, 35, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if value > 0xFFFFFFFF:
                    break
                return value
        raise ValueError("varint is too long")

    def nullable_string(self, flexible: bool) -> str | None:
        size = self.unsigned_varint() - 1 if flexible else self.int16()
        if size == -1:
            return None
        return self.take(size).decode()

    def string(self, flexible: bool) -> str:
        value = self.nullable_string(flexible)
        if value is None:
            raise ValueError("null where a string must be")
        return value

    def blob(self, flexible: bool) -> bytes:
        return self.take(self.unsigned_varint() - 1 if flexible else self.int32())

    def count(self, flexible: bool, smallest: int) -> int:
        """An array's count, refused when the bytes left cannot hold that many elements."""
        count = self.unsigned_varint() - 1 if flexible else self.int32()
        if count < 0 or count > (self.end - self.at) // smallest:
            raise ValueError("array is longer than the record")
        return count

    def tagged(self) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        for _ in range(self.unsigned_varint()):
            tag = self.unsigned_varint()
            found[tag] = self.take(self.unsigned_varint())
        return found


def _string(value: str) -> bytes:
    raw = value.encode()
    if len(raw) > 0x7FFF:
        raise ValueError("string is longer than a record can hold")
    return len(raw).to_bytes(2, "big") + raw


def _nullable(value: str | None) -> bytes:
    return b"\xff\xff" if value is None else _string(value)


def _blob(value: bytes) -> bytes:
    return len(value).to_bytes(4, "big") + value


def _unsigned_varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


_OFFSET_HEAD = struct.Struct(">hqi")
_LONG = struct.Struct(">q")


def encode_offset_key(group: str, topic: str, partition: int) -> bytes:
    return b"\x00\x01" + _string(group) + _string(topic) + partition.to_bytes(4, "big", signed=True)


def encode_offset_value(value: OffsetCommitValue) -> bytes:
    """Version 4, or 1 for an offset that carries its own expiry, as Kafka 4.4 chooses."""
    if value.expire_timestamp != -1:
        return b"".join(
            (
                b"\x00\x01",
                _LONG.pack(value.offset),
                _string(value.metadata),
                _LONG.pack(value.commit_timestamp),
                _LONG.pack(value.expire_timestamp),
            )
        )
    metadata = value.metadata.encode()
    tail = b"\x00" if value.topic_id == ZERO_ID else b"\x01\x00\x10" + value.topic_id
    return b"".join(
        (
            _OFFSET_HEAD.pack(4, value.offset, value.leader_epoch),
            _unsigned_varint(len(metadata) + 1),
            metadata,
            _LONG.pack(value.commit_timestamp),
            tail,
        )
    )


def encode_group_key(group: str) -> bytes:
    return b"\x00\x02" + _string(group)


def encode_group_value(value: GroupMetadataValue) -> bytes:
    parts = [
        b"\x00\x03",
        _string(value.protocol_type),
        value.generation.to_bytes(4, "big", signed=True),
        _nullable(value.protocol),
        _nullable(value.leader),
        _LONG.pack(value.current_state_timestamp),
        len(value.members).to_bytes(4, "big"),
    ]
    for member in value.members:
        parts += (
            _string(member.member_id),
            _nullable(member.group_instance_id),
            _string(member.client_id),
            _string(member.client_host),
            struct.pack(">ii", member.rebalance_timeout, member.session_timeout),
            _blob(member.subscription),
            _blob(member.assignment),
        )
    return b"".join(parts)


def record_type(key: bytes) -> int:
    """The int16 that says what a key is; ValueError when there is none."""
    if len(key) < 2:
        raise ValueError("key is too short")
    return int.from_bytes(key[:2], "big", signed=True)


def decode_offset_key(data: bytes) -> OffsetCommitKey:
    cursor = Cursor(data)
    cursor.take(2)
    return OffsetCommitKey(cursor.string(False), cursor.string(False), cursor.int32())


def decode_group_key(data: bytes) -> GroupMetadataKey:
    cursor = Cursor(data)
    cursor.take(2)
    return GroupMetadataKey(cursor.string(False))


def decode_offset_value(data: bytes) -> OffsetCommitValue:
    cursor = Cursor(data)
    version = cursor.int16()
    # A newer version may only add tagged fields (KIP-915).
    if version < 0:
        raise ValueError(f"offset record has version {version}")
    flexible = version >= 4
    offset = cursor.int64()
    leader_epoch = cursor.int32() if version >= 3 else -1
    metadata = cursor.string(flexible)
    commit_timestamp = cursor.int64()
    expire_timestamp = cursor.int64() if version == 1 else -1
    topic_id = ZERO_ID
    if flexible:
        topic_id = cursor.tagged().get(0, ZERO_ID)
        if len(topic_id) != 16:
            raise ValueError("topic id is not 16 bytes")
    return OffsetCommitValue(
        offset, leader_epoch, metadata, commit_timestamp, expire_timestamp, topic_id
    )


def decode_group_value(data: bytes) -> GroupMetadataValue:
    cursor = Cursor(data)
    version = cursor.int16()
    if version < 0:
        raise ValueError(f"group record has version {version}")
    flexible = version >= 4
    protocol_type = cursor.string(flexible)
    generation = cursor.int32()
    protocol = cursor.nullable_string(flexible)
    leader = cursor.nullable_string(flexible)
    timestamp = cursor.int64() if version >= 2 else -1
    members: list[MemberMetadata] = []
    for _ in range(cursor.count(flexible, 8)):
        member_id = cursor.string(flexible)
        instance_id = cursor.nullable_string(flexible) if version >= 3 else None
        client_id = cursor.string(flexible)
        client_host = cursor.string(flexible)
        rebalance_timeout = cursor.int32() if version >= 1 else -1
        session_timeout = cursor.int32()
        subscription = cursor.blob(flexible)
        assignment = cursor.blob(flexible)
        if flexible:
            cursor.tagged()
        members.append(
            MemberMetadata(
                member_id,
                instance_id,
                client_id,
                client_host,
                rebalance_timeout,
                session_timeout,
                subscription,
                assignment,
            )
        )
    if flexible:
        cursor.tagged()
    return GroupMetadataValue(protocol_type, generation, protocol, leader, timestamp, members)


class PlainRecordCodec:
    """`ports.RecordCodec` in pure Python: the model for others, and what the tests use. It writes
    the versions that Kafka 4.4 writes, whichever is asked for."""

    def encode_record(self, name: str, _version: int, message: Any) -> bytes:
        if name == "OffsetCommitKey":
            return encode_offset_key(message.group, message.topic, message.partition)
        if name == "OffsetCommitValue":
            return encode_offset_value(message)
        if name == "GroupMetadataKey":
            return encode_group_key(message.group)
        if name == "GroupMetadataValue":
            return encode_group_value(message)
        raise ValueError(f"no record {name}")

    def decode_record(self, name: str, data: bytes) -> Any:
        decode = {
            "OffsetCommitKey": decode_offset_key,
            "OffsetCommitValue": decode_offset_value,
            "GroupMetadataKey": decode_group_key,
            "GroupMetadataValue": decode_group_value,
        }.get(name)
        if decode is None:
            raise ValueError(f"no record {name}")
        return decode(data)
