"""Asking an upstream whose failure can be made good, as long as it has said nothing.

An `Attempt` stands between an upstream and its run. Until the first text, reasoning or tool call
it keeps to itself how the answer ends, so that somebody else can still be asked. From there on the
run is given everything directly: an attempt costs nothing per chunk.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from holdfast.engine.run import UpstreamEnd
from holdfast.events import (
    Event,
    Reason,
    ReasoningDelta,
    References,
    TextDelta,
    TextReplace,
    ToolCall,
)
from holdfast.upstreams.base import Ask, Exchange, Item, Sink, Upstream

FAILURES: Final = frozenset(
    {
        Reason.UPSTREAM_ERROR,
        Reason.UPSTREAM_EMPTY,
        Reason.UPSTREAM_TIMEOUT,
        Reason.UPSTREAM_TRUNCATED,
        Reason.UPSTREAM_UNREACHABLE,
    }
)
"""The ends after which another upstream can be asked."""

REFUSALS: Final = {
    401: "refuses its key",
    403: "refuses its key",
    429: "takes no more questions",
}

logger = logging.getLogger(__name__)


def _nothing() -> None:
    """Nobody wants to know."""


class Attempt:
    """A `Sink` that asks one upstream.

    Attributes:
        came: Text, reasoning or a tool call came: the answer is this upstream's, whatever follows.
        has_references: The run has references of it.
    """

    def __init__(
        self,
        sink: Sink,
        *,
        patience_s: float | None = None,
        is_last: bool = False,
        on_answer: Callable[[], None] = _nothing,
    ) -> None:
        """Prepare to ask.

        Args:
            sink: The run.
            patience_s: How long the upstream may be silent as long as nothing came; None: as long
                as the run allows.
            is_last: Nobody else can be asked, so the run is told at once how the answer ends.
            on_answer: Called when the first text, reasoning or tool call comes.
        """
        self.came = False
        self.has_references = False
        self.is_full = sink.is_full
        self.remember = sink.remember
        # These are the run's own from the first text on.
        self.take: Callable[[Sequence[Item]], UpstreamEnd | None] = self._take
        self.foretell: Callable[[UpstreamEnd], None] = sink.foretell if is_last else self._foretell
        self.room = sink.room if is_last else self._room
        self._sink = sink
        self._patience_s = patience_s
        self._is_last = is_last
        self._on_answer = on_answer
        self._clock = asyncio.timeout(None)
        self._foretold: UpstreamEnd | None = None
        self._end: UpstreamEnd | None = None

    async def ask(self, upstream: Upstream, ask: Ask, exchange: Exchange) -> UpstreamEnd:
        """Put the question; how the answer ended.

        If nothing came and this is not the last attempt, the run has not been told.
        """
        end: UpstreamEnd | None = None
        self._clock = asyncio.timeout(self._patience_s)
        try:
            async with self._clock:
                end = await upstream.answer(ask, exchange, self)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._is_final or task is None or task.cancelling():
                raise
            end = UpstreamEnd(Reason.UPSTREAM_ERROR, error=f"{upstream.name} gave up")
        except Exception as error:
            if not self._clock.expired():  # else it was our own doing
                if self._is_final:
                    raise
                logger.exception("the upstream %s broke down", upstream.name)
                end = UpstreamEnd(Reason.UPSTREAM_ERROR, error=f"internal error: {error}")
        if end is None or self._clock.expired():
            silence = f"{upstream.name} was silent for {self._patience_s:g} s"
            end = UpstreamEnd(Reason.UPSTREAM_TIMEOUT, error=silence)
        self._end = end
        return end

    def failed(self, end: UpstreamEnd) -> bool:
        """Whether somebody else should be asked after this end."""
        if self.came:
            return False
        return end.reason in FAILURES or (end.reason is None and not self.has_references)

    @property
    def _is_final(self) -> bool:
        return self.came or self._is_last

    # ------------------------------------------------------------------ until the first text

    def _take(self, items: Sequence[Item]) -> UpstreamEnd | None:
        if self._end is not None:
            return self._end
        if self._clock.expired():  # it was given up; what comes of that is not shown
            return UpstreamEnd(Reason.UPSTREAM_TIMEOUT)
        for place, item in enumerate(items):
            if isinstance(item, UpstreamEnd):
                if self._is_last:
                    break
                self._end = self._sink.take(items[:place]) or item
                return self._end
            if is_answer(item):
                self._go_on()
                break
            if isinstance(item, References):
                self.has_references = bool(item.references)
        if items and not self.came:
            self._wait_anew()
        return self._sink.take(items)

    def _go_on(self) -> None:
        """It answers: from here on it speaks to the run directly."""
        sink = self._sink
        self.came = True
        self._clock.reschedule(None)
        self.take, self.foretell, self.room = sink.take, sink.foretell, sink.room
        if self._foretold is not None:
            sink.foretell(self._foretold)
        self._on_answer()

    def _foretell(self, end: UpstreamEnd) -> None:
        self._foretold = end

    async def _room(self) -> None:
        if not self._clock.expired():
            self._clock.reschedule(None)  # while it is not read it cannot be silent
        await self._sink.room()
        self._wait_anew()

    def _wait_anew(self) -> None:
        if self._patience_s is not None and not self._clock.expired():
            self._clock.reschedule(asyncio.get_running_loop().time() + self._patience_s)


def is_answer(event: Event) -> bool:
    """Whether an event is the beginning of an answer, which nobody else can take up."""
    match event:
        case TextDelta(text=text) | TextReplace(text=text) | ReasoningDelta(text=text):
            return bool(text)
        case ToolCall():
            return True
        case _:
            return False


def what_happened(end: UpstreamEnd) -> str:
    """How a failure is told to people in the middle of a sentence."""
    match end.reason:
        case Reason.UPSTREAM_UNREACHABLE:
            return "is down"
        case Reason.UPSTREAM_TIMEOUT:
            return "does not answer"
        case Reason.UPSTREAM_TRUNCATED:
            return "broke off"
        case Reason.UPSTREAM_EMPTY | None:
            return "said nothing"
        case _:
            return REFUSALS.get(end.status or 0, "failed")
