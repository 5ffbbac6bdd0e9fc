"""What a RAGFlow answer's text amounts to, told in pieces or as a whole again and again.

Whatever form it comes in, changes come out: more text, more of a thought, and only where the
server really wrote something else, a rewrite. A thought that was given is never taken back; of
one that the server rewrites, what extends it is given.
"""

import re
from enum import Enum, auto
from typing import Final, NamedTuple

from holdfast.upstreams.decoding.thinking import ThinkSplitter
from holdfast.upstreams.decoding.told_errors import ErrorWatch

_EATEN: Final = "</think>"
"""Up to 0.21.0 the server takes a closing tag off by `rstrip`, which eats letters before it."""
_CLOSED: Final = re.compile(r"(?<!`)</think>")
_OPENED: Final = "<think>"


class Kind(Enum):
    """What a change is."""

    TEXT = auto()
    THOUGHT = auto()
    PROGRESS = auto()
    """What deep research tells of itself, in `<retrieving>` tags."""
    REWRITE = auto()
    """All text so far becomes this."""


class Change(NamedTuple):
    """Something to tell readers; its text is never empty."""

    kind: Kind
    text: str


class RunningText:
    """The text and the thoughts of one answer.

    Attributes:
        frozen: The server failed: text may still be added, but none is rewritten any more.
    """

    def __init__(self) -> None:
        """Begin before the first text."""
        self.frozen = False
        self._untag()
        self._watch = ErrorWatch()
        self._watched = Kind.TEXT  # of what the watch was fed
        self._written: dict[Kind, list[str]] = {Kind.TEXT: [], Kind.THOUGHT: []}

    @property
    def error(self) -> str | None:
        """The failure that was told as text."""
        return self._watch.error

    @property
    def is_empty(self) -> bool:
        """Whether there was no text so far; thoughts do not count."""
        return not self._written[Kind.TEXT]

    def take_piece(self, text: str, *, thought: bool) -> list[Change]:
        """Take the next piece.

        Args:
            text: What comes after all that came before.
            thought: Whether the server marked it as one; otherwise tags tell.
        """
        changes: list[Change] = []
        if thought:
            self._release_tags(changes)
            self._write(Kind.THOUGHT, text, changes)
        else:
            for progress, piece in self._progress.feed(text):
                self._take_tagged(progress, piece, changes)
        return changes

    def take_whole(self, answer: str) -> list[Change]:
        """Take the whole answer so far, once more."""
        if _CLOSED.search(answer.partition(_OPENED)[0]):
            answer = _OPENED + answer  # its opening tag was eaten, or never written
        self._untag()
        thought = text = ""
        for progress, piece in self._progress.feed(answer):
            for is_thought, part in [] if progress else self._thoughts.feed(piece):
                thought, text = (thought + part, text) if is_thought else (thought, text + part)
        changes: list[Change] = []
        self._take_whole_thought(thought, changes)
        if text:
            self._take_whole_text(text, changes)
        return changes

    def flush(self) -> list[Change]:
        """Give what is held back: the answer ends, is interrupted, or goes on as something else."""
        changes: list[Change] = []
        self._release_tags(changes)
        self._give(self._watch.flush(), changes)
        return changes

    def _untag(self) -> None:
        self._progress = ThinkSplitter("retrieving")
        self._thoughts = ThinkSplitter()

    def _release_tags(self, changes: list[Change]) -> None:
        for progress, piece in self._progress.flush():
            self._take_tagged(progress, piece, changes)
        for is_thought, piece in self._thoughts.flush():
            self._write(Kind.THOUGHT if is_thought else Kind.TEXT, piece, changes)

    def _take_tagged(self, progress: bool, text: str, changes: list[Change]) -> None:
        if progress:
            changes.append(Change(Kind.PROGRESS, text))
            return
        for is_thought, piece in self._thoughts.feed(text):
            self._write(Kind.THOUGHT if is_thought else Kind.TEXT, piece, changes)

    def _take_whole_thought(self, thought: str, changes: list[Change]) -> None:
        if not thought:
            return
        before = "".join(self._written[Kind.THOUGHT])
        kept = before if thought.startswith(before) else before.rstrip(_EATEN)
        if thought.startswith(kept):
            self._write(Kind.THOUGHT, thought[len(kept) :], changes)
        self._written[Kind.THOUGHT] = [thought]

    def _take_whole_text(self, text: str, changes: list[Change]) -> None:
        before = "".join(self._written[Kind.TEXT])
        if text.startswith(before):
            self._written[Kind.TEXT] = [before]
            self._write(Kind.TEXT, text[len(before) :], changes)
        elif not self.frozen and self.error is None and text.strip() != before.strip():
            self._written[Kind.TEXT] = [text]
            self._watch = ErrorWatch()
            self._watched = Kind.TEXT
            text = self._watch.feed(text) + self._watch.flush()
            if self.error is None:  # a failure overwrites nothing
                changes.append(Change(Kind.REWRITE, text))

    def _write(self, kind: Kind, text: str, changes: list[Change]) -> None:
        if not text:
            return
        if kind is not self._watched:
            self._give(self._watch.flush(), changes)
            self._watched = kind
        self._written[kind].append(text)
        self._give(self._watch.feed(text), changes)

    def _give(self, text: str, changes: list[Change]) -> None:
        if text:
            changes.append(Change(self._watched, text))
