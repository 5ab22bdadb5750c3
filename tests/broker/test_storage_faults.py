"""Disks that are full or fail, descriptors that run out, a directory that is taken: errors, and
nothing acknowledged is lost.
"""

from __future__ import annotations

import resource
import subprocess
import threading
import time
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from served import KAFKA_STORAGE_ERROR, MARKER, PENSTOCK, Client, Served, batch

if TYPE_CHECKING:
    from collections.abc import Iterator

NO_ERROR = 0
VALUE = 50_000


def until(found: object, seconds: float = 20) -> None:
    """Calls `found` until it returns something true."""
    assert callable(found)
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, "did not happen"
        threading.Event().wait(0.02)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", place],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(f"mounting a small tmpfs is not permitted: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def payload(number: int) -> bytes:
    return batch([b"%08d" % number + bytes(VALUE)], producer=4711, sequence=number)


def commits(client: Client, offset: int) -> None:
    until(lambda: client.find_coordinator("readers") == NO_ERROR)
    until(lambda: client.commit("readers", "events", offset) == NO_ERROR)


def test_a_full_disk_fails_writes_until_there_is_space(small_disk: Path) -> None:
    data = small_disk / "data"
    filler = small_disk / "filler"
    settings = ("offsets.topic.num.partitions=1", "log.segment.bytes=1048576")
    with Served([data], *settings) as broker, Client(broker.bootstrap) as client:
        client.create("events")
        commits(client, 3)
        filler.write_bytes(bytes(14 << 20))
        acknowledged = 0
        while (answer := client.produce("events", payload(acknowledged))).code == NO_ERROR:
            assert answer.base_offset == acknowledged
            acknowledged += 1
            assert acknowledged < 1000, "the disk does not get full"
        assert answer.code == KAFKA_STORAGE_ERROR
        assert acknowledged > 20
        for _ in range(20):
            assert client.produce("events", payload(acknowledged)).code == KAFKA_STORAGE_ERROR
        kept = [payload(number)[16:] for number in range(acknowledged)]
        assert client.read_all("events") == kept
        assert client.committed("readers", "events") == 3
        assert client.leaders("events") == [0] or client.leaders("events") == [1]
        assert all(code == NO_ERROR for code, _ in client.log_dirs().values())

        filler.unlink()
        until(lambda: client.produce("events", payload(acknowledged)).code == NO_ERROR)
        assert client.produce("events", payload(acknowledged + 1)).base_offset == acknowledged + 1
        kept += [payload(acknowledged)[16:], payload(acknowledged + 1)[16:]]
        assert client.read_all("events") == kept
        commits(client, 5)
        broker.stop()
        assert broker.process.returncode == 0
    assert (data / MARKER).exists()
    with Served([data], *settings) as broker, Client(broker.bootstrap) as client:
        assert client.read_all("events") == kept
        assert client.committed("readers", "events") == 5


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


def test_a_full_disk_refuses_topics_and_commits_and_takes_them_later(small_disk: Path) -> None:
    data = small_disk / "data"
    filler = small_disk / "filler"
    settings = ("offsets.topic.num.partitions=1",)
    with Served([data], *settings) as broker, Client(broker.bootstrap) as client:
        client.create("events")
        commits(client, 3)
        assert client.produce("events", payload(0)).code == NO_ERROR
        fill(filler)
        number = 0
        while (code := client.try_create(f"more-{number}", 10)) == NO_ERROR:
            number += 1
            assert number < 200
        assert code == KAFKA_STORAGE_ERROR
        offset = 3
        while client.commit("readers", "events", offset + 1) == NO_ERROR:
            offset += 1
            assert offset < 10000
        assert client.committed("readers", "events") == offset
        assert client.leaders("missing, and not created now") == []
        errors = broker.stop()
        assert broker.process.returncode in {0, 1}
        assert "Traceback" not in errors
    with Served([data], *settings) as broker, Client(broker.bootstrap) as client:
        assert client.committed("readers", "events") == offset
        assert client.read_all("events") == [payload(0)[16:]]
        filler.unlink()
        client.create("afterwards")
        commits(client, 9999)
        assert client.committed("readers", "events") == 9999
        assert client.produce("afterwards", batch([b"x"])).code == NO_ERROR
        broker.stop()
        assert broker.process.returncode == 0


@contextmanager
def failing(pid: int, path: Path, calls: str) -> Iterator[None]:
    """While inside, the system calls of the process that touch the file fail with EIO."""
    tracer = subprocess.Popen(
        ["strace", "-f", "-p", str(pid), "-P", path, "-e", f"inject={calls}:error=EIO"],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tracer.stderr is not None
    line = tracer.stderr.readline()
    if "attached" not in line:
        pytest.skip(f"strace cannot attach: {line.strip()}")
    drain = threading.Thread(target=tracer.stderr.read)
    drain.start()
    threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
    until(lambda: traced(pid) == threads)
    try:
        yield
    finally:
        tracer.terminate()
        tracer.wait(timeout=20)
        drain.join()


def traced(pid: int) -> int:
    count = 0
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        count += "TracerPid:\t0" not in status.read_text()
    return count


def test_a_failing_disk_takes_its_directory_offline_and_no_other(tmp_path: Path) -> None:
    directories = [tmp_path / "one", tmp_path / "two"]
    with Served(directories) as broker, Client(broker.bootstrap) as client:
        client.create("events", 2)
        held = {}
        for number in range(10):
            for partition in (0, 1):
                assert client.produce("events", payload(number), partition).code == NO_ERROR
        kept = [payload(number)[16:] for number in range(10)]
        for path, (_, partitions) in client.log_dirs().items():
            held.update({partition: Path(path) for topic, partition in partitions})
        assert set(held.values()) == set(directories), "one partition in each directory"
        segment = held[0] / "events-0" / f"{0:020}.log"
        with failing(broker.pid, segment, "pwritev,pwrite64"):
            assert client.produce("events", payload(10), 0).code == KAFKA_STORAGE_ERROR
        assert client.produce("events", payload(10), 0).code == KAFKA_STORAGE_ERROR
        assert client.fetch("events", 0, 0).code == KAFKA_STORAGE_ERROR
        assert client.produce("events", payload(10), 1).code == NO_ERROR
        assert client.read_all("events", 1) == [*kept, payload(10)[16:]]
        codes = {Path(path): code for path, (code, _) in client.log_dirs().items()}
        assert codes == {held[0]: KAFKA_STORAGE_ERROR, held[1]: NO_ERROR}
        errors = broker.stop()
    assert str(held[0]) in errors, "the log names the directory"
    assert not (held[0] / MARKER).exists()
    with Served(directories) as broker, Client(broker.bootstrap) as client:
        assert client.read_all("events", 0)[:10] == kept
        assert len(client.read_all("events", 0)) <= 11
        assert client.read_all("events", 1) == [*kept, payload(10)[16:]]
        assert {code for code, _ in client.log_dirs().values()} == {NO_ERROR}
        broker.stop()
    assert all((directory / MARKER).exists() for directory in directories)


def test_a_roll_that_fails_takes_the_directory_offline(tmp_path: Path) -> None:
    settings = ("log.segment.bytes=1048576",)
    with Served([tmp_path], *settings) as broker, Client(broker.bootstrap) as client:
        client.create("events")
        acknowledged = 0
        with failing(broker.pid, tmp_path / "events-0", "openat,fsync,fdatasync"):
            while client.produce("events", payload(acknowledged)).code == NO_ERROR:
                acknowledged += 1
                assert acknowledged < 100, "no roll, or one that did not fail"
        assert {code for code, _ in client.log_dirs().values()} == {KAFKA_STORAGE_ERROR}
        errors = broker.stop()
        assert "Traceback" not in errors
    assert not (tmp_path / MARKER).exists()
    with Served([tmp_path], *settings) as broker, Client(broker.bootstrap) as client:
        assert client.read_all("events") == [payload(number)[16:] for number in range(acknowledged)]
        assert client.produce("events", payload(acknowledged)).base_offset == acknowledged


def test_a_read_that_fails_is_an_error_and_others_go_on(tmp_path: Path) -> None:
    directories = [tmp_path / "one", tmp_path / "two"]
    with Served(directories) as broker, Client(broker.bootstrap) as client:
        client.create("events", 2)
        for number in range(10):
            for partition in (0, 1):
                assert client.produce("events", payload(number), partition).code == NO_ERROR
    with Served(directories) as broker, Client(broker.bootstrap) as client:
        held = {
            partition: Path(path)
            for path, (_, partitions) in client.log_dirs().items()
            for _, partition in partitions
        }
        segment = held[0] / "events-0" / f"{0:020}.log"
        with failing(broker.pid, segment, "pread64,preadv,preadv2,read,sendfile,splice,mmap"):
            # Where the response has begun it can only end.
            with Client(broker.bootstrap, timeout=5) as other, suppress(ConnectionError):
                assert other.fetch("events", 0, 0).code == KAFKA_STORAGE_ERROR
            assert len(client.read_all("events", 1)) == 10
            assert client.produce("events", payload(10), 1).code == NO_ERROR
        assert broker.process.poll() is None
    with Served(directories) as broker, Client(broker.bootstrap) as client:
        assert client.read_all("events", 0) == [payload(number)[16:] for number in range(10)]


def test_a_metadata_store_on_a_failing_disk_is_an_error_of_the_request(tmp_path: Path) -> None:
    with Served([tmp_path]) as broker, Client(broker.bootstrap) as client:
        client.create("events")
        store = tmp_path / "penstock-metadata.db-wal"
        with failing(broker.pid, store, "pwrite64,fdatasync,fsync"):
            assert client.try_create("refused") == KAFKA_STORAGE_ERROR
            assert client.produce("events", payload(0)).code == NO_ERROR
        assert client.try_create("taken") == NO_ERROR
        errors = broker.stop()
        assert "Traceback" not in errors
    with Served([tmp_path]) as broker, Client(broker.bootstrap) as client:
        assert client.leaders("taken") != []
        assert client.leaders("refused") == []
        assert client.read_all("events") == [payload(0)[16:]]


def test_a_flush_that_fails_leaves_no_marker(tmp_path: Path) -> None:
    with Served([tmp_path]) as broker, Client(broker.bootstrap) as client:
        client.create("events")
        assert client.produce("events", payload(0)).code == NO_ERROR
        with failing(broker.pid, tmp_path, "syncfs"):
            broker.process.terminate()
            broker.process.wait(timeout=20)
        broker.stop()
    assert not (tmp_path / MARKER).exists()
    with Served([tmp_path]) as broker, Client(broker.bootstrap) as client:
        assert client.read_all("events") == [payload(0)[16:]]


def limit_files(count: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))


def test_too_few_descriptors_to_work_with_are_refused_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"limit of 256 open files is too low.*ulimit -n"):
        Served([tmp_path], before=lambda: limit_files(256))


def served_within(bootstrap: str, seconds: float) -> bool:
    try:
        with Client(bootstrap, timeout=seconds) as client:
            client.call(18, 0, b"")
    except OSError:
        return False
    return True


def test_connections_beyond_the_descriptors_are_refused_and_later_served(tmp_path: Path) -> None:
    with (
        Served([tmp_path], before=lambda: limit_files(640)) as broker,
        Client(broker.bootstrap) as first,
    ):
        with ExitStack() as stack:
            refused = 0
            for _ in range(200):
                client = stack.enter_context(Client(broker.bootstrap))
                try:
                    client.call(18, 0, b"")
                except OSError:
                    refused += 1
            assert 80 <= refused <= 180
            first.create("events")
            assert first.produce("events", payload(0)).code == NO_ERROR
        until(lambda: served_within(broker.bootstrap, 5))


def test_a_process_out_of_descriptors_waits_and_serves_again(tmp_path: Path) -> None:
    with Served([tmp_path]) as broker, Client(broker.bootstrap) as first:
        first.create("events")
        first.create("untouched")
        assert first.produce("events", payload(0)).code == NO_ERROR
        used = len(list(Path(f"/proc/{broker.pid}/fd").iterdir()))
        before = resource.prlimit(broker.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(broker.pid, resource.RLIMIT_NOFILE, (used, before[1]))
        with ExitStack() as stack:
            waiting = [stack.enter_context(Client(broker.bootstrap)) for _ in range(20)]
            spent = broker.cpu_seconds()
            assert not served_within(broker.bootstrap, 1)
            for number in range(1, 20):
                assert first.produce("events", payload(number)).code == NO_ERROR
            assert broker.cpu_seconds() - spent < 0.5, "it spins"
            # A log that cannot be opened now is no failing disk.
            assert first.produce("untouched", payload(0)).code == KAFKA_STORAGE_ERROR
            resource.prlimit(broker.pid, resource.RLIMIT_NOFILE, before)
            until(lambda: served_within(broker.bootstrap, 5))
            assert first.produce("untouched", payload(0)).code == NO_ERROR
            assert {code for code, _ in first.log_dirs().values()} == {NO_ERROR}
            waiting[0].socket.close()
        assert len(first.read_all("events")) == 20


def test_a_request_that_needs_a_descriptor_and_gets_none_costs_no_other(tmp_path: Path) -> None:
    with Served([tmp_path]) as broker, ExitStack() as stack:
        clients = [stack.enter_context(Client(broker.bootstrap)) for _ in range(4)]
        clients[0].create("events")
        assert clients[0].find_coordinator("readers") == NO_ERROR
        used = len(list(Path(f"/proc/{broker.pid}/fd").iterdir()))
        before = resource.prlimit(broker.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(broker.pid, resource.RLIMIT_NOFILE, (used, before[1]))
        with suppress(ConnectionError):  # its handler is read at its first use
            clients[1].log_dirs()
        assert clients[0].find_coordinator("readers") == NO_ERROR
        resource.prlimit(broker.pid, resource.RLIMIT_NOFILE, before)
        assert clients[2].log_dirs()


def test_a_directory_of_a_running_broker_is_refused_with_a_sentence(tmp_path: Path) -> None:
    with Served([tmp_path]) as broker:
        second = subprocess.run(
            [PENSTOCK, "serve", "--set", f"log.dirs={tmp_path}", "--set",
             "listeners=PLAINTEXT://127.0.0.1:0"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )  # fmt: skip
        assert second.returncode == 1
        assert second.stdout == ""
        assert len(second.stderr.strip().splitlines()) == 1
        assert str(tmp_path) in second.stderr
        assert "Traceback" not in second.stderr
        assert served_within(broker.bootstrap, 5)
