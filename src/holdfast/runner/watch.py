"""Two things that end a run from outside: the clock, and nobody reading."""

import asyncio
from collections.abc import Callable

from holdfast.engine.run import UpstreamEnd
from holdfast.events import Reason
from holdfast.settings import RunSettings

Stop = Callable[[UpstreamEnd], object]


class SilenceWatch:
    """First-byte, idle and total time-out. Activity only moves a number, never a timer."""

    def __init__(self, runs: RunSettings, stop: Stop, excused: Callable[[], bool]) -> None:
        """Watch one run.

        Args:
            runs: The time-outs.
            stop: Ends the run.
            excused: Whether it is not the upstream's fault that nothing comes.
        """
        self._runs = runs
        self._stop = stop
        self._excused = excused
        self._loop = asyncio.get_running_loop()
        self._time = self._loop.time
        self._started = self._active = self._time()
        self._silent = True
        self._timer = self._loop.call_later(self._step(), self._check)

    def touch(self) -> None:
        """Something came."""
        self._active = self._time()
        self._silent = False

    def begin_anew(self) -> None:
        """Somebody else is asked, who has said nothing so far."""
        self._active = self._time()
        self._silent = True

    def cancel(self) -> None:
        """Stop watching."""
        self._timer.cancel()

    def _step(self) -> float:
        runs = self._runs
        return min(runs.first_byte_timeout_s, runs.idle_timeout_s, runs.total_timeout_s)

    def _check(self) -> None:
        runs = self._runs
        now = self._loop.time()
        quiet = runs.first_byte_timeout_s if self._silent else runs.idle_timeout_s
        total_due = self._started + runs.total_timeout_s
        if self._excused():
            self._active = now
        due = min(self._active + quiet, total_due)
        if now < due:
            self._timer = self._loop.call_later(min(due - now, self._step()), self._check)
        elif now >= total_due:
            self._end(f"the answer took longer than {runs.total_timeout_s:g} s")
        else:
            self._end(f"the upstream was silent for {quiet:g} s")

    def _end(self, error: str) -> None:
        self._stop(UpstreamEnd(Reason.UPSTREAM_TIMEOUT, error=error))


class Audience:
    """Counts a run's readers; with `on_disconnect = "cancel"` a run without any is ended."""

    def __init__(self, cancels: bool, grace_s: float, stop: Stop) -> None:
        """Begin without readers; the first one gets at least a second to come."""
        self._cancels = cancels
        self._grace_s = grace_s
        self._stop = stop
        self._readers = 0
        self._timer: asyncio.TimerHandle | None = None
        self._wait(max(grace_s, 1.0))

    def came(self) -> None:
        """Somebody reads."""
        self._readers += 1
        self.cancel()

    def left(self) -> None:
        """Somebody stopped reading; the last one starts the clock."""
        self._readers -= 1
        if self._readers == 0:
            self._wait(self._grace_s)

    def cancel(self) -> None:
        """Stop the clock."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        """The run is over: nothing is watched any more."""
        self._cancels = False
        self.cancel()

    def _wait(self, grace_s: float) -> None:
        if self._cancels:
            end = UpstreamEnd(Reason.CLIENT_DISCONNECTED)
            self._timer = asyncio.get_running_loop().call_later(grace_s, self._stop, end)
