"""Group commit: everything pending from all runs, in one transaction, again and again.

A commit costs the same however many rows it has, so its cost must not be paid per event. The
committer takes all that is pending, commits it, tells everybody, and meanwhile more gathers. The
first commit after a pause happens at once; while much is being written, commits start at least
`spacing` apart. The spacing follows the rate of writes, so a few streams see no delay and many
streams share commits of some milliseconds.

While the store fails, what runs have written is kept and tried again; whoever waits for a write
of his own (a question, a new title) is told at once. Only a question that may have been committed
is tried again as well, since its run would have nobody who executes it.
"""

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from holdfast.errors import Fenced, StoreError, StoreUnavailable
from holdfast.store.port import CreateRun, Probe, Store, Write

logger = logging.getLogger(__name__)

MAX_SPACING_S = 0.010
QUIET_RATE = 500.0
"""Writes per second up to which every commit happens at once."""
SPACING_PER_RATE = 4e-6
"""Seconds of spacing for each write per second above that: 3,000 a second reach the maximum."""
RATE_WINDOW_S = 0.05
RETRY_S = (0.05, 0.1, 0.2, 0.4, 1.0)
"""Pauses between tries while the store fails; the last one repeats."""


class Source(Protocol):
    """Something with events to save: a live run."""

    def pending(self) -> Write | None:
        """All that is pending, as one write; None for nothing.

        Not called again before that write is settled.
        """

    def settle(self, result: Any) -> None:
        """The write taken last was committed, or `result` is the exception that refused it."""

    def stall(self) -> None:
        """The store has failed for longer than the patience; the write is still being tried."""


class _Caller:
    """A caller who waits for one write, in the shape of a source."""

    __slots__ = ("_future", "_on_result", "_until")

    def __init__(
        self, future: "asyncio.Future[Any]", on_result: Callable[[Any], None] | None
    ) -> None:
        self._future = future
        self._on_result = on_result
        self._until: float | None = None

    def waits_on(
        self, write: Write, failure: StoreUnavailable, now: float, patience_s: float
    ) -> bool:
        """Whether to try once more: a run that may exist must be executed, or its key is spent.

        That holds even if the caller has left; he comes back with the key.
        """
        if self._until is None and failure.uncertain and isinstance(write, CreateRun):
            self._until = now + patience_s
        return self._until is not None and now < self._until

    def settle(self, result: Any) -> None:
        if self._on_result is not None:
            _call(self._on_result, result)
        if self._future.done():  # the caller has left
            return
        if isinstance(result, Exception):
            self._future.set_exception(result)
        else:
            self._future.set_result(result)


class _Job(NamedTuple):
    """A write of the current batch and who wants to know of it."""

    write: Write
    target: "Source | _Caller"


class GroupCommit:
    """The one writer of a process."""

    def __init__(
        self,
        store: Store,
        *,
        patience_s: float = 30.0,
        now: Callable[[], int],
    ) -> None:
        """Write to `store`; `now` gives milliseconds since the epoch."""
        self._store = store
        self._patience_s = patience_s
        self._now = now
        self._dirty: list[Source] = []
        self._callers: list[_Job] = []
        self._wake: asyncio.Event = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._rate = 0.0
        self._last_start = 0.0
        self.healthy = True
        """Whether the last commit succeeded."""
        self.commits = 0
        """Commits so far."""

    def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._run(), name="group-commit")

    async def close(self) -> None:
        """Write what is pending, once, and stop."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await self._task

    def mark(self, source: Source) -> None:
        """`source` has something to save; call it once until `pending` is called."""
        if not self._dirty:
            self._wake.set()
        self._dirty.append(source)

    async def submit(self, write: Write, on_result: Callable[[Any], None] | None = None) -> Any:
        """Commit `write` with the next batch and give its result.

        Args:
            write: What to write.
            on_result: Called with the result, also when the caller has been cancelled by then.

        Raises:
            StoreUnavailable: The store fails at the moment; nothing was written.
            HoldfastError: What the write's class lists as refusals.
        """
        if not self.healthy or self._closing:
            raise _unavailable()
        future = asyncio.get_running_loop().create_future()
        self._callers.append(_Job(write, _Caller(future, on_result)))
        self._wake.set()
        return await future

    # ------------------------------------------------------------------ the loop

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        not_before = 0.0
        while True:
            await self._wake.wait()
            await self._pause(not_before - loop.time())
            self._wake.clear()
            jobs = self._take()
            if jobs:
                started = loop.time()
                not_before = started + self._spacing(started, len(jobs))
                await self._commit(jobs)
            if self._closing and not self._dirty and not self._callers:
                return

    def _take(self, unsettled: Sequence[_Job] = ()) -> list[_Job]:
        """All that is pending, but not from runs whose last write is not settled yet."""
        jobs, self._callers = self._callers, []
        dirty, self._dirty = self._dirty, []
        busy = {id(job.target) for job in unsettled}
        for source in dirty:
            if id(source) in busy:
                self._dirty.append(source)
                self._wake.set()
                continue
            try:
                write = source.pending()
            except Exception:
                logger.exception("a run failed to give what it has written")
                continue
            if write is not None:
                jobs.append(_Job(write, source))
        return jobs

    def _spacing(self, started: float, writes: int) -> float:
        elapsed = max(started - self._last_start, 1e-6)
        self._last_start = started
        weight = elapsed / (elapsed + RATE_WINDOW_S)
        self._rate += (writes / elapsed - self._rate) * weight
        spacing = (self._rate - QUIET_RATE) * SPACING_PER_RATE
        return min(MAX_SPACING_S, max(0.0, spacing))

    async def _pause(self, seconds: float) -> None:
        if seconds <= 0 or self._closing:
            return
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        handle = loop.call_later(seconds, done.set_result, None)
        try:
            await done
        finally:
            handle.cancel()

    async def _commit(self, jobs: list[_Job]) -> None:
        """Commit until all is settled and the store is well; what runs wrote is tried again."""
        loop = asyncio.get_running_loop()
        patience_ends = loop.time() + self._patience_s
        told: set[int] = set()
        for attempt in itertools.count():
            jobs = self._settle(jobs, await self._try(jobs))
            if self.healthy and not jobs:
                return
            if self._closing and attempt > 0:
                break
            await self._pause(RETRY_S[min(attempt, len(RETRY_S) - 1)])
            self._refuse_callers()
            jobs += self._take(jobs)
            if not self.healthy and loop.time() >= patience_ends:
                _stall(jobs, told)
        for job in jobs:
            _call(job.target.settle, StoreUnavailable("stopped before the store was back"))

    async def _try(self, jobs: Sequence[_Job]) -> list[Any]:
        """One commit; without jobs, a probe whether the store is back."""
        writes = [job.write for job in jobs] or [Probe(self._now())]
        try:
            results = await self._store.commit(writes)
            self.commits += 1
        except (StoreUnavailable, Fenced) as error:
            results = [error] * len(writes)
        except Exception as error:
            logger.exception("the store broke down over a batch of %d writes", len(writes))
            results = [StoreError(f"the store broke down: {error}")] * len(writes)
        failure = next((r for r in results if isinstance(r, StoreUnavailable)), None)
        if self.healthy and failure is not None:
            logger.error("the store fails: %s", failure)
        elif not self.healthy and failure is None:
            logger.warning("the store takes writes again")
        self.healthy = failure is None
        return results

    def _settle(self, jobs: Sequence[_Job], results: Sequence[Any]) -> list[_Job]:
        """Tell everybody; give back the runs' writes that a failing store has not taken."""
        again = []
        now = asyncio.get_running_loop().time()
        for job, result in zip(jobs, results, strict=False):
            if isinstance(result, StoreUnavailable) and self._comes_again(job, result, now):
                again.append(job)
            else:
                _call(job.target.settle, result)
        return again

    def _comes_again(self, job: _Job, failure: StoreUnavailable, now: float) -> bool:
        target = job.target
        if not isinstance(target, _Caller):
            return True
        return target.waits_on(job.write, failure, now, self._patience_s)

    def _refuse_callers(self) -> None:
        callers, self._callers = self._callers, []
        for job in callers:
            _call(job.target.settle, _unavailable())


def _stall(jobs: Sequence[_Job], told: set[int]) -> None:
    """Tell each run once; `told` holds those that know."""
    for job in jobs:
        if not isinstance(job.target, _Caller) and id(job.target) not in told:
            told.add(id(job.target))
            _call(job.target.stall)


def _unavailable() -> StoreUnavailable:
    return StoreUnavailable("answers cannot be saved at the moment; try again soon")


def _call(function: Callable[..., None], *arguments: Any) -> None:
    """One run's failing callback must not stop the writer of all runs."""
    try:
        function(*arguments)
    except Exception:
        logger.exception("a run failed to take note of its commit")
