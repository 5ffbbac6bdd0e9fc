"""`EventSource` and `fetch-event-source`, as they come from npm, on the native surface."""

import asyncio
import itertools
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.node import NodeClient
from tests.support.raw_client import EventStream, eventually
from tests.support.server import Deployment
from tests.support.upstream_server import Wire, completion, completion_chunk

_names = (f"reading {number}" for number in itertools.count(1))


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    async with Deployment(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture(scope="module")
async def client(site: Deployment) -> AsyncIterator[NodeClient]:
    async with NodeClient("sse.mjs", site.server.url) as client:
        yield client


class Reading:
    """One client of one stream."""

    def __init__(self, client: NodeClient) -> None:
        self.client = client
        self.name = next(_names)

    async def do(self, command: str, **given: Any) -> Any:
        return await self.client.do(command, reading=self.name, **given)


async def event_source(client: NodeClient, path: str) -> Reading:
    reading = Reading(client)
    await reading.do("event_source", path=path)
    return reading


async def fetch_event_source(client: NodeClient, message: str, **given: Any) -> Reading:
    reading = Reading(client)
    body = {"message": message, **given.pop("body", {})}
    await reading.do("fetch_event_source", path="/api/v1/runs", body=body, **given)
    return reading


async def is_whole_log(site: Deployment, state: Any) -> None:
    """Every event of the run was given once, in its order."""
    run_id = state["events"][0]["data"]["run_id"]
    frames = _frames(await site.server.log_of(run_id))
    assert [(one["type"], one["id"], one["data"]) for one in state["events"]] == frames


def _frames(log: bytes) -> list[tuple[str, str, Any]]:
    found = []
    for frame in log.decode().split("\n\n")[:-1]:
        fields = dict(line.split(": ", 1) for line in frame.split("\n"))
        found.append((fields["event"], fields["id"], json.loads(fields["data"])))
    return found


async def ask_half(site: Deployment, question: str) -> EventStream:
    """Ask and leave once the text `Ha` has come."""
    async with site.ask(question) as stream:
        await stream.read_text("Ha")
    return stream


class TestEventSource:
    async def test_p5_reads_a_live_run_to_its_end_and_then_stops(
        self, client: NodeClient, site: Deployment
    ) -> None:
        gate = asyncio.Event()
        question = site.answers(completion_chunk(content="Ha"), gate, *completion("lf."))
        asked = await ask_half(site, question)
        reading = await event_source(client, f"/api/v1/runs/{asked.run_id}/events")
        await reading.do("text", wanted="Ha")
        gate.set()
        state = await reading.do("closed")
        assert state["text"] == "Half."
        await is_whole_log(site, state)
        # It connects again after every end; 204 tells it that there is nothing more.
        assert [one["status"] for one in state["requests"]] == [200, 204]
        assert state["requests"][1]["headers"]["last-event-id"] == state["events"][-1]["id"]
        assert state["errors"][-1] == 204
        assert len(site.requests_for(question)) == 1

    async def test_joins_the_live_run_of_a_session(
        self, client: NodeClient, site: Deployment
    ) -> None:
        question = site.answers(completion_chunk(content="Ha"), Wire.STALL)
        asked = await ask_half(site, question)
        path = f"/api/v1/sessions/{asked.session_id}/events"
        reading = await event_source(client, path)
        await reading.do("text", wanted="Ha")
        await site.server.post(f"/api/v1/runs/{asked.run_id}/cancel")
        state = await reading.do("closed")
        assert state["events"][-1]["data"]["outcome"] == "cancelled"
        assert [one["status"] for one in state["requests"]] == [200, 204]
        idle = await event_source(client, path)
        state = await idle.do("closed")
        assert (state["events"], [one["status"] for one in state["requests"]]) == ([], [204])

    async def test_gives_up_where_there_is_no_run(
        self, client: NodeClient, site: Deployment
    ) -> None:
        reading = await event_source(client, "/api/v1/runs/nope/events")
        assert (await reading.do("closed"))["errors"] == [404]


class TestFetchEventSource:
    async def test_p7_asks_once_and_resolves_at_the_end(
        self, client: NodeClient, site: Deployment
    ) -> None:
        question = site.answers(*completion("Kelp ", "holds 海带 🌿."))
        reading = await fetch_event_source(client, question)
        state = await reading.do("closed")
        assert (state["text"], state["errors"]) == ("Kelp holds 海带 🌿.", [])
        await is_whole_log(site, state)
        assert [one["status"] for one in state["requests"]] == [200]
        assert len(site.requests_for(question)) == 1

    async def test_takes_comments_for_empty_messages(
        self, client: NodeClient, site: Deployment
    ) -> None:
        """The documentation warns of it: whoever parses `data` unseen gets "" to parse."""
        reading = await fetch_event_source(client, site.answers(*completion("Kelp.")))
        assert (await reading.do("closed"))["empty"] >= 1

    async def test_p7_of_a_tab_that_is_hidden_goes_on_where_it_was(
        self, client: NodeClient, site: Deployment
    ) -> None:
        """It aborts when the tab is hidden, and POSTs again when it is shown."""
        gate = asyncio.Event()
        question = site.answers(completion_chunk(content="Ha"), gate, *completion("lf."))
        reading = await fetch_event_source(client, question)
        before = await reading.do("text", wanted="Ha")
        await client.do("hide")
        gate.set()
        await site.server.ended(before["requests"][0]["run"])
        await client.do("show")
        state = await reading.do("closed")
        assert (state["text"], state["errors"]) == ("Half.", [])
        await is_whole_log(site, state)
        assert [one["method"] for one in state["requests"]] == ["POST", "POST"]
        assert state["requests"][1]["headers"]["last-event-id"] == before["events"][-1]["id"]
        assert state["requests"][1]["run"] == state["requests"][0]["run"]
        assert len(site.requests_for(question)) == 1

    async def test_p7_again_and_again_goes_on_where_it_was(
        self, client: NodeClient, site: Deployment
    ) -> None:
        gates = [asyncio.Event() for _ in "lf"]
        question = site.answers(
            completion_chunk(content="Ha"),
            gates[0],
            completion_chunk(content="l"),
            gates[1],
            *completion("f."),
        )
        reading = await fetch_event_source(client, question)
        for text, gate in zip(("Ha", "Hal"), gates, strict=True):
            await reading.do("text", wanted=text)
            await client.do("hide")
            await client.do("show")
            gate.set()
        state = await reading.do("closed")
        assert state["text"] == "Half."
        await is_whole_log(site, state)
        assert len(state["requests"]) == 3
        assert len(site.requests_for(question)) == 1

    async def test_p7_with_a_key_asks_once_even_if_nothing_had_come(
        self, client: NodeClient, site: Deployment
    ) -> None:
        gate = asyncio.Event()
        question = site.answers(gate, *completion("Once."))
        headers = {"Idempotency-Key": "hidden at once"}
        reading = await fetch_event_source(client, question, headers=headers)
        await reading.do("asked", times=1)
        await client.do("hide")
        await site.upstream.asked(1)

        async def has_arrived() -> bool | None:
            return bool(site.requests_for(question)) or None

        await eventually(has_arrived)
        await client.do("show")
        await reading.do("answered", times=1)
        gate.set()
        state = await reading.do("closed")
        assert (state["text"], len(state["requests"])) == ("Once.", 2)
        await is_whole_log(site, state)
        assert len(site.requests_for(question)) == 1

    async def test_in_a_hidden_tab_reads_on_if_it_is_told_to(
        self, client: NodeClient, site: Deployment
    ) -> None:
        gate = asyncio.Event()
        question = site.answers(completion_chunk(content="Ha"), gate, *completion("lf."))
        reading = await fetch_event_source(client, question, open_when_hidden=True)
        await reading.do("text", wanted="Ha")
        await client.do("hide")
        gate.set()
        state = await reading.do("closed")
        await client.do("show")
        assert (state["text"], len(state["requests"])) == ("Half.", 1)


class TestTheDeathOfTheServer:
    """SIGKILL in the middle of an answer, and a new process at the same address."""

    async def test_p5_event_source_gets_the_rest_and_the_end(self, tmp_path: Path) -> None:
        async with Deployment(tmp_path) as site:
            question = site.answers(completion_chunk(content="Ha"), Wire.STALL)
            asked = await ask_half(site, question)
            async with NodeClient("sse.mjs", site.server.url) as client:
                reading = await event_source(client, f"/api/v1/runs/{asked.run_id}/events")
                await reading.do("text", wanted="Ha")
                await self._kill(site, reading)
                state = await reading.do("closed")
                await self._has_all(site, question, state)
                assert state["errors"][-1] == 204

    async def test_p7_fetch_event_source_gets_the_rest_and_asks_nothing(
        self, tmp_path: Path
    ) -> None:
        async with Deployment(tmp_path) as site:
            question = site.answers(completion_chunk(content="Ha"), Wire.STALL)
            async with NodeClient("sse.mjs", site.server.url) as client:
                reading = await fetch_event_source(client, question)
                await reading.do("text", wanted="Ha")
                await self._kill(site, reading)
                state = await reading.do("closed")
                await self._has_all(site, question, state)
                answered = [one for one in state["requests"] if one.get("status")]
                assert [one["method"] for one in answered] == ["POST", "POST"]
                assert "last-event-id" in answered[1]["headers"]

    async def _kill(self, site: Deployment, reading: Reading) -> None:
        """Kill the server; start it again once the client has failed to connect, too."""
        site.server.signal(signal.SIGKILL)
        await site.server.exit()
        await reading.do("failed", times=2)
        await site.restart()

    async def _has_all(self, site: Deployment, question: str, state: Any) -> None:
        assert state["text"] == "Ha"
        assert state["events"][-1]["data"]["reason"] == "server_crash"
        await is_whole_log(site, state)
        assert len(site.requests_for(question)) == 1
