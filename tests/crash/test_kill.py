"""The short tier of the kill test, and the checker held against histories it must condemn."""

from __future__ import annotations

import random

import pytest

from tests.crash.checker import History, check
from tests.crash.kill import run


def history(read: list[tuple[int, int, int]]) -> History:
    made = History()
    for number in range(3):
        made.sent.add((0, 1, number))
        made.acknowledged[(0, 1, number)] = number
    made.read[0] = read
    return made


def test_checker_accepts_what_was_promised() -> None:
    assert check(history([(0, 1, 0), (1, 1, 1), (2, 1, 2)])).clean


@pytest.mark.parametrize(
    ("read", "what"),
    [
        ([(0, 1, 0), (2, 1, 2)], "lost"),
        ([(0, 1, 0), (1, 1, 1), (2, 1, 2), (3, 1, 2)], "duplicated"),
        ([(0, 1, 1), (1, 1, 0), (2, 1, 2)], "reordered"),
        ([(0, 1, 0), (1, 1, 1), (2, 1, 2), (3, 9, 9)], "invented"),
        ([(0, 1, 0), (1, 1, 1), (5, 1, 2)], "moved"),
    ],
)
def test_checker_condemns(read: list[tuple[int, int, int]], what: str) -> None:
    assert getattr(check(history(read)), what) > 0


def test_nothing_acknowledged_is_lost_to_kill_9() -> None:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    verdict, _starts = run(kills=5, seed=seed, pause=(0.3, 1.0))
    assert verdict.acknowledged > 0
    assert verdict.clean, verdict
