"""Telling other nodes of news: who is told, in how many hints, and when they are forgotten."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from holdfast.engine.run import UpstreamEnd
from holdfast.live.run_log import RunLog
from holdfast.runner import watchers as module
from holdfast.runner.watch import Audience
from holdfast.runner.watchers import Watchers
from holdfast.store.shared import HINT_BYTES
from tests.support.loop import turns
from tests.support.shared_store import entries_of, event_of, words
from tests.support.stage import GIVE_UP_S

NODE, OTHER = "node-b", "node-c"
SOON_S = 0.02


class LiveRuns:
    """Runs that are executed here, and the hints that were sent about them."""

    def __init__(self) -> None:
        self.stopped: list[UpstreamEnd] = []
        self.hints: list[tuple[str, str]] = []
        self.changed = asyncio.Event()
        self._runs: dict[str, Any] = {}
        self.watchers = Watchers(self._runs.get, self._send)

    def _send(self, node_id: str, hint: str) -> None:
        self.hints.append((node_id, hint))
        self.changed.set()

    def begin(self, run_id: str, *, cancels: bool = False, grace_s: float = 3600.0) -> Any:
        """A run with its first event committed."""
        log = RunLog(run_id, entries_of(1, 1)[0], 1_000_000)
        audience = Audience(cancels, grace_s, self.stop)
        self._runs[run_id] = SimpleNamespace(log=log, audience=audience)
        return self._runs[run_id]

    def stop(self, end: UpstreamEnd) -> None:
        self.stopped.append(end)
        self.changed.set()

    def commit(self, run_id: str, ended: bool = False) -> None:
        """One more event of a run is committed."""
        log = self._runs[run_id].log
        log.append([event_of(log.last_seq + 1)])
        log.take()
        log.saved(ended)
        if ended:
            self._runs.pop(run_id)

    def told(self, node_id: str = NODE) -> list[list[str]]:
        """What a node was told; forgets it."""
        news = [said for node, said in words(self.hints, "news") if node == node_id]
        self.hints = [hint for hint in self.hints if hint[0] != node_id]
        return news


@pytest.fixture
def live() -> LiveRuns:
    return LiveRuns()


async def test_a_node_that_watches_is_told_at_once_and_after_every_commit(live: LiveRuns) -> None:
    live.begin("run")
    live.watchers.watch(NODE, ["run"])
    await turns()
    assert live.told() == [["run:1"]]
    live.commit("run")
    await turns()
    assert live.told() == [["run:2"]]
    live.commit("run", ended=True)
    await turns()
    assert live.told() == [["run:3"]]
    live.watchers.close()


async def test_one_hint_tells_of_all_runs_of_a_commit(live: LiveRuns) -> None:
    for run in ("one", "two"):
        live.begin(run)
    live.watchers.watch(NODE, ["one", "two"])
    live.watchers.watch(OTHER, ["two"])
    await turns()
    assert (live.told(), live.told(OTHER)) == ([["one:1", "two:1"]], [["two:1"]])
    live.commit("one")
    live.commit("two")
    live.commit("two")
    await turns()
    assert (live.told(), live.told(OTHER)) == ([["one:2", "two:3"]], [["two:3"]])
    live.watchers.close()


async def test_asking_again_tells_nothing_twice(live: LiveRuns) -> None:
    live.begin("run")
    for _ in range(3):
        live.watchers.watch(NODE, ["run"])
    live.commit("run")
    await turns()
    assert live.told() == [["run:2"]]
    live.watchers.close()


async def test_a_node_that_asks_too_late_is_told_that_the_run_is_over(live: LiveRuns) -> None:
    live.begin("run")
    live.watchers.watch(NODE, ["over", "run", "gone"])
    live.watchers.unwatch(NODE, ["over", "never"])
    assert words(live.hints, "gone") == [(NODE, ["over", "gone"])]
    await turns()
    assert live.told() == [["run:1"]]
    live.watchers.close()


async def test_hints_stay_within_the_size_that_the_database_takes(live: LiveRuns) -> None:
    runs = [f"{number:036d}" for number in range(500)]
    for run in runs:
        live.begin(run)
    live.watchers.watch(NODE, runs)
    await turns()
    assert max(len(hint) for _, hint in live.hints) <= HINT_BYTES
    assert sorted(word for said in live.told() for word in said) == [f"{run}:1" for run in runs]
    live.watchers.close()


async def test_a_node_that_reads_no_more_is_told_no_more(live: LiveRuns) -> None:
    live.begin("run")
    live.watchers.watch(NODE, ["run"])
    live.watchers.watch(OTHER, ["run"])
    await turns()
    live.told(), live.told(OTHER)
    live.watchers.unwatch(NODE, ["run"])
    live.commit("run")
    await turns()
    assert (live.told(), live.told(OTHER)) == ([], [["run:2"]])
    live.watchers.close()


async def test_a_reader_on_another_node_is_one_of_the_audience(live: LiveRuns) -> None:
    """With `on_disconnect = "cancel"` a run lives as long as it is read anywhere."""
    run = live.begin("run", cancels=True, grace_s=SOON_S)
    run.audience.came()
    live.watchers.watch(NODE, ["run"])
    run.audience.left()
    late = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(3 * SOON_S, late.set_result, None)
    await late
    assert live.stopped == []
    live.changed.clear()
    live.watchers.unwatch(NODE, ["run"])
    await asyncio.wait_for(live.changed.wait(), GIVE_UP_S)
    assert len(live.stopped) == 1
    live.watchers.close()


async def test_a_node_that_has_not_asked_for_a_while_is_forgotten(
    live: LiveRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FORGET_S", SOON_S)
    run = live.begin("run", cancels=True, grace_s=0.0)
    run.audience.came()
    live.watchers.watch(NODE, ["run"])
    run.audience.left()
    await turns()
    live.told()
    live.changed.clear()
    await asyncio.wait_for(live.changed.wait(), GIVE_UP_S)
    assert len(live.stopped) == 1
    live.commit("run")
    await turns()
    assert live.told() == []
    live.watchers.close()


async def test_a_run_that_has_ended_is_let_go(
    live: LiveRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FORGET_S", SOON_S)
    log = live.begin("run").log
    live.begin("other")
    live.watchers.watch(NODE, ["run", "other"])
    live.commit("run", ended=True)
    async with asyncio.timeout(GIVE_UP_S):
        while log._listeners:  # noqa: ASYNC110
            await asyncio.sleep(0)
    live.watchers.close()


async def test_closing_tells_what_was_not_told_and_stops(live: LiveRuns) -> None:
    log = live.begin("run").log
    live.watchers.watch(NODE, ["run"])
    live.commit("run")
    live.watchers.close()
    assert live.told() == [["run:2"]]
    live.commit("run")
    await turns()
    assert live.told() == []
    assert log._listeners == set()
