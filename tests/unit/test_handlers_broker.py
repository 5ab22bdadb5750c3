"""penstock.Broker and `penstock serve` over MemoryEngine in the place of the native one."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import types
from typing import TYPE_CHECKING

import pytest
from memory_engine import MemoryEngine, ObjectCodec

import penstock
from penstock.errors import PenstockError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[MemoryEngine]:
    """Every engine that was created, in order."""
    made: list[MemoryEngine] = []

    def create_engine() -> MemoryEngine:
        made.append(MemoryEngine())
        return made[-1]

    fake = types.ModuleType("penstock.engine")
    fake.create_engine = create_engine  # type: ignore[attr-defined]
    fake.message_codec = ObjectCodec  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "penstock.engine", fake)
    monkeypatch.setattr(penstock, "engine", fake, raising=False)
    return made


def test_broker_owns_a_temporary_directory(engines: list[MemoryEngine]) -> None:
    with penstock.Broker(config={"num.partitions": 3}) as broker:
        path = broker.data_dir
        assert broker.bootstrap_servers == f"127.0.0.1:{broker.port}"
        assert os.path.exists(os.path.join(path, "meta.properties"))
        assert broker.statistics()["topics"] == 0
    assert not os.path.exists(path)
    assert engines[0].stopped is True
    with pytest.raises(PenstockError, match="not running"):
        _ = broker.bootstrap_servers


def test_given_directory_is_kept_and_restart_keeps_the_port(
    engines: list[MemoryEngine], tmp_path: Path
) -> None:
    with penstock.Broker(tmp_path) as broker:
        before = (broker.bootstrap_servers, broker.cluster_id)
        broker.restart()
        assert (broker.bootstrap_servers, broker.cluster_id) == before
        broker.kill()
        assert engines[1].stopped is False
        broker.start()
    assert (tmp_path / "meta.properties").exists()
    assert len(engines) == 3


@pytest.mark.usefixtures("engines")
def test_several_brokers_live_in_one_process() -> None:
    with penstock.Broker() as one, penstock.Broker() as two:
        assert one.data_dir != two.data_dir
        assert one.cluster_id != two.cluster_id


@pytest.mark.usefixtures("engines")
def test_broker_works_from_asyncio() -> None:
    async def body() -> str:
        async with penstock.Broker() as broker:
            return broker.bootstrap_servers

    assert asyncio.run(body()).startswith("127.0.0.1:")


@pytest.mark.usefixtures("engines")
def test_forked_child_cannot_use_the_broker() -> None:
    with penstock.Broker() as broker:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                _ = broker.bootstrap_servers
            except penstock.errors.ForkedError:  # type: ignore[attr-defined]
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert broker.bootstrap_servers


SERVE = """
import sys, types
from memory_engine import MemoryEngine, ObjectCodec
fake = types.ModuleType("penstock.engine")
fake.create_engine, fake.message_codec = MemoryEngine, ObjectCodec
sys.modules["penstock.engine"] = fake
import penstock
penstock.engine = fake
from penstock.cli import main
raise SystemExit(main(["serve", "--set", "listeners=PLAINTEXT://127.0.0.1:0", *sys.argv[1:]]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_prints_one_line_and_stops_on_a_signal(tmp_path: Path, number: int) -> None:
    path = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, "--set", "num.io.threads=3"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    process.send_signal(number)
    rest, errors = process.communicate(timeout=30)
    assert line == (
        f"penstock {penstock.__version__} ready: bootstrap 127.0.0.1:40000, data penstock-data, "
        "durability os\n"
    ), errors
    assert rest == ""
    assert process.returncode == 0
    assert "keys of Kafka without effect here: num.io.threads" in errors
    assert (tmp_path / "penstock-data" / "meta.properties").exists()
