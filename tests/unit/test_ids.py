"""Ids: sortable, unique, in the form of UUID version 7."""

import os
import threading
import time
import uuid

import pytest

from holdfast import ids
from holdfast.ids import new_id

MANY = 20_000


def test_ids_grow_within_one_thread() -> None:
    made = [new_id() for _ in range(MANY)]
    assert made == sorted(made)
    assert len(set(made)) == MANY


def test_version_and_variant_bits_are_those_of_version_7() -> None:
    for _ in range(1_000):
        parsed = uuid.UUID(new_id())
        assert parsed.version == 7
        assert parsed.variant == uuid.RFC_4122


def test_the_form_is_lower_case_hex_in_five_groups() -> None:
    made = new_id()
    assert made == str(uuid.UUID(made))
    assert [len(group) for group in made.split("-")] == [8, 4, 4, 4, 12]


def test_the_first_48_bits_are_the_time_in_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "_last", {True: 0, False: 0})
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_123_456_789)
    assert uuid.UUID(new_id()).int >> 80 == 1_700_000_000_123


def test_ids_grow_when_the_clock_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "_last", {True: 0, False: 0})
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_000_000_000)
    made = [new_id() for _ in range(MANY)]
    assert made == sorted(set(made))


def test_ids_grow_when_the_clock_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "_last", {True: 0, False: 0})
    clock = iter(range(1_700_000_001_000_000_000, 0, -1_000_000))
    monkeypatch.setattr(time, "time_ns", lambda: next(clock))
    made = [new_id() for _ in range(1_000)]
    assert made == sorted(set(made))


@pytest.mark.parametrize("random", [b"\0", b"\xff"], ids=["zeros", "ones"])
def test_ids_grow_whatever_the_random_source_gives(
    monkeypatch: pytest.MonkeyPatch, random: bytes
) -> None:
    monkeypatch.setattr(ids, "_last", {True: 0, False: 0})
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_000_000_000)
    monkeypatch.setattr(os, "urandom", lambda size: random * size)
    made = [new_id() for _ in range(100)]
    assert made == sorted(set(made))


def test_version_bits_hold_when_the_counter_runs_into_the_next_millisecond(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at = 1_700_000_000_000
    monkeypatch.setattr(ids, "_last", {True: (at << 80) | (1 << 80) - 1, False: 0})
    monkeypatch.setattr(time, "time_ns", lambda: at * 1_000_000)
    parsed = uuid.UUID(new_id())
    assert (parsed.version, parsed.int >> 80) == (7, at + 1)


def test_ids_by_another_clock_have_a_time_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock that nodes share may be far behind that of this machine."""
    monkeypatch.setattr(ids, "_last", {True: 0, False: 0})
    new_id()
    made = [new_id(at) for at in (1_000, 1_001, 1_001, 1_000)]
    assert uuid.UUID(made[0]).int >> 80 == 1_000
    assert made == sorted(set(made))


def test_threads_never_make_the_same_id() -> None:
    made: list[list[str]] = [[] for _ in range(4)]
    barrier = threading.Barrier(len(made))

    def make(mine: list[str]) -> None:
        barrier.wait()
        mine.extend(new_id() for _ in range(5_000))

    threads = [threading.Thread(target=make, args=(mine,)) for mine in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(mine == sorted(mine) for mine in made)
    assert len({one for mine in made for one in mine}) == 20_000
