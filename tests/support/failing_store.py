"""What must happen when the database takes no writes, whatever it is and whyever it does not."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import TypeAlias

from tests.support.raw_client import EventStream, Reply
from tests.support.server import Deployment
from tests.support.upstream_server import Wire, completion, completion_chunk

Failure: TypeAlias = Callable[[Deployment], AbstractAsyncContextManager[None]]
PATIENT = {"store_patience_s": 60.0}
IMPATIENT = {"store_patience_s": 0.5}
FAST = {"heartbeat_s": 0.05}


async def heartbeats(stream: EventStream, count: int) -> None:
    """Read so many comments, with no event in between."""
    for _ in range(count):
        frame = await stream.next()
        assert frame is not None
        assert frame.is_comment, frame


def refused(reply: Reply) -> None:
    reply.refused(503, "store_unavailable")
    assert int(reply.headers["retry-after"]) > 0


MORE = " more"


class Halved:
    """A run that stands after `Half`; more of its answer comes when `gate` is set."""

    def __init__(self, site: Deployment, *, ends: bool = True, more: str = MORE) -> None:
        self.gate = asyncio.Event()
        rest = completion(" whole.") if ends else [completion_chunk(content=more), Wire.STALL]
        self.question = site.answers(completion_chunk(content="Half"), self.gate, *rest)


async def comes_back(site: Deployment, failure: Failure) -> None:
    """What must happen when the store fails for a short time."""
    halved = Halved(site)
    async with site.ask(halved.question) as stream:
        await stream.read_text("Half")
        async with failure(site):
            halved.gate.set()
            await site.server.becomes("/readyz", 503)
            await heartbeats(stream, 5)
            refused(await site.server.post("/api/v1/runs", {"message": "And?"}))
            refused(await site.server.post("/api/v1/sessions", {"title": "x"}))
            assert (await site.server.get("/healthz")).status == 200
        await site.server.becomes("/readyz", 200)
        await stream.rest()
    assert stream.end["outcome"] == "completed"
    assert stream.text == "Half whole."
    assert await site.server.log_of(stream.run_id) == stream.log
    assert (await site.asked("And?"))["run"]["outcome"] == "completed"


async def shows_nothing_new(site: Deployment, failure: Failure) -> None:
    """Nothing that is not committed may be shown in any form."""
    halved = Halved(site)
    async with site.ask(halved.question) as stream:
        await stream.read_text("Half")
        run, session = stream.run_id, stream.session_id
        async with failure(site):
            halved.gate.set()
            await site.server.becomes("/readyz", 503)
            await heartbeats(stream, 5)  # by now the upstream has come to its end
            found = await site.server.run(run)
            single = (await site.server.get(f"/api/v1/messages/{stream.message_id}")).json
            listed = await site.server.get(f"/api/v1/sessions/{session}/messages")
            of_session = (await site.server.get(f"/api/v1/sessions/{session}")).json
            async with site.server.stream("GET", f"/api/v1/runs/{run}/events") as joined:
                await joined.read_text("Half")
                await heartbeats(joined, 3)
        await stream.rest()
    for message in (found["message"], single, listed.json["items"][1]):
        assert (message["content"], message["status"]) == ("Half", "streaming")
        assert message["outcome"] is message["completed_at"] is None
    assert found["run"]["status"] == "streaming"
    assert found["run"]["outcome"] is None
    assert found["run"]["cursor"] == f"{run}.2"
    assert of_session["live_run_id"] == run


async def seen_is_stored(site: Deployment, stream: EventStream) -> None:
    """Check that what a reader saw is the beginning of what is stored."""
    log = await site.server.log_of(stream.run_id)
    assert log.startswith(stream.log)
    path = f"/api/v1/runs/{stream.run_id}/events"
    cursor = stream.frames[-1].id
    async with site.server.stream("GET", path, Last_Event_ID=cursor) as resumed:
        await resumed.rest()
    assert stream.log + resumed.log == log


async def gives_up(site: Deployment, failure: Failure, more: str = MORE) -> None:
    """What must happen when the store fails for longer than the patience, and takes no `more`."""
    halved, waiting = (Halved(site, ends=False, more=more) for _ in range(2))
    body = {"message": waiting.question, "stream": False}
    async with site.ask(halved.question) as stream:
        await stream.read_text("Half")
        waited = asyncio.create_task(site.server.post("/api/v1/runs", body))
        await site.upstream.asked(len(site.upstream.requests) + 1)
        stalled = site.answers(completion_chunk(content="Silent"), Wire.STALL)
        async with site.ask(stalled) as silent:
            await silent.read_text("Silent")
            async with failure(site):
                halved.gate.set()
                waiting.gate.set()
                assert await stream.broken() == []
                refused(await waited)
                refused(await site.server.post("/api/v1/runs", {"message": "And?"}))
                assert (await site.server.get("/readyz")).status == 503
                assert (await site.server.get("/healthz")).status == 200
                found = await site.server.run(stream.run_id)
                assert found["message"]["content"] == "Half"
                assert found["message"]["status"] == "streaming"
            await site.server.becomes("/readyz", 200)
            ended = await site.server.ended(stream.run_id)
            assert ended["run"]["reason"] == ended["message"]["reason"] == "storage_error"
            assert ended["run"]["outcome"] == "interrupted"
            assert ended["message"]["status"] == "partial"
            assert ended["message"]["content"] in ("Half", f"Half{more}")
            await seen_is_stored(site, stream)
            await site.server.post(f"/api/v1/runs/{silent.run_id}/cancel")
            await silent.rest()
    assert (await site.asked("And?"))["run"]["outcome"] == "completed"
