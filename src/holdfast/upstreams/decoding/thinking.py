"""Reasoning that a model writes into its answer: `<think>...</think>`.

Some servers leave the tags of reasoning models in the text. The splitter takes them out, also
when a tag is cut in two. Text that may be the beginning of a tag is held until it is decided.
"""

from collections.abc import Iterator
from typing import Final, TypeAlias

OPEN_TAG: Final = "<think>"
CLOSE_TAG: Final = "</think>"
MAX_INDENT: Final = 200
"""How much white space may stand before a thought."""

Piece: TypeAlias = tuple[bool, str]
"""Whether it is a thought, and the text; never an empty one."""


class ThinkSplitter:
    """Splits one text, which is fed to it delta by delta, into thoughts and the rest.

    A tag right behind a backtick is text about tags, and stays. So does a closing tag that closes
    nothing.

    Attributes:
        inside: Whether a thought is open.
    """

    def __init__(self, tag: str = "think") -> None:
        """Begin before the first text, outside of any thought.

        Args:
            tag: The name of the tag that encloses thoughts.
        """
        self.inside = False
        self._tags = (f"<{tag}>", f"</{tag}>")
        self._held = ""
        self._last = ""  # the character before what is held

    def feed(self, text: str) -> list[Piece]:
        """Take more text; give all text so far that is certain and was not given yet."""
        pieces: list[Piece] = []
        text = self._held + text
        start = at = 0
        while True:
            tag = self._tags[self.inside]
            found = text.find(tag, at)
            end = self._cut(text, at, tag) if found < 0 else found
            if found >= 0 and (text[found - 1] if found else self._last) == "`":
                at = found + len(tag)
                continue
            if end > start:
                pieces.append((self.inside, text[start:end]))
                self._last = text[end - 1]
            if found < 0:
                self._held = text[end:]
                return pieces
            self.inside = not self.inside
            self._last = tag[-1]
            start = at = found + len(tag)

    def flush(self) -> list[Piece]:
        """Give what is held, which is no tag: the text ends or is interrupted here."""
        held, self._held = self._held, ""
        return [(self.inside, held)] if held else []

    def _cut(self, text: str, at: int, tag: str) -> int:
        """Where the text ends that cannot be the beginning of a tag."""
        begun = text.rfind("<", max(at, len(text) - len(tag) + 1))
        if begun < 0 or not tag.startswith(text[begun:]):
            return len(text)
        return len(text) if (text[begun - 1] if begun else self._last) == "`" else begun


class OpeningThought:
    """The beginning of a text, where some servers leave a thought: `<think>...</think>`.

    Only there is it looked for; further on, tags are text. White space before it is dropped.

    Attributes:
        is_over: What comes is text, and need not be fed any more.
    """

    def __init__(self) -> None:
        """Begin before the first text."""
        self.is_over = False
        self._thinks = False
        self._held = ""

    def feed(self, text: str) -> Iterator[Piece]:
        """Take more text; give what is certain and was not given yet."""
        text, self._held = self._held + text, ""
        begun = text.lstrip()
        is_near = len(text) - len(begun) < MAX_INDENT
        if self._thinks:
            yield from self._think(text)
        elif is_near and begun.startswith(OPEN_TAG):
            self._thinks = True
            yield from self._think(begun[len(OPEN_TAG) :])
        elif is_near and OPEN_TAG.startswith(begun):
            self._held = text
        else:
            self.is_over = True
            yield False, text

    def flush(self) -> Iterator[Piece]:
        """Give what is held, which is no tag: the text ends or is interrupted here."""
        held, self._held = self._held, ""
        self.is_over = not self._thinks
        if held:
            yield self._thinks, held

    def _think(self, text: str) -> Iterator[Piece]:
        thought, tag, rest = text.partition(CLOSE_TAG)
        self.is_over = bool(tag)
        if not tag:
            held = _begun(text, CLOSE_TAG)
            thought, self._held = text[: len(text) - held], text[len(text) - held :]
        if thought:
            yield True, thought
        if rest:
            yield False, rest


def _begun(text: str, tag: str) -> int:
    """How many characters at the end of the text may be the beginning of the tag."""
    lengths = range(min(len(tag) - 1, len(text)), 0, -1)
    return next((length for length in lengths if text.endswith(tag[:length])), 0)
