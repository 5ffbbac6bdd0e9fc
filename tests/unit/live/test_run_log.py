"""The log of a live run: only what is committed can be read, and memory stays bounded."""

import contextlib

import pytest

from holdfast.events import (
    Entry,
    Event,
    Outcome,
    RunEnd,
    RunStart,
    Step,
    TextDelta,
    encode,
    join_log,
    split_log,
)
from holdfast.live.run_log import RunLog
from holdfast.live.tail import ENTRY_OVERHEAD_BYTES

START = RunStart("r", "s", "m", "q", "u")
BIG_TAIL = 1_000_000


def _log(tail_bytes: int = BIG_TAIL) -> RunLog:
    return RunLog("r", Entry(1, START, encode(START)), tail_bytes)


def _commit(log: RunLog, *events: Event) -> None:
    log.append(events)
    log.take()
    log.saved()


def _seqs(entries: list[Entry] | None) -> list[int]:
    assert entries is not None
    return [entry.seq for entry in entries]


def test_a_log_begins_with_its_committed_start() -> None:
    log = _log()
    assert (log.last_seq, log.saved_seq, log.unsaved_bytes) == (1, 1, 0)
    assert log.after(0) == [Entry(1, START, encode(START))]
    assert not log.ended
    assert not log.broken


def test_events_get_the_next_numbers_and_their_json() -> None:
    log = _log()
    log.append([TextDelta("a"), TextDelta("b")])
    log.append([Step("c")])
    taken = log.take()
    assert [(entry.seq, entry.event) for entry in taken] == [
        (2, TextDelta("a")),
        (3, TextDelta("b")),
        (4, Step("c")),
    ]
    assert split_log(join_log(taken), 2) == list(taken)


def test_p2_nothing_can_be_read_before_it_is_saved() -> None:
    log = _log()
    log.append([TextDelta("a")])
    assert _seqs(log.after(0)) == [1]
    log.take()
    assert _seqs(log.after(0)) == [1]
    assert log.saved_seq == 1
    log.saved()
    assert _seqs(log.after(0)) == [1, 2]
    assert log.saved_seq == 2


def test_what_comes_during_a_commit_waits_for_the_next() -> None:
    log = _log()
    log.append([TextDelta("a")])
    first = log.take()
    log.append([TextDelta("b")])
    log.saved()
    assert _seqs(log.after(0)) == [1, 2]
    second = log.take()
    assert [entry.seq for entry in (*first, *second)] == [2, 3]
    log.saved()
    assert _seqs(log.after(0)) == [1, 2, 3]


def test_unsaved_bytes_count_what_waits_and_return_to_zero() -> None:
    log = _log()
    events = [TextDelta("海带"), TextDelta("x" * 1_000)]
    log.append(events)
    assert log.unsaved_bytes == sum(len(encode(event)) for event in events)
    log.take()
    assert log.unsaved_bytes > 0
    log.append([Step("late")])
    log.saved()
    assert log.unsaved_bytes == len(encode(Step("late")))
    log.take()
    log.saved()
    assert log.unsaved_bytes == 0


def test_nothing_to_take_is_nothing() -> None:
    log = _log()
    assert list(log.take()) == []
    log.saved()
    assert (log.saved_seq, log.last_seq) == (1, 1)


@pytest.mark.parametrize("after", range(12))
def test_p5_a_reader_gets_exactly_what_follows_its_seq(after: int) -> None:
    log = _log()
    for number in range(9):
        _commit(log, TextDelta(str(number)))
    assert _seqs(log.after(after)) == list(range(after + 1, 11))


def test_p6_the_tail_is_bounded_and_older_readers_are_sent_to_the_store() -> None:
    bound = 5_000
    log = _log(bound)
    one = len(encode(TextDelta("x" * 100))) + ENTRY_OVERHEAD_BYTES
    for _ in range(500):
        _commit(log, TextDelta("x" * 100))
        held = log.after(log.saved_seq - len(log._entries))
        assert held is not None
        assert len(held) * one <= 2 * bound + one
    assert log.after(0) is None
    first = log._entries[0].seq
    assert log.after(first - 2) is None
    assert _seqs(log.after(first - 1)) == list(range(first, 502))


def test_p6_one_large_commit_is_trimmed_like_many_small_ones() -> None:
    log = _log(1_000)
    _commit(log, *[TextDelta("x" * 100) for _ in range(100)])
    assert len(log._entries) < 10
    assert _seqs(log.after(100)) == [101]


def test_the_last_entry_is_never_trimmed() -> None:
    log = _log(1)
    _commit(log, TextDelta("x" * 10_000))
    assert _seqs(log.after(1)) == [2]
    _commit(log, TextDelta("y"), TextDelta("z"))
    assert _seqs(log.after(3)) == [4]
    assert log.after(1) is None


def test_the_end_shows_only_with_the_commit_that_has_it() -> None:
    log = _log()
    log.append([RunEnd(Outcome.COMPLETED)])
    log.take()
    assert not log.ended
    log.saved(ended=True)
    assert log.ended
    assert _seqs(log.after(1)) == [2]


def test_what_cannot_be_saved_is_forgotten_with_its_numbers() -> None:
    log = _log()
    _commit(log, TextDelta("a"))
    log.append([TextDelta("b")])
    log.take()
    log.append([TextDelta("c")])
    log.drop_unsaved()
    assert (log.last_seq, log.saved_seq, log.unsaved_bytes) == (2, 2, 0)
    assert list(log.take()) == []
    assert _seqs(log.after(0)) == [1, 2]


def test_an_event_that_cannot_be_written_leaves_the_numbers_without_gap_or_repeat() -> None:
    """A batch whose second event has no JSON: what is taken must still count 2, 3, 4 …"""
    log = _log()
    with contextlib.suppress(ValueError):
        log.append([TextDelta("good"), TextDelta("\ud83d")])
    log.append([RunEnd(Outcome.INTERRUPTED)])
    seqs = [entry.seq for entry in log.take()]
    assert seqs == list(range(2, 2 + len(seqs)))


# ------------------------------------------------------------------------------ listeners


def test_every_commit_rings_every_listener_once() -> None:
    log, heard = _log(), list[str]()
    log.listen(lambda: heard.append("a"))
    log.listen(lambda: heard.append("b"))
    _commit(log, TextDelta("x"), TextDelta("y"))
    assert sorted(heard) == ["a", "b"]


def test_taking_and_appending_ring_nobody() -> None:
    log, heard = _log(), list[str]()
    log.listen(lambda: heard.append("a"))
    log.append([TextDelta("x")])
    log.take()
    assert heard == []


def test_a_listener_that_left_is_not_rung() -> None:
    log, heard = _log(), list[int]()

    def ring() -> None:
        heard.append(1)

    log.listen(ring)
    log.listen(ring)
    log.unlisten(ring)
    log.unlisten(ring)
    log.ring()
    assert heard == []


def test_a_listener_may_leave_while_it_is_rung() -> None:
    log, heard = _log(), list[str]()

    def leave() -> None:
        log.unlisten(leave)
        heard.append("left")

    log.listen(leave)
    log.listen(lambda: heard.append("stayed"))
    log.ring()
    log.ring()
    assert sorted(heard) == ["left", "stayed", "stayed"]


def test_a_listener_rings_after_the_entries_can_be_read() -> None:
    log, seen = _log(), list[int]()
    log.listen(lambda: seen.extend(_seqs(log.after(1))))
    _commit(log, TextDelta("x"))
    assert seen == [2]
