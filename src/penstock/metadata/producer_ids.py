"""Producer ids, handed out from blocks of 1,000 (as Kafka's controller does).

A block is taken in one durable transaction before its first id is used, and what is left of it at
the end of the process is never used: no id is given twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from penstock.metadata.store import Guard, Put

if TYPE_CHECKING:
    import asyncio

    from penstock.metadata.store import MetaStore

BLOCK_SIZE = 1000
_KEY = b"/producer-ids/next"


class ProducerIds:
    """Owner: the control loop."""

    def __init__(self, store: MetaStore) -> None:
        self._store = store
        self._next = 0
        self._end = 0
        self._lock: asyncio.Lock | None = None

    def try_next(self) -> int | None:
        """An id out of the block at hand; None when it is used up."""
        if self._next == self._end:
            return None
        self._next += 1
        return self._next - 1

    async def next(self) -> int:
        if self._lock is None:
            import asyncio

            self._lock = asyncio.Lock()
        async with self._lock:
            while (found := self.try_next()) is None:
                await self._take_block()
            return found

    async def _take_block(self) -> None:
        present = await self._store.get(_KEY)
        start = int(present.value) if present else 0
        guard = Guard(_KEY, "mod", present.mod_rev if present else 0)
        done = await self._store.txn([guard], [Put(_KEY, str(start + BLOCK_SIZE).encode())])
        if done.succeeded:
            self._next, self._end = start, start + BLOCK_SIZE
