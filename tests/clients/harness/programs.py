"""Our own list of what a client must be able to do, as one program a language.

A program is run as ``PROGRAM BOOTSTRAP [NAME...]`` and prints one line a test: ``PASS name
seconds``, ``FAIL name seconds message`` or ``SKIP name 0 reason``. When it wants the broker ended
and started again it prints ``RESTART soft`` (SIGTERM) or ``RESTART hard`` (SIGKILL) and waits for a
line on its standard input.
"""

from __future__ import annotations

import os
import queue
import subprocess
import threading
import time
from typing import TYPE_CHECKING

from .broker import Broker, BrokerError
from .cache import need_tools, run
from .report import Outcome, line
from .suite import Setting, end_group

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

# No word from the program for so long: it hangs.
SILENCE_SECONDS = 150.0


def _java(setting: Setting) -> list[str]:
    need_tools("java", "javac", "mvn")
    pom, source = setting.home / "pom.xml", setting.home / "src"

    def fetch(directory: Path) -> None:
        goal = "dependency:copy-dependencies"
        run(["mvn", "-q", "-B", "-f", pom, goal, f"-DoutputDirectory={directory}"])

    lib = setting.cache.part("java/lib", [pom], fetch)

    def compile_into(directory: Path) -> None:
        files = sorted(source.rglob("*.java"))
        run(["javac", "-Xlint:all", "-Werror", "-proc:none", "--release", "17",
             "-cp", f"{lib}/*", "-d", directory, *files])  # fmt: skip

    classes = setting.cache.part("java/classes", [source, pom], compile_into)
    return ["java", "-Xmx512m", "-XX:+UseSerialGC", "-cp", f"{classes}:{lib}/*", "Checks"]


def _franz_go(setting: Setting) -> list[str]:
    need_tools("go")
    files = [setting.home / name for name in ("go.mod", "go.sum")]
    files += sorted(setting.home.glob("*.go"))

    def compile_into(directory: Path) -> None:
        run(["go", "build", "-o", directory / "checks", "."], cwd=setting.home)

    return [str(setting.cache.part("franz_go", files, compile_into) / "checks")]


def _node(setting: Setting) -> list[str]:
    need_tools("node", "npm")
    manifest = [setting.home / name for name in ("package.json", "package-lock.json")]
    files = [*manifest, *sorted(setting.home.glob("*.mjs"))]

    def install(directory: Path) -> None:
        for file in files:
            (directory / file.name).write_bytes(file.read_bytes())
        run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=directory)

    return ["node", str(setting.cache.part("node", files, install) / "checks.mjs")]


BUILDERS: Mapping[str, Callable[[Setting], list[str]]] = {
    "java": _java,
    "franz_go": _franz_go,
    "node": _node,
}


def build(setting: Setting) -> None:
    """Downloads and compiles; runs nothing."""
    BUILDERS[setting.name](setting)


def execute(setting: Setting, names: Sequence[str]) -> list[Outcome]:
    """Runs the named checks in the order the program has them."""
    program = BUILDERS[setting.name](setting)
    with setting.broker("broker") as broker, (setting.work / "stderr.log").open("ab") as errors:
        process = subprocess.Popen(
            [*program, broker.bootstrap, *names],
            env={**os.environ, "NODE_NO_WARNINGS": "1", "KAFKAJS_NO_PARTITIONER_WARNING": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            process_group=0,
            encoding="utf-8",
            errors="replace",
        )
        try:
            return _talk(process, broker)
        finally:
            end_group(process)


def _talk(process: subprocess.Popen[str], broker: Broker) -> list[Outcome]:
    said: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    stream, answer = process.stdout, process.stdin
    assert stream is not None
    assert answer is not None

    def read() -> None:
        for text in stream:
            said.put(text)
        said.put(None)

    threading.Thread(target=read, daemon=True).start()
    outcomes: list[Outcome] = []
    while True:
        try:
            text = said.get(timeout=SILENCE_SECONDS)
        except queue.Empty:
            detail = f"silent for {SILENCE_SECONDS:.0f} s"
            outcomes.append(Outcome(name="hang", status="fail", seconds=0.0, detail=detail))
            print(line(outcomes[-1]), flush=True)
            return outcomes
        if text is None:
            return outcomes
        word, _, rest = text.strip().partition(" ")
        if word == "RESTART":
            began = time.monotonic()
            try:
                broker.restart(hard=rest == "hard")
            except BrokerError as problem:
                print(f"the restart failed: {problem}", flush=True)
                return outcomes
            print(f"broker restarted ({rest}) in {time.monotonic() - began:.2f} s", flush=True)
            answer.write("restarted\n")
            answer.flush()
        elif word in ("PASS", "FAIL", "SKIP"):
            name, seconds, detail = ([*rest.split(" ", 2), "", ""])[:3]
            outcome = Outcome(name=name, status=word.lower(), seconds=float(seconds), detail=detail)
            outcomes.append(outcome)
            print(line(outcome), flush=True)
        elif text.strip():
            print(f"  {text.rstrip()}", flush=True)
