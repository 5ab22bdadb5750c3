from collections.abc import Sequence

from penstock.protocol.codec import DecodedRecord, RecordToWrite
from penstock.protocol.message import Message
from penstock.protocol.messages.headers import RequestHeader

class MessageCodec:
    def __init__(self) -> None: ...
    def decode_request(
        self, api_key: int, version: int, frame: bytes | bytearray | memoryview
    ) -> tuple[RequestHeader, Message]: ...
    def encode_request(
        self,
        api_key: int,
        version: int,
        correlation_id: int,
        client_id: str | None,
        message: Message,
    ) -> bytes: ...
    def decode_response(
        self, api_key: int, version: int, frame: bytes | bytearray | memoryview
    ) -> tuple[int, Message]: ...
    def encode_response(
        self, api_key: int, version: int, correlation_id: int, message: Message
    ) -> bytes: ...
    def decode_record(
        self, name: str, data: bytes | bytearray | memoryview
    ) -> tuple[int, Message]: ...
    def encode_record(self, name: str, version: int, message: Message) -> bytes: ...
    def decode_batches(self, data: bytes | bytearray | memoryview) -> list[DecodedRecord]: ...
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
    ) -> bytes: ...
