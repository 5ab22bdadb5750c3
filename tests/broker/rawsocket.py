"""A socket that sends what no client would, and reads frames back."""

from __future__ import annotations

import socket
import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def header(key: int, version: int, correlation: int = 7, client: bytes | None = b"raw") -> bytes:
    """Request header v1 (v2's tagged fields, where needed, are the caller's)."""
    named = struct.pack(">h", -1) if client is None else struct.pack(">h", len(client)) + client
    return struct.pack(">hhi", key, version, correlation) + named


def framed(body: bytes) -> bytes:
    return struct.pack(">i", len(body)) + body


class RawSocket:
    """One connection; every wait has a time limit."""

    def __init__(self, bootstrap: str, timeout: float = 20) -> None:
        host, _, port = bootstrap.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=timeout)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            part = self.socket.recv(size - len(data))
            if not part:
                raise ConnectionError("closed")
            data += part
        return bytes(data)

    def frame(self) -> bytes:
        (size,) = struct.unpack(">i", self.exactly(4))
        return self.exactly(size)

    def closed(self) -> bool:
        """True when the broker closes the connection without another byte; False when it sends or
        stays.
        """
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False


@contextmanager
def connected(bootstrap: str, timeout: float = 20) -> Iterator[RawSocket]:
    raw = RawSocket(bootstrap, timeout)
    try:
        yield raw
    finally:
        raw.socket.close()
