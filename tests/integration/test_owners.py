"""P8: what belongs to one owner does not exist for another.

The walk goes over every operation that the server describes, so that a route which is added later
is walked over, too: a stranger sends each of them with every id that he could have got hold of.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from holdfast import Holdfast
from holdfast.errors import NotFound
from tests.support.keyed import ALICE, BOB, Caller, keyed
from tests.support.raw_client import Reply
from tests.support.server import Deployment
from tests.support.upstream_server import Script, completion_chunk, event, stream

SECRET = "Xyzzy"
"""Stands in everything that is Alice's: question, answer, title, passage, metadata."""
END = (completion_chunk("stop"), event("[DONE]"))
REFERENCE = {"id": "c1", "content": f"{SECRET} passage", "document_name": f"{SECRET}.md"}

OWN_NAMES = {
    "/api/chat/{id}/stream": 204,
    "/api/chat/{id}/stop": 204,
    "/api/chat/{id}/messages": 200,
}
"""Paths whose id is the caller's own name for a chat: everybody may have one of that name."""
OF_ALL = {"/v1/models/{id}"}
"""Paths to what is nobody's."""
OWN_BODIES = {"/api/v1/chat", "/api/v1/chat/stream", "/api/chat", "/api/messages/save"}
OWN_BODIES |= {"/api/messages", "/api/messages/stream"}
"""Paths to which the body tells the caller's own name for a session."""
SESSION_FIELDS = ("session_id", "conversation_id", "id", "message_id", "messageId")


@dataclass
class Owned:
    """What Alice has, and a stranger knows the names of."""

    ids: list[str] = field(default_factory=list)
    cursors: list[str] = field(default_factory=list)
    idempotency_key: str = "the-same-key-for-both"
    live_run: str = ""

    def add(self, run: Mapping[str, Any]) -> None:
        """Know the ids of a run."""
        names = ("id", "session_id", "message_id", "question_id")
        self.ids += [run[name] for name in names if run[name] not in self.ids]
        self.cursors.append(f"{run['id']}.1")


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    async with keyed(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture(scope="module")
def alice(site: Deployment) -> Caller:
    return Caller(site, ALICE)


@pytest.fixture
def bob(site: Deployment) -> Caller:
    return Caller(site, BOB)


@pytest.fixture(scope="module")
async def gate() -> AsyncIterator[asyncio.Event]:
    """Holds back the end of Alice's live answer."""
    gate = asyncio.Event()
    yield gate
    gate.set()


@pytest.fixture(scope="module")
async def owned(site: Deployment, alice: Caller, gate: asyncio.Event) -> Owned:
    """Something of Alice's on every surface, and one live run."""
    owned = Owned()

    def choose(question: str) -> Script:
        pieces = [completion_chunk(content="Nothing.")]
        if SECRET in question:
            answer = completion_chunk(content=f"{SECRET} answer [ID:0].")
            pieces = [answer, completion_chunk(reference=[REFERENCE])]
        return stream(*pieces, *END)

    site.choose = choose
    question = f"{SECRET} question?"
    first = await alice.post(
        "/api/v1/runs",
        {"message": question, "stream": False, "metadata": {"of": SECRET}},
        Idempotency_Key=owned.idempotency_key,
    )
    owned.add(first.json["run"])
    for path, body in (
        ("/api/v1/chat", {"message": question, "session_id": "my-v1-chat"}),
        ("/chat", {"message": question}),
        ("/api/messages", {"question": question, "session_id": "my-messages"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": question}]}),
        (
            "/api/chat",
            {
                "id": "my-ai-sdk-chat",
                "messages": [
                    {"id": "q1", "role": "user", "parts": [{"type": "text", "text": question}]}
                ],
            },
        ),
    ):
        reply = await alice.post(path, body)
        assert reply.status == 200, reply
        run = (await alice.run(reply.headers["x-holdfast-run"]))["run"]
        owned.add(run)
    owned.ids += ["my-v1-chat", "my-messages", "my-ai-sdk-chat", "q1"]
    live = site.answers(completion_chunk(content=f"{SECRET} "), gate, *END)
    async with alice.stream("POST", "/api/v1/runs", {"message": live}) as reading:
        await reading.read_text(f"{SECRET} ")
        owned.live_run = reading.run_id
    owned.add((await alice.run(owned.live_run))["run"])
    return owned


async def everything(alice: Caller) -> dict[str, Any]:
    """All that Alice has, as she sees it."""
    seen: dict[str, Any] = {}
    sessions = (await alice.get("/api/v1/sessions?limit=200")).json["items"]
    for session in sessions:
        path = f"/api/v1/sessions/{session['id']}"
        messages = (await alice.get(f"{path}/messages?limit=200")).json["items"]
        seen[session["id"]] = (session, messages)
    return seen


def described(document: Any) -> Iterator[tuple[str, str, Any]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def example(operation: Any, document: Any, known: str) -> Any:
    """The body of the example, with an id wherever the schema has a place for one."""
    content = operation.get("requestBody", {}).get("content", {})
    if not content:
        return None
    media = content["application/json"]
    schema = media["schema"]
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    body = dict(media["example"])
    for name in SESSION_FIELDS:
        if name in schema["properties"]:
            body[name] = known
    return body


def queries(operation: Any, owned: Owned) -> Iterator[tuple[str, dict[str, str]]]:
    """Query and headers: without any, and with everything of Alice's that has a place."""
    yield "", {}
    places = [(p["in"], p["name"]) for p in operation["parameters"] if p["in"] != "path"]
    for cursor in owned.cursors:
        known = {
            "Last-Event-ID": cursor,
            "after": cursor,
            "X-Holdfast-Session": owned.ids[1],
            "message": owned.ids[2],
            "Idempotency-Key": owned.idempotency_key,
        }
        query = [
            f"{name}={quote(known[name])}"
            for place, name in places
            if place == "query" and name in known
        ]
        headers = {
            name: known[name] for place, name in places if place == "header" and name in known
        }
        if query or headers:
            yield ("?" + "&".join(query) if query else ""), headers


def assert_nothing_of_alices(reply: Reply, owned: Owned, about: Any) -> None:
    told = reply.body.decode() + json.dumps(reply.headers)
    assert SECRET not in told, (about, reply)
    runs = {cursor.partition(".")[0] for cursor in owned.cursors}
    assert reply.headers.get("x-holdfast-run") not in runs, (about, reply)
    assert reply.headers.get("x-holdfast-session") not in owned.ids, (about, reply)
    assert reply.status < 500, (about, reply)


async def test_p8_nothing_of_another_owner_exists_on_any_operation(
    site: Deployment, alice: Caller, bob: Caller, owned: Owned, gate: asyncio.Event
) -> None:
    document = (await site.server.get("/openapi.json")).json
    before = await everything(alice)
    walked = 0
    for method, path, operation in described(document):
        if not operation["security"] or path.startswith("/api/v1/keys"):
            continue
        for known in owned.ids:
            for query, headers in queries(operation, owned):
                target = path.replace("{id}", quote(known, safe="")) + query
                body = example(operation, document, known)
                about = (method, target, headers, body)
                reply = await bob.call(method, target, body, headers)
                walked += 1
                assert_nothing_of_alices(reply, owned, about)
                if path in OWN_NAMES:
                    assert reply.status == OWN_NAMES[path], (about, reply)
                elif "{id}" in path and path not in OF_ALL:
                    assert reply.status in (404, 403), (about, reply)
                if "{id}" not in path and "{id}" not in query and "Last-Event-ID" in headers:
                    assert reply.status == 404, (about, reply)
            if "{id}" not in path and example(operation, document, known) == example(
                operation, document, "another"
            ):
                break  # it takes no id
    assert walked > 300
    assert await everything(alice) == before
    gate.set()
    assert (await alice.ended(owned.live_run))["run"]["outcome"] == "completed"


async def test_p8_a_session_of_another_owner_cannot_be_asked_in(bob: Caller, owned: Owned) -> None:
    for session in owned.ids:
        for path, body in (
            ("/api/v1/runs", {"message": "Hi?"}),
            ("/chat", {"message": "Hi?"}),
            ("/stream-ask", {"question": "Hi?"}),
        ):
            reply = await bob.post(path, {**body, "session_id": session})
            assert reply.status == 404, (path, session, reply)


async def test_p8_the_same_names_are_other_sessions(
    alice: Caller, bob: Caller, owned: Owned
) -> None:
    theirs = await bob.post("/api/v1/chat", {"message": "Hi?", "session_id": "my-v1-chat"})
    assert theirs.json["session_id"] == "my-v1-chat"
    session = theirs.headers["x-holdfast-session"]
    assert session not in owned.ids
    messages = await bob.get(f"/api/v1/sessions/{session}/messages")
    assert messages.status == 200
    assert SECRET not in messages.body.decode()
    assert (await alice.get(f"/api/v1/sessions/{session}/messages")).status == 404


async def test_p8_the_same_idempotency_key_is_another_run(alice: Caller, bob: Caller) -> None:
    body = {"message": "The same?", "stream": False}
    hers, his, again = [
        await caller.post("/api/v1/runs", body, Idempotency_Key="of-both")
        for caller in (alice, bob, alice)
    ]
    assert hers.json["run"]["id"] == again.json["run"]["id"] != his.json["run"]["id"]


async def test_p8_lists_and_searches_are_ones_own(
    site: Deployment, bob: Caller, owned: Owned
) -> None:
    for path in ("/api/v1/sessions", f"/api/v1/sessions?q={SECRET}"):
        items = (await bob.get(path)).json["items"]
        assert not {session["id"] for session in items} & set(owned.ids)


async def test_p8_refusals_are_the_same_whether_it_exists_or_not(bob: Caller, owned: Owned) -> None:
    for path in ("/api/v1/runs/{}", "/api/v1/sessions/{}", "/api/v1/messages/{}"):
        for known in owned.ids:
            there = (await bob.get(path.format(known))).refused(404, "not_found")
            nowhere = (await bob.get(path.format("nowhere"))).refused(404, "not_found")
            del there["request_id"], nowhere["request_id"]
            assert there == nowhere


async def test_p8_holds_for_the_library(tmp_path: Path) -> None:
    async def answer(ask: Any) -> AsyncIterator[str]:
        yield "Kelp."

    async with Holdfast(f"sqlite:///{tmp_path}/chat.db") as hold:
        run = await hold.ask(message="Hi?", upstream=answer, owner="alice", session_id="s")
        async for _ in hold.read(run.id):
            pass
        theirs = await hold.ask(message="Hi?", upstream=answer, owner="bob", session_id="s")
        assert theirs.session_id != run.session_id
        with pytest.raises(NotFound):
            await hold.message(run.message_id, owner="bob")
        with pytest.raises(NotFound):
            await hold.messages(run.session_id)
        with pytest.raises(NotFound):
            await hold.cancel(run.id, owner="bob")
        assert (await hold.message(run.message_id, owner="alice")).answer.text == "Kelp."
