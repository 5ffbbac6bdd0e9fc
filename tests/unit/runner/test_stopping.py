"""Ending a run from outside: a stop, a reader that left, a time-out, another question."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from holdfast.engine.run import UpstreamEnd
from holdfast.errors import NotFound, RunActive
from holdfast.events import Entry, Outcome, Reason, RunStart, encode
from holdfast.runner import execution as execution_module
from holdfast.runner.candidates import Candidates
from holdfast.runner.execution import Execution
from holdfast.runner.router import given
from holdfast.settings import LimitSettings, RunSettings
from holdfast.store.port import FinishRun, RequestCancel
from holdfast.upstreams.base import Ask
from tests.support.loop import turns
from tests.support.records import OWNER, STRANGER, Told, outcome_of
from tests.support.scripted import DONE, ScriptedUpstream, texts
from tests.support.stage import GIVE_UP_S, Asked, on_stage

CANCEL = UpstreamEnd(Reason.CLIENT_CANCELLED)
SOON_S = 0.01
LATE_S = 1_000.0


async def _shown(asked: Asked) -> tuple[str | None, str | None, str, str]:
    await asked.over()
    message = await asked.message()
    return message.outcome, message.reason, message.status, message.answer.text


# ------------------------------------------------------------------------------ cancel


async def test_p10_a_cancel_closes_the_upstream_and_keeps_what_was_written(
    tmp_path: Path,
) -> None:
    async with on_stage(tmp_path, texts("a", "b")) as stage:
        asked = await stage.ask()
        await asked.saved(3)
        run = await stage.supervisor.cancel(OWNER, asked.run.id)
        assert (run.status, run.outcome, run.reason) == ("ended", "cancelled", "client_cancelled")
        assert asked.call.closed.is_set()
        assert await _shown(asked) == ("cancelled", "client_cancelled", "partial", "ab")


async def test_p10_a_cancel_before_anything_arrived_leaves_a_failed_message(
    tmp_path: Path,
) -> None:
    async with on_stage(tmp_path) as stage:
        asked = await stage.ask()
        await stage.supervisor.cancel(OWNER, asked.run.id)
        assert asked.call.closed.is_set()
        assert await _shown(asked) == ("cancelled", "client_cancelled", "failed", "")


async def test_p10_what_had_arrived_but_was_not_saved_is_kept_too(tmp_path: Path) -> None:
    async with on_stage(tmp_path) as stage:
        asked = await stage.ask()
        stage.store.gate.clear()
        await asked.call.give(*texts("a"))
        cancelling = asyncio.create_task(stage.supervisor.cancel(OWNER, asked.run.id))
        await asyncio.wait_for(asked.call.closed.wait(), GIVE_UP_S)
        stage.store.gate.set()
        await cancelling
        assert await _shown(asked) == ("cancelled", "client_cancelled", "partial", "a")


async def test_p10_the_upstream_is_closed_before_the_store_is_asked(tmp_path: Path) -> None:
    """A store that hangs must not keep an upstream running that somebody pays for."""
    async with on_stage(tmp_path, texts("a")) as stage:
        asked = await stage.ask()
        await asked.saved(2)
        stage.store.gate.clear()
        cancelling = asyncio.create_task(stage.supervisor.cancel(OWNER, asked.run.id))
        await asyncio.wait_for(asked.call.closed.wait(), GIVE_UP_S)
        assert not cancelling.done()
        stage.store.gate.set()
        await cancelling


async def test_p10_a_cancel_is_noted_for_the_case_of_a_crash(tmp_path: Path) -> None:
    async with on_stage(tmp_path, texts("a")) as stage:
        asked = await stage.ask()
        await stage.supervisor.cancel(OWNER, asked.run.id)
        assert RequestCancel(asked.run.id) in stage.store.applied


async def test_p10_an_upstream_that_does_not_hang_up_cannot_hold_a_cancelled_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its closing handshake may hang; the run and its session must not hang with it."""
    monkeypatch.setattr(execution_module, "CLOSE_TIMEOUT_S", SOON_S, raising=False)
    async with on_stage(tmp_path, texts("a")) as stage:
        stage.upstream.prepare = lambda call: call.close_gate.clear()
        asked = await stage.ask()
        await asked.saved(2)
        asked.execution.stop(CANCEL)
        assert await _shown(asked) == ("cancelled", "client_cancelled", "partial", "a")


async def test_p10_cancelling_twice_at_once_is_one_cancel(tmp_path: Path) -> None:
    async with on_stage(tmp_path, texts("a")) as stage:
        asked = await stage.ask()
        runs = await asyncio.gather(
            *[stage.supervisor.cancel(OWNER, asked.run.id) for _ in range(3)]
        )
        assert {run.outcome for run in runs} == {"cancelled"}
        assert outcome_of(await stage.read(asked.run.id)) is Outcome.CANCELLED


async def test_cancelling_a_run_that_has_ended_leaves_it_as_it_is(tmp_path: Path) -> None:
    async with on_stage(tmp_path, [*texts("a"), DONE]) as stage:
        asked = await stage.ask()
        await asked.over()
        run = await stage.supervisor.cancel(OWNER, asked.run.id)
        assert (run.outcome, run.reason) == ("completed", None)


@pytest.mark.parametrize("owner", [OWNER, STRANGER])
async def test_p8_only_its_owner_can_cancel_a_run(tmp_path: Path, owner: str) -> None:
    async with on_stage(tmp_path, texts("a")) as stage:
        asked = await stage.ask()
        run_id = asked.run.id if owner == STRANGER else "no-such-run"
        with pytest.raises(NotFound):
            await stage.supervisor.cancel(owner, run_id)
        await stage.finish(asked, DONE)
        assert (await asked.record()).outcome == "completed"


# --------------------------------------------------------------------------- before the call


def _execution(upstream: ScriptedUpstream, marked: list[Execution]) -> Execution:
    told = Told()
    start = told.entries[0]
    assert isinstance(start.event, RunStart)
    ask = Ask(told.run.id, told.run.session_id, told.run.message_id, "What is kelp?")
    return Execution(
        told.run,
        Entry(1, start.event, encode(start.event)),
        ask,
        Candidates(given(upstream).candidates, now=lambda: 0.0, patience_s=1.0),
        runs=RunSettings(),
        limits=LimitSettings(),
        mark=marked.append,
        note=lambda write: None,
        ended=lambda execution: None,
        now=lambda: 1,
    )


async def test_p10_a_stop_before_the_run_has_begun_calls_nobody() -> None:
    upstream, marked = ScriptedUpstream("script", texts("a")), list[Execution]()
    execution = _execution(upstream, marked)
    execution.start(None)
    assert execution.stop(CANCEL)
    await execution.wait_closed()
    assert upstream.calls == []
    assert marked == [execution]
    write = execution.pending()
    assert isinstance(write, FinishRun)
    assert write.answer.end is not None
    assert write.answer.end.outcome is Outcome.CANCELLED


async def test_p10_a_stop_while_the_history_is_loaded_calls_nobody(tmp_path: Path) -> None:
    async with on_stage(tmp_path, [*texts("a"), DONE]) as stage:
        first = await stage.ask()
        await first.over()
        stage.store.read_gate.clear()
        created = await stage.supervisor.ask(stage.question(session_id=first.run.session_id))
        execution = stage.supervisor.live(created.run.id)
        assert execution is not None
        await turns()
        assert execution.stop(CANCEL)
        await asyncio.wait_for(execution.over.wait(), GIVE_UP_S)
        stage.store.read_gate.set()
        assert len(stage.upstream.calls) == 1
        run = await stage.supervisor.get_run(OWNER, created.run.id)
        assert (run.outcome, run.reason) == ("cancelled", "client_cancelled")


def _state(execution: Execution) -> str:
    return execution.state.value


async def test_p2_a_run_is_not_called_ended_before_its_end_is_stored() -> None:
    upstream, marked = ScriptedUpstream("script", texts("a")), list[Execution]()
    execution = _execution(upstream, marked)
    assert _state(execution) == "accepted"
    execution.start(None)
    call = await upstream.called()
    await call.hungry.wait()
    assert _state(execution) == "streaming"
    call.push(DONE)
    await execution.wait_closed()
    assert execution.pending() is not None
    assert _state(execution) == "streaming"
    execution.settle(True)
    assert _state(execution) == "ended"


# ------------------------------------------------------------------------------ nobody reads


async def test_a_run_goes_on_without_readers(tmp_path: Path) -> None:
    async with on_stage(tmp_path, texts("a"), runs={"disconnect_grace_s": 0}) as stage:
        asked = await stage.ask()
        reader = stage.supervisor.read(asked.run.id)
        await reader.next()
        reader.close()
        await turns()
        await stage.finish(asked, *texts("b"), DONE)
        assert await _shown(asked) == ("completed", None, "complete", "ab")


async def test_with_cancel_a_run_ends_when_its_last_reader_has_left(tmp_path: Path) -> None:
    runs = {"disconnect_grace_s": SOON_S}
    async with on_stage(tmp_path, texts("a"), runs=runs) as stage:
        asked = await stage.ask(on_disconnect="cancel")
        first, second = (stage.supervisor.read(asked.run.id) for _ in range(2))
        await asked.saved(2)
        first.close()
        first.close()
        await turns()
        assert not asked.execution.over.is_set()
        second.close()
        assert await _shown(asked) == ("cancelled", "client_disconnected", "partial", "a")
        assert asked.call.closed.is_set()


async def test_with_cancel_a_reader_that_comes_back_in_time_saves_the_run(
    tmp_path: Path,
) -> None:
    runs = {"disconnect_grace_s": LATE_S, "on_disconnect": "cancel"}
    async with on_stage(tmp_path, texts("a"), runs=runs) as stage:
        asked = await stage.ask()
        stage.supervisor.read(asked.run.id).close()
        assert asked.execution.audience._timer is not None
        reader = stage.supervisor.read(asked.run.id)
        assert asked.execution.audience._timer is None
        await stage.finish(asked, DONE)
        reader.close()
        assert asked.execution.audience._timer is None
        assert await _shown(asked) == ("completed", None, "complete", "a")


async def test_with_cancel_a_run_that_nobody_ever_read_ends(tmp_path: Path) -> None:
    runs = {"disconnect_grace_s": 0, "on_disconnect": "cancel"}
    async with on_stage(tmp_path, texts("a"), runs=runs) as stage:
        asked = await stage.ask()
        assert await _shown(asked) == ("cancelled", "client_disconnected", "partial", "a")


async def test_the_question_says_what_happens_when_its_reader_leaves(tmp_path: Path) -> None:
    runs = {"disconnect_grace_s": SOON_S, "on_disconnect": "cancel"}
    async with on_stage(tmp_path, texts("a"), runs=runs) as stage:
        asked = await stage.ask(on_disconnect="continue")
        stage.supervisor.read(asked.run.id).close()
        assert asked.execution.audience._timer is None
        assert asked.run.on_disconnect == "continue"
        await stage.finish(asked, DONE)


# ------------------------------------------------------------------------------ time-outs


@pytest.mark.parametrize(
    ("runs", "said", "shown"),
    [
        (
            {"first_byte_timeout_s": SOON_S},
            [],
            ("failed", "upstream_timeout", "failed", ""),
        ),
        (
            {"first_byte_timeout_s": LATE_S, "idle_timeout_s": SOON_S},
            texts("a"),
            ("interrupted", "upstream_timeout", "partial", "a"),
        ),
        (
            {"first_byte_timeout_s": LATE_S, "idle_timeout_s": LATE_S, "total_timeout_s": SOON_S},
            texts("a"),
            ("interrupted", "upstream_timeout", "partial", "a"),
        ),
    ],
    ids=["first byte", "idle", "total"],
)
async def test_p9_an_upstream_that_takes_too_long_ends_the_run(
    tmp_path: Path, runs: dict[str, Any], said: list[Any], shown: tuple[Any, ...]
) -> None:
    async with on_stage(tmp_path, *([said] if said else []), runs=runs) as stage:
        asked = await stage.ask()
        assert await _shown(asked) == shown
        assert asked.call.closed.is_set()
        (limit,) = [value for value in runs.values() if value == SOON_S]
        assert f"{limit:g} s" in ((await asked.message()).error or "")


async def test_the_upstream_has_its_full_time_again_after_waiting_for_the_store(
    tmp_path: Path,
) -> None:
    """While it is not read it cannot be silent; the clock begins when it is read again."""
    async with on_stage(tmp_path, limits={"unsaved_bytes": 1}) as stage:
        asked = await stage.ask()
        await asyncio.wait_for(asked.call.hungry.wait(), GIVE_UP_S)
        asked.call.hungry.clear()
        stage.store.gate.clear()
        asked.call.push(*texts("a"))
        await turns()
        watch = asked.execution._watch
        assert watch is not None
        watch._time = lambda: 1e6
        stage.store.gate.set()
        await asyncio.wait_for(asked.call.hungry.wait(), GIVE_UP_S)
        assert watch._active == 1e6
        await stage.finish(asked, DONE)


# ------------------------------------------------------------------------------ busy sessions


async def test_a_busy_session_refuses_the_next_question_with_the_id_of_its_run(
    tmp_path: Path,
) -> None:
    async with on_stage(tmp_path, texts("a")) as stage:
        asked = await stage.ask()
        with pytest.raises(RunActive) as refusal:
            await stage.supervisor.ask(stage.question(session_id=asked.run.session_id))
        assert refusal.value.extra == {
            "session_id": asked.run.session_id,
            "run_id": asked.run.id,
        }
        await stage.finish(asked, DONE)
        assert (await asked.record()).outcome == "completed"


@pytest.mark.parametrize("asked_for", [True, False])
async def test_with_on_busy_cancel_the_new_question_stops_the_old_answer(
    tmp_path: Path, asked_for: bool
) -> None:
    runs = {"on_busy": "reject" if asked_for else "cancel"}
    async with on_stage(tmp_path, texts("a"), runs=runs) as stage:
        old = await stage.ask()
        await old.saved(2)
        values = {"on_busy": "cancel"} if asked_for else {}
        new = await stage.ask("And then?", session_id=old.run.session_id, **values)
        assert await _shown(old) == ("cancelled", "client_cancelled", "partial", "a")
        assert old.call.closed.is_set()
        await stage.finish(new, DONE)
        assert await _shown(new) == ("completed", None, "complete", "a")
        history = [message.content for message in new.call.ask.history]
        assert history == ["What is kelp?", "a"]


async def test_with_on_busy_cancel_many_questions_at_once_leave_one_run(tmp_path: Path) -> None:
    async with on_stage(tmp_path, texts("a")) as stage:
        first = await stage.ask()
        question = stage.question(session_id=first.run.session_id, on_busy="cancel")
        results = await asyncio.gather(
            *[stage.supervisor.ask(question) for _ in range(4)], return_exceptions=True
        )
        assert stage.supervisor.live_runs == 1
        created = [r for r in results if not isinstance(r, BaseException)]
        refused = [r for r in results if isinstance(r, BaseException)]
        assert created
        assert all(isinstance(error, RunActive) for error in refused)
        live = await stage.store.inner.live_runs()
        assert len(live) == 1
