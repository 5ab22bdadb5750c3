"""franz-go's own test suite of its kgo package, compiled once and run by name.

kgo chooses its sub-tests by what ApiVersions says, so a broker that hides an API loses tests
without a failure. The list therefore names sub-tests too, and a name that does not show up failed.
Sub-tests of the new group protocol (848 in the name) are not listed: kgo skips them by itself.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from typing import TYPE_CHECKING

from .cache import need_tools, run
from .report import Outcome, line
from .suite import Setting, child

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence
    from pathlib import Path

MODULE = "github.com/twmb/franz-go"
VERSION = "v1.22.2"
LIMIT_SECONDS = 1500.0
QUICK_RECORDS = 20_000
FULL_RECORDS = 100_000


def _binary(setting: Setting) -> Path:
    """The compiled test; its package directory lies beside it (tests read files there)."""
    need_tools("go")

    def make(directory: Path) -> None:
        said = run(["go", "mod", "download", "-json", f"{MODULE}@{VERSION}"], cwd=directory)
        source = directory / "src"
        shutil.copytree(json.loads(said)["Dir"], source)
        run(["chmod", "-R", "u+w", source])
        run(["go", "test", "-c", "-o", directory / "kgo.test", "./pkg/kgo"], cwd=source)

    return setting.cache.part("kgo", [MODULE, VERSION], make) / "kgo.test"


def build(setting: Setting) -> None:
    """Downloads and compiles; runs nothing."""
    _binary(setting)


def execute(setting: Setting, names: Sequence[str]) -> list[Outcome]:
    """Runs the top-level tests that `names` belong to; one outcome a test and a sub-test."""
    binary = _binary(setting)
    package = binary.parent / "src/pkg/kgo"
    tops = list(dict.fromkeys(name.split("/")[0] for name in names))
    chosen = "^(" + "|".join(re.escape(top) for top in tops) + ")$"
    if len(names) == 1 and "/" in names[0]:
        chosen = "/".join(f"^{re.escape(part)}$" for part in names[0].split("/"))
    events = setting.work / "events.json"
    records = QUICK_RECORDS if setting.quick else FULL_RECORDS
    # The suite creates its topics itself, and asserts that an unknown one stays unknown.
    with setting.broker("broker", {"auto.create.topics.enable": "false"}) as broker:
        env = {
            "KGO_SEEDS": broker.bootstrap,
            "KGO_TEST_RF": "1",
            "KGO_TEST_RECORDS": str(records),
            "KGO_LOG_LEVEL": "none",
        }
        command = ["go", "tool", "test2json", "-t", "-p", "kgo", str(binary), "-test.v=test2json"]
        command += [f"-test.timeout={LIMIT_SECONDS:.0f}s", "-test.run", chosen]
        with child(command, env=env, output=events, cwd=package) as process:
            return _follow(process, events)


def _follow(process: subprocess.Popen[bytes], events: Path) -> list[Outcome]:
    """Reads the event stream to its end, printing top-level tests as they finish."""
    finished: dict[str, Outcome] = {}
    said: dict[str, list[str]] = {}
    deadline = time.monotonic() + LIMIT_SECONDS + 30
    with events.open(encoding="utf-8", errors="replace") as stream:
        rest = ""
        running = True
        while running and time.monotonic() < deadline:
            running = process.poll() is None
            time.sleep(0.3)
            complete, newline, rest = (rest + stream.read()).rpartition("\n")
            for entry in (complete + newline).splitlines():
                _note(entry, finished, said)
    for name in said:
        if name not in finished:
            detail = "started and never ended; " + _words(said[name])
            finished[name] = Outcome(name=name, status="fail", seconds=0.0, detail=detail)
    return list(finished.values())


def _note(entry: str, finished: dict[str, Outcome], said: dict[str, list[str]]) -> None:
    try:
        event = json.loads(entry)
    except ValueError:
        return
    name = event.get("Test")
    if not name:
        return
    words = said.setdefault(name, [])
    if event["Action"] == "output":
        words.append(event.get("Output", ""))
    elif event["Action"] in ("pass", "fail", "skip"):
        outcome = Outcome(
            name=name,
            status=event["Action"],
            seconds=float(event.get("Elapsed", 0.0)),
            detail="" if event["Action"] == "pass" else _words(words),
        )
        finished[name] = outcome
        if "/" not in name or outcome.status == "fail":
            print(line(outcome), flush=True)


def _words(lines: Sequence[str]) -> str:
    kept = [text.strip() for text in lines if text.strip() and not text.startswith("===")]
    return " / ".join(kept)[:400]
