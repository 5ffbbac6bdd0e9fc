"""Hints between nodes: given, lost, too many, and a connection that breaks."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from holdfast.errors import ConfigError, StoreUnavailable
from holdfast.store.postgres import PostgresStore
from holdfast.store.postgres import control as module
from holdfast.store.postgres.link import Link
from holdfast.store.shared import HINT_BYTES
from tests.support.harness import PostgresHarness
from tests.support.pg_proxy import PgProxy
from tests.support.postgres import PostgresServer
from tests.support.stage import GIVE_UP_S


class Ear:
    """What a node heard."""

    def __init__(self, store: PostgresStore) -> None:
        self.heard: list[str] = []
        self.gaps = 0
        self._changed = asyncio.Event()
        store.listen(self._hear, self._gap)

    def _hear(self, hint: str) -> None:
        self.heard.append(hint)
        self._changed.set()
        if hint == "trouble":
            raise ValueError("scripted")

    def _gap(self) -> None:
        self.gaps += 1

    async def until(self, hint: str) -> list[str]:
        """Wait for a hint; all that were heard up to it."""
        async with asyncio.timeout(GIVE_UP_S):
            while hint not in self.heard:
                self._changed.clear()
                await self._changed.wait()
        return self.heard


@pytest.fixture
async def cluster(postgres_url: str) -> AsyncIterator[PostgresHarness]:
    cluster = PostgresHarness(postgres_url)
    yield cluster
    await cluster.close()


async def test_hints_reach_the_node_that_they_are_for_in_their_order(
    cluster: PostgresHarness,
) -> None:
    one, other, third = [await cluster.open() for _ in range(3)]
    ear, elsewhere = Ear(other), Ear(third)
    hints = [f"news run:{number}" for number in range(100)]
    for hint in hints:
        one.send_hint(other.node_id, hint)
    one.send_hint(third.node_id, "last")
    assert await ear.until(hints[-1]) == hints
    assert await elsewhere.until("last") == ["last"]
    longest = "x" * HINT_BYTES
    one.send_hint(other.node_id, longest + "x")
    one.send_hint(other.node_id, longest)
    assert (await ear.until(longest))[len(hints) :] == [longest]


async def test_a_hint_that_is_not_understood_does_not_keep_the_next_one_out(
    cluster: PostgresHarness,
) -> None:
    store = await cluster.open()
    ear = Ear(store)
    store.send_hint(store.node_id, "trouble")
    store.send_hint(store.node_id, "then")
    assert await ear.until("then") == ["trouble", "then"]


async def test_hints_that_wait_are_bounded(cluster: PostgresHarness) -> None:
    store = await cluster.open()
    ear = Ear(store)
    for number in range(3 * module.WAITING_HINTS):
        store.send_hint(store.node_id, f"news run:{number}")
    await ear.until(f"news run:{module.WAITING_HINTS - 1}")
    store.send_hint(store.node_id, "then")
    assert len(await ear.until("then")) == module.WAITING_HINTS + 1


async def test_a_connection_that_was_cut_is_made_anew_and_hints_come_again(
    postgres: PostgresServer, cluster: PostgresHarness
) -> None:
    store = await cluster.open()
    ear = Ear(store)
    for _ in range(3):
        gaps = ear.gaps
        assert postgres.cut(f"holdfast control {store.node_id}") == 1
        async with asyncio.timeout(GIVE_UP_S):
            while ear.gaps == gaps:
                try:
                    await store.beat()
                except StoreUnavailable:
                    store.send_hint(store.node_id, "lost")
        assert ear.gaps == gaps + 1
        store.send_hint(store.node_id, f"after {gaps}")
        await ear.until(f"after {gaps}")
    assert "lost" not in ear.heard


async def test_hints_that_are_lost_harm_nothing_else(postgres_url: str) -> None:
    with PgProxy(postgres_url) as proxy:
        store = PostgresStore(proxy.url)
        await store.open()
        await store.join()
        ear = Ear(store)
        proxy.swallow_notifications()
        store.send_hint(store.node_id, "lost")
        while proxy.swallowed == 0:
            await store.beat()
        proxy.swallow_notifications(False)
        store.send_hint(store.node_id, "heard")
        assert await ear.until("heard") == ["heard"]
        await store.leave()
        await store.close()


async def test_nothing_is_sent_before_there_is_a_connection_or_after_the_end(
    cluster: PostgresHarness,
) -> None:
    before = asyncio.all_tasks()
    store = cluster.make()
    store.send_hint(store.node_id, "too early")
    await store.open()
    await store.join()
    store.send_hint(store.node_id, "under way")
    await store.close()
    store.send_hint(store.node_id, "too late")
    assert asyncio.all_tasks() == before
    with pytest.raises(StoreUnavailable):
        await store.reap()


@pytest.mark.parametrize(
    "url", ["postgresql:/host/db", "mysql://host/db", "host/db", "", "postgresql://h:port/db"]
)
def test_a_url_that_names_no_postgresql_is_a_mistake_in_the_settings(url: str) -> None:
    with pytest.raises(ConfigError, match=r"storage\.url"):
        Link(url)


def test_an_error_names_the_server_and_no_password() -> None:
    link = Link("postgresql://me:secret@db.example/chat")
    told = str(link.translate(OSError("refused")))
    assert "db.example" in told
    assert "secret" not in told
