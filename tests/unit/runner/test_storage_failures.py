"""Runs and readers while the store fails: slow, refusing, away for a moment, away for long."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import StoreError, StoreUnavailable
from holdfast.events import Entry, Reference, References, TextDelta
from holdfast.runner import supervisor as supervisor_module
from holdfast.runner.reader import Reader, ReaderBroken
from holdfast.store import group_commit
from holdfast.store.port import Append, FinishRun, Write
from tests.support.loop import turns
from tests.support.records import OWNER, events_of
from tests.support.scripted import DONE, texts
from tests.support.stage import GIVE_UP_S, Asked, Stage, on_stage, until

PATIENT = {"store_patience_s": 1e6}
IMPATIENT = {"store_patience_s": 1e-6}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other without a pause worth the name."""
    monkeypatch.setattr(group_commit, "RETRY_S", (0.001,))


def _refuse_poison(stage: Stage, *kinds: type) -> None:
    def refuse(write: Write) -> Exception | None:
        append = write.append if isinstance(write, FinishRun) else write
        if isinstance(write, kinds) and isinstance(append, Append) and b"poison" in append.payload:
            return StoreError("scripted: never")
        return None

    stage.store.refuse = refuse


async def _shown(asked: Asked) -> tuple[str | None, str | None, str, str]:
    message = await asked.message()
    return message.outcome, message.reason, message.status, message.answer.text


async def _ready(stage: Stage) -> bool:
    return stage.supervisor.ready


async def _until_broken(reader: Reader) -> list[Entry]:
    """What a reader is given before it is told to come back later."""
    entries: list[Entry] = []
    try:
        async with asyncio.timeout(GIVE_UP_S):
            while True:
                entries += await reader.next() or []
    except ReaderBroken:
        return entries


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with on_stage(tmp_path, storage=PATIENT) as stage:
        yield stage


@pytest.fixture
async def impatient(tmp_path: Path) -> AsyncIterator[Stage]:
    async with on_stage(tmp_path, storage=IMPATIENT) as stage:
        yield stage


# ------------------------------------------------------------------------------ slow


async def test_p2_nothing_leaves_in_any_form_before_it_is_committed(stage: Stage) -> None:
    asked = await stage.ask()
    run = asked.run
    reader = stage.supervisor.read(run.id)
    assert [entry.seq for entry in await reader.next() or []] == [1]
    stage.store.gate.clear()
    await asked.call.give(*texts("secret"), References((Reference(1, text="secret"),)))
    reading = asyncio.create_task(reader.next())
    await turns()
    assert not reading.done()
    other = stage.supervisor.read(run.id)
    assert [entry.seq for entry in await other.next() or []] == [1]
    other.close()
    shown = [
        (await stage.supervisor.snapshot(OWNER, run.id)),
        (await stage.supervisor.get_message(OWNER, run.message_id)),
        (await stage.supervisor.list_messages(run.session_id, 10, None)),
        (await stage.store.read_log(run.id, 0)),
    ]
    assert "secret" not in repr(shown)
    assert (await stage.supervisor.snapshot(OWNER, run.id))[2] == 1
    stage.store.gate.set()
    entries = await asyncio.wait_for(reading, GIVE_UP_S)
    assert events_of(entries or [])[0] == TextDelta("secret")
    reader.close()
    _, message, seq = await stage.supervisor.snapshot(OWNER, run.id)
    assert (message.answer.text, seq) == ("secret", 3)
    await stage.finish(asked, DONE)


async def test_p3_the_end_is_not_shown_before_it_is_committed(stage: Stage) -> None:
    asked = await stage.ask()
    await asked.call.give(*texts("a"))
    await asked.saved(2)
    stage.store.gate.clear()
    asked.call.push(DONE)
    await asyncio.wait_for(asked.call.closed.wait(), GIVE_UP_S)
    await turns()
    run, message, _ = await stage.supervisor.snapshot(OWNER, asked.run.id)
    assert (run.status, message.status, message.outcome) == ("accepted", "streaming", None)
    assert not asked.execution.over.is_set()
    stage.store.gate.set()
    await asked.over()
    assert await _shown(asked) == ("completed", None, "complete", "a")


# ------------------------------------------------------------------------------ away for a moment


async def test_a_store_that_is_away_for_a_moment_costs_nothing(stage: Stage) -> None:
    asked = await stage.ask()
    reader = stage.supervisor.read(asked.run.id, 1)
    stage.store.down = True
    await asked.call.give(*texts("a"))
    await stage.store.until(lambda store: store.begun >= 4)
    assert not stage.supervisor.ready
    await asked.call.give(*texts("b"))
    stage.store.down = False
    assert await asyncio.wait_for(reader.next(), GIVE_UP_S)
    assert stage.supervisor.ready
    reader.close()
    await stage.finish(asked, *texts("c"), DONE)
    assert await _shown(asked) == ("completed", None, "complete", "abc")
    log = await stage.read(asked.run.id)
    assert [entry.seq for entry in log] == [1, 2, 3, 4, 5]


async def test_p1_a_question_that_cannot_be_stored_is_refused_and_nobody_is_asked(
    stage: Stage,
) -> None:
    stage.store.down = True
    for _ in range(2):
        with pytest.raises(StoreUnavailable) as refusal:
            await stage.supervisor.ask(stage.question())
        assert refusal.value.retry_after_s > 0
    assert stage.upstream.calls == []
    assert stage.supervisor.live_runs == 0
    stage.store.down = False
    await stage.store.until(lambda store: bool(store.applied))
    await until(lambda: _ready(stage))
    await stage.finish(await stage.ask(), *texts("a"), DONE)


def _without_reads(stage: Stage, monkeypatch: pytest.MonkeyPatch, times: int | None) -> None:
    """The store gives no turns, the first `times` times, or never."""
    read, left = stage.store.inner.list_turns, itertools.count() if times is None else range(times)
    failing = iter(left)

    async def list_turns(*arguments: Any) -> Any:
        if next(failing, None) is not None:
            raise StoreUnavailable("scripted: no reads")
        return await read(*arguments)

    monkeypatch.setattr(stage.store.inner, "list_turns", list_turns)


async def test_a_store_that_cannot_be_read_for_a_moment_is_waited_for(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await stage.ask()
    await stage.finish(first, *texts("a"), DONE)
    _without_reads(stage, monkeypatch, times=2)
    second = await stage.ask(session_id=first.run.session_id)
    await stage.finish(second, *texts("b"), DONE)
    assert [message.content for message in second.call.ask.history][-1] == "a"


async def test_a_store_that_cannot_be_read_for_the_history_ends_the_run(
    impatient: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = impatient
    first = await stage.ask()
    await stage.finish(first, *texts("a"), DONE)
    _without_reads(stage, monkeypatch, times=None)
    created = await stage.supervisor.ask(stage.question(session_id=first.run.session_id))
    execution = stage.supervisor.live(created.run.id)
    assert execution is not None
    await asyncio.wait_for(execution.over.wait(), GIVE_UP_S)
    run = await stage.supervisor.get_run(OWNER, created.run.id)
    assert (run.outcome, run.reason) == ("failed", "storage_error")
    assert len(stage.upstream.calls) == 1


# ------------------------------------------------------------------------------ away for long


async def test_p9_after_the_patience_readers_are_broken_without_an_ending(
    impatient: Stage,
) -> None:
    stage = impatient
    asked = await stage.ask()
    reader = stage.supervisor.read(asked.run.id, 1)
    await asked.call.give(*texts("a"))
    await asked.saved(2)
    stage.store.down = True
    asked.call.push(*texts("b"))
    seen = await _until_broken(reader)
    assert events_of(seen) == texts("a")
    reader.close()
    await asyncio.wait_for(asked.call.closed.wait(), GIVE_UP_S)
    late = stage.supervisor.read(asked.run.id, 2)
    with pytest.raises(ReaderBroken):
        await asyncio.wait_for(late.next(), GIVE_UP_S)
    late.close()
    assert not asked.execution.over.is_set()
    stage.store.down = False
    await asked.over()
    assert await _shown(asked) == ("interrupted", "storage_error", "partial", "ab")
    assert [entry.seq for entry in await stage.read(asked.run.id)] == [1, 2, 3, 4]


async def test_a_run_that_only_begins_to_write_during_a_failure_is_given_up_too(
    impatient: Stage,
) -> None:
    stage = impatient
    first, second = await stage.ask(), await stage.ask()
    stage.store.down = True
    first.call.push(*texts("a"))
    await asyncio.wait_for(first.call.closed.wait(), GIVE_UP_S)
    second.call.push(*texts("b"))
    await asyncio.wait_for(second.call.closed.wait(), GIVE_UP_S)
    stage.store.down = False
    for asked, text in ((first, "a"), (second, "b")):
        await asked.over()
        assert await _shown(asked) == ("interrupted", "storage_error", "partial", text)


async def test_p10_a_cancel_while_the_store_is_away_still_closes_the_upstream(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "END_TIMEOUT_S", 0.01)
    asked = await stage.ask()
    stage.store.down = True
    asked.call.push(*texts("a"))
    await stage.store.until(lambda store: store.begun >= 3)
    run = await stage.supervisor.cancel(OWNER, asked.run.id)
    assert run.status == "accepted"
    assert asked.call.closed.is_set()
    assert not asked.execution.over.is_set()
    stage.store.down = False
    await asked.over()
    assert await _shown(asked) == ("cancelled", "client_cancelled", "partial", "a")


# ------------------------------------------------------------------------------ refusing


async def test_p3_a_run_whose_events_can_never_be_stored_ends_with_what_is_stored(
    stage: Stage,
) -> None:
    _refuse_poison(stage, Append)
    asked = await stage.ask()
    reader = stage.supervisor.read(asked.run.id, 1)
    await asked.call.give(*texts("a"))
    await asked.saved(2)
    asked.call.push(*texts("poison"))
    seen = await _until_broken(reader)
    reader.close()
    assert events_of(seen) == texts("a")
    await stage.store.until_applied(FinishRun, asked.run.id)
    assert asked.call.closed.is_set()
    assert await _shown(asked) == ("interrupted", "storage_error", "partial", "a")
    log = await stage.read(asked.run.id)
    assert [entry.seq for entry in log] == [1, 2, 3]
    assert stage.supervisor.live_runs == 0
    assert stage.supervisor.ready


async def test_p3_a_run_whose_last_events_can_never_be_stored_is_ended_too(
    stage: Stage,
) -> None:
    _refuse_poison(stage, FinishRun)
    asked = await stage.ask()
    await asked.call.give(*texts("a"))
    await asked.saved(2)
    stage.store.gate.clear()
    asked.call.push(*texts("poison"), DONE)
    await asyncio.wait_for(asked.call.closed.wait(), GIVE_UP_S)
    await turns()
    stage.store.gate.set()
    await stage.store.until_applied(FinishRun, asked.run.id)
    assert await _shown(asked) == ("interrupted", "storage_error", "partial", "a")


async def test_p3_a_run_with_two_references_of_one_number_ends(stage: Stage) -> None:
    asked = await stage.ask()
    twice = References((Reference(1, text="a"), Reference(1, text="b")))
    await asked.call.give(twice)
    await asked.saved(2)
    await stage.finish(asked, *texts("a"), DONE)
    await asked.ended_in_store()
    assert await _shown(asked) == ("completed", None, "complete", "a")


async def test_one_poisoned_run_does_not_disturb_its_neighbours(stage: Stage) -> None:
    _refuse_poison(stage, Append)
    bad, good = await stage.ask(), await stage.ask()
    stage.store.gate.clear()
    bad.call.push(*texts("poison"))
    good.call.push(*texts("a"))
    await turns()
    stage.store.gate.set()
    await stage.store.until_applied(FinishRun, bad.run.id)
    await stage.finish(good, *texts("b"), DONE)
    assert await _shown(good) == ("completed", None, "complete", "ab")
    assert await _shown(bad) == ("failed", "storage_error", "failed", "")


async def test_p5_a_reader_that_comes_while_a_refused_run_is_being_ended_gets_its_end(
    stage: Stage,
) -> None:
    """Between the refusal and the rescue the run is nobody's; a reader must not be forgotten."""
    _refuse_poison(stage, Append)
    asked = await stage.ask()
    await asked.call.give(*texts("a"))
    await asked.saved(2)
    stage.store.gate.clear()
    asked.call.push(*texts("poison"))
    await turns()
    begun = stage.store.begun
    stage.store.gate.set()
    await stage.store.until(lambda store: store.begun >= begun)
    await asked.over()
    stage.store.gate.clear()
    reading = asyncio.create_task(stage.read(asked.run.id, 1))
    await turns()
    stage.store.gate.set()
    try:
        log = await asyncio.wait_for(reading, GIVE_UP_S)
    except ReaderBroken:
        await stage.store.until_applied(FinishRun, asked.run.id)
        log = await stage.read(asked.run.id, 1)
    assert [entry.seq for entry in log] == [2, 3]


async def test_p3_a_rescue_that_meets_a_failing_store_is_tried_again(stage: Stage) -> None:
    _refuse_poison(stage, Append)
    asked = await stage.ask()
    await asked.call.give(*texts("a"))
    await asked.saved(2)
    stage.store.gate.clear()
    asked.call.push(*texts("poison"))
    await turns()
    refuse = stage.store.refuse

    def once(write: Write) -> Exception | None:
        if isinstance(write, FinishRun):
            stage.store.refuse = refuse
            return StoreUnavailable("scripted: down for a moment")
        return refuse(write)

    stage.store.refuse = once
    stage.store.gate.set()
    await asyncio.wait_for(stage.store.until_applied(FinishRun, asked.run.id), GIVE_UP_S)
    assert await _shown(asked) == ("interrupted", "storage_error", "partial", "a")
