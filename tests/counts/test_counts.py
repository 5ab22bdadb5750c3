"""Counted, not timed: allocations and instructions of a reactor per produce request, against a
budget file.

`inprocess.c` runs one engine and one blocking client. Instructions are callgrind's, of the
reactor's thread only, as the difference of two runs, so that start and stop cancel out.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "build/release/counts/inprocess"
BUDGET = tomllib.loads((ROOT / "tests/broker/counts.toml").read_text())
REACTOR_MAIN = "pst_reactor__main"


@pytest.fixture(scope="module", autouse=True)
def program() -> None:
    subprocess.run(
        ["make", "-s", "-f", "native/build.mk", "OUT=build/release", "counts"], cwd=ROOT, check=True
    )


def test_a_produce_allocates_nothing_after_warm_up(tmp_path: Path) -> None:
    for size in (100, 65536):
        directory = tmp_path / str(size)
        directory.mkdir()
        done = subprocess.run(
            [PROGRAM, directory, str(size), "2000", "5000"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert int(done.stdout) <= BUDGET["allocations"][f"produce_{size}"] * 5000


def instructions(directory: Path, size: int, requests: int) -> int:
    directory.mkdir()
    out = directory.with_suffix(".callgrind")
    subprocess.run(
        [
            "valgrind",
            "--tool=callgrind",
            f"--toggle-collect={REACTOR_MAIN}",
            f"--callgrind-out-file={out}",
            PROGRAM,
            directory,
            str(size),
            "500",
            str(requests),
        ],
        capture_output=True,
        check=True,
    )
    total = re.search(r"^(?:totals|summary): (\d+)", out.read_text(), re.M)
    assert total is not None
    return int(total[1])


@pytest.mark.parametrize("size", [100, 65536])
def test_instructions_per_produce(tmp_path: Path, size: int) -> None:
    if shutil.which("valgrind") is None:
        pytest.fail("valgrind is missing; tools/setup-system.sh test installs it")
    few = instructions(tmp_path / "few", size, 500)
    many = instructions(tmp_path / "many", size, 1500)
    each = (many - few) / 1000
    print(f"{each:.0f} instructions per produce of {size} B")
    assert 0 < each <= BUDGET["instructions"][f"produce_{size}"]
