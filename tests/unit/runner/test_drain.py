"""The shutdown: questions are refused, runs may finish, the rest is told and saved."""

import asyncio
import contextlib
from pathlib import Path

import pytest

from holdfast.errors import Draining, StoreError, StoreUnavailable
from holdfast.events import RunEnd
from holdfast.runner import supervisor as supervisor_module
from holdfast.store import group_commit
from holdfast.store.port import Append, FinishRun, Write
from tests.support.harness import SqliteHarness
from tests.support.loop import turns
from tests.support.records import OWNER
from tests.support.scripted import DONE, texts
from tests.support.stage import GIVE_UP_S, Asked, Stage, on_stage

LATE_S = 1e6


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other, and waits end, without a pause worth the name."""
    monkeypatch.setattr(group_commit, "RETRY_S", (0.001,))
    monkeypatch.setattr(supervisor_module, "END_TIMEOUT_S", 0.05)


async def _stopped(stage: Stage, grace_s: float = 0.0) -> None:
    await asyncio.wait_for(stage.supervisor.stop(grace_s), GIVE_UP_S)


async def _stored(folder: Path, asked: Asked) -> tuple[str, str | None, str | None, str]:
    """The message as the next process finds it, without having recovered anything."""
    store = SqliteHarness(folder).make()
    await store.open()
    message = await store.get_message(OWNER, asked.run.message_id)
    await store.close()
    assert message is not None
    return message.status, message.outcome, message.reason, message.answer.text


async def test_a_draining_node_takes_no_questions(tmp_path: Path) -> None:
    async with on_stage(tmp_path) as stage:
        assert stage.supervisor.ready
        await stage.supervisor.drain(0)
        assert not stage.supervisor.ready
        with pytest.raises(Draining):
            await stage.supervisor.ask(stage.question())
        assert stage.upstream.calls == []


async def test_runs_may_finish_within_the_grace_time_with_their_readers(tmp_path: Path) -> None:
    async with on_stage(tmp_path) as stage:
        asked = await stage.ask()
        reading = asyncio.create_task(stage.read(asked.run.id))
        draining = asyncio.create_task(stage.supervisor.drain(LATE_S))
        await turns()
        await asked.call.give(*texts("a"))
        assert not draining.done()
        asked.call.push(*texts("b"), DONE)
        await asyncio.wait_for(draining, GIVE_UP_S)
        assert len(await reading) == 4
        assert (await asked.message()).status == "complete"


@pytest.mark.parametrize("grace_s", [0.0, 0.01])
async def test_p9_runs_that_take_longer_are_ended_and_their_readers_told(
    tmp_path: Path, grace_s: float
) -> None:
    async with on_stage(tmp_path, texts("a")) as stage:
        first, second = await stage.ask(), await stage.ask()
        await first.saved(2)
        reading = [asyncio.create_task(stage.read(a.run.id)) for a in (first, second)]
        await turns()
        await asyncio.wait_for(stage.supervisor.drain(grace_s), GIVE_UP_S)
        for asked, log in zip((first, second), await asyncio.gather(*reading), strict=True):
            assert asked.call.closed.is_set()
            end = log[-1].event
            assert isinstance(end, RunEnd)
            assert (end.outcome, end.reason) == ("interrupted", "server_shutdown")
        await _stopped(stage)
        assert await _stored(tmp_path, first) == (
            "partial",
            "interrupted",
            "server_shutdown",
            "a",
        )


async def test_a_run_in_which_nothing_had_arrived_ends_as_failed(tmp_path: Path) -> None:
    async with on_stage(tmp_path) as stage:
        asked = await stage.ask()
        await _stopped(stage)
        assert await _stored(tmp_path, asked) == ("failed", "failed", "server_shutdown", "")


async def test_stopping_saves_what_had_arrived(tmp_path: Path) -> None:
    async with on_stage(tmp_path) as stage:
        asked = await stage.ask()
        stage.store.gate.clear()
        await asked.call.give(*texts("a", "b"))
        stopping = asyncio.create_task(stage.supervisor.stop())
        await turns()
        stage.store.gate.set()
        await asyncio.wait_for(stopping, GIVE_UP_S)
        assert (await _stored(tmp_path, asked))[3] == "ab"


async def test_p3_a_question_that_was_on_its_way_is_ended_too(tmp_path: Path) -> None:
    """It is committed after the drain began; its caller gets a run that has its ending."""
    async with on_stage(tmp_path) as stage:
        stage.store.gate.clear()
        asking = asyncio.create_task(stage.supervisor.ask(stage.question()))
        await stage.store.until(lambda store: store.begun == 1)
        stopping = asyncio.create_task(stage.supervisor.stop())
        await turns()
        stage.store.gate.set()
        await asyncio.wait_for(stopping, GIVE_UP_S)
        created = await asking
        assert stage.upstream.calls == []
        store = SqliteHarness(tmp_path).make()
        await store.open()
        run = await store.get_run(OWNER, created.run.id)
        live = await store.live_runs()
        await store.close()
        assert live == []
        assert run is not None
        assert (run.status, run.reason) == ("ended", "server_shutdown")


async def test_stopping_does_not_hang_while_the_store_fails(tmp_path: Path) -> None:
    """What could not be saved is recovered by the next start."""
    async with on_stage(tmp_path) as stage:
        asked = await stage.ask()
        await asked.call.give(*texts("a"))
        await asked.saved(2)
        stage.store.down = True
        asked.call.push(*texts("b"))
        await stage.store.until(lambda store: store.begun >= 4)
        await _stopped(stage)
        assert asked.call.closed.is_set()
    async with on_stage(tmp_path) as stage:
        message = await stage.supervisor.get_message(OWNER, asked.run.message_id)
        assert (message.status, message.reason) == ("partial", "server_crash")
        assert message.answer.text == "a"


async def test_many_runs_are_ended_together_and_not_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each may take its time to hang up; a shutdown waits for the slowest, not for the sum."""
    monkeypatch.setattr(supervisor_module, "END_TIMEOUT_S", GIVE_UP_S)
    async with on_stage(tmp_path) as stage:
        asked = [await stage.ask() for _ in range(5)]
        for one in asked:
            one.call.close_gate.clear()
        draining = asyncio.create_task(stage.supervisor.drain(0))
        await turns()
        assert all(one.call.closing.is_set() for one in asked)
        for one in asked:
            one.call.close_gate.set()
        await asyncio.wait_for(draining, GIVE_UP_S)


async def test_two_drains_at_once_both_come_to_their_end(tmp_path: Path) -> None:
    """The signal drains, and so does the end of the application's lifespan."""
    async with on_stage(tmp_path, texts("a")) as stage:
        stage.store.gate.clear()
        asking = asyncio.create_task(stage.supervisor.ask(stage.question()))
        await stage.store.until(lambda store: store.begun == 1)
        drains = [asyncio.create_task(stage.supervisor.drain(0)) for _ in range(2)]
        await turns()
        stage.store.gate.set()
        await asyncio.wait_for(asyncio.gather(*drains), GIVE_UP_S)
        created = await asking
        run = await stage.supervisor.get_run(OWNER, created.run.id)
        assert run.reason == "server_shutdown"


async def test_stopping_does_not_wait_for_a_rescue_that_cannot_succeed(tmp_path: Path) -> None:
    """A run that the store refused, and then the store fails: the next start ends it."""

    def refuse(write: Write) -> Exception | None:
        if isinstance(write, FinishRun):
            return StoreUnavailable("scripted: down")
        return StoreError("scripted: never") if isinstance(write, Append) else None

    async with on_stage(tmp_path) as stage:
        asked = await stage.ask()
        stage.store.refuse = refuse
        asked.call.push(*texts("a"))
        await asked.over()
        await _stopped(stage)
    async with on_stage(tmp_path) as stage:
        assert (await stage.supervisor.get_run(OWNER, asked.run.id)).status == "ended"


async def test_stopping_twice_is_harmless(tmp_path: Path) -> None:
    async with on_stage(tmp_path) as stage:
        await _stopped(stage)


async def test_stopping_lets_the_file_go(tmp_path: Path) -> None:
    async with on_stage(tmp_path) as stage:
        await _stopped(stage)
        async with on_stage(tmp_path):
            pass


async def test_an_upstream_that_cannot_be_closed_does_not_keep_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Stage(tmp_path)

    async def refuse() -> None:
        raise OSError("cannot be closed")

    await stage.supervisor.start()
    monkeypatch.setattr(stage.upstream, "close", refuse)
    with contextlib.suppress(OSError):
        await _stopped(stage)
    async with on_stage(tmp_path):
        pass


async def test_nothing_is_left_running(tmp_path: Path) -> None:
    before = asyncio.all_tasks()
    async with on_stage(tmp_path, texts("a")) as stage:
        for _ in range(3):
            asked = await stage.ask()
            await asked.saved(2)
    await turns()
    assert asyncio.all_tasks() <= before
