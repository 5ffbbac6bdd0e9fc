"""Taking what an upstream sends costs what its length allows, whatever it is.

Decoders run on the event loop: an answer that takes seconds to read stops all others. Each of
these answers has nearly the size that one event may have, and made some decoder work for seconds,
minutes or hours before it was mended, or could do so if somebody wrote the obvious thing.
"""

from collections.abc import Callable
from typing import Any, Final

import msgspec
import pytest

from holdfast.upstreams.anythingllm.decoder import AnythingLLMDecoder
from holdfast.upstreams.decoding.citations import CitationTranslator, Style
from holdfast.upstreams.decoding.decoder import Decoder
from holdfast.upstreams.dify.decoder import DifyDecoder
from holdfast.upstreams.openai.decoder import OpenAIDecoder
from holdfast.upstreams.ragflow.decoder import RagflowDecoder
from tests.fuzz.hunt import bounded

SIZE: Final = 900_000
CPU_S: Final = 2.5
"""Some times what the slowest of them takes."""


def cited(text: str) -> Any:
    """A passage of AnythingLLM."""
    return {"type": "textResponseChunk", "sources": [{"title": "a", "text": text, "score": 1}]}


def delta(**members: Any) -> Any:
    """A chunk of a chat completion."""
    return {"choices": [{"index": 0, "delta": members}]}


def answer(text: str, **members: Any) -> Any:
    """A frame of RAGFlow."""
    return {"code": 0, "data": {"answer": text, **members}}


def numbers() -> Decoder:
    return OpenAIDecoder(citations=CitationTranslator(Style.NUMBER))


ANSWERS: Final[dict[str, tuple[Callable[[], Decoder], Any]]] = {
    "a header of nothing but spaces": (
        AnythingLLMDecoder,
        cited("<document_metadata>" + " " * SIZE),
    ),
    "a field of nothing but spaces": (
        AnythingLLMDecoder,
        cited("<document_metadata>\na: b" + " " * SIZE + "c</document_metadata>"),
    ),
    "a field and many lines": (
        AnythingLLMDecoder,
        cited("<document_metadata>\na: b" + "\n" * (SIZE // 2) + "c</document_metadata>"),
    ),
    "many passages of one document": (
        AnythingLLMDecoder,
        {
            "type": "textResponseChunk",
            "sources": [{"title": "a", "text": str(n)} for n in range(SIZE // 30)],
        },
    ),
    "thoughts that do not end": (
        OpenAIDecoder,
        delta(final_content="<think>" * (SIZE // 7)),
    ),
    "thoughts that end": (
        OpenAIDecoder,
        delta(final_content="<think></think>" * (SIZE // 15)),
    ),
    "many references by number": (numbers, delta(reference=[{}] * (SIZE // 3))),
    "many pages": (numbers, {"choices": [], "citations": ["a"] * (SIZE // 4)}),
    "many references": (OpenAIDecoder, delta(reference=[{}] * (SIZE // 3))),
    "many references by key": (
        OpenAIDecoder,
        delta(reference={"chunks": {str(n): {} for n in range(SIZE // 13)}}),
    ),
    "many references of another Holdfast": (
        OpenAIDecoder,
        delta(references=[{"ordinal": n} for n in range(SIZE // 20)]),
    ),
    "many annotations": (
        OpenAIDecoder,
        delta(
            annotations=[
                {"type": "url_citation", "url_citation": {"url": f"https://a.example/{n}"}}
                for n in range(SIZE // 90)
            ]
        ),
    ),
    "many tool calls": (
        OpenAIDecoder,
        delta(tool_calls=[{"id": str(n), "function": {"name": "a"}} for n in range(SIZE // 45)]),
    ),
    "many beginnings of an error": (
        RagflowDecoder,
        answer("x" + "**ERROR**: " * (SIZE // 11), final=False),
    ),
    "many marks": (RagflowDecoder, answer("[ID:0]" * (SIZE // 6))),
    "many beginnings of a mark": (RagflowDecoder, answer("[ID:0" * (SIZE // 5))),
    "many tags": (RagflowDecoder, answer("<think>a</think>b" * (SIZE // 17))),
    "many tags behind a backtick": (RagflowDecoder, answer("`<think>" * (SIZE // 8))),
    "many steps": (
        RagflowDecoder,
        answer("<retrieving>a</retrieving>" * (SIZE // 26), final=False),
    ),
    "many results": (
        DifyDecoder,
        {
            "event": "message_end",
            "metadata": {"retriever_resources": [{"content": str(n)} for n in range(SIZE // 20)]},
        },
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_no_answer_costs_more_than_its_length_allows(name: str) -> None:
    make, frame = ANSWERS[name]
    data = b"data: %b\n\n" % msgspec.json.encode(frame)
    assert SIZE / 2 < len(data) < 1_000_000
    with bounded(CPU_S):
        decoder = make()
        decoder.feed(data)
        decoder.finish()
    assert decoder.ended


def test_a_long_thought_is_not_looked_at_again_for_each_piece() -> None:
    frames = [
        answer(f"<think>{'k' * 400_000}</think>a"),
        *(answer("ba"[n % 2]) for n in range(9_000)),
    ]
    with bounded(CPU_S):
        RagflowDecoder().feed(b"".join(b"data: %b\n\n" % msgspec.json.encode(it) for it in frames))
