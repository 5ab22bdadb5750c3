"""The metadata store's interface, which SQLite satisfies alone and etcd in a cluster.

Keys and values are bytes; one global revision grows with every transaction that changes something.
Bounds of every backend: at most 100 operations a transaction, values of at most 1 MiB, no reads
inside a transaction but Get. The contract tests (tests/unit/test_metadata_store_*.py) run against
each backend. What is kept here is small: topics, partition state, configuration, identity;
committed offsets and group state live in internal topics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from penstock.errors import KafkaError, PenstockError
from penstock.protocol.errors_table import KAFKA_STORAGE_ERROR

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Sequence

MAX_OPERATIONS = 100
MAX_VALUE_BYTES = 1024 * 1024


class KV(NamedTuple):
    """`create_rev` and `mod_rev`: revision of creation and of the last change. `lease` 0: none."""

    key: bytes
    value: bytes
    create_rev: int
    mod_rev: int
    lease: int


class Put(NamedTuple):
    key: bytes
    value: bytes
    lease: int = 0


class Delete(NamedTuple):
    key: bytes


class Get(NamedTuple):
    key: bytes


class Guard(NamedTuple):
    """Holds when the key's `mod` or `create` revision (0: absent) or its `value` is `expected`."""

    key: bytes
    kind: str  # "mod", "create" or "value"
    expected: int | bytes | None


class Txn(NamedTuple):
    """`succeeded`: the guards held and `then` was applied (otherwise `orelse`). `rev`: the store's
    revision afterwards. `results`: one per Get of the branch taken, in order."""

    succeeded: bool
    rev: int
    results: tuple[KV | None, ...]


class Change(NamedTuple):
    """`value` None: the key was deleted."""

    key: bytes
    value: bytes | None


class Batch(NamedTuple):
    """All changes of one revision that a watch asked for."""

    rev: int
    changes: tuple[Change, ...]


class Compacted(PenstockError):
    """The history a watch asked for is gone: scan, then watch from the scan's revision + 1."""

    def __init__(self, rev: int) -> None:
        super().__init__(f"history up to revision {rev} is gone")
        self.rev = rev


class StoreFailed(KafkaError):
    """The transaction was not made: the disk is full or fails. Clients may try again."""

    def __init__(self, why: str) -> None:
        super().__init__(KAFKA_STORAGE_ERROR, f"the metadata store cannot be written: {why}")


class Session(Protocol):
    """A lease. Keys put with it vanish when it ends."""

    @property
    def lease(self) -> int: ...

    @property
    def lost(self) -> asyncio.Event: ...

    async def close(self) -> None: ...


class MetaStore(Protocol):
    async def get(self, key: bytes) -> KV | None: ...

    async def scan(self, prefix: bytes, *, limit: int = 0) -> tuple[list[KV], int]:
        """Keys that begin with `prefix`, in order, at most `limit` (0: all), and the revision."""
        ...

    async def txn(
        self,
        guards: Sequence[Guard],
        then: Sequence[Put | Delete | Get],
        orelse: Sequence[Put | Delete | Get] = (),
    ) -> Txn:
        """Atomic and durable when it returns. ValueError beyond the bounds."""
        ...

    def watch(self, prefix: bytes, from_rev: int) -> AsyncIterator[Batch]:
        """Every change at or after `from_rev`, in order, none left out; resumes by itself.
        Raises Compacted when that is impossible."""
        ...

    async def session(self, ttl: float) -> Session:
        """`ttl` in seconds."""
        ...
