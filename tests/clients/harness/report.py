"""What a suite found, against what it must find.

``tests.allow`` of a suite names what must pass, one a line. ``FINDINGS.md`` names the exceptions:
tests that are run and may fail, each in a line "- `name`: reason". Nothing else is expected.
``slow.txt``, where there is one, names those that the quick form leaves out.
"""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One test: `status` is pass, fail or skip; `seconds` is wall clock; `detail` is one line."""

    name: str
    status: str
    seconds: float
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """The names that must pass, the reason of each exception by name, and what takes long."""

    required: Sequence[str]
    exceptions: Mapping[str, str]
    slow: frozenset[str]

    def select(self, patterns: Sequence[str], *, quick: bool = False) -> list[str]:
        """All names (if `quick`, without the slow ones), or those that match; a pattern that
        matches none counts as a name."""
        every = [*self.required, *self.exceptions]
        if not patterns:
            return [name for name in every if not quick or name not in self.slow]
        chosen: list[str] = []
        for pattern in patterns:
            chosen.extend(fnmatch.filter(every, pattern) or [pattern])
        return list(dict.fromkeys(chosen))


def _names(file: Path) -> list[str]:
    """The lines that are neither empty nor comments."""
    lines = file.read_text(encoding="utf-8").splitlines()
    return [text.strip() for text in lines if text.strip() and not text.startswith("#")]


def expectation(directory: Path) -> Expectation:
    """Reads tests.allow, FINDINGS.md and slow.txt of a suite's directory."""
    required = _names(directory / "tests.allow")
    slow = directory / "slow.txt"
    exceptions: dict[str, str] = {}
    findings = directory / "FINDINGS.md"
    if findings.is_file():
        text = findings.read_text(encoding="utf-8")
        exceptions = dict(re.findall(r"^- `([^`]+)`: (.+)$", text, re.MULTILINE))
    return Expectation(
        required=[name for name in required if name not in exceptions],
        exceptions=exceptions,
        slow=frozenset(_names(slow) if slow.is_file() else ()),
    )


def line(outcome: Outcome) -> str:
    """One printed line of a test."""
    tail = f"  {outcome.detail}" if outcome.detail and outcome.status != "pass" else ""
    return f"{outcome.status.upper():4} {outcome.seconds:6.1f}s {outcome.name}{tail}"


def conclude(expected: Expectation, chosen: Sequence[str], outcomes: Sequence[Outcome]) -> bool:
    """Prints the verdict and the closing counts; True if everything required passed.

    A required test that was chosen and has no outcome failed: a suite that drops tests is no pass.
    """
    by_name = {outcome.name: outcome for outcome in outcomes}
    passed = failed = skipped = 0
    for name in dict.fromkeys([*chosen, *by_name]):
        outcome = by_name.get(name) or Outcome(
            name=name, status="fail", seconds=0.0, detail="did not run"
        )
        if outcome.status == "pass":
            passed += 1
            if name in expected.exceptions:
                print(f"note: the exception {name} passes now")
        elif name in expected.exceptions:
            skipped += 1
            print(f"exception: {name}: {expected.exceptions[name]}")
        elif name in expected.required or name in chosen:
            failed += 1
            print(f"failed: {name}: {outcome.detail or outcome.status}")
        else:
            skipped += 1
    print(f"{passed} passed, {failed} failed, {skipped} skipped", flush=True)
    return failed == 0
