"""SQLite when it is locked, full, or has much to forget."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from holdfast.errors import StoreUnavailable
from holdfast.events import TextDelta
from holdfast.store.port import DeleteSession, Probe, Write
from holdfast.store.sqlite import SqliteStore
from holdfast.store.sqlite import writer as sqlite_writer
from tests.support.harness import SqliteHarness
from tests.support.records import OWNER, Told, begin, commit, read_all, tell


class Intruder:
    """Another connection that holds the write lock, as a backup tool or a shell would."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)

    async def take(self) -> None:
        await asyncio.to_thread(self._connection.execute, "BEGIN IMMEDIATE")

    async def leave(self) -> None:
        await asyncio.to_thread(self._connection.execute, "ROLLBACK")
        self._connection.close()


# ------------------------------------------------------------------------------ locked


async def test_a_locked_file_takes_nothing_and_later_all(
    store: SqliteStore, harness: SqliteHarness
) -> None:
    told, new = await begin(store, Told()), Told()
    before = await harness.counts()
    intruder = Intruder(harness.path)
    await intruder.take()
    batch: list[Write] = [told.say(TextDelta("a")), new.create()]
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="locked"):
            await store.commit(batch)
    assert await read_all(store, told.run.id) == told.entries[:1]
    assert await harness.counts() == before
    await intruder.leave()
    await commit(store, *batch)
    assert await read_all(store, told.run.id) == told.entries
    assert await read_all(store, new.run.id) == new.entries


async def test_a_locked_file_can_be_read(store: SqliteStore, harness: SqliteHarness) -> None:
    told = await tell(store, Told(), TextDelta("a"))
    intruder = Intruder(harness.path)
    await intruder.take()
    assert await read_all(store, told.run.id) == told.entries
    assert len(await store.list_sessions(OWNER, 10)) == 1
    await intruder.leave()


async def test_p3_an_ending_refused_by_a_locked_file_can_be_tried_again(
    store: SqliteStore, harness: SqliteHarness
) -> None:
    told = await begin(store, Told(), TextDelta("a"))
    intruder = Intruder(harness.path)
    await intruder.take()
    finish = told.finish(TextDelta("b"))
    with pytest.raises(StoreUnavailable):
        await store.commit([finish])
    assert [run.id for run, _ in await store.live_runs()] == [told.run.id]
    await intruder.leave()
    assert await store.commit([finish]) == [True]
    assert await read_all(store, told.run.id) == told.entries


# ------------------------------------------------------------------------------ full


async def _bound_size(store: SqliteStore, more_pages: int | None) -> None:
    """Let the file grow by so many pages from now on; None: without bound."""

    def work() -> None:
        (pages,) = store._connection.execute("PRAGMA page_count").fetchone()
        bound = pages + more_pages if more_pages is not None else 2**30
        store._connection.execute(f"PRAGMA max_page_count = {bound}")

    await asyncio.to_thread(work)


async def test_a_full_file_takes_nothing_and_later_all(
    store: SqliteStore, harness: SqliteHarness
) -> None:
    told, other = await begin(store, Told()), await begin(store, Told())
    await _bound_size(store, 2)
    before = await harness.text()
    batch = [other.say(TextDelta("small")), told.say(TextDelta("x" * 100_000))]
    for _ in range(2):
        with pytest.raises(StoreUnavailable, match="full"):
            await store.commit(batch)
    assert await harness.text() == before
    await _bound_size(store, None)
    await commit(store, *batch)
    assert await read_all(store, told.run.id) == told.entries
    assert await read_all(store, other.run.id) == other.entries


async def test_a_probe_notices_a_full_file(store: SqliteStore) -> None:
    """Otherwise a full store would be called healthy, and would fail with the next answer."""
    await _bound_size(store, 2)
    with pytest.raises(StoreUnavailable, match="full"):
        await store.commit([Probe(1)])
    await _bound_size(store, None)
    assert await store.commit([Probe(2)]) == [None]


async def test_a_full_file_can_be_emptied_by_deleting(
    store: SqliteStore, harness: SqliteHarness
) -> None:
    told = await tell(store, Told(), TextDelta("x" * 300_000))
    await _bound_size(store, 0)
    with pytest.raises(StoreUnavailable):
        await store.commit([Told(question="y" * 100_000).create()])
    await commit(store, DeleteSession(OWNER, told.run.session_id))
    await commit(store, Told(question="y" * 10_000).create())


# ------------------------------------------------------------------------------ the journal


async def test_the_journal_is_empty_when_no_run_is_live(
    store: SqliteStore, harness: SqliteHarness
) -> None:
    runs = [await begin(store, Told(), TextDelta("a")) for _ in range(5)]
    for told in runs[:-1]:
        await commit(store, told.finish())
    await commit(store, runs[-1].finish())
    assert await harness.rows("journal") == []


async def test_the_journal_is_empty_when_all_runs_end_in_one_commit(
    store: SqliteStore, harness: SqliteHarness
) -> None:
    runs = [await begin(store, Told(), TextDelta("a")) for _ in range(5)]
    await commit(store, *[told.finish() for told in runs])
    assert await harness.rows("journal") == []


@pytest.mark.parametrize("bound", [1, 7, 20])
async def test_rows_of_short_runs_stay_bounded_beside_a_long_one(
    store: SqliteStore, harness: SqliteHarness, monkeypatch: pytest.MonkeyPatch, bound: int
) -> None:
    monkeypatch.setattr(sqlite_writer, "DEAD_ROWS", bound)
    long = await begin(store, Told())
    per_run = 3
    for number in range(30):
        short = await begin(store, Told(), TextDelta("a"))
        await commit(store, short.say(TextDelta("b")), long.say(TextDelta(str(number))))
        await commit(store, short.finish())
        rows = await harness.rows("journal")
        dead = [row for row in rows if row["run_id"] != long.run.id]
        assert len(dead) < bound + per_run
        assert len(rows) - len(dead) == number + 2
        assert await read_all(store, short.run.id) == short.entries
    assert await read_all(store, long.run.id) == long.entries
    await commit(store, long.finish())
    assert await read_all(store, long.run.id) == long.entries
    assert await harness.rows("journal") == []


async def test_a_failed_purge_is_made_up_for(store: SqliteStore, harness: SqliteHarness) -> None:
    told = await begin(store, Told(), TextDelta("a"))
    other = await begin(store, Told())
    intruder = Intruder(harness.path)
    await intruder.take()
    delete = DeleteSession(OWNER, told.run.session_id)
    with pytest.raises(StoreUnavailable):
        await store.commit([delete])
    await intruder.leave()
    assert await read_all(store, told.run.id) == told.entries
    await commit(store, delete)
    assert {row["run_id"] for row in await harness.rows("journal")} == {other.run.id}
