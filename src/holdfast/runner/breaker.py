"""The circuit breaker: whether an upstream is worth asking.

An upstream that fails again and again is left alone for a while, so that no question waits for it
in vain. Then one question tries it, and the next one only after as long a while, until one of them
is answered.

    state       a question may go there    an answer    a failure
    closed      yes                        closed       open, once there were so many in a row
    open        no, for `open_s`           closed       open, for `open_s` from now on
    half open   one, which makes it open   closed       open, for `open_s` from now on

So a trial that comes to nothing at all, because its reader stopped it, leaves nothing to be tidied
up. Whoever is asked by name is asked whatever the state; what comes of it counts all the same.
"""

from enum import StrEnum
from typing import Final

from holdfast.engine.run import UpstreamEnd
from holdfast.events import Reason


class BreakerState(StrEnum):
    """See the module."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class Breaker:
    """The breaker of one upstream. Times are seconds of any clock that does not go back."""

    __slots__ = ("_limit", "_open_s", "_until", "failures")

    def __init__(self, failures: int, open_s: float) -> None:
        """Begin closed.

        Args:
            failures: After how many failures in a row it opens.
            open_s: How long it stays open.
        """
        self.failures = 0
        """How many there were since the last answer."""
        self._limit = failures
        self._open_s = open_s
        self._until = 0.0

    def state(self, now: float) -> BreakerState:
        """The state at `now`."""
        if self.failures < self._limit:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now < self._until else BreakerState.HALF_OPEN

    def admits(self, now: float) -> bool:
        """Whether a question may go there; to ask this changes nothing."""
        return self.state(now) is not BreakerState.OPEN

    def begin(self, now: float) -> bool:
        """Whether this question may go there; if it is half open, no other may after it."""
        state = self.state(now)
        if state is BreakerState.HALF_OPEN:
            self._until = now + self._open_s
        return state is not BreakerState.OPEN

    def answered(self) -> None:
        """It has answered: it is closed."""
        self.failures = 0

    def failed(self, now: float) -> None:
        """It has failed."""
        self.failures += 1
        if self.failures >= self._limit:
            self._until = now + self._open_s

    def judge(self, end: UpstreamEnd, now: float) -> None:
        """Count how an answer ended of which nothing had come."""
        if is_failure(end):
            self.failed(now)
        elif end.reason is None:
            self.answered()


UNHELPFUL: Final = frozenset({401, 403, 429})
"""Statuses that the next question will meet, too: no key, and too many questions."""


def is_failure(end: UpstreamEnd) -> bool:
    """Whether the upstream, rather than the question, is to blame for an end without an answer."""
    match end.reason:
        case Reason.UPSTREAM_UNREACHABLE | Reason.UPSTREAM_TIMEOUT | Reason.UPSTREAM_TRUNCATED:
            return True
        case Reason.UPSTREAM_ERROR:
            status = end.status
            return status is not None and (status >= 500 or status in UNHELPFUL)
        case _:
            return False
