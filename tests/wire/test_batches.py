"""Record batches from Python: round trips, and kafka-python's reader and writer as oracles."""

# ruff: noqa: PT011 - ValueError without more is the contract
from __future__ import annotations

import random

import google_crc32c
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

from penstock._codec import MessageCodec

CODEC = MessageCodec()
RECORDS = st.lists(
    st.tuples(
        st.integers(0, 2**41),
        st.none() | st.binary(max_size=40),
        st.none() | st.binary(max_size=200),
        st.lists(
            st.tuples(st.text(max_size=4).map(str.encode), st.none() | st.binary(max_size=8)),
            max_size=3,
        ),
    ),
    min_size=1,
    max_size=20,
)


@settings(deadline=None)
@given(RECORDS, st.integers(0, 4), st.integers(0, 2**62))
def test_decoding_a_built_batch_gives_its_records(records, codec, base_offset) -> None:
    batch = CODEC.build_batch(records, base_offset=base_offset, codec=codec)
    decoded = CODEC.decode_batches(batch + batch)
    expected = [
        (base_offset + index, timestamp, key, value, headers)
        for index, (timestamp, key, value, headers) in enumerate(records)
    ]
    assert decoded == expected * 2
    assert int.from_bytes(batch[17:21], "big") == google_crc32c.value(batch[21:])


@settings(deadline=None)
@given(RECORDS)
def test_kafka_python_reads_what_we_build(records) -> None:
    batch = CODEC.build_batch(records, base_offset=5, producer_id=9, producer_epoch=1,
                              base_sequence=4)  # fmt: skip
    parsed = DefaultRecordBatch(bytearray(batch))
    assert parsed.validate_crc()
    assert (parsed.producer_id, parsed.producer_epoch, parsed.base_sequence) == (9, 1, 4)
    assert [(r.timestamp, r.key, r.value) for r in parsed] == [r[:3] for r in records]


@pytest.mark.parametrize("codec", [0, 1, 3, 4])
def test_we_read_what_kafka_python_builds(codec: int) -> None:
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=codec, is_transactional=0, producer_id=-1, producer_epoch=-1,
        base_sequence=-1, batch_size=10**6,
    )  # fmt: skip
    for index in range(100):
        builder.append(
            offset=index, timestamp=1000 + index, key=b"k%d" % index, value=b"v" * index,
            headers=[("h", b"x")],
        )  # fmt: skip
    decoded = CODEC.decode_batches(bytes(builder.build()))
    assert decoded == [(i, 1000 + i, b"k%d" % i, b"v" * i, [(b"h", b"x")]) for i in range(100)]


def test_a_batch_cut_at_the_end_is_left_out_and_a_damaged_one_is_refused() -> None:
    batch = CODEC.build_batch([(1, b"a", b"b", [])])
    assert len(CODEC.decode_batches(batch + batch[:-1])) == 1
    rng = random.Random(1)
    for _ in range(200):
        at = rng.randrange(21, len(batch))
        damaged = bytearray(batch)
        damaged[at] ^= 1 << rng.randrange(8)
        with pytest.raises(ValueError):
            CODEC.decode_batches(damaged)


def test_log_append_time_and_control_batches() -> None:
    stamped = CODEC.build_batch([(1, None, b"b", []), (9, None, b"c", [])], attributes=8)
    assert [record[1] for record in CODEC.decode_batches(stamped)] == [9, 9]
    assert CODEC.decode_batches(CODEC.build_batch([(1, b"\0\0\0\1", b"", [])], attributes=32)) == []


def test_an_empty_batch_cannot_be_built() -> None:
    with pytest.raises(ValueError):
        CODEC.build_batch([])
    with pytest.raises(LookupError):
        CODEC.build_batch([(1, None, None, [])], codec=5)
