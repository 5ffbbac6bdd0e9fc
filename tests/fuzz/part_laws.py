"""The laws of what decoders are made of."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from holdfast.events import MAX_ORDINAL, Mark, encode
from holdfast.upstreams.anythingllm.decoder import AnythingLLMDecoder, newest_turn
from holdfast.upstreams.anythingllm.sources import FIELDS, Sources
from holdfast.upstreams.decoding.citations import CitationTranslator, Style
from holdfast.upstreams.decoding.lenient import decode_any, repair
from holdfast.upstreams.decoding.references import (
    CHUNK,
    OURS,
    SEARCH_RESULT,
    URL_CITATION,
    Fields,
    bounded_extra,
    read_reference,
    shorten,
)
from holdfast.upstreams.decoding.refusal import ERROR_CHARS, body_text, clean, error_text, without
from holdfast.upstreams.decoding.thinking import CLOSE_TAG, OPEN_TAG, OpeningThought, ThinkSplitter
from holdfast.upstreams.decoding.told_errors import CHARS, MARK, ErrorWatch
from holdfast.upstreams.dify.decoder import SOURCE
from holdfast.upstreams.wire.sse import SseParser
from tests.fuzz.decoder_laws import check_reference
from tests.fuzz.trial import Trial
from tests.support.corpus import check_items
from tests.support.sse_rules import parse

ALL_FIELDS: Final[Sequence[Fields]] = (CHUNK, FIELDS, OURS, SEARCH_RESULT, SOURCE, URL_CITATION)
SIZES: Final = (1_000_000, 700, 9)


def check_sse(trial: Trial) -> None:
    """The rules of the standard, in any pieces; and a limit that does not depend on them."""
    parser = SseParser(10**9)
    events = [event for piece in trial.pieces() for event in parser.feed(piece)]
    assert events == parse(trial.data)
    size = SIZES[trial.variant]
    whole, cut = SseParser(size), SseParser(size)
    expected = whole.feed(trial.data)
    assert [event for piece in trial.pieces() for event in cut.feed(piece)] == expected
    assert expected == events[: len(expected)]
    assert cut.overflowed == whole.overflowed
    assert whole.overflowed or expected == events
    assert all(len(event.data) <= size for event in expected)


def check_lenient(trial: Trial) -> None:
    """What is repaired is JSON, and is the same where nothing was broken."""
    for data in (trial.data, *_json_lines(trial.data)):
        encode(decode_any(data))
        repaired = repair(data)
        try:
            strict = msgspec.json.decode(data)
        except (ValueError, RecursionError):
            strict = repaired
        else:
            assert strict == decode_any(data)
        if repaired is not None and strict is not repaired:
            assert msgspec.json.decode(repaired) == strict
        assert repaired is None or repair(repaired) == repaired


def check_thinking(trial: Trial) -> None:
    """Thoughts do not depend on the deltas, and nothing but tags is left out."""
    tag = ("think", "retrieving")[trial.variant]
    text = trial.text
    found = [_split(ThinkSplitter(tag), deltas) for deltas in (trial.deltas(), [text])]
    assert found[0] == found[1], "the deltas show"
    thoughts, rest = found[0]
    tags = len(text) - len(thoughts) - len(rest)
    pairs, odd = divmod(tags, 2 * len(tag) + 5)
    assert odd in (0, len(tag) + 2), "more than tags is missing"
    assert pairs + bool(odd) <= text.count(f"<{tag}>")
    openings = [_opening(deltas) for deltas in (trial.deltas(), [text])]
    assert openings[0] == openings[1]
    thought, said = openings[0]
    assert len(thought) + len(said) <= len(text)
    assert thought or said == text or text.strip().startswith(OPEN_TAG)


def _split(splitter: ThinkSplitter, deltas: Iterable[str]) -> tuple[str, str]:
    pieces = [piece for delta in deltas for piece in splitter.feed(delta)] + splitter.flush()
    return _by_kind(pieces)


def _by_kind(pieces: Sequence[tuple[bool, str]]) -> tuple[str, str]:
    assert all(text for _, text in pieces), "an empty piece"
    thoughts = "".join(text for is_thought, text in pieces if is_thought)
    return thoughts, "".join(text for is_thought, text in pieces if not is_thought)


def _opening(deltas: Sequence[str]) -> tuple[str, str]:
    opening = OpeningThought()
    pieces: list[tuple[bool, str]] = []
    for delta in filter(None, deltas):
        pieces += [(False, delta)] if opening.is_over else opening.feed(delta)
    pieces += [] if opening.is_over else opening.flush()
    return _by_kind(pieces)


def check_told_errors(trial: Trial) -> None:
    """What is no error is all given; of an error its mark is left out."""
    watch, text = ErrorWatch(), trial.text
    given = "".join([watch.feed(delta) for delta in trial.deltas()]) + watch.flush()
    assert text.startswith(given)
    if watch.error is None:
        assert given == text
    else:
        assert len(watch.error) <= CHARS
        mark, error = text[len(given) :].lstrip()[: len(MARK)], watch.error
        assert mark == MARK
        assert text[len(given) :].lstrip()[len(MARK) :].startswith(error)
    assert CLOSE_TAG not in given or CLOSE_TAG in text


def check_citations(trial: Trial) -> None:
    """Marks do not depend on the deltas; every ordinal is one that can be stored."""
    style = list(Style)[trial.variant % len(Style)]
    loose = trial.variant >= len(Style)
    keys = _keys(trial.data)
    found = []
    for deltas in (trial.deltas(), [trial.text]):
        translator = CitationTranslator(style, loose=loose)
        before = translator.number(keys) if trial.at < 0.5 else []
        found.append(_translated(translator, deltas))
        ordinals = translator.number(keys)
        assert ordinals[: len(before)] == before
        assert len(set(ordinals)) == len(keys)
        assert all(1 <= ordinal <= MAX_ORDINAL for ordinal in ordinals)
    assert found[0] == found[1], "the deltas show"
    text, marks = found[0]
    assert marks or text == trial.text
    translator = CitationTranslator(style, loose=loose)
    translator.feed(trial.tail)
    assert _in_place(*translator.rewrite(trial.text))


def _keys(data: bytes) -> list[str]:
    """Keys as references have them, numbers among them."""
    return list(dict.fromkeys(word[:6_000] for word in data.decode("utf-8", "replace").split()))[:9]


def _translated(
    translator: CitationTranslator, deltas: Iterable[str]
) -> tuple[str, list[tuple[int, int, int]]]:
    text, marks = [], []
    length = 0
    for delta in deltas:
        more, new = translator.feed(delta)
        assert _in_place(more, new)
        marks += [(start + length, end + length, ordinal) for start, end, ordinal in new]
        text.append(more)
        length += len(more)
    return "".join([*text, translator.flush()]), marks


def _in_place(text: str, marks: Iterable[Mark]) -> bool:
    return all(text[start:end] == f"[{ordinal}]" for start, end, ordinal in marks)


def check_references(trial: Trial) -> None:
    """Whatever a source item says, a reference of it is bounded and can be stored."""
    size = (20_000, 50, 3)[trial.variant]
    for item in _objects(trial.data):
        for fields in ALL_FIELDS:
            check_reference(read_reference(item, fields, ordinal=1, text_bytes=size), size)
        encode(bounded_extra(item))
    assert len(shorten(trial.text, size).encode()) <= size
    sources = Sources(3, size)
    for line in _json_lines(trial.data):
        frame = decode_any(line)
        told = frame.get("sources") if isinstance(frame, dict) else frame
        for item in sources.merge(told if isinstance(told, list) else [frame]).values():
            check_reference(read_reference(item, FIELDS, ordinal=1, text_bytes=size), size)


def check_refusal(trial: Trial) -> None:
    """The words for people are on one line, not too long, and without secrets."""
    kind = ("application/json", "text/html", "")[trial.variant]
    texts = [body_text(kind, trial.data), error_text(decode_any(trial.data))]
    texts += [error_text(item) for item in _objects(trial.data)]
    for text in texts:
        assert len(text) <= ERROR_CHARS
        assert text == clean(text)
        text.encode()
    secret = trial.tail or "x"
    assert secret not in without([secret], trial.text) or secret in "***"


def check_history(trial: Trial) -> None:
    """What AnythingLLM's history has of an answer closes a gap, or is another answer."""
    saved = newest_turn(trial.data, "How often is the valve serviced?")
    if saved is None:
        return
    decoder = AnythingLLMDecoder()
    content = saved.content if isinstance(saved.content, str) else ""
    begun = content[: trial.place(len(content))]
    chunk = {"type": "textResponseChunk", "textResponse": begun}
    items = decoder.feed(b"data: %b\n\n" % msgspec.json.encode(chunk)) + decoder.release()
    if decoder.is_begun_of(saved):
        items += decoder.take_saved(saved, is_whole=trial.variant == 0)
    check_items(items + decoder.finish())


# ---------------------------------------------------------------------- tools


def _json_lines(data: bytes) -> list[bytes]:
    return [line[line.find(b"{") :] for line in data.split(b"\n")[:50] if b"{" in line]


def _objects(data: bytes) -> Iterator[Mapping[str, Any]]:
    """Some of the objects in the JSON of the data."""
    waiting: list[Any] = [decode_any(line) for line in _json_lines(data)]
    for _ in range(200):
        if not waiting:
            return
        value = waiting.pop()
        if isinstance(value, dict):
            yield value
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value[:20]
