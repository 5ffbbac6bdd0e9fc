"""What is special to SQLite: the file, its lock, its settings."""

import asyncio
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from blockbuster import BlockingError
from sqlalchemy import Engine, event

from holdfast.errors import ConfigError, HoldfastError, StoreLocked, StoreUnavailable
from holdfast.events import TextDelta
from holdfast.store.sqlite import SqliteStore
from tests.support.harness import SqliteHarness
from tests.support.records import Told, begin, read_all, tell

HOLDER = """
import asyncio, sys
from holdfast.store.sqlite import SqliteStore

async def hold() -> None:
    store = SqliteStore(sys.argv[1])
    await store.open()
    print("open", flush=True)
    sys.stdin.read()

asyncio.run(hold())
"""
"""Opens the file in a process of its own and keeps it until it is killed."""


# ------------------------------------------------------------------------------ the loop guard


async def test_the_loop_guard_notices_sqlite_on_the_loop(harness: SqliteHarness) -> None:
    """If this passed without an error, no other test could notice a store that blocks."""
    store = harness.make()
    with pytest.raises(BlockingError):
        store._open()
    await store.close()


# ------------------------------------------------------------------------------ the URL


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///"])
def test_a_url_without_a_file_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"storage\.url must name a file"):
        SqliteStore(url)


async def test_the_file_and_its_folder_are_created(tmp_path: Path) -> None:
    store = SqliteStore(f"sqlite:///{tmp_path}/new/deep/chat.db")
    await store.open()
    await store.close()
    assert (tmp_path / "new/deep/chat.db").is_file()


async def test_a_relative_url_is_relative_to_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = SqliteStore("sqlite:///chat.db")
    monkeypatch.chdir("/")
    await store.open()
    await store.close()
    assert (tmp_path / "chat.db").is_file()


@pytest.mark.parametrize("name", ["海带 chat.db", "50%20off.db", "a?b.db", "a#b.db", "it's.db"])
async def test_a_file_may_have_any_name(tmp_path: Path, name: str) -> None:
    """A name is escaped in a URL once; read twice, the lock and the file would fall apart."""
    store = SqliteStore(f"sqlite:///{tmp_path}/{quote(name)}")
    await store.open()
    await store.close()
    assert (tmp_path / name).is_file()


# ------------------------------------------------------------------------------ settings


@pytest.mark.parametrize(("synchronous", "value"), [("full", 2), ("normal", 1)])
async def test_p2_the_synchronous_setting_is_that_of_the_connection_that_writes(
    tmp_path: Path, synchronous: str, value: int
) -> None:
    store = SqliteStore(f"sqlite:///{tmp_path}/chat.db", synchronous=synchronous)
    await store.open()

    def pragmas() -> list[object]:
        names = ("synchronous", "journal_mode", "foreign_keys")
        return [store._connection.execute(f"PRAGMA {n}").fetchone()[0] for n in names]

    assert await asyncio.to_thread(pragmas) == [value, "wal", 1]
    await store.close()


async def test_p2_full_is_what_one_gets_without_asking(tmp_path: Path) -> None:
    store = SqliteStore(f"sqlite:///{tmp_path}/chat.db")
    await store.open()
    (value,) = await asyncio.to_thread(
        lambda: store._connection.execute("PRAGMA synchronous").fetchone()
    )
    assert value == 2
    await store.close()


# ------------------------------------------------------------------------------ the lock


async def test_a_second_store_on_the_file_is_refused(harness: SqliteHarness) -> None:
    store = await harness.open()
    second = harness.make()
    with pytest.raises(StoreLocked) as refusal:
        await second.open()
    assert "PostgreSQL" in refusal.value.message
    assert f"process {os.getpid()}" in refusal.value.message
    await second.close()
    await tell(store, Told())


async def test_a_store_that_was_refused_does_not_take_the_lock_with_it(
    harness: SqliteHarness,
) -> None:
    store = await harness.open()
    second = harness.make()
    with pytest.raises(StoreLocked):
        await second.open()
    await second.close()
    third = harness.make()
    with pytest.raises(StoreLocked):
        await third.open()
    await third.close()
    await harness.reopen(store)


async def test_a_second_process_is_refused_and_told_who_holds_the_file(
    harness: SqliteHarness,
) -> None:
    url = f"sqlite:///{harness.path}"
    holder = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        HOLDER,
        url,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert await holder.stdout.readline() == b"open\n"
    try:
        refused = harness.make()
        with pytest.raises(StoreLocked) as refusal:
            await refused.open()
        await refused.close()
    finally:
        holder.kill()
        await holder.wait()
    assert f"process {holder.pid}" in refusal.value.message
    assert "PostgreSQL" in refusal.value.message
    # The kernel gave the lock back with the process.
    await tell(await harness.open(), Told())


async def test_a_second_name_of_the_file_is_refused_too(harness: SqliteHarness) -> None:
    await harness.open()
    other = harness.path.with_name("other.db")
    other.symlink_to(harness.path)
    second = SqliteStore(f"sqlite:///{other}")
    try:
        with pytest.raises(StoreLocked):
            await second.open()
    finally:
        await second.close()


def _lock_text(harness: SqliteHarness, new: str | None = None) -> str:
    """What the lock file says, after it was made to say `new`."""
    file = Path(f"{harness.path}.lock")
    if new is not None:
        file.write_text(new)
    return file.read_text()


async def test_a_lock_file_left_by_a_dead_process_is_no_lock(harness: SqliteHarness) -> None:
    _lock_text(harness, "12345\nand rubbish" * 10)
    store = await harness.open()
    assert _lock_text(harness) == f"{os.getpid()}\n"
    await tell(store, Told())


async def test_a_holder_that_left_no_number_is_not_guessed_at(harness: SqliteHarness) -> None:
    await harness.open()
    _lock_text(harness, "rubbish")
    second = harness.make()
    with pytest.raises(StoreLocked) as refusal:
        await second.open()
    assert "rubbish" not in refusal.value.message
    await second.close()


# ------------------------------------------------------------------------------ other files


async def test_a_file_that_is_no_database_is_a_configuration_error(
    harness: SqliteHarness,
) -> None:
    harness.path.write_bytes(b"These are my notes about kelp. " * 200)
    store = harness.make()
    with pytest.raises(ConfigError, match="not a SQLite database"):
        await store.open()
    await store.close()
    assert harness.path.read_bytes().startswith(b"These are my notes")


async def test_a_folder_in_place_of_the_file_is_an_error_of_ours(harness: SqliteHarness) -> None:
    harness.path.mkdir()
    store = harness.make()
    with pytest.raises(HoldfastError):
        await store.open()
    await store.close()


async def test_a_file_in_place_of_the_folder_is_an_error_of_ours(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = SqliteStore(f"sqlite:///{tmp_path}/file/chat.db")
    with pytest.raises(HoldfastError):
        await store.open()
    await store.close()


async def test_a_folder_that_takes_no_files_is_an_error_of_ours(tmp_path: Path) -> None:
    folder = tmp_path / "read-only"
    folder.mkdir(mode=0o500)
    if os.access(folder, os.W_OK):
        folder = Path("/proc")  # permissions do not bind the superuser; this one binds all
    store = SqliteStore(f"sqlite:///{folder}/chat.db")
    with pytest.raises(HoldfastError) as refusal:
        await store.open()
    assert str(folder) in refusal.value.message
    await store.close()


@pytest.mark.parametrize("text", ["not a database at all" * 100, None])
async def test_after_a_failed_opening_the_file_is_free_again(
    harness: SqliteHarness, text: str | None
) -> None:
    if text is None:
        connection = sqlite3.connect(harness.path)
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES ('9999')")
        connection.commit()
        connection.close()
    else:
        harness.path.write_text(text)
    failed = harness.make()
    with pytest.raises(ConfigError):
        await failed.open()
    await failed.close()
    harness.path.unlink()
    await tell(await harness.open(), Told())


async def test_a_database_with_foreign_tables_of_our_names_is_a_configuration_error(
    harness: SqliteHarness,
) -> None:
    """Somebody's own database must be refused as what it is, and left as it was."""
    connection = sqlite3.connect(harness.path)
    connection.execute("CREATE TABLE run_logs (theirs TEXT)")
    connection.commit()
    connection.close()
    before = harness.read("SELECT name FROM sqlite_master")
    store = harness.make()
    with pytest.raises(ConfigError):
        await store.open()
    await store.close()
    assert harness.read("SELECT name FROM sqlite_master") == before


async def test_what_an_earlier_process_wrote_is_read_through_a_relative_name_too(
    harness: SqliteHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await harness.open()
    told = await begin(store, Told())
    await harness.abandon(store)
    monkeypatch.chdir(harness.path.parent)
    again = SqliteStore(f"sqlite:///{harness.path.name}")
    await again.open()
    assert await read_all(again, told.run.id) == told.entries
    await again.close()


# ------------------------------------------------------------------------------ searching


@pytest.fixture
def statements() -> Iterator[list[tuple[str, Any]]]:
    """Every statement that is run from now on, with its parameters."""
    run: list[tuple[str, Any]] = []

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement != "BEGIN":
            run.append((statement, parameters))

    event.listen(Engine, "before_cursor_execute", note)
    yield run
    event.remove(Engine, "before_cursor_execute", note)


@pytest.mark.parametrize("before", [None, (2**60, "z")])
async def test_a_search_is_one_statement_that_reads_the_owners_sessions_in_order(
    harness: SqliteHarness,
    statements: list[tuple[str, Any]],
    before: tuple[int, str] | None,
) -> None:
    store = await harness.open()
    for number in range(20):
        await tell(store, Told(question=f"kelp {number}"), TextDelta("a"))
    statements.clear()
    assert len(await store.list_sessions("ada", 10, before, query="kelp")) == 10
    ((statement, parameters),) = statements

    def explain() -> list[str]:
        connection = sqlite3.connect(harness.path)
        plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
        connection.close()
        return [row[3] for row in plan]

    plan = "\n".join(await asyncio.to_thread(explain))
    assert "sessions USING INDEX sessions_by_use (owner=?" in plan
    assert "messages USING INDEX messages_by_turn (session_id=?)" in plan
    assert "SCAN" not in plan
    assert "TEMP B-TREE" not in plan


async def test_a_read_that_fails_says_that_the_store_is_unavailable(
    harness: SqliteHarness,
) -> None:
    store = await harness.open()
    await tell(store, Told())

    def wreck() -> None:
        other = sqlite3.connect(harness.path)
        other.execute("DROP TABLE run_logs")
        other.close()

    await asyncio.to_thread(wreck)
    with pytest.raises(StoreUnavailable, match=r"chat\.db"):
        await store.read_log("some-run", 0)
