"""After the death of a process: every run becomes a normal message by the same fold."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from holdfast.engine.fold import fold
from holdfast.errors import StoreError, StoreUnavailable
from holdfast.events import (
    Event,
    Outcome,
    Reason,
    ReasoningDelta,
    Reference,
    References,
    RunEnd,
    Step,
    TextDelta,
    ToolCall,
    Usage,
)
from holdfast.runner import recovery
from holdfast.store.port import FinishRun, RequestCancel, Write
from holdfast.store.sqlite import SqliteStore
from tests.support.harness import SqliteHarness
from tests.support.records import OWNER, Told, begin, commit, events_of, tell
from tests.support.scripted import DONE, texts
from tests.support.stage import GIVE_UP_S, Stage

CRASH = RunEnd(Outcome.INTERRUPTED, Reason.SERVER_CRASH, error=recovery.CRASHED.error)


@pytest.fixture
async def dead(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    """The store of a process that will die: tests let go of it without ending anything."""
    store = SqliteHarness(tmp_path).make()
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """The next process; tests start it."""
    stage = Stage(tmp_path, [*texts("new"), DONE])
    yield stage
    async with asyncio.timeout(GIVE_UP_S):
        await stage.supervisor.stop()


async def _die_and_start(dead: SqliteStore, stage: Stage) -> None:
    await dead.close()
    await stage.supervisor.start()


async def test_p3_every_run_of_a_dead_process_becomes_a_message_with_what_was_stored(
    dead: SqliteStore, stage: Stage
) -> None:
    partial = await begin(dead, Told(), TextDelta("a"))
    await commit(dead, partial.say(References((Reference(1, text="why"),)), TextDelta("b")))
    empty = await begin(dead, Told(), Step("searching"))
    bare = await begin(dead, Told())
    done = await tell(dead, Told(), TextDelta("whole"))
    await _die_and_start(dead, stage)
    shown = [
        await stage.supervisor.get_message(OWNER, told.run.message_id)
        for told in (partial, empty, bare, done)
    ]
    assert [(m.status, m.outcome, m.reason, m.answer.text) for m in shown] == [
        ("partial", "interrupted", "server_crash", "ab"),
        ("failed", "failed", "server_crash", ""),
        ("failed", "failed", "server_crash", ""),
        ("complete", "completed", None, "whole"),
    ]
    assert shown[0].answer.references == (Reference(1, text="why"),)
    assert await stage.store.inner.live_runs() == []
    assert not [message for message in shown if message.status == "streaming"]


@pytest.mark.parametrize(
    "event",
    [
        TextDelta("a"),
        ReasoningDelta("a"),
        References((Reference(1),)),
        ToolCall(0, name="f"),
    ],
    ids=lambda event: type(event).__name__,
)
async def test_p4_everything_that_counts_makes_a_partial_answer(
    dead: SqliteStore, stage: Stage, event: Event
) -> None:
    told = await begin(dead, Told(), event, Usage(1, 1))
    await _die_and_start(dead, stage)
    message = await stage.supervisor.get_message(OWNER, told.run.message_id)
    assert (message.status, message.outcome) == ("partial", "interrupted")
    stored = await stage.store.get_message(OWNER, told.run.message_id)
    assert stored is not None
    assert stored.answer == fold([*events_of(told.entries), CRASH])


async def test_p5_a_reader_from_before_the_crash_gets_the_rest_and_the_ending(
    dead: SqliteStore, stage: Stage
) -> None:
    told = await begin(dead, Told(), *texts("a", "b", "c"))
    await _die_and_start(dead, stage)
    for after in range(5):
        rest = await stage.read(told.run.id, after)
        assert [entry.seq for entry in rest] == list(range(after + 1, 6))
        assert rest[:-1] == told.entries[after:]
        assert rest[-1].event == CRASH
    assert await stage.read(told.run.id, 5) == []


async def test_p10_a_run_that_was_to_be_cancelled_is_cancelled(
    dead: SqliteStore, stage: Stage
) -> None:
    kept, empty = await begin(dead, Told(), TextDelta("a")), await begin(dead, Told())
    await commit(dead, RequestCancel(kept.run.id), RequestCancel(empty.run.id))
    await _die_and_start(dead, stage)
    runs = [await stage.supervisor.get_run(OWNER, told.run.id) for told in (kept, empty)]
    assert [(run.outcome, run.reason) for run in runs] == [("cancelled", "client_cancelled")] * 2
    message = await stage.supervisor.get_message(OWNER, kept.run.message_id)
    assert (message.status, message.answer.text) == ("partial", "a")


async def test_a_recovered_session_takes_the_next_question(dead: SqliteStore, stage: Stage) -> None:
    told = await begin(dead, Told(), TextDelta("old"))
    await _die_and_start(dead, stage)
    asked = await stage.ask(session_id=told.run.session_id)
    await asked.over()
    assert (await asked.message()).answer.text == "new"
    assert [message.content for message in asked.call.ask.history] == ["What is kelp?", "old"]


async def test_p7_a_retry_after_the_crash_gets_the_recovered_run(
    dead: SqliteStore, stage: Stage
) -> None:
    told = await begin(dead, Told(idempotency_key="k", fingerprint="f"), TextDelta("a"))
    await _die_and_start(dead, stage)
    created = await stage.supervisor.ask(stage.question(idempotency_key="k", fingerprint="f"))
    assert (created.replayed, created.run.id) == (True, told.run.id)
    assert created.run.reason == "server_crash"
    assert stage.upstream.calls == []


async def test_recovering_twice_changes_nothing(dead: SqliteStore, stage: Stage) -> None:
    told = await begin(dead, Told(), TextDelta("a"))
    await _die_and_start(dead, stage)
    before = await stage.read(told.run.id)
    assert await recovery.recover(stage.store, await stage.store.live_runs(), lambda: 1) == 0
    assert await stage.read(told.run.id) == before


@pytest.mark.parametrize("runs", [49, 50, 51, 120])
async def test_any_number_of_runs_is_recovered(dead: SqliteStore, stage: Stage, runs: int) -> None:
    told = [Told() for _ in range(runs)]
    await commit(dead, *[one.create() for one in told])
    await commit(dead, *[one.say(TextDelta(one.run.id)) for one in told])
    await _die_and_start(dead, stage)
    assert await stage.store.inner.live_runs() == []
    for one in (told[0], told[runs // 2], told[-1]):
        message = await stage.supervisor.get_message(OWNER, one.run.message_id)
        assert message.answer.text == one.run.id


async def test_a_long_log_is_recovered_whole(dead: SqliteStore, stage: Stage) -> None:
    told = await begin(dead, Told())
    for start in range(0, 3_000, 3):
        await commit(dead, told.say(*texts(*[f"{n} " for n in range(start, start + 3)])))
    await _die_and_start(dead, stage)
    message = await stage.supervisor.get_message(OWNER, told.run.message_id)
    assert message.answer.text == "".join(f"{n} " for n in range(3_000))
    assert len(await stage.read(told.run.id)) == 3_002


# ------------------------------------------------------------------------------ damage


async def _damage(path: Path, sql: str, *values: Any) -> None:
    def work() -> None:
        connection = sqlite3.connect(path)
        connection.execute(sql, values)
        connection.commit()
        connection.close()

    await asyncio.to_thread(work)


@pytest.mark.parametrize(
    "rubbish",
    [b"rubbish\n", b'{"type":"text-delta","text":"\xff"}\n', b'{"type":"later-event"}\n'],
    ids=["no JSON", "no UTF-8", "unknown event"],
)
async def test_p3_a_damaged_row_costs_its_run_and_not_the_start(
    dead: SqliteStore, stage: Stage, rubbish: bytes
) -> None:
    damaged = await begin(dead, Told(), TextDelta("a"))
    await commit(dead, damaged.say(TextDelta("b")))
    await commit(dead, damaged.say(TextDelta("c")))
    whole = await begin(dead, Told(), TextDelta("w"))
    await _damage(
        dead.path,
        "UPDATE journal SET payload = ? WHERE run_id = ? AND first_seq = 3",
        rubbish,
        damaged.run.id,
    )
    await _die_and_start(dead, stage)
    message = await stage.supervisor.get_message(OWNER, damaged.run.message_id)
    assert (message.status, message.answer.text) == ("partial", "a")
    log = await stage.read(damaged.run.id)
    assert [entry.seq for entry in log] == list(range(1, len(log) + 1))
    assert events_of(log)[1] == TextDelta("a")
    assert isinstance(log[-1].event, RunEnd)
    other = await stage.supervisor.get_message(OWNER, whole.run.message_id)
    assert (other.status, other.answer.text) == ("partial", "w")
    assert await stage.store.inner.live_runs() == []


async def test_p3_a_run_whose_end_is_refused_does_not_keep_the_others_from_ending(
    dead: SqliteStore, stage: Stage
) -> None:
    bad, good = await begin(dead, Told(), TextDelta("a")), await begin(dead, Told())

    def refuse(write: Write) -> Exception | None:
        if isinstance(write, FinishRun) and write.run_id == bad.run.id:
            return StoreError("scripted: never")
        return None

    stage.store.refuse = refuse
    await _die_and_start(dead, stage)
    assert [run.id for run, _ in await stage.store.inner.live_runs()] == [bad.run.id]
    run = await stage.supervisor.get_run(OWNER, good.run.id)
    assert run.reason == "server_crash"


async def test_a_store_that_takes_no_writes_at_the_start_lets_the_file_go_again(
    dead: SqliteStore, tmp_path: Path
) -> None:
    await begin(dead, Told(), TextDelta("a"))
    await dead.close()
    failed = Stage(tmp_path)
    failed.store.down = True
    with pytest.raises(StoreUnavailable):
        await failed.supervisor.start()
    again = Stage(tmp_path)
    await again.supervisor.start()
    assert await again.store.inner.live_runs() == []
    await again.supervisor.stop()


# ------------------------------------------------------------------------------ the write itself


async def _ending(store: SqliteStore, told: Told) -> FinishRun:
    return await recovery.ending(store, told.run, recovery.CRASHED, 7)


async def test_the_write_that_ends_a_run_is_the_fold_of_what_is_stored(
    dead: SqliteStore,
) -> None:
    said: Sequence[Event] = [TextDelta("a"), Usage(1, 2), References((Reference(1),))]
    told = await begin(dead, Told(), *said)
    write = await _ending(dead, told)
    assert write.answer == fold([*events_of(told.entries), CRASH])
    assert (write.append.first_seq, write.append.last_seq, write.ended_at) == (5, 5, 7)
    assert (write.run_id, write.message_id) == (told.run.id, told.run.message_id)


async def test_ending_a_run_that_has_gone_writes_nothing(dead: SqliteStore) -> None:
    assert await commit(dead, await _ending(dead, Told())) == [False]
