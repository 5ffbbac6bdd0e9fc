"""This process as one of several that share a store: its lease, and what the others tell it.

    every heartbeat   keep the lease; find it lost ──► drop every run, join anew
    every heartbeat   take the lease of dead nodes, end their runs; look for what was asked of us
    a hint            "watch": a reader elsewhere wants news; "cancel": a run should stop;
                      "news", "gone": a run that is followed here has more, or is over

Everything a hint says can be found in the store, so losing one costs latency only.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Protocol

from holdfast.clock import SharedClock
from holdfast.errors import Fenced, HoldfastError
from holdfast.runner import recovery
from holdfast.runner.execution import Execution
from holdfast.runner.followers import Followers
from holdfast.runner.watchers import Watchers
from holdfast.settings import NodeSettings
from holdfast.store.port import RunRecord
from holdfast.store.shared import SharedStore

logger = logging.getLogger(__name__)


class Runs(Protocol):
    """The runs of this process, as the supervisor keeps them."""

    def live(self, run_id: str) -> Execution | None:
        """The execution of a run that is live here."""

    def stop_run(self, run_id: str) -> None:
        """Somebody elsewhere wants this run to stop."""

    def live_ids(self) -> Collection[str]:
        """The ids of all runs that are live here."""

    def abandon(self, run_ids: Iterable[str] | None = None) -> None:
        """Others have ended these runs, or will: drop them. None: all of this node."""

    def adopt(self, runs: Sequence[RunRecord]) -> None:
        """End runs that are this node's by the store, though nobody executes them."""


class _Sightings:
    """What has been seen again and again for a while."""

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._since: dict[str, float] = {}

    def lasting(self, seen: Iterable[str]) -> list[str]:
        """Those of what is seen now that have been seen for long enough."""
        now = asyncio.get_running_loop().time()
        self._since = {name: self._since.get(name, now) for name in seen}
        return [name for name, since in self._since.items() if now - since >= self._patience_s]


class Node:
    """See the module.

    Attributes:
        followers: What is read here and executed elsewhere.
        joined: Whether this node has a claim, as far as it knows.
    """

    def __init__(
        self,
        store: SharedStore,
        runs: Runs,
        clock: SharedClock,
        settings: NodeSettings,
        followers: Followers,
    ) -> None:
        """Put the parts together."""
        self.followers = followers
        self.joined = False
        self._store = store
        self._runs = runs
        self._clock = clock
        self._settings = settings
        self._watchers = Watchers(runs.live, store.send_hint)
        self._gaps: list[asyncio.Event] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._strays = _Sightings(settings.heartbeat_s / 2)
        self._ended = _Sightings(settings.heartbeat_s / 2)
        self._reachable = True
        self._sweep_at = 0.0

    async def start(self) -> None:
        """Join, and end what dead nodes left.

        Raises:
            StoreUnavailable: The store does not answer.
        """
        self._store.listen(self._hear, self._on_gap)
        self._clock.set(await self._store.join())
        self.joined = True
        self.followers.start()
        await self._reap()
        for work, name in ((self._keep, "lease"), (self._care, "reaper")):
            gap = asyncio.Event()
            self._gaps.append(gap)
            self._tasks.append(asyncio.create_task(self._again(work, gap), name=name))

    async def stop(self) -> None:
        """Give the lease back; every run has ended, or is left to the others."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self.followers.close()
        self._watchers.close()
        if self.joined:
            try:
                await self._store.leave()
            except HoldfastError as error:
                logger.warning("the lease could not be given back: %s", error)

    # ------------------------------------------------------------------ again and again

    async def _again(self, work: Callable[[], Awaitable[None]], gap: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due = max(due + self._settings.heartbeat_s, loop.time())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await gap.wait()
            gap.clear()
            try:
                await work()
                self._reached(None)
            except HoldfastError as error:
                self._reached(error)
            except Exception:
                logger.exception("this node does not care for its lease")

    def _reached(self, error: HoldfastError | None) -> None:
        if error is not None and self._reachable:
            logger.error("this node cannot keep its lease: %s", error)
        elif error is None and not self._reachable:
            logger.warning("this node keeps its lease again")
        self._reachable = error is None

    async def _keep(self) -> None:
        try:
            self._clock.set(await self._store.beat())
        except Fenced:
            self._lost()
            self._clock.set(await self._store.join())
            self.joined = True
            logger.warning("this node has joined anew")

    def _lost(self) -> None:
        if self.joined:
            logger.error("this node's lease ran out, and others have ended its runs")
        self.joined = False
        self._runs.abandon()

    async def _care(self) -> None:
        await self._reap()
        before = self._runs.live_ids()
        own = {run.id: (run, cancelled) for run, cancelled in await self._store.own_runs()}
        for run_id, (_, cancelled) in own.items():
            if cancelled:
                self._runs.stop_run(run_id)
        # What has just been made or ended is known here a moment before or after the store.
        strays = [run_id for run_id in own if self._runs.live(run_id) is None]
        ended = [run_id for run_id in before if run_id not in own and self._runs.live(run_id)]
        self._runs.adopt([own[run_id][0] for run_id in self._strays.lasting(strays)])
        self._runs.abandon(self._ended.lasting(ended))

    async def _reap(self) -> None:
        taken = await self._store.reap()
        if taken:
            logger.warning("the lease of %d nodes was over", taken)
        now = asyncio.get_running_loop().time()
        if not taken and now < self._sweep_at:
            return  # to look through all live runs costs what all nodes write
        self._sweep_at = now + self._settings.lease_s
        await self._store.sweep()
        ended = await recovery.recover(self._store, await self._store.orphans(), self._clock)
        if ended:
            logger.warning("ended %d runs of nodes that are gone", ended)

    # ------------------------------------------------------------------ hints

    def _on_gap(self) -> None:
        for gap in self._gaps:
            gap.set()
        self.followers.look()

    def _hear(self, hint: str) -> None:
        verb, *words = hint.split(" ")
        match verb, words:
            case "news", _:
                for word in words:
                    run_id, _, seq = word.partition(":")
                    if seq.isdecimal():
                        self.followers.hear(run_id, int(seq))
            case "gone", _:
                self.followers.look(words)
            case "cancel", [run_id]:
                self._runs.stop_run(run_id)
            case "watch", [node_id, *run_ids]:
                self._watchers.watch(node_id, run_ids)
            case "unwatch", [node_id, *run_ids]:
                self._watchers.unwatch(node_id, run_ids)
            case _:
                logger.debug("a hint of another release: %.100s", hint)

    async def cancel(self, run_id: str) -> bool:
        """Tell the node that executes a run that it should stop; False if nobody does."""
        owner = await self._store.node_of(run_id)
        if owner is None:
            return False
        self._store.send_hint(owner, f"cancel {run_id}")
        return True
