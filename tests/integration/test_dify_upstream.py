"""The `dify` upstream over real sockets."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from holdfast.engine.run import UpstreamEnd
from holdfast.errors import ConfigError
from holdfast.events import Notice, Reason, ReasoningDelta, TextDelta
from holdfast.settings import LimitSettings, Settings
from holdfast.settings.well_known import well_known_upstreams
from holdfast.upstreams.base import Ask, Exchange, Item
from holdfast.upstreams.dify.upstream import Dify
from holdfast.upstreams.registry import make_upstreams
from holdfast.upstreams.wire.transport import Transport
from tests.support.corpus import Case, find_cases
from tests.support.loop import until
from tests.support.records import changed
from tests.support.server import Server
from tests.support.sink import FullSink, RecordingSink, collect
from tests.support.upstream_server import (
    LAST_CHUNK,
    Request,
    Script,
    ScriptedUpstream,
    Step,
    Wire,
    chunk,
    event,
    head,
    stream,
    whole,
)

SECRET = "app-very-secret"
ASK = Ask(run_id="r", session_id="s1", message_id="m", message="How often? 多久？")
DONE = UpstreamEnd()
GONE = {"code": "not_found", "message": "Conversation Not Exists.", "status": 404}
STOPPED = whole({"result": "success"})


@pytest.fixture
async def make(transport: Transport) -> AsyncIterator[Callable[..., Dify]]:
    """Makes upstreams over one open transport."""
    made: list[Dify] = []

    def make(base_url: str, limits: LimitSettings | None = None, **settings: Any) -> Dify:
        table = {"base_url": base_url, "api_key": SECRET, **settings}
        settled = Dify.Settings.model_validate(table)
        made.append(Dify("kb", settled, limits or LimitSettings(), transport))
        return made[-1]

    yield make
    for upstream in made:
        if upstream._stopping:
            await asyncio.wait(upstream._stopping)


def said(kind: str, conversation: str = "c1", **fields: Any) -> bytes:
    return event({"event": kind, "conversation_id": conversation, "task_id": "t/1", **fields})


def answer(*texts: str, conversation: str = "c1") -> list[bytes]:
    """A whole answer of these texts."""
    pieces = [said("message", conversation, answer=text) for text in texts]
    return [*pieces, said("message_end", conversation)]


def texts(items: list[Item]) -> str:
    return "".join(item.text for item in items if isinstance(item, TextDelta))


def ending(items: list[Item]) -> UpstreamEnd:
    end = items[-1]
    assert isinstance(end, UpstreamEnd)
    return end


def stoppable(script: Script, stop: Script = STOPPED) -> Callable[[Request], Script]:
    """One script for the answer and one for the call that stops it."""
    return lambda request: stop if request.path.endswith("/stop") else script


# ---------------------------------------------------------------------- the request


async def test_the_question_goes_out_for_a_user_of_the_session(make: Callable[..., Dify]) -> None:
    exchange = Exchange()
    async with ScriptedUpstream(stream(*answer("18 ", "months"))) as server:
        items = await collect(make(server.base_url), ASK, exchange)
        await collect(make(server.base_url), changed(ASK, session_id="s2"))
        await collect(make(server.base_url, user="team", inputs={"lang": "zh"}), ASK)
    assert items == [TextDelta("18 "), TextDelta("months"), DONE]
    first, second, third = server.requests
    assert (first.method, first.path) == ("POST", "/v1/chat-messages")
    assert first.headers["authorization"] == f"Bearer {SECRET}"
    assert first.json == exchange.request
    assert first.json == {
        "inputs": {},
        "query": "How often? 多久？",
        "response_mode": "streaming",
        "user": "holdfast-s1",
        "auto_generate_name": False,
    }
    assert second.json["user"] == "holdfast-s2"
    assert (third.json["user"], third.json["inputs"]) == ("team", {"lang": "zh"})
    assert exchange.response == {"conversation_id": "c1"}


@pytest.mark.parametrize(
    ("base_url", "path"),
    [
        ("", "/v1/chat-messages"),
        ("/", "/v1/chat-messages"),
        ("/v1", "/v1/chat-messages"),
        ("/v1/", "/v1/chat-messages"),
        ("/dify", "/dify/v1/chat-messages"),
        ("/dify/v1/chat-messages", "/dify/v1/chat-messages"),
        ("/v1?x=1", "/v1/chat-messages?x=1"),
    ],
)
async def test_base_url_with_or_without_the_version(
    make: Callable[..., Dify], base_url: str, path: str
) -> None:
    async with ScriptedUpstream(stream(*answer("hi"))) as server:
        assert ending(await collect(make(server.base_url + base_url), ASK)) == DONE
    assert server.requests[0].path == path


@pytest.mark.parametrize(
    "table",
    [
        {"base_url": "https://dify.example"},
        {"base_url": "https://dify.example", "api_key": " "},
        {"base_url": "dify.example", "api_key": "k"},
        {"base_url": "https://dify.example", "api_key": "k", "user": ""},
        {"base_url": "https://dify.example", "api_key": "k", "model": "m"},
    ],
)
def test_settings_that_cannot_be_are_refused(table: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Dify.Settings.model_validate(table)


def test_secrets_do_not_show_in_the_settings() -> None:
    settings = Dify.Settings.model_validate({"base_url": "https://d.example", "api_key": SECRET})
    assert SECRET not in repr(settings)
    assert SECRET not in settings.model_dump_json()


def test_the_variables_that_people_have_are_enough() -> None:
    for environ, base_url in (
        ({"DIFY_API_KEY": SECRET}, "https://api.dify.ai/v1"),
        (
            {"DIFY_API_KEY": SECRET, "DIFY_BASE_URL": "http://dify.example"},
            "http://dify.example/v1",
        ),
    ):
        settings = Settings(upstreams=well_known_upstreams({}, environ))
        (upstream,) = make_upstreams(settings).values()
        assert isinstance(upstream, Dify)
        assert (upstream.name, upstream._settings.base_url) == ("dify", base_url)
    with pytest.raises(ConfigError, match="DIFY_API_KEY"):
        make_upstreams(
            Settings(upstreams=well_known_upstreams({}, {"DIFY_BASE_URL": "http://dify.example"}))
        )


# ---------------------------------------------------------------------- conversations


async def test_the_conversation_is_remembered_at_once_and_used_again(
    make: Callable[..., Dify],
) -> None:
    go = asyncio.Event()
    first, last = said("message", answer="hi"), said("message_end")
    script: list[Step] = [head(), chunk(first), go, chunk(last), LAST_CHUNK]
    async with ScriptedUpstream(script) as server, asyncio.TaskGroup() as tasks:
        sink = RecordingSink()
        upstream = make(server.base_url)
        running = tasks.create_task(upstream.answer(ASK, Exchange(), sink))
        await sink.has(lambda: bool(sink.text))
        assert sink.remembered == ["c1"]
        go.set()
        await running
        assert sink.remembered == ["c1"]
        sink = RecordingSink()
        await upstream.answer(changed(ASK, conversation="c1"), Exchange(), sink)
        assert sink.remembered == []
    assert [request.json.get("conversation_id") for request in server.requests] == [None, "c1"]


@pytest.mark.parametrize(
    "refusal",
    [
        whole(GONE, 404),
        whole({**GONE, "message": "Conversation Not Exists. You have requested this URI"}, 404),
        whole(
            {
                "code": "conversation_completed",
                "message": "The conversation has ended. Please start a new conversation.",
                "status": 400,
            },
            400,
        ),
    ],
)
async def test_a_conversation_that_is_gone_is_begun_anew(
    make: Callable[..., Dify], refusal: Script
) -> None:
    def choose(request: Request) -> Script:
        return refusal if "conversation_id" in request.json else stream(*answer("hi"))

    async with ScriptedUpstream(choose) as server:
        sink = RecordingSink()
        asked = changed(ASK, conversation="old")
        exchange = Exchange()
        assert await make(server.base_url).answer(asked, exchange, sink) == DONE
    assert sink.remembered == ["c1"]
    notice, text = sink.events
    assert isinstance(notice, Notice)
    assert (notice.code, text) == ("conversation_lost", TextDelta("hi"))
    assert exchange.request == server.requests[1].json
    assert len(server.requests) == 2


async def test_it_is_begun_anew_only_once(make: Callable[..., Dify]) -> None:
    async with ScriptedUpstream(whole(GONE, 404)) as server:
        items = await collect(make(server.base_url), changed(ASK, conversation="old"))
        assert ending(items).error == "kb answered 404: Conversation Not Exists. (not_found)"
        assert len(server.requests) == 2
        await collect(make(server.base_url), ASK)
        assert len(server.requests) == 3


async def test_another_refusal_begins_nothing_anew(make: Callable[..., Dify]) -> None:
    refusal = whole({"code": "not_found", "message": "Workflow not found", "status": 404}, 404)
    async with ScriptedUpstream(refusal) as server:
        items = await collect(make(server.base_url), changed(ASK, conversation="c1"))
    assert len(items) == len(server.requests) == 1


# ---------------------------------------------------------------------- answers


@pytest.mark.parametrize("case", find_cases("dify"), ids=str)
async def test_recorded_answers_arrive_whole(make: Callable[..., Dify], case: Case) -> None:
    body = case.body
    pieces = [body[at : at + 100] for at in range(0, len(body), 100)]
    script = stream(*pieces) if case.is_stream else whole(body)
    async with ScriptedUpstream(stoppable(script)) as server:
        items = await collect(make(server.base_url), ASK)
        upstream = make("https://dify.example/v1")  # whose files have these addresses
        assert texts(items).replace(server.base_url, "https://dify.example") == texts(case.items())
        assert ending(items) == ending(case.items())
        assert len(items) == len(case.items())
        assert upstream.model is None


async def test_a_stream_that_stays_open_after_its_end_is_whole(make: Callable[..., Dify]) -> None:
    async with ScriptedUpstream(stream(*answer("hi"), end=[Wire.STALL])) as server:
        assert await collect(make(server.base_url), ASK) == [TextDelta("hi"), DONE]


async def test_a_stream_that_stays_open_after_the_workflow_is_whole(
    make: Callable[..., Dify], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.upstreams.remote.AFTERMATH_S", 0.01)
    finished = said("workflow_finished", data={"status": "succeeded"})
    script = stream(said("message", answer="hi"), finished, end=[Wire.STALL])
    async with ScriptedUpstream(script) as server:
        assert await collect(make(server.base_url), ASK) == [TextDelta("hi"), DONE]
        await server.client_left()
    assert len(server.requests) == 1, "there is nothing to stop"


async def test_whole_answers_share_a_connection(
    make: Callable[..., Dify], transport: Transport
) -> None:
    async with ScriptedUpstream(stream(*answer("hi"))) as server:
        upstream = make(server.base_url)
        for _ in range(3):
            assert ending(await collect(upstream, ASK)) == DONE
            await until(lambda: not transport._settling)
        assert server.connections == 1


async def test_whether_tags_enclose_thoughts_is_a_setting(make: Callable[..., Dify]) -> None:
    async with ScriptedUpstream(stream(*answer("<think>Hm.</think>Yes."))) as server:
        thoughts = await collect(make(server.base_url), ASK)
        plain = await collect(make(server.base_url, think_tags=False), ASK)
    assert thoughts[:-1] == [ReasoningDelta("Hm."), TextDelta("Yes.")]
    assert plain[:-1] == [TextDelta("<think>Hm.</think>Yes.")]


async def test_a_run_that_is_full_is_given_nothing_until_it_has_room(
    make: Callable[..., Dify],
) -> None:
    pieces = [said("message", answer="0123456789") * 100] * 100
    async with ScriptedUpstream(stream(*pieces, *answer())) as server:
        sink = FullSink()
        assert await make(server.base_url).answer(ASK, Exchange(), sink) == DONE
    assert sink.text == "0123456789" * 10_000
    assert sink.waits > 1


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("script", "error", "status"),
    [
        (
            whole(
                {"code": "unauthorized", "message": "Access token is invalid", "status": 401}, 401
            ),
            "kb answered 401: Access token is invalid (unauthorized)",
            401,
        ),
        (
            whole(
                {"code": "too_many_requests", "message": "Too many", "status": 429},
                429,
                Retry_After="3",
            ),
            "kb answered 429: Too many (too_many_requests) (it asks to wait 3 s)",
            429,
        ),
        (
            whole({"code": "not_chat_app", "message": "Wrong route.", "status": 400}, 400),
            "kb answered 400: Wrong route. (not_chat_app)",
            400,
        ),
        (whole("<html>x</html>", 504, "text/html"), "kb answered 504", 504),
        (
            whole("<html>", 200, "text/html; charset=utf-8"),
            "kb answered with text/html instead of an event stream; is base_url right?",
            None,
        ),
        (whole({"code": "x", "message": f"no {SECRET}", "status": 400}), "no *** (x)", 400),
        (
            stream(event({"event": "error", "code": "x", "message": f"no {SECRET}"})),
            "no *** (x)",
            None,
        ),
    ],
)
async def test_a_refusal_is_an_error_in_words_with_its_status(
    make: Callable[..., Dify], script: Script, error: str, status: int | None
) -> None:
    async with ScriptedUpstream(script) as server:
        items = await collect(make(server.base_url), ASK)
    assert items == [UpstreamEnd(Reason.UPSTREAM_ERROR, error=error, status=status)]
    assert len(server.requests) == 1


async def test_nobody_listens(make: Callable[..., Dify]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    end = ending(await collect(make(f"http://127.0.0.1:{port}"), ASK))
    assert end.reason is Reason.UPSTREAM_UNREACHABLE


# ---------------------------------------------------------------------- stopping


async def test_cancelling_closes_the_socket_and_then_stops_the_answer(
    make: Callable[..., Dify],
) -> None:
    left_before_stop: list[int] = []

    def choose(request: Request) -> Script:
        if not request.path.endswith("/stop"):
            return stream(said("message", answer="hi <thi"), end=[Wire.STALL])
        left_before_stop.append(server.closed_early)
        return STOPPED

    async with ScriptedUpstream(choose) as server:
        sink = RecordingSink()
        task = asyncio.create_task(make(server.base_url).answer(ASK, Exchange(), sink))
        await sink.has(lambda: sink.text == "hi ")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sink.text == "hi <thi", "nothing that came is lost"
        await server.client_left()
        await server.asked(2)
    stop = server.requests[1]
    assert (stop.method, stop.path) == ("POST", "/v1/chat-messages/t%2F1/stop")
    assert stop.json == {"user": "holdfast-s1"}
    assert stop.headers["authorization"] == f"Bearer {SECRET}"
    assert left_before_stop == [1]
    assert server.connections == 2


async def test_a_run_that_takes_no_more_stops_the_answer(make: Callable[..., Dify]) -> None:
    limit = UpstreamEnd(Reason.LIMIT, error="enough")
    script = stream(said("message", answer="hi"), end=[Wire.STALL])
    async with ScriptedUpstream(stoppable(script)) as server:
        sink = RecordingSink(1, limit)
        assert await make(server.base_url).answer(ASK, Exchange(), sink) == limit
        await server.client_left()
        await server.asked(2)
    assert server.requests[1].path.endswith("/stop")


@pytest.mark.parametrize("end", [Wire.CLOSE, Wire.RESET])
async def test_an_answer_whose_connection_broke_is_stopped(
    make: Callable[..., Dify], end: Wire
) -> None:
    script = stream(said("message", answer="hi"), end=[end])
    async with ScriptedUpstream(stoppable(script)) as server:
        items = await collect(make(server.base_url), ASK)
        assert ending(items).reason is Reason.UPSTREAM_TRUNCATED
        await server.asked(2)
    assert texts(items) == "hi"


@pytest.mark.parametrize(
    "script",
    [
        [Wire.STALL],
        stream(b"event: ping\n\n", end=[Wire.STALL]),
        stream(event({"event": "message", "answer": "hi"}), end=[Wire.STALL]),
    ],
)
async def test_an_answer_without_a_name_is_not_stopped_by_a_call(
    make: Callable[..., Dify], script: Script
) -> None:
    async with ScriptedUpstream(script) as server:
        upstream = make(server.base_url)
        task = asyncio.create_task(collect(upstream, ASK))
        await server.asked()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.client_left()
        assert not upstream._stopping
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "last", [said("message_end"), event({"event": "error", "message": "down"})]
)
async def test_an_answer_that_is_over_is_not_stopped(
    make: Callable[..., Dify], last: bytes
) -> None:
    async with ScriptedUpstream(stream(said("message", answer="hi"), last)) as server:
        upstream = make(server.base_url)
        await collect(upstream, ASK)
        assert not upstream._stopping
    assert len(server.requests) == 1


@pytest.mark.parametrize("stop", [[Wire.STALL], [Wire.RESET], whole("", 500), whole("x", 404)])
async def test_closing_waits_for_the_call_that_stops_an_answer_but_not_long(
    make: Callable[..., Dify], monkeypatch: pytest.MonkeyPatch, stop: Script
) -> None:
    monkeypatch.setattr("holdfast.upstreams.dify.upstream.STOP_TIMEOUT_S", 0.05)
    script = stream(said("message", answer="hi"), end=[Wire.STALL])
    async with ScriptedUpstream(stoppable(script, stop)) as server:
        upstream = make(server.base_url)
        await upstream.open()
        sink = RecordingSink()
        task = asyncio.create_task(upstream.answer(ASK, Exchange(), sink))
        await sink.has(lambda: bool(sink.text))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert upstream._stopping
        await upstream.close()
        assert not upstream._stopping
        assert len(server.requests) == 2


# ---------------------------------------------------------------------- the check


def info(answer: Script, older: Script | None = None) -> Callable[[Request], Script]:
    return lambda request: (older or answer) if "parameters" in request.path else answer


@pytest.mark.parametrize(
    ("choose", "ok", "detail"),
    [
        (info(whole({"name": "a", "mode": "advanced-chat"})), True, ""),
        (info(whole({"name": "a", "mode": ["workflow"]})), True, ""),
        (
            info(whole({"name": "a", "mode": "workflow"})),
            False,
            "the app is a workflow app, which cannot chat",
        ),
        (info(whole(GONE, 404), whole({"user_input_form": []})), True, ""),
        (
            info(whole(GONE, 404)),
            False,
            "answered 404, but not as Dify does; is base_url right?",
        ),
        (
            info(whole({"code": "unauthorized", "message": "no"}, 401)),
            False,
            "answered 401: the api_key is missing or refused",
        ),
        (
            info(whole("<p>", 200, "text/html")),
            False,
            "answered 200, but not as Dify does; is base_url right?",
        ),
        (info(whole({"message": f"busy {SECRET}"}, 503)), False, "answered 503: busy ***"),
        (info([Wire.CLOSE]), False, "the connection was closed before there was an answer"),
    ],
)
async def test_the_check_tells_what_is_wrong(
    make: Callable[..., Dify], choose: Callable[[Request], Script], ok: bool, detail: str
) -> None:
    async with ScriptedUpstream(choose) as server:
        health = await make(server.base_url).check()
    assert (health.ok, health.detail) == (ok, detail)
    assert server.requests[0].path == "/v1/info?user=holdfast"
    assert server.requests[0].headers["authorization"] == f"Bearer {SECRET}"


# ---------------------------------------------------------------------- behind a server


def server_for(folder: Path, upstream: ScriptedUpstream) -> Server:
    table = {"kind": "dify", "base_url": upstream.base_url, "api_key": SECRET}
    return Server(folder, upstreams={"kb": table})


async def test_a_session_goes_on_in_its_conversation_also_after_a_restart(tmp_path: Path) -> None:
    async with ScriptedUpstream(stream(*answer("18 months"))) as upstream:
        async with server_for(tmp_path, upstream) as server:
            body = {"message": "How often?", "stream": False}
            reply = await server.post("/api/v1/runs", body)
            assert reply.json["message"]["content"] == "18 months"
            session = reply.json["run"]["session_id"]
        async with server_for(tmp_path, upstream) as server:
            body = {"message": "And in winter?", "stream": False, "session_id": session}
            assert (await server.post("/api/v1/runs", body)).status == 200
            body = {"message": "Hi", "stream": False}
            assert (await server.post("/api/v1/runs", body)).status == 200
    first, second, third = [request.json for request in upstream.requests]
    assert [one.get("conversation_id") for one in (first, second, third)] == [None, "c1", None]
    assert first["user"] == second["user"] != third["user"]


async def test_p10_a_cancelled_run_keeps_its_text_and_stops_the_answer(tmp_path: Path) -> None:
    script = stream(said("message", answer="18"), end=[Wire.STALL])
    async with (
        ScriptedUpstream(stoppable(script)) as upstream,
        server_for(tmp_path, upstream) as server,
    ):
        async with server.stream("POST", "/api/v1/runs", {"message": "How often?"}) as reader:
            await reader.read_text("18")
            await server.post(f"/api/v1/runs/{reader.run_id}/cancel")
            await reader.rest()
            assert (reader.end["outcome"], reader.text) == ("cancelled", "18")
        await upstream.client_left()
        await upstream.asked(2)
        body = {"message": "And now?", "session_id": reader.session_id}
        async with server.stream("POST", "/api/v1/runs", body) as reader:
            await upstream.asked(3)
    stop, question = upstream.requests[1:3]
    assert stop.path == "/v1/chat-messages/t%2F1/stop"
    assert question.json["conversation_id"] == "c1", "known though nothing came to its end"
