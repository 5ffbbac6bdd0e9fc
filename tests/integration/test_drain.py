"""Shutting down: runs finish within the grace time, readers are told, nothing is lost."""

import asyncio
import contextlib
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.raw_client import EventStream, StuckReader
from tests.support.server import Deployment
from tests.support.upstream_server import Wire, completion, completion_chunk


def deployment(folder: Path, grace_s: float, **sections: Any) -> Deployment:
    return Deployment(folder, server={"shutdown_grace_s": grace_s}, **sections)


async def drains(site: Deployment, sig: signal.Signals = signal.SIGTERM) -> None:
    """Send the signal and wait until it has taken effect."""
    site.server.signal(sig)
    reply = await site.server.becomes("/readyz", 503)
    assert reply.json == {"status": "draining"}


async def stored(site: Deployment, stream: EventStream) -> Any:
    """After a restart: what a reader saw is the stored log; the run with its message."""
    assert await site.server.log_of(stream.run_id) == stream.log
    found = await site.server.run(stream.run_id)
    assert found["message"]["content"] == stream.text
    return found


class TestWithinTheGraceTime:
    @pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
    async def test_runs_finish_with_their_readers_attached(
        self, sig: signal.Signals, tmp_path: Path
    ) -> None:
        gate = asyncio.Event()
        async with deployment(tmp_path, 60) as site, contextlib.AsyncExitStack() as stack:
            asking = [
                site.ask(site.answers(completion_chunk(content=f"{n}"), gate, *completion("!")))
                for n in range(5)
            ]
            streams = [await stack.enter_async_context(one) for one in asking]
            for n, stream in enumerate(streams):
                await stream.read_text(f"{n}")
            await drains(site, sig)
            gate.set()
            for n, stream in enumerate(streams):
                await stream.rest()
                assert stream.end["outcome"] == "completed"
                assert stream.text == f"{n}!"
            assert await site.server.exit() == 0
            await site.restart()
            for stream in streams:
                assert (await stored(site, stream))["message"]["status"] == "complete"

    async def test_new_questions_are_refused_and_readers_are_served(self, tmp_path: Path) -> None:
        gate = asyncio.Event()
        async with deployment(tmp_path, 60) as site:
            ended = (await site.asked("Before?"))["run"]
            question = site.answers(completion_chunk(content="Ha"), gate, *completion("lf."))
            async with site.ask(question) as stream:
                await stream.read_text("Ha")
                await drains(site)
                path = f"/api/v1/messages/{ended['message_id']}/regenerate"
                for target, body in (("/api/v1/runs", {"message": "And?"}), (path, {})):
                    reply = await site.server.post(target, body)
                    reply.refused(503, "draining")
                    assert int(reply.headers["retry-after"]) > 0
                assert (await site.server.get("/healthz")).status == 200
                assert (await site.server.run(ended["id"]))["run"]["outcome"] == "completed"
                cursor = {"Last-Event-ID": stream.frames[-1].id}
                async with site.ask(question, headers=cursor) as resumed:
                    gate.set()
                    await resumed.rest()
                await stream.rest()
            assert resumed.text == "lf."
            assert stream.end["outcome"] == "completed"
            assert await site.server.exit() == 0

    async def test_an_idle_server_goes_at_once_whatever_connections_are_open(
        self, tmp_path: Path
    ) -> None:
        async with deployment(tmp_path, 3600) as site:
            run = (await site.asked("Why?"))["run"]
            async with site.server.connect() as idle, site.server.connect():
                await idle.send(site.server.request("GET", f"/api/v1/runs/{run['id']}"))
                assert (await idle.reply()).status == 200
                assert await site.server.stop() == 0

    async def test_a_cancel_ends_the_wait(self, tmp_path: Path) -> None:
        async with deployment(tmp_path, 3600) as site:
            question = site.answers(completion_chunk(content="Ha"), Wire.STALL)
            async with site.ask(question) as stream:
                await stream.read_text("Ha")
                await drains(site)
                reply = await site.server.post(f"/api/v1/runs/{stream.run_id}/cancel")
                assert reply.json["run"]["outcome"] == "cancelled"
                await stream.rest()
            assert await site.server.exit() == 0


class TestPastTheGraceTime:
    async def test_p3_p9_readers_are_told_before_they_are_closed(self, tmp_path: Path) -> None:
        async with deployment(tmp_path, 0.2) as site, contextlib.AsyncExitStack() as stack:
            asking = [
                site.ask(site.answers(completion_chunk(content=f"{n}"), Wire.STALL))
                for n in range(5)
            ]
            streams = [await stack.enter_async_context(one) for one in asking]
            silent = await stack.enter_async_context(site.ask(site.question([Wire.STALL])))
            for n, stream in enumerate(streams):
                await stream.read_text(f"{n}")
            await silent.until("run-start")
            question = site.answers(completion_chunk(content="Wait"), Wire.STALL)
            body = {"message": question, "stream": False}
            waiting = asyncio.create_task(site.server.post("/api/v1/runs", body))
            await site.upstream.asked(7)
            site.server.signal(signal.SIGTERM)
            for stream in (*streams, silent):
                await stream.rest()
                assert stream.end["reason"] == "server_shutdown"
                assert stream.end["outcome"] == ("failed" if stream is silent else "interrupted")
            waited = await waiting
            assert waited.status == 200
            assert waited.json["run"]["reason"] == "server_shutdown"
            assert waited.json["message"]["status"] in ("partial", "failed")
            await site.upstream.client_left(7)
            assert await site.server.exit() == 0
            await site.restart()
            for stream in streams:
                message = (await stored(site, stream))["message"]
                assert (message["status"], message["reason"]) == ("partial", "server_shutdown")
            assert (await stored(site, silent))["message"]["status"] == "failed"
            assert (await site.server.run(waited.json["run"]["id"])) == waited.json

    async def test_runs_without_readers_are_ended_and_kept_too(self, tmp_path: Path) -> None:
        async with deployment(tmp_path, 0) as site:
            question = site.answers(completion_chunk(content="Half"), Wire.STALL)
            async with site.ask(question) as stream:
                await stream.read_text("Half")
            assert await site.server.stop() == 0
            await site.restart()
            message = (await site.server.run(stream.run_id))["message"]
            assert (message["content"], message["reason"]) == ("Half", "server_shutdown")

    async def test_a_session_that_was_busy_takes_questions_after_the_restart(
        self, tmp_path: Path
    ) -> None:
        async with deployment(tmp_path, 0) as site:
            question = site.answers(completion_chunk(content="Half"), Wire.STALL)
            async with site.ask(question) as stream:
                await stream.read_text("Half")
                await site.server.stop()
                await stream.rest()
            await site.restart()
            found = await site.asked("And?", session_id=stream.session_id)
            assert found["run"]["outcome"] == "completed"

    async def test_p6_readers_that_read_nothing_do_not_keep_the_server(
        self, tmp_path: Path
    ) -> None:
        taken = StuckReader.capacity()
        piece = b"".join([completion_chunk(content="x" * 1_000)] * 100)
        limits = {"answer_bytes": 20_000_000}
        stream_settings = {"send_timeout_s": 1}
        async with deployment(tmp_path, 0, limits=limits, stream=stream_settings) as site:
            question = site.answers(*[piece] * (taken // 100_000 + 5), *completion())
            async with site.ask(question) as stream:
                size = len(await stream.rest_as_bytes())
            path = f"/api/v1/runs/{stream.run_id}/events?after="
            # From those who miss almost nothing to those who miss a lot.
            starts = [(size - taken - missed) // 1_100 for missed in range(0, 400_000, 20_000)]
            with contextlib.ExitStack() as stack:
                for start in starts:
                    reader = StuckReader(site.server, f"{path}{start}")
                    stack.callback(reader.socket.close)
                await site.server.get("/healthz")
                assert await site.server.stop() == 0


class TestASecondSignal:
    async def test_exits_at_once_and_loses_nothing_that_was_seen(self, tmp_path: Path) -> None:
        async with deployment(tmp_path, 3600) as site:
            question = site.answers(completion_chunk(content="Half"), Wire.STALL)
            async with site.ask(question) as stream:
                await stream.read_text("Half")
                await drains(site)
                site.server.signal(signal.SIGTERM)
                await site.server.exit()
            await site.restart()
            found = await site.server.run(stream.run_id)
            assert found["run"]["outcome"] == "interrupted"
            assert found["run"]["reason"] in ("server_crash", "server_shutdown")
            assert found["message"]["content"] == "Half"
            path = f"/api/v1/runs/{stream.run_id}/events"
            cursor = stream.frames[-1].id
            async with site.server.stream("GET", path, Last_Event_ID=cursor) as resumed:
                assert [frame.event for frame in await resumed.rest()] == ["run-end"]


async def test_p2_p3_a_kill_loses_nothing_that_was_seen(tmp_path: Path) -> None:
    async with deployment(tmp_path, 60) as site, contextlib.AsyncExitStack() as stack:
        asking = [
            site.ask(site.answers(completion_chunk(content=f"{n}"), Wire.STALL)) for n in range(5)
        ]
        streams = [await stack.enter_async_context(one) for one in asking]
        for n, stream in enumerate(streams):
            await stream.read_text(f"{n}")
        site.server.signal(signal.SIGKILL)
        assert [await stream.broken() for stream in streams] == [[]] * 5
        await site.restart()
        for stream in streams:
            path = f"/api/v1/runs/{stream.run_id}/events"
            cursor = stream.frames[-1].id
            async with site.server.stream("GET", path, Last_Event_ID=cursor) as resumed:
                await resumed.rest()
            assert resumed.end == {
                "type": "run-end",
                "outcome": "interrupted",
                "reason": "server_crash",
                "error": resumed.end["error"],
            }
            assert stream.log + resumed.log == await site.server.log_of(stream.run_id)
            message = (await site.server.run(stream.run_id))["message"]
            assert (message["content"], message["status"]) == (stream.text, "partial")
