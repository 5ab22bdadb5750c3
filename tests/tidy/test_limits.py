"""docs/limits.md lists exactly the limits of the engine's table, with their defaults."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SIZES = {"KIB": 1 << 10, "MIB": 1 << 20, "KiB": 1 << 10, "MiB": 1 << 20}


def number(text: str) -> int:
    """`100 * MIB`, `MIB`, `1024`, `INT32_MAX`, `64 KiB`."""
    if text == "INT32_MAX":
        return 2**31 - 1
    value = 1
    for part in re.findall(r"\w+", text):
        value *= SIZES[part] if part in SIZES else int(part)
    return value


def in_code() -> dict[str, int]:
    text = (ROOT / "native/engine/limits.c").read_text()
    table = text.split("static const row rows[] = {")[1].split("\n};")[0]
    rows = re.findall(r'\{(?:"([^"]+)"|NULL),\s*(?:WIDE|NARROW)\(([\w.]+)\),\s*([^,]+),', table)
    assert len(rows) == table.count("WIDE(") + table.count("NARROW(")
    return {key or field: number(default) for key, field, default in rows}


def in_docs() -> dict[str, int]:
    text = (ROOT / "docs/limits.md").read_text()
    rows = re.findall(r"^\| `([\w.]+)` \| ([^|]+?) \|", text, flags=re.M)
    return {name: number(default) for name, default in rows}


def test_the_page_has_the_limits_of_the_table() -> None:
    assert in_docs() == in_code()


def test_the_page_has_the_reserve_of_descriptors() -> None:
    text = (ROOT / "native/engine/limits.c").read_text()
    single = dict(re.findall(r"(FILES_\w+|CONNECTIONS_LEAST|OPEN_FILES_MOST) = (\d+)", text))
    reserve = sum(int(value) for name, value in single.items() if name.startswith("FILES_"))
    page = (ROOT / "docs/limits.md").read_text()
    assert f"{reserve} are reserved" in page
    assert f"at most {single['OPEN_FILES_MOST']}" in page
    assert f"fewer than {single['CONNECTIONS_LEAST']} left" in page
