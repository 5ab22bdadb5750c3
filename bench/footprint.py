"""`python -m bench.footprint`: start time, idle memory and CPU, parked and empty fetches, 10,000
partitions.

Each measurement starts a broker of its own with default reactors. CPU is the process CPU clock,
memory PSS.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.harness import Penstock, build, cpu_seconds, generate, pss_bytes
from bench.rawclient import RawClient, batch


class Default(Penstock):
    """`penstock serve` as a user starts it, but for port and directory."""

    settings = ()

    def __init__(self) -> None:
        super().__init__(cpu=None)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def first_acknowledged() -> float:
    """Seconds from exec to the first acknowledged record, in a fresh directory; the client polls
    each ms.
    """
    directory = tempfile.mkdtemp(prefix="penstock-start-")
    port = free_port()
    payload = batch(b"x" * 100)
    command = [
        str(Path(sys.executable).parent / "penstock"),
        "serve",
        "--set",
        f"listeners=PLAINTEXT://127.0.0.1:{port}",
        "--set",
        f"log.dirs={directory}",
    ]
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        while True:
            try:
                client = RawClient(port)
                break
            except ConnectionRefusedError:
                time.sleep(0.001)
        while True:
            client.metadata("first")
            if client.produce("first", range(1), payload) == [0]:
                return time.perf_counter() - begin
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(directory, ignore_errors=True)


def bare_asyncio() -> float:
    """Seconds in which this interpreter imports asyncio and ends: the control beside a start."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import asyncio"], check=True)
    return time.perf_counter() - begin


def start(runs: int) -> None:
    first_acknowledged()
    pairs = [(first_acknowledged() * 1000, bare_asyncio() * 1000) for _ in range(runs)]
    times, controls = (sorted(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(ours / control for ours, control in pairs)
    print(
        f"exec to first acknowledged record: median {statistics.median(times):.0f} ms"
        f" (min {times[0]:.0f}, max {times[-1]:.0f}, {runs} runs);"
        f" a bare interpreter with asyncio beside it: median {statistics.median(controls):.0f} ms,"
        f" ratio {ratio:.2f}"
    )


def idle(seconds: float) -> None:
    with Default() as server:
        pid = server.process.pid
        time.sleep(seconds)
        before, begin = cpu_seconds(pid), time.monotonic()
        time.sleep(seconds)
        used = (cpu_seconds(pid) - before) / (time.monotonic() - begin)
        print(
            f"idle after {seconds:.0f} s: PSS {pss_bytes(pid) / 1e6:.1f} MB, CPU {used * 100:.3f} %"
        )


def parked(seconds: float) -> None:
    with Default() as server:
        server.create_topic("bench", 16)
        pid = server.process.pid
        load = subprocess.Popen(
            [
                Path(__file__).parent.parent / "build/release/bench/loadgen",
                *("--port", str(server.port), "--mode", "poll", "--connections", "1000"),
                *("--wait-ms", str(int(seconds * 4000)), "--warmup", "0"),
                *("--seconds", str(seconds + 4)),
            ],
            stdout=subprocess.DEVNULL,
        )
        time.sleep(3)
        before, begin = cpu_seconds(pid), time.monotonic()
        time.sleep(seconds)
        used = (cpu_seconds(pid) - before) / (time.monotonic() - begin)
        load.kill()
        load.wait()
        print(f"1,000 fetches parked for {seconds:.0f} s: CPU {used * 100:.3f} %")


def empty(seconds: float) -> None:
    with Default() as server:
        server.create_topic("bench", 16)
        figures = generate(
            server,
            *("--mode", "poll", "--connections", 1000, "--wait-ms", 500),
            *("--warmup", 0, "--seconds", seconds),
        )
        cost = figures["cpu"] / figures["empty"] * 1e6
        print(f"1,000 consumers polling each 500 ms: {cost:.1f} us of CPU per empty fetch")


def partitions(topics: int, each: int) -> None:
    with Default() as server:
        pid = server.process.pid
        client = RawClient(server.port)
        payload = batch(b"x" * 100)
        client.create_topic("warm", 1)
        client.produce("warm", range(1), payload)
        before = pss_bytes(pid)
        begin = time.perf_counter()
        for number in range(topics):
            client.create_topic(f"many-{number}", each)
        created = time.perf_counter() - begin
        for number in range(topics):
            if any(client.produce(f"many-{number}", range(each), payload)):
                raise SystemExit("a partition did not acknowledge")
        acknowledged = time.perf_counter() - begin
        grown = (pss_bytes(pid) - before) / (topics * each)
        print(
            f"{topics * each} partitions: created in {created:.2f} s, each has acknowledged after"
            f" {acknowledged:.2f} s, {grown:.0f} B of PSS each"
        )
        client.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.footprint", description=__doc__)
    parser.add_argument(
        "what",
        nargs="*",
        default=["start", "idle", "parked", "empty", "partitions"],
        help="start, idle, parked, empty, partitions (default: all)",
    )
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    build()
    if "start" in options.what:
        start(options.runs)
    if "idle" in options.what:
        idle(options.seconds)
    if "parked" in options.what:
        parked(options.seconds)
    if "empty" in options.what:
        empty(min(options.seconds, 20))
    if "partitions" in options.what:
        partitions(10, 1000)
    return 0


if __name__ == "__main__":
    sys.exit(main())
