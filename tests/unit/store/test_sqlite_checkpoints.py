"""What is in the write-ahead log is moved into the database without anybody waiting for it."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from holdfast.events import TextDelta
from holdfast.store.sqlite import SqliteStore, checkpoints
from holdfast.store.sqlite.checkpoints import Checkpoints
from tests.support.harness import SqliteHarness
from tests.support.records import Told, begin, commit, read_all


def questions_in(path: Path) -> int:
    """How many the file itself holds, without its log, which may have all, even the tables."""
    connection = sqlite3.connect(f"file:{path}?immutable=1", uri=True)
    try:
        tables = connection.execute("SELECT name FROM sqlite_master").fetchall()
        if ("messages",) not in tables:
            return 0
        return len(connection.execute("SELECT 1 FROM messages WHERE role = 'user'").fetchall())
    except sqlite3.DatabaseError:
        return 0  # a checkpoint is writing to it: nobody but SQLite reads it meanwhile
    finally:
        connection.close()


async def test_what_was_committed_reaches_the_database_while_it_is_open(
    store: SqliteStore, harness: SqliteHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "INTERVAL_S", 0.0)
    told = await begin(store, Told(), TextDelta("a"))
    for _ in range(500):  # a checkpoint is begun by the commit after the last one
        await commit(store, told.say(TextDelta("b")))
        if questions_in(harness.path) == 1:
            break
        await asyncio.sleep(0.01)
    assert questions_in(harness.path) == 1
    assert await read_all(store, told.run.id) == told.entries


async def test_one_is_begun_only_after_a_while(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[None] = []
    monkeypatch.setattr(Checkpoints, "_checkpoint", lambda _: begun.append(None))
    told = await begin(store, Told())
    for _ in range(20):
        await commit(store, told.say(TextDelta("b")))
    assert len(begun) == 1


async def test_one_that_fails_harms_nobody(
    store: SqliteStore, harness: SqliteHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "INTERVAL_S", 0.0)
    beside = store._checkpoints
    assert beside is not None
    beside._connection.close()
    told = await begin(store, Told())
    for _ in range(5):
        await commit(store, told.say(TextDelta("b")))
    await commit(store, told.finish())
    again = await harness.reopen(store)
    assert await read_all(again, told.run.id) == told.entries


async def test_the_log_is_gone_when_the_store_is_closed(
    store: SqliteStore, harness: SqliteHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "INTERVAL_S", 0.0)
    told = await begin(store, Told())
    await commit(store, told.say(TextDelta("b")))
    await store.close()
    assert not harness.path.with_name(f"{harness.path.name}-wal").exists()
    assert questions_in(harness.path) == 1
