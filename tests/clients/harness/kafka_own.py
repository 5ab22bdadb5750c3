"""Apache Kafka's own integration tests (its published test jars) against brokers of ours.

The Java side (``kafka_own/src``) replaces only what starts brokers: it runs BROKER_CMD once a test.
The list is cut into as many parts as there are workers, each run by a JVM with ports of its own.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from .broker import free_port_range
from .cache import need_tools, run
from .report import Outcome, line
from .suite import Setting, child

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# What a consumer of the new group protocol (KIP-848) says to a broker that has only the old one.
# Many methods run once with each protocol: such an invocation counts as skipped, the other decides.
NO_NEW_GROUPS = "The cluster does not support the new CONSUMER group protocol"

JVM = (
    "-Xmx1g",
    "-XX:+UseSerialGC",
    "-XX:+EnableDynamicAgentLoading",
    # With two processors or fewer, CompletableFuture (Process.onExit) starts unnamed threads, which
    # Kafka's thread leak detector does not know; those of a pool it does.
    "-Djava.util.concurrent.ForkJoinPool.common.parallelism=2",
    "-Djdk.attach.allowAttachSelf=true",
    "--add-opens=java.base/java.lang=ALL-UNNAMED",
    "--add-opens=java.base/java.util.concurrent=ALL-UNNAMED",
)
JAVAC_NOISE = ("-nowarn", "-proc:none", "-Xlint:none", "--release", "17")


def jars(setting: Setting) -> Path:
    """The directory of Kafka 4.3.1's test and tool jars with their dependencies."""
    need_tools("java", "javac", "mvn")
    pom = setting.home.parent / "kafka_own" / "pom.xml"

    def fetch(directory: Path) -> None:
        goal = "dependency:copy-dependencies"
        run(["mvn", "-q", "-B", "-f", pom, goal, f"-DoutputDirectory={directory}"])

    return setting.cache.part("kafka_own/lib", [pom], fetch)


def _classes(setting: Setting, lib: Path) -> Path:
    source = setting.home / "src"

    def compile_into(directory: Path) -> None:
        files = sorted(source.rglob("*.java"))
        run(["javac", *JAVAC_NOISE, "-cp", f"{lib}/*", "-d", directory, *files])

    return setting.cache.part("kafka_own/classes", [source], compile_into)


def build(setting: Setting) -> None:
    """Downloads and compiles; runs nothing."""
    _classes(setting, jars(setting))


def _status(row: Sequence[str]) -> str:
    if row[3] == "PASS":
        return "pass"
    return "skip" if row[3] == "SKIP" or NO_NEW_GROUPS in row[5] else "fail"


def _merge(rows: Sequence[Sequence[str]]) -> list[Outcome]:
    """One outcome a method: all of its invocations that ran passed, and at least one did."""
    grouped: dict[str, list[Sequence[str]]] = {}
    for row in rows:
        grouped.setdefault(f"{row[0]}#{row[1]}", []).append(row)
    outcomes = []
    for name, invocations in grouped.items():
        seconds = sum(float(row[4]) for row in invocations)
        bad = [row for row in invocations if _status(row) == "fail"]
        good = [row for row in invocations if _status(row) == "pass"]
        status = "fail" if bad else "pass" if good else "skip"
        detail = " / ".join(f"{row[3]} {row[5]}" for row in bad or invocations)
        outcomes.append(
            Outcome(
                name=name, status=status, seconds=seconds, detail="" if status == "pass" else detail
            )
        )
    return outcomes


def _part(setting: Setting, label: str, names: Sequence[str]) -> list[Outcome]:
    lib = jars(setting)
    classes = _classes(setting, lib)
    work = setting.work / label
    work.mkdir(parents=True, exist_ok=True)
    listed, out = work / "tests.txt", work / "out.tsv"
    listed.write_text("\n".join(names) + "\n", encoding="utf-8")
    first, last = free_port_range(500)
    env = {
        "BROKER_CMD": setting.command,
        "JUDGE_PORTS": f"{first}-{last}",
        "JUDGE_DIR": str(work / "brokers"),
        "JUDGE_KEEP": "1",
        "SHRINK": "1",
    }
    command = ["java", *JVM, f"-Dlog4j2.configurationFile={setting.home / 'log4j2.xml'}"]
    command += ["-cp", f"{classes}:{lib}/*", "judge.Run", str(out), f"@{listed}"]
    shown = 0
    rows: list[list[str]] = []
    # Some tests make directories below the current one.
    with child(command, env=env, output=work / "junit.log", cwd=work) as process:
        running = True
        while running:
            running = process.poll() is None
            time.sleep(0.3)
            text = out.read_text(encoding="utf-8", errors="replace") if out.exists() else ""
            complete = text[: text.rfind("\n") + 1].splitlines()
            rows = [(entry.split("\t") + [""] * 6)[:6] for entry in complete]
            for row in rows[shown:]:
                status = _status(row)
                detail = f"{row[3]} {row[5]}"
                name = f"{row[0]}#{row[1]} {row[2]}"
                single = Outcome(name=name, status=status, seconds=float(row[4]), detail=detail)
                print(line(single), flush=True)
            shown = len(rows)
    return _merge(rows)


def execute(setting: Setting, names: Sequence[str]) -> list[Outcome]:
    """Runs `names` (class#method, or a whole class) and returns one outcome a method."""
    build(setting)
    parts = [list(names[i :: setting.workers]) for i in range(setting.workers)]
    parts = [part for part in parts if part]
    with ThreadPoolExecutor(len(parts)) as pool:
        running = [
            pool.submit(_part, setting, f"part{index}", part) for index, part in enumerate(parts)
        ]
        return [outcome for task in running for outcome in task.result()]
