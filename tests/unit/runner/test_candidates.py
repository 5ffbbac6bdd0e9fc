"""Falling through: whoever fails before it has said anything makes room for the next one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from holdfast.engine.fold import fold
from holdfast.engine.policy import ChatMessage
from holdfast.engine.run import State, UpstreamEnd
from holdfast.errors import StoreUnavailable
from holdfast.events import (
    Event,
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
    ToolCall,
    Usage,
)
from holdfast.runner.breaker import BreakerState
from holdfast.runner.supervisor import Supervisor
from holdfast.store.port import CreateSession, Remember
from holdfast.upstreams.base import Ask, Exchange, Sink
from tests.support.loop import turns
from tests.support.records import OWNER, a_session, commit, events_of
from tests.support.scripted import DONE, ScriptedUpstream, texts
from tests.support.scripted import Step as ScriptStep
from tests.support.stage import GIVE_UP_S, Asked, Stage, on_stage

DOWN = UpstreamEnd(Reason.UPSTREAM_UNREACHABLE, error="nobody is there")
SOURCES = References((Reference(1, text="why"),))


class Model(ScriptedUpstream):
    """A scripted upstream that has a model."""

    @property
    def model(self) -> str:
        return f"{self.name}-model"


@asynccontextmanager
async def routed(
    folder: Path, *first: ScriptStep, second: list[ScriptStep], **router: Any
) -> AsyncIterator[tuple[Stage, Model]]:
    """A stage whose `local` upstream has the steps `first`, and the `cloud` one `second`."""
    cloud = Model("cloud", *second)
    sections = {name: router.pop(name, {}) for name in ("runs", "storage")}
    router = {"local": "script", "cloud": "cloud", "breaker_failures": 99, **router}
    others = {"cloud": cloud}
    async with on_stage(folder, *first, others=others, router=router, **sections) as stage:
        yield stage, cloud


async def ended(stage: Stage, **values: Any) -> tuple[Asked, list[Event]]:
    """Ask, and the events of the log when it is over."""
    asked = await stage.ask(**values)
    await asked.over()
    return asked, events_of(await stage.read(asked.run.id))


NOTICE = Notice(
    "fallback",
    "the local model is down, answering from the cloud",
    upstream="cloud",
    model="cloud-model",
    route="cloud_large",
)


async def test_the_next_one_answers_and_everybody_is_told(tmp_path: Path) -> None:
    async with routed(tmp_path, [DOWN], second=[[*texts("a"), DONE]]) as (stage, cloud):
        asked, (start, *events) = await ended(stage, model="asked")
        assert isinstance(start, RunStart)
        assert (start.upstream, start.model, start.route) == ("script", "asked", "local_small")
        assert events == [NOTICE, TextDelta("a"), RunEnd(Outcome.COMPLETED)]
        # A model belongs to its upstream.
        assert [call.ask.model for call in (asked.call, cloud.calls[0])] == ["asked", None]
        for record in (await asked.record(), await asked.message()):
            assert (record.upstream, record.model) == ("cloud", "cloud-model")
        assert (await asked.record()).route_reason == "a short question"


async def test_one_without_a_model_leaves_no_model_of_the_one_before(tmp_path: Path) -> None:
    async with routed(
        tmp_path, [*texts("a"), DONE], second=[[DOWN]], local_patterns=["never"], code="cloud"
    ) as (stage, _):
        created = await stage.supervisor.ask(stage.question("```\nx\n```"))
        assert created.run.model == "cloud-model"
        await stage.read(created.run.id)
        run = await stage.supervisor.get_run(OWNER, created.run.id)
        message = await stage.supervisor.get_message(OWNER, created.run.message_id)
        assert (run.upstream, run.model) == ("script", None)
        assert (message.upstream, message.model) == ("script", None)


async def test_references_are_taken_back_and_progress_stays(tmp_path: Path) -> None:
    first: list[ScriptStep] = [[Step("searching")], [SOURCES, Usage(1, 1), DOWN]]
    async with routed(tmp_path, *first, second=[[*texts("a"), DONE]]) as (stage, _):
        asked, events = await ended(stage)
        assert events[1:] == [
            Step("searching"),
            SOURCES,
            Usage(1, 1),
            References(()),
            NOTICE,
            TextDelta("a"),
            RunEnd(Outcome.COMPLETED),
        ]
        answer = (await asked.message()).answer
        assert (answer.references, answer.usage, answer.text) == ((), None, "a")


async def test_when_all_fail_nothing_has_arrived_and_the_last_error_is_told(
    tmp_path: Path,
) -> None:
    last = UpstreamEnd(Reason.UPSTREAM_ERROR, error="no", status=400)
    async with routed(tmp_path, [SOURCES, DOWN], second=[[last]]) as (stage, _):
        asked, events = await ended(stage)
        assert events[-1] == RunEnd(Outcome.FAILED, Reason.UPSTREAM_ERROR, None, "no", 400)
        run, message = await asked.record(), await asked.message()
        assert (run.outcome, message.status, message.answer.references) == (
            "failed",
            "failed",
            (),
        )
        assert (run.upstream, message.upstream) == ("cloud", "cloud")
        assert fold(events).status == message.status


@pytest.mark.parametrize(
    "first",
    [TextDelta("a"), ReasoningDelta("hm"), ToolCall(0, name="f")],
    ids=lambda event: type(event).__name__,
)
async def test_after_the_first_word_nobody_else_is_asked(tmp_path: Path, first: Event) -> None:
    async with routed(tmp_path, [first], [DOWN], second=[[DONE]]) as (stage, cloud):
        _, events = await ended(stage)
        assert events[1:] == [
            first,
            RunEnd(Outcome.INTERRUPTED, Reason.UPSTREAM_UNREACHABLE, None, "nobody is there"),
        ]
        assert cloud.calls == []


@pytest.mark.parametrize("question", [{"upstream": "script"}, {"upstream": "local_small"}])
async def test_who_is_asked_for_does_not_fall_through(
    tmp_path: Path, question: dict[str, str]
) -> None:
    async with routed(tmp_path, [DOWN], second=[[DONE]], fallbacks=["cloud"]) as (stage, cloud):
        _, events = await ended(stage, **question)
        assert [type(event) for event in events] == [RunStart, RunEnd]
        assert cloud.calls == []


async def test_nobody_is_asked_twice(tmp_path: Path) -> None:
    async with routed(tmp_path, [DOWN], second=[[DOWN]], fallbacks=["script", "cloud"]) as (
        stage,
        cloud,
    ):
        _, events = await ended(stage)
        assert (len(stage.upstream.calls), len(cloud.calls)) == (1, 1)
        assert sum(isinstance(event, Notice) for event in events) == 1


async def test_fallbacks_come_in_their_order(tmp_path: Path) -> None:
    others = {name: Model(name, [DOWN]) for name in ("a", "b")}
    async with on_stage(
        tmp_path, [DOWN], others=others, router={"default": "script", "fallbacks": ["b", "a"]}
    ) as stage:
        _, events = await ended(stage)
        assert [event.message for event in events if isinstance(event, Notice)] == [
            "script is down, b answers",
            "b is down, a answers",
        ]


async def test_a_run_that_is_stopped_is_not_given_to_the_next_one(tmp_path: Path) -> None:
    async with routed(tmp_path, [Step("s")], second=[[DONE]]) as (stage, cloud):
        asked = await stage.ask()
        await asked.call.hungry.wait()
        # Being closed, it ends in a way that others could make good.
        asked.call.close_error = RuntimeError("closed badly")
        await stage.supervisor.cancel(OWNER, asked.run.id)
        assert (await asked.record()).outcome == "cancelled"
        assert cloud.calls == []


class Deaf(ScriptedUpstream):
    """Answers being stopped with a failure of its own."""

    async def answer(self, ask: Ask, exchange: Exchange, sink: Sink) -> UpstreamEnd:
        try:
            return await super().answer(ask, exchange, sink)
        except asyncio.CancelledError:
            return sink.take([DOWN]) or DOWN


async def test_one_that_takes_a_stop_for_a_failure_is_stopped_all_the_same(
    tmp_path: Path,
) -> None:
    cloud = Model("cloud", [DONE])
    async with on_stage(
        tmp_path,
        others={"deaf": Deaf("deaf"), "cloud": cloud},
        router={"local": "deaf", "cloud": "cloud"},
    ) as stage:
        created = await stage.supervisor.ask(stage.question())
        await turns()
        await stage.supervisor.cancel(OWNER, created.run.id)
        assert (await stage.supervisor.get_run(OWNER, created.run.id)).outcome == "cancelled"
        assert cloud.calls == []


async def test_a_limit_ends_the_run(tmp_path: Path) -> None:
    cloud = Model("cloud", [DONE])
    async with on_stage(
        tmp_path,
        [Step("x" * 100)],
        others={"cloud": cloud},
        router={"local": "script", "cloud": "cloud"},
        limits={"event_bytes": 50},
    ) as stage:
        _, events = await ended(stage)
        assert isinstance(events[-1], RunEnd)
        assert events[-1].reason is Reason.LIMIT
        assert cloud.calls == []


# ------------------------------------------------------------------------------ silence


async def test_one_that_hangs_makes_room_and_is_hung_up_on(tmp_path: Path) -> None:
    async with routed(
        tmp_path, [Step("s")], second=[[*texts("a"), DONE]], fall_through_after_s=0.01
    ) as (stage, _):
        asked, events = await ended(stage)
        assert asked.call.closed.is_set()
        (notice,) = (event for event in events if isinstance(event, Notice))
        assert notice.message == "the local model does not answer, answering from the cloud"
        assert (await asked.record()).outcome == "completed"


async def test_the_time_outs_of_the_run_leave_time_for_the_next_one(tmp_path: Path) -> None:
    runs = {"first_byte_timeout_s": 0.05, "idle_timeout_s": 60}
    async with routed(
        tmp_path, second=[[*texts("a"), DONE]], fall_through_after_s=60, runs=runs
    ) as (stage, cloud):
        asked, _ = await ended(stage)
        assert len(cloud.calls) == 1
        assert (await asked.record()).outcome == "completed"


async def test_the_last_one_has_the_time_that_the_run_has(tmp_path: Path) -> None:
    runs = {"first_byte_timeout_s": 0.1, "idle_timeout_s": 60}
    async with routed(tmp_path, [DOWN], second=[], fall_through_after_s=0.01, runs=runs) as (
        stage,
        _,
    ):
        _, events = await ended(stage)
        end = events[-1]
        assert isinstance(end, RunEnd)
        # By the first-byte time-out: that of the one before does not count as a byte of this one.
        assert (end.reason, end.error) == (
            Reason.UPSTREAM_TIMEOUT,
            "the upstream was silent for 0.1 s",
        )
        assert stage.supervisor.router.breakers["cloud"].failures == 1


async def test_while_another_one_is_asked_the_run_is_connecting(tmp_path: Path) -> None:
    async with routed(tmp_path, [SOURCES], second=[]) as (stage, cloud):
        asked = await stage.ask()
        await asked.call.hungry.wait()
        seen = [asked.execution.state]
        asked.call.push(DOWN)
        call = await asyncio.wait_for(cloud.called(), GIVE_UP_S)
        seen.append(asked.execution.state)
        await call.give(*texts("a"))
        seen.append(asked.execution.state)
        assert seen == [State.STREAMING, State.CONNECTING, State.STREAMING]
        call.push(DONE)
        await asked.over()


# ------------------------------------------------------------------------------ the wire


class Noting(Model):
    """Notes what it says and hears, and what it calls the conversation."""

    def __init__(self, name: str, *steps: ScriptStep) -> None:
        super().__init__(name, *steps)
        self.prepare = self._note

    def _note(self, call: Any) -> None:
        call.exchange.request = {"to": self.name}
        call.exchange.response = {"from": self.name}

    async def answer(self, ask: Ask, exchange: Exchange, sink: Sink) -> UpstreamEnd:
        sink.remember(f"{self.name}'s {ask.conversation or 'new one'}")
        return await super().answer(ask, exchange, sink)


async def test_each_has_an_exchange_and_a_conversation_of_its_own(tmp_path: Path) -> None:
    others = {
        "a": Noting("a", [DOWN]),
        "b": Noting("b", [*texts("x"), DONE]),
    }
    session = a_session()
    async with on_stage(tmp_path, others=others, router={"local": "a", "cloud": "b"}) as stage:
        await commit(stage.store.inner, CreateSession(session))
        for time in (1, 2):
            created = await stage.supervisor.ask(stage.question(session_id=session.id))
            await stage.read(created.run.id)
            raw = await stage.supervisor.get_raw(OWNER, created.run.id)
            assert raw == ({"to": "b"}, {"from": "b"})
            await stage.store.until(
                lambda store, time=time: (  # type: ignore[misc]
                    sum(isinstance(write, Remember) for write in store.applied) == 2 * time
                )
            )
    asked = [call.ask.conversation for other in others.values() for call in other.calls]
    assert asked == [None, "a's new one", None, "b's new one"]
    assert [
        (write.upstream, write.conversation)
        for write in stage.store.applied
        if isinstance(write, Remember)
    ] == [
        ("a", "a's new one"),
        ("b", "b's new one"),
        ("a", "a's a's new one"),
        ("b", "b's b's new one"),
    ]


async def test_conversations_that_cannot_be_read_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient = {"store_patience_s": 0.1}
    async with routed(tmp_path, [DOWN], second=[[DONE]], storage=impatient) as (stage, cloud):
        session = a_session()
        await commit(stage.store.inner, CreateSession(session))

        async def get_conversation(session_id: str, upstream: str) -> str | None:
            if upstream == "cloud":
                raise StoreUnavailable("scripted: down")
            return None

        monkeypatch.setattr(stage.store, "get_conversation", get_conversation)
        _, events = await ended(stage, session_id=session.id)
        assert isinstance(events[-1], RunEnd)
        assert events[-1].reason is Reason.STORAGE_ERROR
        assert cloud.calls == []


async def test_a_new_session_has_no_conversations_to_look_for(tmp_path: Path) -> None:
    async with routed(tmp_path, [DOWN], second=[[*texts("a"), DONE]]) as (stage, _):
        before = stage.store.reads
        asked = await stage.ask()
        await asked.over()
        assert stage.store.reads == before


# ------------------------------------------------------------------------------ breakers


def states(supervisor: Supervisor) -> dict[str, BreakerState]:
    now = supervisor.router.now()
    return {name: breaker.state(now) for name, breaker in supervisor.router.breakers.items()}


async def test_failures_open_the_breaker_and_later_questions_go_elsewhere_at_once(
    tmp_path: Path,
) -> None:
    async with routed(tmp_path, [DOWN], second=[[*texts("a"), DONE]], breaker_failures=2) as (
        stage,
        _,
    ):
        for _ in range(2):
            await ended(stage)
        assert states(stage.supervisor) == {
            "script": BreakerState.OPEN,
            "cloud": BreakerState.CLOSED,
        }
        assert not (await stage.supervisor.healths())["script"].ok
        created = await stage.supervisor.ask(stage.question())
        events = events_of(await stage.read(created.run.id))
        assert [type(event) for event in events] == [RunStart, TextDelta, RunEnd]
        assert created.run.route_reason == (
            "a short question; the local model is down, answering from the cloud"
        )
        assert (created.run.upstream, len(stage.upstream.calls)) == ("cloud", 2)


async def test_an_upstream_asked_for_by_name_counts_and_its_answer_closes_the_breaker(
    tmp_path: Path,
) -> None:
    async with routed(tmp_path, [DOWN], second=[[DONE]], breaker_failures=1) as (stage, _):
        await ended(stage, upstream="script")
        assert states(stage.supervisor)["script"] is BreakerState.OPEN
        stage.upstream.steps = ()
        asked = await stage.ask(upstream="script")
        await asked.call.give(*texts("a"))
        assert states(stage.supervisor)["script"] is BreakerState.CLOSED
        asked.call.push(UpstreamEnd(Reason.UPSTREAM_ERROR, status=500))
        await asked.over()
        assert stage.supervisor.router.breakers["script"].failures == 0


@pytest.mark.parametrize(
    ("end", "failures"),
    [(UpstreamEnd(Reason.UPSTREAM_TIMEOUT), 1), (UpstreamEnd(Reason.CLIENT_CANCELLED), 0)],
)
async def test_a_run_that_is_ended_from_outside_counts_only_if_its_upstream_was_silent(
    tmp_path: Path, end: UpstreamEnd, failures: int
) -> None:
    async with on_stage(tmp_path) as stage:
        asked = await stage.ask()
        asked.execution.stop(end)
        await asked.over()
        assert stage.supervisor.router.breakers["script"].failures == failures


async def test_one_that_is_tried_by_somebody_else_is_passed_over(tmp_path: Path) -> None:
    now = 0.0
    async with routed(
        tmp_path, second=[[*texts("a"), DONE]], breaker_failures=1, breaker_open_s=5.0
    ) as (stage, cloud):
        stage.supervisor.router.now = lambda: now
        stage.supervisor.router.breakers["script"].failed(now)
        now = 5.0
        stage.store.gate.clear()
        asking = [asyncio.create_task(stage.supervisor.ask(stage.question())) for _ in range(2)]
        await turns()
        stage.store.gate.set()
        created = await asyncio.gather(*asking)
        # Both were to try it when they were routed; the first one does.
        assert [one.run.upstream for one in created] == ["script", "script"]
        call = await asyncio.wait_for(stage.upstream.called(), GIVE_UP_S)
        await asyncio.wait_for(cloud.called(), GIVE_UP_S)
        call.push(*texts("b"), DONE)
        texts_told = {fold(events_of(await stage.read(one.run.id))).text for one in created}
        assert texts_told == {"a", "b"}
        assert len(stage.upstream.calls) == 1
        assert states(stage.supervisor)["script"] is BreakerState.CLOSED


async def test_when_all_are_down_the_first_one_is_asked_all_the_same(tmp_path: Path) -> None:
    async with routed(tmp_path, [*texts("a"), DONE], second=[[DONE]], breaker_failures=1) as (
        stage,
        cloud,
    ):
        for breaker in stage.supervisor.router.breakers.values():
            breaker.failed(stage.supervisor.router.now())
        _, events = await ended(stage)
        assert [type(event) for event in events] == [RunStart, TextDelta, RunEnd]
        assert cloud.calls == []


async def test_what_the_application_gives_has_no_breaker(tmp_path: Path) -> None:
    """Even if it has the name of one that is configured."""
    async with on_stage(tmp_path, router={"breaker_failures": 1}) as stage:
        own = ScriptedUpstream("script", [DOWN])
        created = await stage.supervisor.ask(stage.question(), own)
        await stage.read(created.run.id)
        assert states(stage.supervisor) == {"script": BreakerState.CLOSED}


# ------------------------------------------------------------------------------ history


@pytest.mark.parametrize(("chars", "route"), [(4, "cloud_large"), (5, "local_small")])
async def test_a_long_history_goes_to_the_cloud(tmp_path: Path, chars: int, route: str) -> None:
    async with routed(
        tmp_path, [*texts("abc"), DONE], second=[[*texts("d"), DONE]], long_history_chars=chars
    ) as (stage, _):
        first, _ = await ended(stage, message="ab")
        created = await stage.supervisor.ask(stage.question(session_id=first.run.session_id))
        start = events_of(await stage.read(created.run.id))[0]
        assert isinstance(start, RunStart)
        assert start.route == route


async def test_a_history_that_is_told_is_weighed_without_reading(tmp_path: Path) -> None:
    async with routed(tmp_path, second=[[*texts("d"), DONE]], long_history_chars=4) as (stage, _):
        question = stage.question(history=[ChatMessage("user", "12345")])
        before = stage.store.reads
        created = await stage.supervisor.ask(question)
        assert created.run.upstream == "cloud"
        await stage.read(created.run.id)
        assert stage.store.reads == before


async def test_the_history_is_not_read_for_routing_unless_the_rule_is_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with routed(tmp_path, [*texts("a"), DONE], second=[]) as (stage, _):
        first, _ = await ended(stage)
        reads: list[str] = []
        inner = stage.store.list_turns

        async def list_turns(session_id: str, before: str, limit: int) -> Any:
            reads.append(session_id)
            return await inner(session_id, before, limit)

        monkeypatch.setattr(stage.store, "list_turns", list_turns)
        await ended(stage, session_id=first.run.session_id)
        assert len(reads) == 1
