"""The group commit: one writer, shared commits, and a store that may fail."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from holdfast.errors import HoldfastError, NotFound, StoreError, StoreUnavailable
from holdfast.store import group_commit
from holdfast.store.group_commit import GroupCommit
from holdfast.store.port import Probe, RequestCancel, Write
from tests.support.loop import turns
from tests.support.records import Told
from tests.support.stores import ScriptedSource, ScriptedStore, accept, fail

GIVE_UP_S = 5.0
"""Far more than is needed: only a test that fails waits for it."""
FOREVER_S = 1e9


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries follow each other without a pause worth the name."""
    monkeypatch.setattr(group_commit, "RETRY_S", (0.0005,))


@pytest.fixture
def store() -> ScriptedStore:
    return ScriptedStore()


@pytest.fixture
def patience_s() -> float:
    return FOREVER_S


@pytest.fixture
async def commits(store: ScriptedStore, patience_s: float) -> AsyncIterator[GroupCommit]:
    clock = itertools.count(1)
    commits = GroupCommit(store, patience_s=patience_s, now=lambda: next(clock))
    commits.start()
    yield commits
    store.gate.set()
    await asyncio.wait_for(commits.close(), GIVE_UP_S)


async def _settled(*sources: ScriptedSource, times: int = 1) -> None:
    for source in sources:
        done = source.until(lambda s: len(s.settled) >= times)
        await asyncio.wait_for(done, GIVE_UP_S)


def _sources(commits: GroupCommit, count: int) -> list[ScriptedSource]:
    return [ScriptedSource(f"run-{number}", commits.mark) for number in range(count)]


def _without_probes(batch: Sequence[Write]) -> list[Write]:
    return [write for write in batch if not isinstance(write, Probe)]


# ------------------------------------------------------------------------------ sharing


async def test_the_first_commit_after_a_pause_happens_at_once(
    commits: GroupCommit, store: ScriptedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pause between commits comes after one, so nobody waits who is alone."""
    monkeypatch.setattr(group_commit, "MAX_SPACING_S", 0.05)
    monkeypatch.setattr(group_commit, "QUIET_RATE", 0.0)
    monkeypatch.setattr(group_commit, "SPACING_PER_RATE", FOREVER_S)
    assert await commits.submit(RequestCancel("r")) is None
    assert store.batches == [[RequestCancel("r")]]
    (source,) = _sources(commits, 1)
    source.say()
    await turns(10)
    assert len(store.batches) == 1  # this one waits for the spacing
    await _settled(source)


@pytest.mark.parametrize("count", [1, 2, 100])
async def test_all_that_gathers_during_a_commit_shares_the_next(
    commits: GroupCommit, store: ScriptedStore, count: int
) -> None:
    store.gate.clear()
    first, *others = _sources(commits, count + 1)
    first.say()
    await store.begun(1)
    for source in others:
        source.say(3)
    waiting = [asyncio.create_task(commits.submit(RequestCancel(str(n)))) for n in range(5)]
    await asyncio.sleep(0)
    store.gate.set()
    await _settled(*others)
    await asyncio.gather(*waiting)
    assert [len(batch) for batch in store.batches] == [1, count + 5]
    assert commits.commits == 2
    assert all(source.saved == [1, 2, 3] for source in others)


async def test_a_source_is_not_taken_again_before_it_is_settled(
    commits: GroupCommit, store: ScriptedStore
) -> None:
    (source,) = _sources(commits, 1)
    for number in range(1, 20):
        store.gate.clear()
        source.say()
        await store.begun(number)
        source.say()
        store.gate.set()
        await _settled(source, times=number)
    await source.until(lambda s: len(s.saved) == 38)
    assert source.rules_broken == []
    assert source.saved == list(range(1, 39))


async def test_a_source_with_nothing_to_save_costs_no_commit(
    commits: GroupCommit, store: ScriptedStore
) -> None:
    (source,) = _sources(commits, 1)
    commits.mark(source)
    await commits.submit(RequestCancel("r"))
    assert store.batches in ([[RequestCancel("r")]],)
    assert source.settled == []


async def test_a_caller_gets_the_result_or_the_refusal_of_his_own_write(
    commits: GroupCommit, store: ScriptedStore
) -> None:
    refusal = NotFound("no such thing")
    store.script.append(lambda writes: ["first", refusal, "third"])
    results = await asyncio.gather(
        *[commits.submit(RequestCancel(str(n))) for n in range(3)], return_exceptions=True
    )
    assert results == ["first", refusal, "third"]


async def test_a_caller_who_goes_away_does_not_disturb_the_others(
    commits: GroupCommit, store: ScriptedStore
) -> None:
    store.gate.clear()
    gone = asyncio.create_task(commits.submit(RequestCancel("gone")))
    stays = asyncio.create_task(commits.submit(RequestCancel("stays")))
    await store.begun(1)
    gone.cancel()
    store.gate.set()
    assert await stays is None
    assert gone.cancelled() or (await asyncio.wait([gone]))[0] == {gone}
    assert store.batches == [[RequestCancel("gone"), RequestCancel("stays")]]


# ------------------------------------------------------------------------------ bad neighbours


def _broken(*_: Any) -> None:
    raise RuntimeError("a bug in one run")


async def test_one_run_that_fails_to_take_note_does_not_stop_the_others(
    commits: GroupCommit, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = _sources(commits, 2)
    monkeypatch.setattr(bad, "settle", _broken)
    bad.say()
    good.say()
    await _settled(good)
    good.say()
    await _settled(good, times=2)
    assert good.saved == [1, 2]


async def test_one_run_that_fails_to_give_its_events_does_not_stop_the_others(
    commits: GroupCommit, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = _sources(commits, 2)
    monkeypatch.setattr(bad, "pending", _broken)
    bad.say()
    good.say()
    await _settled(good)
    assert await asyncio.wait_for(commits.submit(RequestCancel("r")), GIVE_UP_S) is None
    assert good.saved == [1]


@pytest.mark.parametrize("patience_s", [0.0])
async def test_one_run_that_fails_to_stall_does_not_stop_the_others(
    commits: GroupCommit, store: ScriptedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = _sources(commits, 2)
    monkeypatch.setattr(bad, "stall", _broken)
    store.otherwise = fail
    bad.say()
    good.say()
    await asyncio.wait_for(good.until(lambda s: s.stalls == 1), GIVE_UP_S)
    store.otherwise = accept
    await _settled(good, bad)


async def test_a_write_that_is_refused_is_settled_with_the_refusal(
    commits: GroupCommit, store: ScriptedStore
) -> None:
    bad, good = _sources(commits, 2)
    refusal = StoreError("never")
    store.script.append(lambda writes: [refusal, None])
    bad.say()
    good.say()
    await _settled(bad, good)
    assert [result for _, result in bad.settled] == [refusal]
    assert good.saved == [1]
    assert commits.healthy


async def test_a_store_that_breaks_down_is_told_to_all_and_the_writer_goes_on(
    commits: GroupCommit, store: ScriptedStore
) -> None:
    store.script.append(_raise(ZeroDivisionError("a bug")))
    (source,) = _sources(commits, 1)
    source.say()
    with pytest.raises(StoreError, match="a bug"):
        await commits.submit(RequestCancel("r"))
    await _settled(source)
    assert isinstance(source.settled[0][1], StoreError)
    assert await commits.submit(RequestCancel("r")) is None
    source.say()
    await _settled(source, times=2)
    assert source.saved == [2]


def _raise(error: Exception) -> Callable[[Sequence[Write]], list[Any]]:
    def answer(writes: Sequence[Write]) -> list[Any]:
        raise error

    return answer


# ------------------------------------------------------------------------------ failing


async def test_a_caller_is_told_at_once_that_the_store_fails(
    commits: GroupCommit, store: ScriptedStore
) -> None:
    store.otherwise = fail
    with pytest.raises(StoreUnavailable):
        await asyncio.wait_for(commits.submit(RequestCancel("r")), GIVE_UP_S)
    assert not commits.healthy
    before = len(store.batches)
    with pytest.raises(StoreUnavailable):
        await commits.submit(RequestCancel("r"))
    assert RequestCancel("r") not in [write for batch in store.batches[before:] for write in batch]
    store.otherwise = accept


def _lose_the_answer(writes: Sequence[Write]) -> list[Any]:
    """The connection is gone after the batch was sent."""
    error = StoreUnavailable("scripted: cut")
    error.uncertain = True
    raise error


async def test_p7_a_question_that_may_be_committed_is_tried_until_that_is_certain(
    commits: GroupCommit, store: ScriptedStore
) -> None:
    store.script.extend([_lose_the_answer, fail, fail])
    question = Told().create()
    assert await asyncio.wait_for(commits.submit(question), GIVE_UP_S) is None
    assert store.batches == [[question]] * 4


async def test_a_rare_write_that_may_be_committed_is_told_at_once(
    commits: GroupCommit, store: ScriptedStore
) -> None:
    store.script.append(_lose_the_answer)
    with pytest.raises(StoreUnavailable):
        await asyncio.wait_for(commits.submit(RequestCancel("r")), GIVE_UP_S)


@pytest.mark.parametrize("patience_s", [0.0])
async def test_an_uncertain_question_is_given_up_in_the_end(
    commits: GroupCommit, store: ScriptedStore
) -> None:
    store.script.append(_lose_the_answer)
    with pytest.raises(StoreUnavailable):
        await asyncio.wait_for(commits.submit(Told().create()), GIVE_UP_S)


async def test_p7_an_uncertain_question_is_settled_though_its_caller_has_left(
    commits: GroupCommit, store: ScriptedStore
) -> None:
    """The run is executed, so the caller finds it alive when he comes back with his key."""
    store.otherwise = _lose_the_answer
    results: list[Any] = []
    asking = asyncio.create_task(commits.submit(Told().create(), results.append))
    await store.begun(2)
    asking.cancel()
    await asyncio.wait([asking])
    assert results == []
    store.otherwise = accept
    (source,) = _sources(commits, 1)
    source.say()
    await _settled(source)
    assert results == [None]


async def test_callers_that_come_while_the_store_is_tried_are_told_too(
    commits: GroupCommit, store: ScriptedStore
) -> None:
    store.otherwise = fail
    store.gate.clear()
    (source,) = _sources(commits, 1)
    source.say()
    await store.begun(1)
    late = asyncio.create_task(commits.submit(RequestCancel("late")))
    await asyncio.sleep(0)
    store.gate.set()
    with pytest.raises(StoreUnavailable):
        await asyncio.wait_for(late, GIVE_UP_S)
    store.otherwise = accept
    await _settled(source)


async def test_p2_what_runs_wrote_is_tried_again_and_settled_once_in_order(
    commits: GroupCommit, store: ScriptedStore
) -> None:
    sources = _sources(commits, 3)
    store.script.extend([fail] * 4)
    for source in sources:
        source.say(2)
    await store.begun(2)
    for source in sources:
        source.say(2)
    for source in sources:
        await asyncio.wait_for(source.until(lambda s: len(s.saved) == 4), GIVE_UP_S)
    assert all(source.saved == [1, 2, 3, 4] for source in sources)
    assert all(len(source.settled) == 2 for source in sources)
    assert all(source.rules_broken == [] for source in sources)
    first = _without_probes(store.batches[0])
    assert [_without_probes(batch) for batch in store.batches[:5]] == [first] * 5


async def test_one_write_that_a_failing_store_left_out_is_tried_again_alone(
    commits: GroupCommit, store: ScriptedStore
) -> None:
    lost, saved = _sources(commits, 2)
    store.script.append(lambda writes: [StoreUnavailable("left out"), None])
    lost.say()
    saved.say()
    await _settled(lost, saved)
    assert (lost.saved, saved.saved) == ([1], [1])
    assert (len(lost.settled), len(saved.settled)) == (1, 1)
    assert [len(batch) for batch in store.batches] == [2, 1]


async def test_the_store_is_called_healthy_again_without_anybody_asking(
    commits: GroupCommit, store: ScriptedStore
) -> None:
    store.script.extend([fail] * 3)
    with pytest.raises(StoreUnavailable):
        await commits.submit(RequestCancel("r"))
    await asyncio.wait_for(store.begun(4), GIVE_UP_S)
    (source,) = _sources(commits, 1)
    source.say()
    await _settled(source)
    assert commits.healthy
    assert [type(write) for batch in store.batches[1:4] for write in batch] == [Probe] * 3
    assert await commits.submit(RequestCancel("r")) is None


@pytest.mark.parametrize("patience_s", [0.0])
async def test_after_the_patience_runs_are_stalled_once_and_the_tries_go_on(
    commits: GroupCommit, store: ScriptedStore
) -> None:
    store.otherwise = fail
    sources = _sources(commits, 2)
    for source in sources:
        source.say()
    await asyncio.wait_for(store.begun(6), GIVE_UP_S)
    assert [source.stalls for source in sources] == [1, 1]
    assert [source.settled for source in sources] == [[], []]
    store.otherwise = accept
    await _settled(*sources)
    assert [source.saved for source in sources] == [[1], [1]]
    assert [source.stalls for source in sources] == [1, 1]
    assert commits.healthy


async def test_runs_are_not_stalled_before_the_patience_is_over(
    commits: GroupCommit, store: ScriptedStore
) -> None:
    store.script.extend([fail] * 10)
    (source,) = _sources(commits, 1)
    source.say()
    await _settled(source)
    assert source.stalls == 0


@pytest.mark.parametrize("patience_s", [0.0])
async def test_a_run_that_begins_to_write_while_the_store_fails_is_stalled_too(
    commits: GroupCommit, store: ScriptedStore
) -> None:
    store.otherwise = fail
    early, late = _sources(commits, 2)
    early.say()
    await asyncio.wait_for(early.until(lambda s: s.stalls == 1), GIVE_UP_S)
    late.say()
    await asyncio.wait_for(late.until(lambda s: s.stalls == 1), GIVE_UP_S)
    store.otherwise = accept
    await _settled(early, late)
    assert (early.stalls, late.stalls) == (1, 1)
    assert late.saved == [1]


@pytest.mark.parametrize("patience_s", [0.0])
async def test_a_run_is_stalled_when_a_caller_was_the_first_to_meet_the_failure(
    commits: GroupCommit, store: ScriptedStore
) -> None:
    store.otherwise = fail
    with pytest.raises(StoreUnavailable):
        await commits.submit(RequestCancel("r"))
    (source,) = _sources(commits, 1)
    source.say()
    await asyncio.wait_for(source.until(lambda s: s.stalls == 1), GIVE_UP_S)
    store.otherwise = accept
    await _settled(source)
    assert source.saved == [1]


@pytest.mark.parametrize("patience_s", [0.0])
async def test_a_run_is_stalled_that_takes_the_place_of_one_that_was_saved(
    commits: GroupCommit, store: ScriptedStore
) -> None:
    """The store fails for some writes only; who comes late must not be forgotten."""
    stuck, saved, late = _sources(commits, 3)

    def all_but_saved(writes: Sequence[Write]) -> list[Any]:
        return [None if write == saved_write else StoreUnavailable("left out") for write in writes]

    store.otherwise = fail
    stuck.say()
    saved.say()
    for source in (stuck, saved):
        await asyncio.wait_for(source.until(lambda s: s.stalls == 1), GIVE_UP_S)
    saved_write = next(w for b in store.batches for w in b if getattr(w, "run_id", "") == "run-1")
    store.otherwise = all_but_saved
    await _settled(saved)
    late.say()
    await asyncio.wait_for(late.until(lambda s: s.stalls == 1), GIVE_UP_S)
    store.otherwise = accept
    await _settled(stuck, late)
    assert (stuck.stalls, late.stalls) == (1, 1)


@pytest.mark.parametrize("patience_s", [0.0])
async def test_a_second_failure_stalls_again(commits: GroupCommit, store: ScriptedStore) -> None:
    (source,) = _sources(commits, 1)
    for times in (1, 2):
        store.otherwise = fail
        source.say()
        await asyncio.wait_for(source.until(lambda s, t=times: s.stalls == t), GIVE_UP_S)  # type: ignore[misc]
        store.otherwise = accept
        await _settled(source, times=times)
    assert source.saved == [1, 2]


# ------------------------------------------------------------------------------ closing


async def _started(store: ScriptedStore) -> GroupCommit:
    commits = GroupCommit(store, patience_s=FOREVER_S, now=lambda: 1)
    commits.start()
    await asyncio.sleep(0)
    return commits


async def test_closing_writes_what_is_pending(store: ScriptedStore) -> None:
    commits = await _started(store)
    store.gate.clear()
    first, second = _sources(commits, 2)
    first.say()
    await store.begun(1)
    first.say()
    second.say()
    caller = asyncio.create_task(commits.submit(RequestCancel("r")))
    await asyncio.sleep(0)
    closing = asyncio.create_task(commits.close())
    store.gate.set()
    await asyncio.wait_for(closing, GIVE_UP_S)
    assert (first.saved, second.saved) == ([1, 2], [1])
    assert await caller is None


async def test_closing_does_not_hang_while_the_store_fails(store: ScriptedStore) -> None:
    commits = await _started(store)
    store.otherwise = fail
    first, second = _sources(commits, 2)
    first.say()
    await store.begun(3)
    second.say()
    await asyncio.wait_for(commits.close(), GIVE_UP_S)
    for source in (first, second):
        assert [type(result) for _, result in source.settled] == [StoreUnavailable]


async def test_closing_gives_a_failing_store_one_more_chance(store: ScriptedStore) -> None:
    commits = await _started(store)
    (source,) = _sources(commits, 1)
    store.script.append(fail)
    source.say()
    await asyncio.wait_for(commits.close(), GIVE_UP_S)
    assert source.saved == [1]


async def test_after_closing_nobody_is_kept_waiting(store: ScriptedStore) -> None:
    commits = await _started(store)
    await commits.close()
    with pytest.raises(HoldfastError):
        await asyncio.wait_for(commits.submit(RequestCancel("r")), GIVE_UP_S)
    assert store.batches == []


async def test_closing_twice_or_without_a_start_is_harmless(store: ScriptedStore) -> None:
    commits = await _started(store)
    await commits.close()
    await asyncio.wait_for(commits.close(), GIVE_UP_S)
    await GroupCommit(store, now=lambda: 1).close()


# ------------------------------------------------------------------------------ taking note


async def test_the_result_is_noted_even_if_the_caller_has_left(
    commits: GroupCommit, store: ScriptedStore
) -> None:
    """A question that is committed must be executed, whoever cancelled the request."""
    noted: list[Any] = []
    store.gate.clear()
    store.script.append(lambda writes: ["stored"])
    caller = asyncio.create_task(commits.submit(RequestCancel("r"), noted.append))
    await store.begun(1)
    caller.cancel()
    store.gate.set()
    await commits.submit(RequestCancel("next"))
    assert noted == ["stored"]


async def test_a_note_that_cannot_be_taken_does_not_cost_the_caller_his_result(
    commits: GroupCommit, store: ScriptedStore
) -> None:
    store.script.append(lambda writes: ["stored"])
    assert await asyncio.wait_for(commits.submit(RequestCancel("r"), _broken), GIVE_UP_S) == (
        "stored"
    )
