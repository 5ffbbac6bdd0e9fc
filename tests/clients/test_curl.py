"""`curl -N` on each streaming route: what is written is shown at once, and the end is clean."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.client_process import ClientProcess
from tests.support.server import Deployment, script_of
from tests.support.upstream_server import Script, completion, completion_chunk

STREAM = "text/event-stream"


class Held:
    """Answers that stop in their middle until they are let go."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()

    def __call__(self, question: str) -> Script:
        return script_of(completion_chunk(content="Kelp "), self.gate, *completion("holds."))


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    async with Deployment(tmp_path_factory.mktemp("site")) as site:
        yield site


async def streaming(site: Deployment) -> list[tuple[str, Any]]:
    """The path and the body of every operation that asks and streams."""
    document = (await site.server.get("/openapi.json")).json
    found = []
    for path, methods in document["paths"].items():
        operation = methods.get("post", {})
        responses = operation.get("responses", {})
        if STREAM in responses.get("200", {}).get("content", {}) and "{" not in path:
            content = operation["requestBody"]["content"]["application/json"]
            found.append((path, {**content["example"], "stream": True}))
    return found


async def test_shows_each_piece_at_once_and_ends_when_the_answer_does(site: Deployment) -> None:
    routes = await streaming(site)
    assert {"/api/v1/runs", "/api/v1/chat/stream", "/chat/stream", "/stream-ask"} <= {
        path for path, _ in routes
    }
    for path, body in routes:
        site.choose = held = Held()
        header = ["-H", "Content-Type: application/json"]
        url = site.server.url + path
        curl = ["curl", "-sS", "-N", *header, "-d", json.dumps(body), url]
        async with ClientProcess(*curl) as process:
            while b"Kelp " not in process.shown:
                assert await process.more(), (path, process.shown)
            assert b"holds." not in process.shown
            held.gate.set()
            assert await process.end() == (0, ""), path
        assert b"holds." in process.shown, path
        assert process.shown.endswith(b"\n\n"), path


async def test_shows_a_run_that_is_joined(site: Deployment) -> None:
    site.choose = held = Held()
    async with site.ask("What is a holdfast?") as stream:
        await stream.until("text-delta")
        for path in (
            f"/api/v1/sessions/{stream.session_id}/events",
            f"/api/v1/runs/{stream.run_id}/events",
        ):
            async with ClientProcess("curl", "-sS", "-N", site.server.url + path) as process:
                while b"Kelp " not in process.shown:
                    assert await process.more(), process.shown
                if path.startswith("/api/v1/runs"):
                    held.gate.set()
                    assert await process.end() == (0, "")
        await stream.rest()
        assert process.shown.endswith(stream.log)
