"""The index's file: a SQLite database of its own that can be thrown away at any time.

All of its SQL is here. The tables hold the passages as they are quoted; the full-text table
holds their terms, which `words.py` has made already, so its tokenizer only splits at spaces.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from holdfast.errors import UpstreamError
from holdfast.events import Reason
from holdfast.upstreams.library.folder import Stamp
from holdfast.upstreams.library.passages import Document, Passage
from holdfast.upstreams.library.ranking import Candidate
from holdfast.upstreams.library.words import index_terms

CANDIDATES: Final = 60
"""How many passages are looked at closely for one question."""
LOCK_TIMEOUT_S: Final = 5.0

_APPLICATION_ID: Final = 0x486F4C69
_FORMAT: Final = 1

_SCHEMA: Final = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS library (root BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS documents (
    id INTEGER PRIMARY KEY,
    path TEXT NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    mtime_ns INTEGER NOT NULL,
    digest BLOB NOT NULL,
    title TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS passages (
    id INTEGER PRIMARY KEY,
    document_id INTEGER NOT NULL REFERENCES documents ON DELETE CASCADE,
    number INTEGER NOT NULL,
    section TEXT NOT NULL,
    text TEXT NOT NULL,
    first_line INTEGER NOT NULL,
    last_line INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS passages_of_document ON passages (document_id);
CREATE VIRTUAL TABLE IF NOT EXISTS terms
    USING fts5 (heading, body, tokenize = 'unicode61 remove_diacritics 0');
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_FORMAT};
COMMIT;
"""

# A term in a heading counts as much as two in the text below it.
_SEARCH: Final = """
SELECT documents.path, documents.title, passages.number, passages.section, passages.text,
       passages.first_line, passages.last_line, -found.score, found.heading || ' ' || found.body
FROM (
    SELECT rowid, bm25(terms, 2.0, 1.0) AS score, heading, body
    FROM terms WHERE terms MATCH ? ORDER BY score LIMIT ?
) AS found
JOIN passages ON passages.id = found.rowid
JOIN documents ON documents.id = passages.document_id
"""

_BROKEN: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class Known(msgspec.Struct, frozen=True):
    """What the index knows of a document."""

    id: int
    stamp: Stamp
    digest: bytes


class Database:
    """The open file."""

    def __init__(self, path: Path, root: str) -> None:
        """Open the index of the folder `root`, or begin a new one.

        Raises:
            UpstreamError: The file is a database, but no index.
            sqlite3.Error: It cannot be used; `is_broken` tells whether a new one would help.
            OSError: Its folder cannot be made.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = _connect(path)
        try:
            if not self._is_current(path, root):
                self._connection.close()
                remove(path)
                self._connection = _connect(path)
            self._prepare(root)
        except BaseException:
            self._connection.close()
            raise

    def _is_current(self, path: Path, root: str) -> bool:
        """Whether it can be used as it is; what Holdfast did not write is never touched."""
        if not self._number("SELECT count(*) FROM sqlite_master"):
            return True
        if self._number("PRAGMA application_id") != _APPLICATION_ID:
            raise UpstreamError(
                Reason.UPSTREAM_ERROR, f"{path.name} is no index of a library: set another `index`"
            )
        roots = self._connection.execute("SELECT root FROM library").fetchall()
        return self._number("PRAGMA user_version") == _FORMAT and roots == [(os.fsencode(root),)]

    def _prepare(self, root: str) -> None:
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.execute("PRAGMA foreign_keys = ON")
        if not self._number("SELECT count(*) FROM sqlite_master"):
            self._connection.executescript(_SCHEMA)
            self._connection.execute("INSERT INTO library VALUES (?)", (os.fsencode(root),))

    def _number(self, statement: str) -> int:
        row: tuple[int] = self._connection.execute(statement).fetchone()
        return row[0]

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing of what is written inside."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._connection.in_transaction:  # SQLite may have rolled back by itself
                self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def documents(self) -> dict[str, Known]:
        """All documents by their paths."""
        rows = self._connection.execute("SELECT path, id, size, mtime_ns, digest FROM documents")
        return {
            path: Known(key, Stamp(size, mtime_ns), digest)
            for path, key, size, mtime_ns, digest in rows
        }

    def counts(self) -> tuple[int, int]:
        """How many documents and passages there are."""
        return (
            self._number("SELECT count(*) FROM documents"),
            self._number("SELECT count(*) FROM passages"),
        )

    def add(self, path: str, stamp: Stamp, digest: bytes, document: Document) -> None:
        """Take a document in that is not there."""
        title = document.title or path.rpartition("/")[2]
        key = self._connection.execute(
            "INSERT INTO documents (path, size, mtime_ns, digest, title) VALUES (?, ?, ?, ?, ?)",
            (path, stamp.size, stamp.mtime_ns, digest, title),
        ).lastrowid
        for number, passage in enumerate(document.passages):
            row = self._connection.execute(
                "INSERT INTO passages (document_id, number, section, text, first_line, last_line)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (key, number, *msgspec.structs.astuple(passage)),
            ).lastrowid
            heading = " ".join(index_terms(f"{title}\n{passage.section}"))
            self._connection.execute(
                "INSERT INTO terms (rowid, heading, body) VALUES (?, ?, ?)",
                (row, heading, " ".join(index_terms(passage.text))),
            )

    def touch(self, key: int, stamp: Stamp) -> None:
        """Note that a document was written again with the same content."""
        self._connection.execute(
            "UPDATE documents SET size = ?, mtime_ns = ? WHERE id = ?",
            (stamp.size, stamp.mtime_ns, key),
        )

    def remove(self, key: int) -> None:
        """Drop a document."""
        self._connection.execute(
            "DELETE FROM terms WHERE rowid IN (SELECT id FROM passages WHERE document_id = ?)",
            (key,),
        )
        self._connection.execute("DELETE FROM documents WHERE id = ?", (key,))

    def search(self, terms: list[str]) -> list[Candidate]:
        """The passages with at least one of the terms that fit best by bm25."""
        if not terms:
            return []
        rows = self._connection.execute(_SEARCH, (_expression(terms), CANDIDATES))
        return [
            Candidate(
                document=path,
                title=title,
                number=number,
                passage=Passage(section, text, first_line, last_line),
                relevance=relevance,
                terms=frozenset(held.split()),
            )
            for path, title, number, section, text, first_line, last_line, relevance, held in rows
        ]

    def title(self, path: str) -> str | None:
        """The title of a document; None if there is none at this path."""
        rows = self._connection.execute("SELECT title FROM documents WHERE path = ?", (path,))
        found = rows.fetchone()
        return None if found is None else str(found[0])

    def has(self, term: str) -> bool:
        """Whether any passage holds this term."""
        rows = self._connection.execute(
            "SELECT 1 FROM terms WHERE terms MATCH ? LIMIT 1", (_expression([term]),)
        )
        return rows.fetchone() is not None


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=LOCK_TIMEOUT_S, isolation_level=None)


def _expression(terms: list[str]) -> str:
    """An FTS5 expression; terms are letters and digits only, so quoting is all it takes."""
    return " OR ".join(f'"{term}"' for term in terms)


def is_broken(error: sqlite3.Error) -> bool:
    """Whether the file itself is damaged, so that only a new one helps."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in _BROKEN


def set_aside(path: Path) -> None:
    """Move a damaged file out of the way. It might be something else than an index."""
    os.replace(path, path.with_name(path.name + ".broken"))
    remove(path)


def remove(path: Path) -> None:
    """Delete the file and what SQLite keeps beside it."""
    for ending in ("", "-wal", "-shm"):
        with suppress(FileNotFoundError):
            os.unlink(f"{path}{ending}")
