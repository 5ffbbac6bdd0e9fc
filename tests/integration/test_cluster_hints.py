"""Two supervisors on one PostgreSQL: what hints bring, what they cost, who is read elsewhere."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

from holdfast.events import Entry, RunEnd
from holdfast.runner import followers
from holdfast.runner.reader import Reader
from holdfast.runner.supervisor import Question, Supervisor
from holdfast.settings import Settings
from holdfast.store.factory import make_store
from holdfast.store.postgres import PostgresStore
from holdfast.store.shared import SharedStore
from tests.support.loop import turns
from tests.support.postgres import PostgresServer
from tests.support.records import OWNER
from tests.support.scripted import DONE, Call, ScriptedUpstream, texts
from tests.support.stage import GIVE_UP_S, until

NEVER_S = 3600.0
SETTINGS = {
    "node": {"heartbeat_s": 1.0, "lease_s": 60.0},
    "runs": {"disconnect_grace_s": 0.0, "on_disconnect": "continue"},
}


class Node:
    """One process, with an upstream of its own."""

    def __init__(self, url: str) -> None:
        settings = Settings(storage={"url": url}, **SETTINGS)  # type: ignore[arg-type]
        store = make_store(settings.storage, settings.node)
        assert isinstance(store, PostgresStore)
        self.store = store
        self.hints: list[tuple[str, str]] = []
        store.send_hint = self._send  # type: ignore[method-assign]
        self.upstream = ScriptedUpstream("script")
        self.supervisor = Supervisor(settings, store, {"script": self.upstream})

    def _send(self, node_id: str, hint: str) -> None:
        self.hints.append((node_id, hint))
        PostgresStore.send_hint(self.store, node_id, hint)

    async def ask(self, message: str = "What is kelp?", **values: Any) -> tuple[str, Call]:
        """The run of a new question, and the hand of the test on its answer."""
        question = Question(owner=OWNER, message=message, **values)
        times = len(self.upstream.calls) + 1
        created = await self.supervisor.ask(question)
        return created.run.id, await asyncio.wait_for(self.upstream.called(times), GIVE_UP_S)

    def read(self, run_id: str, after: int = 0) -> Reader:
        return self.supervisor.read(run_id, after)


@asynccontextmanager
async def nodes_on(url: str, count: int) -> AsyncIterator[list[Node]]:
    async with AsyncExitStack() as stack:
        nodes = [Node(url) for _ in range(count)]
        for node in nodes:
            await node.supervisor.start()
            stack.push_async_callback(node.supervisor.stop)
        yield nodes


@pytest.fixture
async def pair(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[Node]]:
    """Two nodes that never look by themselves at what the other one writes."""
    monkeypatch.setattr(followers, "POLL_S", NEVER_S)
    async with nodes_on(postgres_url, 2) as nodes:
        yield nodes


async def some(reader: Reader, last: int) -> list[Entry]:
    entries: list[Entry] = []
    async with asyncio.timeout(GIVE_UP_S):
        while reader.seq < last:
            entries += await reader.next() or []
    return entries


async def rest(reader: Reader) -> list[Entry]:
    entries: list[Entry] = []
    async with asyncio.timeout(GIVE_UP_S):
        while (more := await reader.next()) is not None:
            entries += more
    reader.close()
    return entries


# ------------------------------------------------------------------------------ hints


async def test_p5_every_token_comes_by_hints_alone(pair: list[Node]) -> None:
    owner, other = pair
    run, call = await owner.ask()
    readers = [owner.read(run), other.read(run), other.read(run)]
    for seq in range(1, 30):
        for reader in readers:
            (entry,) = await some(reader, seq)
            assert entry.seq == seq
        call.push(*texts(f"{seq} "))
    call.push(DONE)
    first, *others = [await rest(reader) for reader in readers]
    assert isinstance(first[-1].event, RunEnd)
    assert others == [first, first]


async def test_a_run_that_nobody_reads_elsewhere_costs_no_hint(pair: list[Node]) -> None:
    owner, other = pair
    run, call = await owner.ask()
    reader = owner.read(run)
    call.push(*texts("a"))
    await some(reader, 2)
    assert owner.hints == []
    elsewhere = other.read(run)
    await some(elsewhere, 2)
    waiting = asyncio.create_task(elsewhere.next())
    await told(owner, "news")
    waiting.cancel()
    elsewhere.close()
    await told(other, "unwatch")
    execution = owner.supervisor.live(run)
    assert execution is not None
    log = execution.log

    async def is_forgotten() -> bool:
        return log._listeners == {reader._on_news}

    await until(is_forgotten)
    hints = len(owner.hints)
    call.push(*texts("b"))
    await some(reader, 3)
    await turns()
    assert len(owner.hints) == hints
    call.push(DONE)
    await rest(reader)


async def told(node: Node, verb: str) -> None:
    """Wait until a node has sent a hint of this kind."""

    async def is_sent() -> bool:
        return any(hint.startswith(f"{verb} ") for _, hint in node.hints)

    await until(is_sent)


async def test_p5_a_run_that_ends_before_its_owner_is_asked_for_hints_is_read_to_the_end(
    pair: list[Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader has read the store before, and nothing would wake it for long."""
    owner, other = pair
    run, call = await owner.ask()
    found, go_on = asyncio.Event(), asyncio.Event()
    node_of = other.store.node_of

    async def late(run_id: str) -> str | None:
        node = await node_of(run_id)
        found.set()
        await go_on.wait()
        return node

    monkeypatch.setattr(other.store, "node_of", late)
    reading = asyncio.create_task(rest(other.read(run)))
    await asyncio.wait_for(found.wait(), GIVE_UP_S)
    mine = owner.read(run)
    call.push(*texts("a"), DONE)
    whole = await rest(mine)
    go_on.set()
    assert await reading == whole


async def test_p5_without_hints_everything_comes_by_looking(
    postgres: PostgresServer, postgres_url: str
) -> None:
    """The connections for hints are cut again and again."""
    async with nodes_on(postgres_url, 2) as (owner, other):
        run, call = await owner.ask()
        mine, theirs = owner.read(run), other.read(run)
        for seq in range(2, 5):
            postgres.cut("holdfast control %")
            call.push(*texts("a"))
            await some(mine, seq)
            await some(theirs, seq)
        call.push(DONE)
        assert await rest(mine) == await rest(theirs)


# ------------------------------------------------------------------------------ who reads


async def test_a_run_lives_as_long_as_it_is_read_at_any_node(pair: list[Node]) -> None:
    owner, other = pair
    run, call = await owner.ask(on_disconnect="cancel")
    mine, theirs = owner.read(run), other.read(run)
    await some(mine, 1)
    await some(theirs, 1)
    waiting = asyncio.create_task(some(theirs, 2))
    await told(owner, "news")
    mine.close()
    await turns()
    call.push(*texts("a"))
    await waiting
    execution = owner.supervisor.live(run)
    assert execution is not None
    theirs.close()
    await asyncio.wait_for(execution.over.wait(), GIVE_UP_S)
    end = (await rest(owner.read(run)))[-1].event
    assert isinstance(end, RunEnd)
    assert end.reason == "client_disconnected"


# ------------------------------------------------------------------------------ order and rest


async def test_turns_are_in_order_whichever_node_was_asked(postgres_url: str) -> None:
    async with nodes_on(postgres_url, 3) as nodes:
        run, call = await nodes[0].ask("0")
        call.push(DONE)
        session = (await nodes[0].supervisor.get_run(OWNER, run)).session_id
        for number in range(12):
            await rest(nodes[number % 3].read(run))
            run, call = await nodes[number % 3].ask(f"{number + 1}", session_id=session)
            call.push(*texts("a"), DONE)
        await rest(nodes[0].read(run))
        messages = await nodes[1].supervisor.list_messages(session, 100, None)
        asked = [one.answer.text for one in messages if one.role == "user"]
        assert asked == [f"{number}" for number in range(13)]


async def test_nothing_is_left_of_nodes_that_have_gone(
    postgres: PostgresServer, postgres_url: str
) -> None:
    before = asyncio.all_tasks()
    async with nodes_on(postgres_url, 3) as nodes:
        run, call = await nodes[0].ask()
        reading = [asyncio.create_task(rest(node.read(run))) for node in nodes]
        call.push(*texts("a"), DONE)
        await asyncio.gather(*reading)
        store: SharedStore = nodes[0].store
        assert await store.node_of(run) is None
    assert asyncio.all_tasks() == before
    name = postgres_url.rpartition("/")[2]

    async def is_alone() -> bool:
        return not postgres.run("SELECT 1 FROM pg_stat_activity WHERE datname = $1", name)

    await until(is_alone)
    async with nodes_on(postgres_url, 1) as (node,):
        assert await node.store.orphans() == []
        rows = await node.store._fetch("SELECT id FROM nodes")
        assert [row["id"] for row in rows] == [node.store.node_id]
