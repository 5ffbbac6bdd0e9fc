"""The headers with the ids of what a response is about: on every surface, as far as known."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from tests.support.raw_client import Reply
from tests.support.server import Deployment
from tests.support.upstream_server import completion, completion_chunk

NAMES = ("session", "message", "run")
FEEDBACK = {"rating": "up"}


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    async with Deployment(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture(scope="module")
async def ended(site: Deployment) -> dict[str, str]:
    """An answer that is whole: the ids of all that it belongs to, and the cursor at its end."""
    run = (await site.asked("Why?"))["run"]
    ids = {name: run[f"{name}_id"] for name in ("session", "message", "question")}
    return {**ids, "run": run["id"], "cursor": run["cursor"]}


def named(reply: Reply) -> dict[str, str]:
    """The ids in the headers."""
    found = {name: reply.headers.get(f"x-holdfast-{name}") for name in NAMES}
    return {name: value for name, value in found.items() if value is not None}


def some(ids: Mapping[str, str], *names: str) -> dict[str, str]:
    return {name: ids[name] for name in names}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/api/v1/sessions/{session}", None),
        ("PATCH", "/api/v1/sessions/{session}", {"title": "Kelp"}),
        ("GET", "/api/v1/sessions/{session}/messages", None),
        ("GET", "/api/v1/sessions/{session}/events", None),
        ("GET", "/api/v1/sessions/{session}/events?after=3", None),
        ("GET", "/sessions/{session}/messages", None),
        ("GET", "/api/messages?session_id={session}", None),
        ("GET", "/api/chat/{session}/stream", None),
        ("GET", "/api/chat/{session}/messages", None),
        ("POST", "/api/chat/{session}/stop", {}),
    ],
)
async def test_a_sessions_response_names_the_session(
    site: Deployment, ended: dict[str, str], method: str, path: str, body: Any
) -> None:
    reply = await site.server.call(method, path.format(**ended), body)
    assert reply.status in (200, 204)
    assert named(reply) == some(ended, "session")


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/api/v1/messages/{message}", None, 200),
        ("PUT", "/api/v1/messages/{message}/feedback", FEEDBACK, 200),
        ("GET", "/api/v1/runs/{run}", None, 200),
        ("GET", "/api/v1/sessions/{session}/events?after={cursor}", None, 204),
        ("GET", "/api/v1/runs/{run}/events?after={cursor}", None, 204),
        ("GET", "/api/v1/runs/{run}/events?after=99", None, 410),
        ("GET", "/api/v1/runs/{run}/raw", None, 200),
    ],
)
async def test_that_of_an_answer_names_all_three(
    site: Deployment, ended: dict[str, str], method: str, path: str, body: Any, status: int
) -> None:
    reply = await site.server.call(method, path.format(**ended), body)
    assert reply.status == status
    assert named(reply) == some(ended, *NAMES)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "/api/v1/messages/{question}/feedback", FEEDBACK),
        ("POST", "/api/v1/messages/{question}/regenerate", {}),
    ],
)
async def test_a_conflict_names_what_it_is_about(
    site: Deployment, ended: dict[str, str], method: str, path: str, body: Any
) -> None:
    reply = await site.server.call(method, path.format(**ended), body)
    reply.refused(409, "conflict")
    assert named(reply) == {"session": ended["session"], "message": ended["question"]}


async def test_a_created_and_a_deleted_session_is_named(site: Deployment) -> None:
    created = await site.server.post("/api/v1/sessions", {"title": "Kelp"})
    assert named(created) == {"session": created.json["id"]}
    deleted = await site.server.call("DELETE", f"/api/v1/sessions/{created.json['id']}")
    assert (deleted.status, named(deleted)) == (204, named(created))


async def test_a_busy_session_and_its_run_are_named_on_every_surface(site: Deployment) -> None:
    gate = asyncio.Event()
    question = site.answers(completion_chunk(content="Kelp"), gate, *completion())
    message = {"role": "user", "parts": [{"type": "text", "text": "And?"}]}
    async with site.ask(question) as stream:
        await stream.read_text("Kelp")
        id_ = stream.session_id
        busy = {"session": id_, "run": stream.run_id}
        post = site.server.post
        chat = {"messages": [{"role": "user", "content": "And?"}], "model": "script"}
        replies = [
            await post("/api/v1/runs", {"message": "And?", "session_id": id_}),
            await post("/api/v1/chat", {"message": "And?", "session_id": id_}),
            await post("/api/v1/chat/stream", {"message": "And?", "session_id": id_}),
            await post("/chat", {"message": "And?", "session_id": id_}),
            await post("/api/messages", {"question": "And?", "session_id": id_}),
            await post("/stream-ask", {"question": "And?", "session_id": id_}),
            await post("/api/chat", {"id": id_, "messages": [message]}),
            await post("/v1/chat/completions", chat, X_Holdfast_Session=id_),
        ]
        gate.set()
        await stream.rest()
    assert [reply.status for reply in replies] == [409] * len(replies)
    assert [named(reply) for reply in replies] == [busy] * len(replies)


async def test_a_key_that_was_used_names_the_run_it_was_used_for(site: Deployment) -> None:
    first = await site.server.post("/chat", {"message": "One?"}, Idempotency_Key="ids")
    again = await site.server.post("/chat", {"message": "Two?"}, Idempotency_Key="ids")
    assert again.status == 422
    assert named(again) == named(first)
    assert set(named(first)) == set(NAMES)
