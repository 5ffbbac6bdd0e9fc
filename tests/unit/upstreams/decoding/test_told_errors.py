from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.upstreams.decoding.told_errors import CHARS, ErrorWatch


def watch(*deltas: str) -> tuple[str, str | None]:
    """The text of an answer that comes in these deltas, and its error."""
    watching = ErrorWatch()
    text = "".join(watching.feed(delta) for delta in deltas)
    return text + watching.flush(), watching.error


@pytest.mark.parametrize(
    ("deltas", "text", "error"),
    [
        (["**ERROR**: E"], "", "E"),
        (["  **ERROR**: E"], "", "E"),
        (["Half", "**ERROR**: it broke"], "Half", "it broke"),
        (["Half\n**ERROR**: it broke"], "Half", "it broke"),
        (["Half\n\n", "**ERROR**: it broke"], "Half\n\n", "it broke"),
        (["Half**ERROR**: TIMEOUT - slow"], "Half", "TIMEOUT - slow"),
        (["Half **ERROR**: RATE_LIMIT_EXCEEDED - slow"], "Half", "RATE_LIMIT_EXCEEDED - slow"),
        (["Half", "**ERROR**: a", " b", " c"], "Half", "a b c"),
        (["**ERROR**: "], "", ""),
    ],
)
def test_an_error_told_as_text_is_the_error(deltas: list[str], text: str, error: str) -> None:
    assert watch(*deltas) == (text, error)


@pytest.mark.parametrize(
    "prose",
    [
        "The log has **ERROR**: lines, such as **ERROR**: disk full.",
        "It says **ERROR**: AB - no, and **ERROR**:nothing",
        "a **bold** word, 2 * 3, and a * at the end *",
        "an unfinished **ERROR",
        "at the very end **ERROR**: ",
        "at the very end **ERROR**: TIMEOUT -",
    ],
)
def test_prose_about_errors_is_text_however_it_is_cut(prose: str) -> None:
    assert watch(prose) == (prose, None)
    for place in range(len(prose)):
        head, tail = prose[:place], prose[place:]
        if not tail.lstrip().startswith("**ERROR**: "):  # there, a delta would start with it
            assert watch(head, tail) == (prose, None), place


@pytest.mark.parametrize(
    ("told", "text"),
    [
        ("**ERROR**: AUTH_ERROR - no", ""),
        ("Half\n**ERROR**: AUTH_ERROR - no", "Half"),
        ("Half. **ERROR**: AUTH_ERROR - no", "Half."),
        ("**bold** **ERROR**: AUTH_ERROR - no", "**bold**"),
    ],
)
def test_an_error_may_be_cut_anywhere(told: str, text: str) -> None:
    for place in range(len(told) + 1):
        got, error = watch(told[:place], told[place:])
        assert (got.rstrip(), error) == (text, "AUTH_ERROR - no"), place
    got, error = watch(*told)
    assert (got.rstrip(), error) == (text, "AUTH_ERROR - no")


def test_a_mark_cut_inside_of_a_line_is_not_at_the_start_of_a_delta() -> None:
    assert watch("see **ER", "ROR**: lines") == ("see **ERROR**: lines", None)
    assert watch("see\n**ER", "ROR**: lines") == ("see\n", "lines")


def test_only_what_may_become_an_error_is_held() -> None:
    watching = ErrorWatch()
    assert watching.feed("a **") == "a "
    assert watching.feed("bold** b") == "**bold** b"
    assert watching.feed(" *") == " "
    assert watching.flush() == "*"
    assert watching.flush() == ""


def test_an_endless_error_is_bounded() -> None:
    _, error = watch("**ERROR**: x", *["y" * CHARS] * 3)
    assert error is not None
    assert len(error) == CHARS


pieces = st.sampled_from(["**", "*", "ERROR", "**ERROR*", ": ", "E", " ", "\n", "TIMEOUT - ", "中"])


@given(st.lists(pieces, max_size=12), st.data())
def test_no_character_is_lost(parts: list[str], data: st.DataObject) -> None:
    text = "".join(parts)
    places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    got, error = watch(*[text[start:end] for start, end in pairwise([0, *places, len(text)])])
    if error is None:
        assert got == text
    else:
        assert text.endswith("**ERROR**: " + error)
        assert text[: -len("**ERROR**: " + error)].split() == got.split()
