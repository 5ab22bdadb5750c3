"""The committed-offset table and the member table in memory.

Purpose: what the unit tests use and what the C tables (native/broker/group_tables.h) are compared
with. The broker itself runs on the C ones, so that reactors can serve from them later.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from penstock.groups.ports import OffsetEntry

if TYPE_CHECKING:
    from collections.abc import Iterator


class MemoryOffsetTable:
    """`ports.OffsetTable` as nested dictionaries: group, topic, partition."""

    def __init__(self, max_offsets: int = 10_000_000) -> None:
        self._groups: dict[str, dict[str, dict[int, OffsetEntry]]] = {}
        self._size = 0
        self._max_offsets = max_offsets

    def put(
        self,
        group: str,
        topic_id: bytes,
        topic: str,
        partition: int,
        offset: int,
        leader_epoch: int,
        metadata: str,
        commit_timestamp: int,
        expire_timestamp: int,
    ) -> None:
        partitions = self._groups.get(group, {}).get(topic, {})
        if partition not in partitions:
            if self._size >= self._max_offsets:
                raise MemoryError("the table of committed offsets is full")
            self._size += 1
        self._groups.setdefault(group, {}).setdefault(topic, {})[partition] = OffsetEntry(
            topic_id,
            topic,
            partition,
            offset,
            leader_epoch,
            metadata,
            commit_timestamp,
            expire_timestamp,
        )

    def get(self, group: str, topic: str, partition: int) -> OffsetEntry | None:
        topics = self._groups.get(group)
        if topics is None:
            return None
        partitions = topics.get(topic)
        return None if partitions is None else partitions.get(partition)

    def remove(self, group: str, topic: str, partition: int) -> bool:
        topics = self._groups.get(group, {})
        partitions = topics.get(topic, {})
        if partitions.pop(partition, None) is None:
            return False
        self._size -= 1
        if not partitions:
            del topics[topic]
        if not topics:
            del self._groups[group]
        return True

    def remove_group(self, group: str) -> int:
        removed = sum(len(partitions) for partitions in self._groups.pop(group, {}).values())
        self._size -= removed
        return removed

    def iterate(self, group: str) -> Iterator[OffsetEntry]:
        found = [
            partitions[partition]
            for partitions in self._groups.get(group, {}).values()
            for partition in sorted(partitions)
        ]
        return iter(found)

    def groups(self) -> Iterator[str]:
        return iter(list(self._groups))

    def size(self) -> int:
        return self._size


class MemoryMemberTable:
    """`ports.MemberTable`: a dictionary, and a heap that is corrected when it is looked at.

    A touch only changes the dictionary (most deadlines move long before they come), so the heap
    may hold a member's older, earlier deadline: `expired` puts such an entry back where it belongs.
    """

    def __init__(self) -> None:
        # [generation, deadline, deadline in the heap]
        self._members: dict[tuple[str, str], list[int]] = {}
        self._heap: list[tuple[int, str, str]] = []

    def upsert(self, group: str, member: str, generation: int, deadline: int) -> None:
        known = self._members.get((group, member))
        if known is None:
            self._members[group, member] = [generation, deadline, deadline]
            heapq.heappush(self._heap, (deadline, group, member))
            return
        known[0] = generation
        self._move(known, group, member, deadline)

    def touch(self, group: str, member: str, deadline: int) -> bool:
        known = self._members.get((group, member))
        if known is None:
            return False
        self._move(known, group, member, deadline)
        return True

    def _move(self, known: list[int], group: str, member: str, deadline: int) -> None:
        known[1] = deadline
        if deadline < known[2]:
            known[2] = deadline
            heapq.heappush(self._heap, (deadline, group, member))

    def remove(self, group: str, member: str) -> bool:
        return self._members.pop((group, member), None) is not None

    def expired(self, now: int) -> list[tuple[str, str]]:
        out: list[tuple[int, str, str]] = []
        while self._heap and self._heap[0][0] <= now:
            queued, group, member = heapq.heappop(self._heap)
            known = self._members.get((group, member))
            if known is None or known[2] != queued:
                continue
            if known[1] <= now:
                del self._members[group, member]
                out.append((known[1], group, member))
            else:
                known[2] = known[1]
                heapq.heappush(self._heap, (known[1], group, member))
        return [(group, member) for _, group, member in sorted(out)]

    def next_deadline(self) -> int:
        while self._heap:
            queued, group, member = self._heap[0]
            known = self._members.get((group, member))
            if known is not None and known[2] == queued:
                return queued
            heapq.heappop(self._heap)
        return -1

    def size(self) -> int:
        return len(self._members)
