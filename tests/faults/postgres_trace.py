"""What the connection that commits to PostgreSQL is asked to do, statement by statement."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import patch

import asyncpg

from holdfast.store.postgres.writer import PostgresWriter

Trace = Callable[[str], None]


class TracedConnection:
    """Tells of each statement before it is sent; one that stands alone is a transaction, too."""

    def __init__(self, connection: asyncpg.Connection, trace: Trace) -> None:
        self._connection = connection
        self._trace = trace
        self._inside = False

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        await self._say("BEGIN")
        self._inside = True
        try:
            yield
        except BaseException:
            await self._say("ROLLBACK")
            raise
        else:
            await self._say("COMMIT")
        finally:
            self._inside = False

    async def _say(self, sql: str) -> None:
        self._trace(sql)
        await self._connection.execute(sql)

    def __getattr__(self, name: str) -> Any:
        """`execute`, `executemany`, `fetch`, `fetchrow`, `fetchval`."""
        method = getattr(self._connection, name)

        async def traced(sql: str, *values: Any) -> Any:
            if self._inside:
                self._trace(sql)
                return await method(sql, *values)
            self._trace("BEGIN")
            self._trace(sql)
            answer = await method(sql, *values)
            self._trace("COMMIT")
            return answer

        return traced


def trace_postgres(tracer: Callable[[], Trace]) -> None:
    """Put a traced connection into every writer from now on."""
    make = PostgresWriter.__init__

    def making(writer: PostgresWriter, connection: Any, *claim: Any) -> None:
        make(writer, TracedConnection(connection, tracer()), *claim)

    patch.object(PostgresWriter, "__init__", making).start()
