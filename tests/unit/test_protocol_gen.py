"""What tools/gen would write is what is committed. Needs the jars that `make gen` has fetched."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_generated_files_are_up_to_date() -> None:
    if not (ROOT / "build" / "gen" / "slf4j-api-1.7.36.jar").exists():
        pytest.skip("`make gen` has not run here")
    result = subprocess.run(
        [sys.executable, str(ROOT / "tools" / "gen"), "--check"], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
