"""Writes on SQLite: a batch in, a transaction out. Runs in the store's one writer thread."""

import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any, Final

from holdfast.errors import HoldfastError, StoreError, StoreUnavailable
from holdfast.store import edits, runs
from holdfast.store import statements as sql
from holdfast.store.port import (
    Append,
    CreateRun,
    DeleteSession,
    FinishRun,
    Probe,
    Write,
)
from holdfast.store.reads import pack_log
from holdfast.store.rows import Row, kept, to_json
from holdfast.store.statements import Prepared

_NO_NODE: Final[Mapping[str, Any]] = {"node_id": None, "generation": None}

APPEND_ROWS = 64
"""How many rows one statement appends at most; the driver keeps one prepared for each number."""

DEAD_ROWS = 5_000
"""How many journal rows of ended runs may stay while other runs are live."""

PROBE_BYTES = 65_536
"""Large enough that a full disk or file has no room for it."""


class JournalIndex:
    """Where the rows of each live run are. Replaces an index in the database (see schema)."""

    def __init__(self) -> None:
        """Begin empty: every run of an earlier process is ended before this one writes."""
        self.rows: dict[str, list[tuple[int, int]]] = {}
        self.dead: list[int] = []
        self.next_id = 1

    def add(self, run_id: str, last_seq: int, row_id: int) -> None:
        """Note a committed row."""
        self.rows.setdefault(run_id, []).append((last_seq, row_id))

    def rows_of(self, runs: Sequence[str]) -> list[int]:
        """The rows of these runs."""
        return [row_id for run_id in runs for _, row_id in self.rows.get(run_id, ())]


class Writer:
    """Applies batches to the one connection that writes."""

    def __init__(self, connection: sqlite3.Connection, index: JournalIndex) -> None:
        """Take the connection; `index` is shared with the readers."""
        self._connection = connection
        self._index = index
        self._cursor = connection.cursor()
        self._added: list[tuple[str, int, int]] = []
        self._ended: list[str] = []

    def commit(self, writes: Sequence[Write]) -> list[Any]:
        """See `Store.commit`."""
        try:
            return self._transaction(writes)
        except sqlite3.OperationalError as error:
            raise StoreUnavailable(f"the database takes no writes: {error}") from error
        except Exception as error:
            if len(writes) == 1:
                return [StoreError(f"the database refused a write: {error}")]
        return [self._singly(write) for write in writes]

    def _singly(self, write: Write) -> Any:
        try:
            return self.commit([write])[0]
        except StoreUnavailable as error:
            return error

    def _transaction(self, writes: Sequence[Write]) -> list[Any]:
        self._added.clear()
        self._ended.clear()
        try:
            self._cursor.execute("BEGIN IMMEDIATE")
            results = self._apply(writes)
            dead = self._bury(writes) if self._ended else self._index.dead
            self._cursor.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._cursor.execute("ROLLBACK")
            raise
        self._index.dead = dead
        for run_id, last_seq, row_id in self._added:
            self._index.add(run_id, last_seq, row_id)
        for run_id in self._ended:
            self._index.rows.pop(run_id, None)
        return results

    def _apply(self, writes: Sequence[Write]) -> list[Any]:
        # Appends go first, all in one go: nothing in a batch can come before them but the
        # creation of their run, and then they are left for its place.
        results: list[Any] = [None] * len(writes)
        known = self._index.rows
        early = [w for w in writes if type(w) is Append and w.run_id in known]
        for start in range(0, len(early), APPEND_ROWS):
            self._append_rows(early[start : start + APPEND_ROWS])
        if len(early) == len(writes):
            return results
        for place, write in enumerate(writes):
            if type(write) is Append and write.run_id in known:
                continue
            try:
                results[place] = self._apply_one(write)
            except HoldfastError as refusal:
                results[place] = refusal
        return results

    def _append_to_new_run(self, write: Append) -> bool | None:
        """Append to a run of this batch; False if the run is not live (any more)."""
        if not any(run_id == write.run_id for run_id, _, _ in self._added):
            return False
        self._append_rows([write])
        return None

    def _apply_one(self, write: Write) -> Any:
        match write:
            case CreateRun():
                return runs.create_run(self, write)
            case Append():
                return self._append_to_new_run(write)
            case FinishRun():
                return runs.finish_run(self, write)
            case DeleteSession():
                runs.delete_session(self, write)
            case Probe(at):
                self._probe(at)
            case _:
                edits.apply(self, write)
        return None

    # ------------------------------------------------------------------ driver

    def _run(self, statement: Prepared, values: Mapping[str, Any]) -> sqlite3.Cursor:
        compiled = statement.sqlite
        return self._cursor.execute(compiled.sql, compiled.row(values))

    @property
    def node(self) -> Mapping[str, Any]:
        """See `Driver.node`: there is only one."""
        return _NO_NODE

    def change(self, statement: Prepared, values: Mapping[str, Any]) -> int:
        """See `Driver.change`."""
        return self._run(statement, values).rowcount

    def change_many(self, statement: Prepared, values: Sequence[Mapping[str, Any]]) -> None:
        """See `Driver.change_many`."""
        compiled = statement.sqlite
        self._cursor.executemany(compiled.sql, [compiled.row(row) for row in values])

    def rows(self, statement: Prepared, values: Mapping[str, Any]) -> list[Row]:
        """See `Driver.rows`."""
        cursor = self._run(statement, values)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def append(self, append: Append) -> None:
        """See `Driver.append`."""
        self._append_rows([append])

    def stored_log(self, run_id: str) -> bytes:
        """See `Driver.stored_log`."""
        ids = [row_id for _, row_id in self._index.rows.get(run_id, ())]
        ids += [row_id for added, _, row_id in self._added if added == run_id]
        rows = self._run(sql.JOURNAL_PAYLOADS_BY_JSON, {"p_ids": to_json(ids)})
        return b"".join([row[0] for row in rows.fetchall()])

    def pack(self, log: bytes) -> bytes:
        """See `Driver.pack`."""
        return pack_log(log)

    def forget_journal(self, run_id: str) -> None:
        """See `Driver.forget_journal`."""
        self._ended.append(run_id)

    # ------------------------------------------------------------------ journal

    def _append_rows(self, appends: Sequence[Append]) -> None:
        parameters: list[Any] = []
        row_id = self._index.next_id
        for append in appends:
            parameters += (
                row_id,
                append.run_id,
                append.first_seq,
                append.last_seq,
                append.payload,
            )
            self._added.append((append.run_id, append.last_seq, row_id))
            row_id += 1
            if append.request is not None:
                request = {"p_id": append.run_id, "p_request": kept(append.request)}
                self.change(sql.KEEP_REQUEST, request)
        self._cursor.execute(sql.append_sql(len(appends)), parameters)
        self._index.next_id = row_id

    def _bury(self, writes: Sequence[Write]) -> list[int]:
        """Count the rows of runs that end here among the dead ones; give those that stay."""
        dead = self._index.dead + self._index.rows_of(self._ended)
        dead += [row_id for run_id, _, row_id in self._added if run_id in self._ended]
        return self._purge(dead, any(isinstance(write, DeleteSession) for write in writes))

    def _purge(self, dead: list[int], at_once: bool) -> list[int]:
        """Delete rows of ended runs: all when no run is live, else once many have gathered.

        Run by run would touch every page that a run shared with its neighbours.

        Returns:
            The dead rows that stay.
        """
        if not dead:
            return dead
        live = {run_id for run_id, _, _ in self._added} | self._index.rows.keys()
        if live <= set(self._ended):
            self._run(sql.DELETE_JOURNAL, {})
        elif at_once or len(dead) >= DEAD_ROWS:
            for first, last in _ranges(sorted(dead)):
                self._run(sql.DELETE_JOURNAL_ROWS, {"p_first": first, "p_last": last})
        else:
            return dead
        return []

    def _probe(self, at: int) -> None:
        self._append_rows([Append("", at, at, bytes(PROBE_BYTES))])
        self._run(sql.DELETE_RUN_JOURNAL, {"p_run_id": ""})
        self._added.pop()


def _ranges(ids: Sequence[int]) -> list[tuple[int, int]]:
    """Neighbouring ids as (first, last)."""
    ranges: list[tuple[int, int]] = []
    for row_id in ids:
        if ranges and ranges[-1][1] == row_id - 1:
            ranges[-1] = (ranges[-1][0], row_id)
        else:
            ranges.append((row_id, row_id))
    return ranges
