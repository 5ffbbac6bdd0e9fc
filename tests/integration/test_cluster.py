"""Two servers on one PostgreSQL: whatever is asked of one can be read and done at the other."""

import asyncio
import contextlib
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.postgres import PostgresServer
from tests.support.raw_client import Broken, EventStream, Reply
from tests.support.server import Deployment, Server
from tests.support.upstream_server import completion, completion_chunk

PATIENT = {"heartbeat_s": 0.5, "lease_s": 30.0}
"""A node is looked after often, and never taken for dead."""
HASTY = {"heartbeat_s": 0.5, "lease_s": 3.0}
GRACE_S = 8.0


class Pair(NamedTuple):
    """A site whose server executes the runs, and another server on the same database."""

    site: Deployment
    other: Server

    @property
    def owner(self) -> Server:
        """Where the questions are asked."""
        return self.site.server

    async def half_an_answer(self, stack: Any, **body: Any) -> tuple[EventStream, asyncio.Event]:
        """A question whose answer stops in the middle until the event is set."""
        gate = asyncio.Event()
        question = self.site.answers(completion_chunk(content="Half "), gate, *completion("done."))
        stream = await stack.enter_async_context(self.site.ask(question, **body))
        await stream.read_text("Half ")
        return stream, gate


async def pair_on(folder: Path, url: str, node: dict[str, Any]) -> AsyncIterator[Pair]:
    (folder / "other").mkdir()
    sections: dict[str, Any] = {
        "storage": {"url": url},
        "node": node,
        "server": {"shutdown_grace_s": GRACE_S},
        "dialects": {"stream_ask": "script"},
    }
    async with Deployment(folder, **sections) as site:
        table = {
            "kind": "openai",
            "base_url": f"{site.upstream.base_url}/v1",
            "api_key": "sk-secret-key",
            "model": "m1",
        }
        async with Server(folder / "other", upstreams={"script": table}, **sections) as other:
            yield Pair(site, other)


@pytest.fixture(scope="module")
async def pair(
    tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer, postgres_template: str
) -> AsyncIterator[Pair]:
    with postgres.database(postgres_template) as url:
        async for pair in pair_on(tmp_path_factory.mktemp("pair"), url, PATIENT):
            yield pair


@pytest.fixture
async def mortal_pair(tmp_path: Path, postgres_url: str) -> AsyncIterator[Pair]:
    """One of which a server may be killed."""
    async for pair in pair_on(tmp_path, postgres_url, HASTY):
        yield pair


@pytest.fixture
async def stack() -> AsyncIterator[Any]:
    async with contextlib.AsyncExitStack() as stack:
        yield stack


def events_path(stream: EventStream, after: int = 0) -> str:
    return f"/api/v1/runs/{stream.run_id}/events?after={after}"


# ------------------------------------------------------------------------------ reading


async def test_p5_every_cursor_gives_exactly_the_rest_at_the_other_node(
    pair: Pair, stack: Any
) -> None:
    gate = asyncio.Event()
    pieces = [completion_chunk(content=f"海{n} \n") for n in range(40)]
    question = pair.site.answers(*pieces[:20], gate, *pieces[20:], *completion())
    stream = await stack.enter_async_context(pair.site.ask(question))
    while len(stream.frames) < 21:
        await stream.event()
    resuming = [pair.other.stream("GET", events_path(stream, seq)) for seq in range(22)]
    readers = [await stack.enter_async_context(one) for one in resuming]
    reading = asyncio.gather(*(reader.rest_as_bytes() for reader in readers))
    gate.set()
    await stream.rest()
    for seq, rest in enumerate(await reading):
        assert rest == b"".join(frame.raw for frame in stream.frames[seq:]), seq
    assert await pair.other.log_of(stream.run_id) == stream.log
    end = len(stream.frames)
    assert (await pair.other.get(events_path(stream, end))).status == 204
    assert (await pair.other.get(events_path(stream, end + 1))).status == 410


NATIVE = "/api/v1/runs"
DIALECTS: dict[str, tuple[str, Any]] = {
    "native": (NATIVE, {"message": "?"}),
    "v1": ("/api/v1/chat/stream", {"message": "?", "session_id": "mine"}),
    "plain": ("/chat/stream", {"message": "?"}),
    "messages": ("/api/messages/stream", {"question": "?", "session_id": "mine"}),
    "stream-ask": ("/stream-ask", {"question": "?"}),
    "openai": (
        "/v1/chat/completions",
        {"model": "auto", "messages": [{"role": "user", "content": "?"}], "stream": True},
    ),
    "ai-sdk": (
        "/api/chat",
        {
            "id": "mine",
            "trigger": "submit-message",
            "messages": [{"id": "q", "role": "user", "parts": [{"type": "text", "text": "?"}]}],
        },
    ),
}


def _asking(value: Any, question: str, chat: str) -> Any:
    """A body with the question, and a conversation of its own, in their places."""
    if isinstance(value, dict):
        return {key: _asking(inner, question, chat) for key, inner in value.items()}
    if isinstance(value, list):
        return [_asking(inner, question, chat) for inner in value]
    return {"?": question, "mine": chat}.get(value, value) if isinstance(value, str) else value


def _timeless(body: bytes) -> bytes:
    """What a stream says: without comments, and without the time that OpenAI's chunks carry."""
    body = re.sub(rb"^:.*\n\n", b"", body, flags=re.MULTILINE)
    return re.sub(rb'"created": ?\d+', b'"created":0', body)


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_p7_the_same_question_at_the_other_node_streams_the_same_live_run(
    pair: Pair, stack: Any, dialect: str
) -> None:
    path, template = DIALECTS[dialect]
    gate = asyncio.Event()
    question = pair.site.answers(
        completion_chunk(content="Half "), gate, *completion("and ", "half.")
    )
    body, key = _asking(template, question, f"chat-{dialect}"), f"key-{dialect}"
    streams = []
    for server in (pair.owner, pair.other):
        asked = server.stream("POST", path, body, Idempotency_Key=key)
        stream = await stack.enter_async_context(asked)
        while b"Half " not in stream.body:
            stream.body += await stream.connection.piece()
        streams.append(stream)
    gate.set()
    for stream in streams:
        while piece := await stream.connection.piece():
            stream.body += piece
    mine, theirs = (bytes(stream.body) for stream in streams)
    assert b"half." in mine
    assert streams[0].run_id == streams[1].run_id
    assert _whole_text(_timeless(theirs)) == _whole_text(_timeless(mine))
    assert len(pair.site.requests_for(question)) == 1


def _whole_text(body: bytes) -> bytes:
    """Without the places at which a text was cut into frames, which are not the same each time."""
    texts = re.findall(rb'"(?:content|text|delta|answer)": ?"((?:[^"\\]|\\.)*)"', body)
    return b"".join(texts) + body[-12:]


async def test_a_client_that_waits_at_the_other_node_gets_the_answer(
    pair: Pair, stack: Any
) -> None:
    gate = asyncio.Event()
    question = pair.site.answers(completion_chunk(content="Half "), gate, *completion("done."))
    key = {"Idempotency_Key": "waiting"}
    stream = await stack.enter_async_context(pair.site.ask(question, headers=key))
    await stream.read_text("Half ")
    body = {"message": question}
    again = asyncio.create_task(pair.other.post(NATIVE, {**body, "stream": False}, **key))
    shown = await pair.other.run(stream.run_id)
    assert (shown["message"]["content"], shown["message"]["status"]) == ("Half ", "streaming")
    gate.set()
    reply: Reply = await again
    assert reply.json["message"]["content"] == "Half done."
    assert reply.json["run"]["id"] == stream.run_id
    other = await pair.other.post(NATIVE, {"message": "Another?", "stream": False}, **key)
    assert other.status == 422


async def test_an_upstream_that_fails_early_is_the_same_error_at_the_other_node(
    pair: Pair,
) -> None:
    """OpenAI's clients get a status instead of a stream, also from the node that only reads."""
    path, template = DIALECTS["openai"]
    body = _asking(template, pair.site.answers(), "")
    replies = [
        await server.post(path, body, Idempotency_Key="early")
        for server in (pair.owner, pair.other)
    ]
    assert [reply.status for reply in replies] == [502, 502]
    assert replies[0].json["error"]["code"] == replies[1].json["error"]["code"]


# ------------------------------------------------------------------------------ doing


async def test_p10_a_run_is_cancelled_from_the_other_node(pair: Pair, stack: Any) -> None:
    closed = pair.site.upstream.closed_early
    stream, _ = await pair.half_an_answer(stack)
    reply = await pair.other.post(f"{NATIVE}/{stream.run_id}/cancel")
    assert reply.json["run"]["outcome"] == "cancelled"
    assert reply.json["message"]["content"] == "Half "
    await stream.rest()
    assert stream.end["reason"] == "client_cancelled"
    await pair.site.upstream.client_left(closed + 1)


async def test_a_session_is_busy_at_every_node_and_another_question_may_take_its_place(
    pair: Pair, stack: Any
) -> None:
    stream, _ = await pair.half_an_answer(stack)
    question = pair.site.answers(*completion("Next."))
    body = {"message": question, "session_id": stream.session_id, "stream": False}
    refused = await pair.other.post(NATIVE, body)
    assert (refused.status, refused.error["run_id"]) == (409, stream.run_id)
    reply = await pair.other.post(NATIVE, {**body, "on_busy": "cancel"})
    assert reply.json["message"]["content"] == "Next."
    await stream.rest()
    assert stream.end["outcome"] == "cancelled"
    messages = await pair.owner.get(f"/api/v1/sessions/{stream.session_id}/messages")
    assert [one["content"] for one in messages.json["items"]][1::2] == ["Half ", "Next."]


async def test_a_session_is_joined_at_the_other_node(pair: Pair, stack: Any) -> None:
    stream, gate = await pair.half_an_answer(stack)
    path = f"/api/v1/sessions/{stream.session_id}/events"
    joined = await stack.enter_async_context(pair.other.stream("GET", path))
    gate.set()
    await stream.rest()
    await joined.rest()
    assert joined.log == stream.log
    assert (await pair.other.get(path, Last_Event_ID=joined.frames[-1].id)).status == 204
    again = pair.other.post(f"/api/v1/messages/{stream.message_id}/regenerate", {"stream": False})
    assert (await again).json["message"]["content"] == "Half done."


async def test_p8_a_session_is_erased_from_the_other_node(pair: Pair, stack: Any) -> None:
    closed = pair.site.upstream.closed_early
    stream, _ = await pair.half_an_answer(stack)
    reading = await stack.enter_async_context(pair.other.stream("GET", events_path(stream)))
    await reading.read_text("Half ")
    reply = await pair.other.call("DELETE", f"/api/v1/sessions/{stream.session_id}")
    assert reply.status == 204
    await pair.site.upstream.client_left(closed + 1)
    await asyncio.gather(*(_to_any_end(one) for one in (stream, reading)))
    for server in (pair.owner, pair.other):
        assert (await server.get(events_path(stream))).status == 404
        assert (await server.get(f"/api/v1/messages/{stream.message_id}")).status == 404


async def _to_any_end(stream: EventStream) -> None:
    """Read on; the end of an erased run may be read or not, but the stream ends."""
    try:
        await stream.rest()
    except Broken:
        return
    assert stream.frames[-1].event == "run-end"


# ------------------------------------------------------------------------------ going away


async def test_a_node_that_goes_sends_the_native_readers_away_and_keeps_the_others(
    mortal_pair: Pair, stack: Any
) -> None:
    """Of runs that another node executes; a client of the native protocol can come back."""
    pair, gate = mortal_pair, asyncio.Event()
    question = pair.site.answers(completion_chunk(content="Half "), gate, *completion("done."))
    body, key = {"message": question, "session_id": "chat"}, {"Idempotency_Key": "k"}
    path = DIALECTS["v1"][0]
    asked = await stack.enter_async_context(pair.owner.stream("POST", path, body, **key))
    await asked.next()
    native = await stack.enter_async_context(pair.other.stream("GET", events_path(asked)))
    await native.read_text("Half ")
    naive = await stack.enter_async_context(pair.other.stream("POST", path, body, **key))
    while b"Half " not in naive.body:
        await naive.next()
    pair.other.signal(signal.SIGTERM)
    await native.rest()
    *events, farewell = native.frames
    assert farewell.raw.startswith(b"retry:")
    gate.set()
    while await naive.next() is not None:
        pass
    assert b"done." in naive.body
    assert b"[DONE]" in naive.body
    rest = await stack.enter_async_context(
        pair.owner.stream("GET", events_path(asked, len(events)))
    )
    await rest.rest()
    assert (rest.text, rest.end["outcome"]) == ("done.", "completed")
    assert await pair.other.exit() == 0


async def test_p3_p5_the_readers_of_a_node_that_was_killed_get_the_ending_at_another(
    mortal_pair: Pair, stack: Any
) -> None:
    pair = mortal_pair
    stream, _ = await pair.half_an_answer(stack)
    reading = await stack.enter_async_context(pair.other.stream("GET", events_path(stream)))
    await reading.read_text("Half ")
    pair.owner.signal(signal.SIGKILL)
    await reading.rest()
    assert reading.end["reason"] == "server_crash"
    message = (await pair.other.run(stream.run_id))["message"]
    assert (message["content"], message["status"]) == ("Half ", "partial")
    await stream.broken()
    assert reading.log.startswith(stream.log)
    assert await pair.other.log_of(stream.run_id) == reading.log
