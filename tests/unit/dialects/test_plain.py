"""The plain dialect, byte for byte."""

import pytest

from holdfast.dialects.base import About
from holdfast.dialects.plain import PlainEncoder
from holdfast.events import Event, Outcome, Reason, RunEnd, RunStart, TextDelta
from tests.support.frames import entries_of

START = RunStart("run-1", "s1", "m1", "q1", "docs")
TEXT = TextDelta("海")


def encoded(*batches: list[Event]) -> bytes:
    encoder, seq, body = PlainEncoder(About("run-1", "s1", 0)), 1, b""
    for batch in batches:
        body += encoder.encode(entries_of(*batch, first=seq))
        seq += len(batch)
    return body


@pytest.mark.parametrize(
    "end", [RunEnd(Outcome.COMPLETED), RunEnd(Outcome.CANCELLED, Reason.CLIENT_CANCELLED)]
)
def test_text_and_done_the_first_frame_names_the_session(end: RunEnd) -> None:
    assert encoded([START], [TEXT], [TextDelta("b")], [end]) == (
        b'data: {"content":"\\u6d77","session_id":"s1"}\n\n'
        b'data: {"content":"b"}\n\n'
        b"data: [DONE]\n\n"
    )


def test_an_error_comes_before_done() -> None:
    end = RunEnd(Outcome.INTERRUPTED, error="it broke")
    assert encoded([START, TEXT, end]) == (
        b'data: {"content":"\\u6d77","session_id":"s1"}\n\n'
        b'data: {"error":"it broke"}\n\n'
        b"data: [DONE]\n\n"
    )


def test_an_error_that_is_the_first_frame_names_the_session() -> None:
    assert encoded([START], [RunEnd(Outcome.FAILED, error="it broke")]) == (
        b'data: {"error":"it broke","session_id":"s1"}\n\ndata: [DONE]\n\n'
    )


@pytest.mark.parametrize("outcome", [Outcome.COMPLETED, Outcome.CANCELLED])
def test_an_answer_without_text_names_the_session_too(outcome: Outcome) -> None:
    assert encoded([START, RunEnd(outcome)]) == (
        b'data: {"content":"","session_id":"s1"}\n\ndata: [DONE]\n\n'
    )
