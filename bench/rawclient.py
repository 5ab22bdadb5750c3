"""The smallest Kafka client there is: prepared frames over a blocking socket, for timing a broker
and not a client.

Frames are Metadata v4, CreateTopics v4 and Produce v3 (not flexible), built with struct; only error
codes are read back.
"""

from __future__ import annotations

import socket
import struct
import time

import google_crc32c


def text(value: str) -> bytes:
    return struct.pack(">h", len(value)) + value.encode()


def frame(key: int, version: int, body: bytes) -> bytes:
    head = struct.pack(">hhi", key, version, 1) + text("raw")
    return struct.pack(">i", len(head) + len(body)) + head + body


def batch(value: bytes) -> bytes:
    """One record batch (magic 2) with one record without a key."""

    def varint(number: int) -> bytes:
        number = (number << 1) ^ (number >> 63)
        out = bytearray()
        while number > 0x7F:
            out.append(number & 0x7F | 0x80)
            number >>= 7
        return bytes([*out, number])

    inner = b"\0" + varint(0) + varint(0) + varint(-1) + varint(len(value)) + value + varint(0)
    record = varint(len(inner)) + inner
    now = int(time.time() * 1000)
    covered = struct.pack(">hiqqqhii", 0, 0, now, now, -1, -1, -1, 1) + record
    crc = google_crc32c.value(covered)
    body = struct.pack(">ibI", -1, 2, crc) + covered
    return struct.pack(">qi", 0, len(body)) + body


class RawClient:
    """One blocking connection."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def call(self, request: bytes) -> bytes:
        """The response without size and correlation id."""
        self.socket.sendall(request)
        (size,) = struct.unpack(">i", self._exactly(4))
        return self._exactly(size)[4:]

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            if not part:
                raise ConnectionError("closed by the broker")
            data += part
        return bytes(data)

    def create_topic(self, topic: str, partitions: int) -> None:
        body = struct.pack(">i", 1) + text(topic) + struct.pack(">ihii", partitions, -1, 0, 0)
        answer = self.call(frame(19, 4, body + struct.pack(">ib", 60000, 0)))
        (code,) = struct.unpack_from(">h", answer, 4 + 4 + 2 + len(topic))
        if code:
            raise RuntimeError(f"CreateTopics: error {code}")

    def metadata(self, topic: str) -> None:
        self.call(frame(3, 4, struct.pack(">i", 1) + text(topic) + b"\1"))

    def produce(self, topic: str, partitions: range, payload: bytes) -> list[int]:
        """The error code of each partition."""
        parts = b"".join(
            struct.pack(">ii", partition, len(payload)) + payload for partition in partitions
        )
        body = struct.pack(">hhii", -1, 1, 30000, 1) + text(topic)
        answer = self.call(frame(0, 3, body + struct.pack(">i", len(partitions)) + parts))
        start = 4 + 2 + len(topic) + 4
        return [
            struct.unpack_from(">h", answer, start + index * 22 + 4)[0]
            for index in range(len(partitions))
        ]

    def close(self) -> None:
        self.socket.close()
