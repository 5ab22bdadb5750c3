"""`penstock serve` as a process of its own, and a client that says exactly what it is told."""

from __future__ import annotations

import itertools
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import google_crc32c
from rawsocket import RawSocket, framed, header

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType
    from typing import Self

PENSTOCK = Path(sys.executable).parent / "penstock"
MARKER = ".kafka_cleanshutdown"
KAFKA_STORAGE_ERROR = 56


def memory(pid: int) -> int:
    """PSS in bytes."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) << 10
    raise AssertionError


class Served:
    """Running inside a `with`; leaves by SIGTERM unless it has ended already."""

    def __init__(
        self,
        directories: Sequence[Path],
        *settings: str,
        wrap: Sequence[str] = (),
        before: Callable[[], None] | None = None,
    ) -> None:
        values = (
            "listeners=PLAINTEXT://127.0.0.1:0",
            f"log.dirs={','.join(map(str, directories))}",
            "penstock.reactors=1",
            *settings,
        )
        self.process = subprocess.Popen(
            [*wrap, PENSTOCK, "serve", *(part for value in values for part in ("--set", value))],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=before,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if "bootstrap " not in line:
            raise AssertionError(f"no ready line: {self.process.communicate()[1]}")
        self.bootstrap = line.split("bootstrap ")[1].split(",")[0]
        self.pid = self.process.pid

    def stop(self, within: float = 20) -> str:
        """By SIGTERM; returns what it wrote to stderr."""
        self.process.send_signal(signal.SIGTERM)
        _, errors = self.process.communicate(timeout=within)
        return errors

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.communicate()
                raise

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def batch(values: Sequence[bytes], *, producer: int = -1, sequence: int = -1) -> bytes:
    """Uncompressed, magic 2, with epoch 0 when there is a producer."""
    records = b""
    for number, value in enumerate(values):
        record = b"\0\0" + _varint(number) + b"\1" + _varint(len(value)) + value + b"\0"
        records += _varint(len(record)) + record
    return sealed(records, len(values), producer=producer, sequence=sequence)


def sealed(
    records: bytes, count: int, *, codec: int = 0, producer: int = -1, sequence: int = -1
) -> bytes:
    """Header and checksum around a records section, whatever it is."""
    time = 1_700_000_000_000
    epoch = -1 if producer < 0 else 0
    covered = (
        struct.pack(">hiqqqhii", codec, count - 1, time, time, producer, epoch, sequence, count)
        + records
    )
    body = struct.pack(">ibI", -1, 2, google_crc32c.value(covered)) + covered
    return struct.pack(">qi", 0, len(body)) + body


def _varint(value: int) -> bytes:
    value *= 2
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class Produced(NamedTuple):
    code: int
    base_offset: int


class Fetched(NamedTuple):
    code: int
    high_watermark: int
    records: bytes


class Client(RawSocket):
    """One request at a time."""

    def __init__(self, bootstrap: str, timeout: float = 20) -> None:
        super().__init__(bootstrap, timeout)
        self._correlations = itertools.count(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def call(self, key: int, version: int, body: bytes) -> bytes:
        """The body of the response, behind the correlation id."""
        number = next(self._correlations)
        self.send(framed(header(key, version, number) + body))
        answer = self.frame()
        assert struct.unpack_from(">i", answer) == (number,)
        return answer[4:]

    def produce(self, topic: str, payload: bytes, partition: int = 0, acks: int = -1) -> Produced:
        body = struct.pack(">hhii", -1, acks, 30000, 1) + _string(topic)
        body += struct.pack(">iii", 1, partition, len(payload)) + payload
        answer = self.call(0, 7, body)
        return Produced(*struct.unpack_from(">hq", answer, 4 + 2 + len(topic) + 4 + 4))

    def fetch_request(
        self, topic: str, partition: int, offset: int, wait_ms: int = 0, size: int = 1 << 20
    ) -> bytes:
        body = struct.pack(">iiiibii", -1, wait_ms, 1, size, 0, 0, -1)
        body += struct.pack(">i", 1) + _string(topic)
        body += struct.pack(">iiiqqi", 1, partition, -1, offset, -1, size)
        body += struct.pack(">ih", 0, 0)
        return framed(header(1, 11, next(self._correlations)) + body)

    def fetch(self, topic: str, partition: int, offset: int, wait_ms: int = 0) -> Fetched:
        self.send(self.fetch_request(topic, partition, offset, wait_ms))
        answer = self.frame()
        at = 4 + 4 + 2 + 4 + 4 + 2 + len(topic) + 4 + 4
        code, high = struct.unpack_from(">hq", answer, at)
        at += 2 + 8 + 8 + 8
        (aborted,) = struct.unpack_from(">i", answer, at)
        assert aborted <= 0
        at += 4 + 4
        (size,) = struct.unpack_from(">i", answer, at)
        return Fetched(code, high, answer[at + 4 :] if size > 0 else b"")

    def read_all(self, topic: str, partition: int = 0) -> list[bytes]:
        """Every batch behind its base offset and epoch, from 0 to the high watermark; each whole
        and with the right checksum.
        """
        found: list[bytes] = []
        offset = 0
        while True:
            got = self.fetch(topic, partition, offset)
            assert got.code == 0, got.code
            if offset >= got.high_watermark:
                return found
            data = got.records
            before = offset
            while len(data) >= 61:
                base, length = struct.unpack_from(">qi", data)
                if len(data) < 12 + length:
                    break
                (delta,) = struct.unpack_from(">i", data, 23)
                (crc,) = struct.unpack_from(">I", data, 17)
                assert base == offset
                assert google_crc32c.value(data[21 : 12 + length]) == crc
                found.append(data[16 : 12 + length])
                offset = base + delta + 1
                data = data[12 + length :]
            assert offset > before, "a fetch without progress"

    def leaders(self, topic: str) -> list[int]:
        """Of the partitions, in order; -1 where there is none."""
        answer = self.call(3, 4, struct.pack(">i", 1) + _string(topic) + b"\0")
        at = 4
        (brokers,) = struct.unpack_from(">i", answer, at)
        at += 4
        for _ in range(brokers):
            (size,) = struct.unpack_from(">h", answer, at + 4)
            at += 4 + 2 + size + 4
            (rack,) = struct.unpack_from(">h", answer, at)
            at += 2 + max(rack, 0)
        (cluster,) = struct.unpack_from(">h", answer, at)
        at += 2 + max(cluster, 0) + 4 + 4 + 2 + 2 + len(topic) + 1
        (count,) = struct.unpack_from(">i", answer, at)
        at += 4
        found = {}
        for _ in range(count):
            _, index, leader, replicas = struct.unpack_from(">hiii", answer, at)
            at += 14 + 4 * replicas
            (in_sync,) = struct.unpack_from(">i", answer, at)
            at += 4 + 4 * in_sync
            found[index] = leader
        return [found[index] for index in sorted(found)]

    def create(self, topic: str, partitions: int = 1, **configs: str) -> None:
        code = self.try_create(topic, partitions, **configs)
        assert code == 0, code

    def try_create(self, topic: str, partitions: int = 1, **configs: str) -> int:
        """`configs` with underscores for dots."""
        body = struct.pack(">i", 1) + _string(topic) + struct.pack(">ihi", partitions, 1, 0)
        body += struct.pack(">i", len(configs))
        for name, value in configs.items():
            body += _string(name.replace("_", ".")) + _string(value)
        answer = self.call(19, 2, body + struct.pack(">ib", 10000, 0))
        code: int = struct.unpack_from(">h", answer, 4 + 4 + 2 + len(topic))[0]
        return code

    def log_dirs(self) -> dict[str, tuple[int, set[tuple[str, int]]]]:
        """Error code and partitions of each directory."""
        answer = self.call(35, 1, struct.pack(">i", -1))
        at = 8
        found = {}
        for _ in range(struct.unpack_from(">i", answer, 4)[0]):
            code, size = struct.unpack_from(">hh", answer, at)
            path = answer[at + 4 : at + 4 + size].decode()
            at += 4 + size
            (topics,) = struct.unpack_from(">i", answer, at)
            at += 4
            held = set()
            for _ in range(topics):
                (size,) = struct.unpack_from(">h", answer, at)
                name = answer[at + 2 : at + 2 + size].decode()
                (partitions,) = struct.unpack_from(">i", answer, at + 2 + size)
                at += 2 + size + 4
                for _ in range(partitions):
                    held.add((name, struct.unpack_from(">i", answer, at)[0]))
                    at += 4 + 8 + 8 + 1
            found[path] = (code, held)
        return found

    def find_coordinator(self, group: str) -> int:
        code: int = struct.unpack_from(">h", self.call(10, 0, _string(group)))[0]
        return code

    def commit(self, group: str, topic: str, offset: int) -> int:
        """OffsetCommit of a group without members; the partition's error code."""
        body = _string(group) + struct.pack(">i", -1) + _string("") + struct.pack(">q", -1)
        body += struct.pack(">i", 1) + _string(topic) + struct.pack(">iiqh", 1, 0, offset, -1)
        code: int = struct.unpack(">h", self.call(8, 2, body)[-2:])[0]
        return code

    def committed(self, group: str, topic: str) -> int:
        body = _string(group) + struct.pack(">i", 1) + _string(topic) + struct.pack(">ii", 1, 0)
        answer = self.call(9, 1, body)
        offset, metadata = struct.unpack_from(">qh", answer, 4 + 2 + len(topic) + 4 + 4)
        (code,) = struct.unpack(">h", answer[-2:])
        assert (code, metadata <= 0) == (0, True)
        found: int = offset
        return found


def _string(text: str) -> bytes:
    return struct.pack(">h", len(text)) + text.encode()
