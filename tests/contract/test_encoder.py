"""The contract of every encoder, and the bytes of the native one."""

from collections.abc import Callable

import pytest

from holdfast.dialects.base import HEARTBEAT, OPENING, Encoder
from holdfast.dialects.native import NativeEncoder
from holdfast.events import EVENT_TYPES, Entry, Event
from tests.support.records import Told
from tests.unit.test_events import PINNED

ENCODERS: dict[str, Callable[[str], Encoder]] = {"native": NativeEncoder}


@pytest.fixture(params=ENCODERS)
def make(request: pytest.FixtureRequest) -> Callable[[str], Encoder]:
    return ENCODERS[request.param]


def _log() -> tuple[str, list[Entry]]:
    told = Told()
    said: list[Event] = [event for event, _ in PINNED if _is_said(event)]
    told.finish(*said)
    return told.run.id, told.entries


def _is_said(event: Event) -> bool:
    return EVENT_TYPES[type(event)] not in ("run-start", "run-end")


def test_p5_an_encoder_resumed_anywhere_writes_what_it_would_have_written(
    make: Callable[[str], Encoder],
) -> None:
    run_id, entries = _log()
    whole = [make(run_id).encode(entries)]
    for cut in range(len(entries) + 1):
        resumed = make(run_id)
        before = resumed.encode(entries[:cut]) if resumed.needs_history else b""
        rest = resumed.encode(entries[cut:])
        assert whole[0].endswith(rest)
        if resumed.needs_history:
            assert before + rest == whole[0]


def test_batches_of_any_size_give_the_same_bytes(make: Callable[[str], Encoder]) -> None:
    run_id, entries = _log()
    one_by_one = make(run_id)
    assert make(run_id).encode(entries) == b"".join(one_by_one.encode([e]) for e in entries)


def test_nothing_is_written_for_nothing(make: Callable[[str], Encoder]) -> None:
    assert make("r").encode([]) == b""


def test_openings_and_heartbeats_are_comments(make: Callable[[str], Encoder]) -> None:
    encoder = make("r")
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
    assert NativeEncoder("run-1").encode([Entry(7, event, data)]) == (
        b"id: run-1.7\nevent: " + name + b"\ndata: " + data + b"\n\n"
    )


def test_the_native_dialect_does_not_rewrite_what_is_stored() -> None:
    odd = b'{"text":"a","type":"text-delta","later":1}'
    entry = Entry(2, PINNED[2][0], odd)
    assert b"data: " + odd + b"\n\n" in NativeEncoder("r").encode([entry])
