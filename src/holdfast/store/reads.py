"""The reads of the port, as plain functions on a SQLAlchemy connection.

They hold for every database; an implementation of the port only decides where they run.
"""

import zlib
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, cast

from sqlalchemy import Connection
from sqlalchemy.sql import Select

from holdfast.engine.policy import Turn
from holdfast.events import Entry, Reference, decode, split_log
from holdfast.store import statements as sql
from holdfast.store.port import KeyRecord, LogPage, MessageRecord, RunRecord, SessionRecord
from holdfast.store.rows import (
    Row,
    from_json,
    key_record,
    message_record,
    reference_record,
    run_record,
    session_record,
)

UNPACKED_BYTES = 131_072


def _rows(connection: Connection, statement: Select[Any], **values: Any) -> Sequence[Row]:
    parameters = {f"p_{name}": value for name, value in values.items()}
    return cast(Sequence[Row], connection.execute(statement, parameters).mappings().all())


def _row(connection: Connection, statement: Select[Any], **values: Any) -> Row | None:
    rows = _rows(connection, statement, **values)
    return rows[0] if rows else None


def pack_log(payload: bytes) -> bytes:
    """The stored form of a whole log."""
    return zlib.compress(payload, 1)


def ended_log(connection: Connection, run_id: str, after: int, limit: int) -> LogPage | None:
    """A page of a log that has moved out of the journal."""
    row = stored_log(connection, run_id)
    return None if row is None else log_page(row, after, limit)


def stored_log(connection: Connection, run_id: str) -> Row | None:
    """The whole log of an ended run, packed."""
    return _row(connection, sql.RUN_LOG, run_id=run_id)


def log_page(row: Row, after: int, limit: int) -> LogPage:
    """A page of the log that `stored_log` gave."""
    lines = islice(_unpacked_lines(row["payload"]), after, after + limit)
    entries = [Entry(seq, decode(line), line) for seq, line in enumerate(lines, after + 1)]
    return LogPage(entries, ended=True, last_seq=row["last_seq"])


def _unpacked_lines(packed: bytes) -> Iterator[bytes]:
    """The lines of a whole log, unpacked piece by piece: a page must not cost a log's memory."""
    unpacker = zlib.decompressobj()
    rest = b""
    while packed:
        *lines, rest = (rest + unpacker.decompress(packed, UNPACKED_BYTES)).split(b"\n")
        yield from lines
        packed = unpacker.unconsumed_tail


def journal_entries(
    connection: Connection, ids: Sequence[int], after: int, limit: int
) -> list[Entry]:
    """At most `limit` entries with seq > `after` of the journal rows `ids`, which are one run's."""
    entries: list[Entry] = []
    for row in _rows(connection, sql.JOURNAL_PAYLOADS, ids=ids):
        entries += split_log(row["payload"], row["first_seq"], after, limit - len(entries))
    return entries


def live_runs(connection: Connection) -> list[tuple[RunRecord, bool]]:
    """See `Store.live_runs`."""
    return _with_cancels(_rows(connection, sql.LIVE_RUNS))


def orphans(connection: Connection) -> list[tuple[RunRecord, bool]]:
    """See `SharedStore.orphans`."""
    return _with_cancels(_rows(connection, sql.ORPHANS))


def own_runs(connection: Connection, node_id: str, generation: int) -> list[tuple[RunRecord, bool]]:
    """See `SharedStore.own_runs`."""
    return _with_cancels(_rows(connection, sql.OWN_RUNS, node_id=node_id, generation=generation))


def _with_cancels(rows: Sequence[Row]) -> list[tuple[RunRecord, bool]]:
    return [(run_record(row), row["cancel_requested"]) for row in rows]


def get_run(connection: Connection, owner: str, run_id: str) -> RunRecord | None:
    """See `Store.get_run`."""
    row = _row(connection, sql.RUN, owner=owner, id=run_id)
    return run_record(row) if row else None


def find_run(connection: Connection, owner: str, idempotency_key: str) -> RunRecord | None:
    """See `Store.find_run`."""
    row = _row(connection, sql.RUN_OF_KEY, owner=owner, idempotency_key=idempotency_key)
    return run_record(row) if row else None


def get_raw(connection: Connection, run_id: str) -> tuple[Any, Any]:
    """See `Store.get_raw`."""
    row = _row(connection, sql.RAW, id=run_id)
    if row is None:
        return None, None
    return from_json(row["request"], object, None), from_json(row["response"], object, None)


def get_session(connection: Connection, owner: str, session_id: str) -> SessionRecord | None:
    """See `Store.get_session`."""
    row = _row(connection, sql.SESSION, owner=owner, id=session_id)
    return session_record(row) if row else None


def find_session(
    connection: Connection, owner: str, dialect: str, key: str
) -> SessionRecord | None:
    """See `Store.find_session`."""
    row = _row(connection, sql.SESSION_BY_KEY, owner=owner, dialect=dialect, key=key)
    return session_record(row) if row else None


def list_sessions(
    connection: Connection,
    owner: str,
    limit: int,
    before: tuple[int, str] | None,
    query: str | None,
) -> list[SessionRecord]:
    """See `Store.list_sessions`."""
    values: dict[str, Any] = {"owner": owner, "limit": limit}
    first, following = sql.SESSIONS_FIRST, sql.SESSIONS_BEFORE
    if query and (sought := query.strip()):
        values["query"] = sought
        first, following = sql.SESSIONS_FOUND_FIRST, sql.SESSIONS_FOUND_BEFORE
    if before is None:
        rows = _rows(connection, first, **values)
    else:
        at, last = before
        rows = _rows(connection, following, **values, at=at, id=last)
    return [session_record(row) for row in rows]


def get_conversation(connection: Connection, session_id: str, upstream: str) -> str | None:
    """See `Store.get_conversation`."""
    row = _row(connection, sql.CONVERSATION, session_id=session_id, upstream=upstream)
    return row["conversation"] if row else None


def list_keys(connection: Connection) -> list[KeyRecord]:
    """See `Store.list_keys`."""
    return [key_record(row) for row in _rows(connection, sql.KEYS)]


def get_message(connection: Connection, owner: str, message_id: str) -> MessageRecord | None:
    """See `Store.get_message`."""
    row = _row(connection, sql.MESSAGE, owner=owner, id=message_id)
    return _complete(connection, [row])[0] if row else None


def list_messages(
    connection: Connection, session_id: str, limit: int, after: tuple[str, str] | None
) -> list[MessageRecord]:
    """See `Store.list_messages`."""
    values: dict[str, Any] = {"session_id": session_id, "limit": limit}
    if after is None:
        rows = _rows(connection, sql.MESSAGES_FIRST, **values)
    else:
        turn_id, last = after
        rows = _rows(connection, sql.MESSAGES_AFTER, **values, turn_id=turn_id, id=last)
    return _complete(connection, rows)


def _complete(connection: Connection, rows: Sequence[Row]) -> list[MessageRecord]:
    """Add references and versions; three queries, however many messages."""
    if not rows:
        return []
    references: dict[str, list[Reference]] = {}
    for row in _rows(connection, sql.REFERENCES, messages=[row["id"] for row in rows]):
        references.setdefault(row["message_id"], []).append(reference_record(row))
    versions: dict[str, list[str]] = {}
    turns = list({row["turn_id"] for row in rows if row["role"] == "assistant"})
    for row in _rows(connection, sql.VERSIONS, session_id=rows[0]["session_id"], turns=turns):
        versions.setdefault(row["turn_id"], []).append(row["id"])
    return [
        message_record(
            row,
            tuple(references.get(row["id"], ())),
            tuple(versions.get(row["turn_id"], ())) if row["role"] == "assistant" else (),
        )
        for row in rows
    ]


def list_turns(connection: Connection, session_id: str, before: str, limit: int) -> list[Turn]:
    """See `Store.list_turns`."""
    rows = _rows(connection, sql.TURNS, session_id=session_id, before=before, limit=2 * limit)
    turns: dict[str, dict[str, str]] = {}
    for row in reversed(rows):
        turns.setdefault(row["turn_id"], {})[row["role"]] = row["content"]
    return [
        Turn(turn["user"], turn.get("assistant", "")) for turn in turns.values() if "user" in turn
    ]
