"""Every case of the corpus, and the laws that decoders and encoders obey on each of them."""

import bisect
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from holdfast.dialects.base import Encoder
from holdfast.engine.fold import Answer, fold
from holdfast.engine.run import UpstreamEnd
from holdfast.events import Event
from holdfast.http.dialects import DIALECTS
from holdfast.upstreams.base import Item
from tests.support.corpus import (
    ABOUT,
    CORPUS,
    CUT_OFF,
    DECODERS,
    Case,
    Compared,
    as_lines,
    check_items,
    ends_of_events,
    feed_pieces,
    find_cases,
    log_of,
    write_each,
)
from tests.support.strategies import Cut, cuts

CASES = find_cases()
SMALL = 1_500
"""Streams up to this size are cut in two at every byte, one place at a time."""
STRIDES = (7, 97)
"""Longer ones are cut at every byte, too, but at every so many bytes at a time."""

each_case = pytest.mark.parametrize("case", CASES, ids=str)
each_stream = pytest.mark.parametrize("case", [one for one in CASES if one.is_stream], ids=str)


@cache
def items_of(case: Case) -> list[Item]:
    return case.items()


def places(stream: bytes) -> list[int]:
    """Where a stream is broken off: everywhere, or around every event and now and then."""
    if len(stream) <= SMALL:
        return list(range(len(stream) + 1))
    around = {end + by for end in ends_of_events(stream) for by in (-1, 0, 1)}
    around |= set(range(0, len(stream), len(stream) // 40))
    return sorted(place for place in around if place <= len(stream))


def cuttings(stream: bytes) -> Iterator[list[bytes]]:
    """The ways to cut a stream into pieces, so that every byte begins one."""
    for place in places(stream):
        yield [stream[:place], stream[place:]]
    if len(stream) > SMALL:
        for stride in STRIDES:
            for start in range(stride):
                bounds = [0, *range(start, len(stream), stride), len(stream)]
                yield [stream[first:last] for first, last in pairwise(bounds)]


def answer_of(items: list[Item]) -> Answer:
    events: list[Event] = [item for item in items if not isinstance(item, UpstreamEnd)]
    return fold(events)


# ---------------------------------------------------------------------- what is there


def test_every_folder_has_a_decoder_and_every_decoder_has_cases() -> None:
    folders = {path.name for path in CORPUS.iterdir() if path.is_dir() and path.name[0] != "_"}
    assert folders == {case.folder for case in CASES} == set(DECODERS)


def test_every_file_belongs_to_a_case() -> None:
    names = [str(case) for case in CASES]
    assert len(names) == len(set(names)), "a .sse and a .json cannot have the same name"
    known: set[Path] = set()
    for case in CASES:
        known |= {case.path, case.items_file, *map(case.dialect_file, DIALECTS)}
    found = {path for name in DECODERS for path in (CORPUS / name).iterdir()}
    assert found - known == set(), "left behind by a case or a dialect that is gone"


# ---------------------------------------------------------------------- decoders


@each_case
def test_the_items_are_as_recorded(case: Case, compared: Compared) -> None:
    items = items_of(case)
    check_items(items)
    compared(case.items_file, as_lines(items))


@each_stream
def test_a_cut_at_any_byte_changes_nothing(case: Case) -> None:
    stream, expected = case.body, items_of(case)
    for pieces in cuttings(stream):
        assert feed_pieces(case.decoder(), pieces) == expected, pieces
    single = [stream[at : at + 1] for at in range(len(stream))]
    assert feed_pieces(case.decoder(), single) == expected


@each_stream
@given(cut=cuts())
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_chunking_changes_nothing(case: Case, cut: Cut) -> None:
    assert feed_pieces(case.decoder(), cut(case.body)) == items_of(case)


@each_stream
def test_what_breaks_off_anywhere_keeps_what_its_whole_events_told(case: Case) -> None:
    stream, whole = case.body, items_of(case)
    ends = ends_of_events(stream)
    told: list[list[Item]] = []
    for end in [0, *ends]:
        decoder, released = case.decoder(), case.decoder()
        given = decoder.feed(stream[:end])
        assert given == whole[: len(given)], "what was given cannot be taken back"
        told.append(given + decoder.finish(CUT_OFF))
        check_items(told[-1])
        seen, kept = answer_of(given), answer_of(told[-1])
        assert kept.text.startswith(seen.text)
        assert kept.reasoning.startswith(seen.reasoning)
        stopped = answer_of(released.feed(stream[:end]) + released.release())
        assert (stopped.text, stopped.reasoning) == (kept.text, kept.reasoning)
    for place in places(stream):
        decoder = case.decoder()
        items = decoder.feed(stream[:place]) + decoder.finish(CUT_OFF)
        assert items == told[bisect.bisect_right(ends, place)], place


@pytest.mark.parametrize("case", [one for one in CASES if not one.is_stream], ids=str)
def test_an_answer_in_one_piece_may_break_off_anywhere(case: Case) -> None:
    body = case.body
    for place in range(0, len(body), max(1, len(body) // 500)):
        check_items(case.decoder().feed_whole(body[:place]))


# ---------------------------------------------------------------------- dialects


def encoder_of(dialect: str) -> Encoder:
    return DIALECTS[dialect](ABOUT)


@each_case
def test_each_dialect_writes_what_is_recorded(case: Case, compared: Compared) -> None:
    log = log_of(items_of(case))
    for dialect in DIALECTS:
        encoder = encoder_of(dialect)
        frames = write_each(encoder, log)
        compared(case.dialect_file(dialect), encoder.opening() + b"".join(frames))


@each_case
def test_p5_each_dialect_resumed_anywhere_writes_the_same_rest(case: Case) -> None:
    entries = log_of(items_of(case))
    for dialect in DIALECTS:
        frames = write_each(encoder_of(dialect), entries)
        for place in range(len(entries) + 1):
            resumed = encoder_of(dialect)
            if resumed.needs_history:
                resumed.encode(entries[:place])
            assert write_each(resumed, entries[place:]) == frames[place:], (dialect, place)
