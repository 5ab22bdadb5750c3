"""House rules that a reader would otherwise have to remember."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def tracked(*patterns: str) -> list[Path]:
    out = subprocess.run(
        ["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return [ROOT / name for name in out.splitlines() if (ROOT / name).is_file()]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_every_c_file_says_what_it_is_for() -> None:
    silent = [
        relative(path)
        for path in tracked("native/*.c", "native/*.h", "bench/*.c", "bench/*.h")
        if not path.read_text().startswith("/*")
    ]
    assert silent == []


def test_headers_have_guards_named_after_their_place() -> None:
    wrong = []
    for path in tracked("native/*/*.h"):
        room, stem = path.parent.name, path.stem
        guard = f"PST_{room}_{stem}_H".upper().replace("-", "_")
        if stem == "penstock":
            guard = "PENSTOCK_H"
        if f"#ifndef {guard}" not in path.read_text():
            wrong.append(f"{relative(path)}: {guard}")
    assert wrong == []


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        (r"\b(strcpy|strcat|sprintf|gets|alloca|strtok)\s*\(", "unbounded string functions"),
        (r"\bassert\s*\(", "PST_ASSERT is on in release builds, assert is not"),
        (r"\b(sleep|usleep|nanosleep)\s*\(", "nothing in the core sleeps"),
        (r"\bmmap\s*\(", "no log file is mapped"),
    ],
)
def test_banned_calls(pattern: str, why: str) -> None:
    banned = re.compile(pattern)
    found = []
    for path in tracked("native/*/*.c", "native/*/*.h"):
        if path.parent.name in {"fuzz"}:
            continue
        text = re.sub(r"/\*.*?\*/|//[^\n]*|\"(\\.|[^\"\\])*\"", "", path.read_text(), flags=re.S)
        found += [f"{relative(path)}: {match[0]} ({why})" for match in banned.finditer(text)]
    assert found == []


def test_nothing_names_a_registry_host_or_a_path_of_a_machine() -> None:
    hosts = re.compile(
        r"(?<![\w.])(pypi\.org|files\.pythonhosted|repo1?\.maven|registry\.npmjs|proxy\.golang|deb\.debian|"
        r"crates\.io|/work/|/root/)"
    )
    allowed = {"tests/tidy/test_house.py"}
    found = []
    for path in tracked():
        if relative(path) in allowed:
            continue
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [f"{relative(path)}: {match[0]}" for match in hosts.finditer(text)]
    assert found == []


def test_every_python_file_opens_with_a_docstring_or_is_generated() -> None:
    silent = [
        relative(path)
        for path in tracked(
            "src/penstock/**/*.py", "tests/**/*.py", "bench/**/*.py", "tools/**/*.py"
        )
        if path.read_text().strip()
        and not path.read_text().lstrip().startswith(('"""', "#!", "# Generated", "# generated"))
    ]
    assert silent == []


def test_native_tests_are_collected(request: pytest.FixtureRequest) -> None:
    del request
    assert tracked("tests/native/test_*.c")


def test_tables_of_the_readme_are_current() -> None:
    check = [sys.executable, "tools/tables.py", "--check"]
    assert subprocess.run(check, cwd=ROOT, check=False).returncode == 0
