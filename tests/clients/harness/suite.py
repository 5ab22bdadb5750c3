"""What every suite gets from the driver, and how a suite's time and repetitions are handled."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .broker import EXPECTED_PROPERTIES, Broker

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .cache import Cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One run of one suite.

    `home` holds the suite's committed files, `work` its data and logs (fresh), `workers` is how
    many brokers it may run side by side, `quick` asks for the shorter form where there is one.
    """

    name: str
    home: Path
    work: Path
    cache: Cache
    command: str
    workers: int
    quick: bool

    def broker(self, label: str, extra: Mapping[str, str] | None = None) -> Broker:
        """A broker, not started yet, on a fresh data directory below `work`."""
        directory = self.work / label
        shutil.rmtree(directory, ignore_errors=True)
        return Broker(
            command=self.command,
            directory=directory,
            properties={**EXPECTED_PROPERTIES, **(extra or {})},
        )


@contextlib.contextmanager
def child(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    output: Path,
    cwd: Path | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, output to a file; the whole group ends with the block."""
    with output.open("ab") as sink:
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=cwd,
            env={**os.environ, **env},
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            process_group=0,
        )
    try:
        yield process
    finally:
        end_group(process)


def end_group(process: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    """SIGTERM to the leader, three seconds, then SIGKILL to all that is left of the group."""
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(3)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def kill_descendants(root: int) -> None:
    """SIGKILL to every process below `root`: the end of a suite that must not wait for anything."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError, IndexError, ValueError):
            # The name, in parentheses, may hold spaces.
            after = (entry / "stat").read_text().rpartition(")")[2].split()
            parents.setdefault(int(after[1]), []).append(int(entry.name))
    pending, found = [root], []
    while pending:
        below = parents.get(pending.pop(), [])
        pending += below
        found += below
    for process in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
