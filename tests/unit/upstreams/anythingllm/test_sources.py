"""AnythingLLM's sources, as readers of an answer have them."""

from typing import Any

import msgspec
import pytest

from holdfast.engine.run import UpstreamEnd
from holdfast.events import (
    Reference,
    References,
    TextDelta,
)
from holdfast.settings import LimitSettings
from holdfast.upstreams.anythingllm.decoder import AnythingLLMDecoder
from holdfast.upstreams.anythingllm.sources import MAX_PASSAGES, Sources
from holdfast.upstreams.base import Item
from tests.support.upstream_server import event

WHOLE = UpstreamEnd()


def chunk(text: Any, close: Any = False, **fields: Any) -> bytes:
    frame = {"uuid": "u", "sources": [], "type": "textResponseChunk", "error": False}
    return event({**frame, "textResponse": text, "close": close, **fields})


def final(**fields: Any) -> bytes:
    frame = {"uuid": "u", "type": "finalizeResponseStream", "close": True, "error": False}
    return event({**frame, "chatId": 1, **fields})


def full(text: Any, **fields: Any) -> bytes:
    return event({"id": "u", "type": "textResponse", "textResponse": text, "close": True, **fields})


def thought(text: Any) -> bytes:
    return event({"id": "u", "type": "agentThought", "thought": text, "error": None})


def decode(*pieces: bytes, limits: LimitSettings | None = None) -> list[Item]:
    """What a decoder gives for a stream that ends by itself."""
    decoder = AnythingLLMDecoder(limits)
    items = [item for piece in pieces for item in decoder.feed(piece)]
    return items + decoder.finish()


def references(*sources: Any, limits: LimitSettings | None = None) -> tuple[Reference, ...]:
    """What readers have in the end of a closing frame with these sources."""
    sets = [
        item.references
        for item in decode(chunk("x"), final(sources=list(sources)), limits=limits)
        if isinstance(item, References)
    ]
    return sets[-1] if sets else ()


HEADER = "<document_metadata>\nsourceDocument: a.txt\npublished: today\n{}</document_metadata>\n\n"


class TestSources:
    def test_a_passage(self) -> None:
        source = {
            "id": "v1",
            "url": "file:///srv/a.txt",
            "title": "a.txt",
            "chunkSource": "",
            "published": "today",
            "wordCount": 3,
            "text": HEADER.format("") + "  Close it.",
            "_distance": 0.25,
            "score": 0.75,
        }
        assert references(source) == (
            Reference(
                ordinal=1,
                document_name="a.txt",
                chunk_id="v1",
                text="Close it.",
                score=0.75,
                extra={"published": "today", "wordCount": 3},
            ),
        )

    def test_what_only_the_header_says(self) -> None:
        text = HEADER.format("source: https://a.example/x\n") + "Close it."
        assert references({"text": text, "id": "v1", "score": 1}) == (
            Reference(
                ordinal=1,
                document_name="a.txt",
                chunk_id="v1",
                text="Close it.",
                url="https://a.example/x",
                score=1.0,
                extra={"published": "today"},
            ),
        )

    @pytest.mark.parametrize(
        "text",
        [
            "<document_metadata>\nsourceDocument: never closed",
            "see <document_metadata>x</document_metadata>",
            "document_metadata",
        ],
    )
    def test_what_is_no_header_stays(self, text: str) -> None:
        assert references({"title": "a", "text": text})[0].text == text

    @pytest.mark.parametrize(
        ("fields", "url"),
        [
            ({"chunkSource": "link://https://a.example/x?y=1"}, "https://a.example/x?y=1"),
            ({"chunkSource": "github://https://a.example/r?payload=k"}, "https://a.example/r"),
            ({"chunkSource": "link://a", "url": "https://b.example"}, "https://b.example"),
            ({"url": "file:///etc/passwd"}, None),
            ({"chunkSource": "link://javascript:alert(1)"}, None),
            ({"chunkSource": 7, "url": ["x"]}, None),
        ],
    )
    def test_only_what_is_a_link_becomes_one(self, fields: dict[str, Any], url: str | None) -> None:
        (reference,) = references({"title": "a", "text": "b", **fields})
        assert reference.url == url
        assert b"payload" not in msgspec.json.encode(reference)
        assert b"passwd" not in msgspec.json.encode(reference)

    def test_the_distance_stands_in_for_a_score(self) -> None:
        assert references({"title": "a", "_distance": 0.25})[0].score == 0.75

    def test_a_document_is_known_by_title_and_origin(self) -> None:
        found = references(
            {"title": "a", "text": "1", "id": "x", "score": 0.2},
            {"title": "a", "text": "1", "id": "y", "score": 0.9},
            {"title": "a", "text": "1 and 2", "id": "z"},
            {"title": "a", "text": "3", "chunkSource": "link://https://a.example"},
            {"title": "b", "text": "4"},
        )
        assert [(one.document_name, one.text, one.score, one.chunk_id) for one in found] == [
            ("a", "1 and 2", 0.9, "x"),
            ("a", "3", None, None),
            ("b", "4", None, None),
        ]

    def test_without_a_title_its_id_or_text_tells_them_apart(self) -> None:
        found = references(
            {"id": 1, "text": "a"}, {"id": 2, "text": "a"}, {"text": "b"}, {"text": "b"}
        )
        assert [one.text for one in found] == ["a", "a", "b"]

    @pytest.mark.parametrize("sources", [None, {}, "x", 7, [], [None, 1, "x", [], {}]])
    def test_what_is_no_source(self, sources: Any) -> None:
        assert decode(chunk("a"), final(sources=sources)) == [TextDelta("a"), WHOLE]

    def test_sources_count_on_any_frame(self) -> None:
        source = {"title": "a", "text": "b"}
        for frame in (chunk("", sources=[source]), full("", sources=[source]), thought("x")):
            frame = frame.replace(b'"type": "agent', b'"sources": [{"title": "a"}], "type": "agent')
            items = decode(frame, final())
            assert sum(isinstance(item, References) for item in items) == 1

    def test_limits(self) -> None:
        limits = LimitSettings(references=2, reference_bytes=20)
        many = [{"title": str(n % 4), "text": "x" * 15 + str(n)} for n in range(40)]
        found = references(*many, limits=limits)
        assert [one.document_name for one in found] == ["0", "1"]
        assert all(len(one.text.encode()) <= 20 for one in found)

    def test_no_more_is_kept_than_is_wanted(self) -> None:
        sources = Sources(documents=2, text_bytes=10)
        changed = sources.merge([{"title": str(n), "text": "z"} for n in range(9)])
        assert list(changed) == ["0\n", "1\n"]
        for n in range(9):
            changed = sources.merge([{"title": "0", "text": f"passage {n}"}])
        assert changed == {}
        assert sources.merge([{"title": "0", "score": 1.0}])["0\n"]["text"] == "z\n\npassage 0"


@pytest.mark.parametrize(
    ("text", "passage"),
    [
        ("\n <document_metadata>\n\n</document_metadata>\n\n Close it.", "Close it."),
        ("<document_metadata>\na b: c\n: d\ne:\n</document_metadata>Close it.", "Close it."),
        ("<document_metadata>a: b</document_metadata></document_metadata>", "</document_metadata>"),
        ("<document_metadata>Close it.", "<document_metadata>Close it."),
        ("Close it.</document_metadata>", "Close it.</document_metadata>"),
        (
            "It: <document_metadata></document_metadata>",
            "It: <document_metadata></document_metadata>",
        ),
    ],
)
def test_only_a_whole_header_at_the_beginning_is_one(text: str, passage: str) -> None:
    (reference,) = references({"text": text, "title": "a.txt"})
    assert reference.text == passage


def test_only_so_many_passages_of_a_document_are_told_from_each_other() -> None:
    sources = [{"title": "a.txt", "text": f"<{n}>"} for n in range(MAX_PASSAGES + 5)]
    (reference,) = references(*sources)
    assert reference.text.count("<") == MAX_PASSAGES
