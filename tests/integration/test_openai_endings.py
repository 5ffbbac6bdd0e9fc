"""How answers end on the OpenAI surface, and what becomes of them when their reader leaves."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from tests.support.frames import datas_of
from tests.support.openai_surface import (
    CUT,
    PATH,
    body_of,
    deployment,
    failing,
    is_asked,
    post,
    refusal,
)
from tests.support.raw_client import GIVE_UP_S, Broken
from tests.support.server import Deployment, script_of
from tests.support.upstream_server import (
    Script,
    Wire,
    completion,
    completion_chunk,
    event,
    head,
)

KELP = completion_chunk(content="Kelp ")

either_form = pytest.mark.parametrize("stream", [False, True])


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    async with deployment(tmp_path_factory.mktemp("site")) as site:
        yield site


# ---------------------------------------------------------------------- early failures


@either_form
@pytest.mark.parametrize(
    ("script", "status", "kind"),
    [
        (failing(429), 429, "rate_limit_error"),
        (failing(401), 502, "server_error"),
        (failing(403), 502, "server_error"),
        (failing(404), 502, "server_error"),
        (failing(500), 502, "server_error"),
        (failing(504), 504, "server_error"),
        (failing(400), 400, "invalid_request_error"),
        (failing(422), 400, "invalid_request_error"),
        (script_of(event({"error": {"message": "Because."}})), 502, "server_error"),
    ],
    ids=["429", "401", "403", "404", "500", "504", "400", "422", "in band"],
)
async def test_an_upstream_that_fails_at_once_is_a_status(
    site: Deployment, script: Script, status: int, kind: str, stream: bool
) -> None:
    question = site.question(script)
    reply = await post(site.server, body_of(question, stream=stream))
    error = refusal(reply, status, "upstream_error")
    assert error["type"] == kind
    assert "Because." in error["message"]
    assert "sk-secret-key" not in error["message"]
    assert reply.headers["x-should-retry"] == "false"
    assert reply.headers["x-holdfast-run"]
    assert len(site.requests_for(question)) == 1


@either_form
@pytest.mark.parametrize(
    ("script", "code"),
    [
        (script_of(completion_chunk("stop"), event("[DONE]")), "upstream_empty"),
        ([head(), Wire.RESET], "upstream_truncated"),
        (script_of(b": nothing\n\n"), "upstream_truncated"),
    ],
)
async def test_an_upstream_without_an_answer(
    site: Deployment, script: Script, code: str, stream: bool
) -> None:
    refusal(await post(site.server, body_of(site.question(script), stream=stream)), 502, code)


@either_form
async def test_an_upstream_that_is_not_there(site: Deployment, stream: bool) -> None:
    reply = await post(site.server, {**body_of("Who?"), "model": "dead", "stream": stream})
    refusal(reply, 502, "upstream_unreachable")


async def test_the_headers_of_a_stream_wait_for_something_to_arrive(site: Deployment) -> None:
    fail = asyncio.Event()
    question = site.question([fail, *failing(429)])
    reading = asyncio.create_task(post(site.server, body_of(question, stream=True)))
    await is_asked(site, question)
    fail.set()
    refusal(await reading, 429, "upstream_error")


async def test_a_timeout_is_told_by_its_status(tmp_path: Path) -> None:
    async with deployment(tmp_path, runs={"first_byte_timeout_s": 0.2}) as site:
        for stream in (False, True):
            question = site.question([Wire.STALL])
            reply = await post(site.server, body_of(question, stream=stream))
            refusal(reply, 504, "upstream_timeout")
            assert reply.headers["x-should-retry"] == "false"


async def test_after_heartbeat_s_the_headers_come_and_failures_are_in_the_stream(
    tmp_path: Path,
) -> None:
    async with deployment(tmp_path, stream={"heartbeat_s": 0.05}) as site:
        fail = asyncio.Event()
        question = site.question([fail, *failing(429)])
        async with site.server.stream("POST", PATH, body_of(question, stream=True)) as found:
            while found.comments < 3:  # the opening, and heartbeats
                await found.next()
            fail.set()
            await found.rest()
    role, error, done = datas_of(bytes(found.body))
    assert role["choices"][0]["delta"]["role"] == "assistant"
    assert (error["error"]["type"], done) == ("rate_limit_error", "[DONE]")


# ---------------------------------------------------------------------- early ends


async def test_p9_an_answer_that_breaks_off_is_an_error_in_the_stream(site: Deployment) -> None:
    body = body_of(site.answers(*CUT), stream=True)
    async with site.server.stream("POST", PATH, body) as found:
        await found.rest()
    *_, text, error, done = datas_of(bytes(found.body))
    assert text["choices"][0]["delta"] == {"content": "Kelp ho"}
    assert error.keys() == {"error"}
    assert error["error"]["code"] == "upstream_truncated"
    assert done == "[DONE]"


async def test_p9_an_answer_that_broke_off_says_so(site: Deployment) -> None:
    reply = await post(site.server, body_of(site.answers(*CUT)))
    assert reply.status == 200
    choice = reply.json["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Kelp ho", "length")
    assert reply.json["status"] == "partial"
    assert reply.json["error"]["code"] == "upstream_truncated"


async def test_thoughts_alone_are_no_answer(site: Deployment) -> None:
    question = site.answers(completion_chunk(reasoning_content="Hm"), Wire.RESET)
    refusal(await post(site.server, body_of(question)), 502, "upstream_truncated")


async def test_p10_an_answer_that_is_stopped_elsewhere(site: Deployment) -> None:
    question = site.answers(KELP, Wire.STALL)
    async with site.server.stream("POST", PATH, body_of(question, stream=True)) as found:
        while b"Kelp" not in found.body:
            await found.next()
        await site.server.post(f"/api/v1/runs/{found.run_id}/cancel")
        await found.rest()
    error, done = datas_of(bytes(found.body))[-2:]
    assert (error["error"]["type"], error["error"]["code"]) == ("cancelled", "client_cancelled")
    assert done == "[DONE]"


# ---------------------------------------------------------------------- clients that leave


@either_form
@pytest.mark.parametrize("before", [(), (KELP,)], ids=["nothing", "text"])
async def test_a_client_that_leaves_stops_the_answer(
    site: Deployment, before: Sequence[bytes], stream: bool
) -> None:
    question = site.answers(*before, Wire.STALL)
    left = site.upstream.closed_early
    async with site.server.connect() as connection:
        body = body_of(question, stream=stream)
        await connection.send(site.server.request("POST", PATH, body))
        await is_asked(site, question)
        if stream and before:
            await connection.head()
        connection.abort()
    async with asyncio.timeout(GIVE_UP_S):
        await site.upstream.client_left(left + 1)


@pytest.mark.parametrize("path", [PATH, "/api/v1/runs"])
async def test_a_client_may_leave_before_anything_listens(tmp_path: Path, path: str) -> None:
    async with deployment(tmp_path, runs={"disconnect_grace_s": 1}) as site:
        questions = [site.answers(KELP, Wire.STALL) for _ in range(10)]
        for question in questions:
            body = body_of(question, stream=True)
            if path != PATH:
                body = {"message": question, "on_disconnect": "cancel"}
            async with site.server.connect() as connection:
                await connection.send(site.server.request("POST", path, body))
                connection.abort()
        for question in questions:
            await is_asked(site, question)
        async with asyncio.timeout(GIVE_UP_S):
            await site.upstream.client_left(len(questions))


@pytest.mark.parametrize("how", ["body", "header"])
async def test_the_answer_goes_on_if_it_is_asked_to(site: Deployment, how: str) -> None:
    go_on = asyncio.Event()
    body = body_of(site.answers(KELP, go_on, *completion("holds.")), stream=True)
    headers = {"X_Holdfast_On_Disconnect": "continue"} if how == "header" else {}
    if how == "body":
        body["on_disconnect"] = "continue"
    async with site.server.stream("POST", PATH, body, **headers) as found:
        while b"Kelp" not in found.body:
            await found.next()
    go_on.set()
    ended = await site.server.ended(found.run_id)
    assert (ended["message"]["content"], ended["run"]["outcome"]) == ("Kelp holds.", "completed")


# ---------------------------------------------------------------------- the process, the network


async def test_p3_after_a_crash_the_history_has_what_was_seen(tmp_path: Path) -> None:
    async with deployment(tmp_path) as site:
        question = site.answers(KELP, Wire.STALL)
        async with site.server.stream("POST", PATH, body_of(question, stream=True)) as found:
            while b"Kelp" not in found.body:
                await found.next()
            site.server.process.kill()
            with pytest.raises(Broken):
                await found.rest()
        assert b"[DONE]" not in found.body
        await site.restart()
        ended = await site.server.ended(found.run_id)
    assert (ended["message"]["content"], ended["message"]["status"]) == ("Kelp ", "partial")
    assert ended["run"]["reason"] == "server_crash"


async def test_curl_shows_the_stream_as_it_comes(site: Deployment) -> None:
    go_on = asyncio.Event()
    question = site.answers(KELP, go_on, *completion("holds."))
    body = json.dumps(body_of(question, stream=True))
    curl = await asyncio.create_subprocess_exec(
        *("curl", "-sSN", site.server.url + PATH, "-H", "Content-Type: application/json"),
        *("--data", body),
        stdout=asyncio.subprocess.PIPE,
    )
    assert curl.stdout is not None
    seen = b""
    async with asyncio.timeout(20):
        while b"Kelp " not in seen:
            seen += await curl.stdout.readline()
        go_on.set()
        seen += await curl.stdout.read()
        assert await curl.wait() == 0
    assert seen.endswith(b"data: [DONE]\n\n")
