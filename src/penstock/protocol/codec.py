"""What the rest of the Python half sees of the message codec.

The codec itself is C (native/wire/message.h) behind the extension module `penstock._codec`; only
the engine module imports that and hands it on. Everything else is typed against `MessageCodec`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

    from penstock.protocol.message import Message
    from penstock.protocol.messages.headers import RequestHeader

__all__ = ["DecodedRecord", "Headers", "MessageCodec", "RecordToWrite"]

Headers: TypeAlias = "Sequence[tuple[bytes, bytes | None]]"

# offset, timestamp (ms), key, value, headers
DecodedRecord: TypeAlias = (
    "tuple[int, int, bytes | None, bytes | None, list[tuple[bytes, bytes | None]]]"
)

# timestamp (ms), key, value, headers
RecordToWrite: TypeAlias = "tuple[int, bytes | None, bytes | None, Headers]"


class MessageCodec(Protocol):
    """Bytes to message objects and back, for every key and version that Kafka 4.4 defines.

    A decode of bytes that are not what they claim raises `ValueError`; an unknown key, version or
    name raises `LookupError`; a value that the wire cannot hold (null where not allowed, an integer
    out of range, a string above 32767 bytes) raises `ValueError` or `TypeError`. Frames are without
    the 4-byte length before them. UUIDs are `bytes` of length 16. Fields outside the version are
    dropped when writing and take the schema's default when reading.
    """

    def decode_request(
        self, api_key: int, version: int, frame: bytes
    ) -> tuple[RequestHeader, Message]:
        """(RequestHeader, the request) of a frame that starts at the header."""
        ...

    def encode_request(
        self,
        api_key: int,
        version: int,
        correlation_id: int,
        client_id: str | None,
        message: Message,
    ) -> bytes:
        """A frame: header and request."""
        ...

    def decode_response(self, api_key: int, version: int, frame: bytes) -> tuple[int, Message]:
        """(correlation id, the response) of a frame that starts at the header."""
        ...

    def encode_response(
        self, api_key: int, version: int, correlation_id: int, message: Message
    ) -> bytes:
        """A frame: header and response."""
        ...

    def decode_record(self, name: str, data: bytes) -> tuple[int, Message]:
        """(version, message) of an internal topic's key or value, by Kafka's schema name.

        `data` starts with the int16 that stands before it in the topic: the record type of a key,
        the version of a value or of other data. The version of a key is 0.
        """
        ...

    def encode_record(self, name: str, version: int, message: Message) -> bytes:
        """The reverse of `decode_record`."""
        ...

    def decode_batches(self, data: bytes) -> list[DecodedRecord]:
        """All records of consecutive magic 2 batches, decompressed; control batches are left out.

        A batch that is cut off at the end is ignored, as a fetch response may end within one.
        """
        ...

    def build_batch(
        self,
        records: Sequence[RecordToWrite],
        *,
        base_offset: int = 0,
        leader_epoch: int = -1,
        producer_id: int = -1,
        producer_epoch: int = -1,
        base_sequence: int = -1,
        attributes: int = 0,
        codec: int = 0,
    ) -> bytes:
        """One magic 2 batch of at least one record. `codec` is Kafka's id (0 none ... 4 zstd)."""
        ...
