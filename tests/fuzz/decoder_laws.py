"""The laws of decoders, for any bytes at all."""

from collections.abc import Callable, Iterable, Sequence
from time import process_time
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec

from holdfast.engine.fold import Answer, fold
from holdfast.engine.run import UpstreamEnd
from holdfast.events import (
    MAX_ORDINAL,
    Mark,
    Notice,
    Reason,
    ReasoningDelta,
    Reference,
    References,
    Step,
    TextDelta,
    TextReplace,
    ToolCall,
    encode,
)
from holdfast.settings import LimitSettings
from holdfast.upstreams.base import Item
from holdfast.upstreams.decoding.decoder import MERGED_AFTER, Decoder, merge_texts
from holdfast.upstreams.decoding.references import EXTRA_BYTES, NAME_CHARS, URL_CHARS, http_url
from holdfast.upstreams.pacing import split_text
from tests.fuzz.trial import Trial
from tests.support.corpus import CUT_OFF, check_items, feed_pieces

SENTINEL: Final = "⟦kelp⟧"
"""Text that nothing in the corpus says."""

Make: TypeAlias = Callable[[LimitSettings], Decoder]
Frame: TypeAlias = Callable[[str], Any]
"""The JSON of a frame with a piece of text."""


class Form(NamedTuple):
    """One way to set a decoder up.

    Attributes:
        make: Makes a fresh one.
        frame: Tells it more text, if the form has text that is sure to be answer.
        twin: Makes one that must give the same, although it takes no short cut.
    """

    make: Make
    frame: Frame | None = None
    twin: Make | None = None


FEED_S: Final = 1.0
BYTE_S: Final = 3e-6
"""What taking bytes may cost, in seconds of computing: some times what it does cost."""

TOLD: Final = ("finished", "ended", "session", "conversation", "task", "is_agent", "is_written")
"""What decoders tell besides items, if they have it."""

LIMITS: Final = (
    LimitSettings(),
    LimitSettings(references=3, reference_bytes=50),
    LimitSettings(event_bytes=3_000),
)


def check(form: Form, trial: Trial) -> tuple[list[Item], list[Item]]:
    """Check a decoder; give what it said of the whole, and of the beginning.

    Args:
        form: The decoder, as it is set up.
        trial: What it is fed; of the variant the remainder chooses the limits.
    """
    limits = LIMITS[trial.variant % len(LIMITS)]
    make = form.make
    decoder = make(limits)
    start = process_time()
    given = decoder.feed(trial.data)
    assert process_time() - start < FEED_S + BYTE_S * len(trial.data), "it costs too much"
    items = given + decoder.finish()
    _check_said(items, limits)
    _check_over(decoder, trial.data)
    _check_chunks(make(limits), decoder, trial, items)
    _check_reads(make(limits), trial, items)
    begun = _check_break(make, limits, trial, given)
    if form.twin is not None:
        assert feed_pieces(form.twin(limits), [trial.data]) == items, "the twin says something else"
    if form.frame is not None:
        _check_more(make(limits), form.frame, trial)
    _check_whole(make, limits, trial.data)
    return items, begun


# ---------------------------------------------------------------------- one answer


def _check_said(items: Sequence[Item], limits: LimitSettings, size: int = 0) -> None:
    """Each item says something, fits where it goes, and is no larger than what it is made of.

    Args:
        items: What was said.
        limits: What the decoder was made with.
        size: How large the answer was, if it came in one piece.
    """
    check_items([*items])
    for item in items:
        match item:
            case TextDelta(text=text, marks=marks) | TextReplace(text=text, marks=marks):
                assert text or isinstance(item, TextReplace), "a delta without text"
                _check_marks(text, marks)
                _check_paced(text, marks)
            case ReasoningDelta(text=text):
                assert text, "reasoning without text"
            case References(references=references):
                _check_references(references, limits)
            case ToolCall(index=index):
                assert 0 <= index <= MAX_ORDINAL
            case Step(label=label):
                assert label, "a step without a label"
            case Notice(code=code, message=message):
                assert code
                assert message
            case UpstreamEnd(error=error, status=status):
                assert status is None or 100 <= status < 600
                assert error is None or (error and "\n" not in error), "an error of no line"
            case _:
                pass
        # A byte may become eight: a control character is escaped, and a mark told once more.
        if not isinstance(item, UpstreamEnd | References):
            assert len(encode(item)) <= 8 * max(limits.event_bytes, size) + 2 * EXTRA_BYTES


def _check_marks(text: str, marks: Sequence[Mark]) -> None:
    before = 0
    for start, end, ordinal in marks:
        assert before <= start < end <= len(text), "marks out of order"
        assert text[start:end] == f"[{ordinal}]"
        assert 1 <= ordinal <= MAX_ORDINAL
        before = end


def _check_paced(text: str, marks: Sequence[Mark]) -> None:
    """An answer in one piece is cut for its pace without a loss."""
    deltas = list(split_text(text, marks, 3.0)) if len(text) < 5_000 else []
    for delta in deltas:
        _check_marks(delta.text, delta.marks)
    assert not deltas or "".join(delta.text for delta in deltas) == text
    assert not deltas or sum(len(delta.marks) for delta in deltas) == len(marks)


def _check_references(references: Sequence[Reference], limits: LimitSettings) -> None:
    assert len(references) <= limits.references
    ordinals = [reference.ordinal for reference in references]
    assert ordinals == sorted(set(ordinals)), "ordinals that are not in order, or not their own"
    for reference in references:
        check_reference(reference, limits.reference_bytes)


def check_reference(reference: Reference, text_bytes: int) -> None:
    """A reference is bounded, and its address can be shown as a link."""
    assert 1 <= reference.ordinal <= MAX_ORDINAL
    assert len(reference.text.encode()) <= max(text_bytes, 3)
    names = (reference.document_id, reference.document_name, reference.chunk_id)
    assert all(len(name or "") <= NAME_CHARS for name in names)
    assert reference.url is None or http_url(reference.url) == reference.url
    assert len(reference.url or "") <= URL_CHARS
    for value in (reference.positions, reference.extra):
        assert len(encode(value)) <= 2 * EXTRA_BYTES


def _check_over(decoder: Decoder, data: bytes) -> None:
    """After the end comes nothing; what is kept for people who debug is bounded."""
    assert decoder.ended
    assert decoder.feed(data) == decoder.finish() == decoder.release() == []
    assert len(encode(decoder.closing)) <= 2 * EXTRA_BYTES


# ---------------------------------------------------------------------- how it comes


def _check_chunks(decoder: Decoder, whole: Decoder, trial: Trial, items: Sequence[Item]) -> None:
    """Any chunking gives the same."""
    assert feed_pieces(decoder, trial.pieces()) == items, "the chunking shows"
    assert decoder.closing == whole.closing
    assert _told(decoder) == _told(whole)


def _told(decoder: Decoder) -> dict[str, Any]:
    return {name: getattr(decoder, name, None) for name in TOLD}


def _check_reads(decoder: Decoder, trial: Trial, items: Sequence[Item]) -> None:
    """What is merged in long answers says the same."""
    decoder._given = MERGED_AFTER
    merged = [item for piece in trial.pieces() for item in decoder.feed_read(piece)]
    merged += decoder.finish()
    check_items(merged)
    assert answer_of(merged) == answer_of(items)
    for size in (1, 40):
        assert answer_of(merge_texts([*items], size)) == answer_of(items)


def _check_break(
    make: Make, limits: LimitSettings, trial: Trial, given: Sequence[Item]
) -> list[Item]:
    """Wherever the stream breaks off, what was given stays, and what was held comes out."""
    begun = trial.data[: trial.place(len(trial.data))]
    broken, left = make(limits), make(limits)
    first = broken.feed(begun)
    assert first == given[: len(first)], "what was given is taken back"
    broken.ending(UpstreamEnd())
    items = first + broken.finish(CUT_OFF)
    _check_said(items, limits)
    seen, kept = answer_of(first), answer_of(items)
    assert kept.text.startswith(seen.text)
    assert kept.reasoning.startswith(seen.reasoning)
    stopped = answer_of(left.feed(begun) + left.release())
    assert (stopped.text, stopped.reasoning) == (kept.text, kept.reasoning)
    return items


def _check_more(decoder: Decoder, frame: Frame, trial: Trial) -> None:
    """Text that comes last comes out, also if it ends with what may be the beginning of a mark."""
    begun = trial.data[: trial.place(len(trial.data))]
    decoder.feed(begun + b"\n\n")
    if decoder.ended or decoder.ending(UpstreamEnd()).reason is not None:
        return  # by an error, whose words are cut
    text = SENTINEL + trial.tail
    items = decoder.feed(b"data: %b\n\n" % msgspec.json.encode(frame(text)))
    items += decoder.finish(UpstreamEnd(Reason.CLIENT_CANCELLED))
    said = "\n".join((answer_of(items).text, answer_of(items).reasoning, *_words(items)))
    assert text.strip() in said, "text is lost"


def _words(items: Iterable[Item]) -> Iterable[str]:
    for item in items:
        if isinstance(item, Step):
            yield item.detail or ""


def _check_whole(make: Make, limits: LimitSettings, data: bytes) -> None:
    """An answer in one piece, whatever it is."""
    lines = data.splitlines() or [b""]
    for body in (data, *{line.removeprefix(b"data:") for line in (lines[0], lines[-1])}):
        decoder = make(limits)
        _check_said(decoder.feed_whole(body), limits, len(body))
        _check_over(decoder, data)


def answer_of(items: Iterable[Item]) -> Answer:
    """What readers are left with."""
    return fold(item for item in items if not isinstance(item, UpstreamEnd))
