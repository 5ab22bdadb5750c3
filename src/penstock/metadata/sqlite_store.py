"""The metadata store of a broker that stands alone: one SQLite file.

WAL with synchronous=FULL: a transaction that was reported is on stable storage. One writer thread
owns the connection after the first asynchronous call; before that (at start) the `_now` methods use
it on the caller's thread. Watches are fanned out in the process. Nothing else may write the file.

Tables: `kv` is the present, `log` the recent past for watches (the newest _KEPT_REVISIONS),
`meta` the revision and what is compacted.
"""

from __future__ import annotations

import sqlite3
import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

from penstock.metadata.store import (
    KV,
    MAX_OPERATIONS,
    MAX_VALUE_BYTES,
    Batch,
    Change,
    Compacted,
    Delete,
    Get,
    Guard,
    Put,
    StoreFailed,
    Txn,
)

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Callable, Sequence

_KEPT_REVISIONS = 1000
_SCHEMA = """
CREATE TABLE kv (key BLOB PRIMARY KEY, value BLOB NOT NULL, create_rev INTEGER NOT NULL,
                 mod_rev INTEGER NOT NULL, lease INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE log (rev INTEGER NOT NULL, seq INTEGER NOT NULL, key BLOB NOT NULL, value BLOB,
                  PRIMARY KEY (rev, seq)) WITHOUT ROWID;
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('revision', 0), ('compacted', 0);
PRAGMA user_version = 1;
"""


class _SqliteSession:
    """The process is the lease: the session ends with it, or when it is closed."""

    def __init__(self, store: SqliteStore, lease: int, lost: asyncio.Event) -> None:
        self._store = store
        self.lease = lease
        self.lost = lost

    async def close(self) -> None:
        if not self.lost.is_set():
            self.lost.set()
            await self._store.drop_lease(self.lease)


class SqliteStore:
    """MetaStore on one file (":memory:" for tests)."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._watchers: dict[object, tuple[bytes, Callable[[Batch], None]]] = {}
        self._leases = 0
        self._closed = False
        self._failing = False
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        if self._db.execute("PRAGMA user_version").fetchone()[0] == 0:
            self._db.executescript("BEGIN IMMEDIATE;" + _SCHEMA + "COMMIT;")
        revision = self._db.execute("SELECT value FROM meta WHERE name='revision'").fetchone()
        self._rev: int = revision[0]
        # Sessions end with their process: their keys, too.
        stale = self._db.execute("SELECT key FROM kv WHERE lease != 0").fetchall()
        for at in range(0, len(stale), MAX_OPERATIONS):
            self.txn_now((), [Delete(key) for (key,) in stale[at : at + MAX_OPERATIONS]])

    # -- synchronous half: at start, and inside the writer thread ------------------------------
    @property
    def revision(self) -> int:
        return self._rev

    def get_now(self, key: bytes) -> KV | None:
        row = self._db.execute("SELECT * FROM kv WHERE key=?", (key,)).fetchone()
        return KV(*row) if row else None

    def scan_now(self, prefix: bytes, limit: int = 0) -> tuple[list[KV], int]:
        sql = "SELECT * FROM kv WHERE key >= ?"
        values: list[Any] = [prefix]
        end = _prefix_end(prefix)
        if end is not None:
            sql += " AND key < ?"
            values.append(end)
        rows = self._db.execute(sql + " ORDER BY key LIMIT ?", (*values, limit or -1)).fetchall()
        return [KV(*row) for row in rows], self._rev

    def txn_now(
        self,
        guards: Sequence[Guard],
        then: Sequence[Put | Delete | Get],
        orelse: Sequence[Put | Delete | Get] = (),
    ) -> Txn:
        for branch in (then, orelse):
            if len(branch) > MAX_OPERATIONS:
                raise ValueError(f"{len(branch)} operations, at most {MAX_OPERATIONS} are allowed")
            for op in branch:
                if isinstance(op, Put) and len(op.value) > MAX_VALUE_BYTES:
                    raise ValueError(f"value of {len(op.value)} bytes, at most {MAX_VALUE_BYTES}")
        try:
            self._db.execute("BEGIN IMMEDIATE")
            holds = all(self._holds(guard) for guard in guards)
            changes, results = self._apply(then if holds else orelse)
            self._db.execute("COMMIT")
        except BaseException as error:
            if self._db.in_transaction:  # a full disk has ended it already
                self._db.execute("ROLLBACK")
            if isinstance(error, sqlite3.OperationalError):
                self._note(str(error))
                raise StoreFailed(str(error)) from error
            raise
        if self._failing:
            self._note("")
        if changes:
            self._rev += 1
            self._tell(Batch(self._rev, tuple(changes)))
        return Txn(holds, self._rev, tuple(results))

    def _note(self, failure: str) -> None:
        """Log once that writing fails, and once that it works again."""
        import logging

        log = logging.getLogger("penstock.metadata")
        if not failure:
            log.warning("the metadata store is written again")
        elif not self._failing:
            log.error("the metadata store cannot be written: %s", failure)
        self._failing = bool(failure)

    def _holds(self, guard: Guard) -> bool:
        present = self.get_now(guard.key)
        if guard.kind == "value":
            return (present.value if present else None) == guard.expected
        if guard.kind == "mod":
            return (present.mod_rev if present else 0) == guard.expected
        if guard.kind == "create":
            return (present.create_rev if present else 0) == guard.expected
        raise ValueError(f"guard of kind {guard.kind}")

    def _apply(self, ops: Sequence[Put | Delete | Get]) -> tuple[list[Change], list[KV | None]]:
        rev = self._rev + 1
        changes: list[Change] = []
        results: list[KV | None] = []
        for op in ops:
            if isinstance(op, Put):
                self._db.execute(
                    "INSERT INTO kv VALUES (?,?,?,?,?) ON CONFLICT (key) DO UPDATE SET "
                    "value=excluded.value, mod_rev=excluded.mod_rev, lease=excluded.lease",
                    (op.key, op.value, rev, rev, op.lease),
                )
                changes.append(Change(op.key, op.value))
            elif isinstance(op, Delete):
                if self._db.execute("DELETE FROM kv WHERE key=?", (op.key,)).rowcount:
                    changes.append(Change(op.key, None))
            else:
                results.append(self.get_now(op.key))
        if changes:
            self._db.executemany(
                "INSERT INTO log VALUES (?,?,?,?)",
                [(rev, seq, key, value) for seq, (key, value) in enumerate(changes)],
            )
            self._db.execute("UPDATE meta SET value=? WHERE name='revision'", (rev,))
            if rev % 100 == 0 and rev > _KEPT_REVISIONS:
                self._db.execute("DELETE FROM log WHERE rev <= ?", (rev - _KEPT_REVISIONS,))
                self._db.execute(
                    "UPDATE meta SET value=? WHERE name='compacted'", (rev - _KEPT_REVISIONS,)
                )
        return changes, results

    def _tell(self, batch: Batch) -> None:
        for prefix, deliver in list(self._watchers.values()):
            mine = tuple(change for change in batch.changes if change.key.startswith(prefix))
            if mine:
                deliver(Batch(batch.rev, mine))

    def _history(self, prefix: bytes, from_rev: int) -> list[Batch]:
        row = self._db.execute("SELECT value FROM meta WHERE name='compacted'").fetchone()
        if from_rev <= row[0]:
            raise Compacted(row[0])
        found: dict[int, list[Change]] = {}
        rows = self._db.execute(
            "SELECT rev, key, value FROM log WHERE rev >= ? ORDER BY rev, seq", (from_rev,)
        )
        for rev, key, value in rows:
            if key.startswith(prefix):
                found.setdefault(rev, []).append(Change(key, value))
        return [Batch(rev, tuple(changes)) for rev, changes in found.items()]

    # -- asynchronous half ---------------------------------------------------------------------
    def _submit(self, job: Callable[[], Any]) -> asyncio.Future[Any]:
        from asyncio import get_running_loop

        if self._closed:
            raise RuntimeError("the metadata store is closed")
        loop = get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()

        def finish(result: Any, error: BaseException | None) -> None:
            if future.cancelled():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        def run() -> None:
            result, error = None, None
            try:
                result = job()
            except BaseException as problem:
                error = problem
            try:
                loop.call_soon_threadsafe(finish, result, error)
            except RuntimeError:
                return  # the loop is gone: nobody waits

        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="penstock-store", daemon=True)
            self._thread.start()
        self._jobs.put(run)
        return future

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    async def get(self, key: bytes) -> KV | None:
        found: KV | None = await self._submit(lambda: self.get_now(key))
        return found

    async def scan(self, prefix: bytes, *, limit: int = 0) -> tuple[list[KV], int]:
        found: tuple[list[KV], int] = await self._submit(lambda: self.scan_now(prefix, limit))
        return found

    async def txn(
        self,
        guards: Sequence[Guard],
        then: Sequence[Put | Delete | Get],
        orelse: Sequence[Put | Delete | Get] = (),
    ) -> Txn:
        done: Txn = await self._submit(lambda: self.txn_now(guards, then, orelse))
        return done

    async def watch(self, prefix: bytes, from_rev: int) -> AsyncIterator[Batch]:
        import asyncio

        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[Batch] = asyncio.Queue()
        token = object()

        def deliver(batch: Batch) -> None:
            loop.call_soon_threadsafe(queue.put_nowait, batch)

        def begin() -> list[Batch]:
            past = self._history(prefix, from_rev)
            self._watchers[token] = (prefix, deliver)
            return past

        past = await self._submit(begin)
        try:
            for batch in past:
                yield batch
            while True:
                yield await queue.get()
        finally:
            self._watchers.pop(token, None)

    async def session(self, ttl: float) -> _SqliteSession:  # noqa: ARG002 (the process is it)
        import asyncio

        self._leases += 1
        return _SqliteSession(self, self._leases, asyncio.Event())

    async def drop_lease(self, lease: int) -> None:
        def drop() -> None:
            rows = self._db.execute("SELECT key FROM kv WHERE lease=?", (lease,)).fetchall()
            for at in range(0, len(rows), MAX_OPERATIONS):
                self.txn_now((), [Delete(key) for (key,) in rows[at : at + MAX_OPERATIONS]])

        await self._submit(drop)

    def close(self) -> None:
        """Finish what is queued, then close the file. Blocks. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
        self._db.close()


def _prefix_end(prefix: bytes) -> bytes | None:
    """The smallest key greater than every key that begins with `prefix`; None: there is none."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes((stripped[-1] + 1,)) if stripped else None
