"""Recording and repeating what is said to PostgreSQL."""

import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any
from unittest.mock import patch

import asyncpg

from tests.releases.recording import Said, is_recorded

Steps = list[Said | None]


class _Statement:
    """A prepared statement that notes what it is asked and what it finds."""

    def __init__(self, statement: Any, connection: "_Connection", sql: str) -> None:
        self._statement, self._connection, self._sql = statement, connection, sql

    def __getattr__(self, name: str) -> Any:
        return getattr(self._statement, name)

    async def fetch(self, *values: Any, **options: Any) -> Any:
        rows = await self._statement.fetch(*values, **options)
        changed = self._statement.get_statusmsg()
        found = None if not self._statement.get_attributes() else rows
        self._connection.note(self._sql, values, found, changed)
        return rows


class _Connection(asyncpg.Connection):  # type: ignore[misc]
    steps: Steps
    numbers: Iterator[int]

    def note(
        self, sql: str, values: Any, rows: Any, status: str = "", *, many: bool = False
    ) -> None:
        if not is_recorded(sql):
            return
        if not hasattr(self, "number"):
            self.number = next(self.numbers)
        found = None if rows is None else [list(row) for row in rows]
        given = [list(row) for row in values] if many else list(values)
        self.steps.append(Said(self.number, sql, given, many, found, _count(status)))

    async def execute(self, sql: str, *values: Any, **options: Any) -> str:
        status: str = await super().execute(sql, *values, **options)
        self.note(sql, values, None, status)
        return status

    async def executemany(self, sql: str, values: Any, **options: Any) -> None:
        given = list(values)
        await super().executemany(sql, given, **options)
        self.note(sql, given, None, many=True)

    async def fetch(self, sql: str, *values: Any, **options: Any) -> Any:
        rows = await super().fetch(sql, *values, **options)
        self.note(sql, values, rows)
        return rows

    async def fetchrow(self, sql: str, *values: Any, **options: Any) -> Any:
        row = await super().fetchrow(sql, *values, **options)
        self.note(sql, values, [] if row is None else [row])
        return row

    async def fetchval(self, sql: str, *values: Any, **options: Any) -> Any:
        row = await self.fetchrow(sql, *values, **options)
        return None if row is None else row[0]

    async def prepare(self, sql: str, **options: Any) -> Any:
        return _Statement(await super().prepare(sql, **options), self, sql)


def _count(status: str) -> int:
    """How many rows a statement changed, as its status says."""
    last = status.rpartition(" ")[2]
    return int(last) if last.isdigit() else -1


@contextmanager
def recorded() -> Iterator[Steps]:
    """Note what is said on every connection that is made in the block."""
    steps: Steps = []
    connect = asyncpg.connect
    kind = type("Recorded", (_Connection,), {"steps": steps, "numbers": itertools.count()})

    async def connecting(*arguments: Any, **options: Any) -> asyncpg.Connection:
        return await connect(*arguments, **options, connection_class=kind)

    with patch.object(asyncpg, "connect", connecting):
        yield steps


async def repeat(url: str, said: Sequence[Said]) -> AsyncIterator[tuple[Said, Any]]:
    """Say it all again; each statement with what its answer is now."""
    connections: dict[int, asyncpg.Connection] = {}
    async with AsyncExitStack() as stack:
        for one in said:
            if one.connection not in connections:
                connection = await stack.enter_async_context(_connected(url))
                connections[one.connection] = connection
            yield one, await _answer(connections[one.connection], one)


@asynccontextmanager
async def _connected(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def _answer(connection: asyncpg.Connection, said: Said) -> Any:
    if said.many:
        await connection.executemany(said.sql, said.values)
        return said.changed
    if said.rows is None:
        return _count(await connection.execute(said.sql, *said.values))
    return [list(row) for row in await connection.fetch(said.sql, *said.values)]
