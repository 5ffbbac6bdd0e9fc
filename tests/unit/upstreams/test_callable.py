import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from holdfast.engine.run import UpstreamEnd
from holdfast.errors import UpstreamError
from holdfast.events import (
    Event,
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
from holdfast.upstreams.base import Ask, Exchange, Item
from holdfast.upstreams.callable import CallableUpstream
from tests.support.sink import RecordingSink, collect

ASK = Ask(run_id="r", session_id="s", message_id="m", message="How often?")


async def answer(source: Any) -> list[Item]:
    return await collect(CallableUpstream(source), ASK)


async def failure(source: Any) -> str:
    """The error that a source with nothing but an error ends with."""
    items = await answer(source)
    assert len(items) == 1
    assert isinstance(items[0], UpstreamEnd)
    assert items[0].reason is Reason.UPSTREAM_ERROR
    return items[0].error or ""


def yields(*values: Any) -> Callable[[Ask], AsyncIterator[Any]]:
    async def source(_: Ask) -> AsyncIterator[Any]:
        for value in values:
            yield value

    return source


# ---------------------------------------------------------------------- what may be given


async def test_the_function_is_called_with_the_question() -> None:
    async def echo(ask: Ask) -> AsyncIterator[str]:
        yield f"{ask.message}!"

    assert await answer(echo) == [TextDelta("How often?!"), UpstreamEnd()]
    assert CallableUpstream(echo).name == "echo"
    assert CallableUpstream(echo, "mine").name == "mine"


async def test_a_function_answers_again_and_again() -> None:
    upstream = CallableUpstream(yields("a"))
    for _ in range(2):
        assert await collect(upstream, ASK) == [TextDelta("a"), UpstreamEnd()]


async def test_a_coroutine_may_give_the_iterator() -> None:
    async def source(ask: Ask) -> AsyncIterator[Any]:
        return yields("a")(ask)

    assert await answer(source) == [TextDelta("a"), UpstreamEnd()]


async def test_a_bare_iterator_answers_one_question() -> None:
    upstream = CallableUpstream(yields("a")(ASK))
    assert (await upstream.check()).ok
    assert await collect(upstream, ASK) == [TextDelta("a"), UpstreamEnd()]
    assert not (await upstream.check()).ok
    end = (await collect(upstream, ASK))[0]
    assert isinstance(end, UpstreamEnd)
    assert "has been used" in (end.error or "")


async def test_an_iterable_object_answers_again_and_again() -> None:
    class Source:
        def __aiter__(self) -> AsyncIterator[Any]:
            return yields("a")(ASK)

    upstream = CallableUpstream(Source())
    for _ in range(2):
        assert await collect(upstream, ASK) == [TextDelta("a"), UpstreamEnd()]


@pytest.mark.parametrize(
    ("source", "given"),
    [
        (lambda _: iter("ab"), "not str_ascii_iterator"),
        (lambda _: ["a"], "not list"),
        (lambda _: "a", "not str"),
        (lambda _: None, "not NoneType"),
        (lambda _: (text for text in "ab"), "not generator"),
    ],
)
async def test_what_is_no_async_iterator_is_refused(source: Any, given: str) -> None:
    error = await failure(source)
    assert "must give an async iterator (async def with yield)" in error
    assert given in error


async def test_a_coroutine_that_returns_text_is_refused() -> None:
    async def source(_: Ask) -> str:
        return "a"

    assert "not str" in await failure(source)


async def test_a_function_without_a_parameter_is_refused() -> None:
    async def source() -> AsyncIterator[str]:
        yield "a"

    assert (await failure(source)).startswith("TypeError: ")


# ---------------------------------------------------------------------- what may be yielded


async def test_text_references_and_events_are_the_answer() -> None:
    reference = Reference(1, document_name="a.pdf")
    events: list[Event] = [
        ReasoningDelta("hm"),
        Step("searching"),
        TextDelta("[1]", ((0, 3, 1),)),
        ToolCall(0, "c", "f", "{}"),
        Usage(1, 2),
    ]
    assert await answer(yields("a", "", "b", [reference], (reference,), *events)) == [
        TextDelta("a"),
        TextDelta("b"),
        References((reference,)),
        References((reference,)),
        *events,
        UpstreamEnd(),
    ]


async def test_halves_of_characters_are_replaced() -> None:
    assert (await answer(yields("x\ud83d", "é😀")))[:2] == [TextDelta("x\ufffd"), TextDelta("é😀")]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (7, "yields str, events or lists of Reference, not int"),
        (b"a", "not bytes"),
        (None, "not NoneType"),
        ({"text": "a"}, "not dict"),
        ([1], "not list"),
        (UpstreamEnd(), "not UpstreamEnd"),
        (RunStart("r", "s", "m", "q", "u"), "may not yield RunStart"),
        (RunEnd(Outcome.COMPLETED), "may not yield RunEnd"),
        (TextDelta(7), "ValidationError"),  # type: ignore[arg-type]
        (TextDelta("\ud83d"), "UnicodeEncodeError"),
        (Usage(extra={"a": object()}), "TypeError"),
        ([Reference(0)], "from 1 to 2147483647, not 0"),
        (References((Reference(1), Reference(2**31))), "not 2147483648"),
    ],
)
async def test_anything_else_ends_the_answer_with_words(value: Any, words: str) -> None:
    items = await answer(yields("a", value, "b"))
    assert items[0] == TextDelta("a")
    assert isinstance(items[1], UpstreamEnd)
    assert items[1].reason is Reason.UPSTREAM_ERROR
    assert words in (items[1].error or "")


# ---------------------------------------------------------------------- endings


async def test_nothing_yielded_is_an_empty_answer() -> None:
    assert await answer(yields()) == [UpstreamEnd()]


@pytest.mark.parametrize(
    ("error", "end"),
    [
        (ValueError("no\nluck"), UpstreamEnd(Reason.UPSTREAM_ERROR, error="ValueError: no luck")),
        (KeyError(), UpstreamEnd(Reason.UPSTREAM_ERROR, error="KeyError")),
        (TimeoutError("slow"), UpstreamEnd(Reason.UPSTREAM_ERROR, error="TimeoutError: slow")),
        (
            UpstreamError(Reason.UPSTREAM_UNREACHABLE, "gone"),
            UpstreamEnd(Reason.UPSTREAM_UNREACHABLE, error="gone"),
        ),
    ],
)
async def test_an_exception_is_the_error_of_what_came_before(
    error: Exception, end: UpstreamEnd, caplog: pytest.LogCaptureFixture
) -> None:
    async def source(_: Ask) -> AsyncIterator[str]:
        yield "a"
        raise error

    assert await answer(source) == [TextDelta("a"), end]
    assert ("failed" in caplog.text) is not isinstance(error, UpstreamError)


async def test_each_piece_is_given_before_the_next_is_asked_for() -> None:
    sink = RecordingSink()
    seen: list[str] = []

    async def source(_: Ask) -> AsyncIterator[str]:
        for text in "abc":
            yield text
            seen.append(sink.text)

    await CallableUpstream(source).answer(ASK, Exchange(), sink)
    assert seen == ["a", "ab", "abc"]


class Watched:
    """A generator that tells whether its `finally` ran."""

    def __init__(self, last: Callable[[], Awaitable[Any]]) -> None:
        self.closed = False
        self.waiting = asyncio.Event()
        self._last = last

    async def __call__(self, _: Ask) -> AsyncIterator[str]:
        try:
            yield "a"
            self.waiting.set()
            await self._last()
            yield "b"
        finally:
            await asyncio.sleep(0)
            self.closed = True


async def test_the_generator_is_closed_when_the_run_is_cancelled() -> None:
    source = Watched(asyncio.Event().wait)
    task = asyncio.create_task(answer(source))
    await source.waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert source.closed


async def test_the_generator_is_closed_when_the_run_takes_no_more() -> None:
    source = Watched(asyncio.Event().wait)
    limit = UpstreamEnd(Reason.LIMIT)
    sink = RecordingSink(1, limit)
    assert await CallableUpstream(source).answer(ASK, Exchange(), sink) == limit
    assert source.closed


async def test_a_generator_that_fails_to_close_harms_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def source(_: Ask) -> AsyncIterator[str]:
        try:
            yield "a"
        finally:
            raise RuntimeError("stuck")

    limit = UpstreamEnd(Reason.LIMIT)
    with caplog.at_level(logging.WARNING):
        sink = RecordingSink(1, limit)
        assert await CallableUpstream(source).answer(ASK, Exchange(), sink) == limit
    assert "stuck" in caplog.text


async def test_an_iterator_without_aclose_is_fine() -> None:
    class Plain:
        def __init__(self) -> None:
            self._left = ["b", "a"]

        def __aiter__(self) -> "Plain":
            return self

        async def __anext__(self) -> str:
            if not self._left:
                raise StopAsyncIteration
            return self._left.pop()

    assert await answer(Plain()) == [TextDelta("a"), TextDelta("b"), UpstreamEnd()]
