"""A broker in a process of its own: properties, start, readiness, stop, kill -9, restart.

The command comes from the environment variable BROKER_CMD (it gets one argument, the properties
file, and must stay in the foreground) and is ``.venv/bin/penstock serve`` when that is not set.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import struct
import subprocess
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

HOST = "127.0.0.1"

# What the foreign suites expect of a broker, whatever product it is.
EXPECTED_PROPERTIES: Mapping[str, str] = {
    "node.id": "0",
    "auto.create.topics.enable": "true",
    "num.partitions": "4",
    "group.min.session.timeout.ms": "1000",
    "group.initial.rebalance.delay.ms": "0",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
}


class BrokerError(Exception):
    """The broker did not start, or did not stop, as it must."""


def free_port() -> int:
    """A loopback port nobody listens on, below the range the kernel gives to outgoing connections.

    A port of that range can be taken by a client's own outgoing connection while the broker
    restarts (a connection to itself even).
    """
    chooser = random.SystemRandom()
    while True:
        port = chooser.randrange(12000, 30000)
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port


def free_port_range(size: int) -> tuple[int, int]:
    """Bounds, both inclusive, of `size` ports that are free at the ends and in the middle."""
    chooser = random.SystemRandom()
    while True:
        first = chooser.randrange(12000, 30000 - size)
        try:
            for port in (first, first + size // 2, first + size - 1):
                with socket.socket() as probe:
                    probe.bind((HOST, port))
        except OSError:
            continue
        return first, first + size - 1


def default_command(repository: Path) -> str:
    """The shell words that start a broker when the properties file is put behind them."""
    given = os.environ.get("BROKER_CMD", "")
    return given or f"'{repository / '.venv/bin/penstock'}' serve"


def _answers(port: int) -> bool:
    """One ApiVersions v0 round trip: a listener that accepts but serves nothing is not ready."""
    body = struct.pack(">hhih", 18, 0, 1, -1)
    try:
        with socket.create_connection((HOST, port), timeout=2) as link:
            link.sendall(struct.pack(">i", len(body)) + body)
            return len(link.recv(8)) > 0
    except OSError:
        return False


class Broker:
    """One broker with a fresh data directory; also a context manager that ends it for certain."""

    def __init__(
        self,
        *,
        command: str,
        directory: Path,
        properties: Mapping[str, str],
        ready_seconds: float = 60.0,
    ) -> None:
        self._command = command
        self._directory = directory
        self._ready_seconds = ready_seconds
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        directory.mkdir(parents=True, exist_ok=True)
        self.properties_file = directory / "server.properties"
        self.log_file = directory / "broker.log"
        lines = dict(properties)
        lines["listeners"] = f"PLAINTEXT://{HOST}:{self.port}"
        lines["log.dirs"] = str(directory / "data")
        text = "".join(f"{key}={value}\n" for key, value in lines.items())
        self.properties_file.write_text(text, encoding="utf-8")

    @property
    def bootstrap(self) -> str:
        """HOST:PORT, the same through all restarts."""
        return f"{HOST}:{self.port}"

    def start(self) -> None:
        """Starts the process and returns when it answers; else BrokerError with its last words."""
        words = f'exec {self._command} "$0"'
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", words, str(self.properties_file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )
        deadline = time.monotonic() + self._ready_seconds
        while not _answers(self.port):
            status = self._process.poll()
            if status is not None:
                self._process = None
                raise BrokerError(f"the broker ended with status {status}: {self.last_words()}")
            if time.monotonic() > deadline:
                self.kill()
                raise BrokerError(f"not ready in {self._ready_seconds:.0f} s: {self.last_words()}")
            time.sleep(0.05)

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def stop(self, seconds: float = 40.0) -> None:
        """SIGTERM, and wait; a broker that stays is killed and reported as a BrokerError."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.kill()
                raise BrokerError(f"still there {seconds:.0f} s after SIGTERM") from None
        self.kill()

    def kill(self) -> None:
        """SIGKILL to the broker and whatever it started."""
        process = self._process
        self._process = None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def restart(self, *, hard: bool) -> None:
        """Ends the broker (SIGKILL if `hard`, else SIGTERM) and starts it on the same data."""
        if hard:
            self.kill()
        else:
            self.stop()
        self.start()

    def last_words(self) -> str:
        """The last lines of its output, on one line."""
        try:
            text = self.log_file.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        return " | ".join(text.strip().splitlines()[-5:])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        except BrokerError as problem:
            print(f"note: {problem}", flush=True)
