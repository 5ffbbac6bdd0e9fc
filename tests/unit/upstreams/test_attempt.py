"""Asking an upstream whose failure can still be made good."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from holdfast.engine.run import UpstreamEnd
from holdfast.events import (
    Event,
    Finish,
    Notice,
    Reason,
    ReasoningDelta,
    Reference,
    References,
    Step,
    TextDelta,
    TextReplace,
    ToolCall,
    Usage,
)
from holdfast.upstreams.attempt import Attempt, what_happened
from holdfast.upstreams.base import Ask, Exchange, Health, Item, Sink, Upstream
from tests.support.scripted import DONE, ScriptedUpstream, texts
from tests.support.sink import FullSink, RecordingSink

ASK = Ask("run", "session", "message", "Why?")
FAILED = UpstreamEnd(Reason.UPSTREAM_ERROR, error="no", status=500)
SOURCES = References((Reference(1),))

ANSWERS: list[Event] = [TextDelta("a"), TextReplace("a"), ReasoningDelta("a"), ToolCall(0)]
PROGRESS: list[Event] = [
    Step("searching"),
    Notice("n", "m"),
    Usage(1, 0),
    TextDelta(""),
    ReasoningDelta(""),
    SOURCES,
]


class OwnWords(Upstream):
    """An upstream that does with the sink what a test says."""

    kind = "own"

    def __init__(self, act: Any) -> None:
        super().__init__("own")
        self._act = act

    async def answer(self, ask: Ask, exchange: Exchange, sink: Sink) -> UpstreamEnd:
        end: UpstreamEnd = await self._act(sink)
        return end

    async def check(self) -> Health:
        return Health(True)


async def ask(
    upstream: Upstream, sink: RecordingSink | None = None, **options: Any
) -> tuple[Attempt, UpstreamEnd, RecordingSink]:
    sink = sink or RecordingSink()
    attempt = Attempt(sink, **options)
    return attempt, await attempt.ask(upstream, ASK, Exchange()), sink


@pytest.mark.parametrize("event", ANSWERS, ids=lambda event: type(event).__name__)
async def test_from_the_first_word_on_the_run_is_told_everything(event: Event) -> None:
    told: list[str] = []
    upstream = ScriptedUpstream("u", [Step("s")], [event], texts("b"), [FAILED])
    attempt, end, sink = await ask(upstream, on_answer=lambda: told.append("once"))
    assert attempt.came
    assert told == ["once"]
    assert sink.events == [Step("s"), event, TextDelta("b")]
    assert (sink.ends, end) == ([FAILED], FAILED)
    assert not attempt.failed(end)


async def test_a_whole_answer_in_one_batch_is_an_answer() -> None:
    upstream = ScriptedUpstream("u", [Step("s"), TextDelta("a"), DONE])
    attempt, end, sink = await ask(upstream)
    assert (attempt.came, sink.ends, end) == (True, [DONE], DONE)


@pytest.mark.parametrize(
    "reason",
    [
        Reason.UPSTREAM_ERROR,
        Reason.UPSTREAM_EMPTY,
        Reason.UPSTREAM_TIMEOUT,
        Reason.UPSTREAM_TRUNCATED,
        Reason.UPSTREAM_UNREACHABLE,
    ],
)
async def test_before_it_a_failure_is_not_told_to_the_run(reason: Reason) -> None:
    failure = UpstreamEnd(reason)
    attempt, end, sink = await ask(ScriptedUpstream("u", PROGRESS, [failure]))
    assert sink.events == PROGRESS
    assert sink.ends == []
    assert end == failure
    assert attempt.failed(end)
    assert (attempt.came, attempt.has_references) == (False, True)


@pytest.mark.parametrize(
    ("steps", "failed"),
    [
        ([[DONE]], True),
        ([[Step("s"), References(()), DONE]], True),
        ([[SOURCES, DONE]], False),
        ([[SOURCES], [References(()), DONE]], True),
        ([[UpstreamEnd(Reason.LIMIT)]], False),
        ([None], True),  # it stops without a word
    ],
)
async def test_what_can_be_made_good(steps: list[Any], failed: bool) -> None:
    attempt, end, sink = await ask(ScriptedUpstream("u", *steps))
    assert attempt.failed(end) is failed
    assert sink.ends == []


async def test_the_last_one_tells_the_run_how_it_ends() -> None:
    told: list[str] = []
    upstream = ScriptedUpstream("u", [Step("s")], [SOURCES, FAILED])
    attempt, end, sink = await ask(upstream, is_last=True, on_answer=lambda: told.append("once"))
    assert (sink.events, sink.ends, end) == ([Step("s"), SOURCES], [FAILED], FAILED)
    assert (attempt.came, attempt.has_references, told) == (False, True, [])
    attempt, end, sink = await ask(
        ScriptedUpstream("u", texts("a"), [DONE]), is_last=True, on_answer=lambda: told.append("a")
    )
    assert (attempt.came, told) == (True, ["a"])


async def test_a_run_that_takes_no_more_ends_the_attempt() -> None:
    limit = UpstreamEnd(Reason.LIMIT, error="enough")
    upstream = ScriptedUpstream("u", [Step("s")], texts("never"))
    attempt, end, _ = await ask(upstream, RecordingSink(limit=1, end=limit))
    assert end == limit
    assert not attempt.failed(end)
    assert upstream.calls[0].waiting == 1
    assert upstream.calls[0].closed.is_set()


async def test_a_limit_that_what_stands_before_the_end_breaks_is_the_end() -> None:
    limit = UpstreamEnd(Reason.LIMIT, error="enough")
    _, end, _ = await ask(
        ScriptedUpstream("u", [Step("s"), FAILED]), RecordingSink(limit=1, end=limit)
    )
    assert end == limit


# ------------------------------------------------------------------------------ its own bugs


class Broken(Exception):
    pass


@pytest.mark.parametrize("error", [Broken("x"), TimeoutError("its own"), asyncio.CancelledError()])
async def test_an_upstream_that_breaks_down_before_has_failed(error: BaseException) -> None:
    attempt, end, sink = await ask(ScriptedUpstream("u", [Step("s")], error))
    assert end.reason is Reason.UPSTREAM_ERROR
    assert attempt.failed(end)
    assert sink.ends == []


@pytest.mark.parametrize("error", [Broken("x"), TimeoutError("its own"), asyncio.CancelledError()])
@pytest.mark.parametrize("options", [{}, {"is_last": True}])
async def test_after_it_or_as_the_last_one_the_run_is_to_know(
    error: BaseException, options: dict[str, Any]
) -> None:
    steps: list[Any] = [] if options else [texts("a")]
    with pytest.raises(type(error)):
        await ask(ScriptedUpstream("u", *steps, error), **options)


async def test_a_run_that_is_stopped_stops_the_attempt() -> None:
    upstream, sink = ScriptedUpstream("u", [Step("s")]), RecordingSink()
    task = asyncio.create_task(Attempt(sink).ask(upstream, ASK, Exchange()))
    call = await upstream.called()
    await call.hungry.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert call.closed.is_set()


# ------------------------------------------------------------------------------ foretelling


async def test_what_is_foretold_of_nothing_is_not_passed_on() -> None:
    async def act(sink: Sink) -> UpstreamEnd:
        sink.foretell(DONE)
        return sink.take([DONE]) or FAILED

    class Deaf(RecordingSink):
        def foretell(self, end: UpstreamEnd) -> None:
            raise AssertionError("nothing came")

    attempt, end, sink = await ask(OwnWords(act), Deaf())
    assert (attempt.failed(end), sink.ends) == (True, [])


@pytest.mark.parametrize("options", [{}, {"is_last": True}])
@pytest.mark.parametrize("text_first", [True, False])
async def test_what_is_foretold_of_an_answer_is(options: dict[str, Any], text_first: bool) -> None:
    foretold: list[UpstreamEnd] = []

    class Listening(RecordingSink):
        def foretell(self, end: UpstreamEnd) -> None:
            foretold.append(end)

    stop = UpstreamEnd(finish=Finish.STOP)

    async def act(sink: Sink) -> UpstreamEnd:
        if text_first:
            sink.take(texts("a"))
        sink.foretell(stop)
        if not text_first:
            sink.take(texts("a"))
        return sink.take([stop]) or FAILED

    await ask(OwnWords(act), Listening(), **options)
    assert foretold == [stop]


async def test_what_is_to_be_remembered_is_remembered_at_once() -> None:
    async def act(sink: Sink) -> UpstreamEnd:
        sink.remember("theirs")
        return sink.take([FAILED]) or FAILED

    _, _, sink = await ask(OwnWords(act))
    assert sink.remembered == ["theirs"]


# ------------------------------------------------------------------------------ patience


async def test_one_that_is_silent_for_too_long_has_failed() -> None:
    upstream = ScriptedUpstream("u", [Step("s")])
    attempt, end, sink = await ask(upstream, patience_s=0.01)
    assert end == UpstreamEnd(Reason.UPSTREAM_TIMEOUT, error="u was silent for 0.01 s")
    assert attempt.failed(end)
    assert (sink.events, sink.ends) == ([Step("s")], [])
    assert upstream.calls[0].closed.is_set()


async def test_what_comes_of_one_that_was_given_up_is_not_shown() -> None:
    async def act(sink: Sink) -> UpstreamEnd:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            assert sink.take(texts("[")) is not None  # held back for a mark
            raise
        raise AssertionError

    attempt, end, sink = await ask(OwnWords(act), patience_s=0.01)
    assert (end.reason, sink.events) == (Reason.UPSTREAM_TIMEOUT, [])
    assert attempt.failed(end)


async def test_one_that_does_not_want_to_be_given_up_is() -> None:
    async def act(sink: Sink) -> UpstreamEnd:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            sink.take([*texts("too late"), DONE])
        return DONE

    attempt, end, sink = await ask(OwnWords(act), patience_s=0.01)
    assert (end.reason, sink.events) == (Reason.UPSTREAM_TIMEOUT, [])
    assert attempt.failed(end)


class Clock:
    """Stands for `asyncio.timeout`; notes when it is set anew."""

    def __init__(self, delay: float | None) -> None:
        self.settings: list[float | None] = [delay]

    async def __aenter__(self) -> "Clock":
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    def reschedule(self, when: float | None) -> None:
        self.settings.append(None if when is None else 0.0)

    def expired(self) -> bool:
        return False


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> list[Clock]:
    clocks: list[Clock] = []

    def timeout(delay: float | None) -> Clock:
        clocks.append(Clock(delay))
        return clocks[-1]

    monkeypatch.setattr(asyncio, "timeout", timeout)
    return clocks


@pytest.mark.parametrize(
    ("steps", "settings"),
    [
        ([[DONE]], [9.0]),
        ([[Step("s")], [Step("t"), SOURCES], [DONE]], [9.0, 0.0, 0.0]),
        ([[], [Step("t")], [], [DONE]], [9.0, 0.0]),  # a keep-alive is no sign of an answer
        ([[Step("s")], texts("a"), texts("b"), [DONE]], [9.0, 0.0, None]),
    ],
)
async def test_patience_begins_anew_with_every_sign_of_life_and_ends_with_the_first_word(
    clocks: list[Clock], steps: Sequence[Sequence[Item]], settings: list[float | None]
) -> None:
    await ask(ScriptedUpstream("u", *steps), patience_s=9.0)
    assert clocks[-1].settings == settings


async def test_without_patience_no_clock_is_set(clocks: list[Clock]) -> None:
    await ask(ScriptedUpstream("u", [Step("s")], texts("a"), [DONE]), is_last=True)
    assert set(clocks[-1].settings) == {None}


async def test_one_that_is_not_read_is_not_silent(clocks: list[Clock]) -> None:
    sink = FullSink()
    await ask(ScriptedUpstream("u", [Step("s")], [FAILED]), sink, patience_s=9.0)
    assert sink.waits == 1
    assert clocks[-1].settings == [9.0, 0.0, None, 0.0]


async def test_after_the_first_word_nothing_stands_in_between() -> None:
    sink = RecordingSink()
    attempt = Attempt(sink)
    await attempt.ask(ScriptedUpstream("u", texts("a"), [DONE]), ASK, Exchange())
    assert attempt.take == sink.take
    assert attempt.room == sink.room
    assert attempt.foretell == sink.foretell
    assert attempt.is_full == sink.is_full


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (UpstreamEnd(Reason.UPSTREAM_UNREACHABLE), "is down"),
        (UpstreamEnd(Reason.UPSTREAM_TIMEOUT), "does not answer"),
        (UpstreamEnd(Reason.UPSTREAM_TRUNCATED), "broke off"),
        (UpstreamEnd(Reason.UPSTREAM_EMPTY), "said nothing"),
        (UpstreamEnd(), "said nothing"),
        (UpstreamEnd(Reason.UPSTREAM_ERROR), "failed"),
        (UpstreamEnd(Reason.UPSTREAM_ERROR, status=500), "failed"),
        (UpstreamEnd(Reason.UPSTREAM_ERROR, status=401), "refuses its key"),
        (UpstreamEnd(Reason.UPSTREAM_ERROR, status=403), "refuses its key"),
        (UpstreamEnd(Reason.UPSTREAM_ERROR, status=429), "takes no more questions"),
    ],
)
def test_failures_have_words(end: UpstreamEnd, words: str) -> None:
    assert what_happened(end) == words
