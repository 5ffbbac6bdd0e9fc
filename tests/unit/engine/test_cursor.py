"""Cursors: what comes from outside is checked to the last character."""

import pytest

from holdfast.engine.cursor import Cursor, parse_cursor, parse_position
from holdfast.errors import BadRequest
from holdfast.ids import new_id

RUN = "01920000-0000-7000-8000-000000000000"
BAD = [
    "",
    ".",
    "r",
    "r.",
    ".1",
    "r.-1",
    "r.+1",
    "r.1.2",
    "r..1",
    "r.1 ",
    " r.1",
    "r. 1",
    "r.1\n",
    "\nr.1",
    "r.1\r",
    "r\0.1",
    "r.1\0",
    "r.0x1",
    "r.1e3",
    "r.1_0",
    "r.①",
    "r.١",
    "r.１",
    "é.1",
    "run_1.1",
    "a/b.1",
    "r;1",
    "r.1234567890123456",
    "x" * 65 + ".1",
    "null",
    "undefined.1.1",
]


def test_a_cursor_is_written_as_it_is_read() -> None:
    cursor = Cursor(new_id(), 200)
    assert parse_cursor(str(cursor)) == cursor
    assert str(Cursor(RUN, 0)) == f"{RUN}.0"


@pytest.mark.parametrize("text", BAD)
def test_p5_a_malformed_cursor_is_refused_and_never_guessed_at(text: str) -> None:
    with pytest.raises(BadRequest):
        parse_cursor(text)


@pytest.mark.parametrize("text", BAD)
def test_p5_a_malformed_position_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        parse_position(text, RUN)


@pytest.mark.parametrize("text", ["1234567890123456", "9" * 5_000, "-1", "１"])
def test_a_bare_seq_out_of_bounds_is_refused(text: str) -> None:
    with pytest.raises(BadRequest):
        parse_position(text, RUN)


@pytest.mark.parametrize(
    ("text", "seq"), [("0", 0), ("7", 7), ("007", 7), ("999999999999999", 999_999_999_999_999)]
)
def test_a_bare_seq_is_of_the_run_at_hand(text: str, seq: int) -> None:
    assert parse_position(text, RUN) == Cursor(RUN, seq)


def test_a_whole_cursor_keeps_its_own_run() -> None:
    assert parse_position("other.5", RUN) == Cursor("other", 5)
