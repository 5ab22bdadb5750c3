"""Records of `__consumer_offsets`: bytes as Kafka 4.4's GroupCoordinatorRecordSerde writes them."""

from __future__ import annotations

import pytest

from penstock.groups import records
from penstock.groups.coordinator import java_string_hash, partition_of
from penstock.groups.records import GroupMetadataValue, MemberMetadata, OffsetCommitValue

TOPIC_ID = bytes(range(1, 17))
MEMBERS = [
    MemberMetadata("m-1", "inst", "c", "/127.0.0.1", 60000, 10000, b"\x01\x02\x03", b"\x04"),
    MemberMetadata("m-2", None, "", "/::1", 1, 2, b"", b""),
]
GROUP = GroupMetadataValue("consumer", 3, "range", "m-1", 1700000000001, MEMBERS)

# Written by Kafka 4.4.0.
OFFSET_KEY = "00010003677270000674c3b870696300000007"
OFFSET_V1 = "0001000000000000000900016d00000000000000020000000000000003"
OFFSET_V3 = "000300000000000000090000000400016d0000000000000002"
OFFSET_V4 = (
    "00040000011f71fb04cb00000005056d6574610000018bcfe568000100100102030405060708090a0b0c0d0e0f10"
)
OFFSET_V4_WITHOUT_ID = "00040000000000000001ffffffff01000000000000000200"
GROUP_KEY = "00020003677270"
GROUP_EMPTY = "0003000000000000ffffffff000000000000000500000000"
GROUP_V0 = (
    "00000008636f6e73756d657200000003000572616e676500036d2d310000000200036d2d31000163000a2f3132372e"
    "302e302e310000271000000003010203000000010400036d2d32000000042f3a3a31000000020000000000000000"
)
GROUP_V2 = (
    "00020008636f6e73756d657200000003000572616e676500036d2d310000018bcfe568010000000200036d2d31000163"
    "000a2f3132372e302e302e310000ea600000271000000003010203000000010400036d2d32000000042f3a3a31000000"
    "01000000020000000000000000"
)
GROUP_V3 = (
    "00030008636f6e73756d657200000003000572616e676500036d2d310000018bcfe568010000000200036d2d31000469"
    "6e7374000163000a2f3132372e302e302e310000ea600000271000000003010203000000010400036d2d32ffff000000"
    "042f3a3a3100000001000000020000000000000000"
)
GROUP_V4 = (
    "000409636f6e73756d6572000000030672616e6765046d2d310000018bcfe5680103046d2d3105696e737402630b2f31"
    "32372e302e302e310000ea600000271004010203020400046d2d320001052f3a3a31000000010000000201010000"
)


def test_writes_what_kafka_writes() -> None:
    assert records.encode_offset_key("grp", "tøpic", 7).hex() == OFFSET_KEY
    value = OffsetCommitValue(1234567890123, 5, "meta", 1700000000000, -1, TOPIC_ID)
    assert records.encode_offset_value(value).hex() == OFFSET_V4
    bare = OffsetCommitValue(1, -1, "", 2, -1, bytes(16))
    assert records.encode_offset_value(bare).hex() == OFFSET_V4_WITHOUT_ID
    expiring = OffsetCommitValue(9, -1, "m", 2, 3, TOPIC_ID)
    assert records.encode_offset_value(expiring).hex() == OFFSET_V1
    assert records.encode_group_key("grp").hex() == GROUP_KEY
    assert records.encode_group_value(GROUP).hex() == GROUP_V3
    empty = GroupMetadataValue("", 0, None, None, 5, [])
    assert records.encode_group_value(empty).hex() == GROUP_EMPTY


def test_reads_every_version_that_kafka_wrote() -> None:
    assert records.decode_offset_key(bytes.fromhex(OFFSET_KEY)) == ("grp", "tøpic", 7)
    decode = records.decode_offset_value
    assert decode(bytes.fromhex(OFFSET_V1)) == (9, -1, "m", 2, 3, bytes(16))
    assert decode(bytes.fromhex(OFFSET_V3)) == (9, 4, "m", 2, -1, bytes(16))
    assert decode(bytes.fromhex(OFFSET_V4)) == (
        1234567890123,
        5,
        "meta",
        1700000000000,
        -1,
        TOPIC_ID,
    )
    for raw in (GROUP_V3, GROUP_V4):
        assert records.decode_group_value(bytes.fromhex(raw)) == GROUP
    dynamic = [MEMBERS[0]._replace(group_instance_id=None), MEMBERS[1]]
    assert records.decode_group_value(bytes.fromhex(GROUP_V2)) == GROUP._replace(members=dynamic)
    oldest = records.decode_group_value(bytes.fromhex(GROUP_V0))
    assert oldest.current_state_timestamp == -1
    assert [m.rebalance_timeout for m in oldest.members] == [-1, -1]


@pytest.mark.parametrize("raw", [OFFSET_V1, OFFSET_V3, OFFSET_V4, GROUP_V0, GROUP_V3, GROUP_V4])
def test_a_record_cut_anywhere_is_refused(raw: str) -> None:
    data = bytes.fromhex(raw)
    is_offset = raw.startswith(("0001", "00030000", "00040000"))
    decode = records.decode_offset_value if is_offset else records.decode_group_value
    for size in range(len(data)):
        with pytest.raises(ValueError, match="record"):
            decode(data[:size])


def test_a_count_beyond_the_record_is_refused_before_anything_is_made() -> None:
    data = bytearray.fromhex(GROUP_EMPTY)
    data[-4:] = b"\x7f\xff\xff\xff"
    with pytest.raises(ValueError, match="array"):
        records.decode_group_value(bytes(data))
    data[-4:] = b"\xff\xff\xff\xff"
    with pytest.raises(ValueError, match="array"):
        records.decode_group_value(bytes(data))


@pytest.mark.parametrize(
    ("group", "code", "partition"),
    [
        ("", 0, 0),
        ("grp", 102629, 29),
        ("my-group", -1906497762, 12),
        ("конзумер", -280589406, 6),
        ("😀group", -1231696132, 32),
        ("polygenelubricants", -2147483648, 0),
        ("a-much-longer-consumer-group-name-0123456789", -1656961550, 0),
    ],
)
def test_a_group_has_the_partition_that_kafka_gives_it(
    group: str, code: int, partition: int
) -> None:
    assert java_string_hash(group) == code
    assert partition_of(group, 50) == partition


def test_the_codec_port_knows_all_four_records() -> None:
    codec = records.PlainRecordCodec()
    key = records.OffsetCommitKey("g", "t", 1)
    raw = codec.encode_record("OffsetCommitKey", 1, key)
    assert codec.decode_record("OffsetCommitKey", raw) == key
    raw = codec.encode_record("GroupMetadataValue", 3, GROUP)
    assert codec.decode_record("GroupMetadataValue", raw) == GROUP
    with pytest.raises(ValueError, match="Nothing"):
        codec.decode_record("Nothing", b"")
