"""A run shown before it has ended."""

from pathlib import Path

import pytest

from holdfast.engine.fold import fold
from holdfast.errors import NotFound
from holdfast.events import Outcome, Reason, Reference, References, RunEnd, TextDelta
from holdfast.runner.snapshot import answer_so_far, with_answer
from holdfast.store.port import MessageRecord
from tests.support.records import OWNER, STRANGER, Told, begin, events_of, tell
from tests.support.scripted import DONE, texts
from tests.support.stage import Stage, on_stage

MESSAGE = MessageRecord("m", "s", "q", "assistant", "streaming", 1, run_id="r")


@pytest.mark.parametrize("tail", [1, 10_000_000])
async def test_a_live_run_shows_the_fold_of_what_is_committed(tmp_path: Path, tail: int) -> None:
    async with on_stage(tmp_path, limits={"tail_bytes": tail}) as stage:
        asked = await stage.ask()
        for number in range(1, 30):
            await asked.call.give(*texts(f"{number} "))
            await asked.saved(number + 1)
            run, message, seq = await stage.supervisor.snapshot(OWNER, asked.run.id)
            assert seq == number + 1
            assert message.answer.text == "".join(f"{n} " for n in range(1, number + 1))
            assert (run.status, message.status) == ("accepted", "streaming")
        await stage.finish(asked, DONE)
        run, message, seq = await stage.supervisor.snapshot(OWNER, asked.run.id)
        assert (run.status, message.status, seq) == ("ended", "complete", 31)


async def test_p4_a_running_answer_shows_the_references_that_have_arrived(
    tmp_path: Path,
) -> None:
    async with on_stage(tmp_path) as stage:
        asked = await stage.ask()
        reference = Reference(1, text="why")
        await asked.call.give(References((reference,)), TextDelta("a"))
        await asked.saved(3)
        shown = await stage.supervisor.list_messages(asked.run.session_id, 10, None)
        assert shown[1].answer.references == (reference,)
        assert shown[1].status == "streaming"
        await stage.finish(asked, DONE)


async def test_p5_a_snapshot_and_a_reader_from_its_seq_make_the_whole(tmp_path: Path) -> None:
    async with on_stage(tmp_path) as stage:
        asked = await stage.ask()
        await asked.call.give(*texts("a", "b"))
        await asked.saved(3)
        _, message, seq = await stage.supervisor.snapshot(OWNER, asked.run.id)
        await stage.finish(asked, *texts("c", "d"), DONE)
        rest = events_of(await stage.read(asked.run.id, seq))
        whole = events_of(await stage.read(asked.run.id))
        assert fold(rest, message.answer).text == fold(whole).text == "abcd"


async def test_a_run_that_is_not_live_here_is_shown_from_the_store(tmp_path: Path) -> None:
    async with on_stage(tmp_path) as stage:
        told = await begin(stage.store, Told(), *texts("a", "b"))
        run, message, seq = await stage.supervisor.snapshot(OWNER, told.run.id)
        assert (run.status, message.status, message.answer.text, seq) == (
            "accepted",
            "streaming",
            "ab",
            3,
        )


async def test_nothing_amounts_to_nothing(tmp_path: Path) -> None:
    async with on_stage(tmp_path) as stage:
        assert await answer_so_far(stage.store, "no-such-run", None) == (fold([]), 0)


@pytest.mark.parametrize("owner", [OWNER, STRANGER])
async def test_p8_the_run_of_another_owner_is_not_shown(tmp_path: Path, owner: str) -> None:
    async with on_stage(tmp_path) as stage:
        told = await tell(stage.store, Told())
        run_id = told.run.id if owner == STRANGER else "no-such-run"
        with pytest.raises(NotFound):
            await stage.supervisor.snapshot(owner, run_id)


def test_a_message_takes_over_what_its_answer_says() -> None:
    shown = with_answer(MESSAGE, fold(texts("a")))
    assert (shown.status, shown.outcome, shown.answer.text) == ("streaming", None, "a")
    end = RunEnd(Outcome.INTERRUPTED, Reason.LIMIT, error="too long")
    shown = with_answer(MESSAGE, fold([*texts("a"), end]))
    assert (shown.status, shown.outcome, shown.reason, shown.error) == (
        "partial",
        "interrupted",
        "limit",
        "too long",
    )


async def test_a_run_that_ends_between_two_readings_is_shown_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with on_stage(tmp_path) as stage:
        await _race(stage, monkeypatch)


async def _race(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = await stage.ask()
    await asked.call.give(*texts("a"))
    read, inner = stage.store.inner.get_message, stage.store.inner

    async def end_first(owner: str, message_id: str) -> MessageRecord | None:
        await stage.finish(asked, DONE)
        return await read(owner, message_id)

    monkeypatch.setattr(inner, "get_message", end_first)
    run, message, seq = await stage.supervisor.snapshot(OWNER, asked.run.id)
    assert (run.status, run.outcome, message.status, seq) == ("ended", "completed", "complete", 3)
