"""The proxy that stands between nodes and PostgreSQL in the fault suite: what it says it does."""

import asyncio
from collections.abc import Iterator

import asyncpg
import pytest

from tests.faults.processes import wait_until
from tests.support.pg_proxy import Messages, PgProxy
from tests.support.postgres import PostgresServer, postgres_server

SOON_S = 0.5
"""What is held must not come in this time; what is let through has GENEROUS_S."""
GENEROUS_S = 20.0
GONE = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture
def proxy(server: PostgresServer) -> Iterator[PgProxy]:
    with server.database() as url, PgProxy(url) as proxy:
        yield proxy


async def connect(proxy: PgProxy, name: str = "tester") -> asyncpg.Connection:
    return await asyncpg.connect(
        proxy.url, timeout=GENEROUS_S, server_settings={"application_name": name}
    )


def test_messages_are_the_same_however_they_are_cut() -> None:
    whole = [b"A\0\0\0\4", b"D\0\0\0\6ab", b"Z\0\0\0\5I"]
    stream = b"".join(whole)
    for cut in range(len(stream) + 1):
        messages = Messages()
        assert messages.feed(stream[:cut]) + messages.feed(stream[cut:]) == whole


async def test_everything_passes_and_names_are_known(proxy: PgProxy) -> None:
    connection = await connect(proxy, "holdfast control x")
    text = "海带" * 100_000
    assert await connection.fetchval("SELECT $1::text", text) == text
    assert proxy.names == ["holdfast control x"]
    await connection.close()


async def test_notifications_are_swallowed_and_nothing_else(proxy: PgProxy) -> None:
    heard: list[object] = []
    connection = await connect(proxy)
    await connection.add_listener("news", lambda *said: heard.append(said[-1]))
    proxy.swallow_notifications()
    await connection.execute("SELECT pg_notify('news', 'lost')")
    proxy.swallow_notifications(False)
    await connection.execute("SELECT pg_notify('news', 'kept')")
    assert await connection.fetchval("SELECT 1") == 1
    assert heard == ["kept"]
    assert (proxy.swallowed, proxy.passed) == (1, 1)
    await connection.close()


@pytest.mark.parametrize("silently", [False, True])
async def test_a_cut_breaks_connections_until_it_heals(
    proxy: PgProxy, server: PostgresServer, silently: bool
) -> None:
    connection = await connect(proxy, "cut me")
    proxy.cut(silently=silently)
    with pytest.raises(GONE):
        await connection.fetchval("SELECT 1")
    with pytest.raises(GONE):
        await connect(proxy)
    sql = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'cut me'"
    if silently:
        assert server.run(sql)
    proxy.heal()
    wait_until(lambda: not server.run(sql), GENEROUS_S, "the server's end of the connection")
    connection = await connect(proxy)
    assert await connection.fetchval("SELECT 1") == 1
    await connection.close()


@pytest.mark.parametrize("direction", ["up", "down"])
async def test_what_is_stalled_comes_later(proxy: PgProxy, direction: str) -> None:
    connection = await connect(proxy)
    await connection.execute("CREATE TABLE seen (x int)")
    proxy.stall(up=direction == "up", down=direction == "down")
    work = asyncio.create_task(connection.execute("INSERT INTO seen VALUES (1)"))
    late = asyncio.create_task(connect(proxy))
    done, _ = await asyncio.wait([work, late], timeout=SOON_S)
    assert not done
    proxy.heal()
    await asyncio.wait_for(work, GENEROUS_S)
    other = await asyncio.wait_for(late, GENEROUS_S)
    assert await other.fetchval("SELECT count(*) FROM seen") == 1
    await connection.close()
    await other.close()


async def test_a_lost_answer_is_the_answer_of_something_that_was_done(proxy: PgProxy) -> None:
    connection = await connect(proxy)
    await connection.execute("CREATE TABLE seen (x int)")
    other = await connect(proxy, "other")
    proxy.lose_answer("tester")
    assert await other.fetchval("SELECT 1") == 1
    with pytest.raises(GONE):
        await connection.execute("INSERT INTO seen VALUES (1)")
    proxy.heal()
    connection = await connect(proxy)
    assert await connection.fetchval("SELECT count(*) FROM seen") == 1
    await connection.close()
