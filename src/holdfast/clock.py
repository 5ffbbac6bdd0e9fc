"""The wall clock, in the unit of the store."""

import time


def now_ms() -> int:
    """Whole milliseconds since the Unix epoch."""
    return time.time_ns() // 1_000_000


class SharedClock:
    """The clock of something that several machines share, carried on by this machine's.

    Between two looks at it the monotonic clock is asked, so a wall clock that is wrong here, or
    is set, does no harm.
    """

    def __init__(self) -> None:
        """Begin with this machine's time."""
        self.set(now_ms())

    def set(self, now: int) -> None:
        """It is `now`, in milliseconds since the Unix epoch; times never go back."""
        seen = now - time.monotonic_ns() / 1_000_000
        self._offset = seen

    def __call__(self) -> int:
        """Whole milliseconds since the Unix epoch."""
        return int(self._offset + time.monotonic_ns() / 1_000_000)
