"""Asking the candidates of a route, one after the other, until one of them answers.

Before the first text, reasoning or tool call a candidate that fails, or is silent for too long,
makes room for the next one, and the reader is told so. After it nobody else is asked. Nobody is
asked twice. What each of them does counts for its circuit breaker.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol, TypeAlias

import msgspec

from holdfast.engine.run import UpstreamEnd
from holdfast.events import Notice, Reason, References
from holdfast.runner.router import Candidate
from holdfast.upstreams.attempt import Attempt, what_happened
from holdfast.upstreams.base import Ask, Exchange, Item, Sink

FALLBACK: Final = "fallback"
"""The code of the notice that another upstream answers."""

PASSED_OVER: Final = UpstreamEnd(Reason.UPSTREAM_UNREACHABLE, error="it has failed again and again")

LoadConversation: TypeAlias = Callable[[str], Awaitable[str | None]]
"""Gives what the upstream of this name calls the session's conversation."""

logger = logging.getLogger(__name__)


class Run(Sink, Protocol):
    """What candidates need of their run."""

    def turn_to(self, upstream: str) -> Exchange:
        """This upstream is asked now; where it notes what was said on the wire."""

    @property
    def decided(self) -> UpstreamEnd | None:
        """How the run ends, if something else than its upstream has decided that."""


class Candidates:
    """The upstreams of one run, in the order in which they are asked."""

    def __init__(
        self,
        candidates: Sequence[Candidate],
        *,
        now: Callable[[], float],
        patience_s: float,
        conversation: LoadConversation | None = None,
    ) -> None:
        """Prepare for one question.

        Args:
            candidates: Whom to ask.
            now: The clock of their breakers.
            patience_s: How long one may be silent, if there is another one to ask.
            conversation: Finds conversations; None: the session is new and has none.
        """
        self._candidates = candidates
        self._now = now
        self._patience_s = patience_s
        self._conversation = conversation

    async def answer(self, ask: Ask, run: Run) -> UpstreamEnd:
        """Write the answer to `ask` into `run`; see `Upstream.answer`.

        Raises:
            StoreUnavailable: Conversations cannot be read.
        """
        left = list(self._candidates)
        while True:
            candidate = left.pop(0)
            attempt = Attempt(
                run,
                patience_s=self._patience_s if left else None,
                is_last=not left,
                on_answer=candidate.breaker.answered,
            )
            if self._is_passed_over(candidate, left):
                end = PASSED_OVER
            else:
                end = await self._ask(attempt, candidate, ask, run)
            if not left or attempt.came or run.decided is not None:
                return end
            if not attempt.failed(end):
                return run.take([end]) or end
            told = self._turn(attempt, candidate, end, left[0], run)
            if told is not None:
                return told
            ask = msgspec.structs.replace(ask, model=None)  # a model belongs to its upstream

    def _is_passed_over(self, candidate: Candidate, others: Sequence[Candidate]) -> bool:
        """Whether it went down since the route was chosen, or is being tried by somebody else."""
        now = self._now()
        return not candidate.breaker.begin(now) and any(
            other.breaker.admits(now) for other in others
        )

    async def _ask(self, attempt: Attempt, candidate: Candidate, ask: Ask, run: Run) -> UpstreamEnd:
        upstream, breaker = candidate.upstream, candidate.breaker
        exchange = run.turn_to(upstream.name)
        if self._conversation is not None:
            conversation = await self._conversation(upstream.name)
            ask = msgspec.structs.replace(ask, conversation=conversation)
        try:
            end = await attempt.ask(upstream, ask, exchange)
        except asyncio.CancelledError:
            if not attempt.came and run.decided is not None:
                breaker.judge(run.decided, self._now())
            raise
        if not attempt.came:
            breaker.judge(end, self._now())
        return end

    def _turn(
        self, attempt: Attempt, failed: Candidate, end: UpstreamEnd, other: Candidate, run: Run
    ) -> UpstreamEnd | None:
        """Tell the run that another upstream is asked; how it ends, if it cannot go on."""
        logger.warning(
            "%s %s (%s); asking %s",
            failed.upstream.name,
            what_happened(end),
            end.error or "no cause was given",
            other.upstream.name,
        )
        notice = Notice(
            FALLBACK,
            f"{failed.title} {what_happened(end)}, {other.answering}",
            upstream=other.upstream.name,
            model=other.upstream.model,
            route=other.route,
        )
        items: list[Item] = [References(())] if attempt.has_references else []
        return run.take([*items, notice])
