"""Where a server can be killed: the gaps between the steps of what it writes.

A gap is told by the statement before it, the one that comes next, and what the transaction has
done so far. A point is a set of such gaps. The phases are the parts of a write's way; every phase
has at least one point.
"""

import re
from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple

BEGIN, COMMIT = "BEGIN", "COMMIT"
APPEND = "INSERT journal"
END_RUN = "UPDATE runs"
INSERT_LOG = "INSERT run_logs"
END_MESSAGE = "UPDATE messages"
INSERT_REFERENCE = "INSERT message_references"
INSERT_MESSAGE = "INSERT messages"
INSERT_RUN = "INSERT runs"

RELEASE = "release"
"""Not a statement: the commit has returned, its watermarks have not moved."""
HINT = "hint"
"""Not a statement: a watermark has moved, its readers have not been told."""


class Phase(StrEnum):
    """The parts of the way that an event takes."""

    ASK = "question transaction"
    APPEND = "before append"
    COMMIT = "between append and commit"
    RELEASE = "after commit, before release"
    FINISH = "finishing transaction"
    HINT = "before the hint"
    RECOVERY = "during recovery"
    ANY = "random instant"


class Gap(NamedTuple):
    """A place between two steps."""

    before: str
    next: str
    done: frozenset[str]
    """The statements of this transaction so far."""
    recovering: bool = False

    def __str__(self) -> str:
        start = "recovery: " if self.recovering else ""
        return f"{start}{self.before} > {self.next}"


class Point(NamedTuple):
    """A place to be killed at."""

    phase: Phase
    matches: Callable[[Gap], bool]
    stored: bool
    """Whether the writes under way are safe when the kill comes here."""


def _live(matches: Callable[[Gap], bool]) -> Callable[[Gap], bool]:
    return lambda gap: not gap.recovering and matches(gap)


def _recovering(matches: Callable[[Gap], bool]) -> Callable[[Gap], bool]:
    return lambda gap: gap.recovering and matches(gap)


def _asks(gap: Gap) -> bool:
    return INSERT_RUN in gap.done


POINTS: dict[str, Point] = {
    "ask-run": Point(Phase.ASK, _live(lambda g: g.next == INSERT_RUN), False),
    "ask-start": Point(
        Phase.ASK, _live(lambda g: g.before == INSERT_RUN and g.next == APPEND), False
    ),
    "ask-commit": Point(Phase.ASK, _live(lambda g: g.next == COMMIT and _asks(g)), False),
    "ask-release": Point(Phase.ASK, _live(lambda g: g.next == RELEASE and _asks(g)), True),
    "append": Point(Phase.APPEND, _live(lambda g: g.next == APPEND and not _asks(g)), False),
    "commit": Point(
        Phase.COMMIT, _live(lambda g: g.next == COMMIT and g.done == {BEGIN, APPEND}), False
    ),
    "release": Point(
        Phase.RELEASE,
        _live(lambda g: g.next == RELEASE and APPEND in g.done and not _asks(g)),
        True,
    ),
    "finish-log": Point(Phase.FINISH, _live(lambda g: g.next == INSERT_LOG), False),
    "finish-message": Point(
        Phase.FINISH, _live(lambda g: g.before == INSERT_LOG and g.next == END_MESSAGE), False
    ),
    "finish-references": Point(
        Phase.FINISH, _live(lambda g: g.before == END_MESSAGE and g.next == INSERT_REFERENCE), False
    ),
    "finish-reference": Point(
        Phase.FINISH, _live(lambda g: g.before == g.next == INSERT_REFERENCE), False
    ),
    "finish-end": Point(
        Phase.FINISH,
        _live(lambda g: g.before == INSERT_REFERENCE and g.next != INSERT_REFERENCE),
        False,
    ),
    "finish-release": Point(
        Phase.FINISH, _live(lambda g: g.next == RELEASE and END_RUN in g.done), True
    ),
    "hint": Point(Phase.HINT, _live(lambda g: g.next == HINT), True),
    "recovery-begin": Point(Phase.RECOVERY, _recovering(lambda g: g.next == BEGIN), False),
    "recovery-log": Point(Phase.RECOVERY, _recovering(lambda g: g.next == INSERT_LOG), False),
    "recovery-message": Point(Phase.RECOVERY, _recovering(lambda g: g.next == END_MESSAGE), False),
    "recovery-references": Point(
        Phase.RECOVERY, _recovering(lambda g: g.next == INSERT_REFERENCE), False
    ),
    "recovery-commit": Point(Phase.RECOVERY, _recovering(lambda g: g.next == COMMIT), False),
    "recovery-release": Point(Phase.RECOVERY, _recovering(lambda g: g.next == RELEASE), True),
}

_STATEMENT = re.compile(
    r"(?P<verb>INSERT) INTO (?P<into>\w+)"
    r"|(?P<update>UPDATE) (?P<table>\w+) SET"
    r"|(?P<delete>DELETE) FROM (?P<source>\w+)"
    r"|(?P<select>SELECT) (?P<column>\w+)\.",
)


def step(sql: str) -> str:
    """A statement as verb and table."""
    found = _STATEMENT.match(sql.lstrip())
    if found is None:
        return APPEND if "INSERT INTO journal" in sql else sql.split(" ", 1)[0]
    return " ".join(part for part in found.groups() if part is not None)
