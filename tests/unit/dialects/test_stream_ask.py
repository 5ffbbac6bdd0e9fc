"""The stream-ask dialect, byte for byte."""

import pytest

from holdfast.dialects.base import About
from holdfast.dialects.stream_ask import StreamAskEncoder
from holdfast.events import (
    Event,
    Outcome,
    Reason,
    Reference,
    References,
    RunEnd,
    RunStart,
    TextDelta,
)
from tests.support.frames import datas_of, entries_of

START = RunStart("run-1", "s1", "m1", "q1", "notes")
TEXT = TextDelta("海")


def encoded(*events: Event) -> bytes:
    return StreamAskEncoder(About("run-1", "s1", 0)).encode(entries_of(START, *events))


def test_a_completed_answer() -> None:
    references = References((Reference(1, document_name="kelp.md", text="A root."),))
    assert encoded(TEXT, references, RunEnd(Outcome.COMPLETED)) == (
        b'data: {"type":"chunk","content":"\\u6d77"}\n\n'
        b"event: final_end\n"
        b'data: {"sources":[{"ordinal":1,"document_name":"kelp.md","text":"A root."}],'
        b'"session_id":"s1","message_id":"m1","status":"complete"}\n\n'
    )


def test_an_error_is_an_event_before_the_end() -> None:
    assert encoded(TEXT, RunEnd(Outcome.INTERRUPTED, error="it broke")) == (
        b'data: {"type":"chunk","content":"\\u6d77"}\n\n'
        b'event: error\ndata: {"message":"it broke"}\n\n'
        b"event: final_end\n"
        b'data: {"sources":[],"session_id":"s1","message_id":"m1","status":"partial"}\n\n'
    )


@pytest.mark.parametrize(("said", "status"), [([TEXT], "partial"), ([], "failed")])
def test_a_cancelled_answer_is_no_error(said: list[Event], status: str) -> None:
    body = encoded(*said, RunEnd(Outcome.CANCELLED, Reason.CLIENT_CANCELLED))
    assert b"event: error" not in body
    assert datas_of(body)[-1]["status"] == status
