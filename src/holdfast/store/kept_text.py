"""Text columns that give back every character, on PostgreSQL too, which takes no NUL."""

from collections.abc import Callable
from typing import Any, TypeAlias

from sqlalchemy import Text
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

ESCAPE = "\uffff"
"""A noncharacter: valid UTF-8, and in no text that people write."""
NUL = "\0"

_Process: TypeAlias = Callable[[Any], Any] | None


def escape(value: str) -> str:
    """`value` without NUL; nothing changes in a text that has neither NUL nor U+FFFF."""
    if NUL in value or ESCAPE in value:
        return value.replace(ESCAPE, ESCAPE + "1").replace(NUL, ESCAPE + "0")
    return value


def unescape(value: str) -> str:
    """The inverse of `escape`."""
    if ESCAPE in value:
        return value.replace(ESCAPE + "0", NUL).replace(ESCAPE + "1", ESCAPE)
    return value


class KeptText(TypeDecorator[str]):
    """Text; SQLite takes it as it is."""

    impl = Text
    cache_ok = True

    def bind_processor(self, dialect: Dialect) -> _Process:
        """Escape what goes to PostgreSQL."""
        if dialect.name != "postgresql":
            return None
        return lambda value: None if value is None else escape(value)

    def result_processor(self, dialect: Dialect, coltype: object) -> _Process:
        """Unescape what comes from PostgreSQL."""
        if dialect.name != "postgresql":
            return None
        return lambda value: None if value is None else unescape(value)
