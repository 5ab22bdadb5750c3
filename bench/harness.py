"""Starts what is measured, pins it apart from the load generator, reads its CPU time and memory.

CPU time is the process CPU clock (nanoseconds, all threads), not 10 ms ticks. Memory is PSS from
smaps_rollup.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).resolve().parent.parent
BINARIES = ROOT / "build" / "release" / "bench"

CPUS = sorted(os.sched_getaffinity(0))
SERVER_CPU, CLIENT_CPU = CPUS[0], CPUS[-1]


class BenchError(Exception):
    """One sentence: what could not be measured and why."""


def build() -> None:
    """Builds load generator and floor program."""
    done = subprocess.run(
        ["make", "-s", "-f", "native/build.mk", "OUT=build/release", "bench"], cwd=ROOT, check=False
    )
    if done.returncode:
        raise BenchError("the load generator did not build; see the compiler's message above")


def cpu_seconds(pid: int) -> float:
    """CPU time of a process with all its threads (Linux: the process CPU clock of `pid`)."""
    return time.clock_gettime((~pid << 3) | 2)


def pss_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise BenchError(f"no PSS for process {pid}")


def pinned(cpu: int | None) -> Sequence[str]:
    return [] if cpu is None else ["taskset", "-c", str(cpu)]


class Server:
    """A process under test with a data directory of its own, on one CPU unless `cpu` is None."""

    name = "server"

    def __init__(self, *, cpu: int | None = SERVER_CPU) -> None:
        self.cpu = cpu
        self.directory = Path(tempfile.mkdtemp(prefix="penstock-bench-"))
        self.process = self.launch()
        self.port = self.wait_port()

    def launch(self) -> subprocess.Popen[str]:
        raise NotImplementedError

    def wait_port(self) -> int:
        raise NotImplementedError

    def create_topic(self, topic: str, partitions: int) -> None:
        del topic, partitions

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()


class Floor(Server):
    """recv, CRC, pwrite, answer: the machine's own limit for Produce."""

    name = "floor"

    def launch(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*pinned(self.cpu), BINARIES / "floor", self.directory],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait_port(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())


class Penstock(Server):
    """`penstock serve` with one reactor, since it has one CPU."""

    name = "penstock"
    settings: tuple[str, ...] = ("penstock.reactors=1", "auto.create.topics.enable=false")

    def launch(self) -> subprocess.Popen[str]:
        sets = [
            "listeners=PLAINTEXT://127.0.0.1:0",
            f"log.dirs={self.directory / 'data'}",
            *self.settings,
        ]
        return subprocess.Popen(
            [
                *pinned(self.cpu),
                Path(sys.executable).parent / "penstock",
                "serve",
                *(part for setting in sets for part in ("--set", setting)),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )

    def wait_port(self) -> int:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if "ready: bootstrap " not in line:
            raise BenchError(f"the broker did not start: {line!r}")
        return int(line.split("bootstrap ")[1].split(",")[0].rpartition(":")[2])

    def create_topic(self, topic: str, partitions: int) -> None:
        subprocess.run(
            [
                Path(sys.executable).parent / "penstock",
                "topics",
                "create",
                topic,
                "--partitions",
                str(partitions),
                "--bootstrap",
                f"127.0.0.1:{self.port}",
            ],
            check=True,
            stdout=subprocess.DEVNULL,
        )


def generate(server: Server, *options: str | float, check: bool = True) -> dict[str, float]:
    """Runs the load generator against `server`; adds `cpu` (seconds of the server meanwhile)."""
    before = cpu_seconds(server.process.pid)
    done = subprocess.run(
        [
            *pinned(CLIENT_CPU),
            BINARIES / "loadgen",
            "--port",
            str(server.port),
            *(str(option) for option in options),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    used = cpu_seconds(server.process.pid) - before
    if check and done.returncode:
        raise BenchError(f"load against {server.name} failed: {done.stderr.strip()} {done.stdout}")
    figures: dict[str, float] = json.loads(done.stdout)
    figures["cpu"] = used
    return figures
