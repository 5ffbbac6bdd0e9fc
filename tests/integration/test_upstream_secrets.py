"""What upstreams repeat of their keys, and what is kept of their refusals."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from holdfast.events import Notice, Reason, Step, TextDelta
from holdfast.settings import Settings
from holdfast.upstreams.base import Ask, Exchange, Item
from holdfast.upstreams.registry import make_upstreams
from holdfast.upstreams.remote import RemoteUpstream
from tests.support.sink import collect
from tests.support.upstream_server import (
    LAST_CHUNK,
    Request,
    Script,
    ScriptedUpstream,
    Wire,
    chunk,
    completion_chunk,
    event,
    head,
    whole,
)

KEYS = {name: f"{name}-key-4Gh1-very-secret" for name in ("gpt", "kb", "agent", "notes", "app")}
TENANT = "tenant-header-5Jk2-very-secret"
TABLES: dict[str, dict[str, Any]] = {
    "gpt": {"kind": "openai", "model": "m", "headers": {"X-Tenant": TENANT, "X-Mode": "model"}},
    "kb": {"kind": "ragflow", "chat_id": "c1"},
    "agent": {"kind": "ragflow", "agent_id": "a1"},
    "notes": {"kind": "anythingllm", "workspace": "w1", "threads": False},
    "app": {"kind": "dify"},
}
ASK = Ask(run_id="r", session_id="s", message_id="m", message="Hi?")


async def answers(
    name: str, script: Script, tables: Mapping[str, Mapping[str, Any]] = TABLES
) -> tuple[list[Item], Exchange]:
    """What the upstream of this name gives of a script; a session of RAGFlow is made before."""

    def choose(request: Request) -> Script:
        if request.path.endswith("/sessions"):
            return whole({"code": 0, "data": {"id": "s1"}})
        return whole({"history": []}) if request.method == "GET" else script

    exchange = Exchange()
    async with ScriptedUpstream(choose) as server:
        configured = {
            key: {**table, "base_url": server.base_url, "api_key": KEYS[key]}
            for key, table in tables.items()
        }
        upstream = make_upstreams(Settings(upstreams=configured))[name]
        await upstream.open()
        items = await collect(upstream, ASK, exchange)
        await upstream.close()
    return items, exchange


# ---------------------------------------------------------------------- steps and notices


def stream_of(*frames: Mapping[str, Any], ends: bool = True) -> Script:
    end: Script = [LAST_CHUNK] if ends else [Wire.CLOSE]
    return [head(), *[chunk(event(dict(frame))) for frame in frames], *end]


def told_in_steps(name: str, key: str) -> Sequence[Mapping[str, Any]]:
    """Frames that tell a key wherever this kind of server has steps and notices."""
    long = "x" * 190 + key
    match name:
        case "notes":
            return (
                {"id": "u", "type": "agentThought", "thought": f"Error: 401 {key}"},
                {"id": "u", "type": "agentThought", "thought": "x" * 8_180 + key * 2},
                {"id": "u", "type": "statusResponse", "textResponse": f"asking {key}"},
                {"id": "u", "type": "fileDownload", "fileDownload": {"filename": key}},
            )
        case "app":
            thought = {"event": "agent_thought", "thought": f"by {key}"}
            tool = {"event": "agent_thought", "id": "2", "tool": key, "tool_input": f"a {key}"}
            replaced = {"event": "message_replace", "answer": "No.", "reason": f"because {key}"}
            return thought, tool, {**tool, "id": "3", "tool": long}, replaced
        case "agent":
            data = {"component_id": "n", "component_name": key, "thoughts": f"with {key}"}
            asks = {"component_id": "n", "tips": f"Which {key}?", "inputs": {}}
            return (
                {"event": "node_started", "data": data},
                {"event": "node_finished", "data": {**data, "error": f"bad {key}"}},
                {"event": "user_inputs", "data": asks},
            )
        case _:
            return ({"code": 0, "data": {"answer": f"searching {key}", "running_status": True}},)


@pytest.mark.parametrize("whose", ["gpt", "kb", "own", "header"])
@pytest.mark.parametrize("name", ["notes", "app", "agent", "kb"])
async def test_steps_and_notices_tell_no_key(name: str, whose: str) -> None:
    """Neither its own nor, as a gateway may know several, another upstream's."""
    key = TENANT if whose == "header" else KEYS[name if whose == "own" else whose]
    frames = told_in_steps(name, key)
    items, exchange = await answers(name, stream_of(*frames))
    shown = [item for item in items if isinstance(item, Step | Notice)]
    assert len(shown) == len(frames)
    assert all("***" in str(item) for item in shown)
    said = f"{items} {exchange}"
    for length in range(8, len(key) + 1):
        assert key[:length] not in said


async def test_the_answer_stays_as_the_model_wrote_it() -> None:
    key = KEYS["gpt"]
    script = [head(), chunk(completion_chunk(content=f"It is {key}")), LAST_CHUNK]
    items, _ = await answers("gpt", script)
    assert items[0] == TextDelta(f"It is {key}")


async def test_a_short_header_of_another_upstream_is_a_word() -> None:
    refusal = whole({"message": f"no model of {TENANT}"}, 400)
    items, _ = await answers("app", refusal)
    assert items[-1].error == "app answered 400: no model of ***"  # type: ignore[union-attr]


async def test_a_key_that_begins_like_another_leaves_nothing_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(KEYS, "app", KEYS["gpt"] + "-2")
    items, _ = await answers("notes", whole({"error": f"bad {KEYS['app']}."}, 403))
    assert items[-1].error == "notes answered 403: bad ***."  # type: ignore[union-attr]


def test_who_is_alone_has_only_secrets_of_its_own() -> None:
    tables = {"gpt": {**TABLES["gpt"], "base_url": "http://a.example", "api_key": KEYS["gpt"]}}
    upstream = make_upstreams(Settings(upstreams=tables))["gpt"]
    assert isinstance(upstream, RemoteUpstream)
    assert {*upstream.secrets} == {KEYS["gpt"], TENANT, "model"}


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize(
    ("status", "content_type", "text"),
    [
        (403, "application/json", '{"error": {"message": "bad KEY"}, "trace": "T-17"}'),
        (500, "text/html", "<h1>Oops</h1> KEY"),
        (502, "text/plain", "bad gateway: KEY"),
        (302, "text/html", "moved KEY"),
        (200, "text/html", "<p>Please log in, KEY</p>"),
        (200, "application/json", '{"code": 109, "error": "bad KEY", "message": "bad KEY"}'),
        (200, "application/json", '"KEY"'),
    ],
)
async def test_a_refusal_is_kept_as_it_came_without_keys(
    name: str, status: int, content_type: str, text: str
) -> None:
    script = whole(text.replace("KEY", KEYS[name]).encode(), status, content_type)
    items, exchange = await answers(name, script)
    assert items[-1].reason is not None  # type: ignore[union-attr]
    assert exchange.response["status"] == status
    assert exchange.response["body"] == text.replace("KEY", "***")
    assert KEYS[name] not in str(exchange)


@pytest.mark.parametrize(
    ("table", "body", "status"),
    [
        ({"kind": "ragflow", "chat_id": "c1"}, {"code": 102, "message": "Not yours."}, 200),
        ({"kind": "ragflow", "chat_id": "c1"}, {"code": 401, "message": "Who?"}, 401),
        ({"kind": "anythingllm", "workspace": "w1"}, {"thread": None, "message": "Full"}, 200),
        ({"kind": "anythingllm", "workspace": "w1"}, {"error": "No valid api key found."}, 403),
    ],
)
async def test_the_refusal_of_a_session_is_kept(
    table: dict[str, Any], body: dict[str, Any], status: int
) -> None:
    exchange = Exchange()
    async with ScriptedUpstream(whole(body, status)) as server:
        settings = Settings(upstreams={"kb": {**table, "base_url": server.base_url}})
        upstream = make_upstreams(settings)["kb"]
        await upstream.open()
        await collect(upstream, ASK, exchange)
        await upstream.close()
    assert exchange.response["status"] == status
    assert json.loads(exchange.response["body"]) == body


@pytest.mark.parametrize(("status", "content_type"), [(500, "text/plain"), (200, "text/html")])
@pytest.mark.parametrize("end", [Wire.STALL, Wire.CLOSE, Wire.RESET])
async def test_a_refusal_that_breaks_off_is_kept_as_far_as_it_came(
    monkeypatch: pytest.MonkeyPatch, status: int, content_type: str, end: Wire
) -> None:
    monkeypatch.setattr("holdfast.upstreams.remote.AFTERMATH_S", 0.05)
    key = KEYS["notes"][:12]
    script: Script = [
        f"HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\nContent-Length: 999\r\n\r\n"
        f"no: {key}".encode(),
        end,
    ]
    async with asyncio.timeout(10):
        items, exchange = await answers("notes", script)
    assert items[-1].reason is Reason.UPSTREAM_ERROR  # type: ignore[union-attr]
    if end is not Wire.RESET:  # which may overtake what was sent before it
        assert exchange.response == {"status": status, "body": "no: ***"}
    assert key not in str(exchange)


async def test_an_answer_is_kept_without_its_body() -> None:
    body = {"choices": [{"message": {"content": "Yes."}, "finish_reason": "stop"}]}
    items, exchange = await answers("gpt", whole(body))
    assert items[0] == TextDelta("Yes.")
    assert "body" not in exchange.response
