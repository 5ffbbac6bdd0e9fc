"""Passages to a writer, and its numbers to marks."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.engine.fold import Answer, fold
from holdfast.engine.policy import ChatMessage
from holdfast.engine.run import UpstreamEnd
from holdfast.events import (
    Event,
    Finish,
    Notice,
    Reason,
    ReasoningDelta,
    Reference,
    References,
    Step,
    TextDelta,
    TextReplace,
    ToolCall,
    Usage,
)
from holdfast.upstreams.base import Ask, Exchange, Item
from holdfast.upstreams.library.writer import INSTRUCTIONS, CitingSink, Writer, prompt
from tests.support.scripted import DONE, ScriptedUpstream, texts
from tests.support.sink import RecordingSink

PASSAGES = [
    Reference(1, document_id="tides.md", document_name="Tides", text="Twice a day."),
    Reference(
        2,
        document_id="kelp.md",
        document_name="Kelp",
        text="It holds on.\n\nFast.",
        extra={"section": "Roots › Hold"},
    ),
]
ASK = Ask(
    "run",
    "session",
    "message",
    "Why?",
    history=[ChatMessage("user", "What?"), ChatMessage("assistant", "That [1].")],
    system="Be kind.",
    model="m",
    temperature=0.5,
    max_tokens=9,
    conversation="theirs",
    chat={"messages": []},
)
WROTE = Step("writing", "model")
FAILED = UpstreamEnd(Reason.UPSTREAM_UNREACHABLE, error="nobody is there")


async def write(
    *steps: Any, sink: RecordingSink | None = None, patience_s: float = 60.0
) -> tuple[RecordingSink, UpstreamEnd | None, ScriptedUpstream, Exchange]:
    sink, upstream = sink or RecordingSink(), ScriptedUpstream("model", *steps)
    exchange = Exchange({"query": "Why?"}, {"passages": []})
    end = await Writer(upstream, patience_s).write(ASK, PASSAGES, exchange, sink)
    return sink, end, upstream, exchange


class TestPrompt:
    def test_has_the_passages_with_their_numbers_and_the_question(self) -> None:
        assert prompt(ASK, PASSAGES).message == (
            "Passages:\n\n"
            "[1] Tides · tides.md\nTwice a day.\n\n"
            "[2] Kelp · Roots › Hold · kelp.md\nIt holds on.\n\nFast.\n\n"
            "Question: Why?"
        )

    def test_has_the_instructions_after_those_of_the_question(self) -> None:
        assert prompt(ASK, PASSAGES).system == f"Be kind.\n\n{INSTRUCTIONS}"
        bare = Ask("run", "session", "message", "Why?")
        assert prompt(bare, PASSAGES).system == INSTRUCTIONS
        assert "in the language of the question" in INSTRUCTIONS

    def test_goes_on_in_the_same_conversation_without_a_clients_own_request(self) -> None:
        asked = prompt(ASK, PASSAGES)
        assert asked.chat is None
        for name in ("history", "model", "temperature", "max_tokens", "conversation", "run_id"):
            assert getattr(asked, name) == getattr(ASK, name)


class TestWriting:
    async def test_what_the_writer_says_is_the_answer(self) -> None:
        said = [
            ReasoningDelta("hm [1]"),
            TextDelta("Daily [1]."),
            Usage(1, 2),
            UpstreamEnd(finish=Finish.LENGTH),
        ]
        sink, end, upstream, _ = await write([said[0]], said[1:])
        assert sink.events == [WROTE, said[0], TextDelta("Daily [1].", ((6, 9, 1),)), said[2]]
        assert end == UpstreamEnd(finish=Finish.LENGTH)
        assert upstream.calls[0].ask == prompt(ASK, PASSAGES)

    async def test_both_exchanges_are_kept(self) -> None:
        def note(call: Any) -> None:
            call.exchange.request, call.exchange.response = {"to": "model"}, ["from it"]

        sink, upstream = RecordingSink(), ScriptedUpstream("model", [*texts("a"), DONE])
        upstream.prepare = note
        exchange = Exchange({"query": "Why?"}, {"passages": []})
        await Writer(upstream, 60.0).write(ASK, PASSAGES, exchange, sink)
        assert exchange.request == {"query": "Why?", "writer": {"to": "model"}}
        assert exchange.response == {"passages": [], "writer": ["from it"]}

    @pytest.mark.parametrize(
        ("steps", "what"),
        [
            ([[FAILED]], "is down"),
            ([[DONE]], "said nothing"),
            ([[References((Reference(1),)), DONE]], "said nothing"),
            ([[UpstreamEnd(Reason.UPSTREAM_ERROR, status=401)]], "refuses its key"),
            ([[Step("s")], RuntimeError("a bug")], "failed"),
            ([None], "broke off"),
        ],
    )
    async def test_one_that_fails_before_has_written_nothing(
        self, steps: list[Any], what: str
    ) -> None:
        sink, end, _, _ = await write(*steps)
        assert end is None
        notice = Notice("fallback", f"model {what}, so the passages are quoted as they are")
        assert sink.events[-1] == notice
        assert sink.ends == []

    async def test_one_that_is_silent_has_failed(self) -> None:
        sink, end, upstream, _ = await write(patience_s=0.01)
        assert end is None
        assert isinstance(sink.events[-1], Notice)
        assert "does not answer" in sink.events[-1].message
        assert upstream.calls[0].closed.is_set()

    @pytest.mark.parametrize("first", [TextDelta("a"), ReasoningDelta("a"), ToolCall(0)])
    async def test_an_error_after_the_first_word_is_the_answers(self, first: Event) -> None:
        sink, end, _, _ = await write([first], [FAILED])
        assert (sink.events, sink.ends, end) == ([WROTE, first], [FAILED], FAILED)

    async def test_what_is_no_failure_of_the_writer_ends_the_answer(self) -> None:
        limit = UpstreamEnd(Reason.LIMIT, error="an event that is too large")
        sink, end, _, _ = await write([limit])
        assert (sink.events, sink.ends, end) == ([WROTE], [limit], limit)

    async def test_a_run_that_takes_no_more_is_not_written_for(self) -> None:
        limit = UpstreamEnd(Reason.LIMIT, error="enough")
        _, end, upstream, _ = await write(texts("a"), sink=RecordingSink(limit=1, end=limit))
        assert end == limit
        assert upstream.calls == []

    async def test_a_run_that_is_stopped_gets_what_was_held_back(self) -> None:
        sink, upstream = RecordingSink(), ScriptedUpstream("model", texts("a "), texts("[1"))
        writing = Writer(upstream, 60.0).write(ASK, PASSAGES, Exchange(), sink)
        task = asyncio.create_task(writing)
        await (await upstream.called()).hungry.wait()
        assert sink.text == "a "
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sink.text == "a [1"
        assert upstream.calls[0].closed.is_set()


def cited(*said: Item) -> list[Item]:
    """What a run gets of what a writer says, each item by itself."""
    sink = RecordingSink()
    citing = CitingSink(sink, PASSAGES)
    for item in said:
        citing.take([item])
    citing.release()
    return [*sink.events, *sink.ends]


class TestMarks:
    @pytest.mark.parametrize(
        ("text", "marks"),
        [
            ("It is so [1].", ((9, 12, 1),)),
            ("[2][1]", ((0, 3, 2), (3, 6, 1))),
            ("是的【2】。", ((2, 5, 2),)),
            ("Not [3], not [0], not [1, 2], not [^1].", ()),
            ("Not [12345] [a] [] [1", ()),
        ],
    )
    def test_point_to_passages_and_nothing_else(
        self, text: str, marks: tuple[tuple[int, int, int], ...]
    ) -> None:
        answer = fold(events(cited(TextDelta(text), DONE)))
        assert answer.marks == marks
        assert answer.text.replace("[2]", "【2】" if "【" in text else "[2]") == text

    def test_that_are_split_are_put_together(self) -> None:
        answer = fold(events(cited(*texts("so [", "1", "] and [2", "]."), DONE)))
        assert (answer.text, answer.marks) == ("so [1] and [2].", ((3, 6, 1), (11, 14, 2)))

    def test_that_are_only_begun_are_text_at_the_end(self) -> None:
        assert cited(*texts("so ["), DONE)[-2:] == [TextDelta("["), DONE]

    def test_of_a_rewritten_answer_are_found_again(self) -> None:
        assert cited(TextReplace("so [1] and [7]"), DONE) == [
            TextReplace("so [1] and [7]", ((3, 6, 1),)),
            DONE,
        ]

    def test_of_the_writers_own_are_text(self) -> None:
        """They point to references of its own, which nobody here has."""
        assert cited(TextDelta("so ["), TextDelta("b [1]", ((2, 5, 1),)), DONE) == [
            TextDelta("so "),
            TextDelta("[b [1]"),
            DONE,
        ]

    def test_everything_else_stays_but_references_and_who_answers(self) -> None:
        others: list[Event] = [Step("s"), ToolCall(0), Usage(1, 1), ReasoningDelta("[1]")]
        notice = Notice("n", "m", upstream="x", model="y", route="local_small")
        own = References((Reference(1),))
        assert cited(*others, own, notice, DONE) == [*others, Notice("n", "m"), DONE]


def events(items: Sequence[Item]) -> list[Event]:
    return [item for item in items if not isinstance(item, UpstreamEnd)]


WRITTEN = st.lists(
    st.sampled_from(["a", " ", "[", "]", "1", "2", "3", "【", "】", "[1]", "[2", "海"]), max_size=30
).map("".join)


@given(WRITTEN, st.data())
def test_however_it_is_cut_the_answer_is_the_same(text: str, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=6).map(sorted))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    whole = fold(events(cited(TextDelta(text), DONE)))
    cut = fold(events(cited(*[TextDelta(piece) for piece in pieces], DONE)))
    assert (cut.text, cut.marks) == (whole.text, whole.marks)
    assert_is_cited(whole)


def assert_is_cited(answer: Answer) -> None:
    for start, end, ordinal in answer.marks:
        assert answer.text[start:end] == f"[{ordinal}]"
        assert ordinal in (1, 2)
