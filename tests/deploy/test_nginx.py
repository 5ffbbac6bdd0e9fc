"""Behind nginx, with the example's own settings: nothing is held back, lost or asked twice."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from holdfast.client import AsyncClient
from holdfast.events import RunEnd
from tests.deploy.site import Site, kill, port_of
from tests.support.postgres import PostgresServer, run_sql
from tests.support.raw_client import EventStream, Frame, eventually
from tests.support.server import Deployment
from tests.support.upstream_server import Wire, completion, completion_chunk

WORDS = ("Kelp ", "holds ", "fast.")


pytestmark = pytest.mark.timeout(300)  # a site is five processes; the machine may be busy


@pytest.fixture(scope="module")
async def site(
    tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer, postgres_template: str
) -> AsyncIterator[Site]:
    """For tests that leave both nodes as they were."""
    with postgres.database(postgres_template) as url:
        async with Site(tmp_path_factory.mktemp("site"), url).running() as site:
            yield site


@pytest.fixture
async def fragile(tmp_path: Path, postgres_url: str) -> AsyncIterator[Site]:
    """For tests that end nodes. A lease is over soon."""
    node = {"heartbeat_s": 0.5, "lease_s": 4}
    async with Site(tmp_path, postgres_url, node=node).running() as site:
        yield site


def ask(site: Site, message: str, **headers: str) -> Any:
    """POST a question through nginx and read its stream."""
    return site.nginx.stream("POST", "/api/v1/runs", {"message": message}, **headers)


def read(site: Site, run_id: str, **headers: str) -> Any:
    """GET the events of a run through nginx."""
    return site.nginx.stream("GET", f"/api/v1/runs/{run_id}/events", **headers)


def gated(site: Site, gate: asyncio.Event) -> str:
    """A question whose answer is "Ha" and, when the gate is open, "lf."."""
    return site.scripts.answers(completion_chunk(content="Ha"), gate, *completion("lf."))


async def drain(node: Deployment) -> None:
    """Let a node go; it takes no more questions when this returns."""
    node.server.signal(signal.SIGTERM)
    assert (await node.server.becomes("/readyz", 503)).json == {"status": "draining"}


def with_events(stream: EventStream) -> list[Frame]:
    """The frames that were read, without the one that sends readers away."""
    return [frame for frame in stream.frames if not frame.raw.startswith(b"retry:")]


class TestStreams:
    async def test_each_token_comes_before_the_next_is_sent(self, site: Site) -> None:
        gates = [asyncio.Event() for _ in WORDS]
        steps: list[Any] = []
        for word, gate in zip(WORDS, gates, strict=True):
            steps += [completion_chunk(content=word), gate]
        question = site.scripts.answers(*steps, *completion())
        async with ask(site, question) as asker, read(site, asker.run_id) as reader:
            for place, gate in enumerate(gates):
                for stream in (asker, reader):
                    await stream.read_text("".join(WORDS[: place + 1]))
                gate.set()
            for stream in (asker, reader):
                await stream.rest()
                assert stream.end["outcome"] == "completed"
            assert asker.log == reader.log

    async def test_a_stream_is_not_compressed_and_not_kept(self, site: Site) -> None:
        question = site.scripts.answers(*completion(*WORDS))
        async with ask(site, question, Accept_Encoding="gzip, br") as stream:
            await stream.rest()
            assert stream.text == "".join(WORDS)
            assert "content-encoding" not in stream.headers
            assert stream.headers["cache-control"] == "no-cache, no-transform"

    async def test_other_dialects_pass_token_by_token(self, site: Site) -> None:
        gate = asyncio.Event()
        question = gated(site, gate)
        messages = [{"role": "user", "content": question}]
        body = {"model": "script", "messages": messages, "stream": True}
        async with site.nginx.stream("POST", "/v1/chat/completions", body) as stream:
            while b'"Ha"' not in stream.body:
                assert await stream.next() is not None
            gate.set()
            await stream.rest()
        assert stream.body.endswith(b"data: [DONE]\n\n")

    async def test_the_rest_comes_from_the_other_node(self, site: Site) -> None:
        gate = asyncio.Event()
        question = gated(site, gate)
        async with ask(site, question) as asker:
            await asker.read_text("Ha")
            owner = port_of(await site.owner_of(asker.run_id))
            # The nodes take turns.
            async with read(site, asker.run_id, Last_Event_ID=asker.frames[0].id) as reader:
                await reader.read_text("Ha")
                gate.set()
                await reader.rest()
            await asker.rest()
        assert asker.log == asker.frames[0].raw + reader.log
        path = f"/api/v1/runs/{asker.run_id}/events"

        async def logged() -> list[tuple[int, list[int]]] | None:
            return site.nginx.served("GET", path) or None

        ((status, (node,)),) = await eventually(logged)
        assert status == 200
        assert node != owner


class TestFailures:
    async def test_a_broken_stream_stays_broken(self, fragile: Site) -> None:
        question = gated(fragile, asyncio.Event())
        async with ask(fragile, question) as stream:
            await stream.read_text("Ha")
            await kill((await fragile.owner_of(stream.run_id)).server)
            await stream.broken()

    async def test_after_a_kill_the_client_gets_the_rest_from_the_other_node(
        self, fragile: Site
    ) -> None:
        question = gated(fragile, asyncio.Event())
        async with AsyncClient(fragile.nginx.url, patience_s=60) as client:
            stream = client.ask(question)
            async with stream:
                texts = [await anext(stream)]
                while getattr(texts[-1], "text", None) != "Ha":
                    texts.append(await anext(stream))
                assert stream.run_id is not None
                owner = await fragile.owner_of(stream.run_id)
                await kill(owner.server)
                rest = [event async for event in stream]
        (end,) = rest
        assert isinstance(end, RunEnd)
        assert (end.outcome, end.reason) == ("interrupted", "server_crash")
        found = await fragile.other(owner).server.run(stream.run_id)
        assert found["message"]["content"] == "Ha"
        assert len(fragile.scripts.requests_for(question)) == 1

    async def test_a_question_is_not_passed_on_when_its_node_dies(
        self, fragile: Site, postgres_url: str
    ) -> None:
        question = fragile.scripts.answers(completion_chunk(content="Ha"), Wire.STALL)
        body = {"message": question, "stream": False}
        key = {"Idempotency_Key": "once"}
        async with fragile.nginx.connect() as connection:
            headers = {"Idempotency-Key": "once"}
            request = fragile.nginx.request("POST", "/api/v1/runs", body, headers)
            await connection.send(request)
            await fragile.scripts.upstream.asked()
            owner = await fragile.owner_of("the only one")
            await kill(owner.server)
            assert (await connection.reply()).status == 502
        # The client repeats it, with its key: the same run, which the other node has ended.
        reply = await fragile.nginx.post("/api/v1/runs", body, **key)
        assert reply.status == 200, reply
        assert reply.json["run"]["reason"] == "server_crash"
        assert len(fragile.scripts.requests_for(question)) == 1
        assert run_sql(postgres_url, "SELECT count(*) AS runs FROM runs") == [{"runs": 1}]

    async def test_questions_go_to_the_node_that_is_there(self, fragile: Site) -> None:
        gone, left = fragile.nodes
        assert await gone.server.stop() == 0
        questions = [fragile.scripts.answers(*completion(*WORDS)) for _ in range(6)]
        for question in questions:
            async with ask(fragile, question) as stream:
                await stream.rest()
                assert stream.text == "".join(WORDS)
        assert [len(fragile.scripts.requests_for(question)) for question in questions] == [1] * 6
        served = fragile.nginx.served("POST", "/api/v1/runs")
        assert {nodes[-1] for _, nodes in served} == {port_of(left)}


class TestDraining:
    async def test_reading_goes_to_the_other_node_and_asking_is_refused(
        self, fragile: Site
    ) -> None:
        gate = asyncio.Event()
        question = gated(fragile, gate)
        async with ask(fragile, question) as stream:
            await stream.read_text("Ha")
            leaving = await fragile.owner_of(stream.run_id)
            await drain(leaving)
            for _ in range(6):
                assert (await fragile.nginx.get("/readyz")).status == 200
            statuses = {await self._ask_now(fragile) for _ in range(6)}
            assert statuses <= {200, 503}
            gate.set()
            await stream.rest()
            assert stream.text == "Half."
        assert await leaving.server.exit() == 0

    async def _ask_now(self, site: Site) -> int:
        question = site.scripts.answers(*completion(*WORDS))
        reply = await site.nginx.post("/api/v1/runs", {"message": question, "stream": False})
        asked = len(site.scripts.requests_for(question))
        if reply.status == 503:
            reply.refused(503, "draining")
            assert int(reply.headers["retry-after"]) > 0
        assert asked == (1 if reply.status == 200 else 0)
        return reply.status

    async def test_nothing_is_lost_over_a_restart_of_all_nodes(
        self, fragile: Site, postgres_url: str
    ) -> None:
        asked = 0
        for node in fragile.nodes:
            gate = asyncio.Event()
            questions = [gated(fragile, gate) for _ in range(8)]
            late = [fragile.scripts.answers(*completion("Half.")) for _ in range(4)]
            async with AsyncExitStack() as stack:
                client = await stack.enter_async_context(
                    AsyncClient(fragile.nginx.url, patience_s=60)
                )
                streams = [
                    await stack.enter_async_context(client.ask(question)) for question in questions
                ]
                texts = [await self._first_text(stream) for stream in streams]
                assert texts == ["Ha"] * len(questions)
                # Readers of runs of either node, who come through either node.
                readers = [
                    await stack.enter_async_context(read(fragile, str(stream.run_id)))
                    for stream in streams
                ]
                for reader in readers:
                    await reader.read_text("Ha")
                await drain(node)
                answers = [asyncio.create_task(self._answer(client, text)) for text in late]
                gate.set()
                texts = [await self._rest(stream) for stream in streams]
                assert texts == ["lf."] * len(questions)
                for reader in readers:
                    await self._read_on(fragile, reader)
                assert await asyncio.gather(*answers) == ["Half."] * len(late)
            assert await node.server.exit() == 0
            await node.restart()
            counts = [len(fragile.scripts.requests_for(q)) for q in (*questions, *late)]
            assert counts == [1] * len(counts)
            asked += len(counts)
        (row,) = run_sql(
            postgres_url,
            "SELECT count(*) AS runs, count(*) FILTER (WHERE outcome = 'completed') AS whole"
            " FROM runs",
        )
        assert row == {"runs": asked, "whole": asked}

    async def _first_text(self, stream: Any) -> str:
        async for event in stream:
            if text := getattr(event, "text", ""):
                return str(text)
        raise AssertionError("no text")

    async def _rest(self, stream: Any) -> str:
        events = [event async for event in stream]
        assert events[-1].outcome == "completed"
        return "".join(getattr(event, "text", "") for event in events)

    async def _answer(self, client: AsyncClient, question: str) -> str:
        async with client.ask(question) as stream:
            return await self._rest(stream)

    async def _read_on(self, site: Site, reader: EventStream) -> None:
        """The rest, over other connections as often as a node sends its readers away."""
        await reader.rest()
        events = with_events(reader)
        while events[-1].event != "run-end":
            async with read(site, reader.run_id, Last_Event_ID=events[-1].id) as again:
                await again.rest()
                events += with_events(again)
        assert events[-1].data["outcome"] == "completed"
        datas = (frame.data for frame in events if frame.event == "text-delta")
        assert "".join(data["text"] for data in datas) == "Half."


class TestRequests:
    async def test_bodies_are_bounded_here_and_there(self, site: Site) -> None:
        large = {"message": "x" * 2_000_000}
        (await site.nginx.post("/api/v1/runs", large)).refused(413, "too_large")
        async with site.nginx.connect() as connection:
            head = site.nginx.request(
                "POST", "/api/v1/runs", None, {"Content-Length": str(10 * 1024 * 1024 + 1)}
            )
            await connection.send(head)
            reply = await connection.reply()
        assert reply.status == 413
        assert b"nginx" in reply.body

    async def test_the_page_behind_tls_may_ask(self, site: Site) -> None:
        headers = {"Host": "chat.example", "Origin": "https://chat.example"}
        body = {"message": site.scripts.answers(*completion(*WORDS)), "stream": False}
        reply = await site.nginx.call("POST", "/api/v1/runs", body, headers)
        assert reply.json["message"]["content"] == "".join(WORDS)
        foreign = headers | {"Origin": "https://evil.example"}
        assert (await site.nginx.call("POST", "/api/v1/runs", body, foreign)).status == 403
        other = headers | {"Host": "evil.example"}
        assert (await site.nginx.call("POST", "/api/v1/runs", body, other)).status == 400
