"""Counted, not timed: system calls of a reactor per request, and that reactors know nothing of
Python.

The budgets are in counts.toml beside this file; exceeding one needs an edit there. strace counts
the calls of the one reactor thread while the load generator runs.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
BUDGET = tomllib.loads(Path(__file__).with_name("counts.toml").read_text())["system_calls"]
BIN = Path(sys.executable).parent


class Serving:
    """`penstock serve` with one reactor and a topic."""

    def __init__(self, directory: Path) -> None:
        settings = [
            "listeners=PLAINTEXT://127.0.0.1:0",
            f"log.dirs={directory}",
            "penstock.reactors=1",
        ]
        self.process = subprocess.Popen(
            [BIN / "penstock", "serve", *(p for s in settings for p in ("--set", s))],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.bootstrap = line.split("bootstrap ")[1].split(",")[0]
        subprocess.run(
            [
                BIN / "penstock",
                "topics",
                "create",
                "bench",
                "--partitions",
                "4",
                "--bootstrap",
                self.bootstrap,
            ],
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def reactor_thread(self) -> int:
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            if (task / "comm").read_text().strip() == "pst-reactor-0":
                return int(task.name)
        raise AssertionError("no thread is called pst-reactor-0")

    def end_offset(self) -> int:
        """Of partition 0, which the load generator's first connection reads."""
        from confluent_kafka import Consumer, TopicPartition

        consumer = Consumer({"bootstrap.servers": self.bootstrap, "group.id": "unused"})
        end: int = consumer.get_watermark_offsets(TopicPartition("bench", 0), timeout=20)[1]
        consumer.close()
        return end

    def load(self, *options: str | int) -> dict[str, float]:
        done = subprocess.run(
            [
                ROOT / "build/release/bench/loadgen",
                "--port",
                self.bootstrap.rpartition(":")[2],
                "--partitions",
                "4",
                "--warmup",
                "0",
                *(str(option) for option in options),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        figures: dict[str, float] = json.loads(done.stdout)
        return figures

    def calls_per_request(self, tmp_path: Path, *options: str | int) -> float:
        """Warm up, then count while the load runs."""
        self.load(*options, "--seconds", "0.5")
        summary = tmp_path / "strace"
        tracer = subprocess.Popen(
            ["strace", "-c", "-o", summary, "-p", str(self.reactor_thread())],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert tracer.stderr is not None
        assert "attached" in tracer.stderr.readline()
        figures = self.load(*options, "--seconds", "1.5")
        tracer.send_signal(signal.SIGINT)
        tracer.wait(20)
        text = summary.read_text()
        total = re.search(r"^\s*100\.00.*?(\d+)(?:\s+\d+)?\s+total$", text, re.M)
        assert total is not None, text
        print(text)
        return int(total[1]) / figures["requests"]


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    if shutil.which("strace") is None:
        pytest.fail("strace is missing; tools/setup-system.sh test installs it")
    subprocess.run(
        ["make", "-s", "-f", "native/build.mk", "OUT=build/release", "bench"], cwd=ROOT, check=True
    )
    server = Serving(tmp_path_factory.mktemp("counts"))
    yield server
    server.process.terminate()
    server.process.wait(20)


@pytest.mark.parametrize("depth", [1, 32])
def test_system_calls_per_small_produce(serving: Serving, tmp_path: Path, depth: int) -> None:
    counted = serving.calls_per_request(tmp_path, "--connections", 1, "--depth", depth)
    assert counted <= BUDGET[f"produce_depth_{depth}"]


@pytest.mark.parametrize("depth", [1, 32])
def test_system_calls_per_small_fetch(serving: Serving, tmp_path: Path, depth: int) -> None:
    """At the tail of the log, where consumers that keep up read: one that read there before the
    last records came."""
    serving.load("--connections", 1, "--depth", 1, "--seconds", "0.2")
    serving.load(
        *("--mode", "repeat", "--offset", serving.end_offset() - 1, "--seconds", "0.2"),
        *("--connections", 1),
    )
    serving.load("--connections", 1, "--depth", 1, "--seconds", "0.2")
    counted = serving.calls_per_request(
        tmp_path,
        *("--mode", "repeat", "--offset", serving.end_offset() - 5, "--max-bytes", 4096),
        *("--connections", 1, "--depth", depth),
    )
    assert counted <= BUDGET[f"fetch_depth_{depth}"]


def test_the_core_knows_nothing_of_python() -> None:
    """A reactor cannot take the GIL: no object of the core refers to the interpreter."""
    symbols = subprocess.run(
        ["nm", "-u", ROOT / "build/release/libpenstock_core.a"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert not re.findall(r"U (Py\w+|_Py\w+)", symbols)
