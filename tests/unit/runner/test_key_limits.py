"""The limits of keys where questions are asked: what counts, what does not, and until when."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import (
    BadRequest,
    IdempotencyMismatch,
    NotFound,
    RunActive,
    StoreError,
    StoreUnavailable,
    TooManyRequests,
)
from holdfast.store.port import Append
from tests.support.loop import turns
from tests.support.records import OWNER, STRANGER, a_key
from tests.support.scripted import DONE, texts
from tests.support.stage import GIVE_UP_S, Stage, on_stage

ONE_RUN = {"concurrent_runs_per_key": 1, "asks_per_minute_per_key": 0}
ONE_ASK = {"concurrent_runs_per_key": 0, "asks_per_minute_per_key": 1}
KEY = a_key()
ENDS = [*texts("Kelp."), DONE]


async def refused(stage: Stage, **values: Any) -> TooManyRequests:
    """Ask, which must be one question too many and leave no trace."""
    calls = len(stage.upstream.calls)
    before = await stage.store.list_sessions(OWNER, 100)
    with pytest.raises(TooManyRequests) as caught:
        await stage.supervisor.ask(stage.question(**{"key": KEY, **values}))
    assert len(stage.upstream.calls) == calls
    assert await stage.store.list_sessions(OWNER, 100) == before
    return caught.value


class TestRuns:
    async def test_count_until_their_end_is_committed(self, tmp_path: Path) -> None:
        async with on_stage(tmp_path, limits=ONE_RUN) as stage:
            first = await stage.ask(key=KEY)
            assert (await refused(stage)).retry_after_s == 5
            await stage.finish(first, *ENDS)
            second = await stage.ask(key=KEY)
            await stage.supervisor.cancel(OWNER, second.run.id)
            await stage.ask(key=KEY)

    async def test_of_other_keys_and_of_none_do_not_count(self, tmp_path: Path) -> None:
        async with on_stage(tmp_path, limits=ONE_RUN) as stage:
            await stage.ask(key=KEY)
            await stage.ask(key=a_key())
            await stage.ask(key=a_key(STRANGER), owner=STRANGER)
            for _ in range(3):
                await stage.ask()
            await refused(stage)

    async def test_that_the_store_refused_count_no_more(self, tmp_path: Path) -> None:
        async with on_stage(tmp_path, limits=ONE_RUN) as stage:
            first = await stage.ask(key=KEY)
            stage.store.refuse = lambda write: (
                StoreError("no") if isinstance(write, Append) else None
            )
            await first.call.give(*texts("a"))
            await first.over()
            assert first.execution.given_up
            await stage.ask(key=KEY)

    async def test_of_deleted_sessions_count_no_more(self, tmp_path: Path) -> None:
        async with on_stage(tmp_path, limits=ONE_RUN) as stage:
            first = await stage.ask(key=KEY)
            await stage.supervisor.delete_session(OWNER, first.run.session_id)
            await first.over()
            await stage.ask(key=KEY)

    async def test_that_end_for_the_next_question_do_not_count_against_it(
        self, tmp_path: Path
    ) -> None:
        async with on_stage(tmp_path, limits=ONE_RUN) as stage:
            first = await stage.ask(key=KEY, session_key="chat")
            by_key = await stage.ask(key=KEY, session_key="chat", on_busy="cancel")
            assert (await first.record()).outcome == "cancelled"
            by_id = await stage.ask(key=KEY, session_id=first.run.session_id, on_busy="cancel")
            assert (await by_key.record()).outcome == "cancelled"
            await refused(stage, on_busy="cancel")
            await refused(stage, session_key="chat")
            assert (await by_id.record()).status == "accepted"

    async def test_as_the_settings_say_on_busy(self, tmp_path: Path) -> None:
        runs = {"on_busy": "cancel"}
        async with on_stage(tmp_path, limits=ONE_RUN, runs=runs) as stage:
            await stage.ask(key=KEY, session_key="chat")
            await stage.ask(key=KEY, session_key="chat")

    async def test_many_at_once_are_no_more_than_allowed(self, tmp_path: Path) -> None:
        limits = {"concurrent_runs_per_key": 3, "asks_per_minute_per_key": 0}
        async with on_stage(tmp_path, limits=limits) as stage:
            asks = [stage.supervisor.ask(stage.question(key=KEY)) for _ in range(20)]
            results = await asyncio.gather(*asks, return_exceptions=True)
            refusals = [one for one in results if isinstance(one, TooManyRequests)]
            assert len(refusals) == 17
            assert stage.supervisor.live_runs == 3

    async def test_whose_caller_has_gone_count_all_the_same(self, tmp_path: Path) -> None:
        async with on_stage(tmp_path, limits=ONE_RUN) as stage:
            stage.store.gate.clear()
            asking = asyncio.create_task(stage.supervisor.ask(stage.question(key=KEY)))
            await turns()
            asking.cancel()
            stage.store.gate.set()
            with pytest.raises(asyncio.CancelledError):
                await asking
            call = await asyncio.wait_for(stage.upstream.called(), GIVE_UP_S)
            await refused(stage)
            execution = stage.supervisor.live(call.ask.run_id)
            assert execution is not None
            call.push(*ENDS)
            await asyncio.wait_for(execution.over.wait(), GIVE_UP_S)
            await stage.ask(key=KEY)


class TestAsks:
    async def test_count_whatever_became_of_them(self, tmp_path: Path) -> None:
        async with on_stage(tmp_path, ENDS, limits=ONE_ASK) as stage:
            await (await stage.ask(key=KEY)).over()
            assert 50 < (await refused(stage)).retry_after_s <= 60

    async def test_once_more_for_the_same_question_count_too(self, tmp_path: Path) -> None:
        async with on_stage(tmp_path, ENDS, limits=ONE_ASK) as stage:
            asked = await stage.ask(key=KEY)
            await asked.over()
            with pytest.raises(TooManyRequests):
                await stage.supervisor.regenerate(stage.question("", key=KEY), asked.run.message_id)
            await stage.supervisor.regenerate(stage.question("", key=a_key()), asked.run.message_id)

    async def test_that_came_to_nothing_do_not_count(self, tmp_path: Path) -> None:
        async with on_stage(tmp_path, limits=ONE_ASK) as stage:
            busy = await stage.ask()
            hopeless: tuple[tuple[dict[str, Any], type[Exception]], ...] = (
                ({"session_id": "unheard-of"}, NotFound),
                ({"session_id": busy.run.session_id}, RunActive),
                ({"upstream": "unheard-of"}, BadRequest),
                ({"message": " "}, BadRequest),
            )
            for values, error in hopeless:
                with pytest.raises(error):
                    await stage.supervisor.ask(stage.question(**{"key": KEY, **values}))
            stage.store.down = True
            with pytest.raises(StoreUnavailable):
                await stage.supervisor.ask(stage.question(key=KEY))
            stage.store.down = False
            while not stage.supervisor.ready:
                await turns()
            await stage.ask(key=KEY)
            await refused(stage)


class TestAskingOnce:
    """P7: what was asked is never refused, and counts once."""

    @pytest.mark.parametrize("limits", [ONE_RUN, ONE_ASK], ids=["runs", "asks"])
    async def test_p7_a_replay_is_not_refused_and_does_not_count(
        self, tmp_path: Path, limits: dict[str, int]
    ) -> None:
        async with on_stage(tmp_path, limits=limits) as stage:
            once: dict[str, Any] = {"idempotency_key": "k", "fingerprint": "f", "key": KEY}
            first = await stage.ask(**once)
            for _ in range(3):
                again = await stage.supervisor.ask(stage.question(**once))
                assert (again.replayed, again.run.id) == (True, first.run.id)
            await refused(stage)
            await stage.finish(first, *ENDS)
            again = await stage.supervisor.ask(stage.question(**once))
            assert again.run.id == first.run.id

    async def test_p7_two_at_the_same_time_count_once(self, tmp_path: Path) -> None:
        limits = {"concurrent_runs_per_key": 2, "asks_per_minute_per_key": 2}
        async with on_stage(tmp_path, limits=limits) as stage:
            once = stage.question(idempotency_key="k", fingerprint="f", key=KEY)
            results = await asyncio.gather(*[stage.supervisor.ask(once) for _ in range(2)])
            assert sorted(one.replayed for one in results) == [False, True]
            await stage.supervisor.ask(stage.question(key=KEY))
            await refused(stage)

    async def test_p7_another_request_with_the_key_is_told_so_and_does_not_count(
        self, tmp_path: Path
    ) -> None:
        limits = {"concurrent_runs_per_key": 2, "asks_per_minute_per_key": 2}
        async with on_stage(tmp_path, limits=limits) as stage:
            await stage.ask(idempotency_key="k", fingerprint="f", key=KEY)
            for _ in range(3):
                with pytest.raises(IdempotencyMismatch):
                    await stage.supervisor.ask(
                        stage.question(idempotency_key="k", fingerprint="g", key=KEY)
                    )
            await stage.ask(key=KEY)
            await refused(stage)

    async def test_p8_a_strangers_idempotency_key_replays_nothing(self, tmp_path: Path) -> None:
        async with on_stage(tmp_path, limits=ONE_RUN) as stage:
            once: dict[str, Any] = {"idempotency_key": "k", "fingerprint": "f"}
            first = await stage.ask(**once, key=KEY)
            theirs = await stage.ask(**once, key=a_key(STRANGER), owner=STRANGER)
            assert theirs.run.id != first.run.id
