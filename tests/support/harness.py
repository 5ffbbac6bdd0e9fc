"""What a contract test needs of a store besides its port: making it, losing it, looking inside.

A harness stands for one database. `open` gives a store on it; `abandon` lets a store go as the
death of its process would; `rows` counts what is in a table, so that nothing can hide.
"""

import asyncio
import sqlite3
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Literal

from holdfast.store.port import Store
from holdfast.store.sqlite import SqliteStore

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

    def read(self, sql: str) -> list[dict[str, Any]]:
        """The rows of a query, on a connection of its own."""
        connection = sqlite3.connect(self.path)
        try:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(sql)]
        finally:
            connection.close()
