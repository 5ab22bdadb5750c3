"""librdkafka's own broker tests, one number at a time; "0081/CreateTopics" is the sub-tests of 0081
whose names hold that word, for a number with others that need what is not there.

The sources are those that the npm package of Confluent's JavaScript client carries. The plain quick
mode (-Q) of the test-runner silently drops most sub-tests, so it is used for ``--quick`` alone and
not for a file that has such sub-tests; a number with fewer passed sub-tests than ``subtests.txt``
says is no pass.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from .cache import BuildError, debian_packages, need_tools, run
from .report import Outcome, line
from .suite import Setting, child
from .tools import scripts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from .broker import Broker

PACKAGE = "@confluentinc/kafka-javascript@1.10.1"
PACKAGE_SHA256 = "ada7d703bb1d3237e2292bfabf438d663b6160c9f1ac2a2406b5dc4257c81b66"
LIMIT_SECONDS = 400.0
# Features of a broker that these tests look up by version.
KAFKA_VERSION = "4.4.0"
# 0089 and 0118 start two consumers and expect both in the first generation; without a delay that is
# a race (Apache Kafka, its offsets topic in place, loses it one time in four).
PROPERTIES = {"group.initial.rebalance.delay.ms": "100"}
ANSI = re.compile(r"\x1b\[[0-9;]*m")


def _tests(setting: Setting) -> Path:
    """The directory that holds the built test-runner."""
    need_tools("npm", "gcc", "g++", "make")

    def make(directory: Path) -> None:
        debian_packages("libssl-dev", "zlib1g-dev", "rapidjson-dev")
        run(["npm", "pack", "--silent", PACKAGE], cwd=directory)
        archive = next(directory.glob("*.tgz"))
        if hashlib.sha256(archive.read_bytes()).hexdigest() != PACKAGE_SHA256:
            raise BuildError(f"{archive.name} is not the archive that is pinned here")
        with tarfile.open(archive) as content:
            content.extractall(directory, filter="data")
        archive.unlink()
        source = directory / "package/deps/librdkafka"
        # No output file in the source directory: its configure takes configure.* for modules.
        run(["./configure", "--disable-gssapi"], cwd=source)
        run(["make", "-j2", "libs"], cwd=source)
        run(["make", "-j2", "-C", "tests", "test-runner"], cwd=source)

    where = setting.cache.part("librdkafka", [PACKAGE, PACKAGE_SHA256], make)
    return where / "package/deps/librdkafka/tests"


def build(setting: Setting) -> None:
    """Downloads and compiles; runs nothing."""
    _tests(setting)
    scripts(setting)


def _least(setting: Setting) -> dict[str, int]:
    """By name, how many sub-tests must pass (none are counted where the file says nothing)."""
    text = (setting.home / "subtests.txt").read_text(encoding="utf-8")
    return {name: int(count) for name, count in re.findall(r"^(\d{4}\S*) (\d+)$", text, re.M)}


def _sources(tests: Path, number: str) -> str:
    return "".join(
        path.read_text(encoding="utf-8", errors="replace")
        for path in sorted(tests.glob(f"{number}-*.c*"))
        if path.suffix in (".c", ".cpp")
    )


def _judge(number: str, status: int | None, text: str, least: int) -> tuple[str, str]:
    """(status, detail) of one run, from the exit status (None: time ran out) and the output."""
    parts = dict(re.findall(r"^\| (\d{4}_\w+)\s*\|\s*(\w+) \|", text, re.MULTILINE))
    states = {name: state for name, state in parts.items() if name.startswith(number)}
    ran = {state for state in states.values() if state != "DNS"}
    subtests = text.count(": PASS (")
    pattern = r"^.*(?:TEST FAILURE|Test failed|failed:|### Test \"|SKIP|[Rr]equires).*$"
    why = " / ".join(found.strip()[:200] for found in re.findall(pattern, text, re.MULTILINE)[:3])
    if status is None:
        return "fail", f"no end within {LIMIT_SECONDS:.0f} s; {why}"
    if status != 0 or "FAILED" in ran:
        return "fail", f"status {status}; {why}"
    if "PASSED" not in ran:
        return ("skip", why) if "SKIPPED" in ran else ("fail", "the runner ran nothing")
    if subtests < least:
        return "fail", f"{subtests} of its {least} sub-tests passed"
    return "pass", f"{subtests} sub-tests"


def _is_full(source: str) -> bool:
    """Does -Q drop whole sub-tests of this file? Those marked SUB_TEST_QUICK still run with it."""
    return re.search(r"\bSUB_TEST\(|skipped due to quick mode", source) is not None


def _one(
    setting: Setting, tests: Path, home: Path, broker: Broker, name: str, least: int
) -> Outcome:
    number, _, part = name.partition("/")
    file = name.replace("/", "-")
    conf = setting.work / "logs" / f"{file}.conf"
    conf.write_text(
        f"bootstrap.servers={broker.bootstrap}\nbroker.address.family=v4\n"
        "test.timeout.multiplier=4\n",
        encoding="utf-8",
    )
    env = {
        "RDKAFKA_TEST_CONF": str(conf),
        "TEST_KAFKA_VERSION": KAFKA_VERSION,
        "BROKERS": broker.bootstrap,
        "TEST_SCENARIO": "default",
        "LD_LIBRARY_PATH": f"{tests.parent / 'src'}:{tests.parent / 'src-cpp'}",
        "KAFKA_PATH": str(home),
        "TESTS": number,
        # Empty: every sub-test, because it is looked for in each name.
        "SUBTESTS": part,
    }
    command = ["env", "-u", "TESTS_SKIP", "-u", "CI", "./test-runner", "-p1", "-L"]
    if setting.quick and not _is_full(_sources(tests, number)):
        command.append("-Q")
    log = setting.work / "logs" / f"{file}.log"
    began = time.monotonic()
    status: int | None
    with child(command, env=env, output=log, cwd=tests) as process:
        try:
            status = process.wait(LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            status = None
    text = ANSI.sub("", log.read_text(encoding="utf-8", errors="replace"))
    verdict, detail = _judge(number, status, text, least)
    seconds = time.monotonic() - began
    outcome = Outcome(name=name, status=verdict, seconds=seconds, detail=detail)
    print(line(outcome), flush=True)
    return outcome


def execute(setting: Setting, names: Sequence[str]) -> list[Outcome]:
    """Runs the names; each worker has a broker, and takes the next name from one queue."""
    tests = _tests(setting)
    home = scripts(setting).parent
    minimum = _least(setting)
    (setting.work / "logs").mkdir(parents=True, exist_ok=True)
    queue: SimpleQueue[str] = SimpleQueue()
    for name in names:
        queue.put(name)

    def work(index: int) -> list[Outcome]:
        outcomes: list[Outcome] = []
        with setting.broker(f"broker{index}-{os.getpid()}", PROPERTIES) as broker:
            while True:
                try:
                    name = queue.get_nowait()
                except Empty:
                    return outcomes
                if not broker.alive():
                    detail = f"the broker is gone: {broker.last_words()}"
                    outcomes.append(Outcome(name=name, status="fail", seconds=0.0, detail=detail))
                    continue
                least = minimum.get(name, 0)
                outcomes.append(_one(setting, tests, home, broker, name, least))

    workers = min(setting.workers, len(names))
    with ThreadPoolExecutor(workers) as pool:
        tasks = [pool.submit(work, index) for index in range(workers)]
        return [outcome for task in tasks for outcome in task.result()]
