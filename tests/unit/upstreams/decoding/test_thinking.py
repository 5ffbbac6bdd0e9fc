from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.upstreams.decoding.thinking import Piece, ThinkSplitter


def split(*deltas: str, tag: str = "think") -> list[Piece]:
    """The pieces of a text that comes in these deltas, neighbours of one kind joined."""
    splitter = ThinkSplitter(tag)
    pieces = [piece for delta in deltas for piece in splitter.feed(delta)] + splitter.flush()
    joined: list[Piece] = []
    for thought, text in pieces:
        assert text
        if joined and joined[-1][0] is thought:
            text = joined.pop()[1] + text
        joined.append((thought, text))
    return joined


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("", []),
        ("plain", [(False, "plain")]),
        ("<think>A</think>B", [(True, "A"), (False, "B")]),
        ("<think>A</think>\n\nB", [(True, "A"), (False, "\n\nB")]),
        ("B<think>A</think>", [(False, "B"), (True, "A")]),
        ("<think>A</think><think>C</think>B", [(True, "AC"), (False, "B")]),
        ("<think></think>B", [(False, "B")]),
        ("<think>never closed", [(True, "never closed")]),
        ("<think>a <think> b</think>c", [(True, "a <think> b"), (False, "c")]),
        ("a </think> b", [(False, "a </think> b")]),
        ("a < b <thin> <thinking>", [(False, "a < b <thin> <thinking>")]),
        ("<<think>A<</think>B", [(False, "<"), (True, "A<"), (False, "B")]),
        ("the `<think>` tag", [(False, "the `<think>` tag")]),
        ("<think>the `</think>` tag</think>B", [(True, "the `</think>` tag"), (False, "B")]),
    ],
)
def test_thoughts_are_split_off_however_the_text_is_cut(text: str, pieces: list[Piece]) -> None:
    assert split(text) == pieces
    assert split(*text) == pieces
    for place in range(len(text)):
        assert split(text[:place], text[place:]) == pieces, place


def test_only_what_may_become_a_tag_is_held() -> None:
    splitter = ThinkSplitter()
    assert splitter.feed("a <thi") == [(False, "a ")]
    assert splitter.feed("rd") == [(False, "<third")]
    assert splitter.feed("<think>b </thin") == [(True, "b ")]
    assert splitter.inside
    assert splitter.flush() == [(True, "</thin")]
    assert splitter.flush() == []


def test_another_tag() -> None:
    assert split("<a>x</a>y<think>", tag="a") == [(True, "x"), (False, "y<think>")]


pieces_of_text = st.sampled_from(["<think>", "</think>", "<", "think>", "</", "`", "a", "中", "\n"])


@given(st.lists(pieces_of_text, max_size=10), st.data())
def test_the_deltas_do_not_matter_and_nothing_but_tags_is_lost(
    parts: list[str], data: st.DataObject
) -> None:
    text = "".join(parts)
    places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    deltas = [text[start:end] for start, end in pairwise([0, *places, len(text)])]
    assert split(*deltas) == split(text)
    kept = "".join(piece for _, piece in split(text))
    assert len(text) - len(kept) in {
        7 * opened + 8 * (opened - n) for opened in range(6) for n in (0, 1)
    }
