"""Prints the files and C functions that exceed the aims of the house style; a reader decides (exit
0).
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GENERATED = (
    "schema_table",
    "api_table",
    "error_codes",
    "protocol/messages",
    "errors_table",
    "api_keys",
)


def tracked() -> list[str]:
    out = subprocess.run(
        ["git", "ls-files", "*.c", "*.h", "*.py", "*.pyx"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    return [name for name in out if not any(part in name for part in GENERATED)]


def functions(text: str) -> list[tuple[str, int]]:
    """C functions of a clang-formatted file: a line that ends in ') {' at column 0 up to '}' at
    column 0.
    """
    found = []
    start = None
    name = ""
    for number, line in enumerate(text.splitlines(), 1):
        if start is None and line.endswith("{") and line[:1] not in " \t}#/" and "(" in line:
            start, match = number, re.search(r"(\w+)\(", line)
            name = match[1] if match else line
        elif start is not None and line == "}":
            found.append((name, number - start + 1))
            start = None
    return found


for file in tracked():
    content = (ROOT / file).read_text()
    lines = content.count("\n")
    limit = 900 if not file.endswith(".h") else 250
    if lines > limit:
        print(f"{file}: {lines} lines, look at splitting it (limit {limit})")
    if file.endswith(".c"):
        for function, size in functions(content):
            if size > 70:
                print(f"{file}: {function}() has {size} lines")
