"""The command line without a broker: usage, versions, failures in one sentence."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from penstock import __version__
from penstock.cli import main

if TYPE_CHECKING:
    from pathlib import Path


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"penstock {__version__}\n"


@pytest.mark.parametrize("argv", [[], ["nonsense"], ["topics"], ["topics", "create"]])
def test_usage_errors_exit_with_2(argv: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2


def serve(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "penstock", "serve", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["no-such-file"], "cannot read no-such-file"),
        (["--set", "num.partitions=0"], "num.partitions"),
        (["--set", "nonsense"], "key=value is needed"),
        (["--set", "penstock.durability=fsync"], "penstock.durability=os"),
        (["--set", "listeners=PLAINTEXT://0.0.0.0:0"], "penstock.insecure=true"),
    ],
)
def test_serve_fails_with_one_sentence(tmp_path: Path, arguments: list[str], part: str) -> None:
    done = serve(*arguments, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("penstock: ")
    assert part in line


def test_serve_that_cannot_start_leaves_no_directory(tmp_path: Path) -> None:
    serve("--set", "penstock.durability=fsync", cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_topics_without_a_broker_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("penstock.engine")
    assert main(["topics", "list", "--bootstrap", "127.0.0.1:1"]) == 1
    assert "cannot connect to 127.0.0.1:1" in capsys.readouterr().err
