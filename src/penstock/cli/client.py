"""A tiny synchronous client for administration: one connection, one request at a time.

It finds the versions both sides know with ApiVersions, and uses the broker's own codec.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from penstock.errors import PenstockError
from penstock.protocol.api_table import SUPPORTED

if TYPE_CHECKING:
    from typing import Self

    from penstock.protocol.codec import MessageCodec

_API_VERSIONS = 18
_MAX_RESPONSE_BYTES = 256 * 1024 * 1024


class AdminClient:
    """PenstockError or OSError for everything that goes wrong."""

    def __init__(
        self, bootstrap: str, *, timeout: float = 30.0, codec: MessageCodec | None = None
    ) -> None:
        if codec is None:
            from penstock.engine import message_codec

            codec = message_codec()
        self._codec = codec
        host, colon, port = bootstrap.rpartition(":")
        if not colon or not port.isdigit():
            raise PenstockError(f"{bootstrap} is not HOST:PORT")
        try:
            self._socket = socket.create_connection((host.strip("[]"), int(port)), timeout)
        except OSError as error:
            reason = error.strerror or str(error)
            raise PenstockError(f"cannot connect to {bootstrap}: {reason}") from error
        self._correlation = 0
        self._versions: dict[int, tuple[int, int]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def call(self, api_key: int, request: Any, version: int | None = None) -> Any:
        """The response to `request`, in the newest version both sides know."""
        if version is None:
            version = self._version(api_key)
        self._correlation += 1
        frame = self._codec.encode_request(
            api_key, version, self._correlation, "penstock-cli", request
        )
        self._socket.sendall(len(frame).to_bytes(4, "big") + frame)
        size = int.from_bytes(self._read(4), "big")
        if size > _MAX_RESPONSE_BYTES:
            raise PenstockError(f"the broker announces a response of {size} bytes")
        correlation, response = self._codec.decode_response(api_key, version, self._read(size))
        if correlation != self._correlation:
            raise PenstockError("the broker answered another request than was asked")
        return response

    def _version(self, api_key: int) -> int:
        if not self._versions:
            from penstock.protocol.messages.api_versions import ApiVersionsRequest

            answer = self.call(_API_VERSIONS, ApiVersionsRequest(), version=0)
            self._versions = {
                one.api_key: (one.min_version, one.max_version) for one in answer.api_keys
            }
        ours = SUPPORTED[api_key]
        low, high = self._versions.get(api_key, (0, -1))
        version = min(ours.max, high)
        if version < max(ours.min, low):
            raise PenstockError(f"the broker has no version of {ours.name} that this client knows")
        return version

    def _read(self, size: int) -> bytes:
        parts: list[bytes] = []
        while size:
            part = self._socket.recv(min(size, 1 << 20))
            if not part:
                raise PenstockError("the broker closed the connection")
            parts.append(part)
            size -= len(part)
        return b"".join(parts)
