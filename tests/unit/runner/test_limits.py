"""Bounds: what one answer may hold, and how much of it may wait for the store."""

from pathlib import Path
from typing import Any

import pytest

from holdfast.engine.run import UpstreamEnd
from holdfast.errors import BadRequest, TooLarge
from holdfast.events import (
    Event,
    ReasoningDelta,
    Step,
    TextDelta,
    TextReplace,
    ToolCall,
)
from holdfast.upstreams.base import Ask, Exchange, Health, Sink, Upstream
from tests.support.loop import turns
from tests.support.records import events_of
from tests.support.scripted import DONE, texts
from tests.support.stage import Asked, on_stage


async def _ended(asked: Asked) -> tuple[str | None, str | None, str]:
    await asked.over()
    message = await asked.message()
    return message.outcome, message.reason, message.status


# ------------------------------------------------------------------------------ the answer


@pytest.mark.parametrize(
    "events",
    [
        texts("x" * 60, "x" * 41),
        [ReasoningDelta("x" * 60), TextDelta("x" * 41)],
        [ToolCall(0, arguments_delta="x" * 30), ToolCall(0, arguments_delta="x" * 71)],
        texts("海" * 20, "海" * 14),
    ],
    ids=["text", "reasoning", "tool call", "bytes, not characters"],
)
async def test_an_answer_over_its_limit_is_cut_at_a_whole_event(
    tmp_path: Path, events: list[Event]
) -> None:
    async with on_stage(tmp_path, [*events, DONE], limits={"answer_bytes": 100}) as stage:
        asked = await stage.ask()
        assert await _ended(asked) == ("interrupted", "limit", "partial")
        log = events_of(await stage.read(asked.run.id))
        assert log[1:-1] == events[:1]
        assert "limits.answer_bytes" in ((await asked.message()).error or "")
        assert asked.call.closed.is_set()


async def test_an_answer_of_exactly_its_limit_is_whole(tmp_path: Path) -> None:
    said = texts("x" * 60, "x" * 40)
    async with on_stage(tmp_path, [*said, DONE], limits={"answer_bytes": 100}) as stage:
        asked = await stage.ask()
        assert await _ended(asked) == ("completed", None, "complete")


@pytest.mark.parametrize(
    "event",
    [
        TextDelta("x" * 101),
        TextDelta("海" * 34),
        TextReplace("x" * 101),
        ReasoningDelta("x" * 101),
        ToolCall(0, arguments_delta="海" * 34),
        ToolCall(0, name="x" * 101),
        Step("searching", detail="x" * 101),
    ],
    ids=lambda event: type(event).__name__,
)
async def test_one_event_over_its_limit_is_left_out_and_ends_the_run(
    tmp_path: Path, event: Event
) -> None:
    async with on_stage(tmp_path, texts("a"), [event, DONE], limits={"event_bytes": 100}) as stage:
        asked = await stage.ask()
        assert await _ended(asked) == ("interrupted", "limit", "partial")
        assert events_of(await stage.read(asked.run.id))[1:-1] == texts("a")
        assert "limits.event_bytes" in ((await asked.message()).error or "")


async def test_an_event_of_exactly_its_limit_is_kept(tmp_path: Path) -> None:
    said = [*texts("x" * 100), *texts("海" * 33), DONE]
    async with on_stage(tmp_path, said, limits={"event_bytes": 100}) as stage:
        assert await _ended(await stage.ask()) == ("completed", None, "complete")


async def test_a_rewritten_answer_counts_as_long_as_it_is(tmp_path: Path) -> None:
    """An upstream that puts its citations in at the end says everything twice."""
    said = [*texts("x" * 60), TextReplace("x" * 70), DONE]
    async with on_stage(tmp_path, said, limits={"answer_bytes": 100}) as stage:
        asked = await stage.ask()
        assert await _ended(asked) == ("completed", None, "complete")
        assert (await asked.message()).answer.text == "x" * 70


class Deaf(Upstream):
    """Goes on and calls its answer complete, whatever the run says."""

    kind = "deaf"

    async def answer(self, ask: Ask, exchange: Exchange, sink: Sink) -> UpstreamEnd:
        for _ in range(5):
            sink.take(texts("x" * 60))
        return UpstreamEnd()

    async def check(self) -> Health:
        return Health(True)


async def test_p9_an_upstream_that_does_not_listen_cannot_turn_a_limit_into_a_success(
    tmp_path: Path,
) -> None:
    async with on_stage(tmp_path, limits={"answer_bytes": 100}) as stage:
        created = await stage.supervisor.ask(stage.question(), Deaf("deaf"))
        log = events_of(await stage.read(created.run.id))
        run = await stage.supervisor.get_run(created.run.owner, created.run.id)
        assert (run.outcome, run.reason) == ("interrupted", "limit")
        assert log[1:-1] == texts("x" * 60)


# ------------------------------------------------------------------------------ questions


@pytest.mark.parametrize("message", ["", " ", "\n\t\r ", "\u3000"])
async def test_an_empty_question_is_refused(tmp_path: Path, message: str) -> None:
    async with on_stage(tmp_path) as stage:
        with pytest.raises(BadRequest):
            await stage.supervisor.ask(stage.question(message))
        assert stage.store.applied == []


@pytest.mark.parametrize(
    ("message", "error"), [("x" * 100, None), ("x" * 101, TooLarge), ("海" * 34, TooLarge)]
)
async def test_a_question_is_bounded_in_bytes(
    tmp_path: Path, message: str, error: type[Exception] | None
) -> None:
    async with on_stage(tmp_path, [DONE], limits={"question_bytes": 100}) as stage:
        if error is None:
            await (await stage.ask(message)).over()
        else:
            with pytest.raises(error):
                await stage.supervisor.ask(stage.question(message))
            assert stage.store.applied == []


async def test_a_question_that_has_no_utf8_form_is_the_callers_mistake(tmp_path: Path) -> None:
    async with on_stage(tmp_path) as stage:
        with pytest.raises(BadRequest):
            await stage.supervisor.ask(stage.question("half a pair: \ud83d"))


# ------------------------------------------------------------------------------ back pressure


@pytest.mark.parametrize("bound", [1, 1_000])
async def test_p6_the_upstream_is_not_read_while_too_much_waits_for_the_store(
    tmp_path: Path, bound: int
) -> None:
    async with on_stage(tmp_path, limits={"unsaved_bytes": bound}) as stage:
        asked = await stage.ask()
        stage.store.gate.clear()
        for number in range(100):
            asked.call.push(*texts(f"{number:03}" + "x" * 100))
        asked.call.push(DONE)
        await turns(200)
        size = 150
        taken = asked.call.given
        assert asked.execution.log.unsaved_bytes <= bound + size
        assert 1 <= taken <= bound // 100 + 2
        await turns(200)
        assert asked.call.given == taken
        stage.store.gate.set()
        assert await _ended(asked) == ("completed", None, "complete")
        assert len((await asked.message()).answer.text) == 100 * 103
        assert asked.execution.log.unsaved_bytes == 0


async def test_p6_a_stop_is_heard_while_the_store_is_waited_for(tmp_path: Path) -> None:
    async with on_stage(tmp_path, limits={"unsaved_bytes": 1}) as stage:
        asked = await stage.ask()
        stage.store.gate.clear()
        for _ in range(5):
            asked.call.push(*texts("x"))
        await turns()
        assert asked.call.given == 1
        stage.supervisor._live[asked.run.id].stop(UpstreamEnd())
        await turns()
        assert asked.call.closed.is_set()
        stage.store.gate.set()
        await asked.over()
        assert (await asked.message()).answer.text == "x"


async def test_a_hundred_thousand_tiny_events_are_all_kept(tmp_path: Path) -> None:
    batches: list[Any] = [texts(*("x" * 1_000)) for _ in range(100)]
    async with on_stage(tmp_path, *batches, [DONE]) as stage:
        asked = await stage.ask()
        assert await _ended(asked) == ("completed", None, "complete")
        assert (await asked.record()).last_seq == 100_002
        assert (await asked.message()).answer.text == "x" * 100_000
