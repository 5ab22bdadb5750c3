"""Reads `#include` and `import` lines and fails on an arrow that runs back (DESIGN section 6).

Prints one line a violation and exits 1 if there is any. `tests/tidy` calls violations() too.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent

# A room and the rooms whose doors it may include.
C_ROOMS = {
    "base": {"base"},
    "wire": {"base", "wire"},
    "codec": {"base", "codec"},
    "storage": {"base", "wire", "codec", "storage"},
    "reactor": {"base", "reactor"},
    "broker": {"base", "wire", "codec", "storage", "reactor", "broker"},
    "engine": {"base", "wire", "codec", "storage", "reactor", "broker", "engine", ""},
}

# Lower layers first; a module may import its own layer only within its own room, and any layer
# below.
PYTHON_LAYERS = [
    {"errors"},
    {"config"},
    {"protocol"},
    {"engine_port"},
    {"metadata"},
    {"groups", "transactions", "cluster", "security"},
    {"handlers"},
    {"engine"},
    {"server"},
    {"broker"},
    {"cli", "pytest_plugin", "__init__"},
    {"__main__"},
]
EXTENSIONS = {"_native", "_codec"}
# Rooms whose state machines must run without a loop and without the engine.
PURE_ROOMS = {"protocol"}
PURE_FILES = {"groups/state.py", "groups/records.py", "metadata/topics.py"}


def c_violations() -> Iterator[str]:
    include = re.compile(r'^\s*#\s*include\s+"([^"]+)"')
    for room, allowed in C_ROOMS.items():
        for path in sorted((ROOT / "native" / room).glob("*.[ch]")):
            for number, line in enumerate(path.read_text().splitlines(), 1):
                match = include.match(line)
                if not match:
                    continue
                target = match[1].split("/")[0] if "/" in match[1] else ""
                where = f"{path.relative_to(ROOT)}:{number}"
                if target not in allowed:
                    yield f"{where}: {room}/ may not include {match[1]}"
                if match[1].endswith("_private.h") and target != room:
                    yield f"{where}: {match[1]} is private to its room"


def layer_of(room: str) -> int | None:
    for index, rooms in enumerate(PYTHON_LAYERS):
        if room in rooms:
            return index
    return None


def imported(tree: ast.AST, package: list[str]) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, name.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package[: len(package) - node.level + 1], base]).rstrip(".")
            for name in node.names:
                yield node.lineno, f"{base}.{name.name}"


def python_violations() -> Iterator[str]:
    source = ROOT / "src" / "penstock"
    for path in sorted(source.rglob("*.py")):
        inside = path.relative_to(source)
        room = inside.parts[0].removesuffix(".py")
        own = layer_of(room)
        if own is None:
            yield f"{path.relative_to(ROOT)}: {room} has no layer in tools/check_layers.py"
            continue
        package = ["penstock", *inside.parts[:-1]]
        for line, name in imported(ast.parse(path.read_text()), package):
            parts = name.split(".")
            where = f"{path.relative_to(ROOT)}:{line}"
            pure = room in PURE_ROOMS or str(inside) in PURE_FILES
            if pure and parts[0] == "asyncio":
                yield f"{where}: {inside} is pure and may not import asyncio"
            if parts[0] != "penstock" or len(parts) < 2:
                continue
            if parts[1] in EXTENSIONS and room != "engine":
                yield f"{where}: only engine.py imports the extensions"
                continue
            target = layer_of(parts[1])
            if target is None or parts[1] == room:
                continue
            if target >= own:
                yield f"{where}: {room} may not import {parts[1]}"


def violations() -> list[str]:
    return [*c_violations(), *python_violations()]


if __name__ == "__main__":
    found = violations()
    print(*found, sep="\n")
    sys.exit(1 if found else 0)
