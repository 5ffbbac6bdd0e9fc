"""The index kept in step with the folder.

A file is read again when its size or time differs from what the index knows. A file whose time
is so recent that it may be written once more without its time showing it is compared by its
content. All of this blocks and belongs in one thread (see `upstream.py`).
"""

import hashlib
import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from holdfast.errors import UpstreamError
from holdfast.events import Reason
from holdfast.upstreams.library.database import Database, Known, is_broken, set_aside
from holdfast.upstreams.library.folder import Folder, Listing, Skipped, Stamp, Unreadable
from holdfast.upstreams.library.passages import split_document
from holdfast.upstreams.library.query import Query
from holdfast.upstreams.library.ranking import Candidate

RESCAN_S: Final = 5.0
"""For how long the folder is taken to be as it was."""
COMMIT_EVERY: Final = 200
"""How many documents one transaction takes in."""
RECENT_NS: Final = 2_000_000_000

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Contents(msgspec.Struct, frozen=True):
    """What the library holds."""

    documents: int = 0
    passages: int = 0
    skipped: tuple[Skipped, ...] = ()


class Found(msgspec.Struct, frozen=True):
    """What the library has for a question."""

    candidates: list[Candidate]
    unknown: frozenset[str]
    """Those of the searched terms that no passage holds."""
    contents: Contents


class Index:
    """The index of one folder. Only `stop` may be called from another thread."""

    def __init__(self, path: Path, folder: Folder) -> None:
        """Nothing is opened yet."""
        self._path = path
        self._folder = folder
        self._database: Database | None = None
        self._scanned_at: float | None = None
        self._unreadable: dict[str, tuple[Stamp, str]] = {}
        self._stopped = threading.Event()
        self.contents = Contents()

    def refresh(self, now: float) -> Contents:
        """Bring the index up to date, unless that was done a moment ago.

        Args:
            now: The time in seconds, by the same clock at every call.

        Raises:
            UpstreamError: The folder or the index cannot be used.
        """
        self._guarded(lambda: self._refresh(now))
        return self.contents

    def search(self, query: Query, now: float) -> Found:
        """Look a question up in the index, brought up to date.

        Raises:
            UpstreamError: The folder or the index cannot be used.
        """
        return self._guarded(lambda: self._search(query, now))

    def document(self, path: str) -> tuple[str, str] | None:
        """Title and text of a document in the index; None: it is not in it, or not there any more.

        Raises:
            UpstreamError: The index cannot be used.
        """
        title = self._guarded(lambda: self._open().title(path))
        if title is None:
            return None
        try:
            return title, self._folder.read(path)
        except Unreadable:
            return None

    def stop(self) -> None:
        """Let a scan that is under way end early."""
        self._stopped.set()

    def close(self) -> None:
        """Let go of the file."""
        if self._database:
            self._database.close()
        self._database = None
        self._scanned_at = None
        self._unreadable = {}

    def _guarded(self, use: Callable[[], T]) -> T:
        """Do something with the index, and once more with a new one if the file is damaged."""
        try:
            try:
                return use()
            except sqlite3.Error as error:
                if not is_broken(error):
                    raise
                _log.warning("the index %s is damaged (%s) and is built anew", self._path, error)
                self.close()
                set_aside(self._path)
                return use()
        except (sqlite3.Error, OSError) as error:
            self.close()
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise UpstreamError(
                Reason.UPSTREAM_ERROR, f"the index of the library cannot be used: {reason}"
            ) from error

    def _open(self) -> Database:
        if self._database is None:
            self._database = Database(self._path, self._folder.root)
        return self._database

    def _search(self, query: Query, now: float) -> Found:
        self._refresh(now)
        database = self._open()
        candidates = database.search(query.terms)
        held = frozenset[str]().union(*(candidate.terms for candidate in candidates))
        unknown = frozenset(
            term for term in query.terms if term not in held and not database.has(term)
        )
        return Found(candidates, unknown, self.contents)

    def _refresh(self, now: float) -> None:
        if self._scanned_at is not None and now - self._scanned_at < RESCAN_S:
            return
        try:
            listing = self._folder.list()
        except OSError as error:
            raise UpstreamError(
                Reason.UPSTREAM_UNREACHABLE,
                f"the folder of documents cannot be read: {error.strerror}",
            ) from error
        database = self._open()
        self._update(database, listing)
        unreadable = [Skipped(path, reason) for path, (_, reason) in self._unreadable.items()]
        skipped = sorted([*listing.skipped, *unreadable], key=lambda file: file.path)
        for file in skipped:
            if file not in self.contents.skipped:
                _log.warning("not searched: %s (%s)", file.path, file.reason)
        self.contents = Contents(*database.counts(), tuple(skipped))
        self._scanned_at = now

    def _update(self, database: Database, listing: Listing) -> None:
        known = database.documents()
        self._unreadable = {
            path: bad for path, bad in self._unreadable.items() if path in listing.files
        }
        changed = [
            path for path, stamp in listing.files.items() if not self._knows(path, stamp, known)
        ]
        gone = [path for path in known if path not in listing.files]
        for at in range(0, len(changed), COMMIT_EVERY):
            with database.transaction():
                for path in changed[at : at + COMMIT_EVERY]:
                    if self._stopped.is_set():
                        return
                    self._take(database, path, listing.files[path], known.get(path))
        if gone:
            with database.transaction():
                for path in gone:
                    database.remove(known[path].id)

    def _knows(self, path: str, stamp: Stamp, known: dict[str, Known]) -> bool:
        if path in self._unreadable:
            return self._unreadable[path][0] == stamp
        return path in known and known[path].stamp == stamp

    def _take(self, database: Database, path: str, stamp: Stamp, known: Known | None) -> None:
        """Read a file that is new or may have changed."""
        if abs(time.time_ns() - stamp.mtime_ns) < RECENT_NS:
            stamp = Stamp(stamp.size, -1)
        self._unreadable.pop(path, None)
        try:
            text = self._folder.read(path)
        except Unreadable as error:
            self._unreadable[path] = (stamp, str(error))
            if known:
                database.remove(known.id)
            return
        digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
        if known and known.digest == digest:
            database.touch(known.id, stamp)
            return
        if known:
            database.remove(known.id)
        suffix = "." + path.rpartition(".")[2].lower()
        database.add(path, stamp, digest, split_document(text, suffix))
