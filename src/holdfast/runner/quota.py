"""What each key has used of its limits: runs that are live now, questions of the last minute.

Pure: the time is an argument, and nothing is awaited. Limits hold for each process by itself.
"""

import math
from collections import deque
from typing import Final

from holdfast.errors import TooManyRequests
from holdfast.settings import LimitSettings
from holdfast.store.port import KeyRecord

WINDOW_S: Final = 60.0
RUN_RETRY_S: Final = 5
"""When to try again after too many live runs: who knows when one of them ends?"""


class _Use:
    """What one key has used."""

    def __init__(self) -> None:
        self.held: set[Claim] = set()
        """Questions whose runs are live, or about to be."""
        self.asked: deque[float] = deque()
        """When questions were asked, as far as that matters."""

    def forget(self, until: float) -> None:
        while self.asked and self.asked[0] <= until:
            self.asked.popleft()


class Claim:
    """The place of one question within its key's limits."""

    __slots__ = ("_at", "_begun", "use")

    def __init__(self, use: _Use, at: float | None) -> None:
        """Let it count in `use`; `at` is None where nobody counts questions by the minute."""
        self.use = use
        self._at = at
        self._begun = False
        self._take()

    def _take(self) -> None:
        self.use.held.add(self)
        if self._at is not None:
            self.use.asked.append(self._at)

    def begin(self) -> None:
        """There is a run for it; it counts, even if it was settled before."""
        if self not in self.use.held:
            self._take()
        self._begun = True

    def settle(self) -> None:
        """Whoever asked waits no longer: without a run it was no question, and does not count."""
        if self._begun or self not in self.use.held:
            return
        self.end()
        if self._at is not None and self._at in self.use.asked:
            self.use.asked.remove(self._at)

    def end(self) -> None:
        """Its run is over; that it was asked still counts."""
        self.use.held.discard(self)


class Quota:
    """See the module."""

    def __init__(self, limits: LimitSettings) -> None:
        """Hold keys without limits of their own to those of `limits`."""
        self._limits = limits
        self._uses: dict[str, _Use] = {}
        self._runs: dict[str, Claim] = {}

    def claim(self, key: KeyRecord, at: float, replaced: str | None = None) -> Claim:
        """Count one more question.

        Args:
            key: What it is asked with.
            at: The time in seconds, by a clock that does not go back.
            replaced: A live run that ends for this question.

        Raises:
            TooManyRequests: It is one too many; `retry_after_s` says when to ask again.
        """
        use = self._uses.setdefault(key.id, _Use())
        use.forget(at - WINDOW_S)
        runs = _bound(key.concurrent_runs, self._limits.concurrent_runs_per_key)
        held = len(use.held)
        if replaced in self._runs and self._runs[replaced].use is use:
            held -= 1
        if held >= runs:
            raise TooManyRequests(
                f"too many answers at once with this key: the limit is {runs}",
                retry_after_s=RUN_RETRY_S,
            )
        asks = _bound(key.asks_per_minute, self._limits.asks_per_minute_per_key)
        if len(use.asked) >= asks:
            wait_s = use.asked[0] + WINDOW_S - at
            raise TooManyRequests(
                f"too many questions within a minute with this key: the limit is {asks}",
                retry_after_s=max(1, math.ceil(wait_s)),
            )
        return Claim(use, at if asks < math.inf else None)

    def begin(self, claim: Claim, run_id: str) -> None:
        """The run of a claim is committed, and live until `end`."""
        claim.begin()
        self._runs[run_id] = claim

    def end(self, run_id: str) -> None:
        """A run has ended; one that nobody claimed is none of ours."""
        claim = self._runs.pop(run_id, None)
        if claim is not None:
            claim.end()


def _bound(own: int | None, default: int) -> float:
    bound = default if own is None else own
    return bound or math.inf
