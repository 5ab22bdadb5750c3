"""The cache of downloads and builds: where it lies, who may write, and when a part is stale.

A part is one directory of the cache. It is made whole under a lock and stamped with a digest of
what it was made from; another process that wants the same part waits for the lock.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path


class MissingToolchain(Exception):
    """A compiler or runtime that a suite needs is not on this machine; the text names it."""


class BuildError(Exception):
    """A download or a build failed; the text says which command, and how it ended."""


def need_tools(*names: str) -> None:
    """Raises MissingToolchain for the first of `names` that is not on the PATH."""
    for name in names:
        if shutil.which(name) is None:
            raise MissingToolchain(f"'{name}' is not installed")


def run(
    command: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    log: Path | None = None,
) -> str:
    """Runs a build step; returns its output, or raises BuildError with the end of it."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**os.environ, **env} if env else None,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    if log is not None:
        log.write_text(done.stdout, encoding="utf-8")
    if done.returncode != 0:
        end = "\n".join(done.stdout.strip().splitlines()[-15:])
        raise BuildError(f"{' '.join(str(c) for c in command)}: status {done.returncode}\n{end}")
    return done.stdout


def debian_packages(*names: str) -> None:
    """Installs the Debian packages of `names` that are not installed yet."""
    absent = []
    for name in names:
        query = ["dpkg-query", "-W", "-f", "${Status}", name]
        state = subprocess.run(query, capture_output=True, encoding="utf-8", check=False).stdout
        if "ok installed" not in state:
            absent.append(name)
    if not absent:
        return
    need_tools("apt-get")
    sudo = [] if os.geteuid() == 0 else ["sudo", "-n"]
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    run([*sudo, "apt-get", "update"], env=quiet)
    run([*sudo, "apt-get", "install", "-y", "--no-install-recommends", *absent], env=quiet)


def digest(parts: Iterable[Path | str]) -> str:
    """A digest of texts and files; a directory counts with every file below it."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            total.update(part.encode())
            continue
        files = sorted(p for p in part.rglob("*") if p.is_file()) if part.is_dir() else [part]
        for file in files:
            total.update(file.name.encode())
            total.update(file.read_bytes())
    return total.hexdigest()


class Cache:
    """The git-ignored directory that PENSTOCK_CLIENTS_CACHE names (default build/clients)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Holds the lock of one part against other processes."""
        with (self.root / f".{name.replace('/', '-')}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def part(self, name: str, made_of: Iterable[Path | str], make: Callable[[Path], None]) -> Path:
        """The directory `name`, made anew by `make(directory)` when `made_of` has changed."""
        directory = self.root / name
        stamp = self.root / f".{name.replace('/', '-')}.stamp"
        wanted = digest(made_of)
        with self.locked(name):
            if directory.is_dir() and stamp.is_file() and stamp.read_text() == wanted:
                return directory
            stamp.unlink(missing_ok=True)
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(parents=True)
            print(f"building {name} ...", flush=True)
            make(directory)
            stamp.write_text(wanted)
        return directory
