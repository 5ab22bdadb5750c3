"""The Python blocks of README.md run as they stand."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[2] / "README.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)


def test_there_are_blocks_to_run() -> None:
    assert len(BLOCKS) >= 2


def test_the_first_record_with_python() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKS[0]], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout == "b'hello'\n", done.stderr


def test_the_pytest_fixture(tmp_path: Path) -> None:
    head = "def run_my_service(bootstrap):\n    assert bootstrap.startswith('127.0.0.1:')\n\n"
    (tmp_path / "test_my_service.py").write_text(head + BLOCKS[1])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_my_service.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "1 passed" in done.stdout, done.stdout


@pytest.mark.parametrize("name", ["ARCHITECTURE.md", "CHANGELOG.md", "GLOSSARY.md", "LICENSE"])
def test_what_the_readme_points_to_is_there(name: str) -> None:
    assert README.with_name(name).is_file()
