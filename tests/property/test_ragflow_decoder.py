"""The laws of decoders for RAGFlow's frames: chunking, hostile data, and no character lost."""

import json
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from holdfast.engine.fold import fold
from holdfast.engine.run import UpstreamEnd
from holdfast.events import Reason, TextReplace
from holdfast.settings import LimitSettings
from holdfast.upstreams.base import Item
from holdfast.upstreams.decoding.citations import CitationTranslator, Style
from holdfast.upstreams.ragflow.decoder import RagflowDecoder
from tests.support.corpus import check_items, ends_of_events, find_cases
from tests.support.strategies import Cut, cuts

STREAMS = [case.body for case in find_cases("ragflow") if case.is_stream]
DONE = b'data:{"code": 0, "data": true}\n\n'


def frame(body: object) -> bytes:
    return f"data:{json.dumps(body)}\n\n".encode()


def answer_of(items: list[Item]) -> tuple[str, str]:
    """The text and the reasoning that a reader has in the end."""
    answer = fold(item for item in items if not isinstance(item, UpstreamEnd))
    return answer.text, answer.reasoning


def decode(stream: bytes, **settings: Any) -> list[Item]:
    decoder = RagflowDecoder(**settings)
    return decoder.feed(stream) + decoder.finish()


# ---------------------------------------------------------------------- hostile frames

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
texts = st.sampled_from(
    [
        "<think>", "</think>", "<thi", "nk>", "<retrieving>", "</retrieving>", "<br/>", "`",
        "**ERROR**: ", "**ER", "ROR**: ", "TIMEOUT - ", "[ID:0]", "[ID", ":7]", "##1$$", "(ID: 0)",
        "A", " b", "\n", "中", "😀", "half of a pair \ud83d", "The valve",
    ]
).map(str) | st.text(max_size=8)  # fmt: skip
answers = st.lists(texts, max_size=4).map("".join)
chunks = st.dictionaries(
    st.sampled_from(["id", "content", "doc_id", "positions", "similarity", "url", "x"]), values
)
references = (
    values
    | st.fixed_dictionaries({"chunks": st.lists(chunks | values, max_size=3)})
    | st.fixed_dictionaries({"chunks": st.dictionaries(st.sampled_from("0379"), chunks)})
)
flags = st.sampled_from([True, False, None, 0, "x"])
answer_frames = st.fixed_dictionaries(
    {"answer": answers | values},
    optional={
        "reference": references,
        "final": flags,
        "start_to_think": flags,
        "end_to_think": flags,
        "running_status": flags,
        "id": values,
        "session_id": values,
    },
)
events = st.fixed_dictionaries(
    {
        "event": st.sampled_from(
            [
                "message", "message_end", "node_started", "node_finished", "user_inputs",
                "workflow_started", "workflow_finished", "x",
            ]
        )
        | values,
        "data": st.fixed_dictionaries(
            {},
            optional={
                "content": answers | values,
                "reference": references,
                "start_to_think": flags,
                "end_to_think": flags,
                "error": values,
                "component_name": values,
                "component_id": values,
                "thoughts": values,
                "tips": values,
                "inputs": values,
                "usage": values | st.dictionaries(st.just("prompt_tokens"), values),
            },
        )
        | values,
    },
    optional={"code": values, "message": values},
)  # fmt: skip
envelopes = st.fixed_dictionaries(
    {"code": st.sampled_from([0, 0, 0, 0, 500, None, "x"]), "data": answer_frames | values},
    optional={"message": values},
)
frames = st.one_of(envelopes, envelopes, events, values)
frame_streams = st.lists(frames.map(frame) | st.just(b": hi\n\n"), max_size=8).map(b"".join)
streams = st.one_of(
    frame_streams,
    frame_streams.map(lambda stream: stream + DONE),
    frame_streams.map(lambda stream: stream + b"data:[DONE]\n\n"),
    st.sampled_from(STREAMS),
    st.tuples(frame_streams, st.binary(max_size=30), frame_streams).map(b"".join),
    st.binary(max_size=80),
)


@given(streams, cuts(), st.booleans())
def test_any_chunking_gives_the_same_items(stream: bytes, cut: Cut, is_first: bool) -> None:
    whole, decoder = RagflowDecoder(agent=True), RagflowDecoder(agent=True)
    whole.awaits_session = decoder.awaits_session = is_first
    whole.offers_messages = decoder.offers_messages = is_first
    expected = whole.feed(stream) + whole.finish()
    items = [item for piece in cut(stream) for item in decoder.feed(piece)] + decoder.finish()
    assert items == expected
    check_items(items)
    assert decoder.closing == whole.closing
    assert decoder.session == whole.session


@given(streams, st.integers(10, 300), cuts())
def test_limits_do_not_depend_on_the_chunking(stream: bytes, limit: int, cut: Cut) -> None:
    limits = LimitSettings(event_bytes=limit, references=2, reference_bytes=20)
    decoder = RagflowDecoder(limits)
    items = [item for piece in cut(stream) for item in decoder.feed(piece)] + decoder.finish()
    assert items == decode(stream, limits=limits)


@given(st.binary(max_size=200) | frame_streams | frames.map(lambda it: json.dumps(it).encode()))
def test_an_answer_in_one_piece_never_raises(body: bytes) -> None:
    check_items(RagflowDecoder().feed_whole(body))


@given(streams)
def test_an_error_is_sticky(stream: bytes) -> None:
    decoder = RagflowDecoder()
    failure = frame({"code": 500, "message": "it broke", "data": {"answer": "x"}})
    decoder.feed(stream + b"\n\n" + failure)
    if not decoder.ended:
        end = [*decoder.feed(stream + b"\n\n" + DONE), *decoder.finish()][-1]
        assert isinstance(end, UpstreamEnd)
        assert end.reason in (Reason.UPSTREAM_ERROR, Reason.LIMIT)


# ---------------------------------------------------------------------- no character is lost

plain = st.lists(
    st.text(max_size=8) | st.sampled_from(["[", "[ID", "<", "<thi", "*", "**", "**ERR"]),
    max_size=10,
).filter(lambda pieces: not re.search(r"think>|retrieving>|ERROR\*\*", "".join(pieces)))
causes = st.none() | st.sampled_from(list(Reason)).map(lambda reason: UpstreamEnd(reason))


def forms(pieces: list[str], form: str) -> list[bytes]:
    """The frames of an answer of these pieces, as servers of one era send them."""
    if form == "agent":
        return [frame({"event": "message", "data": {"content": piece}}) for piece in pieces]
    if form == "pieces":
        return [frame({"code": 0, "data": {"answer": it, "final": False}}) for it in pieces]
    wholes = ["".join(pieces[: count + 1]) for count in range(len(pieces))]
    more = {"final": False} if form == "legacy" else {}
    return [frame({"code": 0, "data": {"answer": whole, **more}}) for whole in wholes]


@given(plain, st.sampled_from(["wholes", "pieces", "agent"]), causes, st.integers(0, 10))
def test_no_character_is_lost_however_and_wherever_the_stream_ends(
    pieces: list[str], form: str, cause: UpstreamEnd | None, count: int
) -> None:
    decoder = RagflowDecoder(citations=CitationTranslator(Style.NONE))
    items = decoder.feed(b"".join(forms(pieces, form)[:count]))
    items += decoder.finish(cause)
    check_items(items)
    assert answer_of(items) == ("".join(pieces[:count]), "")


@given(plain, st.floats(0, 1), st.sampled_from(["wholes", "pieces", "agent"]))
def test_a_stream_cut_anywhere_keeps_its_whole_events(
    pieces: list[str], place: float, form: str
) -> None:
    stream = b"".join(forms(pieces, form))
    cut = stream[: int(place * len(stream))]
    arrived = len([end for end in ends_of_events(stream) if end <= len(cut)])
    items = decode(cut, citations=CitationTranslator(Style.NONE))
    assert answer_of(items)[0] == "".join(pieces[:arrived])
    end = items[-1]
    assert isinstance(end, UpstreamEnd)
    assert end.reason is Reason.UPSTREAM_TRUNCATED


@given(plain.map(lambda pieces: ["The valve", *[piece for piece in pieces if piece]]))
def test_every_era_tells_the_same_answer(pieces: list[str]) -> None:
    style = CitationTranslator(Style.NONE)
    told = {
        form: answer_of(decode(b"".join(forms(pieces, form)) + DONE, citations=style))
        for form in ("wholes", "pieces", "agent", "legacy")
    }
    assert set(told.values()) == {("".join(pieces), "")}


@given(st.lists(answers, max_size=6), st.sampled_from(["wholes", "pieces", "agent"]))
def test_what_was_given_is_taken_back_by_nothing_but_a_rewrite(
    pieces: list[str], form: str
) -> None:
    decoder = RagflowDecoder()
    items: list[Item] = []
    before = ("", "")
    for one in [*forms(pieces, form), DONE]:
        more = decoder.feed(one)
        items += more
        text, reasoning = answer_of(items)
        assert reasoning.startswith(before[1])
        assert text.startswith(before[0]) or any(isinstance(it, TextReplace) for it in more)
        before = (text, reasoning)
