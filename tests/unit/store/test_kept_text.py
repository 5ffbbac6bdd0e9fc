"""Escaping for PostgreSQL: every text comes back, none has a NUL, ordinary ones are untouched."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.dialects import postgresql, sqlite

from holdfast.store.kept_text import ESCAPE, NUL, KeptText, escape, unescape

HARD = st.text(st.sampled_from([NUL, ESCAPE, "0", "1", "a", "海"]), max_size=12)


@given(st.one_of(HARD, st.text()))
def test_every_text_comes_back_and_goes_without_nul(text: str) -> None:
    assert NUL not in escape(text)
    assert unescape(escape(text)) == text


@given(HARD, HARD)
def test_different_texts_stay_different(one: str, other: str) -> None:
    assert (escape(one) == escape(other)) == (one == other)


@given(st.text().filter(lambda text: NUL not in text and ESCAPE not in text))
def test_a_text_without_them_is_stored_as_it_is(text: str) -> None:
    assert escape(text) == text == unescape(text)


def test_only_postgresql_needs_it() -> None:
    column = KeptText()
    assert column.bind_processor(sqlite.dialect()) is None
    assert column.result_processor(sqlite.dialect(), None) is None
    bind = column.bind_processor(postgresql.dialect())  # type: ignore[no-untyped-call]
    result = column.result_processor(postgresql.dialect(), None)  # type: ignore[no-untyped-call]
    assert bind is not None
    assert result is not None
    assert result(bind("a\0b")) == "a\0b"
    assert bind(None) is None
    assert result(None) is None


@pytest.mark.parametrize("text", ["", NUL, ESCAPE, ESCAPE + "0", NUL + ESCAPE, ESCAPE * 3])
def test_the_awkward_ones(text: str) -> None:
    assert unescape(escape(text)) == text
