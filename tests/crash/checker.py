"""The one checker: lost, duplicated, reordered, invented.

A history is what producers were told (acknowledged or not) and what a reader then found, partition
by partition in offset order. A record is named by (producer, number); each producer numbers its
records per partition from 0.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field


@dataclass
class History:
    """What happened; filled by producers while they run and by the reader at the end."""

    sent: set[tuple[int, int, int]] = field(default_factory=set)  # partition, producer, number
    acknowledged: dict[tuple[int, int, int], int] = field(default_factory=dict)  # -> offset
    failed: set[tuple[int, int, int]] = field(default_factory=set)
    read: dict[int, list[tuple[int, int, int]]] = field(default_factory=lambda: defaultdict(list))


@dataclass(frozen=True)
class Verdict:
    """Counts of broken promises, with an example of each."""

    acknowledged: int
    read: int
    lost: int
    duplicated: int
    reordered: int
    invented: int
    moved: int  # acknowledged at one offset, found at another
    examples: tuple[str, ...]

    @property
    def clean(self) -> bool:
        return not (self.lost or self.duplicated or self.reordered or self.invented or self.moved)


def check(history: History) -> Verdict:
    """`history.read[partition]` holds (offset, producer, number) in the order of reading."""
    found: dict[tuple[int, int, int], list[int]] = defaultdict(list)
    reordered = invented = 0
    examples: list[str] = []
    for partition, records in history.read.items():
        last: dict[int, int] = {}
        previous_offset = -1
        for offset, producer, number in records:
            name = (partition, producer, number)
            found[name].append(offset)
            if name not in history.sent:
                invented += 1
                examples.append(f"invented {name} at {offset}")
            if number < last.get(producer, -1) or offset <= previous_offset:
                reordered += 1
                examples.append(f"reordered {name} at {offset} after {last.get(producer)}")
            last[producer] = max(number, last.get(producer, -1))
            previous_offset = offset
    lost = [name for name in history.acknowledged if name not in found]
    duplicated = [name for name, offsets in found.items() if len(offsets) > 1]
    moved = [
        name
        for name, offset in history.acknowledged.items()
        if name in found and offset >= 0 and offset not in found[name]
    ]
    examples += [f"lost {name} acknowledged at {history.acknowledged[name]}" for name in lost[:3]]
    examples += [f"duplicated {name} at {found[name]}" for name in duplicated[:3]]
    examples += [f"moved {name}" for name in moved[:3]]
    return Verdict(
        acknowledged=len(history.acknowledged),
        read=sum(len(records) for records in history.read.values()),
        lost=len(lost),
        duplicated=len(duplicated),
        reordered=reordered,
        invented=invented,
        moved=len(moved),
        examples=tuple(examples[:10]),
    )
