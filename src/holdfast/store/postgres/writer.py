"""Writes on PostgreSQL: a batch in, a transaction out, under this node's generation.

A batch of nothing but journal rows, which is what nearly every commit is, is one statement; so
even a process that is stopped in the middle of it leaves no transaction open.
"""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Final

import asyncpg
from sqlalchemy.util import await_only, greenlet_spawn

from holdfast.errors import Fenced, HoldfastError
from holdfast.store import edits, runs
from holdfast.store.kept_text import escape, unescape
from holdfast.store.port import (
    Append,
    CreateRun,
    DeleteSession,
    FinishRun,
    Probe,
    RunCreated,
    Write,
)
from holdfast.store.postgres import statements as sql
from holdfast.store.reads import pack_log
from holdfast.store.rows import Row, kept
from holdfast.store.statements import Prepared

PROBE_BYTES: Final = 65_536
LARGE_LOG: Final = 32_768
"""Bytes from which on a log is packed in a thread, so that the loop does not wait."""


class PostgresWriter:
    """Applies batches on one connection. It is a `Driver`, for use within `apply`."""

    def __init__(self, connection: asyncpg.Connection, node_id: str, generation: int) -> None:
        """Write as this node, under this generation."""
        self.connection = connection
        self._claim = (node_id, generation)

    # ------------------------------------------------------------------ batches

    async def append(self, appends: Sequence[Append]) -> list[Any]:
        """Apply a batch of appends in one statement.

        Raises:
            Fenced: The generation is not current any more.
        """
        given = (
            [write.run_id for write in appends],
            [write.first_seq for write in appends],
            [write.last_seq for write in appends],
        )
        statement, arguments = sql.APPEND, [*given, [write.payload for write in appends]]
        asked = [write for write in appends if write.request is not None]
        if asked:
            statement = sql.APPEND_WITH_REQUESTS
            arguments.append([write.run_id for write in asked])
            arguments.append([escape(kept(write.request) or "") for write in asked])
        claims, added = await self.connection.fetchrow(statement, *self._claim, *arguments)
        if not claims:
            raise _fenced()
        if added == len(appends):
            return [None] * len(appends)
        rows = await self.connection.fetch(sql.APPENDED, *self._claim, *given)
        stored = {row[0] for row in rows}
        return [None if write.run_id in stored else False for write in appends]

    async def apply(self, writes: Sequence[Write], retried: Mapping[int, Write]) -> list[Any]:
        """Apply any batch in one transaction.

        Args:
            writes: The batch.
            retried: Those that may have been applied before, by their identity.

        Raises:
            Fenced: The generation is not current any more.
        """
        async with self.connection.transaction():
            if not await self.connection.fetchval(sql.CLAIM, *self._claim):
                raise _fenced()
            created = {write.run.id for write in writes if isinstance(write, CreateRun)}
            early = [
                write
                for write in writes
                if isinstance(write, Append) and write.run_id not in created
            ]
            told = dict(zip(map(id, early), await self.append(early), strict=True)) if early else {}
            return [
                told[id(write)]
                if id(write) in told
                else await self._one(write, id(write) in retried)
                for write in writes
            ]

    async def _one(self, write: Write, retried: bool) -> Any:
        if isinstance(write, Append):
            return (await self.append([write]))[0]
        if retried and isinstance(write, CreateRun):
            created = (write.run.id,)
            if await self.connection.fetchval(sql.CREATED_BEFORE, *self._claim, *created):
                return RunCreated(write.run, replayed=False)
        try:
            result = await greenlet_spawn(_apply, _Driver(self.connection, self._claim), write)
        except HoldfastError as refusal:
            return refusal
        if result is False and retried and isinstance(write, FinishRun):
            ended = (write.run_id, write.append.last_seq)
            return bool(await self.connection.fetchval(sql.ENDED_BEFORE, *self._claim, *ended))
        return result


def _fenced() -> Fenced:
    return Fenced("this node's lease ran out; it begins anew in a moment")


def _apply(driver: "_Driver", write: Write) -> Any:
    match write:
        case CreateRun():
            return runs.create_run(driver, write)
        case FinishRun():
            return runs.finish_run(driver, write)
        case DeleteSession():
            return runs.delete_session(driver, write)
        case Probe(at):
            driver.append(Append("", at, at, bytes(PROBE_BYTES)))
            return driver.forget_journal("")
        case Append():
            raise AssertionError("appends have a statement of their own")
        case _:
            return edits.apply(driver, write)


class _Driver:
    """See `Driver`. Its methods look synchronous; they let the loop go on while they wait."""

    def __init__(self, connection: asyncpg.Connection, claim: tuple[str, int]) -> None:
        self._connection = connection
        self.node: Mapping[str, Any] = {"node_id": claim[0], "generation": claim[1]}

    def _execute(self, statement: str, *values: Any) -> int:
        status: str = await_only(self._connection.execute(statement, *values))
        return int(status.rpartition(" ")[2])

    def change(self, statement: Prepared, values: Mapping[str, Any]) -> int:
        return self._execute(statement.postgres.sql, *_escaped(statement.postgres.row(values)))

    def change_many(self, statement: Prepared, values: Sequence[Mapping[str, Any]]) -> None:
        compiled = statement.postgres
        rows = [_escaped(compiled.row(row)) for row in values]
        await_only(self._connection.executemany(compiled.sql, rows))

    def rows(self, statement: Prepared, values: Mapping[str, Any]) -> list[Row]:
        compiled = statement.postgres
        found = await_only(self._connection.fetch(compiled.sql, *_escaped(compiled.row(values))))
        return [{name: _unescaped(value) for name, value in row.items()} for row in found]

    def append(self, append: Append) -> None:
        row = (append.run_id, append.first_seq, append.last_seq, append.payload)
        self._execute(sql.INSERT_JOURNAL, *row)

    def stored_log(self, run_id: str) -> bytes:
        rows = await_only(self._connection.fetch(sql.STORED_LOG, run_id))
        return b"".join([row[0] for row in rows])

    def pack(self, log: bytes) -> bytes:
        if len(log) < LARGE_LOG:
            return pack_log(log)
        return await_only(asyncio.to_thread(pack_log, log))

    def forget_journal(self, run_id: str) -> None:
        self._execute(sql.FORGET_JOURNAL, run_id)


def _escaped(values: Sequence[Any]) -> list[Any]:
    return [escape(value) if type(value) is str else value for value in values]


def _unescaped(value: Any) -> Any:
    return unescape(value) if type(value) is str else value
