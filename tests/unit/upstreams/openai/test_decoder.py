import json
from typing import Any

import pytest

from holdfast.engine.fold import fold
from holdfast.engine.run import UpstreamEnd
from holdfast.events import (
    Event,
    Finish,
    Reason,
    ReasoningDelta,
    Reference,
    References,
    TextDelta,
    TextReplace,
    ToolCall,
    Usage,
)
from holdfast.settings import LimitSettings
from holdfast.upstreams.base import Item
from holdfast.upstreams.decoding.citations import CitationTranslator, Style
from holdfast.upstreams.decoding.decoder import MERGED_AFTER, MERGED_CHARS
from holdfast.upstreams.openai.decoder import OpenAIDecoder
from tests.support.upstream_server import completion, completion_chunk, event

DONE = event("[DONE]")
STOP = completion_chunk("stop")
WHOLE = UpstreamEnd(finish=Finish.STOP)


def decode(*pieces: bytes, limits: LimitSettings | None = None) -> list[Item]:
    """What a decoder gives for a stream that ends by itself."""
    decoder = OpenAIDecoder(limits)
    items = [item for piece in pieces for item in decoder.feed(piece)]
    return items + decoder.finish()


def texts(items: list[Item]) -> str:
    return "".join(item.text for item in items if isinstance(item, TextDelta))


def ending(items: list[Item]) -> UpstreamEnd:
    """The end, which must be the last item and the only one of its kind."""
    assert [isinstance(item, UpstreamEnd) for item in items].index(True) == len(items) - 1
    end = items[-1]
    assert isinstance(end, UpstreamEnd)
    return end


def failure(text: str, status: int | None = None) -> UpstreamEnd:
    return UpstreamEnd(Reason.UPSTREAM_ERROR, error=text, status=status)


# ---------------------------------------------------------------------- the end


def test_any_terminal_marker_makes_the_answer_whole() -> None:
    hi = completion_chunk(content="hi")
    assert decode(hi, STOP, DONE) == [TextDelta("hi"), WHOLE]
    assert decode(hi, STOP) == [TextDelta("hi"), WHOLE]
    assert decode(hi, DONE) == [TextDelta("hi"), UpstreamEnd()]
    assert decode(hi, STOP, b"data: {half") == [TextDelta("hi"), WHOLE]


def test_without_one_it_was_truncated() -> None:
    items = decode(completion_chunk(content="hi"))
    assert texts(items) == "hi"
    assert ending(items).reason is Reason.UPSTREAM_TRUNCATED
    assert ending(decode()).reason is Reason.UPSTREAM_TRUNCATED


@pytest.mark.parametrize(
    ("finish_reason", "finish"),
    [
        ("stop", Finish.STOP),
        ("length", Finish.LENGTH),
        ("tool_calls", Finish.TOOL_CALLS),
        ("function_call", Finish.TOOL_CALLS),
        ("content_filter", Finish.CONTENT_FILTER),
        ("STOP", Finish.STOP),
        ("end_turn", Finish.STOP),
        ("tool_use", Finish.TOOL_CALLS),
        ("MAX_TOKENS", Finish.LENGTH),
        ("something_new", None),
    ],
)
def test_finish_reasons(finish_reason: str, finish: Finish | None) -> None:
    assert decode(completion_chunk(finish_reason)) == [UpstreamEnd(finish=finish)]


@pytest.mark.parametrize("finish_reason", ["error", "abort", "insufficient_system_resource"])
def test_a_finish_reason_may_say_that_the_server_failed(finish_reason: str) -> None:
    items = decode(completion_chunk(content="hi"), completion_chunk(finish_reason), DONE)
    assert texts(items) == "hi"
    assert ending(items).reason is Reason.UPSTREAM_ERROR


def test_a_cause_ends_a_stream_that_was_not_whole() -> None:
    cause = UpstreamEnd(Reason.UPSTREAM_TIMEOUT, error="silent")
    decoder = OpenAIDecoder()
    decoder.feed(completion_chunk(content="hi"))
    assert decoder.finish(cause) == [cause]
    assert decoder.finish(cause) == []


def test_a_cause_does_not_matter_after_a_terminal_marker() -> None:
    decoder = OpenAIDecoder()
    decoder.feed(STOP)
    assert decoder.finished
    assert decoder.finish(UpstreamEnd(Reason.UPSTREAM_TRUNCATED)) == [WHOLE]


def test_nothing_follows_the_end() -> None:
    decoder = OpenAIDecoder()
    assert decoder.feed(DONE + completion_chunk(content="late")) == [UpstreamEnd()]
    assert decoder.ended
    assert decoder.feed(completion_chunk(content="later")) == []


@pytest.mark.parametrize("cause", [None, UpstreamEnd(Reason.UPSTREAM_TIMEOUT)])
def test_text_held_for_a_mark_comes_out_at_the_end(cause: UpstreamEnd | None) -> None:
    decoder = OpenAIDecoder()
    assert decoder.feed(completion_chunk(content="a [ID")) == [TextDelta("a ")]
    assert decoder.finish(cause)[0] == TextDelta("[ID")


def test_text_held_for_a_mark_comes_out_with_the_finish_reason() -> None:
    decoder = OpenAIDecoder()
    decoder.feed(completion_chunk(content="a ["))
    assert decoder.feed(STOP) == [TextDelta("[")]


# ---------------------------------------------------------------------- deltas


def test_reasoning_under_either_name_is_told_once() -> None:
    assert decode(
        completion_chunk(reasoning_content="a"),
        completion_chunk(reasoning="b"),
        completion_chunk(reasoning="c", reasoning_content="c", content="d"),
        DONE,
    ) == [
        ReasoningDelta("a"),
        ReasoningDelta("b"),
        ReasoningDelta("c"),
        TextDelta("d"),
        UpstreamEnd(),
    ]


def test_content_in_parts() -> None:
    parts = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": "yes"},
        {"type": "image"},
        7,
    ]
    items = decode(completion_chunk(content=parts), DONE)
    assert items == [ReasoningDelta("hm"), TextDelta("yes"), UpstreamEnd()]


def test_a_refusal_is_text() -> None:
    assert decode(completion_chunk(refusal="I will not."), DONE)[0] == TextDelta("I will not.")


def test_empty_deltas_are_no_events() -> None:
    nothing = completion_chunk(role="assistant", content="", reasoning="", tool_calls=[])
    assert decode(nothing, completion_chunk(), DONE) == [UpstreamEnd()]


def test_only_the_first_choice_counts() -> None:
    choices = [{"index": n, "delta": {"content": str(n)}} for n in (1, 0)]
    assert decode(event({"choices": choices}), DONE) == [TextDelta("0"), UpstreamEnd()]


def test_tool_calls_of_older_and_sloppy_servers() -> None:
    assert decode(
        completion_chunk(function_call={"name": "now", "arguments": "{}"}),
        completion_chunk(
            tool_calls=[{"id": "c", "function": {"name": "f", "arguments": {"a": 1}}}]
        ),
        completion_chunk(tool_calls=[{"index": 1, "function": None}]),
        DONE,
    )[:3] == [
        ToolCall(0, None, "now", "{}"),
        ToolCall(0, "c", "f", '{"a":1}'),
        ToolCall(1),
    ]


def tool_calls(*calls: dict[str, Any]) -> bytes:
    return completion_chunk(tool_calls=list(calls))


def call(index: int | None, id: str | None, name: str | None, arguments: str) -> dict[str, Any]:
    said = {"index": index, "id": id, "function": {"name": name, "arguments": arguments}}
    return {name: value for name, value in said.items() if value is not None}


def test_parallel_calls_that_all_have_index_0_are_told_apart() -> None:
    assert decode(
        tool_calls(call(0, "a", "search", '{"q":')),
        tool_calls(call(0, None, None, '"kelp"}')),
        tool_calls(call(0, "b", "search", '{"q":"tide"}')),
        tool_calls(call(1, "c", "now", "{}")),
        DONE,
    )[:-1] == [
        ToolCall(0, "a", "search", '{"q":'),
        ToolCall(0, None, None, '"kelp"}'),
        ToolCall(1, "b", "search", '{"q":"tide"}'),
        ToolCall(2, "c", "now", "{}"),
    ]


def test_parallel_calls_without_any_index_are_told_apart() -> None:
    assert decode(
        tool_calls(call(None, "a", "search", "{}"), call(None, "b", "now", "{}")),
        tool_calls(call(None, "c", "now", "{}")),
        DONE,
    )[:-1] == [
        ToolCall(0, "a", "search", "{}"),
        ToolCall(1, "b", "now", "{}"),
        ToolCall(2, "c", "now", "{}"),
    ]


def test_text_held_for_a_mark_comes_before_a_tool_call() -> None:
    items = decode(
        completion_chunk(content="I look [I", tool_calls=[call(0, "a", "search", "{}")]),
        completion_chunk(content="D:0]"),
        DONE,
    )
    assert items == [
        TextDelta("I look "),
        TextDelta("[I"),
        ToolCall(0, "a", "search", "{}"),
        TextDelta("D:0]"),
        UpstreamEnd(),
    ]


def test_a_call_whose_id_is_repeated_or_changes_is_one_call() -> None:
    assert decode(
        tool_calls(call(0, "a", "search", '{"q"')),
        tool_calls(call(0, "a", "search", ":")),
        tool_calls(call(0, "other", None, "1}")),
        DONE,
    )[:-1] == [
        ToolCall(0, "a", "search", '{"q"'),
        ToolCall(0, "a", "search", ":"),
        ToolCall(0, "other", None, "1}"),
    ]


# ---------------------------------------------------------------------- thoughts in the content


def spoken(*pieces: str, think_tags: bool = True) -> tuple[str, str]:
    """The reasoning and the text of a content in these pieces."""
    decoder = OpenAIDecoder(think_tags=think_tags)
    items = decoder.feed(b"".join(completion(*pieces))) + decoder.finish()
    thoughts = [item.text for item in items if isinstance(item, ReasoningDelta)]
    return "".join(thoughts), texts(items)


@pytest.mark.parametrize(
    ("content", "thought", "text"),
    [
        ("<think>Hm.</think>Yes.", "Hm.", "Yes."),
        (" \n<think>\nHm.\n</think>\n\nYes.", "\nHm.\n", "\n\nYes."),
        ("<think></think>Yes.", "", "Yes."),
        ("<think>a < b </thin</think>Yes.", "a < b </thin", "Yes."),
        ("<think>no end", "no end", ""),
        ("<think>no end</thi", "no end</thi", ""),
        ("<thi", "", "<thi"),
        ("<thing>Yes.", "", "<thing>Yes."),
        ("Yes. <think>No.</think>", "", "Yes. <think>No.</think>"),
        ("<think>Hm.</think>Use <think>x</think>.", "Hm.", "Use <think>x</think>."),
        ("\n\n", "", "\n\n"),
        (" " * 300 + "<think>", "", " " * 300 + "<think>"),
    ],
)
def test_a_thought_at_the_start_of_the_content_is_reasoning(
    content: str, thought: str, text: str
) -> None:
    assert spoken(content) == (thought, text)
    assert spoken(*content) == (thought, text)
    assert spoken(content[:3], content[3:9], content[9:]) == (thought, text)


def test_thoughts_in_the_content_may_be_left_there() -> None:
    content = "<think>Hm.</think>Yes."
    assert spoken(content, think_tags=False) == ("", content)


def test_the_beginning_of_a_tag_is_not_lost_when_the_stream_breaks_off() -> None:
    decoder = OpenAIDecoder()
    assert decoder.feed(completion_chunk(content="<thi")) == []
    assert decoder.release() == [TextDelta("<thi")]
    decoder = OpenAIDecoder()
    assert decoder.feed(completion_chunk(content="<think>a</")) == [ReasoningDelta("a")]
    assert decoder.finish()[0] == ReasoningDelta("</")


# ---------------------------------------------------------------------- usage


@pytest.mark.parametrize(
    "usage",
    [
        {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}},
        {"choices": [], "usage": {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7}},
        {"usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}},
    ],
)
def test_usage_after_the_finish_reason(usage: dict[str, Any]) -> None:
    assert decode(STOP, event(usage), DONE) == [Usage(3, 4, {"total_tokens": 7}), WHOLE]


def test_usage_in_every_chunk_is_told_once() -> None:
    chunks = [event({"choices": [], "usage": {"prompt_tokens": n}}) for n in (1, 2, 3)]
    assert decode(*chunks, DONE) == [Usage(3), UpstreamEnd()]


def test_usage_of_odd_values() -> None:
    usage = {"prompt_tokens": "3", "completion_tokens": -1, "x": 1.5, "y": None}
    assert decode(event({"usage": usage}), DONE) == [Usage(extra={"x": 1.5}), UpstreamEnd()]


def test_what_the_server_said_besides_the_answer() -> None:
    decoder = OpenAIDecoder()
    assert decoder.closing is None
    decoder.feed(b"".join(completion("hi")))
    assert decoder.closing == {"id": "c1", "model": "m1", "finish_reason": "stop"}


# ---------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("frame", "text", "status"),
    [
        ({"error": {"message": "down", "code": 503}}, "down (503)", 503),
        ({"error": {"message": "slow down", "code": "429"}}, "slow down (429)", 429),
        ({"error": {"message": "down", "type": "x", "code": "busy"}}, "down (busy)", None),
        ({"error": "down"}, "down", None),
        ({"error": {"x": 1}}, "an error without a message", None),
        ({"error": True}, "an error without a message", None),
        ({"choices": [], "error": {"message": "down"}}, "down", None),
        ({"choices": [{"error": {"message": "down", "code": 502}}]}, "down (502)", 502),
        ({"object": "error", "message": "down", "code": 400}, "down (400)", 400),
        ({"type": "error", "error": {"type": "overloaded_error", "message": "down"}}, "", None),
        ({"type": "error", "message": "down"}, "down (error)", None),
        ({"code": 102, "message": "down"}, "down (102)", None),
        ({"detail": "Not Found"}, "Not Found", None),
        ({"error": {"code": 200, "message": "down"}, "status": 99999}, "down (200)", None),
    ],
)
def test_an_error_in_the_stream_ends_it(
    frame: dict[str, Any], text: str, status: int | None
) -> None:
    items = decode(
        completion_chunk(content="hi"), event(frame), completion_chunk(content="x"), DONE
    )
    assert items == [TextDelta("hi"), failure(text or "down (overloaded_error)", status)]


@pytest.mark.parametrize("frame", [b": hi\n\n", b"data:\n\n", b"event: ping\ndata: \n\n"])
def test_keep_alives_are_passed_over(frame: bytes) -> None:
    assert decode(frame, DONE, frame) == [UpstreamEnd()]


def test_an_event_of_type_error_ends_it() -> None:
    stream = b'event: error\ndata: {"message":"down"}\n\n'
    assert decode(stream) == [failure("down")]


@pytest.mark.parametrize(
    "frame",
    [
        {},
        {"code": 0, "data": True},
        {"code": 200, "message": "ok"},
        {"type": "ping"},
        {"error": None},
        {"choices": None},
    ],
)
def test_objects_that_say_nothing_are_passed_over(frame: dict[str, Any]) -> None:
    assert decode(event(frame), DONE) == [UpstreamEnd()]


@pytest.mark.parametrize(
    "data", ["{", "oops", "[1]", '"text"', "null", '{"choices": 7}', '{"choices": [null]}']
)
def test_data_that_is_no_chunk_is_an_error(data: str) -> None:
    items = decode(completion_chunk(content="hi"), event(data), completion_chunk(content="x"))
    assert texts(items) == "hi"
    assert ending(items).reason is Reason.UPSTREAM_ERROR


def test_broken_data_does_not_matter_after_the_finish_reason() -> None:
    assert ending(decode(STOP, event("{"))) == WHOLE


@pytest.mark.parametrize(
    ("raw", "text"),
    [(b"x\xffy", "x\ufffdy"), (rb"x\ud83d", "x\ufffd"), (b"x\x01", "x\x01")],
)
def test_a_broken_character_does_not_cost_the_answer(raw: bytes, text: str) -> None:
    frame = b'data: {"choices":[{"delta":{"content":"' + raw + b'"}}]}\n\n'
    assert decode(frame, DONE) == [TextDelta(text), UpstreamEnd()]


@pytest.mark.parametrize(
    ("pieces", "text", "error"),
    [
        (["**ERROR**: E"], "", "E"),
        (["Half", "**ERROR**: AUTH_ERROR - no"], "Half", "AUTH_ERROR - no"),
        (["Half\n**ERROR**: it broke"], "Half", "it broke"),
        (["Half**ERROR**: TIMEOUT - slow"], "Half", "TIMEOUT - slow"),
        (["Half", "**ERROR**: a", " b", " c"], "Half", "a b c"),
        (["a [ID", "**ERROR**: x"], "a [ID", "x"),
        (["Half", "**ERROR**: ", " "], "Half", "an error without a message"),
    ],
)
def test_an_error_told_as_text_is_the_error(pieces: list[str], text: str, error: str) -> None:
    items = decode(*completion(*pieces))
    assert texts(items) == text
    assert ending(items) == failure(error)


def test_prose_about_errors_is_text() -> None:
    prose = "The log has **ERROR**: lines, such as **ERROR**: disk full."
    assert decode(*completion(prose)) == [TextDelta(prose), WHOLE]


def test_an_endless_told_error_is_bounded() -> None:
    items = decode(*completion("**ERROR**: x", *["y" * 1000] * 100))
    assert len(ending(items).error or "") <= 500


# ---------------------------------------------------------------------- limits


def test_an_event_over_the_limit_ends_the_run_by_limit() -> None:
    limits = LimitSettings(event_bytes=1000)
    big = completion_chunk(content="x" * 1000)
    items = decode(completion_chunk(content="hi"), big, DONE, limits=limits)
    assert texts(items) == "hi"
    assert ending(items).reason is Reason.LIMIT


def test_references_are_bounded() -> None:
    limits = LimitSettings(references=3, reference_bytes=10)
    chunks = [{"id": str(n), "content": "x" * 100} for n in range(50)]
    items = decode(completion_chunk(reference=chunks), DONE, limits=limits)
    assert isinstance(items[0], References)
    assert [one.ordinal for one in items[0].references] == [1, 2, 3]
    assert all(len(one.text.encode()) <= 10 for one in items[0].references)


def test_the_same_references_again_are_no_news() -> None:
    chunk = completion_chunk(reference={"chunks": [{"id": "a"}], "total": 1})
    kinds = [type(item) for item in decode(chunk, chunk, DONE)]
    assert kinds == [References, UpstreamEnd]


@pytest.mark.parametrize("reference", [{}, [], {"chunks": []}, {"chunks": {}}, "x", 7, {"a": 1}])
def test_no_references_are_no_event(reference: Any) -> None:
    assert decode(completion_chunk(reference=reference), DONE) == [UpstreamEnd()]


def test_a_broken_item_keeps_the_places_of_the_others() -> None:
    items = decode(completion_chunk(reference=[None, {"id": "b"}]), DONE)
    assert isinstance(items[0], References)
    assert [(one.ordinal, one.chunk_id) for one in items[0].references] == [(1, None), (2, "b")]


URLS = ["https://a.example/kelp", "https://b.example/tide"]
RESULTS = [
    {"url": URLS[1], "title": "Tides", "snippet": "Twice a day.", "date": "2025-01-02"},
    {"url": URLS[0], "title": "Kelp"},
]


def search_chunk(content: str, **beside: Any) -> bytes:
    return event({"choices": [{"index": 0, "delta": {"content": content}}], **beside})


def test_pages_beside_the_choices_are_references_in_their_order() -> None:
    chunks = [search_chunk(text, citations=URLS) for text in ("Kelp [1]", " and tides [2].")]
    last = search_chunk("", citations=URLS, search_results=RESULTS)
    items = decode(*chunks, last, DONE)
    given = [item.references for item in items if isinstance(item, References)]
    assert [[one.url for one in references] for references in given] == [URLS, URLS]
    assert [one.document_name for one in given[1]] == ["Kelp", "Tides"]
    assert (given[1][1].ordinal, given[1][1].text) == (2, "Twice a day.")
    assert given[1][1].extra == {"date": "2025-01-02"}


def test_search_results_alone_are_references() -> None:
    items = decode(search_chunk("hi", search_results=RESULTS), DONE)
    assert isinstance(items[0], References)
    assert [one.url for one in items[0].references] == [URLS[1], URLS[0]]


def test_numbers_are_marks_where_the_references_are_known_before() -> None:
    decoder = OpenAIDecoder(citations=CitationTranslator(Style.NUMBER))
    items = decoder.feed(search_chunk("Kelp [1], [3]", citations=URLS) + DONE)
    assert items[1:] == [TextDelta("Kelp [1], [3]", ((5, 8, 1),)), UpstreamEnd()]


@pytest.mark.parametrize("style", list(Style))
def test_every_style_of_marks_bears_every_kind_of_reference(style: Style) -> None:
    decoder = OpenAIDecoder(citations=CitationTranslator(style))
    annotation = {"type": "url_citation", "url_citation": {"url": URLS[0], "title": "A"}}
    items = decoder.feed(
        completion_chunk(reference=[{"id": "a"}, {"id": "b"}])
        + completion_chunk(annotations=[annotation])
        + search_chunk("", citations=[URLS[1]])
        + completion_chunk(reference={"chunks": {"7": {"id": "c"}, "x": {"id": "d"}}})
        + DONE
    )
    references = [item.references for item in items if isinstance(item, References)][-1]
    ordinals = [one.ordinal for one in references]
    assert ordinals == sorted(set(ordinals))
    assert ordinals[0] == 1


@pytest.mark.parametrize(
    "beside",
    [
        {"citations": "x"},
        {"citations": [1, None]},
        {"search_results": [7]},
        {"search_results": [{"url": []}]},
    ],
)
def test_pages_of_odd_shapes_cost_nothing(beside: dict[str, Any]) -> None:
    items = decode(search_chunk("hi", **beside), DONE)
    assert texts(items) == "hi"
    assert ending(items) == UpstreamEnd()


def test_annotations_keep_their_places_in_the_text() -> None:
    citation = {"url": URLS[0], "title": "Kelp", "start_index": 3, "end_index": 9}
    annotations = [{"type": "url_citation", "url_citation": citation}] * 2
    items = decode(completion_chunk(annotations=annotations), DONE)
    assert isinstance(items[0], References)
    (reference,) = items[0].references
    assert (reference.url, reference.document_name) == (URLS[0], "Kelp")
    assert reference.extra == {"start_index": 3, "end_index": 9}


def test_the_references_of_another_holdfast_keep_their_ordinals() -> None:
    ours = [
        {"index": 0, "ordinal": 2, "document_name": "b", "url": URLS[1], "extra": {"page": 3}},
        {"index": 1, "ordinal": 1, "document_name": "a", "text": "x", "score": 0.5},
    ]
    annotation = {"type": "url_citation", "url_citation": {"url": URLS[1], "title": "b"}}
    items = decode(
        completion_chunk(references=ours[:1]),
        completion_chunk(references=ours[1:], annotations=[annotation]),
        completion_chunk(references=[{"ordinal": "3"}, None, {"ordinal": True}, {"ordinal": -1}]),
        DONE,
    )
    assert [type(item) for item in items] == [References, References, UpstreamEnd]
    assert isinstance(items[1], References)
    assert items[1].references == (
        Reference(1, document_name="a", text="x", score=0.5),
        Reference(2, document_name="b", url=URLS[1], extra={"page": 3}),
    )


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (0, 2, 1)])
@pytest.mark.parametrize("style", list(Style))
def test_references_of_every_kind_have_ordinals_of_their_own(
    style: Style, order: tuple[int, ...]
) -> None:
    annotation = {"type": "url_citation", "url_citation": {"url": URLS[0], "title": "A"}}
    kinds = [
        completion_chunk(references=[{"ordinal": 1, "text": "ours"}]),
        completion_chunk(annotations=[annotation]),
        completion_chunk(reference=[{"content": "first"}, {"content": "second"}]),
    ]
    decoder = OpenAIDecoder(citations=CitationTranslator(style))
    items = decoder.feed(b"".join(kinds[place] for place in order))
    given = [item.references for item in items if isinstance(item, References)][-1]
    ordinals = [one.ordinal for one in given]
    assert ordinals == sorted(set(ordinals))
    assert {"A", None} == {one.document_name for one in given}
    assert {"first", "second"} >= {one.text for one in given} - {"ours", ""}


def test_references_beyond_the_limit_are_no_news() -> None:
    limits = LimitSettings(references=2)
    annotations = [
        {"type": "url_citation", "url_citation": {"url": f"https://a.example/{n}"}}
        for n in range(4)
    ]
    items = decode(
        *(completion_chunk(annotations=[one]) for one in annotations), DONE, limits=limits
    )
    given = [item.references for item in items if isinstance(item, References)]
    assert [[one.ordinal for one in references] for references in given] == [[1], [1, 2]]


@pytest.mark.parametrize(
    ("final", "text"),
    [
        ("<think>a</think>Kelp holds fast.", "Kelp holds fast."),
        ("<think>a</think>Kelp <think>b</think>holds fast.", "Kelp holds fast."),
        ("Kelp holds <think>fast.", "Kelp holds <think>fast."),
        ("</think>Kelp holds <think>a</think>fast.", "</think>Kelp holds fast."),
        ("<think>a<think>b</think>Kelp </think>holds.", "Kelp </think>holds."),
    ],
)
def test_thoughts_in_a_repeated_answer_are_left_out(final: str, text: str) -> None:
    assert decode(completion_chunk(final_content=final), DONE) == [TextReplace(text), UpstreamEnd()]


# ---------------------------------------------------------------------- in one piece


def whole(body: object) -> list[Item]:
    return OpenAIDecoder().feed_whole(json.dumps(body).encode())


def test_an_answer_in_one_piece() -> None:
    message = {
        "role": "assistant",
        "content": "Yes [ID:0].",
        "reasoning_content": "hm",
        "reference": [{"id": "a", "content": "x"}],
    }
    body = {
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 4},
    }
    items = whole(body)
    assert items[:2] == [ReasoningDelta("hm"), TextDelta("Yes [1].", ((4, 7, 1),))]
    assert isinstance(items[2], References)
    assert items[3:] == [Usage(3, 4), WHOLE]


def test_an_answer_in_one_piece_needs_no_finish_reason() -> None:
    assert whole({"choices": [{"message": {"content": "hi"}}]}) == [TextDelta("hi"), UpstreamEnd()]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"error": {"message": "down"}}, "down"),
        ({"code": 102, "message": "Session not found!"}, "Session not found! (102)"),
        ({"choices": []}, "an answer without choices"),
        ([1], "the upstream sent an answer that is not a chat completion"),
    ],
)
def test_json_that_is_no_answer_is_an_error(body: object, error: str) -> None:
    assert whole(body) == [failure(error)]


def test_garbage_in_one_piece_is_an_error() -> None:
    assert ending(OpenAIDecoder().feed_whole(b"oops")).reason is Reason.UPSTREAM_ERROR


# ---------------------------------------------------------------------- long answers


BEGUN = [completion_chunk(content=f"w{n} ") for n in range(MERGED_AFTER)]


@pytest.mark.parametrize(
    "rest",
    [
        ["one ", "two ", "", "three"] * 5,
        ["a mark [I", "D:0", "] and ", "another ", "##1$", "$."] * 3,
        ["fine\n", "**ERROR**: ", "no more", " of it", " to", " be", " had", "."],
        ["fine\n", "**ERR", "OR**: is only", " text", " so", " split", ",", " too"],
        ["[ID:", "0"] + ["x" * (MERGED_CHARS // 2 - 1)] * 9 + ["[I", "D:1"],
    ],
)
def test_what_one_read_of_a_long_answer_says_is_put_together(rest: list[str]) -> None:
    read = b"".join(completion_chunk(content=text) for text in rest)
    grainy, coarse = OpenAIDecoder(), OpenAIDecoder()
    items = [item for piece in [*BEGUN, read, STOP] for item in grainy.feed(piece)]
    fewer = [item for piece in [*BEGUN, read, STOP] for item in coarse.feed_read(piece)]
    items, fewer = items + grainy.finish(), fewer + coarse.finish()
    assert fold(said(fewer)) == fold(said(items))
    assert fewer[-1] == items[-1]
    assert len(fewer) <= len(items)


def test_what_is_no_text_keeps_its_place_among_the_texts_of_one_read() -> None:
    thought = completion_chunk(reasoning_content="hm")
    texts = [completion_chunk(content=letter) for letter in "abcdefgh"]
    decoder = OpenAIDecoder()
    for piece in BEGUN:
        decoder.feed_read(piece)
    items = decoder.feed_read(b"".join([*texts, thought, *texts, STOP, DONE]))
    assert items == [TextDelta("abcdefgh"), ReasoningDelta("hm"), TextDelta("abcdefgh"), WHOLE]


def said(items: list[Item]) -> list[Event]:
    return [item for item in items if not isinstance(item, UpstreamEnd)]
