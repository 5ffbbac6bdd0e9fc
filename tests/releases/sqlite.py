"""Recording and repeating what is said to SQLite."""

import itertools
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from unittest.mock import patch

from tests.releases.recording import Said, is_recorded

Steps = list[Said | None]


class _Cursor(sqlite3.Cursor):
    def execute(self, sql: str, values: Any = ()) -> Self:
        rows = None
        if sql.lstrip().startswith("SELECT"):  # reading twice changes nothing
            rows = list(map(list, sqlite3.Cursor(self.connection).execute(sql, values)))
        super().execute(sql, values)
        self._note(sql, list(values), rows, many=False)
        return self

    def executemany(self, sql: str, values: Any) -> Self:
        given = [list(row) for row in values]
        super().executemany(sql, given)
        self._note(sql, given, None, many=True)
        return self

    def _note(self, sql: str, values: Any, rows: Any, *, many: bool) -> None:
        if is_recorded(sql):
            assert isinstance(self.connection, _Connection)
            said = Said(self.connection.number, sql, values, many, rows, self.rowcount)
            self.connection.steps.append(said)


class _Connection(sqlite3.Connection):
    number: int
    steps: Steps

    def cursor(self, *_: Any) -> Any:
        return super().cursor(_Cursor)

    def execute(self, sql: str, values: Any = ()) -> Any:
        return self.cursor().execute(sql, values)

    def commit(self) -> None:
        if self.in_transaction:
            self.execute("COMMIT")

    def rollback(self) -> None:
        if self.in_transaction:
            self.execute("ROLLBACK")


@contextmanager
def recorded() -> Iterator[Steps]:
    """Note what is said on every connection that is made in the block."""
    steps: Steps = []
    numbers = itertools.count()
    connect = sqlite3.dbapi2.connect

    def connecting(*arguments: Any, **options: Any) -> _Connection:
        made: _Connection = connect(*arguments, **{**options, "factory": _Connection})
        made.number, made.steps = next(numbers), steps
        return made

    with patch.object(sqlite3.dbapi2, "connect", connecting):
        yield steps


def repeat(path: Path, said: Sequence[Said]) -> Iterator[tuple[Said, Any]]:
    """Say it all again; each statement with what its answer is now."""
    connections: dict[int, sqlite3.Connection] = {}
    try:
        for one in said:
            if one.connection not in connections:
                connections[one.connection] = _connect(path)
            yield one, _answer(connections[one.connection], one)
    finally:
        for connection in connections.values():
            connection.close()


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def _answer(connection: sqlite3.Connection, said: Said) -> Any:
    if said.many:
        return connection.executemany(said.sql, said.values).rowcount
    cursor = connection.execute(said.sql, said.values)
    if said.rows is None:
        return cursor.rowcount
    return list(map(list, cursor))
