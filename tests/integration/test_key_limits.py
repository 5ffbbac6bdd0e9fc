"""The limits of keys over HTTP: 429 in the words of each dialect, and when to come again."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from holdfast.client import AsyncClient
from holdfast.errors import TooManyRequests
from tests.support.keyed import ALICE, BOB, OPS, Caller, bearer, keyed
from tests.support.raw_client import EventStream, Reply
from tests.support.server import Deployment
from tests.support.upstream_server import completion, completion_chunk

RUNS = "too many answers at once with this key: the limit is 1"
ASKS = "too many questions within a minute with this key: the limit is 2"
APP = "https://app.example"


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    limits = {"concurrent_runs_per_key": 1, "asks_per_minute_per_key": 0}
    folder = tmp_path_factory.mktemp("site")
    async with keyed(folder, limits=limits, server={"cors_origins": [APP]}) as site:
        yield site


@pytest.fixture
async def live(site: Deployment) -> AsyncIterator[EventStream]:
    """Alice's one live run; it ends with the test."""
    gate = asyncio.Event()
    question = site.answers(completion_chunk(content="Ke"), gate, *completion("lp."))
    alice = Caller(site, ALICE)
    async with alice.stream("POST", "/api/v1/runs", {"message": question}) as stream:
        await stream.read_text("Ke")
        yield stream
        gate.set()
        await alice.ended(stream.run_id)


def assert_refused(reply: Reply, told: str = RUNS, retry_after: str = "5") -> None:
    assert reply.status == 429, reply
    assert reply.headers["retry-after"] == retry_after
    assert told in reply.body.decode()


class TestWords:
    async def test_of_each_dialect(self, site: Deployment, live: EventStream) -> None:
        alice, asked = Caller(site, ALICE), len(site.upstream.requests)
        reply = await alice.ask("Hi?")
        assert_refused(reply)
        assert reply.refused(429, "too_many_requests")["retry_after_s"] == 5
        reply = await alice.post("/api/v1/chat", {"message": "Hi?"})
        assert_refused(reply)
        assert reply.json == {"content": "", "error": RUNS}
        reply = await alice.post("/api/v1/chat/stream", {"message": "Hi?"})
        assert_refused(reply)
        assert json.loads(reply.body.removeprefix(b"data: ")) == {"content": "", "error": RUNS}
        for path, body in (
            ("/chat", {"message": "Hi?"}),
            ("/chat/stream", {"message": "Hi?"}),
            ("/stream-ask", {"question": "Hi?"}),
        ):
            reply = await alice.post(path, body)
            assert_refused(reply)
            assert reply.json == {"error": RUNS}
        reply = await alice.post("/api/messages", {"question": "Hi?"})
        assert_refused(reply)
        assert reply.json["code"] == 429
        part = {"type": "text", "text": "Hi?"}
        chat: dict[str, Any] = {
            "id": "c",
            "messages": [{"id": "m", "role": "user", "parts": [part]}],
        }
        assert_refused(await alice.post("/api/chat", chat), RUNS.capitalize())
        messages = [{"role": "user", "content": "Hi?"}]
        reply = await alice.post("/v1/chat/completions", {"messages": messages})
        assert_refused(reply)
        assert reply.json["error"]["type"] == "rate_limit_error"
        assert "x-should-retry" not in reply.headers  # it would help: nothing was asked
        assert len(site.upstream.requests) == asked

    async def test_are_readable_by_pages_of_other_sites(
        self, site: Deployment, live: EventStream
    ) -> None:
        reply = await Caller(site, ALICE).post("/api/v1/runs", {"message": "Hi?"}, Origin=APP)
        assert_refused(reply)
        assert reply.headers["access-control-allow-origin"] == APP
        assert "retry-after" in reply.headers["access-control-expose-headers"].lower()

    async def test_reach_the_openai_sdk_as_its_own_error(
        self, site: Deployment, live: EventStream
    ) -> None:
        client = openai.AsyncOpenAI(base_url=f"{site.server.url}/v1", api_key=ALICE, max_retries=0)
        async with client:
            with pytest.raises(openai.RateLimitError) as caught:
                await client.chat.completions.create(
                    model="auto", messages=[{"role": "user", "content": "Hi?"}]
                )
        assert caught.value.code == "too_many_requests"

    async def test_reach_the_client_as_its_own_error(
        self, site: Deployment, live: EventStream
    ) -> None:
        async with AsyncClient(site.server.url, api_key=ALICE) as client:
            with pytest.raises(TooManyRequests, match=RUNS) as caught:
                await anext(client.ask("Hi?"))
        assert caught.value.retry_after_s == 5


class TestWhatCounts:
    async def test_reading_is_not_limited(self, site: Deployment, live: EventStream) -> None:
        alice = Caller(site, ALICE)
        for _ in range(5):
            assert (await alice.get(f"/api/v1/runs/{live.run_id}")).status == 200
        path = f"/api/v1/runs/{live.run_id}/events"
        async with alice.stream("GET", path) as second:
            await second.read_text("Ke")

    async def test_other_keys_do_not_count(self, site: Deployment, live: EventStream) -> None:
        assert (await Caller(site, BOB).ask("Hi?")).status == 200
        made = await Caller(site, OPS).post("/api/v1/keys", {"owner": "alice"})
        assert (await Caller(site, made.json["key"]).ask("Hi?")).status == 200

    async def test_p7_going_on_with_a_run_is_no_question(
        self, site: Deployment, live: EventStream
    ) -> None:
        alice = Caller(site, ALICE)
        headers = {"Last_Event_ID": f"{live.run_id}.1"}
        async with alice.stream("POST", "/api/v1/runs", {"message": "Hi?"}, **headers) as again:
            await again.read_text("Ke")

    async def test_a_question_in_place_of_the_live_one_has_its_room(
        self, site: Deployment, live: EventStream
    ) -> None:
        alice = Caller(site, ALICE)
        assert_refused(await alice.ask("Hi?", on_busy="cancel"))
        reply = await alice.ask("Hi?", session_id=live.session_id, on_busy="cancel")
        assert reply.status == 200

    async def test_regenerating_counts(self, site: Deployment, live: EventStream) -> None:
        made = (await Caller(site, OPS).post("/api/v1/keys", {"owner": "alice"})).json
        other = Caller(site, made["key"])
        message = (await other.asked("Hi?"))["message"]["id"]
        path = f"/api/v1/messages/{message}/regenerate"
        assert_refused(await Caller(site, ALICE).post(path, {"stream": False}))
        assert (await other.post(path, {"stream": False})).status == 200


async def test_a_keys_own_limits_beat_the_settings(site: Deployment) -> None:
    body = {"owner": "shop", "concurrent_runs": 0, "asks_per_minute": 2}
    made = (await Caller(site, OPS).post("/api/v1/keys", body)).json
    shop = Caller(site, made["key"])
    once = {"Idempotency_Key": "k"}
    question = {"message": "Hi?", "stream": False}
    first = await shop.post("/api/v1/runs", question, **once)
    second = await shop.ask("Hi?")
    assert (first.status, second.status) == (200, 200)
    reply = await shop.ask("Hi?")
    assert reply.status == 429
    assert ASKS in reply.body.decode()
    assert 50 < int(reply.headers["retry-after"]) <= 60
    again = await shop.post("/api/v1/runs", question, **once)
    assert again.json["run"]["id"] == first.json["run"]["id"]


async def test_without_keys_nothing_is_limited(tmp_path_factory: pytest.TempPathFactory) -> None:
    limits = {"concurrent_runs_per_key": 1, "asks_per_minute_per_key": 1}
    async with Deployment(tmp_path_factory.mktemp("open"), limits=limits) as site:
        for _ in range(3):
            await site.asked("Hi?")
        reply = await site.server.call(
            "POST", "/api/v1/runs", {"message": "Hi?", "stream": False}, bearer(ALICE)
        )
        assert reply.status == 200  # a key that nobody asks for does not matter
