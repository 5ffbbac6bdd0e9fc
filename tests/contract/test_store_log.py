"""The contract of every store: a run's log and its one ending."""

import asyncio
from collections.abc import Sequence

import pytest

from holdfast import events
from holdfast.engine.run import UpstreamEnd
from holdfast.events import (
    Entry,
    Event,
    Outcome,
    Reason,
    Reference,
    References,
    RunEnd,
    Step,
    TextDelta,
    Usage,
    decode,
    join_log,
)
from holdfast.store.port import Append, LogPage, RequestCancel, Store
from tests.support.harness import StoreHarness
from tests.support.records import OWNER, Told, begin, changed, commit, read_all, tell

TRUNCATED = UpstreamEnd(Reason.UPSTREAM_TRUNCATED, error="cut")


async def _page(store: Store, run_id: str, after: int, limit: int = 1000) -> LogPage:
    page = await store.read_log(run_id, after, limit)
    assert page is not None
    return page


def _texts(count: int, prefix: str = "") -> list[Event]:
    return [TextDelta(f"{prefix}{number} ") for number in range(count)]


# ------------------------------------------------------------------------------ reading


async def test_a_run_that_does_not_exist_has_no_log(store: Store) -> None:
    assert await store.read_log("no-such-run", 0) is None
    assert await store.read_log("", 0) is None


async def test_p2_a_run_can_be_read_from_its_start_on(store: Store) -> None:
    told = await begin(store, Told())
    assert await _page(store, told.run.id, 0) == LogPage(told.entries, ended=False, last_seq=1)


@pytest.mark.parametrize("ended", [False, True])
async def test_p5_every_cursor_gives_exactly_the_rest(store: Store, ended: bool) -> None:
    told = await begin(store, Told(), *_texts(3, "a"))
    await commit(store, told.say(Step("one")))
    await commit(store, told.say(*_texts(2, "b")))
    if ended:
        await commit(store, told.finish(TextDelta("end")))
    for after in range(len(told.entries) + 1):
        page = await _page(store, told.run.id, after)
        assert page.entries == told.entries[after:]
        assert (page.ended, page.last_seq) == (ended, len(told.entries))


@pytest.mark.parametrize("ended", [False, True])
async def test_p5_a_cursor_ahead_of_the_log_learns_where_the_log_is(
    store: Store, ended: bool
) -> None:
    told = await begin(store, Told(), *_texts(2))
    if ended:
        await commit(store, told.finish())
    page = await _page(store, told.run.id, 1_000)
    assert page == LogPage([], ended=ended, last_seq=len(told.entries))


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("limit", [1, 2, 7])
async def test_small_pages_lead_to_the_end_without_gap_or_repeat(
    store: Store, limit: int, ended: bool
) -> None:
    told = await begin(store, Told())
    for number in range(6):
        await commit(store, told.say(*_texts(number + 1)))
    if ended:
        await commit(store, told.finish())
    assert await read_all(store, told.run.id, limit=limit) == told.entries


async def test_a_page_of_an_ended_run_holds_no_more_than_its_limit(store: Store) -> None:
    told = await tell(store, Told(), *_texts(50))
    assert len((await _page(store, told.run.id, 0, 20)).entries) == 20
    assert [entry.seq for entry in (await _page(store, told.run.id, 50, 20)).entries] == [51, 52]


async def test_runs_that_share_commits_do_not_mix(store: Store) -> None:
    runs = [await begin(store, Told()) for _ in range(5)]
    for number in range(4):
        await commit(store, *[run.say(TextDelta(f"{run.run.id} {number}")) for run in runs])
        await commit(store, *[run.say(Step(run.run.id)) for run in reversed(runs)])
    for run in runs:
        assert await read_all(store, run.run.id) == run.entries


async def test_the_log_keeps_the_bytes_that_it_was_given(store: Store) -> None:
    """The journal's JSON is what clients were sent; a later reading must not rewrite it."""
    told = await begin(store, Told())
    odd = b'{"text":"a","type":"text-delta","later":1}'
    await commit(store, Append(told.run.id, 2, 2, odd + b"\n"))
    told.entries.append(Entry(2, TextDelta("a"), odd))
    told.stored = 2
    assert (await read_all(store, told.run.id))[1].data == odd
    await commit(store, told.finish())
    assert (await read_all(store, told.run.id))[1].data == odd


async def test_a_megabyte_of_text_survives_journal_and_log(store: Store) -> None:
    text = "海带 kelp \0 " * 100_000
    told = await begin(store, Told(), TextDelta(text))
    assert await read_all(store, told.run.id) == told.entries
    await commit(store, told.finish(TextDelta(text)))
    assert await read_all(store, told.run.id) == told.entries
    message = await store.get_message(OWNER, told.run.message_id)
    assert message is not None
    assert message.answer.text == text * 2


# ------------------------------------------------------------------------------ the end


async def test_p3_the_end_is_stored_with_its_message(store: Store) -> None:
    told = await begin(store, Told(), TextDelta("a"))
    references = References((Reference(1, text="why"),))
    await commit(store, told.finish(references, Usage(1, 2), end=TRUNCATED, ended_at=7))
    run = await store.get_run(OWNER, told.run.id)
    message = await store.get_message(OWNER, told.run.message_id)
    assert run is not None
    assert message is not None
    assert (run.status, run.outcome, run.reason, run.error) == (
        "ended",
        "interrupted",
        "upstream_truncated",
        "cut",
    )
    assert (message.status, message.outcome, message.reason, message.error) == (
        "partial",
        "interrupted",
        "upstream_truncated",
        "cut",
    )
    assert (run.ended_at, message.completed_at, run.last_seq) == (7, 7, 5)
    assert message.answer.references == references.references
    assert (await _page(store, told.run.id, 4)).entries[0].event == RunEnd(
        Outcome.INTERRUPTED, Reason.UPSTREAM_TRUNCATED, error="cut"
    )
    assert await store.live_runs() == []


@pytest.mark.parametrize("together", [True, False])
async def test_p3_exactly_one_ending_wins_and_the_other_writes_nothing(
    store: Store, harness: StoreHarness, together: bool
) -> None:
    told = await begin(store, Told(), TextDelta("a"))
    rival = told.rival()
    first = told.finish(TextDelta("b"))
    second = rival.finish(References((Reference(1, text="late"),)), end=TRUNCATED)
    if together:
        assert await commit(store, first, second) == [True, False]
    else:
        assert await commit(store, first) == [True]
        before = await harness.text()
        assert await commit(store, second) == [False]
        assert await harness.text() == before
    assert await read_all(store, told.run.id) == told.entries
    message = await store.get_message(OWNER, told.run.message_id)
    assert message is not None
    assert (message.answer.text, message.status, message.answer.references) == (
        "ab",
        "complete",
        (),
    )
    assert await harness.rows("message_references") == []


async def test_p3_of_many_endings_at_once_one_wins(store: Store) -> None:
    told = await begin(store, Told(), TextDelta("a"))
    writes = [told.rival().finish(TextDelta(str(number))) for number in range(8)]
    results = await asyncio.gather(*[store.commit([write]) for write in writes])
    assert sorted(result for (result,) in results) == [False] * 7 + [True]
    winner = writes[results.index([True])]
    message = await store.get_message(OWNER, told.run.message_id)
    assert message is not None
    assert message.answer.text == "a" + str(writes.index(winner))


async def test_ending_a_run_that_never_was_writes_nothing(
    store: Store, harness: StoreHarness
) -> None:
    before = await harness.counts()
    assert await commit(store, Told().finish(TextDelta("a"))) == [False]
    assert await harness.counts() == before


async def test_an_append_to_a_run_that_never_was_is_told_and_writes_nothing(
    store: Store, harness: StoreHarness
) -> None:
    live = await begin(store, Told())
    before = await harness.counts()
    lost = Told()
    results = await store.commit([lost.say(TextDelta("a")), live.say(TextDelta("b"))])
    assert results == [False, None]
    assert await harness.counts() == {**before, "journal": before["journal"] + 1}
    assert await store.read_log(lost.run.id, 0) is None


async def test_p3_an_append_after_the_end_writes_nothing(store: Store) -> None:
    told = await begin(store, Told(), TextDelta("a"))
    late = told.rival().say(TextDelta("late"))
    await commit(store, told.finish())
    assert await store.commit([late]) == [False]
    assert await read_all(store, told.run.id) == told.entries
    assert (await _page(store, told.run.id, 0)).ended


async def test_an_owner_who_still_has_the_whole_log_may_give_it(store: Store) -> None:
    told = await begin(store, Told(), TextDelta("a"))
    finish = told.finish(TextDelta("b"))
    await commit(store, changed(finish, log=join_log(told.entries)))
    assert await read_all(store, told.run.id) == told.entries


async def test_a_run_may_end_with_nothing_but_its_end(store: Store) -> None:
    told = await begin(store, Told())
    await commit(store, told.finish(end=UpstreamEnd(Reason.CLIENT_CANCELLED)))
    message = await store.get_message(OWNER, told.run.message_id)
    assert message is not None
    assert (message.status, message.outcome, message.answer.text) == ("failed", "cancelled", "")
    assert await read_all(store, told.run.id) == told.entries


async def test_what_was_said_on_the_wire_is_kept_with_the_run(store: Store) -> None:
    told = await begin(store, Told())
    assert await store.get_raw(told.run.id) == (None, None)
    request, response = {"model": "海带", "n": [1, None]}, [{"id": "x"}, "tail\0"]
    await commit(store, told.finish(request=request, response=response))
    assert await store.get_raw(told.run.id) == (request, response)
    assert await store.get_raw("no-such-run") == (None, None)


# ------------------------------------------------------------------------------ cancelling


async def test_p10_a_cancel_is_noted_for_whoever_owns_the_run(store: Store) -> None:
    told, other = await begin(store, Told()), await begin(store, Told())
    assert [cancelled for _, cancelled in await store.live_runs()] == [False, False]
    await commit(store, RequestCancel(told.run.id))
    assert await store.live_runs() == [(told.run, True), (other.run, False)]


async def test_cancelling_what_has_ended_or_never_was_changes_nothing(
    store: Store, harness: StoreHarness
) -> None:
    told = await tell(store, Told())
    before = await harness.text()
    await commit(store, RequestCancel(told.run.id), RequestCancel("no-such-run"))
    assert await harness.text() == before


async def test_live_runs_are_given_oldest_first(store: Store) -> None:
    runs = [await begin(store, Told()) for _ in range(4)]
    await commit(store, runs[1].finish())
    assert [run for run, _ in await store.live_runs()] == [
        runs[0].run,
        runs[2].run,
        runs[3].run,
    ]


# ------------------------------------------------------------------------------ concurrency


async def _follow(store: Store, run_id: str, limit: int) -> Sequence[Entry]:
    """Read a run to its end in a tight loop, as the slowest of readers would."""
    entries: list[Entry] = []
    while not entries or not isinstance(entries[-1].event, RunEnd):
        after = entries[-1].seq if entries else 0
        page = await _page(store, run_id, after, limit)
        seqs = [entry.seq for entry in page.entries]
        assert seqs == list(range(after + 1, after + 1 + len(seqs)))
        assert page.last_seq >= after + len(seqs)
        entries += page.entries
    return entries


@pytest.mark.parametrize("limit", [1, 1000])
async def test_p5_readers_see_no_gap_while_the_end_moves_the_rows(store: Store, limit: int) -> None:
    for number in range(12):
        told = await begin(store, Told())
        readers = [asyncio.create_task(_follow(store, told.run.id, limit)) for _ in range(3)]
        for text in _texts(8, f"{number}."):
            await commit(store, told.say(text))
        await commit(store, told.finish(TextDelta("last")))
        for reader in readers:
            assert await reader == told.entries


async def test_p5_readers_see_no_gap_while_rows_of_others_are_purged(store: Store) -> None:
    long = await begin(store, Told())
    reader = asyncio.create_task(_follow(store, long.run.id, 3))
    for number in range(10):
        short = await begin(store, Told(), *_texts(3, f"{number}."))
        await commit(store, long.say(*_texts(2)), short.finish())
        assert await read_all(store, short.run.id) == short.entries
    await commit(store, long.finish())
    assert await reader == long.entries


async def test_reads_see_every_commit_that_has_returned(store: Store) -> None:
    told = await begin(store, Told())
    for number in range(30):
        await commit(store, told.say(TextDelta(str(number))))
        assert (await _page(store, told.run.id, 0)).last_seq == number + 2


# ------------------------------------------------------------------------------ what reading costs


@pytest.mark.parametrize("ended", [False, True])
async def test_p6_a_page_costs_what_it_holds_and_not_the_whole_log(
    store: Store, monkeypatch: pytest.MonkeyPatch, ended: bool
) -> None:
    """Otherwise reading a long run page by page would cost the square of its length."""
    told = await begin(store, Told())
    for _ in range(5):
        await commit(store, told.say(*_texts(100)))
    if ended:
        await commit(store, told.finish())
    decoded: list[bytes] = []

    def count(data: bytes) -> Event:
        decoded.append(data)
        event: Event = decode(data)
        return event

    monkeypatch.setattr(events, "decode", count)
    page = await _page(store, told.run.id, 250, 10)
    assert [entry.seq for entry in page.entries] == list(range(251, 261))
    assert (page.ended, page.last_seq) == (ended, len(told.entries))
    assert len(decoded) <= 20
