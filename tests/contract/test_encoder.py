"""The contract of every encoder, and the bytes of the native one."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.dialects.base import HEARTBEAT, OPENING, About, Encoder
from holdfast.dialects.native import NativeEncoder
from holdfast.events import (
    EVENT_TYPES,
    Entry,
    Event,
    Notice,
    Outcome,
    Reason,
    ReasoningDelta,
    RunEnd,
    RunStart,
    TextDelta,
    TextReplace,
)
from holdfast.http.dialects import DIALECTS
from tests.support import strategies
from tests.support.frames import Path, entries_of, frames_of, merged, messages_of
from tests.unit.test_events import PINNED

ABOUT = About("run-1", "my session", 1_700_000_000_000)
START = RunStart("run-1", "s1", "m1", "q1", "docs", route="local_small")
COMPLETED = RunEnd(Outcome.COMPLETED)
ENDS = [
    COMPLETED,
    RunEnd(Outcome.CANCELLED, Reason.CLIENT_CANCELLED),
    RunEnd(Outcome.INTERRUPTED, Reason.UPSTREAM_ERROR, error="it broke\n海"),
    RunEnd(Outcome.FAILED, Reason.UPSTREAM_UNREACHABLE, error="refused", status=429),
    RunEnd(Outcome.FAILED, Reason.SERVER_CRASH),
]
ONE_OF_EACH = [event for event, _ in PINNED if not isinstance(event, RunStart | RunEnd)]

TEXTS: dict[str, list[Path]] = {
    "ai-sdk": [("delta",)],
    "messages": [("data", "answer")],
    "openai": [
        ("choices", 0, "delta", "content"),
        ("choices", 0, "delta", "reasoning_content"),
    ],
    "plain": [("content",)],
    "stream-ask": [("content",)],
    "v1": [("content",)],
}
"""Where a dialect has text whose pieces depend on when its reader woke up."""

Make: TypeAlias = Callable[[], Encoder]


@pytest.fixture(params=DIALECTS)
def dialect(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def make(dialect: str) -> Make:
    return lambda: DIALECTS[dialect](ABOUT)


_told: st.SearchStrategy[Event] = st.one_of(
    strategies.contents,
    st.sampled_from(
        [
            TextDelta("海"),
            TextDelta("kelp " * 500),
            TextReplace("海"),
            TextReplace("海 and more"),
            ReasoningDelta("hm"),
            Notice("fell_through", "docs is down", upstream="gpt", model="m", route="cloud_large"),
        ]
    ),
)


@st.composite
def logs(draw: st.DrawFn) -> list[Entry]:
    """Any log from its start to its end, and any order of what is in between."""
    return entries_of(START, *draw(st.lists(_told, max_size=12)), draw(st.sampled_from(ENDS)))


@st.composite
def batches(draw: st.DrawFn) -> list[list[Entry]]:
    """A log in the pieces in which its reader happened to get it."""
    log = draw(logs())
    cuts = sorted(draw(st.lists(st.integers(0, len(log)), max_size=6)))
    return [log[start:end] for start, end in zip([0, *cuts], [*cuts, len(log)], strict=True)]


def joined(pieces: Sequence[Sequence[Entry]]) -> list[Entry]:
    return [entry for piece in pieces for entry in piece]


def resumed(make: Make, before: Sequence[Entry]) -> Encoder:
    """An encoder as it is made for a reader that comes back."""
    encoder = make()
    if encoder.needs_history:
        encoder.encode(before)
    return encoder


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.reason or "completed")
def test_p5_an_encoder_resumed_anywhere_writes_what_it_would_have_written(
    make: Make, end: RunEnd
) -> None:
    entries = entries_of(START, *ONE_OF_EACH, end)
    for cut in range(len(entries) + 1):
        before, after = entries[:cut], entries[cut:]
        uninterrupted = make()
        uninterrupted.encode(before)
        assert resumed(make, before).encode(after) == uninterrupted.encode(after)


@given(pieces=batches(), data=st.data())
@pytest.mark.parametrize("name", DIALECTS)
def test_p5_wherever_it_is_resumed_and_however_it_was_woken(
    name: str, pieces: list[list[Entry]], data: st.DataObject
) -> None:
    def make() -> Encoder:
        return DIALECTS[name](ABOUT)

    cut = data.draw(st.integers(0, len(pieces)))
    uninterrupted, back = make(), resumed(make, joined(pieces[:cut]))
    written = [uninterrupted.encode(piece) for piece in pieces]
    assert [back.encode(piece) for piece in pieces[cut:]] == written[cut:]


@given(pieces=batches())
@pytest.mark.parametrize("name", DIALECTS)
def test_batches_of_any_size_say_the_same(name: str, pieces: list[list[Entry]]) -> None:
    """They may differ in how text is merged, where the dialect merges it."""
    at_once = DIALECTS[name](ABOUT).encode(joined(pieces))
    encoder = DIALECTS[name](ABOUT)
    in_pieces = b"".join([encoder.encode(piece) for piece in pieces])
    if name not in TEXTS:
        assert in_pieces == at_once
    else:
        paths = TEXTS[name]
        assert merged(messages_of(in_pieces), paths) == merged(messages_of(at_once), paths)


@given(log=logs())
@pytest.mark.parametrize("name", DIALECTS)
def test_what_is_written_is_whole_frames(name: str, log: list[Entry]) -> None:
    encoder = DIALECTS[name](ABOUT)
    for entry in log:
        for frame in frames_of(encoder.encode([entry])):
            lines = frame.removesuffix(b"\n\n").split(b"\n")
            assert all(line.startswith((b"data:", b"event: ", b"id: ")) for line in lines), frame
            assert lines[-1].startswith(b"data:")


@given(log=logs())
@pytest.mark.parametrize("name", DIALECTS)
def test_what_is_sent_is_what_is_written(name: str, log: list[Entry]) -> None:
    encoder = DIALECTS[name](ABOUT)
    body = encoder.encode(log)
    packets = list(encoder.packets(body)) if body else []
    assert b"".join(packets) == body
    assert all(packets)


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.reason or "completed")
def test_p9_every_end_has_a_terminal_marker_that_nothing_else_has(make: Make, end: RunEnd) -> None:
    encoder = make()
    before = encoder.encode(entries_of(START, *ONE_OF_EACH))
    last = frames_of(encoder.encode(entries_of(end, first=len(ONE_OF_EACH) + 2)))[-1]
    assert last not in frames_of(before)


def test_nothing_is_written_for_nothing(make: Make) -> None:
    assert make().encode([]) == b""


def test_openings_and_heartbeats_are_comments(make: Make) -> None:
    encoder = make()
    assert (encoder.opening(), encoder.heartbeat()) == (OPENING, HEARTBEAT)
    for comment in (OPENING, HEARTBEAT):
        assert comment.startswith(b":")
        assert comment.endswith(b"\n\n")
        assert comment.count(b"\n") == 2


@pytest.mark.parametrize(
    ("event", "data"), PINNED, ids=[EVENT_TYPES[type(event)] for event, _ in PINNED]
)
def test_p5_the_native_dialect_sends_the_stored_bytes_with_their_cursor(
    event: Event, data: bytes
) -> None:
    name = EVENT_TYPES[type(event)].encode()
    assert NativeEncoder(ABOUT).encode([Entry(7, event, data)]) == (
        b"id: run-1.7\nevent: " + name + b"\ndata: " + data + b"\n\n"
    )


def test_the_native_dialect_does_not_rewrite_what_is_stored() -> None:
    odd = b'{"text":"a","type":"text-delta","later":1}'
    entry = Entry(2, PINNED[2][0], odd)
    assert b"data: " + odd + b"\n\n" in NativeEncoder(ABOUT).encode([entry])
