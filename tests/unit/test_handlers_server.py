"""The server around the handlers: dispatch, failures, start and stop, over MemoryEngine."""

from __future__ import annotations

import threading
import time
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest
from memory_engine import MemoryEngine, ObjectCodec

from penstock.config.broker_config import BrokerConfig
from penstock.errors import PenstockError, StartError
from penstock.handlers import HANDLERS
from penstock.handlers.context import RequestHeader
from penstock.handlers.failures import failure_response
from penstock.protocol.api_table import SUPPORTED
from penstock.protocol.messages import create_topics as ct
from penstock.protocol.messages import describe_configs as dc
from penstock.protocol.messages import find_coordinator as fc
from penstock.protocol.messages import init_producer_id as ip
from penstock.protocol.messages import metadata as md
from penstock.server import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Running:
    def __init__(self, path: Path, **settings: str) -> None:
        self.engine = MemoryEngine()
        self.codec = ObjectCodec()
        config = BrokerConfig({"log.dirs": str(path), "listeners": "PLAINTEXT://127.0.0.1:0"})
        config.static.update({key.replace("_", "."): value for key, value in settings.items()})
        self.server = Server(config, engine=self.engine, codec=self.codec)  # type: ignore[arg-type]

    def ask(self, api_key: int, version: int, request: Any) -> Any:
        token = self.engine.offer(api_key, version, self.codec.frame(request))
        wait_for(lambda: token in self.engine.answers)
        return self.codec.value(self.engine.answers[token])


def wait_for(condition: Callable[[], bool]) -> None:
    event = threading.Event()
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        event.wait(0.002)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    made = Running(tmp_path)
    made.server.start()
    yield made
    made.server.stop()
    made.engine.close_eventfd()


def test_requests_are_answered(running: Running) -> None:
    request = ct.CreateTopicsRequest(
        topics=[ct.CreatableTopic(name="t", num_partitions=1, replication_factor=1)]
    )
    assert running.ask(19, 7, request).topics[0].error_code == 0
    assert running.ask(22, 4, ip.InitProducerIdRequest(transactional_id=None)).producer_id == 0


def test_bytes_that_the_codec_refuses_close_the_connection(running: Running) -> None:
    token = running.engine.offer(19, 7, b"garbage")
    wait_for(lambda: token in running.engine.closed)
    assert running.ask(22, 4, ip.InitProducerIdRequest(transactional_id=None)).error_code == 0


def test_failing_handler_is_answered_and_the_loop_lives(
    running: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> object:
        raise RuntimeError("our mistake")

    monkeypatch.setattr("penstock.handlers.describe_configs.handle", broken)
    request = dc.DescribeConfigsRequest(
        resources=[dc.DescribeConfigsResource(resource_type=2, resource_name="t")]
    )
    answer = running.ask(32, 4, request)
    assert answer.results[0].error_code == -1
    assert sum("our mistake" in str(one.exc_info) for one in caplog.records) == 1
    assert running.server.statistics()["control.failures"] == 1
    assert running.ask(22, 4, ip.InitProducerIdRequest(transactional_id=None)).error_code == 0


def test_metadata_with_missing_topics_goes_back_to_the_engine(running: Running) -> None:
    request = md.MetadataRequest(topics=[md.MetadataRequestTopic(name="auto")])
    token = running.engine.offer(3, 12, running.codec.frame(request))
    wait_for(lambda: token in running.engine.redispatched)
    wait_for(lambda: [topic.name for topic in running.engine.topics.values()] == ["auto"])


def test_first_group_creates_the_offsets_topic(running: Running) -> None:
    request = fc.FindCoordinatorRequest(key_type=0, coordinator_keys=["g"])
    (found,) = running.ask(10, 6, request).coordinators
    assert (found.error_code, found.host, found.port) == (0, "127.0.0.1", 40000)
    (topic,) = running.engine.topics.values()
    assert (topic.name, len(topic.partitions), topic.is_internal) == (
        "__consumer_offsets",
        50,
        True,
    )


def test_start_order_and_graceful_stop(tmp_path: Path) -> None:
    made = Running(tmp_path)
    made.server.start()
    assert made.engine.cluster is not None
    assert made.engine.cluster.endpoints[0].port == 40000
    assert made.engine.serving
    assert made.server.bootstrap == "127.0.0.1:40000"
    assert "node.id=1" in (tmp_path / "meta.properties").read_text()
    made.server.stop()
    made.server.stop()
    assert made.engine.stopped is True
    made.engine.close_eventfd()


def test_topics_and_cluster_id_survive_a_restart(tmp_path: Path) -> None:
    ids = set()
    for _ in range(2):
        made = Running(tmp_path)
        made.server.start()
        request = ct.CreateTopicsRequest(
            topics=[ct.CreatableTopic(name="t", num_partitions=1, replication_factor=1)]
        )
        code = made.ask(19, 7, request).topics[0].error_code
        ids.add((made.server.cluster_id, next(iter(made.engine.topics))))
        made.server.stop()
        made.engine.close_eventfd()
    assert code == 36
    assert len(ids) == 1


def test_failed_start_undoes_itself(tmp_path: Path) -> None:
    made = Running(tmp_path, listeners="PLAINTEXT://127.0.0.1:9092")
    made.engine.refuse_port = 9092
    with pytest.raises(StartError, match="in use"):
        made.server.start()
    assert made.engine.stopped is False
    assert not any(one.name == "penstock-control" for one in threading.enumerate())
    made.engine.close_eventfd()


def test_configured_cluster_id_wins_and_is_kept(tmp_path: Path) -> None:
    made = Running(tmp_path, penstock_cluster_id="MkU3OEVBNTcwNTJENDM2Qg")
    made.server.start()
    assert made.server.cluster_id == "MkU3OEVBNTcwNTJENDM2Qg"
    made.server.stop()
    made.engine.close_eventfd()
    other = Running(tmp_path, penstock_cluster_id="other")
    with pytest.raises(PenstockError, match="belongs to cluster"):
        other.server.start()
    other.engine.close_eventfd()


def test_every_control_api_has_a_handler_and_a_failure() -> None:
    for key, api in SUPPORTED.items():
        if api.where != "control" and api.name != "Metadata":
            assert key not in HANDLERS
            continue
        assert callable(import_module(f"penstock.handlers.{HANDLERS[key]}").handle)
        if api.name == "Metadata":
            continue
        messages = import_module(f"penstock.protocol.messages.{HANDLERS[key]}")
        request = getattr(messages, f"{api.name}Request")()
        for version in range(api.min, api.max + 1):
            response = failure_response(RequestHeader(key, version), request, -1)
            if (api.name, version) != ("OffsetFetch", 1):
                assert type(response).__name__ == f"{api.name}Response"
