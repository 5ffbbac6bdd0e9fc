"""Reading a run: every cursor, live and ended, from memory and from the store."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from holdfast.errors import NotFound
from holdfast.events import Entry, RunEnd, TextDelta
from holdfast.live.run_log import RunLog
from holdfast.runner import reader as reader_module
from holdfast.runner.reader import Reader
from holdfast.store.port import Append, FinishRun
from tests.support.loop import turns
from tests.support.records import OWNER, Told, begin, commit, tell
from tests.support.scripted import DONE, texts
from tests.support.stage import GIVE_UP_S, Stage, on_stage
from tests.support.stores import ScriptedStore

EVENTS = 200
TINY_TAIL = {"tail_bytes": 1}
HUGE_TAIL = {"tail_bytes": 10_000_000}


async def _rest(reader: Reader) -> list[Entry]:
    """What a reader gets to the end; closes it."""
    entries: list[Entry] = []
    try:
        async with asyncio.timeout(GIVE_UP_S):
            while (more := await reader.next()) is not None:
                entries += more
    finally:
        reader.close()
    return entries


@pytest.fixture(params=[TINY_TAIL, HUGE_TAIL], ids=["from the store", "from memory"])
async def stage(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stage]:
    async with on_stage(tmp_path, limits=request.param) as stage:
        yield stage


# ------------------------------------------------------------------------------ every cursor


async def test_p5_resuming_an_ended_run_at_every_cursor_gives_exactly_the_rest(
    stage: Stage,
) -> None:
    asked = await stage.ask()
    await stage.finish(asked, *texts(*[f"{n} " for n in range(EVENTS - 2)]), DONE)
    whole = await stage.read(asked.run.id)
    assert [entry.seq for entry in whole] == list(range(1, EVENTS + 1))
    for after in range(EVENTS + 1):
        assert await stage.read(asked.run.id, after) == whole[after:]


async def test_p5_resuming_a_live_run_at_every_cursor_gives_exactly_the_rest(
    stage: Stage,
) -> None:
    asked = await stage.ask()
    for number in range(EVENTS // 2 - 1):
        asked.call.push(*texts(f"{number} "))
    await asked.saved(EVENTS // 2)
    reading = [
        asyncio.create_task(_rest(stage.supervisor.read(asked.run.id, after)))
        for after in range(EVENTS // 2 + 1)
    ]
    await turns()
    for number in range(EVENTS // 2 - 1):
        await asked.call.give(*texts(f"{number} "))
    await stage.finish(asked, DONE)
    whole = await stage.read(asked.run.id)
    assert len(whole) == EVENTS
    for after, rest in enumerate(await asyncio.gather(*reading)):
        assert rest == whole[after:]


async def test_p5_readers_that_come_and_go_at_any_moment_miss_and_repeat_nothing(
    stage: Stage,
) -> None:
    """Each reader leaves after every batch and comes back with its cursor."""
    asked = await stage.ask()

    async def hop() -> list[Entry]:
        entries: list[Entry] = []
        while not entries or not isinstance(entries[-1].event, RunEnd):
            reader = stage.supervisor.read(asked.run.id, entries[-1].seq if entries else 0)
            more = await asyncio.wait_for(reader.next(), GIVE_UP_S)
            entries += more or []
            reader.close()
        return entries

    hopping = [asyncio.create_task(hop()) for _ in range(8)]
    for number in range(EVENTS):
        asked.call.push(*texts(f"{number} "))
        if number % 7 == 0:
            await asyncio.wait_for(asked.call.hungry.wait(), GIVE_UP_S)
    await stage.finish(asked, DONE)
    whole = await stage.read(asked.run.id)
    assert len(whole) == EVENTS + 2
    for entries in await asyncio.gather(*hopping):
        assert entries == whole


async def test_a_reader_that_was_connected_gets_the_ending_once(stage: Stage) -> None:
    asked = await stage.ask()
    reader = stage.supervisor.read(asked.run.id)
    reading = asyncio.create_task(_rest(reader))
    await stage.finish(asked, *texts("a"), DONE)
    entries = await reading
    assert [isinstance(entry.event, RunEnd) for entry in entries] == [False, False, True]
    assert await reader.next() is None
    assert await reader.next() is None


async def test_a_reader_at_the_end_of_an_ended_run_gets_nothing_more(stage: Stage) -> None:
    asked = await stage.ask()
    await stage.finish(asked, *texts("a"), DONE)
    for after in (3, 4, 1_000):
        assert await stage.read(asked.run.id, after) == []


# ------------------------------------------------------------------------------ slow and many


async def test_p6_a_reader_that_never_reads_delays_nobody(stage: Stage) -> None:
    asked = await stage.ask()
    stuck = stage.supervisor.read(asked.run.id)
    for number in range(EVENTS):
        await asked.call.give(*texts(f"{number} "))
    await stage.finish(asked, DONE)
    assert (await asked.message()).status == "complete"
    assert len(await _rest(stuck)) == EVENTS + 2


async def test_p6_a_run_keeps_a_bounded_tail_however_slow_its_readers(tmp_path: Path) -> None:
    async with on_stage(tmp_path, limits={"tail_bytes": 5_000}) as stage:
        asked = await stage.ask()
        slow = stage.supervisor.read(asked.run.id)
        assert len(await slow.next() or []) == 1
        log = asked.execution.log
        for number in range(EVENTS):
            await asked.call.give(*texts(f"{number} " + "x" * 100))
            await asked.saved(number + 2)
            assert sum(len(entry.data) for entry in log._entries) <= 2 * 5_000
        assert log.after(1) is None
        await stage.finish(asked, DONE)
        assert [entry.seq for entry in await _rest(slow)] == list(range(2, EVENTS + 3))


async def test_p6_many_readers_all_get_everything(stage: Stage) -> None:
    asked = await stage.ask()
    reading = [asyncio.create_task(_rest(stage.supervisor.read(asked.run.id))) for _ in range(100)]
    for number in range(50):
        await asked.call.give(*texts(f"{number} "))
    await stage.finish(asked, DONE)
    whole = await stage.read(asked.run.id)
    assert all(entries == whole for entries in await asyncio.gather(*reading))
    assert not asked.execution.log._listeners


async def test_p6_a_reader_whose_bell_fails_does_not_harm_the_run(stage: Stage) -> None:
    asked = await stage.ask()

    def broken() -> None:
        raise RuntimeError("a bug in one response")

    bad = stage.supervisor.read(asked.run.id)
    bad.listen(broken)
    good = asyncio.create_task(_rest(stage.supervisor.read(asked.run.id)))
    await stage.finish(asked, *texts("a"), DONE)
    assert len(await good) == 3
    bad.close()


async def test_a_reader_far_behind_is_given_pages(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "PAGE_ENTRIES", 7)
    asked = await stage.ask()
    asked.call.push(*texts(*[f"{n} " for n in range(50)]))
    await asked.saved(51)
    reader = stage.supervisor.read(asked.run.id)
    async with asyncio.timeout(GIVE_UP_S):
        sizes = [len(await reader.next() or []) for _ in range(8)]
    assert sizes == [7] * 7 + [2]
    reader.close()
    await stage.finish(asked, DONE)


# ------------------------------------------------------------------------------ news and closing


async def test_a_listener_is_called_in_the_turn_of_the_commit(stage: Stage) -> None:
    asked = await stage.ask()
    reader = stage.supervisor.read(asked.run.id)
    seen: list[int] = []

    def news() -> None:
        seen.extend(entry.seq for entry in reader.poll() or [])

    reader.listen(news)
    await asked.call.give(*texts("a"))
    await asked.saved(2)
    await asked.call.give(*texts("b"))
    await asked.saved(3)
    # With the tiny tail only `next` can tell what had gone before the bell first rang.
    assert seen in ([1, 2, 3], [])
    reader.close()
    await asked.call.give(*texts("c"))
    await asked.saved(4)
    assert seen in ([1, 2, 3], [])
    await stage.finish(asked, DONE)


async def test_a_closed_reader_is_counted_and_rung_no_more(stage: Stage) -> None:
    asked = await stage.ask()
    reader = stage.supervisor.read(asked.run.id)
    assert asked.execution.audience._readers == 1
    assert len(asked.execution.log._listeners) == 1
    reader.close()
    reader.close()
    assert asked.execution.audience._readers == 0
    assert not asked.execution.log._listeners
    await stage.finish(asked, DONE)


async def test_a_reader_that_is_cancelled_while_it_waits_can_be_closed(stage: Stage) -> None:
    asked = await stage.ask()
    reader = stage.supervisor.read(asked.run.id, 1)
    waiting = asyncio.create_task(reader.next())
    await turns()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    reader.close()
    await stage.finish(asked, *texts("a"), DONE)
    assert len(await stage.read(asked.run.id, 1)) == 2


# ------------------------------------------------------------------------------ other runs


async def test_a_run_that_does_not_exist_is_not_found(stage: Stage) -> None:
    reader = stage.supervisor.read("no-such-run")
    with pytest.raises(NotFound):
        await reader.next()
    reader.close()


async def test_p5_a_run_that_another_process_ended_is_read_to_its_end(stage: Stage) -> None:
    told = await tell(stage.store, Told(), TextDelta("a"))
    assert await stage.read(told.run.id) == told.entries
    assert await stage.read(told.run.id, 2) == told.entries[2:]


async def test_p5_a_reader_of_a_run_that_is_not_live_here_is_not_left_waiting_for_ever(
    stage: Stage,
) -> None:
    """Nobody here rings for it: it is told to come back, or finds the end by itself."""
    told = await begin(stage.store, Told(), TextDelta("a"))
    reader = stage.supervisor.read(told.run.id)
    assert [entry.seq for entry in await reader.next() or []] == [1, 2]
    waiting = asyncio.create_task(_rest(reader))
    await turns()
    await commit(stage.store, told.finish())
    try:
        assert await waiting == told.entries[2:]
    except TimeoutError:
        pytest.fail("the reader was left waiting for ever")
    except Exception as error:  # told to come back: then the end must be there
        assert getattr(error, "status", None) == 503  # noqa: PT017
        assert await stage.read(told.run.id, 2) == told.entries[2:]


async def test_a_reader_learns_that_its_run_was_deleted(stage: Stage) -> None:
    asked = await stage.ask()
    await stage.finish(asked, *texts("a"), DONE)
    reader = stage.supervisor.read(asked.run.id)
    await stage.supervisor.delete_session(OWNER, asked.run.session_id)
    with pytest.raises(NotFound):
        await reader.next()
    reader.close()


async def test_a_log_that_ends_between_two_readings_is_read_from_the_store() -> None:
    """The tail is trimmed while the reader waits: the next reading goes to the store."""
    told = Told()
    told.say(TextDelta("a"), TextDelta("b"))
    log = RunLog(told.run.id, told.entries[0], 1)
    reader = Reader(ScriptedStore(), told.run.id, 1, log)
    waiting = asyncio.create_task(reader.next())
    await turns()
    log.append([TextDelta("a"), TextDelta("b")])
    log.take()
    log.saved()
    assert await waiting == []
    with pytest.raises(NotImplementedError):  # the scripted store: it was asked
        await reader.next()
    reader.close()


def test_writes_that_end_a_run_carry_their_events() -> None:
    told = Told()
    finish = told.finish(TextDelta("a"))
    assert isinstance(finish, FinishRun)
    assert isinstance(finish.append, Append)
    assert (finish.append.first_seq, finish.append.last_seq) == (2, 3)
