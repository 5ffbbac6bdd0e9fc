"""Hypothesis strategies for what the engine and the store work on."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, TypeAlias

from hypothesis import strategies as st

from holdfast.events import (
    Event,
    Finish,
    Mark,
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

texts = st.text(max_size=12)
"""Any text that has a UTF-8 form: NUL, line ends and astral characters too, no lone surrogates."""

_maybe_text = st.none() | texts
_numbers = st.integers(min_value=-(2**53), max_value=2**53)
_json: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | _numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
_objects = st.dictionaries(texts, _json, min_size=1, max_size=3)


@st.composite
def _marked(draw: st.DrawFn) -> tuple[str, tuple[Mark, ...]]:
    """A text with marks that lie within it, in order, each of one character at least."""
    text = draw(texts)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=6, unique=True)))
    pairs = zip(cuts[::2], cuts[1::2], strict=False)
    return text, tuple((start, end, draw(st.integers(1, 9))) for start, end in pairs)


@st.composite
def references(draw: st.DrawFn) -> tuple[Reference, ...]:
    """A set of references with ordinals of their own."""
    ordinals = draw(st.lists(st.integers(1, 50), unique=True, max_size=4))
    return tuple(
        Reference(
            ordinal=ordinal,
            document_id=draw(_maybe_text),
            document_name=draw(_maybe_text),
            chunk_id=draw(_maybe_text),
            text=draw(texts),
            url=draw(st.none() | st.just("https://kelp.example/海带")),
            score=draw(st.none() | st.floats(allow_nan=False, allow_infinity=False)),
            positions=draw(st.none() | st.lists(_json, min_size=1, max_size=2)),
            extra=draw(st.none() | _objects),
        )
        for ordinal in ordinals
    )


starts: st.SearchStrategy[Event] = st.builds(
    RunStart,
    run_id=texts,
    session_id=texts,
    message_id=texts,
    question_id=texts,
    upstream=texts,
    model=_maybe_text,
    route_reason=_maybe_text,
)
ends: st.SearchStrategy[RunEnd] = st.builds(
    RunEnd,
    outcome=st.sampled_from(Outcome),
    reason=st.none() | st.sampled_from(Reason),
    finish=st.none() | st.sampled_from(Finish),
    error=_maybe_text,
)
contents: st.SearchStrategy[Event] = st.one_of(
    _marked().map(lambda pair: TextDelta(*pair)),
    _marked().map(lambda pair: TextReplace(*pair)),
    st.builds(ReasoningDelta, text=texts),
    st.builds(References, references=references()),
    st.builds(
        ToolCall,
        index=st.integers(0, 3),
        id=_maybe_text,
        name=_maybe_text,
        arguments_delta=texts,
    ),
    st.builds(Step, label=texts, detail=_maybe_text),
    st.builds(Notice, code=texts, message=texts),
    st.builds(
        Usage,
        input_tokens=st.none() | _numbers,
        output_tokens=st.none() | _numbers,
        extra=st.none() | _objects,
    ),
)
"""What an upstream can say."""

events: st.SearchStrategy[Event] = st.one_of(contents, starts, ends)
"""Any event at all."""

Cut: TypeAlias = Callable[[bytes], list[bytes]]
"""A way to cut bytes into pieces."""


@st.composite
def cuts(draw: st.DrawFn) -> Cut:
    """Into pieces of one small size, or at drawn places, relative to the length."""
    places = draw(st.lists(st.floats(0, 1), max_size=8))
    size = draw(st.sampled_from([0, 1, 2, 3, 17]))

    def cut(data: bytes) -> list[bytes]:
        if size:
            return [data[at : at + size] for at in range(0, len(data), size)]
        at = sorted({0, len(data), *(int(place * len(data)) for place in places)})
        return [data[start:end] for start, end in pairwise(at)]

    return cut
