"""The arrows between the rooms run one way, and the checker sees a wrong one."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_layers", ROOT / "tools/check_layers.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_arrow_runs_back(checker: ModuleType) -> None:
    assert checker.violations() == []


def test_a_wrong_arrow_is_seen(
    checker: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checker, "ROOT", tmp_path)
    storage = tmp_path / "native/storage"
    storage.mkdir(parents=True)
    (storage / "log.c").write_text('#include "reactor/reactor.h"\n#include "wire/wire_private.h"\n')
    package = tmp_path / "src/penstock/protocol"
    package.mkdir(parents=True)
    (package / "codec.py").write_text("import asyncio\nfrom ..server import Server\n")
    found = "\n".join(checker.violations())
    assert "storage/ may not include reactor/reactor.h" in found
    assert "wire_private.h is private" in found
    assert "may not import asyncio" in found
    assert "protocol may not import server" in found
