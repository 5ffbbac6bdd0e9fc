"""Failures that RAGFlow tells as text: `**ERROR**: CONNECTION_ERROR - it was closed`.

Its model layer has no other way to say that a provider failed, also in the middle of an answer.
The mark counts at the start of a delta or of a line, and anywhere if a code in capitals follows;
elsewhere it is prose about errors. It may come cut in two.
"""

import re
from typing import Final

MARK: Final = "**ERROR**: "
CHARS: Final = 1_000
"""How much of an error's text is kept."""

_CODE: Final = re.compile(r"[A-Z_]{3,40} - ")
_CODE_BEGUN: Final = re.compile(r"(?:[A-Z_]{0,40}|[A-Z_]{3,40} -?)\Z")

_NOT_BLANK: Final = re.compile(r"\S")


class ErrorWatch:
    """Watches the text of one answer, which is fed to it delta by delta.

    Attributes:
        error: The words of the failure so far; None while there is none.
    """

    def __init__(self) -> None:
        """Begin before the first text."""
        self.error: str | None = None
        self._held = ""
        self._held_at_start = False  # of a delta or a line
        self._last = ""  # the character before what is held

    def feed(self, text: str) -> str:
        """Take a delta; give the text so far that is certainly answer and was not given yet."""
        if self.error is not None:
            self.error = (self.error + text)[:CHARS]
            return ""
        if not self._held and "*" not in text:
            self._last = text[-1:] or self._last
            return text
        border = len(self._held)
        text = self._held + text
        at = text.find(MARK)
        while at >= 0:
            is_error = self._at_start(text, at, border) or _verdict(text, at + len(MARK))
            if is_error:
                return self._fail(text, at)
            if is_error is None:
                return self._hold(text, at, border)
            at = text.find(MARK, at + 1)
        return self._hold(text, len(text) - _begun(text), border)

    def flush(self) -> str:
        """Give what is held: the text ends or is interrupted here."""
        text, self._held = self._held, ""
        self._last = text[-1:] or self._last
        return text

    def _at_start(self, text: str, at: int, border: int) -> bool:
        """Whether this place is at the start of a delta or a line; one begins at `border`."""
        if at == 0 and border:
            return self._held_at_start
        if at >= border and _NOT_BLANK.search(text, border, at) is None:
            return True
        return (text[at - 1] if at else self._last) == "\n"

    def _hold(self, text: str, at: int, border: int) -> str:
        if at < len(text):
            self._held_at_start = self._at_start(text, at, border)
        self._held = text[at:]
        self._last = text[at - 1] if at else self._last
        return text[:at]

    def _fail(self, text: str, at: int) -> str:
        self.error = text[at + len(MARK) :][:CHARS]
        self._held = ""
        return text[:at].rstrip()


def _verdict(text: str, at: int) -> bool | None:
    """Whether a code follows the mark, at this place; None while it may still."""
    if _CODE.match(text, at):
        return True
    return None if _CODE_BEGUN.match(text, at) else False


def _begun(text: str) -> int:
    """How many characters at the end may be the beginning of a mark."""
    for length in range(min(len(MARK) - 1, len(text)), 0, -1):
        if text.endswith(MARK[:length]):
            return length
    return 0
