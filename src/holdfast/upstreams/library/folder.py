"""The folder of documents: which files are in it, and what they say.

A link is not followed. What it leads to is read under its own name if it is in the folder; if
not, the link is named among what was skipped. Names that begin with a dot are left alone.
"""

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from holdfast.upstreams.library.passages import KINDS

MAX_DOCUMENTS: Final = 20_000

_LEADS_OUT: Final = "leads out of the folder"
_NOT_UTF8: Final = "\N{REPLACEMENT CHARACTER}"


class Skipped(msgspec.Struct, frozen=True):
    """A file that is not searched, by its path in the folder, and why."""

    path: str
    reason: str


class Stamp(msgspec.Struct, frozen=True):
    """What a file looks like from outside; while it stays the same the file is not read."""

    size: int
    mtime_ns: int


class Listing(msgspec.Struct):
    """What a walk through the folder found."""

    files: dict[str, Stamp] = {}
    skipped: list[Skipped] = []


class Unreadable(Exception):
    """A document that cannot be read; the message says why, in words for people."""


class Folder:
    """A folder of documents."""

    def __init__(self, root: Path, max_file_bytes: int) -> None:
        """Nothing is read yet."""
        self._given = root
        self._max_bytes = max_file_bytes
        self._too_large = f"larger than {max_file_bytes:,} bytes"

    @property
    def root(self) -> str:
        """The folder itself, absolute and without links."""
        return os.path.realpath(self._given.expanduser())

    def list(self) -> Listing:
        """Find all documents.

        Raises:
            OSError: The folder itself is not there or cannot be read.
        """
        root, listing = self.root, Listing()
        os.scandir(root).close()
        for entry in _walk(root, listing.skipped):
            name = _name(root, entry.path)
            try:
                listing.files[name] = self._stamp(entry, name, len(listing.files))
            except (Unreadable, OSError) as error:
                listing.skipped.append(Skipped(name, _reason(error)))
        return listing

    def _stamp(self, entry: os.DirEntry[str], name: str, others: int) -> Stamp:
        if entry.is_symlink():
            raise Unreadable(_LEADS_OUT)
        status = entry.stat()
        if status.st_size > self._max_bytes:
            raise Unreadable(self._too_large)
        if _NOT_UTF8 in name:
            raise Unreadable("its name is not UTF-8")
        if others >= MAX_DOCUMENTS:
            raise Unreadable(f"the folder holds more than {MAX_DOCUMENTS:,} documents")
        return Stamp(status.st_size, status.st_mtime_ns)

    def read(self, name: str) -> str:
        """The text of one of the files that `list` found.

        Raises:
            Unreadable: It is not text in UTF-8, or not there any more as it was.
        """
        root = self.root
        path = os.path.join(root, name)
        if not _is_inside(root, path):
            raise Unreadable(_LEADS_OUT)
        try:
            # Since it was listed the file may have become a link or a pipe, or grown.
            with open(path, "rb", opener=_open_file) as file:
                content = file.read(self._max_bytes + 1)
        except OSError as error:
            raise Unreadable(_reason(error)) from error
        if len(content) > self._max_bytes:
            raise Unreadable(self._too_large)
        return _decode(content)


def _walk(root: str, skipped: list[Skipped]) -> Iterator[os.DirEntry[str]]:
    """The documents below a folder, and the links that lead out of it."""
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                inside = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            skipped.append(Skipped(_name(root, folder), _reason(error)))
            continue
        for entry in inside:
            is_document = os.path.splitext(entry.name)[1].lower() in KINDS
            if entry.name.startswith("."):
                continue
            if entry.is_symlink():
                if (is_document or entry.is_dir()) and not _is_inside(root, entry.path):
                    yield entry
            elif entry.is_dir():
                waiting.append(entry.path)
            elif is_document and entry.is_file():
                yield entry


def _open_file(path: str, _: int) -> int:
    return os.open(
        path,
        os.O_RDONLY
        | getattr(os, "O_BINARY", 0)
        | getattr(os, "O_NOFOLLOW", 0)
        | getattr(os, "O_NONBLOCK", 0),
    )


def _decode(content: bytes) -> str:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise Unreadable("not UTF-8") from None
    if "\0" in text:
        raise Unreadable("not a text")
    return text


def _is_inside(root: str, path: str) -> bool:
    real = os.path.realpath(path)
    return real == root or real.startswith(os.path.join(root, ""))


def _name(root: str, path: str) -> str:
    """The path in the folder, with slashes, as text that can be stored and sent."""
    relative = os.path.relpath(path, root).replace(os.sep, "/")
    return os.fsencode(relative).decode("utf-8", "replace")


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return _LEADS_OUT if error.errno == errno.ELOOP else (error.strerror or "").lower()
    return str(error)
