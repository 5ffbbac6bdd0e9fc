"""Writing to the terminal: answers to standard output, everything about them to standard error.

What goes to a pipe or a file is plain text. Control characters are dropped everywhere: a
document must not be able to steer the terminal that its words are shown on.
"""

import re
import sys

from rich.console import Console

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def plain(text: str) -> str:
    """The text without control characters; line feeds and tabs stay."""
    return _CONTROL.sub("", text)


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

    def write(self, text: str) -> None:
        """Write a piece of text to standard output, at once and as it is."""
        text = plain(text)
        if text:
            self._out.file.write(text)
            self._out.file.flush()
            self._in_line = not text.endswith("\n")

    def line(self, text: str = "", style: str | None = None) -> None:
        """Write a line of its own to standard output."""
        self.end_line()
        self._out.out(plain(text), style=style)

    def end_line(self) -> None:
        """Go to the start of a line, if not there."""
        if self._in_line:
            self.write("\n")

    def say(self, text: str, style: str | None = "dim") -> None:
        """Write a line to standard error."""
        if self._shared:
            self.end_line()
        self._err.out(plain(text), style=style)

    def mention(self, text: str, *, end: str = "\n") -> None:
        """Write to standard error what only a person who watches may want to see."""
        if self._shared:
            if end:
                self.end_line()
            self._err.out(plain(text), end=end, style="dim italic")
            self._in_line = not (text + end).endswith("\n")
