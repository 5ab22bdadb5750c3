"""The contract of the metadata store, for every backend."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from penstock.metadata.sqlite_store import SqliteStore
from penstock.metadata.store import Batch, Change, Compacted, Delete, Get, Guard, MetaStore, Put

if TYPE_CHECKING:
    from pathlib import Path

Body = Callable[[MetaStore], Coroutine[Any, Any, None]]


@pytest.fixture(params=["sqlite"])
def with_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[Body], None]]:
    assert request.param == "sqlite"
    store = SqliteStore(str(tmp_path / "store.db"))

    def run(body: Body) -> None:
        asyncio.run(body(store))

    yield run
    store.close()


def test_put_then_get_and_revisions_grow(with_store: Callable[[Body], None]) -> None:
    async def body(store: MetaStore) -> None:
        assert await store.get(b"a") is None
        first = await store.txn((), [Put(b"a", b"1"), Put(b"b", b"2")])
        second = await store.txn((), [Put(b"a", b"3")])
        assert first.succeeded
        assert second.rev == first.rev + 1
        found = await store.get(b"a")
        assert found is not None
        assert (found.value, found.create_rev, found.mod_rev) == (b"3", first.rev, second.rev)

    with_store(body)


def test_scan_is_ordered_bounded_and_within_its_prefix(
    with_store: Callable[[Body], None],
) -> None:
    async def body(store: MetaStore) -> None:
        await store.txn((), [Put(key, b"") for key in (b"t/b", b"t/a", b"u", b"t0", b"t/\xff")])
        found, rev = await store.scan(b"t/")
        assert [kv.key for kv in found] == [b"t/a", b"t/b", b"t/\xff"]
        assert rev == found[0].mod_rev
        assert [kv.key for kv in (await store.scan(b"t/", limit=2))[0]] == [b"t/a", b"t/b"]
        assert len((await store.scan(b""))[0]) == 5

    with_store(body)


@pytest.mark.parametrize(
    ("guard", "holds"),
    [
        (Guard(b"a", "value", b"1"), True),
        (Guard(b"a", "value", b"2"), False),
        (Guard(b"a", "mod", 1), True),
        (Guard(b"a", "mod", 0), False),
        (Guard(b"x", "mod", 0), True),
        (Guard(b"x", "create", 0), True),
        (Guard(b"a", "create", 1), True),
        (Guard(b"x", "value", None), True),
    ],
)
def test_guard_decides_the_branch(
    with_store: Callable[[Body], None], guard: Guard, holds: bool
) -> None:
    async def body(store: MetaStore) -> None:
        await store.txn((), [Put(b"a", b"1")])
        done = await store.txn([guard], [Put(b"then", b""), Get(b"a")], [Put(b"else", b"")])
        assert done.succeeded is holds
        assert (await store.get(b"then") is not None) is holds
        assert (await store.get(b"else") is None) is holds
        if holds:
            assert done.results[0] is not None
            assert done.results[0].value == b"1"

    with_store(body)


def test_transaction_without_a_change_keeps_the_revision(
    with_store: Callable[[Body], None],
) -> None:
    async def body(store: MetaStore) -> None:
        before = (await store.txn((), [Put(b"a", b"1")])).rev
        assert (await store.txn((), [Get(b"a"), Delete(b"none")])).rev == before

    with_store(body)


def test_deleted_key_is_gone_and_starts_anew(with_store: Callable[[Body], None]) -> None:
    async def body(store: MetaStore) -> None:
        await store.txn((), [Put(b"a", b"1")])
        await store.txn((), [Delete(b"a")])
        assert await store.get(b"a") is None
        rev = (await store.txn((), [Put(b"a", b"2")])).rev
        found = await store.get(b"a")
        assert found is not None
        assert found.create_rev == rev

    with_store(body)


def test_bounds_are_enforced(with_store: Callable[[Body], None]) -> None:
    async def body(store: MetaStore) -> None:
        with pytest.raises(ValueError, match="at most 100"):
            await store.txn((), [Put(b"%d" % at, b"") for at in range(101)])
        with pytest.raises(ValueError, match="at most 1048576"):
            await store.txn((), [Put(b"a", bytes(1024 * 1024 + 1))])
        assert await store.get(b"a") is None

    with_store(body)


def test_watch_sees_past_and_future_once_in_order(with_store: Callable[[Body], None]) -> None:
    async def body(store: MetaStore) -> None:
        first = await store.txn((), [Put(b"t/a", b"1"), Put(b"other", b"")])
        watch = store.watch(b"t/", first.rev)
        assert await anext(watch) == Batch(first.rev, (Change(b"t/a", b"1"),))
        waiting = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        await store.txn((), [Put(b"other", b"2")])
        second = await store.txn((), [Delete(b"t/a"), Put(b"t/b", b"3")])
        assert await waiting == Batch(second.rev, (Change(b"t/a", None), Change(b"t/b", b"3")))
        await watch.aclose()  # type: ignore[attr-defined]

    with_store(body)


def test_watch_from_forgotten_history_says_compacted(
    with_store: Callable[[Body], None],
) -> None:
    async def body(store: MetaStore) -> None:
        for at in range(1101):
            await store.txn((), [Put(b"a", b"%d" % at)])
        with pytest.raises(Compacted):
            await anext(store.watch(b"a", 1))

    with_store(body)


def test_keys_of_a_session_end_with_it(with_store: Callable[[Body], None]) -> None:
    async def body(store: MetaStore) -> None:
        session = await store.session(10.0)
        await store.txn((), [Put(b"mine", b"", session.lease), Put(b"kept", b"")])
        await session.close()
        assert session.lost.is_set()
        assert await store.get(b"mine") is None
        assert await store.get(b"kept") is not None

    with_store(body)


def test_sqlite_keeps_everything_but_sessions_over_a_restart(tmp_path: Path) -> None:
    path = str(tmp_path / "store.db")
    store = SqliteStore(path)
    store.txn_now((), [Put(b"a", b"1"), Put(b"lease", b"", 9)])
    store.close()
    again = SqliteStore(path)
    found = again.get_now(b"a")
    assert found is not None
    assert found.value == b"1"
    assert again.get_now(b"lease") is None
    assert again.revision == 2
    again.close()
