"""The store on PostgreSQL when things go wrong in the middle: silence, races, late answers."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
import pytest

from holdfast.errors import ConfigError, Fenced, StoreUnavailable
from holdfast.events import TextDelta
from holdfast.store.port import CreateSession
from holdfast.store.postgres import PostgresStore
from holdfast.store.postgres import statements as sql
from holdfast.store.postgres import store as module
from holdfast.store.postgres.writer import PostgresWriter
from tests.support.harness import PostgresHarness
from tests.support.loop import turns
from tests.support.pg_proxy import PgProxy
from tests.support.postgres import PostgresServer
from tests.support.records import OWNER, Told, a_session, begin, commit, read_all
from tests.support.stage import GIVE_UP_S

SHORT_S = 1.0
"""A time-out that is waited for; nothing is expected to happen within it."""


@pytest.fixture
async def cluster(postgres_url: str) -> AsyncIterator[PostgresHarness]:
    cluster = PostgresHarness(postgres_url)
    yield cluster
    await cluster.close()


@pytest.fixture
async def raw(postgres_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection of the test's own, past any store."""
    connection = await asyncpg.connect(postgres_url, ssl=False)
    yield connection
    await connection.close()


async def blocked(raw: asyncpg.Connection, count: int) -> None:
    """Wait until so many connections wait for a lock."""
    waiting = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    async with asyncio.timeout(GIVE_UP_S):
        while await raw.fetchval(waiting) < count:
            pass


# ------------------------------------------------------------------------------ silence


@pytest.mark.parametrize("work", ["commit", "join", "reap"])
async def test_a_server_that_falls_silent_in_a_transaction_is_not_waited_for(
    postgres_url: str, raw: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, work: str
) -> None:
    """As when a cable is pulled: nobody says that the connection is gone."""
    monkeypatch.setattr(module, "COMMIT_TIMEOUT_S", SHORT_S)
    with PgProxy(postgres_url) as proxy:
        store = PostgresStore(proxy.url, lease_s=2 * SHORT_S)
        await store.open()
        await store.join()
        await commit(store, CreateSession(a_session()))
        async with raw.transaction():
            table = "node_heartbeats" if work == "reap" else "nodes"
            await raw.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            commits = store.commit([Told().create()])
            doing = asyncio.ensure_future(commits if work == "commit" else getattr(store, work)())
            if work != "commit":
                commits.close()
            await blocked(raw, 1)
            proxy.stall()
            with pytest.raises(StoreUnavailable):
                await asyncio.wait_for(doing, GIVE_UP_S)
        proxy.heal()
        await store.join()
        await store.beat()
        await begin(store, Told())
        await store.close()


async def test_closing_does_not_wait_for_a_server_that_is_silent(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COMMIT_TIMEOUT_S", SHORT_S)
    with PgProxy(postgres_url) as proxy:
        store = PostgresStore(proxy.url, lease_s=2 * SHORT_S)
        await store.open()
        await store.join()
        told = await begin(store, Told())
        await asyncio.gather(*(store.read_log(told.run.id, 0) for _ in range(4)))
        store.send_hint(store.node_id, "news")
        proxy.stall()
        writing = asyncio.create_task(store.commit([Told().create()]))
        await turns()
        with pytest.raises(StoreUnavailable):
            await store.leave()
        await asyncio.wait_for(store.close(), 4 * GIVE_UP_S)
        with pytest.raises(StoreUnavailable):
            await writing
        for call in (store.beat, store.reap, store.join, lambda: store.read_log(told.run.id, 0)):
            with pytest.raises((StoreUnavailable, Fenced)):
                await call()
        proxy.heal()


# ------------------------------------------------------------------------------ connections


async def test_reads_go_on_though_every_connection_of_the_pool_was_cut(
    postgres: PostgresServer, cluster: PostgresHarness
) -> None:
    store = await cluster.open()
    told = await begin(store, Told(), TextDelta("a"))
    for _ in range(2):
        await asyncio.gather(*(store.read_log(told.run.id, 0) for _ in range(20)))
        postgres.cut(f"holdfast read {store.node_id}")
        assert await read_all(store, told.run.id) == told.entries
        assert await store.get_run(OWNER, told.run.id) is not None


async def test_a_password_that_is_wrong_is_a_setting_at_the_start_and_an_outage_later(
    postgres: PostgresServer, cluster: PostgresHarness
) -> None:
    store = await cluster.open()
    postgres.run(f'ALTER DATABASE "{cluster.url.rpartition("/")[2]}" ALLOW_CONNECTIONS false')
    try:
        postgres.cut(f"holdfast commit {store.node_id}")
        postgres.cut("holdfast read %")
        with pytest.raises(StoreUnavailable):
            await store.commit([CreateSession(a_session())])
    finally:
        postgres.run(f'ALTER DATABASE "{cluster.url.rpartition("/")[2]}" ALLOW_CONNECTIONS true')
    with pytest.raises(ConfigError):
        await PostgresStore(cluster.url + "_that_is_not_there").open()
    await commit(store, CreateSession(a_session()))


async def test_a_store_that_is_not_joined_writes_nothing(cluster: PostgresHarness) -> None:
    store = await cluster.open()
    await store.leave()
    with pytest.raises(Fenced):
        await store.commit([CreateSession(a_session())])
    assert await cluster.rows("sessions") == []
    assert await cluster.rows("nodes") == []
    assert await store.own_runs() == []


# ------------------------------------------------------------------------------ generations


async def test_a_refusal_that_comes_late_does_not_harm_the_generation_that_came_since(
    cluster: PostgresHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await cluster.open()
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def late(self: PostgresWriter, writes: Sequence[Any], retried: Any) -> list[Any]:
        begun.set()
        await go_on.wait()
        raise Fenced("scripted: said to the generation before")

    with monkeypatch.context() as patch:
        patch.setattr(PostgresWriter, "apply", late)
        writing = asyncio.create_task(store.commit([Told().create()]))
        await begun.wait()
        await store.join()
        go_on.set()
        with pytest.raises(Fenced):
            await writing
    await store.beat()
    await begin(store, Told())


async def test_p3_a_stopped_process_cannot_keep_its_claim_by_a_transaction(
    cluster: PostgresHarness, postgres_url: str
) -> None:
    """PostgreSQL ends one that is idle, but not one that cannot send what it was asked for."""
    dead, judge = await cluster.open(), await cluster.open()
    told = await begin(dead, Told(), TextDelta("a"))
    name = {"application_name": f"holdfast commit {dead.node_id}"}
    stopped = await asyncpg.connect(postgres_url, ssl=False, server_settings=name)
    await stopped.execute("BEGIN")
    await stopped.execute("SELECT FROM nodes WHERE id = $1 FOR SHARE", dead.node_id)
    await cluster.expire(dead.node_id)
    assert await judge.reap() == 1
    assert [run.id for run, _ in await judge.orphans()] == [told.run.id]
    assert stopped.is_closed() or await _is_gone(stopped)
    with pytest.raises(Fenced):
        await dead.commit([told.say(TextDelta("b"))])


async def _is_gone(connection: asyncpg.Connection) -> bool:
    try:
        await connection.execute("SELECT 1")
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        return True
    return False


async def test_a_node_that_joins_anew_is_not_taken_for_one_that_is_long_gone(
    cluster: PostgresHarness, raw: asyncpg.Connection
) -> None:
    """Its row is looked at by another node that does not see the new heartbeat yet."""
    node, other = await cluster.open(), await cluster.open()
    dead = await cluster.open()
    await cluster.expire(node.node_id)
    assert await other.reap() == 1
    await raw.execute("UPDATE nodes SET started_at = 1 WHERE id = $1", node.node_id)
    # The node joins, and is not done yet.
    joining = raw.transaction()
    await joining.start()
    generation = await raw.fetchval(sql.JOIN, node.node_id, 1)
    await raw.fetchval(sql.BEGIN_LEASE, node.node_id, generation, 600_000)
    await cluster.expire(dead.node_id)
    reaping = asyncio.create_task(other.reap())
    watching = await asyncpg.connect(cluster.url, ssl=False)
    await blocked(watching, 1)
    await watching.close()
    await joining.commit()
    assert await asyncio.wait_for(reaping, GIVE_UP_S) == 1
    assert node.node_id in {row["id"] for row in await cluster.rows("nodes")}


async def test_no_generation_comes_twice_though_the_node_was_forgotten(
    cluster: PostgresHarness,
) -> None:
    node, other = await cluster.open(), await cluster.open()
    seen = [await _generation(cluster, node)]
    for _ in range(3):
        await cluster.read("UPDATE nodes SET started_at = 1 WHERE id = $1", node.node_id)
        await cluster.expire(node.node_id)
        assert await other.reap() == 1
        assert await _generation(cluster, node) is None
        with pytest.raises(Fenced):
            await node.beat()
        await node.join()
        seen.append(await _generation(cluster, node))
    assert seen == [1, 2, 3, 4]


async def _generation(cluster: PostgresHarness, node: PostgresStore) -> int | None:
    rows = {row["id"]: row["generation"] for row in await cluster.rows("nodes")}
    return rows.get(node.node_id)


# ------------------------------------------------------------------------------ the judge


async def test_a_node_that_was_away_gives_the_others_a_lease_more(
    cluster: PostgresHarness,
) -> None:
    """While the database was away nobody could beat; then whoever is first must not judge."""
    judge, other = await cluster.open(), await cluster.open()
    told = await begin(other, Told())
    await cluster.read(
        "UPDATE node_heartbeats SET beat_at = beat_at - 2 * lease_ms, lease_ms = lease_ms / 1000"
    )
    await asyncio.gather(judge.reap(), judge.reap())
    assert await judge.orphans() == []
    # What the judge remembers of its last heartbeat is older than a lease, too.
    judge._control._beat_at -= 2 * judge._lease_ms
    await judge.beat()
    assert await judge.reap() == 0
    await other.beat()
    await commit(other, told.say(TextDelta("a")))


# ------------------------------------------------------------------------------ reading


@pytest.mark.parametrize("limit", [1, 1000])
async def test_p5_a_run_that_ends_while_it_is_read_is_read_whole(
    cluster: PostgresHarness, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    store = await cluster.open()
    told = await begin(store, Told(), TextDelta("a"), TextDelta("b"))
    fetch = store._fetch

    async def end_after(statement: str, *values: Any) -> Any:
        rows = await fetch(statement, *values)
        if statement == sql.READ_JOURNAL:
            await store.commit([told.finish()])
        return rows

    with monkeypatch.context() as patch:
        patch.setattr(store, "_fetch", end_after)
        page = await store.read_log(told.run.id, 0, limit)
    assert page is not None
    assert page.entries == told.entries[:limit]
    assert page.last_seq == len(told.entries)


async def test_news_of_many_runs_are_read_at_once(cluster: PostgresHarness) -> None:
    store = await cluster.open()
    one = await begin(store, Told(), TextDelta("a"))
    other = await begin(store, Told())
    ended = await begin(store, Told())
    await store.commit([ended.finish()])
    cursors = {one.run.id: 1, other.run.id: 1, ended.run.id: 1, "nobody": 0}
    assert await store.read_news(cursors) == {one.run.id: one.entries[1:]}
    assert await store.not_live(list(cursors)) == {ended.run.id, "nobody"}
    assert await store.not_live([]) == set()
    assert await store.read_news({}) == {}
    assert await store.node_of(one.run.id) == store.node_id
    assert await store.node_of(ended.run.id) is None
