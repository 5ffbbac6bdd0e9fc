"""The laws of decoders, for AnythingLLM's: any chunking, no exception, no character lost."""

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from holdfast.engine.fold import fold
from holdfast.engine.run import UpstreamEnd
from holdfast.events import Event, Reason, Reference, References
from holdfast.settings import LimitSettings
from holdfast.upstreams.anythingllm.decoder import AnythingLLMDecoder, SavedTurn, newest_turn
from holdfast.upstreams.base import Item
from tests.support.corpus import check_items, feed_pieces, find_cases
from tests.support.strategies import Cut, cuts

RECORDED = [case.body for case in find_cases("anythingllm") if case.is_stream]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
pieces = st.sampled_from(
    [
        "<think>",
        "</think>",
        "<thi",
        "nk>",
        "</",
        "`",
        "[1]",
        "[ID:0]",
        "**ERROR**: x",
        "data: ",
        "\n\n",
        "中😀",
        "\ud83d",
        "The agent model failed to respond: ",
        " ",
    ]
) | st.text(max_size=6)
source_items = (
    st.fixed_dictionaries(
        {},
        optional={
            "id": json_values,
            "title": st.sampled_from(["a", "b", ""]) | json_values,
            "text": st.sampled_from(
                ["x", "xy", "<document_metadata>\na: b\n</document_metadata>\nz"]
            )
            | json_values,
            "chunkSource": st.sampled_from(["", "link://https://a.example/", "x://y?payload=z"])
            | json_values,
            "url": st.sampled_from(["file:///etc", "https://a.example"]) | json_values,
            "score": json_values,
            "_distance": json_values,
            "more": json_values,
        },
    )
    | json_values
)
frames = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            [
                "textResponseChunk",
                "textResponseChunk",
                "textResponseChunk",
                "textResponse",
                "agentThought",
                "statusResponse",
                "fileDownload",
                "usageMetrics",
                "abort",
                "finalizeResponseStream",
            ]
        )
        | json_values
    },
    optional={
        "textResponse": pieces | json_values,
        "close": st.booleans() | json_values,
        "error": st.sampled_from([False, None, "broken"]) | json_values,
        "sources": st.lists(source_items, max_size=3) | json_values,
        "thought": st.sampled_from(["hm", "Error encountered while running: x"]) | json_values,
        "fileDownload": st.just({"filename": "a.pdf"}) | json_values,
        "metrics": st.dictionaries(
            st.sampled_from(["prompt_tokens", "completion_tokens", "model"]), json_values
        )
        | json_values,
        "chatId": json_values,
        "animate": st.booleans(),
        "id": json_values,
        "uuid": json_values,
        "outputs": json_values,
    },
)


def sse(frame: Any) -> bytes:
    return f"data: {json.dumps(frame)}\n\n".encode()


frame_streams = st.lists(frames.map(sse) | st.just(b": hi\n\n"), max_size=8).map(b"".join)
streams = st.one_of(
    frame_streams,
    st.sampled_from(RECORDED),
    st.binary(max_size=80),
    st.lists(json_values.map(sse), max_size=4).map(b"".join),
    st.tuples(frame_streams, st.binary(max_size=30), frame_streams).map(b"".join),
)
causes = st.none() | st.sampled_from(list(Reason)).map(UpstreamEnd)


def answer_of(items: list[Item]) -> tuple[str, str, tuple[Reference, ...]]:
    """The text, the reasoning and the references that readers are left with."""
    events: list[Event] = [item for item in items if not isinstance(item, UpstreamEnd)]
    answer = fold(events)
    return answer.text, answer.reasoning, answer.references


@given(streams, cuts())
def test_any_chunking_gives_the_same_items(stream: bytes, cut: Cut) -> None:
    expected = feed_pieces(AnythingLLMDecoder(), [stream])
    assert feed_pieces(AnythingLLMDecoder(), cut(stream)) == expected
    check_items(expected)


@given(streams, st.integers(10, 300), cuts())
def test_limits_do_not_depend_on_the_chunking(stream: bytes, limit: int, cut: Cut) -> None:
    limits = LimitSettings(event_bytes=limit, references=2, reference_bytes=20)
    expected = feed_pieces(AnythingLLMDecoder(limits), [stream])
    assert feed_pieces(AnythingLLMDecoder(limits), cut(stream)) == expected
    for item in expected:
        if isinstance(item, References):
            assert len(item.references) <= 2
            assert all(len(one.text.encode()) <= 20 for one in item.references)


@given(
    st.binary(max_size=200)
    | json_values.map(json.dumps).map(str.encode)
    | frames.map(json.dumps).map(str.encode)
)
def test_an_answer_in_one_piece_never_raises(body: bytes) -> None:
    check_items(AnythingLLMDecoder().feed_whole(body))


@given(st.lists(pieces, max_size=12), causes)
@example(["a", "<thi"], None)
def test_no_character_is_lost_however_the_stream_ends(
    texts: list[str], cause: UpstreamEnd | None
) -> None:
    decoder = AnythingLLMDecoder()
    chunks = [{"type": "textResponseChunk", "textResponse": text} for text in texts]
    items = decoder.feed(b"".join(map(sse, chunks)))
    items += decoder.finish(cause)
    check_items(items)
    text, thought, _ = answer_of(items)
    whole = "".join(texts).replace("\ud83d", "\ufffd")
    # Only tags go, so what is left are the characters of the whole, less those of the tags.
    lost = len(whole) - len(text) - len(thought)
    opened, odd = divmod(lost, len("<think></think>"))
    assert odd in (0, len("<think>"))
    assert opened + bool(odd) <= whole.count("<think>")
    if not lost:
        assert text == whole


@given(streams)
def test_whoever_stops_reading_keeps_what_an_end_would_have_given(stream: bytes) -> None:
    stopped, ended = AnythingLLMDecoder(), AnythingLLMDecoder()
    left = stopped.feed(stream) + stopped.release()
    finished = ended.feed(stream) + ended.finish(UpstreamEnd(Reason.CLIENT_CANCELLED))
    assert answer_of(left) == answer_of(finished)


history_items = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant"]) | json_values},
    optional={
        "content": st.sampled_from(["q", "a"]) | pieces | json_values,
        "sources": st.lists(source_items, max_size=2) | json_values,
        "metrics": json_values,
        "chatId": st.integers(0, 3) | json_values,
    },
)


@given(
    st.binary(max_size=40)
    | json_values.map(json.dumps).map(str.encode)
    | st.lists(history_items, max_size=6).map(
        lambda items: json.dumps({"history": items}, ensure_ascii=True).encode()
    )
)
def test_no_history_raises(body: bytes) -> None:
    saved = newest_turn(body, "q")
    if saved is not None:
        decoder = AnythingLLMDecoder()
        assert decoder.is_begun_of(saved) is isinstance(saved.content, str)
        check_items(decoder.take_saved(saved, is_whole=True))


@given(st.text(max_size=12), st.integers(0, 12), st.integers(0, 12))
def test_the_history_closes_the_gap_and_nothing_more(text: str, cut: int, held: int) -> None:
    """However much had come, and however much of it was still held back for a tag."""
    saved = SavedTurn(content=text)
    decoder = AnythingLLMDecoder()
    chunks = [text[:cut][:held], text[:cut][held:]]
    items = decoder.feed(
        b"".join(sse({"type": "textResponseChunk", "textResponse": one}) for one in chunks)
    )
    items += decoder.release()
    assert decoder.is_begun_of(saved)
    items += decoder.take_saved(saved, is_whole=True)
    assert answer_of(items)[0] == text
