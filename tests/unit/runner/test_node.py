"""A process as one of several: its lease, dead nodes, strays, hints, and a store that fails."""

import asyncio
import logging
from collections.abc import AsyncIterator, Collection, Iterable, Sequence
from typing import Any

import pytest

from holdfast.clock import SharedClock
from holdfast.errors import StoreUnavailable
from holdfast.runner.followers import Followers
from holdfast.runner.node import Node
from holdfast.settings import NodeSettings
from holdfast.store.port import FinishRun, RunRecord
from tests.support.loop import turns
from tests.support.records import Told
from tests.support.shared_store import ScriptedShared, down, entries_of, fenced
from tests.support.stage import GIVE_UP_S

HOUR_S = 3600.0


class Runs:
    """What the node does with the runs of its process."""

    def __init__(self) -> None:
        self.here: dict[str, Any] = {}
        self.stopped: list[str] = []
        self.abandoned = 0
        """How often all runs were dropped."""
        self.dropped: list[str] = []
        self.adopted: list[str] = []

    def live(self, run_id: str) -> Any:
        return self.here.get(run_id)

    def stop_run(self, run_id: str) -> None:
        self.stopped.append(run_id)

    def live_ids(self) -> Collection[str]:
        return list(self.here)

    def abandon(self, run_ids: Iterable[str] | None = None) -> None:
        if run_ids is None:
            self.abandoned += 1
        else:
            self.dropped += run_ids

    def adopt(self, runs: Sequence[RunRecord]) -> None:
        self.adopted += [run.id for run in runs]


class Staged:
    """A node on a scripted store. Nothing happens by itself within the time of a test."""

    def __init__(self, heartbeat_s: float = HOUR_S) -> None:
        self.store = ScriptedShared()
        self.runs = Runs()
        self.clock = SharedClock()
        followers = Followers(self.store, 1_000_000, HOUR_S)
        settings = NodeSettings(heartbeat_s=heartbeat_s, lease_s=4 * heartbeat_s)
        self.node = Node(self.store, self.runs, self.clock, settings, followers)

    async def gap(self) -> None:
        """Something may have been missed: wait until the node has looked after everything."""
        beats, looks = self.store.times("beat"), self.store.times("own_runs")
        self.store.on_gap()
        await self.store.until(
            lambda store: store.times("beat") > beats and store.times("own_runs") > looks
        )
        await turns()

    def finished(self) -> dict[str, str | None]:
        """The runs that were ended, each with the reason."""
        ends = [write for batch in self.store.batches for write in batch]
        return {
            write.run_id: write.answer.end.reason
            for write in ends
            if isinstance(write, FinishRun) and write.answer.end is not None
        }


@pytest.fixture
async def staged() -> AsyncIterator[Staged]:
    staged = Staged()
    await staged.node.start()
    yield staged
    staged.store.faults.clear()
    await staged.node.stop()


def a_run(store: ScriptedShared | None = None) -> RunRecord:
    """A run of which two events are stored."""
    run = Told().run
    if store is not None:
        store.say(run.id, *entries_of(1, 2))
    return run


# ------------------------------------------------------------------------------ the lease


async def test_a_node_begins_with_a_lease_and_the_time_of_the_store(staged: Staged) -> None:
    assert staged.node.joined
    assert staged.store.asked[:4] == ["join", "reap", "sweep", "orphans"]
    assert abs(staged.clock() - staged.store.now) < 1000 * GIVE_UP_S


async def test_a_node_keeps_its_lease_by_itself() -> None:
    staged = Staged(heartbeat_s=0.02)
    await staged.node.start()
    await staged.store.until(lambda store: store.times("beat") >= 3 and store.times("reap") >= 3)
    await staged.node.stop()
    assert staged.runs.abandoned == 0
    assert staged.store.times("join") == 1


async def test_p3_a_node_that_lost_its_lease_drops_its_runs_and_joins_anew(staged: Staged) -> None:
    staged.store.faults["beat"] = fenced()
    staged.store.faults["join"] = down()
    await staged.gap()
    assert not staged.node.joined
    assert staged.runs.abandoned == 1
    del staged.store.faults["join"]
    await staged.gap()
    assert staged.node.joined
    assert staged.store.generation == 2
    del staged.store.faults["beat"]
    await staged.gap()
    assert (staged.node.joined, staged.store.generation) == (True, 2)


async def test_a_store_that_fails_costs_no_lease_and_is_told_once(
    staged: Staged, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "holdfast.runner.node"):
        for name in ("beat", "reap"):
            staged.store.faults[name] = down()
        for _ in range(3):
            beats, reaps = staged.store.times("beat"), staged.store.times("reap")
            staged.store.on_gap()
            await staged.store.until(
                lambda store, beats=beats, reaps=reaps: (
                    store.times("beat") > beats  # type: ignore[misc]
                    and store.times("reap") > reaps
                )
            )
            await turns()
        assert staged.runs.abandoned == 0
        assert len(caplog.records) == 1
        staged.store.faults.clear()
        await staged.gap()
        assert "keeps its lease again" in caplog.text


async def test_something_unforeseen_does_not_end_the_care_for_the_lease(staged: Staged) -> None:
    staged.store.faults["beat"] = RuntimeError("scripted: a bug")
    beats = staged.store.times("beat")
    staged.store.on_gap()
    await staged.store.until(lambda store: store.times("beat") > beats)
    await turns()
    del staged.store.faults["beat"]
    await staged.gap()
    assert staged.node.joined


async def test_leaving_gives_the_lease_back_even_when_nobody_takes_it() -> None:
    staged = Staged()
    await staged.node.start()
    staged.store.faults["leave"] = down()
    await staged.node.stop()
    assert staged.store.times("leave") == 1


async def test_a_node_that_could_not_join_leaves_nothing_behind() -> None:
    staged = Staged()
    before = asyncio.all_tasks()
    staged.store.faults["join"] = down()
    with pytest.raises(StoreUnavailable):
        await staged.node.start()
    await staged.node.stop()
    assert staged.store.times("leave") == 0
    assert asyncio.all_tasks() == before


# ------------------------------------------------------------------------------ runs of others


async def test_p3_runs_of_dead_nodes_are_ended_with_what_is_stored_of_them() -> None:
    staged = Staged()
    crashed, cancelled = a_run(staged.store), a_run(staged.store)
    staged.store.orphaned = [(crashed, False), (cancelled, True)]
    await staged.node.start()
    assert staged.finished() == {crashed.id: "server_crash", cancelled.id: "client_cancelled"}
    late = a_run(staged.store)
    staged.store.orphaned = [(late, False)]
    await staged.gap()
    assert late.id not in staged.finished()  # nobody has died: it is not looked for each time
    staged.store.dead_nodes = 1
    await staged.gap()
    assert staged.finished()[late.id] == "server_crash"
    await staged.node.stop()


# ------------------------------------------------------------------------------ runs of its own


async def test_p10_a_cancel_that_no_hint_told_of_is_found_in_the_store(staged: Staged) -> None:
    run, other = a_run(), a_run()
    staged.runs.here = {run.id: object(), other.id: object()}
    staged.store.own = [(run, True), (other, False)]
    await staged.gap()
    assert staged.runs.stopped == [run.id]


async def test_p3_a_run_that_nobody_executes_is_ended_but_not_one_that_is_just_being_made(
    staged: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often the node looks within a moment, as it does when hints may have been lost."""
    run = a_run()
    staged.store.own = [(run, False)]
    for _ in range(4):
        await staged.gap()
    assert staged.runs.adopted == []
    loop = asyncio.get_running_loop()
    later = loop.time() + HOUR_S
    monkeypatch.setattr(loop, "time", lambda: later)
    await staged.gap()
    assert staged.runs.adopted == [run.id]


async def test_p10_a_run_that_somebody_else_has_ended_is_dropped(
    staged: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its upstream may say nothing for long, so no write would be refused."""
    run, other = a_run(), a_run()
    staged.runs.here = {run.id: object(), other.id: object()}
    staged.store.own = [(other, False)]
    for _ in range(3):
        await staged.gap()
    assert staged.runs.dropped == []
    loop = asyncio.get_running_loop()
    later = loop.time() + HOUR_S
    monkeypatch.setattr(loop, "time", lambda: later)
    await staged.gap()
    assert staged.runs.dropped == [run.id]
    assert staged.runs.abandoned == 0


async def test_a_run_that_was_ended_in_between_is_no_stray(
    staged: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run()
    staged.store.own = [(run, False)]
    await staged.gap()
    staged.store.own = []
    await staged.gap()
    loop = asyncio.get_running_loop()
    later = loop.time() + HOUR_S
    monkeypatch.setattr(loop, "time", lambda: later)
    staged.store.own = [(run, False)]
    await staged.gap()
    assert staged.runs.adopted == []


# ------------------------------------------------------------------------------ hints


@pytest.mark.parametrize("hint", ["news run:3", "gone run", "news run:3 other:9"])
async def test_p5_a_hint_brings_what_is_new_of_a_run_that_is_read_here(
    staged: Staged, hint: str
) -> None:
    staged.store.say("run", *entries_of(1, 1))
    tail = staged.node.followers.follow("run", 1)
    await staged.store.until(lambda store: store.times("node_of") == 1)
    await turns()
    staged.store.say("run", *entries_of(2, 3))
    staged.store.on_hint(hint)
    await turns()
    assert tail.after(1) == entries_of(2, 3)


async def test_p10_a_hint_stops_a_run(staged: Staged) -> None:
    staged.store.on_hint("cancel run")
    assert staged.runs.stopped == ["run"]


@pytest.mark.parametrize(
    "hint",
    [
        "",
        "cancel",
        "cancel a b",
        "watch",
        "watch node",
        "unwatch",
        "news",
        "news x",
        "gone",
        "gone x",
        "hello",
        " ",
    ],
)
async def test_a_hint_of_another_release_does_no_harm(staged: Staged, hint: str) -> None:
    staged.store.on_hint(hint)
    assert staged.runs.stopped == []


async def test_p10_cancelling_tells_the_node_that_executes_the_run(staged: Staged) -> None:
    staged.store.say("run", *entries_of(1, 1))
    assert await staged.node.cancel("run")
    assert staged.store.hints == [("node-a", "cancel run")]
    assert not await staged.node.cancel("other")
    assert len(staged.store.hints) == 1
