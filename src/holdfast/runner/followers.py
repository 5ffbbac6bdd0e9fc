"""Reading runs that other nodes execute: one tail for each such run, however many readers.

    hint ──► read what is new of all runs that were named ──► their tails ──► readers
     ▲                    ▲
     │ watch              │ no hint for a while: look by ourselves
     owner of the run     store

The owner is asked for hints as long as somebody reads here. All of them may be lost: then the
store is looked at every `POLL_S`.
"""

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Sequence

from holdfast.errors import HoldfastError
from holdfast.events import Entry, RunEnd
from holdfast.live.tail import Tail
from holdfast.store.shared import SharedStore

logger = logging.getLogger(__name__)

POLL_S = 1.0
"""How often the store is looked at for a run that no hint came for."""
WATCH_S = 5.0
"""How often the owner is asked again; it forgets who has not asked for three times as long."""
HINTED_RUNS = 100
"""How many runs are named in one hint, within the size that a hint may have."""


NEVER = float("-inf")


class _Follower:
    """One run that is read here and executed elsewhere."""

    def __init__(self, tail: Tail) -> None:
        self.tail = tail
        self.readers = 0
        self.owner: str | None = None
        self.hinted = 0
        self.looked_at = NEVER


class Followers:
    """See the module."""

    def __init__(self, store: SharedStore, tail_bytes: int, patience_s: float) -> None:
        """Follow nothing yet.

        Args:
            store: Where the events are.
            tail_bytes: How much of a run is kept in memory.
            patience_s: How long readers wait while the store cannot be read.
        """
        self._store = store
        self._tail_bytes = tail_bytes
        self._patience_s = patience_s
        self._followed: dict[str, _Follower] = {}
        self._hinted: dict[str, int] = {}
        self._news = asyncio.Event()
        self._new: set[str] = set()
        self._wanted = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._closed = False
        self.leaving = False
        """Whether readers that can come back anywhere should go now."""
        self._idle = asyncio.Event()
        self._idle.set()

    def start(self) -> None:
        """Begin to look."""
        for work, name in ((self._read(), "followers"), (self._watch(), "watch")):
            self._tasks.append(asyncio.create_task(work, name=name))

    async def close(self) -> None:
        """Send the readers away and look no more."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self.break_off()

    # ------------------------------------------------------------------ readers

    def follow(self, run_id: str, after: int) -> Tail:
        """The tail of a run for one more reader, who has read the store up to `after`."""
        follower = self._followed.get(run_id)
        if follower is None or follower.tail.broken:
            tail = Tail(run_id, after, self._tail_bytes)
            tail.broken = self._closed
            follower = self._followed[run_id] = _Follower(tail)
            self._idle.clear()
            self._new.add(run_id)
            self._wanted.set()
            self._news.set()
        follower.readers += 1
        return follower.tail

    def unfollow(self, tail: Tail) -> None:
        """A reader has gone."""
        follower = self._followed.get(tail.run_id)
        if follower is None or follower.tail is not tail:
            return
        follower.readers -= 1
        if follower.readers == 0:
            self._drop(follower)
            self._ask("unwatch", [follower])

    def _drop(self, follower: _Follower) -> None:
        if self._followed.get(follower.tail.run_id) is follower:
            del self._followed[follower.tail.run_id]
        self._new.discard(follower.tail.run_id)
        if not self._followed:
            self._idle.set()

    def send_away(self) -> None:
        """Let readers that can come back anywhere go now; the others stay."""
        self.leaving = True
        for follower in tuple(self._followed.values()):
            follower.tail.ring()

    async def idle(self) -> None:
        """Wait until nobody reads."""
        await self._idle.wait()

    def break_off(self) -> None:
        """Send every reader away."""
        for follower in tuple(self._followed.values()):
            follower.tail.break_off()

    # ------------------------------------------------------------------ looking

    def hear(self, run_id: str, seq: int) -> None:
        """A hint: the run has entries up to `seq`."""
        if run_id in self._followed:
            self._hinted[run_id] = max(seq, self._hinted.get(run_id, 0))
            self._news.set()

    def look(self, run_ids: Iterable[str] | None = None) -> None:
        """There may be more than hints have told, of these runs or (default) of any: look."""
        for run_id in self._followed if run_ids is None else run_ids:
            if run_id in self._followed:
                self._followed[run_id].looked_at = NEVER
                self._news.set()

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        failing_since: float | None = None
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S / 2 if self._followed else None):
                    await self._news.wait()
            self._news.clear()
            now = loop.time()
            try:
                await self._look_at(self._due(now), now)
                failing_since = None
            except HoldfastError as error:
                failing_since = self._failed(error, failing_since, now)

    def _due(self, now: float) -> list[_Follower]:
        """The runs that hints were given for, and those that no hint came for in a while."""
        hinted, self._hinted = self._hinted, {}
        due = []
        for run_id, follower in self._followed.items():
            tail = follower.tail
            follower.hinted = max(follower.hinted, hinted.get(run_id, 0))
            if tail.ended or tail.broken:
                continue
            if tail.saved_seq < follower.hinted or now - follower.looked_at >= POLL_S:
                due.append(follower)
        return due

    async def _look_at(self, due: Sequence[_Follower], now: float) -> None:
        """Read these runs; one that cannot be read must not keep the others from it."""
        try:
            await self._read_news(due, now)
        except HoldfastError:
            raise
        except Exception:
            if len(due) > 1:
                for follower in due:
                    await self._look_at([follower], now)
                return
            logger.exception("the log of run %s is damaged", due[0].tail.run_id)
            due[0].tail.break_off()

    async def _read_news(self, due: Sequence[_Follower], now: float) -> None:
        """Read what is new of these runs; whoever says nothing may have ended."""
        if not due:
            return
        silent: dict[str, _Follower] = {}
        news = await self._store.read_news({f.tail.run_id: f.tail.saved_seq for f in due})
        for follower in due:
            follower.looked_at = now
            entries = news.get(follower.tail.run_id)
            if entries:
                _show(follower.tail, entries)
                if follower.tail.saved_seq < follower.hinted:
                    self._news.set()  # a page was full, or the rest has moved to the run's log
            else:
                silent[follower.tail.run_id] = follower
        if silent:
            for run_id in await self._store.not_live(list(silent)):
                await self._look_for_end(silent[run_id].tail)

    async def _look_for_end(self, tail: Tail) -> None:
        while not tail.ended and not tail.broken:
            page = await self._store.read_log(tail.run_id, tail.saved_seq)
            if page is None:
                tail.break_off()  # erased: its readers will find out
            elif page.entries:
                _show(tail, page.entries)
            elif page.ended:
                tail.break_off()  # all of it is here, and its last event is no `run-end`
            else:
                return

    def _failed(self, error: HoldfastError, since: float | None, now: float) -> float:
        if since is None:
            logger.error("runs of other nodes cannot be read: %s", error)
            return now
        if now - since >= self._patience_s:
            self.break_off()
        return since

    # ------------------------------------------------------------------ asking for hints

    async def _watch(self) -> None:
        """Ask the owners of the runs for hints: of new ones at once, of all again and again."""
        loop = asyncio.get_running_loop()
        again_at = loop.time() + WATCH_S
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(again_at):
                    await self._wanted.wait()
            self._wanted.clear()
            new, self._new = self._new, set()
            if loop.time() >= again_at:
                again_at = loop.time() + WATCH_S
                new = set(self._followed)
            await self._find_owners(new)
            self._ask("watch", [f for run_id, f in self._followed.items() if run_id in new])

    async def _find_owners(self, run_ids: Iterable[str]) -> None:
        for run_id in run_ids:
            follower = self._followed.get(run_id)
            if follower is None or follower.owner is not None:
                continue
            try:
                follower.owner = await self._store.node_of(run_id)
            except Exception as error:
                logger.warning("the node of run %s is not known: %s", run_id, error)
                return  # it is looked for again when the owners are asked again

    def _ask(self, verb: str, followers: Sequence[_Follower]) -> None:
        by_owner: dict[str, list[str]] = {}
        for follower in followers:
            if follower.owner is not None and not follower.tail.ended:
                by_owner.setdefault(follower.owner, []).append(follower.tail.run_id)
        for owner, runs in by_owner.items():
            for start in range(0, len(runs), HINTED_RUNS):
                named = " ".join(runs[start : start + HINTED_RUNS])
                self._store.send_hint(owner, f"{verb} {self._store.node_id} {named}")


def _show(tail: Tail, entries: Sequence[Entry]) -> None:
    fresh = [entry for entry in entries if entry.seq > tail.saved_seq]
    if not fresh or fresh[0].seq != tail.saved_seq + 1:
        raise ValueError(f"event {tail.saved_seq + 1} is missing in the store")
    size = sum(len(entry.data) for entry in fresh)
    tail.show(fresh, size, ended=isinstance(fresh[-1].event, RunEnd))
