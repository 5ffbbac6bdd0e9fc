"""The OpenAI dialect, byte for byte."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.dialects import openai
from holdfast.dialects.base import About
from holdfast.dialects.openai import OpenAIEncoder
from holdfast.engine.fold import Answer, ToolCallSoFar
from holdfast.events import (
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
)
from tests.support import strategies
from tests.support.frames import datas_of, entries_of, frames_of

RUN = "0199a1b2-c3d4-7000-8000-000000000001"
ABOUT = About(RUN, "s1", 1_790_000_000_999)
START = RunStart(RUN, "s1", "m1", "q1", "gpt", "m-large")
END = RunEnd(Outcome.COMPLETED, finish=Finish.STOP)
DONE = b"data: [DONE]\n\n"


def encoded(*batches: list[Event], include_usage: bool = False) -> bytes:
    encoder, seq, body = OpenAIEncoder(ABOUT, include_usage=include_usage), 1, b""
    for batch in batches:
        body += encoder.encode(entries_of(*batch, first=seq))
        seq += len(batch)
    return body


def chunk(delta: str, finish: str = "null", model: str = "m-large", after: str = "") -> bytes:
    return (
        f'data: {{"id":"chatcmpl-{RUN}","object":"chat.completion.chunk","created":1790000000,'
        f'"model":"{model}","choices":[{{"index":0,"delta":{delta},"finish_reason":{finish}}}]'
        f"{after}}}\n\n"
    ).encode()


ROLE = chunk('{"role":"assistant","content":""}')
STOP = chunk("{}", '"stop"')


def deltas(body: bytes) -> list[dict[str, Any]]:
    """What the chunks between the role and the finish reason say."""
    chunks = [data for data in datas_of(body) if isinstance(data, dict) and data.get("choices")]
    return [one["choices"][0]["delta"] for one in chunks[1:] if one["choices"][0]["delta"]]


# ---------------------------------------------------------------------- an answer


def test_role_text_finish_reason_done() -> None:
    assert encoded([START], [TextDelta("海")], [TextDelta("a"), TextDelta("b")], [END]) == (
        ROLE + chunk('{"content":"海"}') + chunk('{"content":"ab"}') + STOP + DONE
    )


def test_reasoning_is_told_as_deepseek_does() -> None:
    assert encoded([START, ReasoningDelta("Hm"), TextDelta("Yes"), END]) == (
        ROLE + chunk('{"reasoning_content":"Hm"}') + chunk('{"content":"Yes"}') + STOP + DONE
    )


def test_every_chunk_is_one_data_line() -> None:
    text = "a\nb\r\n\r\ndata: [DONE]\n\n\x00\x1e\u0085\u2028\u2029\v\f"
    body = encoded([START, TextDelta(text), END])
    assert [len(frame.decode().splitlines()) for frame in frames_of(body)] == [2] * 4
    assert all(frame.startswith(b"data: ") for frame in frames_of(body))
    assert deltas(body) == [{"content": text}]


@given(strategies.texts)
def test_no_text_is_changed(text: str) -> None:
    body = encoded([START, TextDelta(text), ReasoningDelta(text), END])
    assert [delta.get("content", "") for delta in deltas(body)] == ([text, ""] if text else [])


def test_long_text_comes_in_lines_of_bounded_length() -> None:
    text = "🌊\x01" * 50_000
    body = encoded([START, TextDelta(text), END])
    assert "".join(delta["content"] for delta in deltas(body)) == text
    assert max(map(len, frames_of(body))) < 65_536


def test_steps_notices_and_usage_say_nothing_by_themselves() -> None:
    events: list[Event] = [START, Step("searching"), Notice("slow", "It is slow."), Usage(1, 2)]
    assert encoded([*events, TextDelta("a"), END]) == (
        ROLE + chunk('{"content":"a"}') + STOP + DONE
    )


def test_the_model_is_that_which_answers() -> None:
    start = RunStart(RUN, "s1", "m1", "q1", 'do"cs')
    moved = Notice("fallback", "The cloud is down.", upstream="docs", model="m-small")
    assert encoded([start, moved, TextDelta("a")]) == (
        chunk('{"role":"assistant","content":""}', model='do\\"cs')
        + chunk('{"content":"a"}', model="m-small")
    )


def test_a_rewrite_that_extends_what_was_sent_goes_on() -> None:
    body = encoded([START, TextDelta("Kelp")], [TextReplace("Kelp holds."), END])
    assert body == ROLE + chunk('{"content":"Kelp"}') + chunk('{"content":" holds."}') + STOP + DONE


def test_another_rewrite_is_told_at_the_end() -> None:
    events: list[Event] = [TextReplace("Kelp [1] holds."), TextDelta(" Yes."), END]
    body = encoded([START, TextDelta("Kelp holds.")], events)
    assert body == (
        ROLE
        + chunk('{"content":"Kelp holds."}')
        + chunk('{"final_content":"Kelp [1] holds. Yes."}')
        + STOP
        + DONE
    )


def test_a_long_rewrite_is_not_told() -> None:
    body = encoded([START, TextDelta("a"), TextReplace("b" * 10_000), END])
    assert body == ROLE + chunk('{"content":"a"}') + STOP + DONE


# ---------------------------------------------------------------------- endings


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (RunEnd(Outcome.COMPLETED), "stop"),
        (RunEnd(Outcome.COMPLETED, finish=Finish.LENGTH), "length"),
        (RunEnd(Outcome.COMPLETED, finish=Finish.CONTENT_FILTER), "content_filter"),
    ],
)
def test_finish_reasons(end: RunEnd, reason: str) -> None:
    assert encoded([START, TextDelta("a")], [end]).endswith(chunk("{}", f'"{reason}"') + DONE)


def test_usage_follows_the_finish_reason_if_it_was_asked_for() -> None:
    extra = {"total_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 4}}
    events: list[Event] = [START, TextDelta("a"), Usage(1, 7, extra), END]
    null = ',"usage":null'
    assert encoded(events, include_usage=True) == (
        chunk('{"role":"assistant","content":""}', after=null)
        + chunk('{"content":"a"}', after=null)
        + chunk("{}", '"stop"', after=null)
        + (
            f'data: {{"id":"chatcmpl-{RUN}","object":"chat.completion.chunk","created":1790000000,'
            '"model":"m-large","choices":[],"usage":{'
            '"completion_tokens_details":{"reasoning_tokens":4},'
            '"prompt_tokens":1,"completion_tokens":7,"total_tokens":9}}\n\n'
        ).encode()
        + DONE
    )


def test_no_usage_is_made_up() -> None:
    body = encoded([START, TextDelta("a"), END], include_usage=True)
    assert body.endswith(chunk("{}", '"stop"', after=',"usage":null') + DONE)


@pytest.mark.parametrize(
    ("used", "told"),
    [
        (Usage(1, 2), (1, 2, 3)),
        (Usage(None, 2), (0, 2, 2)),
        (Usage(1, None, {"total_tokens": "many", "prompt_tokens": "few"}), (1, 0, 1)),
        (Usage(1, 1, {"total_tokens": True}), (1, 1, 2)),
    ],
)
def test_usage_has_the_numbers_that_clients_want(used: Usage, told: tuple[int, ...]) -> None:
    usage = openai.usage(used)
    names = ("prompt_tokens", "completion_tokens", "total_tokens")
    assert tuple(usage[name] for name in names) == told


@pytest.mark.parametrize(
    ("end", "error"),
    [
        (
            RunEnd(Outcome.CANCELLED, Reason.CLIENT_CANCELLED),
            ("the answer was stopped", "cancelled", "client_cancelled"),
        ),
        (
            RunEnd(Outcome.INTERRUPTED, Reason.UPSTREAM_TRUNCATED, error="it broke off"),
            ("it broke off", "server_error", "upstream_truncated"),
        ),
        (
            RunEnd(Outcome.INTERRUPTED, Reason.SERVER_CRASH),
            ("the answer broke off", "server_error", "server_crash"),
        ),
        (
            RunEnd(Outcome.FAILED, Reason.UPSTREAM_ERROR, error="too many", status=429),
            ("too many", "rate_limit_error", "upstream_error"),
        ),
    ],
)
def test_every_other_end_is_an_error_in_the_stream(
    end: RunEnd, error: tuple[str, str, str]
) -> None:
    message, kind, code = error
    told = f'"message":"{message}","type":"{kind}","param":null,"code":"{code}"'
    events: list[Event] = [START, TextDelta("a"), Usage(1, 2), end]
    for include_usage in (False, True):
        body = encoded(events, include_usage=include_usage)
        assert body.endswith(f'data: {{"error":{{{told}}}}}\n\n'.encode() + DONE)
        assert b'"finish_reason":"' not in body
        assert b"prompt_tokens" not in body


@pytest.mark.parametrize(
    ("reason", "status", "told"),
    [
        (Reason.UPSTREAM_ERROR, 429, 429),
        (Reason.UPSTREAM_ERROR, 401, 502),
        (Reason.UPSTREAM_ERROR, 403, 502),
        (Reason.UPSTREAM_ERROR, 404, 502),
        (Reason.UPSTREAM_ERROR, 500, 502),
        (Reason.UPSTREAM_ERROR, 504, 504),
        (Reason.UPSTREAM_ERROR, 400, 400),
        (Reason.UPSTREAM_ERROR, 413, 400),
        (Reason.UPSTREAM_ERROR, 422, 400),
        (Reason.UPSTREAM_ERROR, None, 502),
        (Reason.UPSTREAM_TIMEOUT, None, 504),
        (Reason.UPSTREAM_UNREACHABLE, None, 502),
        (Reason.UPSTREAM_EMPTY, None, 502),
        (Reason.LIMIT, None, 502),
        (Reason.STORAGE_ERROR, None, 503),
        (Reason.SERVER_SHUTDOWN, None, 503),
        (Reason.SERVER_CRASH, None, 503),
    ],
)
def test_the_status_of_a_run_without_an_answer(
    reason: Reason, status: int | None, told: int
) -> None:
    assert openai.status(RunEnd(Outcome.FAILED, reason, status=status)) == told


def test_every_reason_has_a_status_of_an_error() -> None:
    statuses = {openai.status(RunEnd(Outcome.FAILED, reason)) for reason in Reason}
    assert statuses == {502, 503, 504}


# ---------------------------------------------------------------------- tool calls


def test_tool_calls_come_piece_by_piece() -> None:
    pieces: list[Event] = [
        ToolCall(0, "call_1", "find"),
        ToolCall(0, arguments_delta='{"what":'),
        ToolCall(0, arguments_delta='"kelp"}'),
        ToolCall(1, "call_2", "stop", "{}"),
    ]
    assert encoded([START, *pieces, RunEnd(Outcome.COMPLETED)]) == (
        ROLE
        + chunk(
            '{"tool_calls":[{"index":0,"id":"call_1","type":"function",'
            '"function":{"name":"find","arguments":""}}]}'
        )
        + chunk('{"tool_calls":[{"index":0,"function":{"arguments":"{\\"what\\":"}}]}')
        + chunk('{"tool_calls":[{"index":0,"function":{"arguments":"\\"kelp\\"}"}}]}')
        + chunk(
            '{"tool_calls":[{"index":1,"id":"call_2","type":"function",'
            '"function":{"name":"stop","arguments":"{}"}}]}'
        )
        + chunk("{}", '"tool_calls"')
        + DONE
    )


def test_a_call_gets_its_id_and_its_name_once() -> None:
    pieces: list[Event] = [
        ToolCall(0, "call_1", None, "{"),
        ToolCall(0, "call_1", "find", "}"),
        ToolCall(0, "call_1", "find", ""),
    ]
    calls = [delta["tool_calls"][0] for delta in deltas(encoded([START, *pieces]))]
    assert [call.get("id") for call in calls] == ["call_1", None, None]
    assert [call["function"].get("name") for call in calls] == [None, "find", None]


def test_places_are_counted_from_zero() -> None:
    pieces: list[Event] = [ToolCall(1, "a", "f"), ToolCall(7, "b", "f"), ToolCall(1, None, None)]
    calls = [delta["tool_calls"][0] for delta in deltas(encoded([START, *pieces]))]
    assert [call["index"] for call in calls] == [0, 1, 0]


def test_a_call_without_an_id_gets_one_that_openai_would_take() -> None:
    pieces: list[Event] = [ToolCall(0, None, "f", "{}"), ToolCall(1, None, "g", "{}")]
    streamed = [delta["tool_calls"][0]["id"] for delta in deltas(encoded([START, *pieces]))]
    whole = openai.tool_calls(
        Answer(tool_calls=(ToolCallSoFar(0, None, "f", "{}"), ToolCallSoFar(1, None, "g", "{}"))),
        RUN,
    )
    assert [call["id"] for call in whole] == streamed
    assert len({*streamed}) == 2
    assert all(0 < len(one) <= 40 for one in streamed)


# ---------------------------------------------------------------------- references


WEB = Reference(2, document_name="Kelp", url="https://kelp.example/", text="Kelp holds.")
PAPER = Reference(1, "d1", "Roots.pdf", "c1", "Holdfasts are no roots.", score=0.5)


def test_references_come_before_the_finish_reason() -> None:
    cited = TextDelta("It holds [2], it does [1].", ((9, 12, 2), (22, 25, 1)))
    assert encoded([START, References((PAPER, WEB)), cited, END]) == (
        ROLE
        + chunk('{"content":"It holds [2], it does [1]."}')
        + chunk(
            '{"references":[{"index":0,"ordinal":1,"document_id":"d1",'
            '"document_name":"Roots.pdf","chunk_id":"c1","text":"Holdfasts are no roots.",'
            '"score":0.5},{"index":1,"ordinal":2,"document_name":"Kelp","text":"Kelp holds.",'
            '"url":"https://kelp.example/"}]}'
        )
        + chunk(
            '{"annotations":[{"type":"url_citation","url_citation":{"start_index":9,'
            '"end_index":12,"title":"Kelp","url":"https://kelp.example/"}}]}'
        )
        + STOP
        + DONE
    )


def test_p4_an_answer_that_ends_early_keeps_its_references() -> None:
    body = encoded([START, References((PAPER,)), RunEnd(Outcome.INTERRUPTED)])
    assert [[one["ordinal"] for one in delta["references"]] for delta in deltas(body)] == [[1]]
    assert b'"error"' in frames_of(body)[-2]


def test_what_is_not_cited_belongs_to_the_end() -> None:
    nameless = Reference(1, url="https://kelp.example/")
    (annotation,) = openai.annotations([nameless], [], 7)
    assert annotation["url_citation"] == {
        "start_index": 7,
        "end_index": 7,
        "title": "https://kelp.example/",
        "url": "https://kelp.example/",
    }


@pytest.mark.parametrize(
    ("extra", "place"),
    [
        ({"start_index": 2, "end_index": 5}, (2, 5)),
        ({"start_index": 0, "end_index": 0}, (0, 0)),
        ({"start_index": 2, "end_index": 21}, (20, 20)),
        ({"start_index": -1, "end_index": 5}, (20, 20)),
        ({"start_index": 5, "end_index": 2}, (20, 20)),
        ({"start_index": True, "end_index": 5}, (20, 20)),
        ({"start_index": 2}, (20, 20)),
    ],
)
def test_an_upstreams_own_place_is_kept_if_it_can_be(
    extra: dict[str, Any], place: tuple[int, int]
) -> None:
    (annotation,) = openai.annotations([Reference(1, url="https://a.example", extra=extra)], [], 20)
    citation = annotation["url_citation"]
    assert (citation["start_index"], citation["end_index"]) == place


def test_a_reference_is_cited_where_it_is_cited_first() -> None:
    (annotation,) = openai.annotations([WEB], [(3, 6, 1), (8, 11, 2), (12, 15, 2)], 20)
    citation = annotation["url_citation"]
    assert (citation["start_index"], citation["end_index"]) == (8, 11)


def test_in_a_text_that_was_rewritten_citations_belong_to_the_end() -> None:
    rewritten = TextReplace("It [2] holds.", ((3, 6, 2),))
    body = encoded([START, References((WEB,)), TextDelta("It holds."), rewritten, END])
    citation = deltas(body)[2]["annotations"][0]["url_citation"]
    assert (citation["start_index"], citation["end_index"]) == (9, 9)


def test_many_references_come_in_several_chunks() -> None:
    found = tuple(
        Reference(n, text="海" * 3_000, url="https://kelp.example/") for n in range(1, 40)
    )
    body = encoded([START, TextDelta("a"), References(found), END])
    told = [delta["references"] for delta in deltas(body) if "references" in delta]
    flat = [reference for references in told for reference in references]
    assert [(one["index"], one["ordinal"]) for one in flat] == [(n - 1, n) for n in range(1, 40)]
    assert len(told) > 5
    assert max(map(len, frames_of(body))) < 65_536
    assert sum("annotations" in delta for delta in deltas(body)) == 1


@given(st.lists(strategies.events, max_size=8))
def test_every_frame_can_be_read_whatever_happens(events: list[Event]) -> None:
    said = [event for event in events if not isinstance(event, RunStart | RunEnd)]
    body = encoded([START, *said], [END], include_usage=True)
    *chunks, done = frames_of(body)
    assert done == DONE
    for frame in chunks:
        assert frame.count(b"\n") == 2
        data = json.loads(frame.removeprefix(b"data: "))
        assert data["id"] == f"chatcmpl-{RUN}"
        assert data["object"] == "chat.completion.chunk"
