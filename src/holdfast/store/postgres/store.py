"""The store on PostgreSQL, for many nodes.

Three kinds of connections: one that commits, one for heartbeats and hints (`postgres.control`),
and a pool for reading.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Concatenate, Final, ParamSpec, TypeVar
from weakref import WeakSet

import asyncpg
from sqlalchemy import Connection, event
from sqlalchemy.exc import DBAPIError, DisconnectionError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from holdfast import ids
from holdfast.errors import Fenced, HoldfastError, StoreError, StoreUnavailable
from holdfast.events import Entry, split_log
from holdfast.store import migrate, reads
from holdfast.store.port import Append, LogPage, RunRecord, Write
from holdfast.store.postgres import statements as sql
from holdfast.store.postgres.control import Control
from holdfast.store.postgres.link import FAILURES, Link, deadline, is_passing
from holdfast.store.postgres.writer import LARGE_LOG, PostgresWriter
from holdfast.store.record_store import RecordStore
from holdfast.store.shared import OnGap, OnHint, SharedStore

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

COMMIT_TIMEOUT_S: Final = 15.0
READ_TIMEOUT_S: Final = 15.0
_GONE: Final = (
    asyncpg.ConnectionDoesNotExistError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
"""A pooled connection had broken, which showed when it was used: each try finds one less."""
RACES: Final = 3
"""How often a write is tried that another node came before."""


class PostgresStore(RecordStore, SharedStore):
    """See `SharedStore`. Every process is a node of its own."""

    def __init__(self, url: str, *, lease_s: float = 8.0, read_connections: int = 8) -> None:
        """Name the database.

        Args:
            url: `postgresql://user:password@host:port/database`.
            lease_s: How long this node's claim lasts without a heartbeat.
            read_connections: How many connections there may be for reading.

        Raises:
            ConfigError: The URL names none.
        """
        self.node_id = ids.new_id()
        self._link = Link(url)
        self._lease_ms = round(lease_s * 1000)
        self._control = Control(self._link, self.node_id, self._lease_ms)
        self._generation: int | None = None
        self._writing = asyncio.Lock()
        self._commits: asyncpg.Connection | None = None
        self._unsure: dict[int, Write] = {}
        self._read_connections = read_connections
        self._engine: AsyncEngine | None = None
        self._readers: WeakSet[asyncpg.Connection] = WeakSet()

    # ------------------------------------------------------------------ life

    async def open(self) -> None:
        """See `Store.open`. Brings the schema up to date, one node at a time."""
        engine = create_async_engine(
            "postgresql+asyncpg://",
            async_creator=self._connect_to_read,
            isolation_level="AUTOCOMMIT",
            pool_size=self._read_connections,
            max_overflow=0,
            pool_timeout=READ_TIMEOUT_S,
        )
        event.listen(engine.sync_engine, "checkout", _refuse_closed)
        try:
            connection = await self._link.connect("migration", statement_timeout="0")
            await connection.close()
            migrating = engine.execution_options(isolation_level="READ COMMITTED")
            async with migrating.begin() as migration:
                await migration.run_sync(migrate.upgrade_shared)
        except (*FAILURES, SQLAlchemyError) as error:
            await engine.dispose()
            raise self._link.translate(error, opening=True) from error
        except BaseException:
            await engine.dispose()
            raise
        self._engine = engine

    async def _connect_to_read(self) -> asyncpg.Connection:
        connection = await self._link.connect(f"read {self.node_id}")
        self._readers.add(connection)
        return connection

    async def close(self) -> None:
        """See `Store.close`. The lease is given back by `leave`, not here."""
        await self._control.close()
        async with self._writing:
            self._hang_up()
        engine, self._engine = self._engine, None
        for connection in tuple(self._readers):
            connection.terminate()  # the pool would wait for a server that may be silent
        if engine is not None:
            await engine.dispose()

    # ------------------------------------------------------------------ writes

    async def commit(self, writes: Sequence[Write]) -> list[Any]:
        """See `Store.commit`."""
        async with self._writing:
            generation = self._generation
            try:
                writer = await self._writer()
                until = asyncio.get_running_loop().time() + COMMIT_TIMEOUT_S
                with deadline(writer.connection, until):
                    results = await self._commit(writer, writes)
            except Fenced:
                if self._generation == generation:  # else this node has joined anew by now
                    self._generation = None
                self._control.tell_gap()
                raise
            except FAILURES as error:
                raise self._failed(writes, error) from error
            except asyncio.CancelledError:
                self._hang_up()
                raise
        self._unsure.clear()
        return results

    async def _commit(self, writer: PostgresWriter, writes: Sequence[Write]) -> list[Any]:
        try:
            if all(type(write) is Append for write in writes):
                return await writer.append(writes)  # type: ignore[arg-type]
            return await writer.apply(writes, self._unsure)
        except Exception as error:
            if not _may_go_singly(error):
                raise
        return [await self._singly(writer, write) for write in writes]

    async def _singly(self, writer: PostgresWriter, write: Write) -> Any:
        """One write in a transaction of its own, again if another node came before it."""
        for _ in range(RACES):
            try:
                return (await writer.apply([write], self._unsure))[0]
            except Exception as error:
                if not _may_go_singly(error):
                    raise
                failure = error
        if is_passing(failure):
            raise failure
        return StoreError(f"the database refused a write: {failure}")

    async def _writer(self) -> PostgresWriter:
        if self._engine is None:
            raise StoreUnavailable("the store is closed")
        if self._generation is None:
            raise Fenced("this node has not joined yet; it does in a moment")
        if self._commits is None or self._commits.is_closed():
            self._commits = await self._link.connect(
                f"commit {self.node_id}", synchronous_commit="on"
            )
        return PostgresWriter(self._commits, self.node_id, self._generation)

    def _failed(self, writes: Sequence[Write], error: BaseException) -> Exception:
        """Nobody knows whether the batch was written: note that, should it come again."""
        failure = self._link.translate(error)
        if self._commits is not None and isinstance(failure, StoreUnavailable):
            failure.uncertain = True
        self._hang_up()
        self._unsure |= {id(write): write for write in writes}
        return failure

    def _hang_up(self) -> None:
        if self._commits is not None:
            self._commits.terminate()
            self._commits = None

    # ------------------------------------------------------------------ the node

    async def join(self) -> int:
        """See `SharedStore.join`."""
        self._generation, now = await self._control.begin()
        return now

    async def beat(self) -> int:
        """See `SharedStore.beat`."""
        if self._generation is None:
            raise Fenced("this node has not joined")
        try:
            return await self._control.beat(self._generation)
        except Fenced:
            self._generation = None
            raise

    async def leave(self) -> None:
        """See `SharedStore.leave`."""
        generation, self._generation = self._generation, None
        if generation is not None:
            await self._control.end(generation)

    async def reap(self) -> int:
        """See `SharedStore.reap`."""
        return await self._control.reap()

    async def orphans(self) -> list[tuple[RunRecord, bool]]:
        """See `SharedStore.orphans`."""
        return await self._read(reads.orphans)

    async def sweep(self) -> None:
        """See `SharedStore.sweep`."""
        await self._fetch(sql.FORGET_STRAYS)

    async def own_runs(self) -> list[tuple[RunRecord, bool]]:
        """See `SharedStore.own_runs`."""
        if self._generation is None:
            return []
        return await self._read(reads.own_runs, self.node_id, self._generation)

    async def node_of(self, run_id: str) -> str | None:
        """See `SharedStore.node_of`."""
        rows = await self._fetch(sql.NODE_OF, run_id)
        return rows[0][0] if rows else None

    def listen(self, on_hint: OnHint, on_gap: OnGap) -> None:
        """See `SharedStore.listen`."""
        self._control.listen(on_hint, on_gap)

    def send_hint(self, node_id: str, hint: str) -> None:
        """See `SharedStore.send_hint`."""
        self._control.send(node_id, hint)

    # ------------------------------------------------------------------ reads

    @asynccontextmanager
    async def _reading(self) -> AsyncGenerator[AsyncConnection, None]:
        if self._engine is None:
            raise StoreUnavailable("the store is closed")
        try:
            async with asyncio.timeout(READ_TIMEOUT_S), self._engine.connect() as connection:
                yield connection
        except (*FAILURES, SQLAlchemyError) as error:
            raise self._link.translate(error) from error

    async def _read(
        self, read: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        for _ in range(self._read_connections + 1):
            try:
                async with self._reading() as connection:
                    return await connection.run_sync(read, *args, **kwargs)
            except StoreUnavailable as error:
                failure = error
                if not _was_disconnected(error):
                    break
        raise failure

    async def _fetch(self, statement: str, *values: Any) -> list[asyncpg.Record]:
        for _ in range(self._read_connections + 1):
            try:
                async with self._reading() as connection:
                    raw = await connection.get_raw_connection()
                    driver = raw.driver_connection
                    assert driver is not None
                    try:
                        rows: list[asyncpg.Record] = await driver.fetch(statement, *values)
                    except FAILURES:
                        await connection.invalidate()
                        raise
                    return rows
            except StoreUnavailable as error:
                failure = error
                if not _was_disconnected(error):
                    break
        raise failure

    async def read_log(self, run_id: str, after: int, limit: int = 1000) -> LogPage | None:
        """See `Store.read_log`."""
        rows = await self._fetch(sql.READ_JOURNAL, run_id, after, limit)
        entries: list[Entry] = []
        for row in rows:
            entries += split_log(row["payload"], row["first_seq"], after, limit - len(entries))
        last_seq = (await self._fetch(sql.LAST_SEQ, run_id))[0][0]
        if last_seq is not None:
            return LogPage(entries, ended=False, last_seq=last_seq)
        # Not live, or not any more: whatever was found, its log has all of it.
        row = await self._read(reads.stored_log, run_id)
        if row is None:
            return None
        if len(row["payload"]) < LARGE_LOG:
            return reads.log_page(row, after, limit)
        return await asyncio.to_thread(reads.log_page, row, after, limit)

    async def read_news(self, cursors: Mapping[str, int]) -> Mapping[str, list[Entry]]:
        """See `SharedStore.read_news`."""
        news: dict[str, list[Entry]] = {}
        for row in await self._fetch(sql.READ_NEWS, list(cursors), list(cursors.values())):
            news.setdefault(row["run_id"], []).extend(split_log(row["payload"], row["first_seq"]))
        return news

    async def not_live(self, run_ids: Sequence[str]) -> set[str]:
        """See `SharedStore.not_live`."""
        return {row[0] for row in await self._fetch(sql.NOT_LIVE, run_ids)}


def _may_go_singly(error: Exception) -> bool:
    """Whether nothing was written, and the writes of a batch may have more luck one by one."""
    if isinstance(error, asyncpg.TransactionRollbackError):  # such as a deadlock with a node
        return True
    return not isinstance(error, HoldfastError) and not is_passing(error)


def _refuse_closed(connection: Any, record: object, proxy: object) -> None:
    """After a restart of the database every pooled connection is closed: take a new one."""
    if connection.driver_connection.is_closed():
        raise DisconnectionError


def _was_disconnected(error: StoreUnavailable) -> bool:
    cause = error.__cause__
    return isinstance(cause, _GONE) or (
        isinstance(cause, DBAPIError) and cause.connection_invalidated
    )
