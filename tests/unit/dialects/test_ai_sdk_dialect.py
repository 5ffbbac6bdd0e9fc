"""The AI SDK dialect: its bytes, and that the strictest client takes them."""

import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.dialects.ai_sdk import AiSdkEncoder, in_utf16, message_parts, source
from holdfast.dialects.base import DONE, HEARTBEAT, OPENING, About
from holdfast.engine.fold import Answer, fold
from holdfast.events import (
    Entry,
    Event,
    Finish,
    Notice,
    Outcome,
    Reason,
    ReasoningDelta,
    Reference,
    References,
    RunEnd,
    RunStart,
    Step,
    TextDelta,
    TextReplace,
    ToolCall,
    Usage,
    encode,
)
from tests.support.strategies import contents, ends
from tests.support.ui_message_stream import Seen, read

ABOUT = About("r1", "chat-1", 1_700_000_000_000)
START = RunStart("r1", "s1", "m1", "q1", "gpt", model="some-model", route_reason="the default")
COMPLETED = RunEnd(Outcome.COMPLETED)
CANCELLED = RunEnd(Outcome.CANCELLED, Reason.CLIENT_CANCELLED)
BROKEN = RunEnd(Outcome.INTERRUPTED, Reason.UPSTREAM_ERROR, error="overloaded")
REFERENCE = Reference(1, "d1", "kelp.pdf", text="Kelp is large.")


def entries(*events: Event) -> list[Entry]:
    return [Entry(seq, event, encode(event)) for seq, event in enumerate(events, 1)]


def written(*events: Event) -> bytes:
    """The bytes of a run, an event at a time."""
    encoder = AiSdkEncoder(ABOUT)
    return b"".join(encoder.encode([entry]) for entry in entries(START, *events))


def seen(*events: Event) -> Seen:
    return read(written(*events), whole=isinstance(events[-1], RunEnd))


def frame(**chunk: Any) -> bytes:
    text = json.dumps(chunk, separators=(",", ":"), ensure_ascii=False)
    return f"data: {text}\n\n".encode()


def run_part(status: str, **more: Any) -> dict[str, Any]:
    said = {"run_id": "r1", "session_id": "chat-1", "status": status, "upstream": "gpt"}
    said |= {"model": "some-model", "route_reason": "the default", **more}
    return {"type": "data-run", "id": "run", "data": said}


BEGUN = (
    frame(type="start", messageId="m1") + frame(type="start-step") + frame(**run_part("streaming"))
)


class TestBytes:
    def test_of_a_text(self) -> None:
        assert written(TextDelta("Kelp "), TextDelta("holds."), COMPLETED) == (
            BEGUN
            + frame(type="text-start", id="text-1")
            + frame(type="text-delta", id="text-1", delta="Kelp ")
            + frame(type="text-delta", id="text-1", delta="holds.")
            + frame(type="text-end", id="text-1")
            + frame(**run_part("complete", outcome="completed"))
            + frame(type="finish-step")
            + frame(type="finish", finishReason="stop")
            + DONE
        )

    def test_of_the_text_of_one_wake_up_are_one_delta(self) -> None:
        encoder = AiSdkEncoder(ABOUT)
        log = entries(START, TextDelta("Kelp "), TextDelta("holds."))
        assert encoder.encode(log) == (
            BEGUN
            + frame(type="text-start", id="text-1")
            + frame(type="text-delta", id="text-1", delta="Kelp holds.")
        )

    def test_of_reasoning_between_texts_are_parts_of_their_own(self) -> None:
        body = written(TextDelta("a"), ReasoningDelta("b"), TextDelta("c"), COMPLETED)
        assert (
            frame(type="text-start", id="text-1")
            + frame(type="text-delta", id="text-1", delta="a")
            + frame(type="text-end", id="text-1")
            + frame(type="reasoning-start", id="reasoning-2")
            + frame(type="reasoning-delta", id="reasoning-2", delta="b")
            + frame(type="reasoning-end", id="reasoning-2")
            + frame(type="text-start", id="text-3")
            + frame(type="text-delta", id="text-3", delta="c")
            + frame(type="text-end", id="text-3")
        ) in body

    def test_of_references(self) -> None:
        page = Reference(2, url="https://kelp.example/a", document_name="海带")
        body = written(References((REFERENCE, page)))
        assert body.removeprefix(BEGUN) == (
            frame(
                type="source-document",
                sourceId="m1-1",
                mediaType="application/pdf",
                title="kelp.pdf",
                filename="kelp.pdf",
                providerMetadata={"holdfast": {"ordinal": 1}},
            )
            + frame(
                type="source-url",
                sourceId="m1-2",
                url="https://kelp.example/a",
                title="海带",
                providerMetadata={"holdfast": {"ordinal": 2}},
            )
            + frame(
                type="data-citations",
                id="citations",
                data={
                    "marks": [],
                    "references": [json.loads(encode(one)) for one in (REFERENCE, page)],
                },
            )
        )

    def test_of_a_step_and_a_notice_are_transient(self) -> None:
        body = written(Step("searching", "3 documents"), Step("thinking"), Notice("down", "Sorry."))
        assert body.removeprefix(BEGUN) == (
            frame(
                type="data-step",
                data={"label": "searching", "detail": "3 documents"},
                transient=True,
            )
            + frame(type="data-step", data={"label": "thinking"}, transient=True)
            + frame(type="data-notice", data={"code": "down", "message": "Sorry."}, transient=True)
        )

    def test_of_a_tool_call(self) -> None:
        pieces = [
            ToolCall(0, "c1", "weather", '{"city":'),
            ToolCall(0, arguments_delta='"Bergen"}'),
        ]
        body = written(*pieces, RunEnd(Outcome.COMPLETED, finish=Finish.TOOL_CALLS))
        assert body.removeprefix(BEGUN) == (
            frame(type="tool-input-start", toolCallId="c1", toolName="weather")
            + frame(type="tool-input-delta", toolCallId="c1", inputTextDelta='{"city":')
            + frame(type="tool-input-delta", toolCallId="c1", inputTextDelta='"Bergen"}')
            + frame(
                type="tool-input-available",
                toolCallId="c1",
                toolName="weather",
                input={"city": "Bergen"},
            )
            + frame(**run_part("complete", outcome="completed"))
            + frame(type="finish-step")
            + frame(type="finish", finishReason="tool-calls")
            + DONE
        )

    def test_of_a_cancelled_run_are_ended_parts_and_abort(self) -> None:
        body = written(TextDelta("Ke"), CANCELLED)
        assert body.endswith(
            frame(type="text-end", id="text-1")
            + frame(**run_part("partial", outcome="cancelled", reason="client_cancelled"))
            + frame(type="abort")
            + DONE
        )

    def test_of_an_interrupted_run_are_ended_parts_and_error(self) -> None:
        said = {"outcome": "interrupted", "reason": "upstream_error", "error": "overloaded"}
        assert written(ReasoningDelta("Hm"), BROKEN).endswith(
            frame(type="reasoning-end", id="reasoning-1")
            + frame(**run_part("partial", **said))
            + frame(type="error", errorText="overloaded")
            + DONE
        )

    def test_of_a_failed_run_without_words_say_why(self) -> None:
        body = written(RunEnd(Outcome.FAILED, Reason.SERVER_CRASH))
        text = "the answer ended early: server_crash"
        assert body.endswith(frame(type="error", errorText=text) + DONE)

    def test_are_comments_before_and_between(self) -> None:
        encoder = AiSdkEncoder(ABOUT)
        assert (encoder.opening(), encoder.heartbeat()) == (OPENING, HEARTBEAT)
        assert encoder.encode([]) == b""


class TestEnd:
    @pytest.mark.parametrize(
        ("finish", "told"),
        [
            (None, "stop"),
            (Finish.STOP, "stop"),
            (Finish.LENGTH, "length"),
            (Finish.TOOL_CALLS, "tool-calls"),
            (Finish.CONTENT_FILTER, "content-filter"),
        ],
    )
    def test_tells_why_the_model_stopped(self, finish: Finish | None, told: str) -> None:
        ending = seen(TextDelta("a"), RunEnd(Outcome.COMPLETED, finish=finish)).ending
        assert ending == {"type": "finish", "finishReason": told}

    def test_knows_every_reason_to_stop(self) -> None:
        for finish in (None, *Finish):
            assert seen(TextDelta("a"), RunEnd(Outcome.COMPLETED, finish=finish)).ending

    @pytest.mark.parametrize("outcome", Outcome)
    def test_p9_ends_every_part_whatever_the_end_is(self, outcome: Outcome) -> None:
        for open_part in (TextDelta("a"), ReasoningDelta("b"), ToolCall(0, "c", "f", '{"x"')):
            found = seen(open_part, RunEnd(outcome, Reason.LIMIT))
            kinds = {"completed": "finish", "cancelled": "abort"}
            assert found.ending is not None
            assert found.ending["type"] == kinds.get(outcome, "error")

    def test_tells_the_usage_with_the_run(self) -> None:
        found = seen(TextDelta("a"), Usage(3, 4), COMPLETED)
        usage = {"input_tokens": 3, "output_tokens": 4}
        assert found.data("run")["usage"] == usage


class TestSources:
    def test_p4_come_once_each_however_often_the_set_is_told(self) -> None:
        other = Reference(2, "d2", "tide.md")
        found = seen(References((REFERENCE,)), References((other, REFERENCE)), COMPLETED)
        assert [one["sourceId"] for one in found.of("source-document")] == ["m1-1", "m1-2"]
        assert [one["ordinal"] for one in found.data("citations")["references"]] == [2, 1]

    def test_have_stable_ids(self) -> None:
        assert source(REFERENCE, "m1") == source(REFERENCE, "m1")
        assert source(REFERENCE, "m1")["sourceId"] != source(REFERENCE, "m2")["sourceId"]

    @pytest.mark.parametrize("url", ["javascript:alert(1)", "file:///etc/passwd", "data:,x", ""])
    def test_never_link_to_anything_but_the_web(self, url: str) -> None:
        found = source(Reference(1, "d1", url=url), "m1")
        assert found["type"] == "source-document"
        assert "url" not in found

    def test_of_the_web_need_no_title(self) -> None:
        found = source(Reference(1, url="HTTP://kelp.example"), "m1")
        assert (found["type"], "title" in found) == ("source-url", False)

    @pytest.mark.parametrize(
        ("reference", "title", "media_type"),
        [
            (Reference(4), "Source 4", "application/octet-stream"),
            (Reference(4, "doc-1"), "doc-1", "application/octet-stream"),
            (Reference(4, "doc-1", "A.TXT"), "A.TXT", "text/plain"),
            (Reference(4, document_name="pdf"), "pdf", "application/pdf"),
            (Reference(4, document_name="a.pdf.exe"), "a.pdf.exe", "application/octet-stream"),
        ],
    )
    def test_of_documents_have_a_title_and_a_media_type(
        self, reference: Reference, title: str, media_type: str
    ) -> None:
        found = source(reference, "m1")
        assert (found["title"], found["mediaType"]) == (title, media_type)

    def test_p4_carry_their_passages_in_the_citations(self) -> None:
        found = seen(References((REFERENCE,)), BROKEN)
        assert found.data("citations")["references"][0]["text"] == "Kelp is large."


class TestMarks:
    def test_p4_come_with_the_text_that_was_sent(self) -> None:
        found = seen(
            References((REFERENCE,)),
            TextDelta("Kelp [1]"),
            TextDelta(" and [1].", ((5, 8, 1),)),
            COMPLETED,
        )
        assert found.text == "Kelp [1] and [1]."
        assert found.data("citations")["marks"] == [[13, 16, 1]]

    def test_count_as_javascript_does(self) -> None:
        found = seen(
            TextDelta("🌿海 [1]", ((3, 6, 1),)),
            ReasoningDelta("🌿"),
            TextDelta("🌿[2]", ((1, 4, 2),)),
            COMPLETED,
        )
        units = found.text.encode("utf-16-le")
        marks = found.data("citations")["marks"]
        cited = [units[start * 2 : end * 2].decode("utf-16-le") for start, end, _ in marks]
        assert cited == ["[1]", "[2]"]

    @given(st.text(), st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=3))
    def test_count_as_javascript_does_in_any_text(
        self, text: str, spans: list[tuple[int, int]]
    ) -> None:
        marks = [(min(*s, len(text)), min(max(s), len(text)), 1) for s in spans]
        units = text.encode("utf-16-le")
        for (start, end, _), (a, b, _) in zip(in_utf16(text, marks), marks, strict=True):
            assert units[start * 2 : end * 2].decode("utf-16-le") == text[a:b]

    def test_are_not_told_again_if_nothing_is_new(self) -> None:
        found = seen(TextDelta("[1]", ((0, 3, 1),)), References((REFERENCE,)), COMPLETED)
        assert len([one for one in found.chunks if one["type"] == "data-citations"]) == 1
        assert found.data("citations")["marks"] == [[0, 3, 1]]

    def test_without_references_come_too(self) -> None:
        found = seen(TextDelta("[1]", ((0, 3, 1),)), COMPLETED)
        assert found.data("citations") == {"marks": [[0, 3, 1]], "references": []}


class TestRewrittenText:
    def test_goes_on_where_it_extends_what_was_sent(self) -> None:
        found = seen(TextDelta("Kelp"), TextReplace("Kelp holds [1].", ((11, 14, 1),)), COMPLETED)
        assert found.text == "Kelp holds [1]."
        assert found.data("citations")["marks"] == [[11, 14, 1]]
        assert not found.of("data-answer")

    def test_that_says_something_else_is_told_beside_the_text(self) -> None:
        found = seen(
            TextDelta("Kelp holds."), TextReplace("🌿 Kelp [1] holds.", ((7, 10, 1),)), COMPLETED
        )
        assert found.text == "Kelp holds."
        assert found.data("answer") == {"text": "🌿 Kelp [1] holds.", "marks": [[8, 11, 1]]}
        assert not found.of("data-citations")  # there is nothing to mark in what the client has

    def test_p9_that_is_cut_off_is_told_too(self) -> None:
        found = seen(TextDelta("a"), TextReplace("b"), TextDelta("c"), BROKEN)
        assert (found.text, found.data("answer")["text"]) == ("a", "bc")


class TestToolCalls:
    def test_wait_for_their_name(self) -> None:
        found = seen(
            ToolCall(0, arguments_delta='{"a"'),
            ToolCall(0, "late", "f", ":1}"),
            COMPLETED,
        )
        (call,) = found.of("tool-f")
        assert (call["toolCallId"], call["input"], call["raw"]) == ("late", {"a": 1}, '{"a":1}')

    def test_keep_the_id_that_they_began_with(self) -> None:
        found = seen(ToolCall(2, None, "f", "{"), ToolCall(2, "late", "g", "}"), COMPLETED)
        (call,) = found.of("tool-f")
        assert (call["toolCallId"], call["input"]) == ("call-2", {})

    def test_without_a_name_are_not_lost(self) -> None:
        (call,) = seen(ToolCall(0, "c", "", "[1]"), COMPLETED).of("tool-unknown")
        assert call["input"] == [1]

    def test_without_arguments_have_an_empty_object(self) -> None:
        (call,) = seen(ToolCall(0, "c", "now"), COMPLETED).of("tool-now")
        assert (call["input"], call["state"]) == ({}, "input-available")

    @pytest.mark.parametrize("end", [CANCELLED, BROKEN])
    def test_p9_of_an_answer_that_broke_off_are_not_to_be_executed(self, end: RunEnd) -> None:
        (call,) = seen(ToolCall(0, "c", "wipe", '{"disk":1}'), end).of("tool-wipe")
        assert (call["state"], call["rawInput"]) == ("output-error", '{"disk":1}')

    @pytest.mark.parametrize("arguments", ['{"a":', "nonsense", "[" * 5_000, "\ud7ff", "1e999"])
    def test_with_arguments_that_are_no_json_are_errors(self, arguments: str) -> None:
        (call,) = seen(ToolCall(0, "c", "f", arguments), COMPLETED).of("tool-f")
        assert (call["state"], call["rawInput"]) == ("output-error", arguments)

    def test_with_the_same_id_twice_do_not_break_the_stream(self) -> None:
        found = seen(ToolCall(0, "c", "f", "{}"), ToolCall(1, "c", "f", "{}"), COMPLETED)
        assert found.ending is not None

    def test_end_the_text_before_them(self) -> None:
        found = seen(TextDelta("a"), ToolCall(0, "c", "f", "{}"), TextDelta("b"), COMPLETED)
        kinds = [part["type"] for part in found.parts]
        assert kinds == ["step-start", "data-run", "text", "tool-f", "text"]


class TestAnotherUpstream:
    def test_is_told_with_the_run(self) -> None:
        notice = Notice("fallback", "The cloud is down.", upstream="docs")
        found = seen(notice, TextDelta("a"), COMPLETED)
        assert found.data("run")["upstream"] == "docs"
        assert "model" not in found.data("run")
        assert found.transient[0]["data"]["upstream"] == "docs"


class TestParts:
    """Of a message in the history: what a client has at the end of its stream."""

    @pytest.mark.parametrize("end", [COMPLETED, CANCELLED, BROKEN])
    def test_are_those_of_the_stream(self, end: RunEnd) -> None:
        said: Sequence[Event] = [
            ReasoningDelta("Hm."),
            TextDelta("🌿 Kelp [1].", ((7, 10, 1),)),
            ToolCall(0, "c1", "f", '{"a":1}'),
            ToolCall(1, "c2", "g", "{"),
            References((REFERENCE, Reference(2, url="https://kelp.example"))),
            Usage(1, 2),
            end,
        ]
        found = seen(*said)
        answer = fold([START, *said])
        run = found.data("run")
        parts = json.loads(encode(message_parts(answer, "m1", run, live=False)))
        for call in found.parts:
            call.pop("raw", None)
        assert parts == found.parts

    def test_of_a_live_message_are_open(self) -> None:
        answer = fold([START, ReasoningDelta("Hm"), TextDelta("Ke"), ToolCall(0, "c", "f", "{")])
        parts = message_parts(answer, "m1", {"status": "streaming"}, live=True)
        assert [part.get("state") for part in parts[2:]] == [
            "streaming",
            "streaming",
            "input-streaming",
        ]

    def test_of_nothing_say_how_it_ended(self) -> None:
        parts = message_parts(Answer(), "m1", {"status": "failed", "error": None}, live=False)
        assert parts == [
            {"type": "step-start"},
            {"type": "data-run", "id": "run", "data": {"status": "failed"}},
        ]


runs = st.lists(contents, max_size=12)


class TestAnyRun:
    @given(runs, ends)
    def test_p9_is_a_stream_that_the_strictest_client_takes(
        self, said: list[Event], end: RunEnd
    ) -> None:
        found = seen(*said, end)
        assert found.id == "m1"
        assert found.ending is not None
        assert found.data("run")["outcome"] == end.outcome
        answer = fold([START, *said, end])
        assert found.reasoning == answer.reasoning
        right = found.data("answer")["text"] if found.of("data-answer") else found.text
        assert right == answer.text

    @given(runs, ends, st.data())
    def test_p5_resumed_anywhere_is_written_as_without_the_interruption(
        self, said: list[Event], end: RunEnd, data: st.DataObject
    ) -> None:
        log = entries(START, *said, end)
        whole = written(*said, end)
        cut = data.draw(st.integers(0, len(log)))
        encoder = AiSdkEncoder(ABOUT)
        before = b"".join(encoder.encode([entry]) for entry in log[:cut])
        after = b"".join(encoder.encode([entry]) for entry in log[cut:])
        assert before + after == whole
        assert read(before, whole=False).ending is None or cut == len(log)

    @given(runs, ends, st.data())
    def test_says_the_same_in_batches_of_any_size(
        self, said: list[Event], end: RunEnd, data: st.DataObject
    ) -> None:
        log = entries(START, *said, end)
        encoder = AiSdkEncoder(ABOUT)
        body = b""
        while log:
            size = data.draw(st.integers(1, len(log)))
            body += encoder.encode(log[:size])
            del log[:size]
        whole = seen(*said, end)
        found = read(body)
        assert (found.parts, found.transient) == (whole.parts, whole.transient)


def test_references_are_told_in_the_native_shape() -> None:
    full = Reference(1, "d", "n.md", "c", "t", "https://kelp.example", 0.5, [[1]], {"page": 7})
    found = seen(References((full,)))
    assert msgspec.convert(found.data("citations")["references"][0], Reference) == full
