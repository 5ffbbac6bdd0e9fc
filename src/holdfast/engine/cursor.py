"""Cursors: a reader's position in a run's log, `<run_id>.<seq>`."""

import re
from typing import NamedTuple

from holdfast.errors import BadRequest

_CURSOR = re.compile(r"([0-9A-Za-z-]{1,64})\.([0-9]{1,15})", re.ASCII)
_SEQ = re.compile(r"[0-9]{1,15}", re.ASCII)


class Cursor(NamedTuple):
    """The last event that a reader has; `seq` 0 is before the first."""

    run_id: str
    seq: int

    def __str__(self) -> str:
        """The form that travels as the SSE id."""
        return f"{self.run_id}.{self.seq}"


def parse_cursor(text: str) -> Cursor:
    """Read `<run_id>.<seq>`.

    Raises:
        BadRequest: It has another form.
    """
    match = _CURSOR.fullmatch(text)
    if match is None:
        raise BadRequest("a cursor has the form <run_id>.<seq>, as in the id of an event")
    return Cursor(match[1], int(match[2]))


def parse_position(text: str, run_id: str) -> Cursor:
    """Read a cursor, or a bare seq of the run `run_id`.

    Raises:
        BadRequest: It is neither.
    """
    if _SEQ.fullmatch(text):
        return Cursor(run_id, int(text))
    return parse_cursor(text)
