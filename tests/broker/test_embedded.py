"""The broker as a Python object, in the ways a host program may use and misuse it."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import struct
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from rawsocket import framed, header
from served import MARKER, Client, Served, batch

import penstock
from penstock.errors import ForkedError, PenstockError


def write_and_read(bootstrap: str, topic: str = "events") -> None:
    with Client(bootstrap) as client:
        client.create(topic)
        base = client.produce(topic, batch([b"x"])).base_offset
        assert client.fetch(topic, 0, base).records


def test_async_with_leaves_the_event_loop_free() -> None:
    async def host() -> tuple[int, str]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.005)
                ticks += 1

        ticking = asyncio.create_task(tick())
        async with penstock.Broker() as broker:
            await asyncio.to_thread(write_and_read, broker.bootstrap_servers)
            directory = broker.data_dir
        ticking.cancel()
        return ticks, directory

    ticks, directory = asyncio.run(host())
    assert ticks > 2
    assert not Path(directory).exists(), "a directory of its own goes with the broker"


def test_several_asyncio_brokers_start_at_once() -> None:
    async def host() -> set[str]:
        brokers = [penstock.Broker() for _ in range(3)]
        await asyncio.gather(*(broker.astart() for broker in brokers))
        for broker in brokers:
            await asyncio.to_thread(write_and_read, broker.bootstrap_servers)
        found = {broker.cluster_id for broker in brokers}
        await asyncio.gather(*(broker.astop() for broker in brokers))
        return found

    assert len(asyncio.run(host())) == 3


def test_brokers_of_one_process_share_nothing() -> None:
    with penstock.Broker() as one, penstock.Broker() as two:
        with Client(one.bootstrap_servers) as first, Client(two.bootstrap_servers) as second:
            first.create("events")
            second.create("events")
            for number in range(3):
                assert first.produce("events", batch([b"%d" % number])).base_offset == number
            assert second.read_all("events") == []
        one.stop()
        write_and_read(two.bootstrap_servers, "others")
    with pytest.raises(PenstockError, match="not running"):
        _ = one.bootstrap_servers


def test_stopping_and_starting_leaves_no_threads_and_no_descriptors() -> None:
    def present() -> tuple[int, int]:
        return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))

    with penstock.Broker() as broker:
        write_and_read(broker.bootstrap_servers)
    del broker
    gc.collect()
    before = present()
    for _ in range(3):
        with penstock.Broker() as broker:
            write_and_read(broker.bootstrap_servers)
        del broker
    gc.collect()
    assert present() == before


def test_records_survive_restart_and_kill(tmp_path: Path) -> None:
    with penstock.Broker(data_dir=tmp_path) as broker:
        port = broker.port
        with Client(broker.bootstrap_servers) as client:
            client.create("events")
            assert client.produce("events", batch([b"a"])).base_offset == 0
        broker.restart()
        assert broker.port == port
        with Client(broker.bootstrap_servers) as client:
            assert client.produce("events", batch([b"b"])).base_offset == 1
        broker.kill()
        assert not (tmp_path / MARKER).exists()
        broker.start()
        with Client(broker.bootstrap_servers) as client:
            assert len(client.read_all("events")) == 2
    assert (tmp_path / MARKER).exists()


def test_a_failed_start_can_be_followed_by_another(tmp_path: Path) -> None:
    broker = penstock.Broker(data_dir=tmp_path)
    with penstock.Broker(data_dir=tmp_path):
        with pytest.raises(PenstockError, match=str(tmp_path)):
            broker.start()
        threads = threading.active_count()
        with pytest.raises(PenstockError):
            broker.start()
        assert threading.active_count() == threads
    with broker:
        write_and_read(broker.bootstrap_servers)


def run(program: str, *arguments: str, within: float = 30) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            sys.executable,
            "-W",
            "error::ResourceWarning",
            "-c",
            textwrap.dedent(program),
            *arguments,
        ],
        capture_output=True,
        text=True,
        timeout=within,
        check=False,
    )


def test_a_fork_leaves_the_broker_to_the_parent() -> None:
    done = run(
        """
        import os, socket, sys
        import penstock
        from penstock.errors import ForkedError

        with penstock.Broker() as broker:
            host, port = broker.bootstrap_servers.split(":")
            pid = os.fork()
            if pid == 0:
                refused = 0
                for use in (
                    lambda: broker.bootstrap_servers, broker.stop, broker.kill, broker.restart,
                    broker.start, broker.statistics,
                ):
                    try:
                        use()
                    except ForkedError:
                        refused += 1
                with penstock.Broker() as own:  # a child may have one of its own
                    own_host, own_port = own.bootstrap_servers.split(":")
                    socket.create_connection((own_host, int(own_port))).close()
                sys.exit(0 if refused == 6 else 1)  # with atexit: it must not stop the parent's
            _, status = os.waitpid(pid, 0)
            print(os.waitstatus_to_exitcode(status))
            with socket.create_connection((host, int(port)), timeout=10) as peer:
                peer.sendall(bytes.fromhex("0000000a 0012 0000 00000007 ffff"))
                print(peer.recv(8).hex()[8:])
            directory = broker.data_dir
        print(os.path.exists(directory))
        try:
            socket.create_connection((host, int(port)), timeout=10)
        except ConnectionRefusedError:
            print("closed")
        """
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0", "00000007", "False", "closed"]


def test_a_child_that_lives_on_holds_neither_port_nor_lock(tmp_path: Path) -> None:
    done = run(
        """
        import os, sys, signal
        import penstock
        broker = penstock.Broker(data_dir=sys.argv[1]).start()
        port = broker.port
        pid = os.fork()
        if pid == 0:
            signal.pause()
        broker.stop()
        with penstock.Broker(data_dir=sys.argv[1], port=port) as again:
            print(again.port == port)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        """,
        str(tmp_path),
    )
    assert (done.returncode, done.stdout.strip()) == (0, "True"), done.stderr


def test_a_forgotten_broker_ends_with_the_interpreter(tmp_path: Path) -> None:
    for ending in ("", "raise SystemExit(0)", "del broker"):
        program = "import penstock, sys\nbroker = penstock.Broker(data_dir=sys.argv[1]).start()\n"
        done = run(program + ending, str(tmp_path))
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert (tmp_path / MARKER).exists(), ending


def test_an_exception_in_the_host_stops_the_broker_and_shows(tmp_path: Path) -> None:
    done = run(
        "import penstock, sys\n"
        "with penstock.Broker(data_dir=sys.argv[1]): raise ValueError('the host failed')",
        str(tmp_path),
    )
    assert done.returncode == 1
    assert "the host failed" in done.stderr
    assert (tmp_path / MARKER).exists()


def test_the_plugin_serves_a_foreign_test_suite(tmp_path: Path) -> None:
    (tmp_path / "test_host.py").write_text(
        textwrap.dedent(
            """
            import pytest

            PORTS = []

            @pytest.fixture(scope="session")
            def penstock_config():
                return {"num.partitions": 7}

            def partitions(broker, topic):
                from confluent_kafka.admin import AdminClient, NewTopic

                admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
                admin.create_topics([NewTopic(topic)])[topic].result(20)
                return len(admin.list_topics(topic, timeout=20).topics[topic].partitions)

            def test_configured(penstock_broker):
                assert partitions(penstock_broker, "a") == 7
                PORTS.append(penstock_broker.port)

            def test_shared(penstock_broker, fresh_penstock_broker):
                assert penstock_broker.port == PORTS[0] != fresh_penstock_broker.port
                assert partitions(fresh_penstock_broker, "a") == 7
            """
        )
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", tmp_path],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_serve_while_a_consumer_waits(tmp_path: Path, number: int) -> None:
    with Served([tmp_path]) as broker, Client(broker.bootstrap) as consumer:
        consumer.create("events")
        assert consumer.produce("events", batch([b"x"])).code == 0
        consumer.send(consumer.fetch_request("events", 0, 1, wait_ms=30000))
        with Client(broker.bootstrap) as other:
            other.call(18, 0, b"")
        start = time.monotonic()
        broker.process.send_signal(number)
        _, errors = broker.process.communicate(timeout=20)
        took = time.monotonic() - start
    assert (broker.process.returncode, errors) == (0, "")
    assert took < 2, f"{took:.1f} s"
    assert (tmp_path / MARKER).exists()


def join(member: str = "") -> bytes:
    """A JoinGroup v0, not its answer."""
    body = b"".join(
        struct.pack(">h", len(text)) + text
        for text in (b"readers", member.encode(), b"consumer", b"range")
    )
    at = 2 + len(b"readers")
    body = body[:at] + struct.pack(">i", 30000) + body[at:]
    at = len(body) - 2 - len(b"range")
    return framed(header(11, 0) + body[:at] + struct.pack(">i", 1) + body[at:] + bytes(4))


def test_a_stop_does_not_wait_for_members_of_a_group(tmp_path: Path) -> None:
    with (
        Served([tmp_path], "group.initial.rebalance.delay.ms=0") as broker,
        Client(broker.bootstrap) as leader,
        Client(broker.bootstrap) as second,
    ):
        assert leader.find_coordinator("readers") == 0
        leader.send(join())
        assert struct.unpack_from(">h", leader.frame(), 4) == (0,)
        second.send(join())  # answered when the leader joins again, which it does not
        with Client(broker.bootstrap) as other:
            other.call(18, 0, b"")
        start = time.monotonic()
        broker.stop()
        took = time.monotonic() - start
    assert broker.process.returncode == 0
    assert took < 2, f"{took:.1f} s"
    assert (tmp_path / MARKER).exists()


def test_forked_error_is_an_error_of_penstock() -> None:
    assert issubclass(ForkedError, PenstockError)
