"""What the `anythingllm` upstream asks, and where."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from holdfast.engine.policy import ChatMessage
from holdfast.engine.run import UpstreamEnd
from holdfast.events import (
    Notice,
    Reason,
)
from holdfast.settings import Settings
from holdfast.settings.well_known import well_known_upstreams
from holdfast.upstreams.anythingllm.upstream import AnythingLLM
from holdfast.upstreams.base import Ask, Exchange
from holdfast.upstreams.registry import make_upstreams
from tests.support.anythingllm import (
    AGAIN,
    ANSWER,
    ASK,
    AT,
    CHATS,
    GIVEN,
    NEW,
    SECRET,
    SILENT,
    SOURCE,
    STREAM,
    WHOLE,
    AnythingLLMServer,
    abort,
    ask,
    ending,
    new_thread,
    saved,
    says,
)
from tests.support.server import Server
from tests.support.sink import RecordingSink
from tests.support.upstream_server import (
    Script,
    event,
    stream,
    whole,
)

# ---------------------------------------------------------------------- the request


async def test_the_first_question_of_a_session_makes_a_thread(
    make: Callable[..., AnythingLLM],
) -> None:
    question = Ask(
        run_id="r",
        session_id="s",
        message_id="m",
        message="How often?\nAnd 何时?",
        history=(ChatMessage("user", "Hi"),),
        system="Be brief.",
        model="m2",
        temperature=0.5,
    )
    exchange, sink = Exchange(), RecordingSink()
    async with AnythingLLMServer({NEW: [new_thread()], STREAM: [ANSWER]}) as server:
        upstream = make(server.base_url, headers={"X-Team": "also-secret"}, mode="query")
        assert await upstream.answer(question, exchange, sink) == WHOLE
    made, asked = server.requests
    assert (made.method, made.path, made.json) == ("POST", NEW, {"name": "How often?"})
    assert (asked.method, asked.path) == ("POST", STREAM)
    assert asked.json == {"message": "How often?\nAnd 何时?", "mode": "query"}
    for request in server.requests:
        assert request.headers["authorization"] == f"Bearer {SECRET}"
        assert request.headers["x-team"] == "also-secret"
        assert request.headers["content-type"] == "application/json"
    assert sink.remembered == ["t1"]
    assert [*sink.events, WHOLE] == GIVEN
    assert exchange.request == asked.json
    assert exchange.response == {"id": "u", "chatId": 1}
    assert "secret" not in repr(exchange)


async def test_the_next_question_goes_to_the_same_thread(make: Callable[..., AnythingLLM]) -> None:
    sink = RecordingSink()
    async with AnythingLLMServer({STREAM: [ANSWER]}) as server:
        assert await make(server.base_url).answer(AGAIN, Exchange(), sink) == WHOLE
    assert server.paths == [STREAM]
    assert sink.remembered == []


GONE = whole(abort("Workspace test1 or thread t1 is not valid."), 400)


async def test_a_thread_that_is_gone_is_made_anew(make: Callable[..., AnythingLLM]) -> None:
    sink = RecordingSink()
    again = f"{AT}/thread/t%2F2/stream-chat"
    async with AnythingLLMServer(
        {STREAM: [GONE], NEW: [new_thread("t/2")], again: [ANSWER]}
    ) as server:
        assert await make(server.base_url).answer(AGAIN, Exchange(), sink) == WHOLE
    assert server.paths == [STREAM, NEW, again]
    assert sink.remembered == ["t/2"]
    notice, *events = sink.events
    assert isinstance(notice, Notice)
    assert notice.code == "conversation_lost"
    assert [*events, WHOLE] == GIVEN


async def test_it_is_made_anew_once(make: Callable[..., AnythingLLM]) -> None:
    async with AnythingLLMServer({STREAM: [GONE], NEW: [new_thread()]}) as server:
        items = await ask(make(server.base_url))
    assert server.paths == [STREAM, NEW, STREAM]
    error = "notes answered 400: Workspace test1 or thread t1 is not valid."
    assert ending(items) == UpstreamEnd(Reason.UPSTREAM_ERROR, error=error, status=400)


async def test_a_new_thread_that_is_gone_at_once_is_not_made_anew(
    make: Callable[..., AnythingLLM],
) -> None:
    async with AnythingLLMServer({STREAM: [GONE], NEW: [new_thread()]}) as server:
        assert ending(await ask(make(server.base_url), ASK)).reason is Reason.UPSTREAM_ERROR
    assert server.paths == [NEW, STREAM]


@pytest.mark.parametrize(
    "refusal",
    [
        whole(abort("agent is not a valid mode."), 400),
        whole({"error": "No valid api key found."}, 403),
        whole("", 500),
        stream(says("a"), event(abort("thread not valid"))),
    ],
)
async def test_no_thread_is_made_for_another_refusal(
    make: Callable[..., AnythingLLM], refusal: Script
) -> None:
    async with AnythingLLMServer({STREAM: [refusal]}) as server:
        items = await ask(make(server.base_url))
    assert ending(items).reason is Reason.UPSTREAM_ERROR
    assert server.paths == [STREAM]


async def test_without_threads_a_session_id_keeps_sessions_apart(
    make: Callable[..., AnythingLLM],
) -> None:
    sink, exchange = RecordingSink(), Exchange()
    async with AnythingLLMServer({f"{AT}/stream-chat": [ANSWER]}) as server:
        upstream = make(server.base_url, threads=False)
        assert await upstream.answer(AGAIN, exchange, sink) == WHOLE
    assert server.paths == [f"{AT}/stream-chat"]
    body = {"message": "How often?", "mode": "chat", "sessionId": "s/1"}
    assert server.requests[0].json == exchange.request == body
    assert sink.remembered == []


@pytest.mark.parametrize(
    "path",
    ["", "/", "/api", "/api/", "/api/v1", "/api/v1/", "/api/v1/openai", "//"],
)
async def test_every_way_to_write_the_address(make: Callable[..., AnythingLLM], path: str) -> None:
    async with AnythingLLMServer({STREAM: [ANSWER]}) as server:
        assert await ask(make(server.base_url + path)) == GIVEN


async def test_an_address_below_a_path(make: Callable[..., AnythingLLM]) -> None:
    async with AnythingLLMServer({f"/notes{STREAM}?team=1": [ANSWER]}) as server:
        assert await ask(make(server.base_url + "/notes/api?team=1")) == GIVEN


@pytest.mark.parametrize(
    ("mode", "sent"),
    [("chat", "chat"), ("query", "query"), ("automatic", "automatic"), ("agent", "automatic")],
)
async def test_modes(make: Callable[..., AnythingLLM], mode: str, sent: str) -> None:
    async with AnythingLLMServer({STREAM: [ANSWER]}) as server:
        await ask(make(server.base_url, mode=mode))
    assert server.requests[0].json["mode"] == sent


async def test_a_slug_cannot_leave_its_place(make: Callable[..., AnythingLLM]) -> None:
    async with AnythingLLMServer({}) as server:
        upstream = make(server.base_url, workspace="a b?c#d..%2F", threads=False)
        await ask(upstream)
    assert server.paths == ["/api/v1/workspace/a%20b%3Fc%23d..%252F/stream-chat"]


@pytest.mark.parametrize(
    "table",
    [
        {"base_url": "http://a.example"},
        {"base_url": "http://a.example", "workspace": " "},
        {"base_url": "http://a.example", "workspace": "a/b"},
        {"base_url": "a.example", "workspace": "a"},
        {"base_url": "http://a.example", "workspace": "a", "mode": "other"},
        {"base_url": "http://a.example", "workspace": "a", "idle_timeout_s": 0},
        {"base_url": "http://a.example", "workspace": "a", "slug": "a"},
    ],
)
def test_a_table_that_cannot_work_is_refused(table: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        AnythingLLM.Settings.model_validate(table)


def test_the_variables_that_people_have_are_enough() -> None:
    environ = {
        "ANYTHINGLLM_BASE_URL": "http://a.example:3001",
        "ANYTHINGLLM_API_KEY": SECRET,
        "ANYTHINGLLM_WORKSPACE_SLUG": "test1",
    }
    (upstream,) = make_upstreams(Settings(upstreams=well_known_upstreams({}, environ))).values()
    assert isinstance(upstream, AnythingLLM)
    assert upstream.name == "anythingllm"
    assert SECRET not in repr(upstream._settings)


# ---------------------------------------------------------------------- a whole server


async def test_a_server_keeps_to_the_thread_and_closes_the_gap(tmp_path: Path) -> None:
    """The thread is remembered in the store, also by the process after this one."""
    scripts: dict[str, Sequence[Script]] = {
        NEW: [new_thread()],
        STREAM: [ANSWER, SILENT],
        CHATS: [saved("Every month.", "And 何时?", sources=[SOURCE])],
    }
    async with AnythingLLMServer(scripts) as notes:
        table: dict[str, Any] = {"kind": "anythingllm", "base_url": notes.base_url}
        table |= {"api_key": SECRET, "workspace": "test1", "idle_timeout_s": 0.5}
        async with Server(tmp_path, upstreams={"notes": table}) as server:
            asked = {"message": "How often?", "stream": False}
            first = (await server.post("/api/v1/runs", asked)).json
            await server.stop()
        async with Server(tmp_path, upstreams={"notes": table}) as server:
            asked = {"message": "And 何时?", "session_id": first["run"]["session_id"]}
            second = (await server.post("/api/v1/runs", {**asked, "stream": False})).json
            await server.stop()
            stored = server.database.read_bytes()
        assert SECRET not in server.log_text
    assert first["message"]["status"] == "complete"
    assert second["message"]["status"] == "partial"
    assert second["run"]["reason"] == "upstream_timeout"
    for answer in (first, second):
        assert answer["message"]["content"] == "Every month."
        (reference,) = answer["message"]["references"]
        assert reference["document_name"] == "a.txt"
    assert notes.paths == [NEW, STREAM, STREAM, CHATS]
    assert SECRET.encode() not in stored
