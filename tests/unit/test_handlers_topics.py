"""Handlers of topic administration and producer ids, over MemoryEngine."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from control_bench import Bench

from penstock.handlers import metadata
from penstock.handlers.context import (
    CLUSTER_OPERATIONS,
    REDISPATCH,
    TOPIC_OPERATIONS,
    RequestHeader,
)
from penstock.metadata.names import ZERO_ID
from penstock.protocol import errors_table as codes
from penstock.protocol.messages import alter_partition_reassignments as apr
from penstock.protocol.messages import create_partitions as cp
from penstock.protocol.messages import create_topics as ct
from penstock.protocol.messages import delete_records as dr
from penstock.protocol.messages import delete_topics as dt
from penstock.protocol.messages import describe_cluster as dcl
from penstock.protocol.messages import describe_log_dirs as dl
from penstock.protocol.messages import describe_topic_partitions as dtp
from penstock.protocol.messages import init_producer_id as ip
from penstock.protocol.messages import list_partition_reassignments as lpr
from penstock.protocol.messages import metadata as md

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.close()


def create(bench: Bench, *names: str, partitions: int = 2, **configs: str) -> list[object]:
    request = ct.CreateTopicsRequest(
        topics=[
            ct.CreatableTopic(
                name=name,
                num_partitions=partitions,
                replication_factor=1,
                configs=[
                    ct.CreatableTopicConfig(name=key.replace("_", "."), value=value)
                    for key, value in configs.items()
                ],
            )
            for name in names
        ]
    )
    found: list[object] = bench.call(19, 7, request).topics
    return found


def test_create_topics_answers_id_counts_and_configs(bench: Bench) -> None:
    (result,) = create(bench, "t", retention_ms="5")
    topic = bench.topics.index.get("t")
    assert topic is not None
    assert (result.error_code, result.topic_id) == (0, topic.topic_id)
    assert (result.num_partitions, result.replication_factor) == (2, 1)
    configs = {one.name: (one.value, one.config_source) for one in result.configs}
    assert configs["retention.ms"] == ("5", 1)
    assert configs["segment.bytes"] == ("1073741824", 5)


def test_create_topics_answers_a_doubled_name_once(bench: Bench) -> None:
    (result,) = create(bench, "t", "t")
    assert (result.error_code, result.error_message) == (
        codes.INVALID_REQUEST,
        "Duplicate topic name.",
    )


def test_delete_topics_by_name_by_id_and_neither(bench: Bench) -> None:
    create(bench, "a", "b")
    b = bench.topics.index.get("b")
    assert b is not None
    request = dt.DeleteTopicsRequest(
        topics=[
            dt.DeleteTopicState(name="a"),
            dt.DeleteTopicState(name=None, topic_id=b.topic_id),
            dt.DeleteTopicState(name=None),
            dt.DeleteTopicState(name="x"),
            dt.DeleteTopicState(name="a", topic_id=b.topic_id),
        ]
    )
    answer = bench.call(20, 6, request).responses
    found = {(one.name, one.topic_id): one.error_code for one in answer}
    assert found[(None, ZERO_ID)] == codes.INVALID_REQUEST
    assert found[("a", b.topic_id)] == codes.INVALID_REQUEST
    assert found[("b", b.topic_id)] == 0
    assert found[("x", ZERO_ID)] == codes.UNKNOWN_TOPIC_OR_PARTITION
    assert len(bench.topics.index) == 0


def test_delete_topics_can_be_switched_off() -> None:
    bench = Bench({"delete.topic.enable": "false"})
    create(bench, "a")
    request = dt.DeleteTopicsRequest(topic_names=["a"])
    assert bench.call(20, 5, request).responses[0].error_code == codes.TOPIC_DELETION_DISABLED
    assert bench.call(20, 2, request).responses[0].error_code == codes.INVALID_REQUEST
    bench.close()


def test_create_partitions_echoes_every_topic(bench: Bench) -> None:
    create(bench, "a")
    request = cp.CreatePartitionsRequest(
        topics=[
            cp.CreatePartitionsTopic(name="a", count=4, assignments=None),
            cp.CreatePartitionsTopic(name="x", count=4, assignments=None),
        ]
    )
    answer = bench.call(37, 3, request).results
    assert [(one.name, one.error_code) for one in answer] == [
        ("a", 0),
        ("x", codes.UNKNOWN_TOPIC_OR_PARTITION),
    ]
    topic = bench.topics.index.get("a")
    assert topic is not None
    assert len(bench.engine.topics[topic.topic_id].partitions) == 4


def test_describe_cluster(bench: Bench) -> None:
    request = dcl.DescribeClusterRequest(include_cluster_authorized_operations=True)
    answer = bench.call(60, 2, request)
    assert (answer.cluster_id, answer.controller_id) == ("cluster", 0)
    assert [(one.broker_id, one.host, one.port) for one in answer.brokers] == [(0, "h", 1)]
    assert answer.cluster_authorized_operations == CLUSTER_OPERATIONS == 8096
    refused = bench.call(60, 2, dcl.DescribeClusterRequest(endpoint_type=2))
    assert refused.error_code == codes.MISMATCHED_ENDPOINT_TYPE


def test_describe_topic_partitions_pages_through(bench: Bench) -> None:
    create(bench, "a", "b", partitions=3)
    seen = []
    cursor = None
    for _ in range(10):
        request = dtp.DescribeTopicPartitionsRequest(response_partition_limit=2, cursor=cursor)
        answer = bench.call(75, 0, request)
        for topic in answer.topics:
            assert topic.topic_authorized_operations == TOPIC_OPERATIONS == 3576
            seen += [(topic.name, one.partition_index) for one in topic.partitions]
        if answer.next_cursor is None:
            break
        cursor = dtp.DescribeTopicPartitionsRequestCursor(
            topic_name=answer.next_cursor.topic_name,
            partition_index=answer.next_cursor.partition_index,
        )
    assert seen == [(name, at) for name in "ab" for at in range(3)]


def test_describe_topic_partitions_says_what_is_unknown(bench: Bench) -> None:
    request = dtp.DescribeTopicPartitionsRequest(
        topics=[dtp.TopicRequest(name="no"), dtp.TopicRequest(name="n o")]
    )
    answer = bench.call(75, 0, request)
    assert {one.name: one.error_code for one in answer.topics} == {
        "no": codes.UNKNOWN_TOPIC_OR_PARTITION,
        "n o": codes.INVALID_TOPIC_EXCEPTION,
    }


def _delete(bench: Bench, topic: str, partition: int, offset: int) -> tuple[int, int]:
    request = dr.DeleteRecordsRequest(
        topics=[
            dr.DeleteRecordsTopic(
                name=topic,
                partitions=[dr.DeleteRecordsPartition(partition_index=partition, offset=offset)],
            )
        ]
    )
    result = bench.call(21, 2, request).topics[0].partitions[0]
    return result.low_watermark, result.error_code


def test_delete_records(bench: Bench) -> None:
    create(bench, "t")
    create(bench, "c", cleanup_policy="compact")
    bench.run(bench.topics.ensure_internal_topic("__consumer_offsets"))
    topic = bench.topics.index.get("t")
    assert topic is not None
    bench.engine.append(topic.topic_id, 0, bytes(23) + (9).to_bytes(4, "big") + bytes(40))
    assert _delete(bench, "t", 0, 4) == (4, 0)
    assert _delete(bench, "t", 0, -1) == (10, 0)
    assert _delete(bench, "t", 0, 11) == (-1, codes.OFFSET_OUT_OF_RANGE)
    assert _delete(bench, "t", 0, -5) == (-1, codes.OFFSET_OUT_OF_RANGE)
    assert _delete(bench, "t", 9, 0) == (-1, codes.UNKNOWN_TOPIC_OR_PARTITION)
    assert _delete(bench, "x", 0, 0) == (-1, codes.UNKNOWN_TOPIC_OR_PARTITION)
    assert _delete(bench, "c", 0, 0) == (-1, codes.POLICY_VIOLATION)
    assert _delete(bench, "__consumer_offsets", 0, 0) == (-1, codes.INVALID_TOPIC_EXCEPTION)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"transactional_id": None, "producer_id": -1, "producer_epoch": -1}, 0),
        ({"transactional_id": None, "producer_id": 5, "producer_epoch": 3}, 0),
        (
            {"transactional_id": None, "producer_id": 5, "producer_epoch": -1},
            codes.INVALID_REQUEST,
        ),
        ({"transactional_id": ""}, codes.INVALID_REQUEST),
        ({"transactional_id": "tx"}, codes.TRANSACTIONAL_ID_AUTHORIZATION_FAILED),
    ],
)
def test_init_producer_id(bench: Bench, fields: dict[str, object], code: int) -> None:
    answer = bench.call(22, 5, ip.InitProducerIdRequest(**fields))  # type: ignore[arg-type]
    assert answer.error_code == code
    if code == 0:
        assert (answer.producer_id, answer.producer_epoch) == (0, 0)
        again = bench.call(22, 5, ip.InitProducerIdRequest(transactional_id=None))
        assert again.producer_id == 1
    else:
        assert (answer.producer_id, answer.producer_epoch) == (-1, -1)


def test_describe_log_dirs_of_all_and_of_some(bench: Bench) -> None:
    create(bench, "t")
    topic = bench.topics.index.get("t")
    assert topic is not None
    for partition in (0, 1):
        bench.engine.append(topic.topic_id, partition, bytes(67))
    (everything,) = bench.call(35, 5, dl.DescribeLogDirsRequest(topics=None)).results
    assert [one.partition_size for one in everything.topics[0].partitions] == [67, 67]
    some = dl.DescribeLogDirsRequest(topics=[dl.DescribableLogDirTopic(topic="t", partitions=[1])])
    (found,) = bench.call(35, 5, some).results
    assert [one.partition_index for one in found.topics[0].partitions] == [1]


def test_metadata_begins_to_create_what_is_missing_and_lets_the_engine_answer(
    bench: Bench,
) -> None:
    async def ask(name: str, allowed: bool) -> None:
        request = md.MetadataRequest(
            topics=[md.MetadataRequestTopic(name=name)], allow_auto_topic_creation=allowed
        )
        assert metadata.handle(bench.ctx, RequestHeader(3, 12), request) is REDISPATCH
        assert bench.topics.index.get(name) is None
        await bench.topics.wait_auto_created()

    bench.run(ask("new", True))
    assert bench.topics.index.get("new") is not None
    bench.run(ask("other", False))
    assert bench.topics.index.get("other") is None


def test_reassignment_to_where_the_replicas_are_is_the_only_one(bench: Bench) -> None:
    create(bench, "t", partitions=1)

    def reassign(topic: str, partition: int, replicas: list[int] | None) -> tuple[int, str | None]:
        one = apr.ReassignablePartition(partition_index=partition, replicas=replicas)
        request = apr.AlterPartitionReassignmentsRequest(
            topics=[apr.ReassignableTopic(name=topic, partitions=[one])],
            allow_replication_factor_change=False,
        )
        answer = bench.call(45, 1, request)
        assert (answer.error_code, answer.allow_replication_factor_change) == (0, False)
        result = answer.responses[0].partitions[0]
        return result.error_code, result.error_message

    assert reassign("t", 0, [0]) == (0, None)
    bad = codes.INVALID_REPLICA_ASSIGNMENT
    assert [reassign("t", 0, one)[0] for one in ([], [1], [0, 0])] == [bad, bad, bad]
    assert reassign("t", 0, None)[0] == codes.NO_REASSIGNMENT_IN_PROGRESS
    assert reassign("t", 1, [0])[0] == codes.UNKNOWN_TOPIC_OR_PARTITION
    assert reassign("no", 0, [0])[0] == codes.UNKNOWN_TOPIC_OR_PARTITION
    listed = bench.call(46, 0, lpr.ListPartitionReassignmentsRequest())
    assert (listed.error_code, listed.error_message, listed.topics) == (0, None, [])
