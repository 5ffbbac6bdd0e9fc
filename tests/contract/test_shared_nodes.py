"""The contract of every store that nodes share: leases, generations, what is left to others."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, get_args

import asyncpg
import pytest

from holdfast.engine.run import UpstreamEnd
from holdfast.errors import Fenced, HoldfastError
from holdfast.events import Reason, TextDelta
from holdfast.store.port import (
    Append,
    CompleteMessage,
    CreateKey,
    CreateRun,
    CreateSession,
    DeleteSession,
    FinishRun,
    Probe,
    Remember,
    RequestCancel,
    RevokeKey,
    SetFeedback,
    UpdateSession,
    Write,
)
from holdfast.store.postgres import PostgresStore
from tests.support.harness import PostgresHarness
from tests.support.records import OWNER, Told, a_key, a_session, begin, commit, read_all, tell, tick

CRASHED = UpstreamEnd(Reason.SERVER_CRASH)
GIVE_UP_S = 20.0
"""Far more than anything takes: only a test that fails waits for it."""


class Kept:
    """Something of every kind that a write can be about."""

    def __init__(self, store: PostgresStore) -> None:
        self.store = store
        self.session = a_session()
        self.key = a_key()
        self.live = Told()
        self.ended = Told()

    async def commit(self) -> None:
        await commit(self.store, CreateSession(self.session), CreateKey(self.key))
        await begin(self.store, self.live, TextDelta("Half"))
        cut = UpstreamEnd(Reason.UPSTREAM_TIMEOUT)
        await tell(self.store, self.ended, TextDelta("Half"), end=cut)

    def writes(self) -> dict[type, Write]:
        """A write of each kind, each of which would change something."""
        session, ended = self.session.id, self.ended.run
        request = {"said": "on the wire"}
        append = self.live.say(TextDelta(" of it"))
        return {
            CreateRun: Told(session_id=session, idempotency_key="k", fingerprint="f").create(),
            Append: Append(append.run_id, 3, 3, append.payload, request),
            FinishRun: self.live.finish(TextDelta("."), end=CRASHED),
            RequestCancel: RequestCancel(self.live.run.id),
            CreateSession: CreateSession(a_session()),
            UpdateSession: UpdateSession(OWNER, session, tick(), title="new"),
            DeleteSession: DeleteSession(OWNER, ended.session_id),
            Remember: Remember(session, "script", "theirs"),
            SetFeedback: SetFeedback(OWNER, ended.message_id, {"rating": 1}),
            CompleteMessage: CompleteMessage(
                OWNER, ended.session_id, ended.message_id, "Half and half", None, tick()
            ),
            CreateKey: CreateKey(a_key()),
            RevokeKey: RevokeKey(self.key.id, tick()),
            Probe: Probe(tick()),
        }


KINDS: Final = get_args(Write)


async def fence(cluster: PostgresHarness, node: PostgresStore) -> PostgresStore:
    """Another node, which has taken the claim of `node`."""
    await cluster.expire(node.node_id)
    return await cluster.open()


# ------------------------------------------------------------------------------ generations


async def test_there_is_a_write_of_every_kind_here(node: PostgresStore) -> None:
    kept = Kept(node)
    await kept.commit()
    assert set(kept.writes()) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
async def test_p3_a_node_that_lost_its_claim_writes_nothing_of_any_kind(
    cluster: PostgresHarness, node: PostgresStore, kind: type
) -> None:
    kept = Kept(node)
    await kept.commit()
    write = kept.writes()[kind]
    await fence(cluster, node)
    before = await cluster.text()
    with pytest.raises(Fenced):
        await node.commit([write])
    assert await cluster.text() == before


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
async def test_the_same_write_passes_while_the_claim_stands(
    cluster: PostgresHarness, node: PostgresStore, kind: type
) -> None:
    """Else the test above would show nothing."""
    kept = Kept(node)
    await kept.commit()
    before = await cluster.text()
    await commit(node, kept.writes()[kind])
    assert (await cluster.text() == before) == (kind is Probe)


async def test_p3_a_batch_of_a_node_that_lost_its_claim_is_refused_as_a_whole(
    cluster: PostgresHarness, node: PostgresStore
) -> None:
    kept = Kept(node)
    await kept.commit()
    writes = list(kept.writes().values())
    await fence(cluster, node)
    before = await cluster.text()
    for batch in (writes, writes[:2], [kept.live.say(TextDelta("a")) for _ in range(3)]):
        with pytest.raises(Fenced):
            await node.commit(batch)
    assert await cluster.text() == before


async def test_a_node_may_not_write_before_it_has_joined(cluster: PostgresHarness) -> None:
    store = cluster.make()
    await store.open()
    try:
        with pytest.raises(Fenced):
            await store.commit([CreateSession(a_session())])
        with pytest.raises(Fenced):
            await store.beat()
    finally:
        await store.close()
    assert await cluster.rows("sessions") == []


async def test_a_node_that_lost_its_claim_is_told_so_by_its_next_heartbeat(
    cluster: PostgresHarness, node: PostgresStore
) -> None:
    await node.beat()
    await fence(cluster, node)
    with pytest.raises(Fenced):
        await node.beat()


async def test_a_node_comes_back_as_a_new_generation_that_has_none_of_the_old_runs(
    cluster: PostgresHarness, node: PostgresStore
) -> None:
    old = await begin(node, Told(), TextDelta("a"))
    await fence(cluster, node)
    await node.join()
    await node.beat()
    assert await node.own_runs() == []
    before = await cluster.text()
    assert await node.commit([old.rival().say(TextDelta("b"))]) == [False]
    assert await cluster.text() == before
    new = await begin(node, Told(), TextDelta("a"))
    assert [run.id for run, _ in await node.own_runs()] == [new.run.id]
    rows = {row["id"]: row["generation"] for row in await cluster.rows("runs")}
    assert rows[new.run.id] > rows[old.run.id]


async def test_p3_nobody_takes_a_claim_while_its_commit_is_under_way(
    cluster: PostgresHarness, node: PostgresStore
) -> None:
    """The row of the node is locked by each of its commits until that is done."""
    other = await cluster.open()
    writing = await asyncpg.connect(cluster.url)
    try:
        commit_of_node = writing.transaction()
        await commit_of_node.start()
        await writing.execute("SELECT 1 FROM nodes WHERE id = $1 FOR SHARE", node.node_id)
        await cluster.expire(node.node_id)
        reaping = asyncio.create_task(other.reap())
        await cluster.until_blocked(1)
        assert not reaping.done()
        await commit_of_node.commit()
        assert await asyncio.wait_for(reaping, GIVE_UP_S) == 1
    finally:
        await writing.close()


# ------------------------------------------------------------------------------ leases


async def test_a_claim_whose_lease_is_not_over_is_left_alone(
    cluster: PostgresHarness, node: PostgresStore
) -> None:
    other = await cluster.open()
    assert (await other.reap(), await node.reap()) == (0, 0)
    await commit(node, CreateSession(a_session()))
    await node.beat()


async def test_a_heartbeat_keeps_the_claim_for_another_lease(
    cluster: PostgresHarness, node: PostgresStore
) -> None:
    other = await cluster.open()
    await cluster.read(
        "UPDATE node_heartbeats SET beat_at = beat_at - 10 * lease_ms, lease_ms = 60000"
        " WHERE node_id = $1",
        node.node_id,
    )
    await node.beat()
    assert await other.reap() == 0
    await commit(node, CreateSession(a_session()))


async def test_one_claim_is_taken_once_whoever_comes_first(cluster: PostgresHarness) -> None:
    dead = [await cluster.open() for _ in range(3)]
    others = [await cluster.open() for _ in range(3)]
    before = {row["id"]: row["generation"] for row in await cluster.rows("nodes")}
    for one in dead:
        await cluster.expire(one.node_id)
    assert sum(await asyncio.gather(*(one.reap() for one in others))) == 3
    after = {row["id"]: row["generation"] for row in await cluster.rows("nodes")}
    gone = {one.node_id for one in dead}
    assert all(after.get(id) == value + (id in gone) for id, value in before.items())


async def test_nobody_is_judged_for_a_time_in_which_the_judge_was_away(
    cluster: PostgresHarness, node: PostgresStore
) -> None:
    other = await cluster.open()
    await cluster.read(
        "UPDATE node_heartbeats SET beat_at = 0, lease_ms = 1 WHERE node_id = $1", node.node_id
    )
    await cluster.read(
        "UPDATE node_heartbeats SET beat_at = beat_at - lease_ms WHERE node_id = $1", other.node_id
    )
    assert await other.reap() == 0
    await other.beat()
    assert await other.reap() == 1


async def test_times_are_those_of_the_database(
    cluster: PostgresHarness, node: PostgresStore
) -> None:
    (row,) = await cluster.read("SELECT (extract(epoch FROM now()) * 1000)::bigint AS at")
    before, beat_at = row["at"], await node.beat()
    (row,) = await cluster.read("SELECT (extract(epoch FROM now()) * 1000)::bigint AS at")
    assert before <= beat_at <= row["at"]


async def test_a_node_that_leaves_leaves_its_runs_to_others_at_once(
    cluster: PostgresHarness, node: PostgresStore
) -> None:
    other = await cluster.open()
    told = await begin(node, Told(), TextDelta("a"))
    assert await other.orphans() == []
    await node.leave()
    assert await other.orphans() == [(told.run, False)]
    with pytest.raises(Fenced):
        await node.commit([told.say(TextDelta("b"))])
    assert node.node_id not in {row["id"] for row in await cluster.rows("nodes")}
    assert node.node_id not in {row["node_id"] for row in await cluster.rows("node_heartbeats")}


# ------------------------------------------------------------------------------ orphans


async def test_events_that_came_while_their_session_was_erased_are_erased_too(
    cluster: PostgresHarness, node: PostgresStore
) -> None:
    told = await begin(node, Told(), TextDelta("a"))
    await cluster.change(
        "INSERT INTO journal (run_id, first_seq, last_seq, payload) VALUES ('gone', 2, 2, 'x')"
    )
    await node.sweep()
    assert {row["run_id"] for row in await cluster.rows("journal")} == {told.run.id}
    assert await read_all(node, told.run.id) == told.entries


async def test_p3_live_runs_of_dead_nodes_are_orphans_and_those_of_living_ones_are_not(
    cluster: PostgresHarness, node: PostgresStore
) -> None:
    other = await cluster.open()
    dead = [await begin(node, Told()) for _ in range(2)]
    await tell(node, Told(), TextDelta("a"))
    own = await begin(other, Told())
    await commit(other, RequestCancel(dead[1].run.id))
    assert await other.orphans() == []
    await cluster.expire(node.node_id)
    third = await cluster.open()
    for one in (other, third):
        assert await one.orphans() == [(dead[0].run, False), (dead[1].run, True)]
    assert await other.own_runs() == [(own.run, False)]


async def test_p3_an_orphan_is_ended_once_however_many_try(
    cluster: PostgresHarness, node: PostgresStore
) -> None:
    orphans = [await begin(node, Told(), TextDelta("a")) for _ in range(5)]
    others = [await fence(cluster, node), await cluster.open(), await cluster.open()]
    ends = [[told.rival().finish(end=CRASHED) for told in orphans] for _ in others]
    results = await asyncio.gather(
        *(other.commit(writes) for other, writes in zip(others, ends, strict=True))
    )
    assert [sorted(told) for told in zip(*results, strict=True)] == [[False, False, True]] * 5
    for told in orphans:
        assert [type(e.event).__name__ for e in await read_all(others[0], told.run.id)] == [
            "RunStart",
            "TextDelta",
            "RunEnd",
        ]
    assert await cluster.rows("journal") == []
    assert await others[0].orphans() == []


async def test_a_node_knows_who_executes_a_run(
    cluster: PostgresHarness, node: PostgresStore
) -> None:
    other = await cluster.open()
    told, ended = await begin(node, Told()), await tell(node, Told())
    assert await other.node_of(told.run.id) == node.node_id
    assert await other.node_of(ended.run.id) is None
    assert await other.node_of("no-such-run") is None
    await fence(cluster, node)
    assert await other.node_of(told.run.id) is None


async def test_p10_a_cancel_taken_by_any_node_reaches_the_owner(
    cluster: PostgresHarness, node: PostgresStore
) -> None:
    other = await cluster.open()
    first, second = await begin(node, Told()), await begin(node, Told())
    await commit(other, RequestCancel(second.run.id))
    assert await node.own_runs() == [(first.run, False), (second.run, True)]


# ------------------------------------------------------------------------------ reading


async def test_p5_news_are_what_came_after_each_cursor(
    cluster: PostgresHarness, node: PostgresStore
) -> None:
    other = await cluster.open()
    first = await begin(node, Told(), TextDelta("a"))
    second, ended = await begin(node, Told()), await tell(node, Told(), TextDelta("a"))
    cursors = {first.run.id: 2, second.run.id: 0, ended.run.id: 0, "no-such-run": 0}
    assert await other.read_news(cursors) == {second.run.id: second.entries}
    await commit(node, first.say(TextDelta("b")), second.say(TextDelta("c"), TextDelta("d")))
    await commit(node, first.say(TextDelta("e")))
    news = await other.read_news({first.run.id: 2, second.run.id: 1})
    assert news == {first.run.id: first.entries[2:], second.run.id: second.entries[1:]}
    assert await other.read_news({}) == {}


Wait = Callable[[], Awaitable[Any]]


class Ear:
    """What a node was told."""

    def __init__(self, store: PostgresStore) -> None:
        self.hints: list[str] = []
        self.gaps = 0
        self._changed = asyncio.Event()
        store.listen(self._hear, self._miss)

    def _hear(self, hint: str) -> None:
        self.hints.append(hint)
        self._changed.set()

    def _miss(self) -> None:
        self.gaps += 1
        self._changed.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(GIVE_UP_S):
            while not holds():
                self._changed.clear()
                await self._changed.wait()


async def test_hints_reach_the_node_they_are_for(
    cluster: PostgresHarness, node: PostgresStore
) -> None:
    other, third = await cluster.open(), await cluster.open()
    ear, deaf = Ear(node), Ear(third)
    longest = "n" * 7_900
    for hint in ("watch 1", "unwatch 'quoted' \\", longest, longest + "x", "last"):
        other.send_hint(node.node_id, hint)
    other.send_hint("no-such-node", "lost")
    await ear.until(lambda: ear.hints[-1:] == ["last"])
    assert ear.hints == ["watch 1", "unwatch 'quoted' \\", longest, "last"]
    assert deaf.hints == []


async def test_a_node_whose_listening_was_interrupted_is_told_that_it_may_have_missed_something(
    cluster: PostgresHarness, node: PostgresStore
) -> None:
    other, ear = await cluster.open(), Ear(node)
    await cluster.cut(f"holdfast control {node.node_id}")
    async with asyncio.timeout(GIVE_UP_S):
        while ear.gaps == 0:
            try:
                await node.beat()
            except HoldfastError:
                continue
    other.send_hint(node.node_id, "again")
    await ear.until(lambda: "again" in ear.hints)
