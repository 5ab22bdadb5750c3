"""Writes the tables of README.md that have a source elsewhere; with --check only says whether they
are current.

Source: schema/supported.toml (which API versions are served), so that no list is typed twice.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def apis() -> str:
    table = tomllib.loads((ROOT / "schema/supported.toml").read_text())
    rows = sorted(table["api"], key=lambda row: row["key"])
    lines = ["| key | request | versions | answered by |", "|---|---|---|---|"]
    for row in rows:
        versions = f"{row['min']}-{row['max']}" if row["min"] != row["max"] else f"{row['min']}"
        where = "C, on the reactor" if row["where"] == "reactor" else "Python, on the control loop"
        lines.append(f"| {row['key']} | {row['name']} | {versions} | {where} |")
    return "\n".join(lines)


def rendered(text: str) -> str:
    return re.sub(
        r"(<!-- apis:[^\n]*-->\n).*?(<!-- /apis -->)",
        lambda match: f"{match[1]}{apis()}\n{match[2]}",
        text,
        flags=re.S,
    )


def main() -> int:
    readme = ROOT / "README.md"
    before = readme.read_text()
    after = rendered(before)
    if "--check" in sys.argv[1:]:
        return 0 if before == after else 1
    readme.write_text(after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
