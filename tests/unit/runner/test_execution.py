"""One run from its question to its end: every row of the table of endings."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from holdfast.engine.fold import fold
from holdfast.engine.run import UpstreamEnd
from holdfast.events import (
    Event,
    Finish,
    Notice,
    Outcome,
    Reason,
    ReasoningDelta,
    Reference,
    References,
    RunEnd,
    RunStart,
    Step,
    TextDelta,
    TextReplace,
    ToolCall,
    Usage,
)
from holdfast.upstreams.base import Ask, Exchange, Health, Sink, Upstream
from tests.support.records import OWNER, events_of
from tests.support.scripted import DONE, texts
from tests.support.stage import GIVE_UP_S, Asked, on_stage

ARRIVING: list[Event] = [
    TextDelta("a"),
    TextReplace("a"),
    ReasoningDelta("a"),
    References((Reference(1),)),
    ToolCall(0, name="f"),
]
SILENT: list[Event] = [Step("searching"), Notice("n", "m"), Usage(1, 0), TextDelta("")]


async def _stored(asked: Asked) -> tuple[str | None, str | None, str]:
    """Outcome, reason and status, which run, message and log must tell alike."""
    end = await asked.ending()
    run, message = await asked.record(), await asked.message()
    assert run.status == "ended"
    assert (run.outcome, run.reason, run.error) == (end.outcome, end.reason, end.error)
    assert (message.outcome, message.reason, message.error) == (run.outcome, run.reason, run.error)
    assert message.answer.status == message.status
    return run.outcome, run.reason, message.status


# ------------------------------------------------------------------------------ completed


@pytest.mark.parametrize("event", ARRIVING, ids=lambda event: type(event).__name__)
async def test_a_terminal_marker_after_something_completes_the_run(
    tmp_path: Path, event: Event
) -> None:
    async with on_stage(tmp_path, [event], [DONE]) as stage:
        assert await _stored(await stage.ask()) == ("completed", None, "complete")


@pytest.mark.parametrize("events", [[], SILENT], ids=["nothing", "only progress"])
async def test_p9_a_terminal_marker_after_nothing_is_no_success(
    tmp_path: Path, events: list[Event]
) -> None:
    async with on_stage(tmp_path, [*events, DONE]) as stage:
        assert await _stored(await stage.ask()) == ("failed", "upstream_empty", "failed")


async def test_the_whole_of_a_run_is_stored_as_it_was_said(tmp_path: Path) -> None:
    said: list[Event] = [
        Step("searching"),
        References((Reference(1, text="why"),)),
        ReasoningDelta("Hm."),
        TextDelta("海带 [1]", marks=((3, 6, 1),)),
        TextDelta(" is kelp."),
        Usage(3, 4),
    ]
    end = UpstreamEnd(finish=Finish.STOP)
    async with on_stage(tmp_path, said[:2], said[2:4], [*said[4:], end]) as stage:
        asked = await stage.ask(model="some-model")
        run = asked.run
        await asked.over()
        assert events_of(await stage.read(run.id)) == [
            RunStart(
                run_id=run.id,
                session_id=run.session_id,
                message_id=run.message_id,
                question_id=run.question_id,
                upstream="script",
                model="some-model",
                route_reason="the only upstream",
            ),
            *said,
            RunEnd(Outcome.COMPLETED, finish=Finish.STOP),
        ]
        answer = (await asked.message()).answer
        assert (answer.text, answer.marks) == ("海带 [1] is kelp.", ((3, 6, 1),))
        assert (answer.reasoning, answer.usage) == ("Hm.", Usage(3, 4))
        assert answer.references == (Reference(1, text="why"),)


async def test_what_follows_the_terminal_marker_is_not_read(tmp_path: Path) -> None:
    async with on_stage(tmp_path, [*texts("a"), DONE, *texts("late")], texts("later")) as stage:
        asked = await stage.ask()
        await asked.over()
        assert (await asked.message()).answer.text == "a"
        assert asked.call.given == 1
        assert asked.call.closed.is_set()


# ------------------------------------------------------------------------------ the upstream fails


FAILURES: list[tuple[Any, str]] = [
    (UpstreamEnd(Reason.UPSTREAM_ERROR, error="boom"), "upstream_error"),
    (UpstreamEnd(Reason.UPSTREAM_UNREACHABLE), "upstream_unreachable"),
    (UpstreamEnd(Reason.UPSTREAM_TRUNCATED), "upstream_truncated"),
    (UpstreamEnd(Reason.UPSTREAM_TIMEOUT), "upstream_timeout"),
    (UpstreamEnd(Reason.LIMIT), "limit"),
    (None, "upstream_truncated"),
    (RuntimeError("a bug in the upstream"), "upstream_error"),
    (TimeoutError("not ours"), "upstream_error"),
    (asyncio.CancelledError(), "upstream_error"),
]


@pytest.mark.parametrize("arrived", [True, False])
@pytest.mark.parametrize(
    ("failure", "reason"), FAILURES, ids=[f"{type(f).__name__}-{r}" for f, r in FAILURES]
)
async def test_p9_every_failure_of_the_upstream_ends_the_run_with_its_reason(
    tmp_path: Path, failure: Any, reason: str, arrived: bool
) -> None:
    said = texts("a") if arrived else [Step("asking")]
    last = [failure] if isinstance(failure, UpstreamEnd) else failure
    async with on_stage(tmp_path, said, last) as stage:
        asked = await stage.ask()
        assert await _stored(asked) == (
            ("interrupted", reason, "partial") if arrived else ("failed", reason, "failed")
        )
        assert asked.call.closed.is_set()


async def test_p9_text_that_comes_with_an_error_does_not_make_it_a_success(
    tmp_path: Path,
) -> None:
    error = UpstreamEnd(Reason.UPSTREAM_ERROR, error="boom")
    async with on_stage(tmp_path, [*texts("a"), error, *texts("b"), DONE]) as stage:
        asked = await stage.ask()
        assert await _stored(asked) == ("interrupted", "upstream_error", "partial")
        assert (await asked.message()).error == "boom"
        assert (await asked.message()).answer.text == "a"


@pytest.mark.parametrize("error", [None, "", "海带 \0", "x" * 100_000])
async def test_the_words_of_the_upstream_are_kept(tmp_path: Path, error: str | None) -> None:
    async with on_stage(tmp_path, [UpstreamEnd(Reason.UPSTREAM_ERROR, error=error)]) as stage:
        asked = await stage.ask()
        assert (await asked.ending()).error == error
        assert (await asked.record()).error == error


HALF = "half a pair: \ud83d"


@pytest.mark.parametrize(
    "last",
    [
        [TextDelta(HALF), DONE],
        [Step(HALF), DONE],
        [*texts("good"), Step(HALF), DONE],
        [References((Reference(1, extra={"a": object()}),)), DONE],
        [UpstreamEnd(Reason.UPSTREAM_ERROR, error=HALF)],
        ValueError(HALF),
    ],
    ids=["text", "step", "after good text", "reference", "error", "exception"],
)
async def test_p3_what_has_no_json_ends_the_run_and_not_the_server(
    tmp_path: Path, last: Any
) -> None:
    """An upstream written in Python can say half of a surrogate pair, or any object."""
    async with on_stage(tmp_path, texts("a"), last) as stage:
        asked = await stage.ask()
        await asked.over()
        await asked.ended_in_store()
        log = await stage.read(asked.run.id)
        run, message = await asked.record(), await asked.message()
        assert (run.status, run.last_seq) == ("ended", len(log))
        assert [entry.seq for entry in log] == list(range(1, len(log) + 1))
        assert log[1].event == TextDelta("a")
        assert isinstance(log[-1].event, RunEnd)
        assert message.answer.text == fold(events_of(log)).text


async def test_p3_an_exchange_that_cannot_be_kept_does_not_cost_the_answer(
    tmp_path: Path,
) -> None:
    async with on_stage(tmp_path, texts("a")) as stage:
        asked = await stage.ask()
        asked.call.exchange.response = {"not": object()}
        asked.call.push(*texts("b"), DONE)
        await asked.over()
        await asked.ended_in_store()
        assert (await asked.message()).answer.text == "ab"


async def test_what_was_said_on_the_wire_is_kept_with_the_run(tmp_path: Path) -> None:
    async with on_stage(tmp_path, texts("a")) as stage:
        asked = await stage.ask()
        asked.call.exchange.request = {"q": 1}
        asked.call.exchange.response = ["r"]
        await stage.finish(asked, DONE)
        assert await stage.store.get_raw(asked.run.id) == ({"q": 1}, ["r"])


# ------------------------------------------------------------------------------ the first cause


async def test_the_end_that_came_first_decides(tmp_path: Path) -> None:
    async with on_stage(tmp_path, texts("a")) as stage:
        asked = await stage.ask()
        await asked.saved(2)
        stage.store.gate.clear()
        asked.call.push(UpstreamEnd(Reason.UPSTREAM_ERROR, error="boom"))
        await asked.call.closed.wait()
        cancelling = asyncio.create_task(stage.supervisor.cancel(OWNER, asked.run.id))
        await stage.store.until(lambda store: store.begun >= 3)
        stage.store.gate.set()
        await cancelling
        assert await _stored(asked) == ("interrupted", "upstream_error", "partial")


async def test_a_stop_that_came_first_decides(tmp_path: Path) -> None:
    async with on_stage(tmp_path, texts("a")) as stage:
        asked = await stage.ask()
        await asked.saved(2)
        assert asked.execution.stop(UpstreamEnd(Reason.CLIENT_CANCELLED))
        assert not asked.execution.stop(UpstreamEnd(Reason.UPSTREAM_ERROR))
        asked.call.push(*texts("late"), DONE)
        assert await _stored(asked) == ("cancelled", "client_cancelled", "partial")
        assert (await asked.message()).answer.text == "a"


async def test_an_answer_that_was_complete_stays_complete_while_its_connection_closes(
    tmp_path: Path,
) -> None:
    """The terminal marker had come; how long the upstream takes to hang up changes nothing."""
    async with on_stage(tmp_path) as stage:
        asked = await stage.ask()
        asked.call.close_gate.clear()
        asked.call.push(*texts("a"), DONE)
        await asyncio.wait_for(asked.call.closing.wait(), GIVE_UP_S)
        asked.execution.stop(UpstreamEnd(Reason.UPSTREAM_TIMEOUT, error="silent"))
        asked.call.close_gate.set()
        assert await _stored(asked) == ("completed", None, "complete")


async def test_an_answer_that_was_complete_stays_complete_when_its_connection_closes_badly(
    tmp_path: Path,
) -> None:
    async with on_stage(tmp_path) as stage:
        asked = await stage.ask()
        asked.call.close_error = ConnectionResetError("reset while closing")
        asked.call.push(*texts("a"), DONE)
        assert await _stored(asked) == ("completed", None, "complete")


class Foretelling(Upstream):
    """Says that its answer is whole, and then does what the test says."""

    kind = "foretelling"

    def __init__(self, then: UpstreamEnd | Exception | None) -> None:
        super().__init__("foretelling")
        self.said_all = asyncio.Event()
        self._then = then

    async def answer(self, ask: Ask, exchange: Exchange, sink: Sink) -> UpstreamEnd:
        sink.take(texts("a"))
        sink.foretell(UpstreamEnd(finish=Finish.STOP))
        self.said_all.set()
        if self._then is None:
            await asyncio.get_running_loop().create_future()
        if isinstance(self._then, Exception):
            raise self._then
        assert self._then is not None
        sink.take([self._then])
        return self._then

    async def check(self) -> Health:
        return Health(True)


@pytest.mark.parametrize(
    "then",
    [
        None,
        ConnectionResetError("late"),
        UpstreamEnd(Reason.UPSTREAM_TRUNCATED),
        UpstreamEnd(finish=Finish.STOP),
    ],
    ids=["a stop", "an exception", "a truncation", "its end"],
)
async def test_an_answer_that_was_said_to_be_whole_stays_whole_whatever_follows(
    tmp_path: Path, then: UpstreamEnd | Exception | None
) -> None:
    async with on_stage(tmp_path) as stage:
        upstream = Foretelling(then)
        created = await stage.supervisor.ask(stage.question(), upstream)
        await asyncio.wait_for(upstream.said_all.wait(), GIVE_UP_S)
        if then is None:
            await stage.supervisor.cancel(OWNER, created.run.id)
        end = (await stage.read(created.run.id))[-1].event
        assert end == RunEnd(Outcome.COMPLETED, finish=Finish.STOP)


# ------------------------------------------------------------------------------ asking


async def test_p1_the_question_is_stored_before_the_upstream_is_called(tmp_path: Path) -> None:
    async with on_stage(tmp_path, texts("a"), [DONE]) as stage:
        seen: list[str] = []

        async def look(ask: Ask) -> None:
            messages = await stage.store.inner.list_messages(ask.session_id, 10)
            seen.extend(message.answer.text for message in messages)

        stage.upstream.before = look
        stage.store.gate.clear()
        asking = asyncio.create_task(stage.ask("What is kelp?"))
        await stage.store.until(lambda store: store.begun == 1)
        assert stage.upstream.calls == []
        stage.store.gate.set()
        asked = await asking
        await asked.over()
        assert seen == ["What is kelp?", ""]


async def test_the_upstream_is_asked_what_the_caller_asked(tmp_path: Path) -> None:
    async with on_stage(tmp_path, [DONE]) as stage:
        asked = await stage.ask(
            "海带?",
            model="m",
            system="s",
            temperature=0.5,
            max_tokens=7,
            metadata={"a": 1},
        )
        assert asked.call.ask == Ask(
            run_id=asked.run.id,
            session_id=asked.run.session_id,
            message_id=asked.run.message_id,
            message="海带?",
            model="m",
            system="s",
            temperature=0.5,
            max_tokens=7,
            metadata={"a": 1},
        )
        await asked.over()
