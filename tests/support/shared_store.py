"""A store of several nodes that does what a test says: the events of runs, who executes them."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from holdfast.errors import Fenced, StoreUnavailable
from holdfast.events import Entry, Event, RunStart, TextDelta, encode
from holdfast.store.port import LogPage, RunRecord
from holdfast.store.shared import OnGap, OnHint, SharedStore
from tests.support.stores import ScriptedStore

OWNER_NODE: Final = "node-a"
"""The node that executes the runs of a test that does not say otherwise."""


def event_of(seq: int) -> Event:
    """The event that has this seq in every scripted run."""
    return RunStart("r", "s", "m", "q", "u") if seq == 1 else TextDelta(f"{seq} ")


def entries_of(first: int, last: int) -> list[Entry]:
    """The events of any scripted run from one seq to another."""
    events = [(seq, event_of(seq)) for seq in range(first, last + 1)]
    return [Entry(seq, event, encode(event)) for seq, event in events]


class ScriptedShared(ScriptedStore, SharedStore):
    """See the module. `now` is its time; a test moves it."""

    def __init__(self) -> None:
        super().__init__()
        self.node_id = "node-b"
        self.now = 1_700_000_000_000
        self.journal: dict[str, list[Entry]] = {}
        self.ended: dict[str, list[Entry]] = {}
        self.owners: dict[str, str] = {}
        self.faults: dict[str, Exception] = {}
        """What a method raises, by its name or by the run that it is asked about."""
        self.hints: list[tuple[str, str]] = []
        self.asked: list[str] = []
        """The methods that were called, in their order."""
        self.generation = 0
        self.dead_nodes = 0
        self.orphaned: list[tuple[RunRecord, bool]] = []
        self.own: list[tuple[RunRecord, bool]] = []
        self.on_hint: OnHint = lambda hint: None
        self.on_gap: OnGap = lambda: None
        self._changed = asyncio.Condition()

    # ------------------------------------------------------------------ the hand of the test

    def say(self, run_id: str, *entries: Entry) -> None:
        """Another node commits events of a run."""
        self.journal.setdefault(run_id, []).extend(entries)
        self.owners.setdefault(run_id, OWNER_NODE)

    def end(self, run_id: str, *entries: Entry) -> None:
        """Another node ends a run: its log moves."""
        self.ended[run_id] = self.journal.pop(run_id) + list(entries)

    def erase(self, run_id: str) -> None:
        """Somebody deletes the session of a run."""
        self.journal.pop(run_id, None)
        self.ended.pop(run_id, None)

    async def until(self, holds: Callable[["ScriptedShared"], bool]) -> None:
        """Wait until what was asked for, or sent, makes `holds` true."""
        async with self._changed:
            await self._changed.wait_for(lambda: holds(self))

    def times(self, name: str) -> int:
        """How often a method was called."""
        return self.asked.count(name)

    async def _note(self, name: str, *run_ids: str) -> None:
        self.asked.append(name)
        async with self._changed:
            self._changed.notify_all()
        for word in (name, *run_ids):
            if word in self.faults:
                raise self.faults[word]

    # ------------------------------------------------------------------ the node

    async def join(self) -> int:
        await self._note("join")
        self.generation += 1
        return self.now

    async def beat(self) -> int:
        await self._note("beat")
        return self.now

    async def leave(self) -> None:
        await self._note("leave")
        self.generation = 0

    async def reap(self) -> int:
        await self._note("reap")
        taken, self.dead_nodes = self.dead_nodes, 0
        return taken

    async def sweep(self) -> None:
        await self._note("sweep")

    async def orphans(self) -> list[tuple[RunRecord, bool]]:
        await self._note("orphans")
        orphaned, self.orphaned = self.orphaned, []
        return orphaned

    async def own_runs(self) -> list[tuple[RunRecord, bool]]:
        await self._note("own_runs")
        return self.own

    def listen(self, on_hint: OnHint, on_gap: OnGap) -> None:
        self.on_hint, self.on_gap = on_hint, on_gap

    def send_hint(self, node_id: str, hint: str) -> None:
        self.hints.append((node_id, hint))

    # ------------------------------------------------------------------ reading

    async def node_of(self, run_id: str) -> str | None:
        await self._note("node_of")
        return self.owners.get(run_id) if run_id in self.journal else None

    async def read_news(self, cursors: Mapping[str, int]) -> Mapping[str, list[Entry]]:
        await self._note("read_news", *cursors)
        news = {
            run_id: [entry for entry in self.journal.get(run_id, ()) if entry.seq > seq]
            for run_id, seq in cursors.items()
        }
        return {run_id: entries for run_id, entries in news.items() if entries}

    async def not_live(self, run_ids: Sequence[str]) -> set[str]:
        await self._note("not_live")
        return set(run_ids) - set(self.journal)

    async def read_log(self, run_id: str, after: int, limit: int = 1000) -> LogPage | None:
        await self._note("read_log", run_id)
        log = self.journal.get(run_id, self.ended.get(run_id))
        if log is None:
            return None
        entries = [entry for entry in log if entry.seq > after][:limit]
        return LogPage(entries, ended=run_id in self.ended, last_seq=log[-1].seq)


def down() -> StoreUnavailable:
    """The store does not answer."""
    return StoreUnavailable("scripted: down")


def fenced() -> Fenced:
    """The claim was taken away."""
    return Fenced("scripted: the lease ran out")


def words(hints: Sequence[tuple[str, str]], verb: str) -> list[Any]:
    """What the hints of one kind said, and to whom."""
    return [(node, hint.split(" ")[1:]) for node, hint in hints if hint.split(" ")[0] == verb]
