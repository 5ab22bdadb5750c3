"""The native log against a model: appends, reads, rolls, retention, kills, restarts, any order."""

from __future__ import annotations

import shutil
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

sys.path.insert(0, str(Path(__file__).parent))

import log_ffi

BUFFER = 1 << 20
EOFFSET = 0  # any negative code: the model only says refused or not


class Batch(NamedTuple):
    base: int
    size: int
    tag: int


class Model:
    """What a log is: batches in order, a start, an end."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.start = 0
        self.end = 0

    def append(self, count: int, tag: int) -> int:
        base = self.end
        self.batches.append(Batch(base, count, tag))
        self.end += count
        return base

    def at(self, offset: int, end: int) -> list[Batch]:
        return [b for b in self.batches if b.base + b.size > offset and b.base < end]

    def first_at_time(self, tag: int) -> int:
        found = (
            max(b.base, self.start)
            for b in self.batches
            if b.tag >= tag and b.base + b.size > self.start
        )
        return next(found, -1)


def parse(data: bytes) -> list[Batch]:
    found, at = [], 0
    while len(data) - at >= 61:
        base, length = struct.unpack_from(">qi", data, at)
        last_delta, first_time = struct.unpack_from(">iq", data, at + 23)
        if at + 12 + length > len(data):
            break
        found.append(Batch(base, last_delta + 1, first_time))
        at += 12 + length
    return found


class LogMachine(RuleBasedStateMachine):
    native: Any = None

    def __init__(self) -> None:
        super().__init__()
        self.ffi, self.lib = self.native.ffi, self.native.lib
        self.root = Path(tempfile.mkdtemp(prefix="pst-model-"))
        self.copies = 0
        self.model = Model()
        self.tag = 1
        self.dir = self.root / "0"
        self.dir.mkdir()
        self.buffer = self.ffi.new("uint8_t[]", BUFFER)
        self.open()

    def open(self) -> None:
        error = self.ffi.new("char[256]")
        self.log = self.lib.shim_open(str(self.dir).encode(), 3000, 300, 8000, error, 256)
        assert self.log != self.ffi.NULL, self.ffi.string(error)

    def offsets(self) -> tuple[int, int, int, int]:
        out = self.ffi.new("int64_t[4]")
        self.lib.shim_offsets(self.log, out)
        return out[0], out[1], out[2], out[3]

    def read(self, offset: int, end: int, max_bytes: int, may_block: bool) -> tuple[int, bytes]:
        size = self.ffi.new("size_t *")
        rc = self.lib.shim_read(
            self.log, offset, end, max_bytes, may_block, self.buffer, BUFFER, size
        )
        return rc, bytes(self.ffi.buffer(self.buffer, size[0]))

    @rule(batches=st.integers(1, 6), records=st.integers(1, 4), size=st.integers(0, 600))
    def append(self, batches: int, records: int, size: int) -> None:
        base = self.ffi.new("int64_t *")
        assert self.lib.shim_append(self.log, batches, records, size, self.tag, base) == 0
        assert base[0] == self.model.end
        for i in range(batches):
            self.model.append(records, self.tag + i)
        self.tag += batches

    @rule(data=st.data(), max_bytes=st.integers(0, 9000), may_block=st.booleans())
    def read_somewhere(self, data: st.DataObject, max_bytes: int, may_block: bool) -> None:
        offset = data.draw(st.integers(self.model.start - 1, self.model.end + 1))
        end = data.draw(st.integers(min(offset, self.model.end), self.model.end))
        rc, raw = self.read(offset, end, max_bytes, may_block)
        if offset < self.model.start or offset > self.model.end:
            assert rc < EOFFSET
            return
        assert rc == 0
        expected = self.model.at(offset, end)
        got = parse(raw)
        assert got == expected[: len(got)]
        assert bool(got) == bool(offset < end and expected)

    @rule()
    def read_all(self) -> None:
        at = self.model.start
        while at < self.model.end:
            rc, raw = self.read(at, self.model.end, 2000, False)
            assert rc == 0
            got = parse(raw)
            assert got
            assert got == self.model.at(at, self.model.end)[: len(got)]
            at = got[-1].base + got[-1].size

    @rule()
    def wait_at_the_end(self) -> None:
        assert self.read(self.model.end, self.model.end, 1000, False) == (0, b"")

    @rule(data=st.data())
    def delete_records(self, data: st.DataObject) -> None:
        offset = data.draw(st.integers(0, self.model.end))
        out = self.ffi.new("int64_t *")
        assert self.lib.shim_delete_records(self.log, offset, out) == 0
        self.model.start = max(self.model.start, offset)
        assert out[0] == self.model.start
        assert self.lib.shim_delete_records(self.log, self.model.end + 1, out) < 0

    @rule()
    def retention(self) -> None:
        assert self.lib.shim_retention(self.log) >= 0
        start = self.offsets()[0]
        assert self.model.start <= start <= self.model.end
        self.model.start = start

    @rule()
    def flush(self) -> None:
        assert self.lib.shim_flush(self.log) == 0

    @precondition(lambda self: self.tag > 1)
    @rule(data=st.data())
    def find_time(self, data: st.DataObject) -> None:
        tag = data.draw(st.integers(0, self.tag))
        assert self.lib.shim_find_time(self.log, tag) == self.model.first_at_time(tag)

    @rule(clean=st.booleans())
    def restart(self, clean: bool) -> None:
        assert self.lib.shim_close(self.log, clean) == 0
        self.open()
        self.settle(exact=clean)

    @rule()
    def kill(self) -> None:
        self.copies += 1
        after = self.root / str(self.copies)
        shutil.copytree(self.dir, after, ignore=shutil.ignore_patterns("*.deleted"))
        assert self.lib.shim_close(self.log, 0) == 0
        shutil.rmtree(self.dir)
        self.dir = after
        self.open()
        self.settle(exact=False)

    def settle(self, exact: bool) -> None:
        """A start that DeleteRecords moved is only as durable as its last checkpoint."""
        start = self.offsets()[0]
        assert start <= self.model.start
        if exact:
            assert start == self.model.start
        self.model.start = start

    @invariant()
    def offsets_agree(self) -> None:
        start, stable, watermark, end = self.offsets()
        assert (start, end) == (self.model.start, self.model.end)
        assert start <= stable <= watermark == end

    def teardown(self) -> None:
        self.lib.shim_close(self.log, 1)
        shutil.rmtree(self.root, ignore_errors=True)


@pytest.fixture(scope="module")
def native() -> Any:
    return log_ffi.load()


def test_log_behaves_like_its_model(native: Any) -> None:
    LogMachine.native = native
    run_state_machine_as_test(
        LogMachine,
        settings=settings(
            max_examples=40,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
