"""Peers that are slow, silent, greedy or malicious: they lose their connection, others notice
nothing, and memory stays bounded.
"""

from __future__ import annotations

import gzip
import random
import socket
import struct
import threading
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest
import zstandard
from rawsocket import RawSocket, framed, header
from served import Client, Served, batch, memory, sealed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

API_VERSIONS, PRODUCE = 18, 0
NO_ERROR, MESSAGE_TOO_LARGE = 0, 10
MIB = 1 << 20


def seconds_until_closed(raw: RawSocket, say: bytes = b"", every: float = 0.1) -> float:
    """Sends `say` a byte at a time, again and again, until the broker closes."""
    raw.socket.settimeout(every)
    start = time.monotonic()
    at = 0
    while time.monotonic() - start < 20:
        try:
            if say:
                raw.send(say[at : at + 1])
                at = (at + 1) % len(say)
            if raw.socket.recv(1) == b"":
                return time.monotonic() - start
        except TimeoutError:
            continue
        except OSError:
            return time.monotonic() - start
    raise AssertionError("it was not closed")


def test_a_frame_that_trickles_in_is_closed_and_one_that_moves_is_not(tmp_path: Path) -> None:
    with (
        Served([tmp_path], "penstock.frame.timeout.ms=1000") as broker,
        Client(broker.bootstrap) as moving,
        Client(broker.bootstrap) as trickling,
    ):
        moving.create("events")
        trickling.send(struct.pack(">i", 30000) + header(PRODUCE, 7))
        took = 0.0

        def trickle() -> None:
            nonlocal took
            took = seconds_until_closed(trickling, b"\0", 0.1)

        thread = threading.Thread(target=trickle)
        thread.start()
        request = produce_frame("events", batch([bytes(12000)]))
        for at in range(0, len(request), 2048):
            moving.send(request[at : at + 2048])
            threading.Event().wait(0.5)
        assert struct.unpack_from(">h", moving.frame(), 4 + 4 + 2 + 6 + 4 + 4) == (NO_ERROR,)
        thread.join()
        assert 0.5 < took < 5


def produce_frame(topic: str, payload: bytes) -> bytes:
    body = struct.pack(">hhiih", -1, -1, 30000, 1, len(topic)) + topic.encode()
    return framed(header(PRODUCE, 7) + body + struct.pack(">iii", 1, 0, len(payload)) + payload)


def test_idle_connections_are_closed_and_busy_ones_kept(tmp_path: Path) -> None:
    with Served([tmp_path], "connections.max.idle.ms=1000") as broker, ExitStack() as stack:
        busy = stack.enter_context(Client(broker.bootstrap))
        idle = stack.enter_context(Client(broker.bootstrap))
        polling = stack.enter_context(Client(broker.bootstrap))
        busy.create("events")
        polling.send(polling.fetch_request("events", 0, 0, wait_ms=2500))
        took: list[float] = []
        thread = threading.Thread(target=lambda: took.append(seconds_until_closed(idle)))
        thread.start()
        end = time.monotonic() + 2
        while time.monotonic() < end:
            busy.call(API_VERSIONS, 0, b"")
            threading.Event().wait(0.2)
        polling.frame()
        thread.join()
        assert 0.5 < took[0] < 5


def test_connections_of_one_address_are_limited(tmp_path: Path) -> None:
    with Served([tmp_path], "max.connections.per.ip=3") as broker, ExitStack() as stack:
        clients = [stack.enter_context(Client(broker.bootstrap)) for _ in range(3)]
        for client in clients:
            client.call(API_VERSIONS, 0, b"")
        with Client(broker.bootstrap) as fourth:
            assert fourth.closed()
        clients[0].socket.close()
        end = time.monotonic() + 10
        while not answers(broker.bootstrap):
            assert time.monotonic() < end
        for client in clients[1:]:
            client.call(API_VERSIONS, 0, b"")


def answers(bootstrap: str) -> bool:
    try:
        with Client(bootstrap) as client:
            client.call(API_VERSIONS, 0, b"")
    except OSError:
        return False
    return True


@contextmanager
def watched(broker: Served) -> Iterator[list[int]]:
    """The memory (PSS) while inside, sampled."""
    samples = [memory(broker.pid)]
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            samples.append(memory(broker.pid))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()
        samples.append(memory(broker.pid))


def latencies(client: Client, seconds: float, topic: str = "good") -> list[float]:
    """Of a produce and a fetch of it, in turn."""
    found = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        start = time.monotonic()
        answer = client.produce(topic, batch([b"x" * 100]))
        assert answer.code == NO_ERROR
        assert client.fetch(topic, 0, answer.base_offset).records
        found.append(time.monotonic() - start)
    return sorted(found)


def test_peers_that_never_read_their_fetches_cost_others_nothing(tmp_path: Path) -> None:
    with (
        Served([tmp_path], "penstock.send.timeout.ms=3000") as broker,
        Client(broker.bootstrap) as good,
        ExitStack() as stack,
    ):
        good.create("good")
        good.create("large")
        for _ in range(32):
            assert good.produce("large", batch([bytes(900_000)])).code == NO_ERROR
        peers = [stack.enter_context(Client(broker.bootstrap)) for _ in range(20)]
        with watched(broker) as samples:
            for peer in peers:
                for offset in range(32):
                    peer.send(peer.fetch_request("large", 0, offset))
            found = latencies(good, 2)
        assert len(found) > 50
        assert found[len(found) * 95 // 100] < 0.2
        assert max(samples) - samples[0] < 96 * MIB
        for peer in peers:
            assert stalls_out(peer)


def stalls_out(peer: Client) -> bool:
    """The connection ends without having delivered everything."""
    end = time.monotonic() + 15
    while time.monotonic() < end:
        try:
            peer.socket.send(b"\0")
        except OSError:
            return True
        threading.Event().wait(0.1)
    return False


def test_two_thousand_idle_connections_are_small(tmp_path: Path) -> None:
    count = 2000
    with Served([tmp_path]) as broker, ExitStack() as stack:
        assert answers(broker.bootstrap)
        before = memory(broker.pid)
        peers = [stack.enter_context(Client(broker.bootstrap)) for _ in range(count)]
        for peer in peers:
            peer.call(API_VERSIONS, 0, b"")
        each = (memory(broker.pid) - before) / count
        spent = broker.cpu_seconds()
        threading.Event().wait(1)
        assert broker.cpu_seconds() - spent < 0.1
        assert each < 4096, f"{each:.0f} bytes a connection"


def shout(bootstrap: str, until: float, make: Callable[[], bytes]) -> None:
    while time.monotonic() < until:
        try:
            raw = RawSocket(bootstrap, timeout=1)
        except OSError:
            continue
        try:
            raw.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            for _ in range(20):
                raw.send(make())
        except OSError:
            pass
        finally:
            raw.socket.close()


def test_a_flood_of_garbage_leaves_a_good_client_served(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)

    def noise() -> bytes:
        return chance.randbytes(4000)

    def frames() -> bytes:
        body = header(chance.randrange(70), chance.randrange(14)) + chance.randbytes(300)
        return framed(body)

    def unfinished() -> bytes:
        return struct.pack(">i", 50 * MIB) + header(PRODUCE, 7) + bytes(60_000)

    with Served([tmp_path]) as broker, Client(broker.bootstrap) as good:
        good.create("good")
        until = time.monotonic() + 3
        with watched(broker) as samples:
            threads = [
                threading.Thread(target=shout, args=(broker.bootstrap, until, make))
                for make in (noise, frames, frames, unfinished)
            ]
            for thread in threads:
                thread.start()
            found = latencies(good, 2.5)
            for thread in threads:
                thread.join()
        assert len(found) > 20
        assert found[len(found) // 2] < 0.2
        assert max(samples) - samples[0] < 96 * MIB
        assert broker.process.poll() is None


def bomb(size: int) -> bytes:
    """A records section with one record of `size` zeros."""
    value = b""
    left = size << 1
    while left >= 0x80:
        value += bytes([left & 0x7F | 0x80])
        left >>= 7
    value += bytes([left])
    record = b"\0\0\0\1" + value + bytes(size) + b"\0"
    length = b""
    left = len(record) << 1
    while left >= 0x80:
        length += bytes([left & 0x7F | 0x80])
        left >>= 7
    return length + bytes([left]) + record


@pytest.fixture(scope="module")
def bombs() -> dict[int, bytes]:
    """By codec."""
    plain = bomb(200 * MIB)
    return {1: gzip.compress(plain, 6), 4: zstandard.compress(plain, 3)}


def test_compression_bombs_are_refused_within_bounded_memory(
    tmp_path: Path, bombs: dict[int, bytes]
) -> None:
    with Served([tmp_path]) as broker, ExitStack() as stack:
        first = stack.enter_context(Client(broker.bootstrap, timeout=60))
        first.create("squeezed", 8, compression_type="lz4")
        first.create("good")
        codes: list[int] = []

        def throw(partition: int) -> None:
            codec = (1, 4)[partition % 2]
            with Client(broker.bootstrap, timeout=60) as client:
                payload = sealed(bombs[codec], 1, codec=codec)
                codes.append(client.produce("squeezed", payload, partition).code)

        with watched(broker) as samples:
            threads = [threading.Thread(target=throw, args=(part,)) for part in range(8)]
            for thread in threads:
                thread.start()
            assert latencies(first, 0.5)
            for thread in threads:
                thread.join()
        print(f"{max(samples) / MIB:.0f} MiB at most, {samples[-1] / MIB:.0f} afterwards")
        assert codes == [MESSAGE_TOO_LARGE] * 8
        assert max(samples) < 600 * MIB
        assert samples[-1] < samples[0] + 32 * MIB
        assert first.produce("squeezed", batch([b"x"])).code == NO_ERROR
        assert [record[:1] for record in first.read_all("squeezed")] == [b"\2"]
