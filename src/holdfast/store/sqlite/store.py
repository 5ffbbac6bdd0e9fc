"""The store on SQLite: one process per file, one thread that writes, some that read."""

import asyncio
import fcntl
import os
import sqlite3
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from holdfast.errors import ConfigError, StoreLocked, StoreUnavailable
from holdfast.store import migrate, reads
from holdfast.store import statements as sql
from holdfast.store.port import LogPage, Write
from holdfast.store.record_store import RecordStore
from holdfast.store.sqlite.checkpoints import Checkpoints
from holdfast.store.sqlite.work_thread import WorkThread
from holdfast.store.sqlite.writer import JournalIndex, Writer

P = ParamSpec("P")
R = TypeVar("R")

READER_THREADS = 4
BUSY_TIMEOUT_MS = 250
"""Short: the group commit is what waits for a locked file, and it keeps its readers informed."""

CHECKPOINT_PAGES = 4_000
"""How long the write-ahead log may become before a commit sees to it that it begins anew."""


class SqliteStore(RecordStore):
    """See `Store`. All blocking work runs in threads of its own."""

    def __init__(self, url: str, *, synchronous: str = "full") -> None:
        """Name the file.

        Args:
            url: `sqlite:///relative/path.db`, `sqlite:////absolute/path.db`.
            synchronous: `full` survives the loss of power, `normal` only the death of the process.

        Raises:
            ConfigError: The URL names no file.
        """
        path = make_url(url).database
        if not path or path == ":memory:":
            raise ConfigError("storage.url must name a file, for example sqlite:///holdfast.db")
        self.path = Path(path).absolute()
        self._synchronous = synchronous
        self._index = JournalIndex()
        self._lock: int | None = None
        self._engine: Engine | None = None
        self._checkpoints: Checkpoints | None = None
        self._writing = WorkThread("holdfast-store-writer")
        self._reading = ThreadPoolExecutor(READER_THREADS, "holdfast-store-reader")

    async def open(self) -> None:
        """See `Store.open`. Creates the file and brings its schema up to date."""
        await self._writing.run(self._open)

    def _open(self) -> None:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Whatever name it goes by, the file is locked by its one real path.
            self.path = self.path.resolve()
            self._lock = _lock_file(self.path)
        except OSError as error:
            raise ConfigError(f"cannot use {self.path} as database: {error.strerror}") from None
        engine = create_engine(
            URL.create("sqlite", database=str(self.path)),
            connect_args={"check_same_thread": False, "timeout": BUSY_TIMEOUT_MS / 1000},
            pool_size=READER_THREADS + 1,
        )
        event.listen(engine, "connect", self._set_pragmas)
        event.listen(engine, "begin", _begin)
        self._engine = engine
        try:
            migrate.upgrade(engine)
            self._connection = _own_connection(engine)
            self._writer = Writer(self._connection, self._index)
            self._load_index()
            self._checkpoints = Checkpoints(_own_connection(engine))
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise _translate(error, self.path) from error

    def _set_pragmas(self, connection: sqlite3.Connection, record: object) -> None:
        connection.isolation_level = None  # transactions begin where we say so, schema changes too
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute(f"PRAGMA synchronous = {self._synchronous}")
        cursor.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    def _load_index(self) -> None:
        """Find the rows that an earlier process left; recovery ends their runs."""
        assert self._engine is not None
        with self._engine.begin() as connection:
            connection.execute(sql.DELETE_ENDED_JOURNAL)
            for row in connection.execute(sql.JOURNAL_ROWS).mappings():
                self._index.add(row["run_id"], row["last_seq"], row["id"])
                self._index.next_id = row["id"] + 1

    async def close(self) -> None:
        """See `Store.close`."""
        if not self._writing.closed:
            if self._checkpoints is not None:
                await self._checkpoints.close()
            await self._writing.run(self._close)
            self._writing.close()
        self._reading.shutdown()

    def _close(self) -> None:
        if self._engine is not None:
            if hasattr(self, "_connection"):
                self._connection.close()
            self._engine.dispose()
            self._engine = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def commit(self, writes: Sequence[Write]) -> list[Any]:
        """See `Store.commit`."""
        if self._writing.closed:
            raise StoreUnavailable("the store is closed")
        results: list[Any] = await self._writing.run(self._writer.commit, writes)
        if self._checkpoints is not None:
            self._checkpoints.committed()
        return results

    # ------------------------------------------------------------------ reads

    async def _read(
        self, read: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        def work() -> R:
            if self._engine is None:
                raise StoreUnavailable("the store is closed")
            try:
                with self._engine.connect() as connection:
                    return read(connection, *args, **kwargs)
            except DBAPIError as error:
                raise _translate(error, self.path) from error

        if self._writing.closed:
            raise StoreUnavailable("the store is closed")
        return await asyncio.get_running_loop().run_in_executor(self._reading, work)

    async def read_log(self, run_id: str, after: int, limit: int = 1000) -> LogPage | None:
        """See `Store.read_log`."""
        return await self._read(self._read_log, run_id, after, limit)

    def _read_log(
        self, connection: Connection, run_id: str, after: int, limit: int
    ) -> LogPage | None:
        rows = self._index.rows.get(run_id)
        if rows:
            last_seq = rows[-1][0]
            place = bisect_right(rows, after, key=_last_seq)
            end = bisect_left(rows, min(after + limit, last_seq), key=_last_seq) + 1
            ids = [row_id for _, row_id in rows[place:end]]
            entries = reads.journal_entries(connection, ids, after, limit)
            # Fewer than the index said: the run ended in between and its rows are gone.
            if len(entries) == max(0, min(limit, last_seq - after)):
                return LogPage(entries, ended=False, last_seq=last_seq)
        return reads.ended_log(connection, run_id, after, limit)


def _last_seq(row: tuple[int, int]) -> int:
    return row[0]


def _own_connection(engine: Engine) -> sqlite3.Connection:
    """A connection that readers do not share; whoever has it closes it."""
    pooled = engine.raw_connection()
    connection = pooled.driver_connection
    pooled.detach()
    assert isinstance(connection, sqlite3.Connection)
    return connection


def _begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN")


def _lock_file(path: Path) -> int:
    """Take the operating system's lock; it goes when the process dies, however it dies."""
    handle = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(handle, 32, 0).decode(errors="replace").strip()
        os.close(handle)
        by = f" by process {holder}" if holder.isdigit() else ""
        raise StoreLocked(
            f"{path} is already open{by}. A SQLite file serves one process at a time: stop the "
            "other one, or give this one a file of its own (several nodes need PostgreSQL)."
        ) from None
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
    return handle


def _translate(error: Exception, path: Path) -> Exception:
    cause = getattr(error, "orig", None) or error
    if isinstance(cause, sqlite3.DatabaseError) and "not a database" in str(cause):
        return ConfigError(f"{path} is not a SQLite database")
    return StoreUnavailable(f"the database {path.name} does not answer: {cause}")
