"""The wall clock, in the unit of the store."""

import time
from collections.abc import Callable


def now_ms() -> int:
    """Whole milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000


class SharedClock:
    """The clock of something that several machines share, carried on by this machine's.

    Between two looks at it the monotonic clock is asked, so a wall clock that is wrong here, or
    is set, does no harm. It never goes back: what is asked later sorts later.
    """

    DRIFT = 1e-3
    """How much faster than the shared clock this machine's may run; real ones do by far less."""

    def __init__(
        self, monotonic_ms: Callable[[], float] = lambda: time.monotonic_ns() / 1e6
    ) -> None:
        """Begin with this machine's time.

        Args:
            monotonic_ms: Milliseconds from any point in time on.
        """
        self._monotonic_ms = monotonic_ms
        self._set_at = monotonic_ms()
        self._offset = now_ms() - self._set_at
        self._shared = False

    def set(self, now: int) -> None:
        """It was `now` when the clock was looked at, some time ago: the answer took its time.

        So a look can show that this clock is behind, and hardly ever that it is ahead.
        """
        at = self._monotonic_ms()
        seen = now - at
        if self._shared:
            seen = max(seen, self._offset - (at - self._set_at) * self.DRIFT)
        self._offset, self._set_at, self._shared = seen, at, True

    def __call__(self) -> int:
        """Whole milliseconds since the Unix epoch."""
        return int(self._offset + self._monotonic_ms())
