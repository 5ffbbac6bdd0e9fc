"""The laws of DESIGN's decoders: any chunking gives the same, nothing raises, nothing is lost."""

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from holdfast.engine.fold import fold
from holdfast.engine.run import UpstreamEnd
from holdfast.events import Reason, TextDelta
from holdfast.settings import LimitSettings
from holdfast.upstreams.decoding.citations import CitationTranslator, Style
from holdfast.upstreams.decoding.decoder import Decoder
from holdfast.upstreams.dify.decoder import DifyDecoder
from holdfast.upstreams.openai.decoder import OpenAIDecoder
from holdfast.upstreams.wire.sse import SseEvent, SseParser
from tests.support.corpus import check_items, feed_pieces, find_cases
from tests.support.strategies import Cut, cuts

STREAMS = [case.body for case in find_cases("openai", "openai_agents") if case.is_stream]

# ---------------------------------------------------------------------- server-sent events

lines = st.sampled_from(
    [
        b"data: a",
        b"data:b",
        b"data",
        b"data:  c",
        "data: 中😀\u2028".encode(),
        b"data: \xff",
        b"event: x",
        b"event",
        b"id: 1",
        b"id: \x00",
        b"id",
        b"retry: 7",
        b": comment",
        b"",
        b"",
        b"",
        b"\xef\xbb\xbfdata: d",
        b"unknown: e",
        b"data: " + b"x" * 30,
    ]
)
ends = st.sampled_from([b"\n", b"\n", b"\r\n", b"\r"])
line_streams = st.lists(st.tuples(lines, ends).map(b"".join), max_size=25).map(b"".join)
usual_streams = st.lists(
    st.binary(max_size=12).filter(lambda data: not {10, 13} & set(data)), max_size=12
).map(lambda blocks: b"".join(b"data: " + block + b"\n\n" for block in blocks))
byte_streams = st.one_of(
    usual_streams, line_streams, st.binary(max_size=80), st.sampled_from(STREAMS)
)


def reference_parse(stream: bytes) -> list[SseEvent]:
    """The standard's rules, whole and literally."""
    text = stream.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    events: list[SseEvent] = []
    data, kind, last_id = b"", b"", b""
    for line in text.split(b"\n")[:-1]:
        name, colon, value = line.partition(b":")
        value = value[1:] if value[:1] == b" " else value
        if not line:
            if data:
                event = kind.decode("utf-8", "replace") or "message"
                events.append(SseEvent(data[:-1], event, last_id.decode("utf-8", "replace")))
            data, kind = b"", b""
        elif name == b"" and colon:
            continue
        elif name == b"data":
            data += value + b"\n"
        elif name == b"event":
            kind = value
        elif name == b"id" and b"\0" not in value:
            last_id = value
    return events


@given(byte_streams, cuts())
@example(b"data: a\r", lambda data: [data, b"\n", b"\r\n"])
def test_the_parser_follows_the_standard_for_any_chunking(stream: bytes, cut: Cut) -> None:
    parser = SseParser()
    pieces = cut(stream)
    assert [event for piece in pieces for event in parser.feed(piece)] == reference_parse(
        b"".join(pieces)
    )


@given(byte_streams, cuts(), st.integers(1, 40))
def test_the_limit_does_not_depend_on_the_chunking(stream: bytes, cut: Cut, limit: int) -> None:
    whole, parser = SseParser(limit), SseParser(limit)
    events = whole.feed(stream)
    assert [event for piece in cut(stream) for event in parser.feed(piece)] == events
    assert parser.overflowed == whole.overflowed
    assert all(len(event.data) <= limit for event in events)


# ---------------------------------------------------------------------- citations

mark_pieces = st.sampled_from(
    [
        "[ID:0]",
        "[ID: 12]",
        "(ID: 3)",
        "[ID 3]",
        "【ID：3】",
        "##7$$",
        "[1]",
        "【2】",
        "[",
        "[I",
        "[ID:",
        "##",
        "#",
        "$$",
        "]",
        ")",
        "ID",
        ": 4",
        "5",
        " ",
        "text",
        "中文",
        "(",
        "\n",
    ]
)
styles = st.sampled_from(list(Style))


def translated(
    style: Style, loose: bool, pieces: list[str]
) -> tuple[str, list[tuple[int, int, int]]]:
    """What a reader has in the end; checks each mark on the way."""
    translator = CitationTranslator(style, loose=loose)
    if style is Style.NUMBER:
        translator.number([str(number) for number in range(1, 5)])
    text, marks = "", []
    for piece in pieces:
        more, new = translator.feed(piece)
        for start, end, ordinal in new:
            assert more[start:end] == f"[{ordinal}]"
        marks += [(start + len(text), end + len(text), ordinal) for start, end, ordinal in new]
        text += more
    return text + translator.flush(), marks


@given(st.lists(mark_pieces, max_size=12), styles, st.booleans(), st.data())
def test_marks_do_not_depend_on_the_deltas(
    pieces: list[str], style: Style, loose: bool, data: st.DataObject
) -> None:
    text = "".join(pieces)
    places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=10)))
    bounds = [0, *places, len(text)]
    deltas = [text[start:end] for start, end in pairwise(bounds)]
    assert translated(style, loose, deltas) == translated(style, loose, [text])


@given(st.lists(st.text(max_size=10), max_size=10))
def test_text_without_marks_passes_unchanged(deltas: list[str]) -> None:
    assert translated(Style.NONE, True, deltas) == ("".join(deltas), [])
    text, marks = translated(Style.PLACE, True, deltas)
    assert marks or text == "".join(deltas)


# ---------------------------------------------------------------------- /chat/completions

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
contents = st.one_of(
    st.text(max_size=8),
    mark_pieces,
    st.just("\n**ERROR**: x"),
    st.just("half of a pair \ud83d"),
    st.just([{"type": "text", "text": "[ID"}]),
    st.sampled_from(["<think>", "</think>", "<thi", "</", " \n"]),
    values,
)
deltas_of_all_kinds = st.fixed_dictionaries(
    {},
    optional={
        "content": contents,
        "reasoning_content": values | st.text(max_size=5),
        "reasoning": st.text(max_size=5),
        "refusal": values,
        "tool_calls": st.lists(
            st.fixed_dictionaries(
                {"index": st.integers(0, 3) | st.none()},
                optional={
                    "id": st.sampled_from("abc"),
                    "function": st.fixed_dictionaries(
                        {"arguments": values}, optional={"name": st.text(max_size=3)}
                    ),
                },
            ),
            max_size=2,
        ),
        "annotations": values
        | st.lists(st.just({"url_citation": {"url": "https://a.example", "title": "A"}})),
        "reference": values
        | st.lists(st.dictionaries(st.sampled_from(["id", "content", "url", "x"]), values))
        | st.dictionaries(st.just("chunks"), st.dictionaries(st.sampled_from("0379"), values)),
        "references": values
        | st.lists(st.dictionaries(st.sampled_from(["ordinal", "text", "url", "extra"]), values)),
        "final_content": st.text(max_size=20),
    },
)
urls = st.sampled_from(["https://a.example", "https://b.example", "ftp://c.example", ""])
frames = st.one_of(
    st.fixed_dictionaries(
        {
            "choices": st.lists(
                st.fixed_dictionaries(
                    {"delta": deltas_of_all_kinds},
                    optional={
                        "index": st.integers(0, 1),
                        "finish_reason": st.sampled_from([None, None, None, "stop", "error", 7]),
                        "error": values,
                    },
                ),
                max_size=2,
            )
        },
        optional={
            "usage": values | st.dictionaries(st.just("prompt_tokens"), values),
            "citations": values | st.lists(urls, max_size=3),
            "search_results": values
            | st.lists(st.fixed_dictionaries({"url": urls | values, "title": values}), max_size=3),
        },
    ),
    st.dictionaries(
        st.sampled_from(["error", "code", "message", "object", "type", "detail", "status"]), values
    ),
)
frame_streams = st.lists(
    frames.map(lambda frame: f"data: {json.dumps(frame)}\n\n".encode()) | st.just(b": hi\n\n"),
    max_size=8,
).map(b"".join)
completion_streams = st.one_of(
    frame_streams,
    frame_streams.map(lambda stream: stream + b"data: [DONE]\n\n"),
    st.sampled_from(STREAMS),
    byte_streams,
    st.tuples(frame_streams, st.binary(max_size=30), frame_streams).map(b"".join),
)


openai_decoders = st.builds(
    lambda style, loose, think_tags: (
        lambda: OpenAIDecoder(
            citations=CitationTranslator(style, loose=loose), think_tags=think_tags
        )
    ),
    styles,
    st.booleans(),
    st.booleans(),
)


def check_chunking(decoder: Callable[[], Decoder], stream: bytes, cut: Cut) -> None:
    whole = decoder()
    expected = whole.feed(stream) + whole.finish()
    assert feed_pieces(decoder(), cut(stream)) == expected
    check_items(expected)


@given(openai_decoders, completion_streams, cuts())
def test_any_chunking_gives_the_same_items(
    decoder: Callable[[], Decoder], stream: bytes, cut: Cut
) -> None:
    check_chunking(decoder, stream, cut)


@given(
    openai_decoders,
    st.binary(max_size=200) | frame_streams | frames.map(lambda it: json.dumps(it).encode()),
)
def test_an_answer_in_one_piece_never_raises(decoder: Callable[[], Decoder], body: bytes) -> None:
    check_items(decoder().feed_whole(body))


plain_texts = st.lists(st.text(max_size=8) | mark_pieces, max_size=12)
causes = st.none() | st.sampled_from(list(Reason)).map(lambda reason: UpstreamEnd(reason))


def content_frame(content: Any) -> bytes:
    return f"data: {json.dumps({'choices': [{'delta': {'content': content}}]})}\n\n".encode()


@given(plain_texts, causes)
def test_no_character_is_lost_however_the_stream_ends(
    pieces: list[str], cause: UpstreamEnd | None
) -> None:
    decoder = OpenAIDecoder(citations=CitationTranslator(Style.NUMBER))
    items = decoder.feed(b"".join(content_frame(piece) for piece in pieces))
    items += decoder.finish(cause)
    check_items(items)
    text = "".join(item.text for item in items if isinstance(item, TextDelta))
    assert text == "".join(pieces)


def expected_text(stream: bytes) -> str:
    """The text in the whole events of a stream, without marks taken into account."""
    text = ""
    for event in reference_parse(stream):
        if event.data != b"[DONE]":
            frame = json.loads(event.data)
            text += frame["choices"][0]["delta"].get("content") or ""
    return text


@given(plain_texts, st.booleans(), st.floats(0, 1))
def test_a_stream_cut_anywhere_keeps_its_whole_events(
    pieces: list[str], done: bool, place: float
) -> None:
    stream = b"".join(content_frame(piece) for piece in pieces)
    whole_length = len(stream)
    stream += b"data: [DONE]\n\n" if done else b""
    cut = stream[: int(place * len(stream))]
    decoder = OpenAIDecoder(citations=CitationTranslator(Style.NUMBER))
    items = decoder.feed(cut) + decoder.finish()
    text = "".join(item.text for item in items if isinstance(item, TextDelta))
    assert text == expected_text(cut)
    end = items[-1]
    assert isinstance(end, UpstreamEnd)
    finished = len(cut) > whole_length and cut == stream
    assert end.reason is (None if finished else Reason.UPSTREAM_TRUNCATED)


@given(completion_streams, st.integers(10, 300), cuts())
def test_limits_do_not_depend_on_the_chunking(stream: bytes, limit: int, cut: Cut) -> None:
    limits = LimitSettings(event_bytes=limit, references=2, reference_bytes=20)
    whole = OpenAIDecoder(limits)
    expected = whole.feed(stream) + whole.finish()
    decoder = OpenAIDecoder(limits)
    items = [item for piece in cut(stream) for item in decoder.feed(piece)] + decoder.finish()
    assert items == expected


@given(st.lists(st.sampled_from(["<think>", "</think>", "<", "th", "ink>", "a", " "]), max_size=9))
def test_a_thought_does_not_depend_on_the_deltas(pieces: list[str]) -> None:
    def spoken(deltas: list[str]) -> tuple[str, str]:
        decoder = OpenAIDecoder()
        answer = fold(
            item
            for item in decoder.feed(b"".join(map(content_frame, deltas))) + decoder.finish()
            if not isinstance(item, UpstreamEnd)
        )
        return answer.reasoning, answer.text

    assert spoken(pieces) == spoken(["".join(pieces)])


# ---------------------------------------------------------------------- Dify

dify_texts = st.text(max_size=6) | st.sampled_from(["<think>", "</think>", "<thi", "nk>", "[1]"])
dify_sources = values | st.lists(
    values
    | st.dictionaries(
        st.sampled_from(
            ["position", "document_name", "segment_id", "content", "score", "url", "metadata"]
        ),
        values,
    ),
    max_size=3,
)
dify_data = st.fixed_dictionaries(
    {},
    optional={
        "text": values | dify_texts,
        "title": values,
        "label": values,
        "node_type": values | st.sampled_from(["llm", "start", "knowledge-retrieval"]),
        "status": values | st.sampled_from(["succeeded", "failed", "stopped", "start"]),
        "outputs": values
        | st.fixed_dictionaries({}, optional={"result": dify_sources, "answer": dify_texts}),
        "error": values,
    },
)
dify_frames = st.fixed_dictionaries(
    {},
    optional={
        "event": values
        | st.sampled_from(
            [
                *["message", "message", "agent_message", "agent_thought", "message_file"],
                *["message_replace", "message_end", "error", "ping", "text_chunk"],
                *["text_replace", "node_started", "node_finished", "agent_log"],
                *["workflow_finished", "workflow_paused", "unknown"],
            ]
        ),
        "answer": values | dify_texts,
        "conversation_id": values | st.just("c1"),
        "task_id": values | st.just("t1"),
        "metadata": values
        | st.fixed_dictionaries(
            {}, optional={"retriever_resources": dify_sources, "usage": values}
        ),
        "data": values | dify_data,
        "code": values,
        "message": values,
        "status": values | st.integers(300, 700),
        "reason": values,
        "url": values | st.sampled_from(["https://a.example/b c", "/d", "//[", "javascript:1"]),
        "type": values | st.sampled_from(["image", "a](b"]),
        "thought": values,
        "tool": values,
        "tool_input": values,
        "id": values | st.just("x1"),
    },
)
DIFY_STREAMS = [case.body for case in find_cases("dify") if case.is_stream]
dify_streams = st.one_of(
    st.lists(
        dify_frames.map(lambda frame: f"data: {json.dumps(frame)}\n\n".encode())
        | st.sampled_from([b"event: ping\n\n", b"data: \xff\n\n"]),
        max_size=8,
    ).map(b"".join),
    st.sampled_from(DIFY_STREAMS),
    byte_streams,
)
dify_decoders = st.builds(
    lambda base_url, think_tags: lambda: DifyDecoder(base_url=base_url, think_tags=think_tags),
    st.sampled_from(["", "https://dify.example/v1", "http://["]),
    st.booleans(),
)


@given(dify_decoders, dify_streams, cuts())
def test_any_chunking_of_dify_gives_the_same_items(
    decoder: Callable[[], Decoder], stream: bytes, cut: Cut
) -> None:
    check_chunking(decoder, stream, cut)


@given(dify_decoders, st.binary(max_size=99) | dify_frames.map(lambda it: json.dumps(it).encode()))
def test_an_answer_of_dify_in_one_piece_never_raises(
    decoder: Callable[[], Decoder], body: bytes
) -> None:
    check_items(decoder().feed_whole(body))


@given(st.lists(st.text(max_size=8), max_size=9), causes, st.sampled_from([True, False]))
def test_no_character_of_dify_is_lost_however_the_stream_ends(
    pieces: list[str], cause: UpstreamEnd | None, think_tags: bool
) -> None:
    decoder = DifyDecoder(think_tags=think_tags)
    frames = [{"event": "message", "answer": piece} for piece in pieces]
    items = decoder.feed(b"".join(f"data: {json.dumps(frame)}\n\n".encode() for frame in frames))
    items += decoder.finish(cause)
    check_items(items)
    assert "".join(item.text for item in items if isinstance(item, TextDelta)) == "".join(pieces)
