"""What is in the database file, read with nothing but SQLite."""

import json
import shutil
import sqlite3
import zlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any


@dataclass
class StoredRun:
    """A run with its log, line by line."""

    row: dict[str, Any]
    log: list[bytes]
    faults: list[str] = field(default_factory=list)
    """What is wrong with the way its log is stored."""

    @property
    def ended(self) -> bool:
        return bool(self.row["status"] == "ended")

    @property
    def text(self) -> str:
        """The answer's text, put together without the product's fold."""
        events = map(json.loads, self.log)
        return "".join(event["text"] for event in events if event["type"] == "text-delta")


@dataclass
class Image:
    """The database at one instant."""

    runs: dict[str, StoredRun]
    messages: dict[str, dict[str, Any]]
    references: dict[str, list[dict[str, Any]]]
    """By message, in the order of their ordinals."""
    journal_rows: int

    @property
    def live(self) -> list[StoredRun]:
        return [run for run in self.runs.values() if not run.ended]

    @cached_property
    def by_question(self) -> dict[str | None, StoredRun]:
        """The first run of each question."""
        return {self.question(run): run for run in reversed(self.runs.values())}

    def question(self, run: StoredRun) -> str | None:
        """The question that a run answers."""
        message = self.messages.get(run.row["question_id"])
        return message["content"] if message is not None else None


def copy_database(folder: Path, target: Path) -> Path:
    """Copy the file of a server that is dead, with what it had not yet moved into it."""
    target.mkdir()
    for name in ("chat.db", "chat.db-wal"):
        if (folder / name).exists():
            shutil.copy(folder / name, target / name)
    return target / "chat.db"


def read_image(path: Path) -> Image:
    """Read a database, in one transaction."""
    connection = sqlite3.connect(f"file:{path}?mode=rw", uri=True, timeout=10)
    connection.row_factory = sqlite3.Row
    try:
        connection.execute("BEGIN")
        journal = _rows(connection, "SELECT * FROM journal ORDER BY id")
        logs = {row["run_id"]: row for row in _rows(connection, "SELECT * FROM run_logs")}
        runs = {
            row["id"]: _run(row, [one for one in journal if one["run_id"] == row["id"]], logs)
            for row in _rows(connection, "SELECT * FROM runs ORDER BY id")
        }
        references: dict[str, list[dict[str, Any]]] = {}
        for row in _rows(connection, "SELECT * FROM message_references ORDER BY ordinal"):
            references.setdefault(row.pop("message_id"), []).append(row)
        messages = {row["id"]: row for row in _rows(connection, "SELECT * FROM messages")}
        return Image(runs, messages, references, len(journal))
    finally:
        connection.close()


def streaming(path: Path) -> set[str]:
    """The ids of the messages that are still being written."""
    connection = sqlite3.connect(f"file:{path}?mode=rw", uri=True, timeout=10)
    try:
        found = connection.execute("SELECT id FROM messages WHERE status = 'streaming'")
        return {row[0] for row in found}
    finally:
        connection.close()


def _rows(connection: sqlite3.Connection, sql: str) -> list[dict[str, Any]]:
    return [dict(row) for row in connection.execute(sql)]


def _run(
    row: dict[str, Any], journal: list[dict[str, Any]], logs: dict[str, dict[str, Any]]
) -> StoredRun:
    run = StoredRun(row, [])
    for entry in journal:
        lines = _lines(entry["payload"])
        if entry["first_seq"] != len(run.log) + 1 or entry["last_seq"] != len(run.log) + len(lines):
            run.faults.append(
                f"a journal row says {entry['first_seq']}-{entry['last_seq']}, it has "
                f"{len(lines)} events after {len(run.log)}"
            )
        run.log += lines
    whole = logs.get(row["id"])
    if whole is not None:
        lines = _lines(zlib.decompress(whole["payload"]))
        if lines[: len(run.log)] != run.log:
            run.faults.append("the log differs from the journal that it was made of")
        if whole["last_seq"] != len(lines) or row["last_seq"] != len(lines):
            run.faults.append(f"the log has {len(lines)} events, not {whole['last_seq']}")
        run.log = lines
    if (whole is not None) != run.ended:
        run.faults.append(f"a run that is {row['status']} has {'a' if whole else 'no'} log")
    return run


def _lines(payload: bytes) -> list[bytes]:
    *lines, rest = payload.split(b"\n")
    return lines if not rest else [*lines, rest]
