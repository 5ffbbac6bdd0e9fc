"""The `openai` upstream over real sockets."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from holdfast.engine.policy import ChatMessage
from holdfast.engine.run import UpstreamEnd
from holdfast.events import (
    Finish,
    Reason,
    ReasoningDelta,
    References,
    TextDelta,
    ToolCall,
    Usage,
)
from holdfast.settings import LimitSettings
from holdfast.upstreams.base import Ask, Exchange, Item
from holdfast.upstreams.decoding.citations import Style
from holdfast.upstreams.openai.decoder import OpenAIDecoder
from holdfast.upstreams.openai.upstream import OpenAI
from holdfast.upstreams.wire.transport import Transport
from tests.support.corpus import Case, find_cases
from tests.support.loop import until
from tests.support.records import changed
from tests.support.sink import FullSink, RecordingSink, collect
from tests.support.upstream_server import (
    LAST_CHUNK,
    Script,
    ScriptedUpstream,
    Step,
    Wire,
    chunk,
    completion,
    completion_chunk,
    event,
    head,
    stream,
    whole,
)

SECRET = "sk-very-secret"
ASK = Ask(run_id="r", session_id="s", message_id="m", message="How often?")
WHOLE = UpstreamEnd(finish=Finish.STOP)


@pytest.fixture
def make(transport: Transport) -> Callable[..., OpenAI]:
    """Makes upstreams over one open transport."""

    def make(base_url: str, limits: LimitSettings | None = None, **settings: Any) -> OpenAI:
        table = OpenAI.Settings.model_validate({"base_url": base_url, **settings})
        return OpenAI("gpt", table, limits or LimitSettings(), transport)

    return make


async def ask(upstream: OpenAI, ask: Ask = ASK, exchange: Exchange | None = None) -> list[Item]:
    return await collect(upstream, ask, exchange)


def texts(items: list[Item]) -> str:
    return "".join(item.text for item in items if isinstance(item, TextDelta))


def ending(items: list[Item]) -> UpstreamEnd:
    end = items[-1]
    assert isinstance(end, UpstreamEnd)
    return end


# ---------------------------------------------------------------------- the request


async def test_the_question_goes_out_with_its_history(make: Callable[..., OpenAI]) -> None:
    question = Ask(
        run_id="r",
        session_id="s",
        message_id="m",
        message="And 你?",
        history=(ChatMessage("user", "Hi"), ChatMessage("assistant", "Hello")),
        system="Be brief.",
        model="m2",
        temperature=0.0,
        max_tokens=5,
    )
    exchange = Exchange()
    async with ScriptedUpstream(stream(*completion("ok"))) as server:
        upstream = make(
            server.base_url + "/v1/?api-version=2",
            api_key=SECRET,
            model="m1",
            temperature=1.0,
            max_tokens=100,
            headers={"X-Team": "also-secret"},
            extra_body={"reference": True, "stream": False},
        )
        await ask(upstream, question, exchange)
    request = server.requests[0]
    assert (request.method, request.path) == ("POST", "/v1/chat/completions?api-version=2")
    assert request.headers["authorization"] == f"Bearer {SECRET}"
    assert request.headers["x-team"] == "also-secret"
    assert request.headers["content-type"] == "application/json"
    assert request.json == {
        "model": "m2",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Hello"},
            {"role": "user", "content": "And 你?"},
        ],
        "temperature": 0.0,
        "max_tokens": 5,
        "stream": True,
        "stream_options": {"include_usage": True},
        "reference": True,
    }
    assert exchange.request == request.json
    assert exchange.response == {"id": "c1", "model": "m1", "finish_reason": "stop"}


async def test_what_is_not_set_is_not_sent(make: Callable[..., OpenAI]) -> None:
    async with ScriptedUpstream(stream(*completion("ok"))) as server:
        await ask(make(server.base_url, include_usage=False, api_key=" "))
    assert server.requests[0].json == {
        "messages": [{"role": "user", "content": "How often?"}],
        "stream": True,
    }
    assert "authorization" not in server.requests[0].headers


CHAT: dict[str, Any] = {
    "model": "what the client calls it",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "How often?"}]},
        {"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": {}}]},
        {"role": "tool", "tool_call_id": "a", "content": "18"},
    ],
    "tools": [{"type": "function", "function": {"name": "now", "parameters": {}}}],
    "tool_choice": "auto",
    "response_format": {"type": "json_object"},
    "temperature": 0.3,
    "seed": 7,
    "stream": True,
    "stream_options": {"include_obfuscation": False},
    "x_new_parameter": [None, 1.5],
}


async def test_the_request_of_a_client_of_the_same_api_is_passed_on(
    make: Callable[..., OpenAI],
) -> None:
    question = changed(ASK, chat=CHAT, system="Another.", temperature=1.0, model="m2")
    async with ScriptedUpstream(stream(*completion("ok"))) as server:
        upstream = make(server.base_url, model="m1", max_tokens=5, temperature=0.9)
        await ask(upstream, question)
        await ask(upstream, changed(question, model=None))
        await ask(make(server.base_url, include_usage=False), changed(question, model=None))
    expected = {
        **CHAT,
        "model": "m2",
        "stream_options": {"include_obfuscation": False, "include_usage": True},
    }
    assert server.requests[0].json == expected
    assert server.requests[1].json == {**expected, "model": "m1"}
    without_model = {name: value for name, value in CHAT.items() if name != "model"}
    assert server.requests[2].json == without_model


async def test_further_members_are_added_where_the_client_sent_none(
    make: Callable[..., OpenAI],
) -> None:
    more = {"reference": True, "seed": 1, "model": "m0"}
    async with ScriptedUpstream(stream(*completion("ok"))) as server:
        await ask(make(server.base_url, extra_body=more), changed(ASK, chat=CHAT))
    sent = server.requests[0].json
    assert (sent["reference"], sent["seed"], sent["model"]) == (True, 7, "m0")


async def test_tool_calls_of_a_passed_on_request_come_back(make: Callable[..., OpenAI]) -> None:
    said = {"index": 0, "id": "a", "function": {"name": "now", "arguments": "{}"}}
    script = stream(
        completion_chunk(tool_calls=[said]), completion_chunk("tool_calls"), event("[DONE]")
    )
    async with ScriptedUpstream(script) as server:
        items = await ask(make(server.base_url), changed(ASK, chat=CHAT))
    assert items == [ToolCall(0, "a", "now", "{}"), UpstreamEnd(finish=Finish.TOOL_CALLS)]


def test_secrets_do_not_show_in_the_settings() -> None:
    table = {"base_url": "http://a.example", "api_key": SECRET, "headers": {"X-Key": SECRET}}
    settings = OpenAI.Settings.model_validate(table)
    assert SECRET not in repr(settings)
    assert SECRET not in settings.model_dump_json()


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "a.example/v1",
        "ftp://a.example",
        "http://",
        "http://a.example:x/v1",
        "http://u:p@a.example",
    ],
)
def test_a_base_url_that_cannot_be_is_refused(base_url: str) -> None:
    with pytest.raises(ValidationError):
        OpenAI.Settings(base_url=base_url)


# ---------------------------------------------------------------------- answers


async def test_an_answer_streams_as_it_comes(make: Callable[..., OpenAI]) -> None:
    go = asyncio.Event()
    first, second, *rest = completion("one", "two")
    script: list[Step] = [head(), chunk(first), go, *map(chunk, [second, *rest]), LAST_CHUNK]
    async with ScriptedUpstream(script) as server, asyncio.TaskGroup() as tasks:
        sink = RecordingSink()
        answer = tasks.create_task(make(server.base_url).answer(ASK, Exchange(), sink))
        await sink.has(lambda: sink.text == "one")
        go.set()
        assert await answer == WHOLE
    assert sink.events == [TextDelta("one"), TextDelta("two")]


async def test_a_keep_alive_is_an_empty_batch(make: Callable[..., OpenAI]) -> None:
    go = asyncio.Event()
    script: list[Step] = [head(), chunk(b": hi\n\n"), go, chunk(b"data: [DONE]\n\n"), LAST_CHUNK]
    async with ScriptedUpstream(script) as server, asyncio.TaskGroup() as tasks:
        sink = RecordingSink()
        answer = tasks.create_task(make(server.base_url).answer(ASK, Exchange(), sink))
        await sink.has(lambda: sink.batches == 1)
        assert sink.events == []
        go.set()
        assert await answer == UpstreamEnd()


@pytest.mark.parametrize("case", find_cases("openai", "openai_agents"), ids=str)
async def test_recorded_answers_arrive_whole(make: Callable[..., OpenAI], case: Case) -> None:
    body = case.body
    pieces = [body[at : at + 100] for at in range(0, len(body), 100)]
    path = "/agents_openai/a1" if case.folder == "openai_agents" else ""
    async with ScriptedUpstream(stream(*pieces) if case.is_stream else whole(body)) as server:
        items = await ask(make(server.base_url + path, pace=0))
    assert items == case.items()


async def test_a_server_without_content_type(make: Callable[..., OpenAI]) -> None:
    script: list[Step] = [head(content_type=None), *map(chunk, completion("hi")), LAST_CHUNK]
    async with ScriptedUpstream(script) as server:
        assert await ask(make(server.base_url)) == [TextDelta("hi"), WHOLE]


async def test_a_server_that_does_not_stream(make: Callable[..., OpenAI]) -> None:
    body = {
        "id": "c1",
        "choices": [
            {"message": {"content": "Yes.", "reasoning": "hm"}, "finish_reason": "stop"},
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2},
    }
    exchange = Exchange()
    async with ScriptedUpstream(whole(body)) as server:
        items = await ask(make(server.base_url, stream=False, pace=0), exchange=exchange)
    assert items == [ReasoningDelta("hm"), TextDelta("Yes."), Usage(1, 2), WHOLE]
    assert exchange.response["usage"] == {"prompt_tokens": 1, "completion_tokens": 2}
    assert server.requests[0].json["stream"] is False
    assert "stream_options" not in server.requests[0].json


LONG = "The valve has to be serviced every 18 months [ID:0]. " * 100
LONG_ANSWER = whole(
    {
        "choices": [
            {
                "message": {"content": LONG, "reference": [{"id": "a", "content": "18 months"}]},
                "finish_reason": "stop",
            }
        ]
    }
)


@pytest.mark.parametrize("settings", [{"stream": False}, {}])
async def test_an_answer_in_one_piece_is_streamed_out(
    make: Callable[..., OpenAI], settings: dict[str, Any]
) -> None:
    async with ScriptedUpstream(LONG_ANSWER) as server:
        items = await ask(make(server.base_url, pace=100_000, **settings))
    assert isinstance(items[0], References), "they come first"
    deltas = [item for item in items if isinstance(item, TextDelta)]
    assert len(deltas) > 1
    assert texts(items) == LONG.replace("ID:0", "1")
    assert sum(len(delta.marks) for delta in deltas) == 100
    assert items[-1] == WHOLE


async def test_a_client_that_waits_for_the_whole_answer_is_not_kept_waiting(
    make: Callable[..., OpenAI],
) -> None:
    chat = {**CHAT, "stream": False}
    async with ScriptedUpstream(LONG_ANSWER) as server:
        items = await ask(make(server.base_url, pace=0.001), changed(ASK, chat=chat))
    assert len([item for item in items if isinstance(item, TextDelta)]) == 1


async def test_cancelling_while_an_answer_is_streamed_out_keeps_what_was_given(
    make: Callable[..., OpenAI], transport: Transport
) -> None:
    async with ScriptedUpstream(LONG_ANSWER) as server:
        sink = RecordingSink()
        upstream = make(server.base_url, pace=1.0)
        task = asyncio.create_task(upstream.answer(ASK, Exchange(), sink))
        await sink.has(lambda: bool(sink.text))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert sink.text == "The"
        assert sink.ends == []
        await ask(make(server.base_url, pace=0))
        assert server.connections == 1, "the answer had come to its end"


async def test_an_answer_that_is_streamed_out_waits_for_a_full_run(
    make: Callable[..., OpenAI],
) -> None:
    async with ScriptedUpstream(LONG_ANSWER) as server:
        sink = FullSink()
        end = await make(server.base_url, pace=100_000).answer(ASK, Exchange(), sink)
    assert end == WHOLE
    assert sink.waits > 1


async def test_a_limit_ends_an_answer_that_is_streamed_out(make: Callable[..., OpenAI]) -> None:
    limit = UpstreamEnd(Reason.LIMIT, error="enough")
    async with ScriptedUpstream(LONG_ANSWER) as server:
        sink = RecordingSink(2, limit)
        end = await make(server.base_url, pace=100_000).answer(ASK, Exchange(), sink)
    assert (end, len(sink.events)) == (limit, 2)


@pytest.mark.parametrize(("think_tags", "thoughts"), [(True, 1), (False, 0)])
async def test_whether_tags_enclose_thoughts_is_a_setting(
    make: Callable[..., OpenAI], think_tags: bool, thoughts: int
) -> None:
    async with ScriptedUpstream(stream(*completion("<think>Hm.</think>Yes."))) as server:
        items = await ask(make(server.base_url, think_tags=think_tags))
    assert len([item for item in items if isinstance(item, ReasoningDelta)]) == thoughts


@pytest.mark.parametrize(
    ("path", "settings", "text"),
    [
        ("/v1", {}, "a [318]"),
        ("/api/v1/agents_openai/a1", {}, "a [1]"),
        ("/v1", {"citations": "key"}, "a [1]"),
        ("/v1", {"citations": Style.NONE}, "a [ID:317]"),
    ],
)
async def test_what_marks_mean_is_known_or_set(
    make: Callable[..., OpenAI], path: str, settings: dict[str, Any], text: str
) -> None:
    async with ScriptedUpstream(stream(*completion("a [ID:317]"))) as server:
        assert texts(await ask(make(server.base_url + path, **settings))) == text


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("script", "error", "status"),
    [
        (
            whole({"error": {"message": "Rate limit", "type": None}}, 429),
            "gpt answered 429: Rate limit",
            429,
        ),
        (
            whole({"error": {"message": "Rate limit"}}, 429, Retry_After="20"),
            "gpt answered 429: Rate limit (it asks to wait 20 s)",
            429,
        ),
        (
            whole("", 503, Retry_After="Wed, 21 Oct 2026 07:28:00 GMT"),
            "gpt answered 503",
            503,
        ),
        (whole({"error": "bad key"}, 401), "gpt answered 401: bad key", 401),
        (whole({"detail": "Not Found"}, 404), "gpt answered 404: Not Found", 404),
        (whole("<html>x</html>", 502, "text/html"), "gpt answered 502", 502),
        (whole("x" * 100_000, 500, "text/html"), "gpt answered 500", 500),
        (whole("", 503), "gpt answered 503", 503),
        (
            whole("upstream timed out", 504, "text/plain"),
            "gpt answered 504: upstream timed out",
            504,
        ),
        ([head(500, "text/plain"), chunk(b"broken"), Wire.RESET], "gpt answered 500: broken", 500),
        (
            whole("", 308, Location="https://b.example/?key=1"),
            "gpt answered 308; redirects are not followed, set base_url",
            None,
        ),
        (
            whole("<html>", 200, "text/html; charset=utf-8"),
            "gpt answered with text/html instead of an event stream; is base_url right?",
            None,
        ),
        (whole({"code": 102, "message": "No session"}), "No session (102)", None),
        (whole({"error": {"message": "Busy", "code": 429}}), "Busy (429)", 429),
        (stream(event({"error": {"message": "Busy", "code": 503}})), "Busy (503)", 503),
        (whole("oops"), "the upstream sent an answer that is not a chat completion", None),
    ],
)
async def test_a_refusal_is_an_error_in_words_with_its_status(
    make: Callable[..., OpenAI], script: Script, error: str, status: int | None
) -> None:
    async with ScriptedUpstream(script) as server:
        items = await ask(make(server.base_url))
    assert items == [UpstreamEnd(Reason.UPSTREAM_ERROR, error=error, status=status)]


async def test_a_refusal_whose_words_do_not_come(
    make: Callable[..., OpenAI], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.upstreams.remote.AFTERMATH_S", 0.01)
    async with ScriptedUpstream([head(500), Wire.STALL]) as server:
        assert ending(await ask(make(server.base_url))).error == "gpt answered 500"


async def test_nobody_listens(make: Callable[..., OpenAI]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    end = ending(await ask(make(f"http://127.0.0.1:{port}/v1")))
    assert end.reason is Reason.UPSTREAM_UNREACHABLE
    assert end.error == f"gpt: cannot connect to 127.0.0.1:{port} (Connection refused)"


@pytest.mark.parametrize(
    "script",
    [
        whole({"error": {"message": f"bad key {SECRET}"}}, 401),
        whole({"error": f"bad key {SECRET}"}),
        stream(event({"error": {"message": f"bad key {SECRET}"}})),
        stream(*completion(f"**ERROR**: bad key {SECRET}")),
        stream(event(f"bad key {SECRET}")),
    ],
)
async def test_a_key_that_the_server_repeats_is_blacked_out(
    make: Callable[..., OpenAI], script: Script
) -> None:
    async with ScriptedUpstream(script) as server:
        exchange = Exchange()
        end = ending(await ask(make(server.base_url, api_key=SECRET), exchange=exchange))
    assert end.reason is Reason.UPSTREAM_ERROR
    assert "bad key ***" in (end.error or "")
    assert SECRET not in repr(exchange)


# ---------------------------------------------------------------------- streams that break


RECORDED = b"".join(
    [
        completion_chunk(role="assistant", content=""),
        completion_chunk(reasoning_content="The manual gives it in months."),
        *completion("The valve ", "has to be 维修 every ", "18 months [", "ID:0", "].", " 😀")[:-2],
        completion_chunk("stop"),
        event({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 5}}),
        event("[DONE]"),
    ]
)
CUTS: dict[str, Callable[[bytes], Script]] = {
    "closed": lambda data: [head(), chunk(data), Wire.CLOSE],
    "reset": lambda data: [head(), chunk(data), Wire.RESET],
    "ended": lambda data: [head(length=-1) + data, Wire.CLOSE],
}


@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS.keys())
async def test_a_stream_cut_at_every_byte_keeps_its_whole_events(
    make: Callable[..., OpenAI], cut: Callable[[bytes], Script]
) -> None:
    assert 1_000 < len(RECORDED) < 3_000
    async with ScriptedUpstream(lambda _: cut(RECORDED[: len(server.requests) + 1])) as server:
        upstream = make(server.base_url)
        for place in range(1, len(RECORDED) + 1):
            items = await ask(upstream)
            whole_events = RECORDED[: RECORDED.rfind(b"\n\n", 0, place) + 2]
            decoder = OpenAIDecoder()
            expected = decoder.feed(whole_events) + decoder.finish()
            assert items[:-1] == expected[:-1], place
            finished = b'"finish_reason": "stop"' in whole_events
            assert ending(items).reason is (None if finished else Reason.UPSTREAM_TRUNCATED), place


async def test_a_silent_stream_after_the_finish_reason_is_whole(
    make: Callable[..., OpenAI], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.upstreams.remote.AFTERMATH_S", 0.01)
    script = stream(*completion("hi")[:-1], end=[Wire.STALL])
    async with ScriptedUpstream(script) as server:
        assert await ask(make(server.base_url)) == [TextDelta("hi"), WHOLE]
        await server.client_left()


@pytest.mark.parametrize(
    "script",
    [
        stream(*completion("x" * 5000)),
        stream(b"data: " + b"x" * 5000, end=[Wire.STALL]),
        whole({"choices": [{"message": {"content": "x" * 5000}}]}),
    ],
)
async def test_what_is_too_large_ends_by_limit(make: Callable[..., OpenAI], script: Script) -> None:
    limits = LimitSettings(event_bytes=1000, answer_bytes=1000)
    async with ScriptedUpstream(script) as server:
        items = await ask(make(server.base_url, limits))
    assert ending(items).reason is Reason.LIMIT
    assert texts(items) == ""


# ---------------------------------------------------------------------- closing


async def test_a_run_that_takes_no_more_closes_the_socket_at_once(
    make: Callable[..., OpenAI],
) -> None:
    limit = UpstreamEnd(Reason.LIMIT, error="enough")
    exchange = Exchange()
    script = stream(completion_chunk(content="hi"), end=[Wire.STALL])
    async with ScriptedUpstream(script) as server:
        sink = RecordingSink(1, limit)
        assert await make(server.base_url).answer(ASK, exchange, sink) == limit
        await server.client_left()
    assert sink.text == "hi"
    assert exchange.response == {"id": "c1", "model": "m1"}


async def test_a_run_that_is_full_is_given_nothing_until_it_has_room(
    make: Callable[..., OpenAI],
) -> None:
    count = 20_000
    pieces = [completion_chunk(content="0123456789") * 100] * (count // 100)
    async with ScriptedUpstream(stream(*pieces, *completion())) as server:
        sink = FullSink()
        assert await make(server.base_url).answer(ASK, Exchange(), sink) == WHOLE
    assert sink.text == "0123456789" * count
    assert sink.waits > 1


@pytest.mark.parametrize("script", [[Wire.STALL], stream(end=[Wire.STALL])])
async def test_cancelling_the_task_closes_the_socket_at_once(
    make: Callable[..., OpenAI], script: Script
) -> None:
    async with ScriptedUpstream(script) as server:
        task = asyncio.create_task(ask(make(server.base_url)))
        await server.asked()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.client_left()


async def test_cancelling_loses_no_text_that_was_held_for_a_mark(
    make: Callable[..., OpenAI],
) -> None:
    script = stream(completion_chunk(content="see [ID"), end=[Wire.STALL])
    async with ScriptedUpstream(script) as server:
        sink = RecordingSink()
        task = asyncio.create_task(make(server.base_url).answer(ASK, Exchange(), sink))
        await sink.has(lambda: sink.text == "see ")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert sink.text == "see [ID"


async def test_whole_answers_share_a_connection(
    make: Callable[..., OpenAI], transport: Transport
) -> None:
    async with ScriptedUpstream(stream(*completion("hi"))) as server:
        upstream = make(server.base_url)
        for _ in range(3):
            assert ending(await ask(upstream)) == WHOLE
            await until(lambda: not transport._settling)
        assert server.connections == 1


async def test_an_error_in_the_stream_closes_the_connection(make: Callable[..., OpenAI]) -> None:
    script = stream(event({"error": "down"}), end=[Wire.STALL])
    async with ScriptedUpstream(script) as server:
        assert ending(await ask(make(server.base_url))).error == "down"
        await server.client_left()


# ---------------------------------------------------------------------- the check


@pytest.mark.parametrize(
    ("script", "ok", "detail"),
    [
        (whole({"data": []}), True, ""),
        (whole({"error": "no"}, 401), False, "answered 401: the api_key is missing or refused"),
        (whole("", 403), False, "answered 403: the api_key is missing or refused"),
        (whole("", 404), False, "answered 404: there is no /models; is base_url right?"),
        (whole({"error": f"busy {SECRET}"}, 503), False, "answered 503: busy ***"),
        (whole("<p>", 200, "text/html"), False, "answered with text/html; is base_url right?"),
        ([Wire.CLOSE], False, "the connection was closed before there was an answer"),
    ],
)
async def test_the_check_tells_what_is_wrong(
    make: Callable[..., OpenAI], script: Script, ok: bool, detail: str
) -> None:
    async with ScriptedUpstream(script) as server:
        health = await make(server.base_url + "/v1", api_key=SECRET).check()
    assert (health.ok, health.detail) == (ok, detail)
    assert (server.requests[0].method, server.requests[0].path) == ("GET", "/v1/models")
    assert server.requests[0].headers["authorization"] == f"Bearer {SECRET}"


async def test_the_check_does_not_wait_for_ever(
    make: Callable[..., OpenAI], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.upstreams.remote.CHECK_TIMEOUT_S", 0.01)
    async with ScriptedUpstream([Wire.STALL]) as server:
        health = await make(server.base_url).check()
        await server.client_left()
    assert not health.ok
    assert "no answer within" in health.detail


async def test_it_opens_and_closes_its_transport() -> None:
    transport = Transport()
    async with ScriptedUpstream(stream(*completion("hi"))) as server:
        settings = OpenAI.Settings(base_url=server.base_url, model="m1")
        upstream = OpenAI("gpt", settings, LimitSettings(), transport)
        assert upstream.model == "m1"
        await upstream.open()
        assert ending(await ask(upstream)) == WHOLE
        await upstream.close()
