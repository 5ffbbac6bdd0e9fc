"""Reading runs of other nodes: one follower each, hints or none, ends, damage, going away."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from holdfast.errors import NotFound
from holdfast.events import Entry, Outcome, RunEnd, encode
from holdfast.runner import followers as module
from holdfast.runner.followers import Followers
from holdfast.runner.reader import Reader, ReaderBroken
from tests.support.loop import turns
from tests.support.shared_store import OWNER_NODE, ScriptedShared, down, entries_of, words
from tests.support.stage import GIVE_UP_S

NEVER_S = 3600.0
SOON_S = 0.01
TAIL_BYTES = 1_000_000


@pytest.fixture
def store() -> ScriptedShared:
    return ScriptedShared()


@pytest.fixture(autouse=True)
def only_hints(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is looked at unless a hint came; tests about polls say so."""
    monkeypatch.setattr(module, "POLL_S", NEVER_S)
    monkeypatch.setattr(module, "WATCH_S", NEVER_S)


@pytest.fixture
def polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """No hint is needed."""
    monkeypatch.setattr(module, "POLL_S", SOON_S)


@pytest.fixture
async def followers(store: ScriptedShared) -> AsyncIterator[Followers]:
    followers = Followers(store, TAIL_BYTES, patience_s=NEVER_S)
    followers.start()
    yield followers
    await followers.close()


def end_of(seq: int) -> Entry:
    event = RunEnd(Outcome.COMPLETED)
    return Entry(seq, event, encode(event))


def reader_of(store: ScriptedShared, followers: Followers, run: str, after: int = 0) -> Reader:
    return Reader(store, run, after, None, elsewhere=followers)


async def some(reader: Reader, last: int) -> list[Entry]:
    """What a reader gets up to the seq `last`."""
    entries: list[Entry] = []
    async with asyncio.timeout(GIVE_UP_S):
        while reader.seq < last:
            entries += await reader.next() or []
    return entries


async def rest(reader: Reader) -> list[Entry]:
    """What a reader gets to the end; closes it."""
    entries: list[Entry] = []
    try:
        async with asyncio.timeout(GIVE_UP_S):
            while (more := await reader.next()) is not None:
                entries += more
    finally:
        reader.close()
    return entries


# ------------------------------------------------------------------------------ hints and polls


async def test_p5_a_hint_brings_what_is_new_to_every_reader_of_the_run_in_one_look(
    store: ScriptedShared, followers: Followers
) -> None:
    store.say("run", *entries_of(1, 3))
    readers = [reader_of(store, followers, "run", after) for after in (0, 1, 3)]
    reading = [asyncio.create_task(rest(reader)) for reader in readers]
    await store.until(lambda store: store.times("node_of") == 1)
    await turns()
    looks = store.times("read_news")
    store.say("run", *entries_of(4, 6))
    followers.hear("run", 6)
    await store.until(lambda store: store.times("read_news") == looks + 1)
    store.end("run", end_of(7))
    followers.hear("run", 7)
    whole = [*entries_of(1, 6), end_of(7)]
    for after, entries in zip((0, 1, 3), await asyncio.gather(*reading), strict=True):
        assert entries == whole[after:]
    assert store.times("read_news") == looks + 2


@pytest.mark.usefixtures("polls")
async def test_p5_without_any_hint_polls_bring_everything(
    store: ScriptedShared, followers: Followers
) -> None:
    store.say("run", *entries_of(1, 1))
    reading = asyncio.create_task(rest(reader_of(store, followers, "run")))
    for seq in range(2, 6):
        store.say("run", *entries_of(seq, seq))
        looks = store.times("read_news")
        await store.until(lambda store, looks=looks: store.times("read_news") > looks)  # type: ignore[misc]
    store.end("run", end_of(6))
    assert await reading == [*entries_of(1, 5), end_of(6)]


async def test_a_hint_that_comes_late_or_twice_or_for_nobody_does_nothing(
    store: ScriptedShared, followers: Followers
) -> None:
    store.say("run", *entries_of(1, 3))
    reader = reader_of(store, followers, "run")
    reading = asyncio.create_task(some(reader, 4))
    await store.until(lambda store: store.times("node_of") == 1)
    await turns()
    looks = store.times("read_news")
    followers.hear("run", 2)
    followers.hear("other", 9)
    await turns()
    assert store.times("read_news") == looks
    store.say("run", *entries_of(4, 4))
    followers.hear("run", 4)
    followers.hear("run", 4)
    assert await reading == entries_of(1, 4)
    reader.close()


async def test_p5_a_reader_that_joins_at_any_cursor_gets_exactly_the_rest(
    store: ScriptedShared, followers: Followers
) -> None:
    store.say("run", *entries_of(1, 5))
    first = reader_of(store, followers, "run")
    await some(first, 5)
    waiting = asyncio.create_task(first.next())
    await store.until(lambda store: store.times("node_of") == 1)
    store.say("run", *entries_of(6, 10))
    followers.hear("run", 10)
    await waiting
    readers = [
        asyncio.create_task(rest(reader_of(store, followers, "run", after))) for after in range(11)
    ]
    await turns()
    store.end("run", end_of(11))
    followers.hear("run", 11)
    whole = [*entries_of(1, 10), end_of(11)]
    for after, entries in enumerate(await asyncio.gather(*readers)):
        assert entries == whole[after:]
    first.close()


async def test_p6_a_reader_that_is_behind_the_tail_reads_the_store(store: ScriptedShared) -> None:
    followers = Followers(store, tail_bytes=1, patience_s=NEVER_S)
    followers.start()
    store.say("run", *entries_of(1, 1))
    slow, quick = (reader_of(store, followers, "run") for _ in range(2))
    await some(slow, 1)
    reading = asyncio.create_task(rest(quick))
    await store.until(lambda store: store.times("node_of") == 1)
    waiting = asyncio.create_task(slow.next())
    await turns()
    for seq in range(2, 30):
        store.say("run", *entries_of(seq, seq))
        followers.hear("run", seq)
        await turns()
    store.end("run", end_of(30))
    followers.hear("run", 30)
    assert len(await reading) == 30
    assert (await waiting or []) + await rest(slow) == [*entries_of(2, 29), end_of(30)]
    await followers.close()


@pytest.mark.usefixtures("polls")
async def test_runs_that_are_silent_cost_no_query_of_their_own(
    store: ScriptedShared, followers: Followers
) -> None:
    runs = [f"run-{number}" for number in range(20)]
    for run in runs:
        store.say(run, *entries_of(1, 1))
    reading = [asyncio.create_task(rest(reader_of(store, followers, run))) for run in runs]
    await store.until(lambda store: store.times("node_of") == len(runs))
    await turns()
    pages, looks = store.times("read_log"), store.times("read_news")
    await store.until(lambda store: store.times("read_news") >= looks + 5)
    assert store.times("read_log") == pages
    for run in runs:
        store.end(run, end_of(2))
    await asyncio.gather(*reading)


# ------------------------------------------------------------------------------ the owner


async def test_the_owner_is_asked_for_hints_and_told_when_nobody_reads_any_more(
    store: ScriptedShared, followers: Followers
) -> None:
    store.say("run", *entries_of(1, 1))
    readers = [reader_of(store, followers, "run") for _ in range(2)]
    waiting = [asyncio.create_task(some(reader, 2)) for reader in readers]
    await store.until(lambda store: store.times("node_of") == 1)
    await turns()
    assert words(store.hints, "watch") == [(OWNER_NODE, [store.node_id, "run"])]
    store.say("run", *entries_of(2, 2))
    followers.hear("run", 2)
    await asyncio.gather(*waiting)
    readers[0].close()
    assert words(store.hints, "unwatch") == []
    readers[1].close()
    assert words(store.hints, "unwatch") == [(OWNER_NODE, [store.node_id, "run"])]


async def test_an_owner_that_could_not_be_found_is_looked_for_again(
    store: ScriptedShared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WATCH_S", SOON_S)
    followers = Followers(store, TAIL_BYTES, patience_s=NEVER_S)
    followers.start()
    store.faults["node_of"] = RuntimeError("scripted: something unforeseen")
    store.say("run", *entries_of(1, 1))
    reading = asyncio.create_task(rest(reader_of(store, followers, "run")))
    await store.until(lambda store: store.times("node_of") >= 1)
    store.faults["node_of"] = down()
    asked = store.times("node_of")
    await store.until(lambda store: store.times("node_of") > asked)
    del store.faults["node_of"]
    asked = store.times("node_of")
    await store.until(lambda store: store.times("node_of") > asked)
    await turns()
    assert (OWNER_NODE, [store.node_id, "run"]) in words(store.hints, "watch")
    store.end("run", end_of(2))
    followers.hear("run", 2)
    await reading
    await followers.close()


async def test_a_hint_names_as_many_runs_as_fit(
    store: ScriptedShared, followers: Followers
) -> None:
    runs = [f"{number:036d}" for number in range(250)]
    for run in runs:
        store.say(run, *entries_of(1, 1))
        followers.follow(run, 1)
    await store.until(lambda store: store.times("node_of") == len(runs))
    await turns()
    named = [hint for _, hint in store.hints]
    assert sorted(run for hint in named for run in hint.split(" ")[2:]) == runs
    assert len(named) == 3
    assert max(map(len, named)) < 7_900


# ------------------------------------------------------------------------------ ends and damage


async def test_p3_the_end_that_another_node_made_is_found_in_the_log(
    store: ScriptedShared, followers: Followers
) -> None:
    store.say("run", *entries_of(1, 2))
    reading = asyncio.create_task(rest(reader_of(store, followers, "run")))
    await store.until(lambda store: store.times("node_of") == 1)
    await turns()
    store.say("run", *entries_of(3, 4))
    store.end("run", end_of(5))
    followers.look()
    assert await reading == [*entries_of(1, 4), end_of(5)]


async def test_p8_readers_of_a_run_that_was_erased_are_sent_away_and_do_not_find_it_again(
    store: ScriptedShared, followers: Followers
) -> None:
    store.say("run", *entries_of(1, 2))
    reader = reader_of(store, followers, "run")
    reading = asyncio.create_task(rest(reader))
    await store.until(lambda store: store.times("node_of") == 1)
    await turns()
    store.erase("run")
    followers.look()
    with pytest.raises(ReaderBroken):
        await reading
    with pytest.raises(NotFound):
        await rest(reader_of(store, followers, "run", 2))


async def test_p6_a_run_whose_log_is_damaged_does_not_keep_the_others_from_their_readers(
    store: ScriptedShared, followers: Followers
) -> None:
    for run in ("before", "damaged", "then"):
        store.say(run, *entries_of(1, 1))
    reading = {
        run: asyncio.create_task(rest(reader_of(store, followers, run)))
        for run in ("before", "damaged", "then")
    }
    await store.until(lambda store: store.times("node_of") == 3)
    await turns()
    store.faults["damaged"] = ValueError("scripted: no JSON")
    for run in ("before", "damaged", "then"):
        store.end(run, end_of(2))
    followers.look()
    with pytest.raises(ReaderBroken):
        await reading["damaged"]
    for run in ("before", "then"):
        assert await reading[run] == [*entries_of(1, 1), end_of(2)]


async def test_p5_a_gap_in_the_store_is_never_shown_as_a_whole_and_not_looked_at_for_ever(
    store: ScriptedShared, followers: Followers
) -> None:
    store.say("run", *entries_of(1, 1))
    reading = asyncio.create_task(rest(reader_of(store, followers, "run")))
    await store.until(lambda store: store.times("node_of") == 1)
    await turns()
    store.say("run", *entries_of(3, 4))
    looks = store.times("read_news")
    followers.hear("run", 4)
    with pytest.raises(ReaderBroken):
        await reading
    await turns()
    assert store.times("read_news") == looks + 1


# ------------------------------------------------------------------------------ store away


@pytest.mark.usefixtures("polls")
async def test_readers_wait_while_the_store_cannot_be_read(
    store: ScriptedShared, followers: Followers
) -> None:
    store.say("run", *entries_of(1, 1))
    reader = reader_of(store, followers, "run")
    await some(reader, 1)
    reading = asyncio.create_task(rest(reader))
    await store.until(lambda store: store.times("node_of") == 1)
    await turns()
    store.faults["read_news"] = down()
    looks = store.times("read_news")
    await store.until(lambda store: store.times("read_news") > looks + 3)
    assert not reading.done()
    del store.faults["read_news"]
    store.end("run", end_of(2))
    assert await reading == [end_of(2)]


@pytest.mark.usefixtures("polls")
async def test_p9_readers_are_sent_away_when_the_patience_with_the_store_is_over(
    store: ScriptedShared,
) -> None:
    followers = Followers(store, TAIL_BYTES, patience_s=0.0)
    followers.start()
    store.say("run", *entries_of(1, 1))
    reader = reader_of(store, followers, "run")
    await some(reader, 1)
    reading = asyncio.create_task(rest(reader))
    await store.until(lambda store: store.times("node_of") == 1)
    store.faults["read_news"] = down()
    with pytest.raises(ReaderBroken):
        await reading
    del store.faults["read_news"]
    store.end("run", end_of(2))
    assert await rest(reader_of(store, followers, "run", 1)) == [end_of(2)]
    await followers.close()


# ------------------------------------------------------------------------------ going away


async def test_readers_that_can_come_back_anywhere_are_told_to_go_and_the_others_stay(
    store: ScriptedShared, followers: Followers
) -> None:
    store.say("run", *entries_of(1, 1))
    reader = reader_of(store, followers, "run")
    await some(reader, 1)
    waiting = asyncio.create_task(reader.next())
    await store.until(lambda store: store.times("node_of") == 1)
    await turns()
    assert not reader.should_leave
    followers.send_away()
    assert await waiting == []
    assert reader.should_leave
    idle = asyncio.create_task(followers.idle())
    store.end("run", end_of(2))
    followers.hear("run", 2)
    assert await some(reader, 2) == [end_of(2)]
    assert not reader.should_leave
    await turns()
    assert not idle.done()
    reader.close()
    await asyncio.wait_for(idle, GIVE_UP_S)


async def test_closing_sends_every_reader_away_and_leaves_no_task(store: ScriptedShared) -> None:
    before = asyncio.all_tasks()
    followers = Followers(store, TAIL_BYTES, patience_s=NEVER_S)
    followers.start()
    store.say("run", *entries_of(1, 1))
    reader = reader_of(store, followers, "run")
    reading = asyncio.create_task(rest(reader))
    await store.until(lambda store: store.times("node_of") == 1)
    await turns()
    await followers.close()
    with pytest.raises(ReaderBroken):
        await reading
    with pytest.raises(ReaderBroken):
        await rest(reader_of(store, followers, "run"))
    assert asyncio.all_tasks() == before
