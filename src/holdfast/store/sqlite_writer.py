"""Writes on SQLite: a batch in, a transaction out. Runs in the store's one writer thread."""

import sqlite3
from collections.abc import Sequence
from typing import Any

from holdfast.errors import (
    HoldfastError,
    IdempotencyMismatch,
    NotFound,
    RunActive,
    StoreError,
    StoreUnavailable,
)
from holdfast.store import edits
from holdfast.store import statements as sql
from holdfast.store.port import (
    Append,
    CreateRun,
    DeleteSession,
    FinishRun,
    Probe,
    RunCreated,
    RunRecord,
    Write,
)
from holdfast.store.reads import pack_log
from holdfast.store.rows import Row, finish_rows, kept, run_record, session_row, to_json
from holdfast.store.statements import Prepared

APPEND_ROWS = (64, 16, 4, 1)
"""Row counts for which an append statement is kept prepared, largest first."""

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
        self._append_sql = {rows: sql.append_sql(rows) for rows in APPEND_ROWS}
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
            dead = self._index.dead + self._index.rows_of(self._ended)
            dead += [row_id for run_id, _, row_id in self._added if run_id in self._ended]
            dead = self._purge(dead, any(isinstance(write, DeleteSession) for write in writes))
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
        self._append(early)
        for append in early:
            self._keep_request(append)
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
        self._keep_request(write)
        return None

    def _keep_request(self, write: Append) -> None:
        if write.request is not None:
            self._run(sql.KEEP_REQUEST, p_id=write.run_id, p_request=kept(write.request))

    def _apply_one(self, write: Write) -> Any:
        match write:
            case CreateRun():
                return self._create_run(write)
            case Append():
                return self._append_to_new_run(write)
            case FinishRun():
                return self._finish_run(write)
            case DeleteSession():
                self._delete_session(write)
            case Probe(at):
                self._probe(at)
            case _:
                edits.apply(self, write)
        return None

    # ------------------------------------------------------------------ driver

    def _run(self, statement: Prepared, **values: Any) -> sqlite3.Cursor:
        return self._cursor.execute(statement.sql, statement.row(values))

    def _insert(self, statement: Prepared, values: dict[str, Any]) -> None:
        self._cursor.execute(statement.sql, statement.row(values))

    def change(self, statement: Prepared, **values: Any) -> int:
        """See `edits.Driver`."""
        return self._run(statement, **values).rowcount

    def rows(self, statement: Prepared, **values: Any) -> list[Row]:
        """See `edits.Driver`."""
        cursor = self._run(statement, **values)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    # ------------------------------------------------------------------ journal

    def _append(self, appends: Sequence[Append]) -> None:
        start = 0
        for rows in APPEND_ROWS:
            while len(appends) - start >= rows:
                self._append_rows(appends[start : start + rows])
                start += rows

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
        self._cursor.execute(self._append_sql[len(appends)], parameters)
        self._index.next_id = row_id

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
            self._run(sql.DELETE_JOURNAL)
        elif at_once or len(dead) >= DEAD_ROWS:
            for first, last in _ranges(sorted(dead)):
                self._run(sql.DELETE_JOURNAL_ROWS, p_first=first, p_last=last)
        else:
            return dead
        return []

    def _stored_log(self, run_id: str) -> bytes:
        ids = [row_id for _, row_id in self._index.rows.get(run_id, ())]
        ids += [row_id for added, _, row_id in self._added if added == run_id]
        rows = self._run(sql.JOURNAL_PAYLOADS_BY_JSON, p_ids=to_json(ids))
        return b"".join([row[0] for row in rows.fetchall()])

    # ------------------------------------------------------------------ runs

    def _create_run(self, write: CreateRun) -> RunCreated:
        run = write.run
        if run.idempotency_key is not None:
            earlier = self._earlier_run(run)
            if earlier is not None:
                return RunCreated(earlier, replayed=True)
        if write.question is None and not self._has_question(run):
            raise NotFound("there is no such question")
        if write.session is not None:
            self._insert(sql.INSERT_SESSION, session_row(write.session))
        elif not self._run(sql.OWN_SESSION, p_id=run.session_id, p_owner=run.owner).fetchone():
            raise NotFound("there is no such session")
        else:
            self._refuse_if_busy(run)
        self._insert_messages(write)
        self._insert(sql.INSERT_RUN, _struct_row(run))
        self._append_rows([Append(run.id, 1, 1, write.start + b"\n")])
        if write.session is None:
            self._run(
                sql.TOUCH_SESSION,
                p_id=run.session_id,
                p_updated_at=run.created_at,
                p_title=write.title,
            )
        return RunCreated(run, replayed=False)

    def _refuse_if_busy(self, run: RunRecord) -> None:
        live = self._run(sql.LIVE_RUN, p_session_id=run.session_id).fetchone()
        if live:
            raise RunActive(
                "the session's last answer is still being written",
                session_id=run.session_id,
                run_id=live[0],
            )

    def _earlier_run(self, run: RunRecord) -> RunRecord | None:
        rows = self.rows(sql.RUN_BY_KEY, p_owner=run.owner, p_idempotency_key=run.idempotency_key)
        if not rows:
            return None
        earlier = run_record(rows[0])
        if earlier.fingerprint != run.fingerprint:
            raise IdempotencyMismatch(
                "this Idempotency-Key was used with another request",
                session_id=earlier.session_id,
                message_id=earlier.message_id,
                run_id=earlier.id,
            )
        return earlier

    def _insert_messages(self, write: CreateRun) -> None:
        run = write.run
        shared = {
            "session_id": run.session_id,
            "turn_id": run.question_id,
            "active": True,
            "version": 1,
            "created_at": run.created_at,
        }
        if write.question is not None:
            self._insert(
                sql.INSERT_MESSAGE,
                shared
                | {
                    "id": run.question_id,
                    "role": "user",
                    "status": "complete",
                    "content": write.question,
                    "metadata": to_json(write.metadata),
                    "completed_at": run.created_at,
                },
            )
        else:
            shared["version"] = self._retire_versions(run)
        self._insert(
            sql.INSERT_MESSAGE,
            shared
            | {
                "id": run.message_id,
                "role": "assistant",
                "status": "streaming",
                "content": "",
                "run_id": run.id,
                "upstream": run.upstream,
                "model": run.model,
            },
        )

    def _retire_versions(self, run: RunRecord) -> int:
        turn = {"p_session_id": run.session_id, "p_turn_id": run.question_id}
        version: int = self._run(sql.NEXT_VERSION, **turn).fetchone()[0]
        self._run(sql.RETIRE_VERSIONS, **turn)
        return version

    def _has_question(self, run: RunRecord) -> bool:
        found = self._run(sql.OWN_QUESTION, p_id=run.question_id, p_session_id=run.session_id)
        return found.fetchone() is not None

    def _finish_run(self, write: FinishRun) -> bool:
        run, message, references = finish_rows(write)
        if self._run(sql.END_RUN, **run).rowcount == 0:
            return False
        log = write.log
        if log is None:
            log = self._stored_log(write.run_id) + write.append.payload
        self._insert(
            sql.INSERT_LOG,
            {
                "run_id": write.run_id,
                "last_seq": write.append.last_seq,
                "payload": pack_log(log),
            },
        )
        self._run(sql.END_MESSAGE, **message)
        if references:
            insert = sql.INSERT_REFERENCE
            self._cursor.executemany(insert.sql, [insert.row(row) for row in references])
        self._ended.append(write.run_id)
        return True

    def _delete_session(self, write: DeleteSession) -> None:
        runs = self._run(sql.SESSION_RUNS, p_session_id=write.session_id).fetchall()
        cursor = self._run(sql.DELETE_SESSION, p_id=write.session_id, p_owner=write.owner)
        if cursor.rowcount == 0:
            raise NotFound("there is no such session")
        self._ended += [run_id for (run_id,) in runs]

    def _probe(self, at: int) -> None:
        self._append_rows([Append("", at, at, bytes(PROBE_BYTES))])
        self._run(sql.DELETE_RUN_JOURNAL, p_run_id="")
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


def _struct_row(run: RunRecord) -> dict[str, Any]:
    return {name: getattr(run, name) for name in run.__struct_fields__}
