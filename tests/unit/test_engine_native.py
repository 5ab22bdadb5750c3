"""The native engine through its port: life, image, partitions, requests, tables, fork."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import threading
from typing import TYPE_CHECKING, Any

import pytest

from penstock.engine import create_engine, message_codec
from penstock.engine_port import (
    BrokerEndpoint,
    ClusterUpdate,
    EngineSettings,
    ListenerSpec,
    TopicLogConfig,
    TopicRemove,
    TopicUpsert,
)
from penstock.errors import EngineError, ForkedError, StartError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from penstock.engine_port import ControlRequest, EnginePort

TOPIC = bytes(range(16))
METADATA, FIND_COORDINATOR, CREATE_TOPICS = 3, 10, 19
CONFIG = TopicLogConfig(
    cleanup_policy=1,
    compression_gzip_level=-1,
    compression_lz4_level=9,
    compression_type=-1,
    compression_zstd_level=3,
    delete_retention_ms=86400000,
    file_delete_delay_ms=60000,
    flush_messages=2**63 - 1,
    flush_ms=2**63 - 1,
    index_interval_bytes=4096,
    max_compaction_lag_ms=2**63 - 1,
    max_message_bytes=1048588,
    message_timestamp_after_max_ms=3600000,
    message_timestamp_before_max_ms=2**63 - 1,
    message_timestamp_type=0,
    min_cleanable_dirty_ratio_ppm=500000,
    min_compaction_lag_ms=0,
    min_insync_replicas=1,
    preallocate=0,
    retention_bytes=-1,
    retention_ms=604800000,
    segment_bytes=1 << 30,
    segment_index_bytes=10 << 20,
    segment_jitter_ms=0,
    segment_ms=604800000,
    unclean_leader_election=0,
)


def settings(directory: Path, **limits: int) -> EngineSettings:
    return EngineSettings(
        cluster_id="cluster",
        durability="os",
        io_threads=2,
        node_id=1,
        reactors=1,
        limits={"penstock.open.files": 128, **limits},
        log_dirs=(str(directory),),
    )


def topic(name: str = "orders", topic_id: bytes = TOPIC, partitions: int = 2) -> TopicUpsert:
    return TopicUpsert(
        config=CONFIG,
        is_internal=False,
        name=name,
        topic_id=topic_id,
        partitions=tuple((index, 0, 0) for index in range(partitions)),
    )


def listener(port: int = 0) -> ListenerSpec:
    return ListenerSpec(host="127.0.0.1", name="PLAINTEXT", port=port, protocol="PLAINTEXT")


class Running:
    """An engine that serves on a free port."""

    def __init__(self, directory: Path, **limits: int) -> None:
        self.engine: EnginePort = create_engine()
        self.engine.open(settings(directory, **limits))
        self.port = self.engine.bind([listener()])[0]
        endpoint = BrokerEndpoint(
            host="127.0.0.1", listener="PLAINTEXT", node_id=1, port=self.port, rack=None
        )
        self.engine.publish(
            [
                ClusterUpdate(
                    auto_create=True,
                    cluster_id="cluster",
                    controller_id=1,
                    endpoints=(endpoint,),
                    node_id=1,
                ),
                topic(),
            ]
        )
        self.engine.serve()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def requests(self, count: int) -> list[ControlRequest]:
        found: list[ControlRequest] = []
        while len(found) < count:
            readable, _, _ = select.select([self.engine.eventfd()], [], [], 20)
            assert readable, "no request came up"
            found.extend(self.engine.drain())
        return found


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    made = Running(tmp_path)
    yield made
    made.engine.stop()


def frame(api_key: int, version: int, correlation_id: int, **fields: Any) -> bytes:
    from importlib import import_module

    name = {METADATA: "metadata", FIND_COORDINATOR: "find_coordinator"}[api_key]
    module = import_module(f"penstock.protocol.messages.{name}")
    kind = {METADATA: "MetadataRequest", FIND_COORDINATOR: "FindCoordinatorRequest"}[api_key]
    message = getattr(module, kind)(**fields)
    payload = message_codec().encode_request(api_key, version, correlation_id, "test", message)
    return struct.pack(">i", len(payload)) + payload


def find_coordinator(correlation_id: int) -> bytes:
    return frame(FIND_COORDINATOR, 2, correlation_id, key="group")


def receive(sock: socket.socket) -> bytes:
    def exactly(size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = sock.recv(size - len(data))
            if not more:
                raise EOFError
            data += more
        return data

    return exactly(struct.unpack(">i", exactly(4))[0])


def batch(count: int) -> bytes:
    return message_codec().build_batch([(1000 + i, b"k", b"v%d" % i, []) for i in range(count)])


# -- life ------------------------------------------------------------------------------------------
def test_second_engine_on_a_directory_is_refused(tmp_path: Path) -> None:
    first, second = create_engine(), create_engine()
    first.open(settings(tmp_path))
    with pytest.raises(StartError, match=str(tmp_path)):
        second.open(settings(tmp_path))
    first.stop()
    second.open(settings(tmp_path))
    second.stop()


def test_port_in_use_is_a_start_error(tmp_path: Path, running: Running) -> None:
    (tmp_path / "other").mkdir()
    engine = create_engine()
    engine.open(settings(tmp_path / "other"))
    with pytest.raises(StartError, match="in use"):
        engine.bind([listener(running.port)])
    engine.stop()


def test_several_engines_live_in_one_process(tmp_path: Path) -> None:
    engines = []
    for number in range(3):
        (tmp_path / str(number)).mkdir()
        engines.append(Running(tmp_path / str(number)))
    for number, one in enumerate(engines):
        one.engine.append(TOPIC, 0, batch(number + 1))
    assert [one.engine.offsets(TOPIC, 0).log_end for one in engines] == [1, 2, 3]
    for one in engines:
        one.engine.stop()


def test_stop_is_idempotent_and_ends_every_call(running: Running) -> None:
    running.engine.stop()
    running.engine.stop()
    with pytest.raises(ForkedError):
        running.engine.offsets(TOPIC, 0)
    assert running.engine.drain() == []
    running.engine.respond(1 << 64, b"late")  # a stale token is ignored


def test_engine_that_was_only_opened_stops(tmp_path: Path) -> None:
    engine = create_engine()
    engine.open(settings(tmp_path))
    engine.stop()


def test_forked_child_is_refused_and_holds_nothing(tmp_path: Path, running: Running) -> None:
    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(BaseException):
            try:
                running.engine.offsets(TOPIC, 0)
            except ForkedError:
                running.engine.abandon_after_fork()
                status = 0
        os.write(ready[1], b"x")
        os.read(go[0], 1)
        os._exit(status)
    os.read(ready[0], 1)
    running.engine.stop()
    again = create_engine()
    again.open(settings(tmp_path))  # the lock is free while the child lives
    assert again.bind([listener(running.port)]) == [running.port]
    again.stop()
    os.write(go[1], b"x")
    assert os.waitpid(child, 0)[1] == 0
    for end in (*ready, *go):
        os.close(end)


# -- partitions ------------------------------------------------------------------------------------
def test_append_read_and_offsets(running: Running) -> None:
    engine = running.engine
    assert engine.append(TOPIC, 1, batch(3)) == 0
    assert engine.append(TOPIC, 1, memoryview(batch(2))) == 3
    offsets = engine.offsets(TOPIC, 1)
    assert (offsets.log_start, offsets.high_watermark, offsets.log_end) == (0, 5, 5)
    records = message_codec().decode_batches(engine.read(TOPIC, 1, 4, 1 << 20))
    assert [one[3] for one in records][-2:] == [b"v0", b"v1"]
    assert engine.read(TOPIC, 1, 5, 1 << 20) == b""
    assert len(engine.read(TOPIC, 1, 0, 1)) == len(batch(3))  # one batch at least
    assert engine.delete_records(TOPIC, 1, -1) == 5
    assert engine.offsets(TOPIC, 1).log_start == 5
    with pytest.raises(EngineError) as caught:
        engine.read(TOPIC, 1, 2, 1000)
    assert caught.value.kafka_code == 1  # OFFSET_OUT_OF_RANGE


def test_unknown_partitions_and_bad_arguments(running: Running) -> None:
    with pytest.raises(EngineError) as caught:
        running.engine.append(TOPIC, 9, batch(1))
    assert caught.value.kafka_code == 3
    with pytest.raises(ValueError, match="16 bytes"):
        running.engine.offsets(b"short", 0)
    with pytest.raises(EngineError):
        running.engine.append(TOPIC, 0, b"not a batch")


def test_topics_come_and_go(running: Running) -> None:
    engine = running.engine
    other = bytes(reversed(range(16)))
    engine.publish([topic("other", other, 1), TopicRemove(topic_id=TOPIC)])
    assert engine.offsets(other, 0).log_end == 0
    with pytest.raises(EngineError):
        engine.offsets(TOPIC, 0)
    engine.publish([topic("other", other, 3)])
    engine.append(other, 2, batch(1))
    info = engine.describe_log_dirs()[0]
    sizes = {one.partition: one.size_bytes for one in info.partitions}
    assert sizes == {0: 0, 1: 0, 2: len(batch(1))}
    assert (info.error, info.total_bytes > info.usable_bytes > 0) == (0, True)


def test_data_survives_a_stop_without_grace(tmp_path: Path) -> None:
    first = Running(tmp_path)
    first.engine.append(TOPIC, 0, batch(7))
    first.engine.stop(graceful=False)
    second = Running(tmp_path)
    assert second.engine.offsets(TOPIC, 0).log_end == 7
    second.engine.checkpoint()
    second.engine.run_retention()
    second.engine.stop()


# -- requests --------------------------------------------------------------------------------------
def test_request_comes_up_and_its_answer_goes_down(running: Running) -> None:
    with running.connect() as sock:
        sock.sendall(find_coordinator(7))
        request = running.requests(1)[0]
        assert (request.api_key, request.api_version) == (FIND_COORDINATOR, 2)
        assert (request.client_host, request.listener) == ("127.0.0.1", "PLAINTEXT")
        header, message = message_codec().decode_request(10, 2, bytes(request.frame))
        assert (header.correlation_id, message.key) == (7, "group")  # type: ignore[attr-defined]
        running.engine.respond(request.token, bytearray(b"the answer"))
        running.engine.respond(request.token, b"twice is ignored")
        assert receive(sock) == b"the answer"


def test_answers_leave_in_request_order(running: Running) -> None:
    with running.connect() as sock:
        for number in range(8):
            sock.sendall(find_coordinator(number))
        for request in reversed(running.requests(8)):
            header, _ = message_codec().decode_request(10, 2, bytes(request.frame))
            running.engine.respond(request.token, b"%d" % header.correlation_id)  # type: ignore[attr-defined]
        assert [receive(sock) for _ in range(8)] == [b"%d" % number for number in range(8)]


def test_close_connection_closes(running: Running) -> None:
    with running.connect() as sock:
        sock.sendall(find_coordinator(1))
        running.engine.close_connection(running.requests(1)[0].token)
        with pytest.raises((EOFError, ConnectionError)):
            receive(sock)


def test_metadata_is_redispatched_after_its_topic_came(running: Running) -> None:
    from penstock.protocol.messages.metadata import MetadataRequestTopic

    with running.connect() as sock:
        wanted = [MetadataRequestTopic(name="fresh")]
        sock.sendall(frame(METADATA, 9, 5, topics=wanted, allow_auto_topic_creation=True))
        request = running.requests(1)[0]
        assert request.api_key == METADATA
        running.engine.publish([topic("fresh", bytes(15) + b"f", 4)])
        running.engine.redispatch(request.token)
        correlation_id, answer = message_codec().decode_response(METADATA, 9, receive(sock))
        found: Any = answer
        assert correlation_id == 5
        assert [(t.name, t.error_code, len(t.partitions)) for t in found.topics] == [
            ("fresh", 0, 4)
        ]


def test_full_ring_leaves_clients_unread_and_loses_nothing(running: Running) -> None:
    """More requests than the ring holds, nobody drains; then all are answered, in order."""
    count, each = 120, 16
    socks = [running.connect() for _ in range(count)]
    for sock in socks:
        sock.sendall(b"".join(find_coordinator(number) for number in range(each)))
    answered = 0
    while answered < count * each:
        for request in running.requests(1):
            header, _ = message_codec().decode_request(10, 2, bytes(request.frame))
            running.engine.respond(request.token, b"%d" % header.correlation_id)  # type: ignore[attr-defined]
            answered += 1
    for sock in socks:
        assert [receive(sock) for _ in range(each)] == [b"%d" % n for n in range(each)]
        sock.close()


def test_stop_answers_what_is_in_progress(running: Running) -> None:
    with running.connect() as sock:
        sock.sendall(find_coordinator(3))
        request = running.requests(1)[0]
        stopping = threading.Thread(target=running.engine.stop)
        stopping.start()
        running.engine.respond(request.token, b"in time")
        assert receive(sock) == b"in time"
        stopping.join(20)
        assert not stopping.is_alive()


def test_frames_of_unanswered_requests_are_given_back(running: Running) -> None:
    from penstock.protocol.messages.metadata import MetadataRequestTopic

    with running.connect() as sock:
        sock.sendall(frame(METADATA, 9, 5, topics=[MetadataRequestTopic(name="never")]))
        running.requests(1)
        assert running.engine.statistics()["frame_pool_bytes"] > 0
        running.engine.stop(graceful=False)


def test_limits_reach_the_engine(tmp_path: Path) -> None:
    made = Running(tmp_path, **{"socket.request.max.bytes": 200, "max.connections.per.ip": 2})
    first, second = made.connect(), made.connect()
    with made.connect() as third, pytest.raises((EOFError, ConnectionError)):
        receive(third)
    first.sendall(struct.pack(">i", 201) + bytes(201))
    with pytest.raises((EOFError, ConnectionError)):
        receive(first)
    first.close()
    second.close()
    made.engine.stop()


# -- tables ----------------------------------------------------------------------------------------
def test_offset_table(running: Running) -> None:
    table = running.engine.offset_table()
    table.put("g", TOPIC, "orders", 1, 42, 3, "meta ä", 1000, -1)
    table.put("g", TOPIC, "orders", 0, 7, -1, "", 1001, 2000)
    entry = table.get("g", "orders", 1)
    assert entry == (TOPIC, "orders", 1, 42, 3, "meta ä", 1000, -1)
    assert table.get("g", "orders", 5) is None
    assert [one.partition for one in table.iterate("g")] == [0, 1]
    assert (list(table.groups()), table.size()) == (["g"], 2)
    assert (table.remove("g", "orders", 0), table.remove("g", "orders", 0)) == (True, False)
    assert (table.remove_group("g"), table.size()) == (1, 0)


def test_member_table(running: Running) -> None:
    table = running.engine.member_table()
    assert table.next_deadline() == -1
    table.upsert("g", "late", 1, 200)
    table.upsert("g", "early", 1, 100)
    assert (table.touch("g", "early", 150), table.touch("g", "nobody", 1)) == (True, False)
    assert table.next_deadline() <= 150
    assert table.expired(120) == []
    assert table.expired(150) == [("g", "early")]
    assert (table.remove("g", "late"), table.remove("g", "late"), table.size()) == (True, False, 0)
