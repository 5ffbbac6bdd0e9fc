"""What a contract test needs of a store besides its port: making it, losing it, looking inside.

A harness stands for one database. `open` gives a store on it; `abandon` lets a store go as the
death of its process would; `rows` counts what is in a table, so that nothing can hide.
"""

import asyncio
import contextlib
import sqlite3
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Final, Literal

from holdfast.store.port import Store
from holdfast.store.postgres import PostgresStore
from holdfast.store.sqlite import SqliteStore
from tests.support.postgres import fetch_sql

GIVE_UP_S = 20.0
POLL_S = 0.02

TABLES = (
    "sessions",
    "conversations",
    "messages",
    "message_references",
    "runs",
    "journal",
    "run_logs",
    "api_keys",
)


class StoreHarness(ABC):
    """One empty database of one kind."""

    def __init__(self) -> None:
        self._open: list[Store] = []

    @abstractmethod
    def make(self) -> Store:
        """A store on this database that is not opened yet."""

    @abstractmethod
    async def rows(self, table: str) -> list[dict[str, Any]]:
        """All rows of a table, read past the store."""

    @abstractmethod
    async def change(self, sql: str) -> None:
        """Change something past the store."""

    async def open(self) -> Store:
        """An opened store; it is closed with the test."""
        store = self.make()
        self._open.append(store)
        await store.open()
        return store

    async def abandon(self, store: Store) -> None:
        """Let go of a store without ending anything, as a killed process does."""
        self._open.remove(store)
        await store.close()

    async def reopen(self, store: Store) -> Store:
        """A new store on the same database, after the death of the process that had `store`."""
        await self.abandon(store)
        return await self.open()

    async def counts(self) -> dict[str, int]:
        """How many rows each table has."""
        return {table: len(await self.rows(table)) for table in TABLES}

    async def text(self) -> str:
        """Everything that is stored, to search for what must not be there."""
        return repr([await self.rows(table) for table in TABLES])

    async def close(self) -> None:
        """Close what the test left open."""
        for store in self._open:
            await store.close()


class SqliteHarness(StoreHarness):
    """A file in a folder of the test's own."""

    def __init__(self, folder: Path, synchronous: Literal["full", "normal"] = "normal") -> None:
        """Use a file in `folder`. `normal` spares the tests a disk flush per commit."""
        super().__init__()
        self.path = folder / "chat.db"
        self._synchronous = synchronous

    def make(self) -> SqliteStore:
        return SqliteStore(f"sqlite:///{self.path}", synchronous=self._synchronous)

    async def rows(self, table: str) -> list[dict[str, Any]]:
        return await asyncio.to_thread(self.read, f"SELECT * FROM {table}")

    async def change(self, sql: str) -> None:
        connection = sqlite3.connect(self.path)
        with contextlib.closing(connection), connection:
            connection.execute(sql)

    def read(self, sql: str) -> list[dict[str, Any]]:
        """The rows of a query, on a connection of its own."""
        connection = sqlite3.connect(self.path)
        try:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(sql)]
        finally:
            connection.close()


class PostgresHarness(StoreHarness):
    """A database of the test's own. Every store on it is a node."""

    LEASE_S: Final = 600.0
    """No node loses its lease because a test is slow; one that is dead loses it at once."""

    def __init__(self, url: str) -> None:
        """Use the database `url`."""
        super().__init__()
        self.url = url

    def make(self) -> PostgresStore:
        return PostgresStore(self.url, lease_s=self.LEASE_S)

    async def open(self) -> PostgresStore:
        """An opened store that may write, and to which the nodes before it are dead."""
        store = self.make()
        self._open.append(store)
        await store.open()
        await store.join()
        await store.reap()
        return store

    async def abandon(self, store: Store) -> None:
        await super().abandon(store)
        assert isinstance(store, PostgresStore)
        await self.expire(store.node_id)

    async def expire(self, node_id: str) -> None:
        """Let a node's lease be over, as if it had been silent for long."""
        over = "UPDATE node_heartbeats SET beat_at = 0, lease_ms = 0 WHERE node_id = $1"
        await self.read(over, node_id)

    async def rows(self, table: str) -> list[dict[str, Any]]:
        return await self.read(f"SELECT * FROM {table}")

    async def change(self, sql: str) -> None:
        await self.read(sql)

    async def read(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        """The rows of a query, on a connection of its own."""
        return await fetch_sql(self.url, sql, *values)

    async def until_blocked(self, count: int) -> None:
        """Wait until so many connections wait for locks."""
        waiting = (
            "SELECT pid FROM pg_stat_activity"
            " WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        async with asyncio.timeout(GIVE_UP_S):
            while len(await self.read(waiting)) < count:  # noqa: ASYNC110
                await asyncio.sleep(POLL_S)

    async def cut(self, application_name: str) -> None:
        """End the connections of this name."""
        cut = (
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND application_name = $1"
        )
        assert await self.read(cut, application_name)
