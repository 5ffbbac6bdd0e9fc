"""What is in the database, read with nothing but its driver."""

import json
import shutil
import sqlite3
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import closing
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


class Database(ABC):
    """The store of a round, seen from outside."""

    url: str
    """What the servers are told."""

    @abstractmethod
    def left_behind(self, target: Path) -> Image:
        """What a server that was killed has left; `target` is a folder for evidence."""

    @abstractmethod
    def image(self) -> Image:
        """What is there now."""

    @abstractmethod
    def streaming(self) -> set[str]:
        """The ids of the messages that are still being written."""

    @abstractmethod
    def close(self) -> None:
        """It is needed no more."""


STREAMING = "SELECT id FROM messages WHERE status = 'streaming'"
TABLES = {
    "runs": "SELECT * FROM runs ORDER BY id",
    "run_logs": "SELECT * FROM run_logs",
    "messages": "SELECT * FROM messages",
    "message_references": "SELECT * FROM message_references ORDER BY ordinal",
}


class SqliteDatabase(Database):
    """A file in the folder of the round."""

    def __init__(self, folder: Path) -> None:
        """Use `chat.db` in `folder`."""
        self._folder = folder
        self._path = folder / "chat.db"
        self.url = f"sqlite:///{self._path}"

    def left_behind(self, target: Path) -> Image:
        """See `Database`. Copies the file with what had not yet been moved into it."""
        for name in ("chat.db", "chat.db-wal"):
            if (self._folder / name).exists():
                shutil.copy(self._folder / name, target / name)
        return _read(target / "chat.db")

    def image(self) -> Image:
        """See `Database`."""
        return _read(self._path)

    def streaming(self) -> set[str]:
        """See `Database`."""
        with closing(_connect(self._path)) as connection:
            return {row[0] for row in connection.execute(STREAMING)}

    def close(self) -> None:
        """See `Database`. The file is evidence."""


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(f"file:{path}?mode=rw", uri=True, timeout=10)
    connection.row_factory = sqlite3.Row
    return connection


def _read(path: Path) -> Image:
    """Read a file, in one transaction."""
    queries = {**TABLES, "journal": "SELECT * FROM journal ORDER BY id"}
    with closing(_connect(path)) as connection:
        connection.execute("BEGIN")
        return image_of(
            {name: [dict(row) for row in connection.execute(sql)] for name, sql in queries.items()}
        )


def image_of(tables: Mapping[str, list[dict[str, Any]]]) -> Image:
    """Put the rows of all tables together."""
    journal = tables["journal"]
    logs = {row["run_id"]: row for row in tables["run_logs"]}
    runs = {
        row["id"]: stored_run(row, [one for one in journal if one["run_id"] == row["id"]], logs)
        for row in tables["runs"]
    }
    references: dict[str, list[dict[str, Any]]] = {}
    for row in tables["message_references"]:
        references.setdefault(row.pop("message_id"), []).append(row)
    messages = {row["id"]: row for row in tables["messages"]}
    return Image(runs, messages, references, len(journal))


def stored_run(
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
