"""The contract of every store: what is there after the process that wrote it has died."""

import asyncio

import pytest

from holdfast.engine.run import UpstreamEnd
from holdfast.errors import ConfigError, StoreUnavailable
from holdfast.events import Reason, TextDelta
from holdfast.store.port import Append, LogPage, RequestCancel, Store
from tests.support.harness import StoreHarness
from tests.support.records import OWNER, Told, begin, commit, read_all, tell

GIVE_UP_S = 5.0
"""Far more than is needed: only a test that fails waits for it."""

CRASHED = UpstreamEnd(Reason.SERVER_CRASH)


async def test_p3_a_run_that_was_live_is_found_again_with_its_journal(
    store: Store, harness: StoreHarness
) -> None:
    told = await begin(store, Told(), TextDelta("a"))
    await commit(store, told.say(TextDelta("b"), TextDelta("c")))
    store = await harness.reopen(store)
    assert await store.live_runs() == [(told.run, False)]
    assert await store.read_log(told.run.id, 0) == LogPage(told.entries, ended=False, last_seq=4)


async def test_p3_a_run_of_a_dead_process_can_be_ended(store: Store, harness: StoreHarness) -> None:
    told = await begin(store, Told(), TextDelta("a"))
    store = await harness.reopen(store)
    await commit(store, told.finish(end=CRASHED))
    store = await harness.reopen(store)
    assert await read_all(store, told.run.id) == told.entries
    message = await store.get_message(OWNER, told.run.message_id)
    assert message is not None
    assert (message.status, message.reason, message.answer.text) == (
        "partial",
        "server_crash",
        "a",
    )


async def test_p10_a_cancel_outlives_the_process_that_took_it(
    store: Store, harness: StoreHarness
) -> None:
    told = await begin(store, Told())
    await commit(store, RequestCancel(told.run.id))
    store = await harness.reopen(store)
    assert await store.live_runs() == [(told.run, True)]


async def test_new_rows_do_not_collide_with_those_of_a_dead_process(
    store: Store, harness: StoreHarness
) -> None:
    runs = [await begin(store, Told(), TextDelta("a"))]
    for _ in range(3):
        store = await harness.reopen(store)
        runs.append(await begin(store, Told(), TextDelta("b")))
        await commit(store, runs[-1].say(TextDelta("more")))
    for told in runs:
        assert await read_all(store, told.run.id) == told.entries
    places = [
        row.get("id", (row["run_id"], row["first_seq"])) for row in await harness.rows("journal")
    ]
    assert len(places) == len(set(places)) == 3 * len(runs) - 1


@pytest.mark.parametrize("reopenings", [1, 2])
async def test_p5_a_run_that_ended_before_the_crash_is_read_to_its_end(
    store: Store, harness: StoreHarness, reopenings: int
) -> None:
    """While another run is live, rows of an ended one may stay in the journal for a while."""
    live = await begin(store, Told())
    ended = await tell(store, Told(), TextDelta("a"), TextDelta("b"))
    for _ in range(reopenings):
        store = await harness.reopen(store)
    page = await store.read_log(ended.run.id, 0)
    assert page == LogPage(ended.entries, ended=True, last_seq=len(ended.entries))
    assert await store.read_log(ended.run.id, len(ended.entries)) == LogPage(
        [], ended=True, last_seq=len(ended.entries)
    )
    assert [run.id for run, _ in await store.live_runs()] == [live.run.id]


async def test_rows_of_ended_runs_do_not_stay_for_ever_after_a_crash(
    store: Store, harness: StoreHarness
) -> None:
    live = await begin(store, Told())
    await tell(store, Told(), TextDelta("a"))
    store = await harness.reopen(store)
    await commit(store, live.finish(end=CRASHED))
    await tell(store, Told(), TextDelta("b"))
    assert await harness.rows("journal") == []


async def test_a_session_stays_busy_until_its_dead_run_is_ended(
    store: Store, harness: StoreHarness
) -> None:
    told = await begin(store, Told())
    store = await harness.reopen(store)
    session = await store.get_session(OWNER, told.run.session_id)
    assert session is not None
    assert session.live_run_id == told.run.id
    await commit(store, told.finish(end=CRASHED))
    await begin(store, told.next_turn())


async def test_nothing_changes_by_opening_again(store: Store, harness: StoreHarness) -> None:
    await begin(store, Told(), TextDelta("a"))
    await tell(store, Told(), TextDelta("b"))
    store = await harness.reopen(store)  # rows of ended runs that were still there go now
    before = await harness.text()
    await harness.reopen(store)
    assert await harness.text() == before


# ------------------------------------------------------------------------------ closing


async def test_a_store_may_be_closed_twice(harness: StoreHarness) -> None:
    store = harness.make()
    await store.open()
    await store.close()
    await store.close()


async def test_a_store_that_was_never_opened_may_be_closed(harness: StoreHarness) -> None:
    await harness.make().close()


async def test_a_closed_store_takes_no_writes(harness: StoreHarness) -> None:
    store = harness.make()
    await store.open()
    await store.close()
    with pytest.raises(StoreUnavailable):
        await asyncio.wait_for(store.commit([Append("r", 1, 1, b"{}\n")]), GIVE_UP_S)


async def test_a_closed_store_cannot_be_read(harness: StoreHarness) -> None:
    store = harness.make()
    await store.open()
    await store.close()
    with pytest.raises(StoreUnavailable):
        await asyncio.wait_for(store.read_log("r", 0), GIVE_UP_S)


# ------------------------------------------------------------------------------ the schema


async def test_a_release_starts_on_the_schema_of_a_later_one_that_allows_it(
    store: Store, harness: StoreHarness
) -> None:
    """While nodes are restarted one after the other, one of the old ones may have to start."""
    told = await tell(store, Told(), TextDelta("a"))
    await harness.change("UPDATE alembic_version SET version_num = '9999'")
    store = await harness.reopen(store)
    assert await read_all(store, told.run.id) == told.entries
    await tell(store, told.next_turn(), TextDelta("b"))
    assert [row["version_num"] for row in await harness.rows("alembic_version")] == ["9999"]


@pytest.mark.parametrize(
    "change", ["UPDATE compatibility SET oldest = '9998'", "DROP TABLE compatibility"]
)
async def test_a_release_does_not_start_on_a_schema_that_does_not_allow_it(
    store: Store, harness: StoreHarness, change: str
) -> None:
    await harness.change("UPDATE alembic_version SET version_num = '9999'")
    await harness.change(change)
    await harness.abandon(store)
    newer = harness.make()
    with pytest.raises(ConfigError, match=r"9999.*newer"):
        await newer.open()
    await newer.close()
