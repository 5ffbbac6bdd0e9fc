"""What the code of a release said to its database, and what the database answered.

A recording is a compressed file of JSON lines: what people could see in the end; the texts of all
statements; then each statement in its order, with its connection, the number of its text, its
values and its answer. `null` is a mark: a place where another release may take over. Statements
that are about the schema itself are left out.
"""

import base64
import gzip
import json
import re
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

DATA: Final = Path(__file__).with_name("data")

_LEFT_OUT: Final = re.compile(
    r"PRAGMA|alembic_version|sqlite_master|pg_catalog|advisory|^(un)?listen|^show|^set ", re.I
)


class Said(NamedTuple):
    """A statement with its values and its answer."""

    connection: int
    sql: str
    values: list[Any]
    """Of a statement that is executed for many rows, each row's."""
    many: bool
    rows: list[list[Any]] | None
    """What it found; None: it changed something."""
    changed: int = 0

    @property
    def is_about_now(self) -> bool:
        """Whether its answer is another one at any other time."""
        return "clock_timestamp()" in self.sql


class Recording(msgspec.Struct):
    """The story of one release on one kind of database."""

    view: list[Any]
    steps: list[Said | None]
    """None is a mark."""

    @property
    def marks(self) -> int:
        return self.steps.count(None)

    def parts(self, mark: int) -> tuple[list[Said], list[Said]]:
        """The statements before and after the mark of this number."""
        places = [place for place, step in enumerate(self.steps) if step is None]
        before, after = self.steps[: places[mark]], self.steps[places[mark] :]
        return [s for s in before if s is not None], [s for s in after if s is not None]


def is_recorded(sql: str) -> bool:
    """Whether a statement is about what is kept, not about how."""
    return not _LEFT_OUT.search(sql)


def save(recording: Recording, path: Path) -> None:
    """Write a recording."""
    statements: dict[str, int] = {}
    steps: list[Any] = []
    for said in recording.steps:
        if said is not None:
            number = statements.setdefault(said.sql, len(statements))
            steps.append([number if part is said.sql else part for part in said])
        else:
            steps.append(None)
    lines = (recording.view, list(statements), *steps)
    text = "".join(json.dumps(line, ensure_ascii=False, default=_plain) + "\n" for line in lines)
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def load(path: Path) -> Recording:
    """Read a recording."""
    lines = gzip.decompress(path.read_bytes()).splitlines()
    view, statements, *steps = [_restored(json.loads(line)) for line in lines]
    for step in steps:
        if step is not None:
            step[1] = statements[step[1]]
    return Recording(view, [None if step is None else Said(*step) for step in steps])


def _plain(value: Any) -> Any:
    assert isinstance(value, bytes), value
    if not any(value):
        return {"$zeros": len(value)}
    return {"$bytes": base64.b64encode(value).decode()}


def _restored(value: Any) -> Any:
    match value:
        case list():
            return [_restored(one) for one in value]
        case {"$zeros": count}:
            return bytes(count)
        case {"$bytes": text}:
            return base64.b64decode(text)
    return value
