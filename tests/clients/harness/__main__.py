"""The driver: builds and runs suites side by side, each with a time limit, and sums up.

Exit status 0 if everything required passed (or its toolchain is absent), 1 if not.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from . import kafka_own, kgo, librdkafka, programs
from .broker import BrokerError, default_command
from .cache import BuildError, Cache, MissingToolchain
from .report import Outcome, conclude, expectation
from .suite import Setting, kill_descendants

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

CLIENTS = Path(__file__).resolve().parent.parent
REPOSITORY = CLIENTS.parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """How a suite is built and run, its time limit in seconds, and whether a failure is tried again
    alone (other people's tests: their own baseline has some that fail on a busy machine)."""

    build: Callable[[Setting], None]
    execute: Callable[[Setting, Sequence[str]], list[Outcome]]
    limit: float
    again: bool


# The longest first: the driver starts them in this order.
SUITES: Mapping[str, Suite] = {
    "librdkafka": Suite(build=librdkafka.build, execute=librdkafka.execute, limit=3600, again=True),
    "kafka_own": Suite(build=kafka_own.build, execute=kafka_own.execute, limit=3600, again=True),
    "kgo": Suite(build=kgo.build, execute=kgo.execute, limit=1800, again=True),
    "java": Suite(build=programs.build, execute=programs.execute, limit=600, again=False),
    "franz_go": Suite(build=programs.build, execute=programs.execute, limit=600, again=False),
    "node": Suite(build=programs.build, execute=programs.execute, limit=600, again=False),
}


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests/clients/run.sh", description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=", ".join(SUITES))
    parser.add_argument("--only", action="append", default=[], metavar="NAME",
                        help="one test, or a pattern of names; may be repeated")  # fmt: skip
    parser.add_argument("--quick", action="store_true", default=bool(os.environ.get("CI")),
                        help="the form for CI (the default when CI is set)")  # fmt: skip
    parser.add_argument("--jobs", type=int, default=2, help="suites side by side (default 2)")
    parser.add_argument("--workers", type=int, default=2,
                        help="brokers side by side in a suite that can (default 2)")  # fmt: skip
    parser.add_argument("--build", action="store_true", help="download and compile, run nothing")
    parser.add_argument("--list", action="store_true", help="print the names and the exceptions")
    given = parser.parse_args(words)
    for name in given.suites:
        if name not in SUITES:
            parser.error(f"no suite '{name}'; there are {', '.join(SUITES)}")
    return given


def _setting(name: str, given: argparse.Namespace) -> Setting:
    root = os.environ.get("PENSTOCK_CLIENTS_CACHE") or REPOSITORY / "build/clients"
    cache = Cache(Path(root).resolve())
    return Setting(
        name=name,
        home=CLIENTS / name,
        work=cache.root / "run" / name,
        cache=cache,
        command=default_command(REPOSITORY),
        workers=given.workers,
        quick=given.quick,
    )


def _run_one(name: str, given: argparse.Namespace) -> int:
    """One suite in this process."""
    suite, setting = SUITES[name], _setting(name, given)
    try:
        if given.build:
            suite.build(setting)
            print(f"{name}: built")
            return 0
        suite.build(setting)
    except MissingToolchain as missing:
        print(f"SKIP: {name}: {missing}")
        print("0 passed, 0 failed, 1 skipped", flush=True)
        return 0
    except BuildError as problem:
        print(f"{name}: cannot be built: {problem}")
        print("0 passed, 1 failed, 0 skipped", flush=True)
        return 1
    expected = expectation(CLIENTS / name)
    chosen = expected.select(given.only, quick=given.quick)
    shutil.rmtree(setting.work, ignore_errors=True)
    setting.work.mkdir(parents=True)
    try:
        outcomes = suite.execute(setting, chosen)
        if suite.again:
            outcomes = _again(suite, setting, chosen, expected.exceptions, outcomes)
    except BrokerError as problem:
        print(f"{name}: {problem}")
        outcomes = []
    return 0 if conclude(expected, chosen, outcomes) else 1


def _again(
    suite: Suite,
    setting: Setting,
    chosen: Sequence[str],
    exceptions: Mapping[str, str],
    outcomes: list[Outcome],
) -> list[Outcome]:
    """Runs what failed once more, alone on a fresh broker, and says which tests needed that."""
    good = {outcome.name for outcome in outcomes if outcome.status == "pass"}
    failed = [name for name in chosen if name not in good and name not in exceptions]
    if not failed or len(failed) > max(5, len(chosen) // 4):
        return outcomes
    print(f"once more, alone: {len(failed)}", flush=True)
    alone = Setting(
        name=setting.name,
        home=setting.home,
        work=setting.work / "again",
        cache=setting.cache,
        command=setting.command,
        workers=1,
        quick=setting.quick,
    )
    alone.work.mkdir(parents=True)
    merged = {outcome.name: outcome for outcome in outcomes}
    for outcome in suite.execute(alone, failed):
        if outcome.status == "pass" and outcome.name in failed:
            print(f"note: {outcome.name} passed only when alone", flush=True)
        merged[outcome.name] = outcome
    return list(merged.values())


def _start(name: str, words: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "harness", *words, name]
    with log.open("wb") as sink:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, process_group=0
        )


def _run_all(names: Sequence[str], given: argparse.Namespace) -> int:
    """Suites side by side, each in a process with a log file; the logs are printed at the end."""
    words = ["--workers", str(given.workers)]
    words += ["--quick"] if given.quick else []
    words += ["--build"] if given.build else []
    for pattern in given.only:
        words += ["--only", pattern]
    logs = _setting(names[0], given).cache.root / "logs"
    logs.mkdir(exist_ok=True)
    waiting = [name for name in SUITES if name in names]
    running: dict[str, tuple[subprocess.Popen[bytes], float]] = {}
    summary: dict[str, str] = {}
    bad = False
    while waiting or running:
        while waiting and len(running) < given.jobs:
            name = waiting.pop(0)
            running[name] = (_start(name, words, logs / f"{name}.log"), time.monotonic())
            print(f"{name}: started, log in {logs / name}.log", flush=True)
        time.sleep(0.5)
        for name, (process, began) in list(running.items()):
            seconds = time.monotonic() - began
            if process.poll() is None:
                continue
            del running[name]
            text = (logs / f"{name}.log").read_text(encoding="utf-8", errors="replace")
            last = (text.strip().splitlines() or ["no output"])[-1]
            summary[name] = f"{last} ({seconds:.0f} s)"
            bad = bad or process.returncode != 0
            print(f"----- {name}\n{text}", flush=True)
    print("----- summary")
    for name, text in summary.items():
        print(f"{name}: {text}")
    _total(summary.values(), bad)
    return 1 if bad else 0


def _total(lines: Iterable[str], bad: bool) -> None:
    """The closing line over all suites; a suite that died without counts is one failure."""
    counts = [0, 0, 0]
    silent = 0
    for text in lines:
        found = re.search(r"(\d+) passed, (\d+) failed, (\d+) skipped", text)
        if found is None:
            silent += 1
            continue
        for index in range(3):
            counts[index] += int(found.group(index + 1))
    if bad and counts[1] == 0:
        counts[1] = max(1, silent)
    print(f"{counts[0]} passed, {counts[1]} failed, {counts[2]} skipped", flush=True)


def _ended(number: int, _: object) -> None:
    """SIGTERM, SIGINT, the alarm: worker threads may wait for anything; nothing is awaited."""
    kill_descendants(os.getpid())
    why = "time is up" if number == signal.SIGALRM else "stopped"
    print(f"{why}\n0 passed, 1 failed, 0 skipped", flush=True)
    os._exit(1)


def main(words: Sequence[str]) -> int:
    """Runs the command line; see the module's text for the exit status."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
        signal.signal(number, _ended)
    given = _arguments(words)
    names = given.suites or list(SUITES)
    if given.list:
        for name in names:
            expected = expectation(CLIENTS / name)
            for test in expected.required:
                print(f"{name} {test}")
            for test, reason in expected.exceptions.items():
                print(f"{name} {test} (exception: {reason})")
        return 0
    if len(names) == 1:
        signal.alarm(round(SUITES[names[0]].limit))
        return _run_one(names[0], given)
    return _run_all(names, given)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
