"""A tail of committed entries: what it has, what it has no more, whom it tells."""

import pytest

from holdfast.events import Entry
from holdfast.live.tail import ENTRY_OVERHEAD_BYTES, Tail
from tests.support.shared_store import entries_of

HUGE = 1_000_000


def shown(tail: Tail, first: int, last: int, *, ended: bool = False) -> list[Entry]:
    """Show the entries from one seq to another."""
    entries = entries_of(first, last)
    tail.show(entries, sum(len(entry.data) for entry in entries), ended)
    return entries


@pytest.mark.parametrize("saved", [0, 7])
def test_it_has_what_came_in_after_every_seq_and_nothing_from_before(saved: int) -> None:
    tail = Tail("run", saved, HUGE)
    assert tail.after(saved) == []
    entries = shown(tail, saved + 1, saved + 3) + shown(tail, saved + 4, saved + 6)
    for skipped in range(7):
        assert tail.after(saved + skipped) == entries[skipped:]
    assert tail.after(saved - 1) is None
    assert tail.after(saved + 9) == []
    assert tail.saved_seq == saved + 6


def test_it_is_bounded_and_says_so_when_it_does_not_reach_back() -> None:
    bound = 10 * (ENTRY_OVERHEAD_BYTES + 40)
    tail = Tail("run", 0, bound)
    for seq in range(1, 500):
        shown(tail, seq, seq)
        kept = next(after for after in range(seq) if tail.after(after) is not None)
        assert tail.after(kept) == entries_of(kept + 1, seq)
        assert (seq - kept) * ENTRY_OVERHEAD_BYTES <= 2 * bound
    assert tail.after(0) is None


def test_an_entry_that_is_larger_than_the_bound_is_there_until_the_next_one() -> None:
    tail = Tail("run", 0, 1)
    for seq in range(1, 5):
        shown(tail, seq, seq)
        assert tail.after(seq - 1) == entries_of(seq, seq)


def test_listeners_are_told_of_news_of_the_end_and_of_a_break() -> None:
    tail = Tail("run", 0, HUGE)
    rung: list[tuple[int, bool, bool]] = []

    def ring() -> None:
        rung.append((tail.saved_seq, tail.ended, tail.broken))

    tail.listen(ring)
    tail.listen(ring)
    shown(tail, 1, 2)
    shown(tail, 3, 3, ended=True)
    tail.break_off()
    tail.unlisten(ring)
    tail.unlisten(ring)
    tail.ring()
    assert rung == [(2, False, False), (3, True, False), (3, True, True)]


def test_p6_a_listener_that_fails_or_leaves_does_not_keep_the_news_from_the_others() -> None:
    tail = Tail("run", 0, HUGE)
    rung: list[str] = []

    def leave() -> None:
        rung.append("leaves")
        tail.unlisten(leave)

    def fail() -> None:
        raise RuntimeError("scripted")

    for ring in (leave, fail, lambda: rung.append("stays")):
        tail.listen(ring)
    shown(tail, 1, 1)
    shown(tail, 2, 2)
    assert sorted(rung) == ["leaves", "stays", "stays"]
