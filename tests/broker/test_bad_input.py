"""Bad input gets Kafka's error or a closed connection, and costs nobody else anything."""

from __future__ import annotations

import os
import random
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from rawsocket import RawSocket, connected, framed, header

if TYPE_CHECKING:
    import penstock

API_VERSIONS, METADATA, PRODUCE, FETCH = 18, 3, 0, 1


def alive(broker: penstock.Broker) -> None:
    """The broker still answers a well-behaved client."""
    with connected(broker.bootstrap_servers) as raw:
        raw.send(framed(header(API_VERSIONS, 0)))
        answer = raw.frame()
    assert struct.unpack_from(">ih", answer) == (7, 0)


@pytest.mark.parametrize("size", [-1, -(2**31), 0, 2**31 - 1, 200 << 20])
def test_a_frame_size_that_cannot_be_closes_the_connection(
    penstock_broker: penstock.Broker, size: int
) -> None:
    with connected(penstock_broker.bootstrap_servers) as raw:
        raw.send(struct.pack(">i", size))
        assert raw.closed()
    alive(penstock_broker)


def test_api_versions_too_new_gets_error_35_in_a_v0_body(penstock_broker: penstock.Broker) -> None:
    with connected(penstock_broker.bootstrap_servers) as raw:
        raw.send(framed(header(API_VERSIONS, 99) + b"\0\1\1\0"))
        answer = raw.frame()
    correlation, error, count = struct.unpack_from(">ihi", answer)
    assert (correlation, error, count) == (7, 35, 1)
    assert struct.unpack_from(">hhh", answer, 10) == (API_VERSIONS, 0, 5)
    assert len(answer) == 16


@pytest.mark.parametrize(
    ("key", "version"), [(999, 0), (-1, 0), (METADATA, 99), (PRODUCE, 2), (4, 0)]
)
def test_unknown_keys_and_versions_close_the_connection(
    penstock_broker: penstock.Broker, key: int, version: int
) -> None:
    with connected(penstock_broker.bootstrap_servers) as raw:
        raw.send(framed(header(key, version) + bytes(32)))
        assert raw.closed()
    alive(penstock_broker)


def test_a_count_that_lies_allocates_nothing(penstock_broker: penstock.Broker) -> None:
    for count in (2**31 - 1, 1_000_000, -2):
        with connected(penstock_broker.bootstrap_servers) as raw:
            raw.send(framed(header(METADATA, 1) + struct.pack(">i", count)))
            assert raw.closed()
    alive(penstock_broker)


def test_two_byte_tagged_fields_by_the_million_close_the_connection(
    penstock_broker: penstock.Broker,
) -> None:
    tags = b"".join(bytes([tag & 0x7F | 0x80, tag >> 7]) + b"\0" for tag in range(1, 16384))
    body = header(API_VERSIONS, 3) + bytes([0xFF, 0x7F]) + tags
    with connected(penstock_broker.bootstrap_servers) as raw:
        raw.send(framed(body))
        assert raw.closed()
    alive(penstock_broker)


def test_half_a_frame_waits_and_the_rest_completes_it(penstock_broker: penstock.Broker) -> None:
    request = framed(header(API_VERSIONS, 0))
    with connected(penstock_broker.bootstrap_servers) as raw:
        for byte in request[:-1]:
            raw.send(bytes([byte]))
        alive(penstock_broker)
        raw.send(request[-1:])
        assert struct.unpack_from(">ih", raw.frame()) == (7, 0)


def test_many_requests_in_one_packet_are_answered_in_order(
    penstock_broker: penstock.Broker,
) -> None:
    with connected(penstock_broker.bootstrap_servers) as raw:
        raw.send(b"".join(framed(header(API_VERSIONS, 0, number)) for number in range(200)))
        got = [struct.unpack_from(">i", raw.frame())[0] for _ in range(200)]
    assert got == list(range(200))


def test_control_and_reactor_requests_mixed_are_answered_in_order(
    penstock_broker: penstock.Broker,
) -> None:
    describe_cluster = 60
    with connected(penstock_broker.bootstrap_servers) as raw:
        for number in range(50):
            raw.send(framed(header(API_VERSIONS, 0, 2 * number)))
            raw.send(framed(header(describe_cluster, 0, 2 * number + 1) + b"\0\0\0"))
        got = [struct.unpack_from(">i", raw.frame())[0] for _ in range(100)]
    assert got == list(range(100))


def test_random_bytes_never_hurt_others(penstock_broker: penstock.Broker) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(300):
        key = chance.choice([*range(70), 1000])
        body = header(key, chance.randrange(0, 14)) + chance.randbytes(chance.randrange(0, 200))
        with connected(penstock_broker.bootstrap_servers) as raw:
            raw.send(framed(body))
    alive(penstock_broker)


def pss(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise AssertionError


def test_unfinished_frames_are_charged_as_their_bytes_arrive(
    penstock_broker: penstock.Broker,
) -> None:
    before = pss(os.getpid())
    sockets = [RawSocket(penstock_broker.bootstrap_servers) for _ in range(200)]
    for raw in sockets:
        raw.send(struct.pack(">i", 30 << 20) + header(PRODUCE, 9))
    alive(penstock_broker)
    grown = pss(os.getpid()) - before
    for raw in sockets:
        raw.socket.close()
    assert grown < 64 << 10, f"{grown} KiB for 200 connections that sent 30 bytes each"


def auto_create(raw: RawSocket, topic: bytes) -> None:
    """Names the topic in Metadata until it is there; the first answer only begins its creation."""
    for _ in range(1000):
        raw.send(framed(header(METADATA, 4) + struct.pack(">ih", 1, len(topic)) + topic + b"\1"))
        if b"\0\0\0\1\0\0" + struct.pack(">h", len(topic)) + topic in raw.frame():
            return
    raise AssertionError(f"{topic!r} was not created")


def batch(**changes: int) -> bytes:
    """A valid batch of one record, with header fields changed before (crc: after) the checksum."""
    import google_crc32c

    record = bytes([14, 0, 0, 0, 1, 2, ord("x"), 0])
    fields = {
        "attributes": 0,
        "last_delta": 0,
        "base_time": 1_700_000_000_000,
        "max_time": 1_700_000_000_000,
        "producer": -1,
        "epoch": -1,
        "sequence": -1,
        "count": 1,
        "magic": 2,
        "crc_xor": 0,
        "length_add": 0,
        **changes,
    }
    covered = struct.pack(
        ">hiqqqhii",
        *(fields[name] for name in ("attributes", "last_delta", "base_time", "max_time")),
        *(fields[name] for name in ("producer", "epoch", "sequence", "count")),
    )
    covered += record
    crc = google_crc32c.value(covered) ^ fields["crc_xor"]
    body = struct.pack(">ibI", -1, fields["magic"], crc) + covered
    return struct.pack(">qi", 0, len(body) + fields["length_add"]) + body


def produce(raw: RawSocket, topic: bytes, payload: bytes, version: int = 7, acks: int = -1) -> int:
    """The error code of partition 0."""
    body = struct.pack(">hhii", -1, acks, 30000, 1) + struct.pack(">h", len(topic)) + topic
    body += struct.pack(">iii", 1, 0, len(payload)) + payload
    raw.send(framed(header(PRODUCE, version) + body))
    answer = raw.frame()
    code: int = struct.unpack_from(">h", answer, 4 + 4 + 2 + len(topic) + 4 + 4)[0]
    return code


CORRUPT_MESSAGE, UNKNOWN_TOPIC, TOO_LARGE, BAD_TIMESTAMP = 2, 3, 10, 32
UNSUPPORTED_FORMAT, OUT_OF_ORDER, INVALID_TXN_STATE, BAD_CODEC, INVALID_RECORD = 43, 45, 48, 76, 87


@pytest.mark.parametrize(
    ("changes", "codes"),
    [
        ({}, {0}),
        ({"crc_xor": 1}, {CORRUPT_MESSAGE}),
        ({"count": 2, "last_delta": 1}, {INVALID_RECORD, CORRUPT_MESSAGE}),
        ({"count": 2}, {INVALID_RECORD, CORRUPT_MESSAGE}),
        ({"count": -1}, {INVALID_RECORD, CORRUPT_MESSAGE}),
        ({"count": 2**31 - 1, "last_delta": 2**31 - 2}, {INVALID_RECORD, CORRUPT_MESSAGE}),
        ({"attributes": 5}, {BAD_CODEC, INVALID_RECORD, CORRUPT_MESSAGE}),
        ({"attributes": 0x20, "producer": 1, "epoch": 0}, {INVALID_RECORD}),
        ({"attributes": 0x10, "producer": 1, "epoch": 0, "sequence": 0}, {INVALID_TXN_STATE}),
        ({"magic": 1}, {UNSUPPORTED_FORMAT, INVALID_RECORD, CORRUPT_MESSAGE}),
        ({"magic": 9}, {CORRUPT_MESSAGE, INVALID_RECORD, UNSUPPORTED_FORMAT}),
        ({"length_add": 1}, {CORRUPT_MESSAGE, INVALID_RECORD}),
        ({"length_add": -1}, {CORRUPT_MESSAGE, INVALID_RECORD}),
        ({"length_add": -(2**31) + 100}, {CORRUPT_MESSAGE, INVALID_RECORD}),
    ],
    ids=str,
)
def test_bad_batches_get_a_code_and_never_reach_the_log(
    changes: dict[str, int], codes: set[int], request: pytest.FixtureRequest
) -> None:
    broker: penstock.Broker = request.getfixturevalue("penstock_broker")
    topic = b"bad-" + str(abs(hash(request.node.name))).encode()
    with connected(broker.bootstrap_servers) as raw:
        auto_create(raw, topic)
        assert produce(raw, topic, batch()) == 0
        assert produce(raw, topic, batch(**changes)) in codes
        raw.send(
            framed(
                header(2, 1)
                + struct.pack(">iih", -1, 1, len(topic))
                + topic
                + struct.pack(">iiq", 1, 0, -1)
            )
        )
        answer = raw.frame()
    (end,) = struct.unpack_from(">q", answer, len(answer) - 8)
    assert end == (2 if changes == {} else 1)


def test_the_second_duplicate_of_an_idempotent_batch_is_a_success(
    penstock_broker: penstock.Broker,
) -> None:
    topic = b"duplicates"
    with connected(penstock_broker.bootstrap_servers) as raw:
        auto_create(raw, topic)
        first = batch(producer=77, epoch=0, sequence=0)
        assert produce(raw, topic, first) == 0
        assert produce(raw, topic, first) == 0
        assert produce(raw, topic, batch(producer=77, epoch=0, sequence=1)) == 0
        assert produce(raw, topic, batch(producer=77, epoch=0, sequence=9)) == OUT_OF_ORDER


def test_a_batch_beyond_max_message_bytes_is_refused(penstock_broker: penstock.Broker) -> None:
    topic = b"too-large"
    with connected(penstock_broker.bootstrap_servers) as raw:
        auto_create(raw, topic)
        big = batch() + bytes(2 << 20)
        big = struct.pack(">qi", 0, len(big) - 12) + big[12:]
        assert produce(raw, topic, big) in {TOO_LARGE, CORRUPT_MESSAGE}
        assert produce(raw, topic, batch()) == 0


def test_produce_to_a_topic_that_is_not_there(penstock_broker: penstock.Broker) -> None:
    with connected(penstock_broker.bootstrap_servers) as raw:
        assert produce(raw, b"nowhere", batch()) == UNKNOWN_TOPIC


def test_a_client_that_does_not_read_is_not_read_from(penstock_broker: penstock.Broker) -> None:
    request = framed(header(METADATA, 1) + struct.pack(">i", -1))
    with connected(penstock_broker.bootstrap_servers, timeout=2) as raw:
        with pytest.raises(TimeoutError):
            raw.send(request * (64 << 20 >> 4))
        alive(penstock_broker)
