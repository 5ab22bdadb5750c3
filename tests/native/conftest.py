"""Collects each native test of the release build as one test; `make test` builds them first."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "release" / "tests"


class NativeTest(pytest.Item):
    def __init__(self, *, source: Path, name: str, parent: pytest.Collector) -> None:
        super().__init__(name, parent)
        self.binary = BUILD / source.stem

    def runtest(self) -> None:
        if not self.binary.exists():
            raise NativeFailure(f"{self.binary} is not built; `make test` builds it")
        result = subprocess.run(
            [self.binary], capture_output=True, text=True, timeout=300, check=False
        )
        if result.returncode != 0:
            raise NativeFailure(f"exit {result.returncode}\n{result.stdout}{result.stderr}")

    def repr_failure(
        self, excinfo: pytest.ExceptionInfo[BaseException], style: object = None
    ) -> str:  # type: ignore[override]
        del style
        return str(excinfo.value)

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path, None, self.name


class NativeFailure(Exception):
    """A native test ended with another status than 0."""


class NativeFile(pytest.File):
    def collect(self) -> list[NativeTest]:  # type: ignore[override]
        return [NativeTest.from_parent(self, source=self.path, name=self.path.stem)]


def pytest_collect_file(parent: pytest.Collector, file_path: Path) -> NativeFile | None:
    if file_path.suffix == ".c" and file_path.name.startswith("test_"):
        return NativeFile.from_parent(parent, path=file_path)
    return None
