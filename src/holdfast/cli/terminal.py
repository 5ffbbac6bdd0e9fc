"""Writing to the terminal: answers to standard output, everything about them to standard error.

What goes to a pipe or a file is plain text. Control characters are dropped everywhere: a
document must not be able to steer the terminal that its words are shown on.
"""

import re
import sys
from typing import Protocol

from rich.console import Console
from rich.text import Text

from holdfast.cli.markdown import MarkdownWriter

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def plain(text: str) -> str:
    """The text without control characters; line feeds and tabs stay."""
    return _CONTROL.sub("", text)


class TextWriter(Protocol):
    """Writes a text that grows."""

    def write(self, text: str) -> None:
        """Write more of it."""

    def rewrite(self, text: str) -> bool:
        """Put `text` in the place of all that was written; False if that cannot be undone."""

    def close(self) -> None:
        """Go to the start of a line; what is written then is another text."""


class _PlainWriter:
    """For what is no terminal: every character once, as it comes."""

    def __init__(self, terminal: "Terminal") -> None:
        self._terminal = terminal
        self._written: list[str] = []

    def write(self, text: str) -> None:
        self._written.append(text)
        self._terminal.write(text)

    def rewrite(self, text: str) -> bool:
        written = "".join(self._written)
        if not text.startswith(written):
            return False
        self.write(text[len(written) :])
        return True

    def close(self) -> None:
        self._written.clear()
        self._terminal.end_line()


class Terminal:
    """Standard output and standard error, with styles where they are terminals."""

    def __init__(self) -> None:
        """Take the streams as they are now."""
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")  # not every terminal speaks UTF-8
        self._out = Console(highlight=False, markup=False)
        self._err = Console(stderr=True, highlight=False, markup=False)
        self._shared = self._out.is_terminal and self._err.is_terminal
        self._in_line = False
        self._markdown: MarkdownWriter | None = None

    def text_writer(self) -> TextWriter:
        """For an answer: it is shown as Markdown on a terminal, and as it is elsewhere."""
        if not self._out.is_terminal or self._out.is_dumb_terminal:
            return _PlainWriter(self)
        self._markdown = MarkdownWriter(self._out)
        return self._markdown

    def write(self, text: str) -> None:
        """Write a piece of text to standard output, at once and as it is."""
        text = plain(text)
        if text:
            self._out.file.write(text)
            self._out.file.flush()
            self._in_line = not text.endswith("\n")

    def line(self, text: str = "", style: str | None = None, *, indent: int = 0) -> None:
        """Write a line of its own to standard output; an indented one is wrapped on a terminal."""
        self.end_line()
        margin, text = " " * indent, plain(text)
        if not indent or not self._out.is_terminal:
            self._out.out(margin + text, style=style)
            return
        width = max(self._out.width - indent, 1)
        for part in Text(text, style or "").wrap(self._out, width):
            self._out.print(Text(margin) + part)

    def end_line(self) -> None:
        """Go to the start of a line, if not there."""
        if self._in_line:
            self.write("\n")

    def say(self, text: str, style: str | None = "dim") -> None:
        """Write a line to standard error."""
        if self._shared:
            self._make_room(new_line=True)
        self._err.out(plain(text), style=style)

    def mention(self, text: str, *, end: str = "\n") -> None:
        """Write to standard error what only a person who watches may want to see."""
        if self._shared:
            self._make_room(new_line=bool(end))
            self._err.out(plain(text), end=end, style="dim italic")
            self._in_line = not (text + end).endswith("\n")

    def _make_room(self, *, new_line: bool) -> None:
        if self._markdown is not None:
            self._markdown.pause()
        if new_line:
            self.end_line()
