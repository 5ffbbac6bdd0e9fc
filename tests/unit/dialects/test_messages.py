"""The bytes of the messages dialect, and the texts of its clients."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.dialects.base import About
from holdfast.dialects.messages import (
    MAX_PLACES,
    LegacyMessagesEncoder,
    MessagesEncoder,
    continued,
    reference_object,
    with_ids,
)
from holdfast.events import (
    Event,
    Outcome,
    Reason,
    ReasoningDelta,
    Reference,
    References,
    RunEnd,
    RunStart,
    TextDelta,
    TextReplace,
)
from tests.support.frames import datas_of, entries_of

ABOUT = About("run", "my chat", 1_000)
START = RunStart("run", "s", "msg", "q", "kb")
COMPLETED = RunEnd(Outcome.COMPLETED)
FIRST = Reference(1, "d1", "kelp.md", "c1", "A root.", None, 0.5, [[1, 2]], {"dataset_id": "k"})
THIRD = Reference(3, "d1", "kelp.md", "c3", "A wave.")


def written(*events: Event, legacy: bool = False) -> list[Any]:
    encoder = LegacyMessagesEncoder(ABOUT) if legacy else MessagesEncoder(ABOUT)
    return datas_of(b"".join(encoder.encode([entry]) for entry in entries_of(START, *events)))


def answers(frames: list[Any]) -> list[str]:
    return [frame["data"]["answer"] for frame in frames[:-1]]


def test_a_frame_is_ragflows_to_the_byte() -> None:
    encoder = MessagesEncoder(ABOUT)
    assert (
        encoder.encode(entries_of(START, TextDelta("海带")))
        == (
            'data:{"code":0,"message":"","data":{"answer":"海带","reference":{"chunks":[]},'
            '"final":false,"id":"msg","session_id":"my chat"}}\n\n'
        ).encode()
    )
    assert (
        encoder.encode(entries_of(COMPLETED, first=3))
        == (
            'data:{"code":0,"message":"","data":{"answer":"海带",'
            '"reference":{"total":0,"chunks":[],"doc_aggs":[]},'
            '"final":true,"id":"msg","session_id":"my chat"}}\n\n'
            'data:{"code":0,"message":"","data":true}\n\n'
        ).encode()
    )


def test_a_rewritten_answer_is_right_in_the_final_frame() -> None:
    said: list[Event] = [TextDelta("Kelp"), TextReplace("Rock"), TextDelta("s"), COMPLETED]
    assert answers(written(*said)) == ["Kelp", "Rocks"]
    assert answers(written(*said, legacy=True)) == ["Kelp", "Rock", "Rocks", "Rocks"]


def test_reasoning_is_no_part_of_the_dialect() -> None:
    assert answers(written(ReasoningDelta("Hm."), TextDelta("Kelp"), COMPLETED)) == ["Kelp"] * 2


@pytest.mark.parametrize("outcome", [Outcome.INTERRUPTED, Outcome.FAILED])
def test_an_early_end_says_so_and_keeps_what_came(outcome: Outcome) -> None:
    end = RunEnd(outcome, Reason.UPSTREAM_TIMEOUT)
    *_, final, terminator = written(References((FIRST,)), TextDelta("Kelp"), end)
    assert (final["code"], final["data"]["answer"]) == (500, "Kelp")
    assert "upstream_timeout" in final["message"]
    assert final["data"]["reference"]["chunks"][0]["content"] == "A root."
    assert terminator["data"] is True


def test_chunks_stand_where_marks_name_them() -> None:
    told = reference_object((THIRD, FIRST))
    assert [chunk["id"] for chunk in told["chunks"]] == ["c1", "", "c3"]
    assert (told["total"], told["doc_aggs"]) == (
        2,
        [{"doc_name": "kelp.md", "doc_id": "d1", "count": 2}],
    )
    first = told["chunks"][0]
    assert (first["dataset_id"], first["similarity"], first["positions"]) == ("k", 0.5, [[1, 2]])


def test_an_absurd_ordinal_makes_no_absurd_list() -> None:
    told = reference_object((FIRST, Reference(10**9, text="far")))
    assert len(told["chunks"]) <= MAX_PLACES
    assert [chunk["content"] for chunk in told["chunks"]] == ["A root.", "far"]


texts = st.text(st.sampled_from("ab[]1中"), max_size=8)


@given(st.lists(st.tuples(texts, st.integers(1, 12)), max_size=4), texts, texts)
def test_what_a_client_has_is_continued_and_nothing_else_is(
    cited: list[tuple[str, int]], last: str, more: str
) -> None:
    text, marks = "", []
    for before, ordinal in cited:
        start = len(text) + len(before)
        text += f"{before}[{ordinal}]"
        marks.append((start, len(text), ordinal))
    text += last
    client = with_ids(text, marks)
    assert client == "".join(f"{before}[ID:{n - 1}]" for before, n in cited) + last
    assert continued(text, marks, client + more) == text + more
    if client:
        assert continued(text, marks, "x" + client) is None


def test_the_same_answer_twice_is_the_same() -> None:
    once = continued("A [1]", [(2, 5, 1)], "A [ID:0] and [ID:1]")
    assert once == "A [1] and [ID:1]"
    assert continued(once, [(2, 5, 1)], "A [ID:0] and [ID:1]") == once
