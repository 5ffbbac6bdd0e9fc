"""The v1 dialect, byte for byte."""

import pytest

from holdfast.dialects.base import About
from holdfast.dialects.v1 import V1Encoder
from holdfast.events import (
    Event,
    Notice,
    Outcome,
    Reason,
    Reference,
    References,
    RunEnd,
    RunStart,
    TextDelta,
)
from tests.support.frames import datas_of, entries_of

START = RunStart("run-1", "s1", "m1", "q1", "docs")
COMPLETED = RunEnd(Outcome.COMPLETED)


def encoded(*events: Event) -> bytes:
    return V1Encoder(About("run-1", "mine", 0)).encode(entries_of(*events))


def test_a_completed_answer() -> None:
    references = References((Reference(1, document_name="kelp.md", text="海"),))
    assert encoded(START, TextDelta("海带 [1]", ((3, 6, 1),)), references, COMPLETED) == (
        b'data: {"content":"\\u6d77\\u5e26 [1]","session_id":"mine","model_used":"docs"}\n\n'
        b'data: {"content":"","session_id":"mine","model_used":"docs",'
        b'"references":[{"ordinal":1,"document_name":"kelp.md","text":"\\u6d77"}],'
        b'"message_id":"m1","status":"complete"}\n\n'
        b"data: [DONE]\n\n"
    )


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (COMPLETED, "complete"),
        (RunEnd(Outcome.CANCELLED, Reason.CLIENT_CANCELLED), "partial"),
    ],
)
def test_an_end_that_was_wanted_has_a_closing_frame_and_done(end: RunEnd, status: str) -> None:
    chunk, closing, done = datas_of(encoded(START, TextDelta("Kelp"), end))
    assert chunk["content"] == "Kelp"
    assert closing == {
        "content": "",
        "session_id": "mine",
        "model_used": "docs",
        "references": [],
        "message_id": "m1",
        "status": status,
    }
    assert done == "[DONE]"


@pytest.mark.parametrize(
    ("said", "end", "status"),
    [
        ([TextDelta("Kelp")], RunEnd(Outcome.INTERRUPTED, error="it broke"), "partial"),
        ([], RunEnd(Outcome.FAILED, error="it broke"), "failed"),
    ],
)
def test_any_other_end_has_a_frame_with_the_error_before(
    said: list[Event], end: RunEnd, status: str
) -> None:
    *_, error, closing, done = datas_of(encoded(START, *said, end))
    assert error == {
        "content": "",
        "session_id": "mine",
        "model_used": "docs",
        "error": "it broke",
    }
    assert (closing["content"], closing["status"]) == ("", status)
    assert done == "[DONE]"


def test_model_used_is_the_route_if_there_is_one_and_follows_who_answers() -> None:
    start = RunStart("run-1", "s1", "m1", "q1", "gpt", route="cloud_large")
    down = Notice("fell_through", "gpt is down", upstream="docs", route="local_small")
    again = Notice("fell_through", "docs is down", upstream="notes")
    hint = Notice("hint", "Hm.")
    body = encoded(start, TextDelta("a"), down, hint, TextDelta("b"), again, TextDelta("c"))
    used = [said["model_used"] for said in datas_of(body)]
    assert used == ["cloud_large", "local_small", "notes"]
