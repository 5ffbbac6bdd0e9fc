"""The contract of every store that nodes share: commits that meet, and answers that get lost."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import patch

import asyncpg
import pytest

from holdfast.errors import (
    IdempotencyMismatch,
    RunActive,
    StoreError,
    StoreUnavailable,
)
from holdfast.events import TextDelta
from holdfast.store.port import (
    CreateKey,
    CreateSession,
    DeleteSession,
    RunCreated,
    UpdateSession,
    Write,
)
from holdfast.store.postgres import PostgresStore
from holdfast.store.postgres.writer import PostgresWriter
from tests.support.harness import GIVE_UP_S, PostgresHarness
from tests.support.postgres import PostgresServer
from tests.support.records import OWNER, Told, a_key, a_session, begin, commit, read_all, tell, tick

NODES = 3


@asynccontextmanager
async def held(cluster: PostgresHarness, table: str, count: int) -> AsyncIterator[None]:
    """Let what the block starts look at everything, but write to `table` only at its end.

    The block ends when so many commits wait: they are all past their looking then.
    """
    holder = await asyncpg.connect(cluster.url)
    try:
        async with holder.transaction():
            await holder.execute(f"LOCK TABLE {table} IN SHARE MODE")
            yield
            await cluster.until_blocked(count)
    finally:
        await holder.close()


async def race(cluster: PostgresHarness, table: str, writes: Sequence[Write]) -> list[Any]:
    """Commit each write on a node of its own, all at the same time; their results."""
    nodes = [await cluster.open() for _ in writes]
    async with held(cluster, table, len(writes)):
        tasks = [
            asyncio.create_task(node.commit([write]))
            for node, write in zip(nodes, writes, strict=True)
        ]
    async with asyncio.timeout(GIVE_UP_S):
        return [result for (result,) in await asyncio.gather(*tasks)]


def kinds(results: Sequence[Any]) -> list[str]:
    return sorted(type(result).__name__ for result in results)


# ------------------------------------------------------------------------------ races


async def test_p7_one_key_asked_at_several_nodes_at_once_is_one_run(
    cluster: PostgresHarness,
) -> None:
    told = [Told(idempotency_key="k", fingerprint="f") for _ in range(NODES)]
    results = await race(cluster, "runs", [one.create() for one in told])
    assert sorted(result.replayed for result in results) == [False, True, True]
    assert len({result.run.id for result in results}) == 1
    counts = await cluster.counts()
    assert (counts["runs"], counts["sessions"], counts["messages"]) == (1, 1, 2)


async def test_p7_one_key_asked_with_different_requests_is_refused_but_once(
    cluster: PostgresHarness,
) -> None:
    told = [Told(idempotency_key="k", fingerprint=f"f{n}") for n in range(NODES)]
    results = await race(cluster, "runs", [one.create() for one in told])
    assert kinds(results) == ["IdempotencyMismatch", "IdempotencyMismatch", "RunCreated"]
    assert all(isinstance(r, IdempotencyMismatch | RunCreated) for r in results)
    assert (await cluster.counts())["runs"] == 1


async def test_a_session_that_several_nodes_ask_at_once_has_one_live_run(
    cluster: PostgresHarness,
) -> None:
    node = await cluster.open()
    session = a_session()
    await commit(node, CreateSession(session))
    told = [Told(session_id=session.id) for _ in range(NODES)]
    results = await race(cluster, "runs", [one.create() for one in told])
    assert kinds(results) == ["RunActive", "RunActive", "RunCreated"]
    (created,) = [result for result in results if isinstance(result, RunCreated)]
    for refusal in results:
        if isinstance(refusal, RunActive):
            assert refusal.extra["run_id"] == created.run.id
    counts = await cluster.counts()
    assert (counts["runs"], counts["messages"]) == (1, 2)


async def test_new_versions_of_one_answer_asked_at_once_do_not_collide(
    cluster: PostgresHarness,
) -> None:
    node = await cluster.open()
    told = await tell(node, Told(), TextDelta("a"))
    again = [told.again() for _ in range(NODES)]
    results = await race(cluster, "runs", [one.create() for one in again])
    assert kinds(results) == ["RunActive", "RunActive", "RunCreated"]
    (message,) = [m for m in await node.list_messages(told.run.session_id, 9) if m.run_id]
    assert (message.version, len(message.versions)) == (2, 2)


async def test_a_callers_name_that_several_nodes_give_at_once_is_one_session(
    cluster: PostgresHarness,
) -> None:
    sessions = [a_session(dialect="anythingllm", key="thread-1") for _ in range(NODES)]
    results = await race(cluster, "sessions", [CreateSession(one) for one in sessions])
    assert kinds(results) == ["NoneType", "StoreError", "StoreError"]
    assert all(result is None or isinstance(result, StoreError) for result in results)
    node = await cluster.open()
    found = await node.find_session(OWNER, "anythingllm", "thread-1")
    assert found == sessions[results.index(None)]
    assert (await cluster.counts())["sessions"] == 1


async def test_a_run_is_not_left_over_when_its_session_is_deleted_at_the_same_time(
    cluster: PostgresHarness,
) -> None:
    node = await cluster.open()
    told = await tell(node, Told(), TextDelta("a"))
    question = told.next_turn()
    delete = DeleteSession(OWNER, told.run.session_id)
    asked, deleted = await race(cluster, "runs", [question.create(), delete])
    assert deleted is None
    if isinstance(asked, RunCreated):  # it came first: then it is gone with the session
        assert await node.get_run(OWNER, question.run.id) is None
    assert {**await cluster.counts(), "journal": 0} == dict.fromkeys(await cluster.counts(), 0)
    assert await node.live_runs() == []


async def test_two_nodes_that_finish_and_delete_at_once_leave_nothing(
    cluster: PostgresHarness,
) -> None:
    """They may lock each other out; then one of them is tried again, and nobody hears of it."""
    first, second = await cluster.open(), await cluster.open()
    for _ in range(5):
        told = await begin(first, Told(), TextDelta("a"))
        delete = DeleteSession(OWNER, told.run.session_id)
        ended, deleted = await asyncio.gather(
            first.commit([told.finish(TextDelta("b"))]), second.commit([delete])
        )
        assert (ended, deleted) in (([True], [None]), ([False], [None]))
    assert (await cluster.counts())["messages"] == 0
    assert (await cluster.counts())["run_logs"] == 0


async def test_sessions_renamed_in_different_orders_at_several_nodes_at_once(
    cluster: PostgresHarness,
) -> None:
    """Transactions that lock the same rows the other way round; one of them is tried again."""
    first, second = await cluster.open(), await cluster.open()
    sessions = [a_session() for _ in range(8)]
    await commit(first, *map(CreateSession, sessions))
    for number in range(5):
        renames = [UpdateSession(OWNER, s.id, tick(), title=f"title {number}") for s in sessions]
        one, other = await asyncio.gather(first.commit(renames), second.commit(renames[::-1]))
        assert one == other == [None] * len(sessions)
    assert {s.title for s in await first.list_sessions(OWNER, 9)} == {"title 4"}


# ------------------------------------------------------------------------------ lost answers


@asynccontextmanager
async def losing_the_answer() -> AsyncIterator[None]:
    """The next commit is done, and then the connection breaks before anybody knows."""
    apply, append = PostgresWriter.apply, PostgresWriter.append
    inside = False

    def breaking(commit: Callable[..., Any]) -> Callable[..., Any]:
        async def broken(writer: PostgresWriter, *values: Any) -> list[Any]:
            nonlocal inside
            if inside:
                results: list[Any] = await commit(writer, *values)
                return results
            inside = True
            await commit(writer, *values)
            raise ConnectionResetError("scripted: the answer got lost")

        return broken

    with (
        patch.object(PostgresWriter, "apply", breaking(apply)),
        patch.object(PostgresWriter, "append", breaking(append)),
    ):
        yield


async def twice(store: PostgresStore, *writes: Write) -> list[Any]:
    """Commit, lose the answer, and commit the same again; what the second time gives."""
    async with losing_the_answer():
        with pytest.raises(StoreUnavailable):
            await store.commit(writes)
    return await store.commit(writes)


async def test_p2_appends_whose_answer_got_lost_are_there_once(node: PostgresStore) -> None:
    told = [await begin(node, Told()) for _ in range(3)]
    appends = [one.say(TextDelta("a"), TextDelta("b")) for one in told]
    appends += [told[0].say(TextDelta("c"))]
    assert await twice(node, *appends) == [None] * 4
    for one in told:
        assert await read_all(node, one.run.id) == one.entries


async def test_p3_an_end_whose_answer_got_lost_is_still_ones_own(
    cluster: PostgresHarness, node: PostgresStore
) -> None:
    told, other = await begin(node, Told(), TextDelta("a")), await begin(node, Told())
    writes: list[Write] = [told.finish(TextDelta("b")), other.say(TextDelta("c"))]
    assert await twice(node, *writes) == [True, None]
    assert await read_all(node, told.run.id) == told.entries
    assert await read_all(node, other.run.id) == other.entries
    assert len(await cluster.rows("run_logs")) == 1


async def test_p3_an_end_that_another_node_made_is_not_ones_own(
    cluster: PostgresHarness, node: PostgresStore
) -> None:
    told = await begin(node, Told(), TextDelta("a"))
    own, theirs = told.rival().finish(TextDelta("own")), told.rival().finish(TextDelta("theirs"))
    other = await cluster.open()
    assert await other.commit([theirs]) == [True]
    async with losing_the_answer():
        with pytest.raises(StoreUnavailable):
            await node.commit([own])
    assert await node.commit([own]) in ([False], [True])
    message = await node.get_message(OWNER, told.run.message_id)
    assert message is not None
    assert message.answer.text == "atheirs"


@pytest.mark.parametrize("key", [None, "k"])
@pytest.mark.parametrize("new_session", [True, False])
async def test_p1_a_question_whose_answer_got_lost_is_asked_once(
    cluster: PostgresHarness, node: PostgresStore, key: str | None, new_session: bool
) -> None:
    told = Told(idempotency_key=key, fingerprint="f")
    if not new_session:
        before = await tell(node, Told())
        told = before.next_turn(idempotency_key=key, fingerprint="f")
    counts = await cluster.counts()
    assert await twice(node, told.create()) == [RunCreated(told.run, replayed=False)]
    added = {name: count - counts[name] for name, count in (await cluster.counts()).items()}
    assert (added["runs"], added["sessions"], added["messages"]) == (1, new_session, 2)
    assert [run.id for run, _ in await node.own_runs()] == [told.run.id]
    await commit(node, told.finish(TextDelta("a")))
    assert await read_all(node, told.run.id) == told.entries


async def test_p7_who_asks_again_since_the_answer_got_lost_gets_the_first_run(
    cluster: PostgresHarness, node: PostgresStore
) -> None:
    """Neither the client nor the node knows that the first question was stored."""
    first, second = (Told(idempotency_key="k", fingerprint="f") for _ in range(2))
    async with losing_the_answer():
        with pytest.raises(StoreUnavailable):
            await node.commit([first.create()])
    assert await node.commit([second.create()]) == [RunCreated(first.run, replayed=True)]
    assert (await cluster.counts())["runs"] == 1


async def test_a_new_version_whose_answer_got_lost_is_one_version(node: PostgresStore) -> None:
    told = await tell(node, Told(), TextDelta("a"))
    again = told.again()
    assert await twice(node, again.create()) == [RunCreated(again.run, replayed=False)]
    message = await node.get_message(OWNER, again.run.message_id)
    assert message is not None
    assert (message.version, len(message.versions)) == (2, 2)


async def test_small_writes_whose_answer_got_lost_are_done_once(
    cluster: PostgresHarness, node: PostgresStore
) -> None:
    session, gone, key = a_session(key="mine"), a_session(), a_key()
    await commit(node, CreateSession(gone))
    await twice(node, CreateSession(session), DeleteSession(OWNER, gone.id), CreateKey(key))
    assert [one.id for one in await node.list_sessions(OWNER, 9)] == [session.id]
    assert await node.list_keys() == [key]
    assert (await cluster.counts())["sessions"] == 1


# ------------------------------------------------------------------------------ the schema


async def test_several_processes_may_bring_a_new_database_up_to_date_at_once(
    postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with postgres.database() as url:
        config = tmp_path_factory.mktemp("node") / "holdfast.toml"
        config.write_text(f'[storage]\nurl = "{url}"\n')
        command = [sys.executable, "-m", "holdfast.cli", "migrate", "--config", str(config)]
        processes = [
            await asyncio.create_subprocess_exec(
                *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
            )
            for _ in range(4)
        ]
        outputs = [(await process.communicate())[0].decode() for process in processes]
        assert [process.returncode for process in processes] == [0] * 4, outputs
        store = PostgresStore(url)
        await store.open()
        await store.join()
        await begin(store, Told())
        await store.close()
