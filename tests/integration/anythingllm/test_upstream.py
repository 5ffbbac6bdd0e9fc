"""The `anythingllm` upstream over real sockets: answers, refusals, closing, the check."""

import asyncio
import json
import socket
from collections.abc import Callable, Sequence

import pytest

from holdfast.engine.run import UpstreamEnd
from holdfast.events import (
    Reason,
    ReasoningDelta,
    TextDelta,
    Usage,
)
from holdfast.upstreams.anythingllm.decoder import AnythingLLMDecoder
from holdfast.upstreams.anythingllm.upstream import AnythingLLM
from holdfast.upstreams.base import Ask, Exchange
from holdfast.upstreams.wire.transport import Transport
from tests.support.anythingllm import (
    AGAIN,
    ANSWER,
    ASK,
    AT,
    CHATS,
    GIVEN,
    NEW,
    REFERENCES,
    SECRET,
    SILENT,
    SOURCE,
    STREAM,
    WHOLE,
    AnythingLLMServer,
    abort,
    ask,
    ending,
    final,
    new_thread,
    saved,
    says,
    texts,
)
from tests.support.corpus import CORPUS, find_cases
from tests.support.loop import until
from tests.support.sink import RecordingSink
from tests.support.upstream_server import (
    LAST_CHUNK,
    Script,
    ScriptedUpstream,
    Wire,
    chunk,
    event,
    head,
    stream,
    whole,
)

# ---------------------------------------------------------------------- answers


async def test_an_answer_streams_as_it_comes(make: Callable[..., AnythingLLM]) -> None:
    go = asyncio.Event()
    script: Script = [
        head(),
        chunk(says("Every ")),
        go,
        chunk(says("month.") + final()),
        LAST_CHUNK,
    ]
    async with AnythingLLMServer({STREAM: [script]}) as server, asyncio.TaskGroup() as tasks:
        sink = RecordingSink()
        answer = tasks.create_task(make(server.base_url).answer(AGAIN, Exchange(), sink))
        await sink.has(lambda: sink.text == "Every ")
        go.set()
        assert await answer == WHOLE
    assert [*sink.events, WHOLE] == GIVEN


@pytest.mark.parametrize("name", [c.path.stem for c in find_cases("anythingllm") if c.is_stream])
async def test_recorded_streams_arrive_whole(make: Callable[..., AnythingLLM], name: str) -> None:
    recorded = (CORPUS / "anythingllm" / f"{name}.sse").read_bytes()
    pieces = [recorded[at : at + 100] for at in range(0, len(recorded), 100)]
    async with AnythingLLMServer(
        {STREAM: [stream(*pieces)], CHATS: [whole({"history": []})]}
    ) as server:
        items = await ask(make(server.base_url))
    decoder = AnythingLLMDecoder()
    assert items == decoder.feed(recorded) + decoder.finish()


async def test_a_recorded_response_with_its_own_head(make: Callable[..., AnythingLLM]) -> None:
    response = (CORPUS / "_http" / "anythingllm_chat.rawhttp").read_bytes()
    async with AnythingLLMServer({STREAM: [[response]]}) as server:
        items = await ask(make(server.base_url))
    # Texts that come in one read may be merged.
    expected = AnythingLLMDecoder().feed((CORPUS / "anythingllm" / "real_chat_ok.sse").read_bytes())
    assert texts(items) == texts(expected)
    assert texts(items).endswith("。😀")
    assert items[-3:] == expected[-3:]


@pytest.mark.parametrize("cut", [1, 2, 7])
async def test_a_recorded_response_in_small_pieces(
    make: Callable[..., AnythingLLM], cut: int
) -> None:
    response = (CORPUS / "_http" / "anythingllm_chat.rawhttp").read_bytes()[:3_000]
    script: Script = [*(response[at : at + cut] for at in range(0, 3_000, cut)), Wire.CLOSE]
    async with AnythingLLMServer({STREAM: [script], CHATS: [whole({"history": []})]}) as server:
        items = await ask(make(server.base_url))
    recorded = (CORPUS / "anythingllm" / "real_chat_ok.sse").read_text("utf-8")
    given = texts(items)
    assert len(given) > 20
    frames = [json.loads(line[6:]) for line in recorded.split("\n\n")[:-2]]
    assert "".join(frame["textResponse"] for frame in frames).startswith(given)
    assert ending(items).reason is Reason.UPSTREAM_TRUNCATED


@pytest.mark.parametrize(
    "content_type",
    [None, "text/event-stream; charset=ISO-8859-1", "text/event-stream;charset=utf-16"],
)
async def test_it_is_utf8_whatever_the_server_says(
    make: Callable[..., AnythingLLM], content_type: str | None
) -> None:
    script: Script = [head(content_type=content_type), chunk(says("维修 😀") + final()), LAST_CHUNK]
    async with AnythingLLMServer({STREAM: [script]}) as server:
        assert texts(await ask(make(server.base_url))) == "维修 😀"


async def test_the_end_of_the_stream_is_not_waited_for(make: Callable[..., AnythingLLM]) -> None:
    script = stream(says("Every "), says("month."), final(), end=[Wire.STALL])
    async with AnythingLLMServer({STREAM: [script]}) as server:
        assert await ask(make(server.base_url)) == GIVEN


async def test_a_short_turn_whose_stream_stays_open(
    make: Callable[..., AnythingLLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.upstreams.remote.AFTERMATH_S", 0.01)
    refusal = {"id": "u", "type": "textResponse", "textResponse": "No.", "close": True}
    async with AnythingLLMServer({STREAM: [stream(event(refusal), end=[Wire.STALL])]}) as server:
        assert await ask(make(server.base_url)) == [TextDelta("No."), WHOLE]
        await server.client_left()


async def test_an_error_keeps_the_text_and_takes_the_sources(
    make: Callable[..., AnythingLLM],
) -> None:
    script = stream(says("Every "), event(abort("Premature close")), final())
    async with AnythingLLMServer({STREAM: [script]}) as server:
        items = await ask(make(server.base_url))
    end = UpstreamEnd(Reason.UPSTREAM_ERROR, error="Premature close")
    assert items == [TextDelta("Every "), REFERENCES, end]


async def test_a_server_that_does_not_stream(make: Callable[..., AnythingLLM]) -> None:
    answer = {"id": "u", "type": "textResponse", "close": True, "error": None, "chatId": 3}
    body = {**answer, "textResponse": "<think>hm</think>Yes.", "sources": [SOURCE]}
    async with AnythingLLMServer(
        {STREAM: [whole({**body, "metrics": {"prompt_tokens": 1}})]}
    ) as server:
        items = await ask(make(server.base_url))
    assert items == [ReasoningDelta("hm"), TextDelta("Yes."), REFERENCES, Usage(1), WHOLE]


# ---------------------------------------------------------------------- refusals

WEB_PAGE = "notes: base_url leads to a web page and not to AnythingLLM's API"


@pytest.mark.parametrize(
    ("script", "error", "status"),
    [
        (
            whole({"error": "No valid api key found."}, 403),
            "notes answered 403: No valid api key found.",
            403,
        ),
        (whole(abort("Message is empty"), 400), "notes answered 400: Message is empty", 400),
        (
            whole("Bad Request", 400, "text/plain; charset=utf-8"),
            "notes answered 400: Bad Request; is there a workspace 'test1'?",
            400,
        ),
        (whole("<!doctype html>", 400, "text/html"), "notes answered 400", 400),
        (whole("<!doctype html>", 200, "text/html; charset=UTF-8"), WEB_PAGE, None),
        (
            whole("", 302, Location="/login"),
            "notes answered 302; redirects are not followed, set base_url",
            None,
        ),
        (whole(abort("500 overloaded"), 500), "notes answered 500: 500 overloaded", 500),
        (whole(abort("not saved")), "not saved", None),
        (whole({"error": "No valid api key found."}), "No valid api key found.", None),
        (
            whole("ok", 200, "text/plain"),
            "notes answered with text/plain instead of an event stream; is base_url right?",
            None,
        ),
        (
            [
                head(content_type=None),
                chunk(event(abort("Cannot read properties of null (reading 'id')"))),
                LAST_CHUNK,
            ],
            "Cannot read properties of null (reading 'id'): does the workspace not exist?",
            None,
        ),
    ],
)
async def test_a_refusal_is_an_error_in_words(
    make: Callable[..., AnythingLLM], script: Script, error: str, status: int | None
) -> None:
    async with AnythingLLMServer({STREAM: [script]}) as server:
        items = await ask(make(server.base_url))
    assert items == [UpstreamEnd(Reason.UPSTREAM_ERROR, error=error, status=status)]
    assert server.paths == [STREAM]


@pytest.mark.parametrize(
    ("script", "error", "status"),
    [
        (
            whole("Bad Request", 400, "text/plain"),
            "notes answered 400: Bad Request; is there a workspace 'test1'?",
            400,
        ),
        (
            whole({"error": "No valid api key found."}, 403),
            "notes answered 403: No valid api key found.",
            403,
        ),
        (whole("<html>", 200, "text/html"), WEB_PAGE, None),
        (
            whole({"thread": None, "message": "slug is taken"}),
            "notes made no thread: slug is taken",
            None,
        ),
        (whole({"thread": {"slug": 7}}), "notes made no thread", None),
        (whole({"thread": {"slug": "x" * 501}}), "notes made no thread", None),
        (whole("[]"), "notes made no thread", None),
        (stream(says("x")), "notes answered with something else than JSON", None),
    ],
)
async def test_a_thread_that_cannot_be_made(
    make: Callable[..., AnythingLLM], script: Script, error: str, status: int | None
) -> None:
    sink = RecordingSink()
    async with AnythingLLMServer({NEW: [script]}) as server:
        end = await make(server.base_url).answer(ASK, Exchange(), sink)
    assert end == UpstreamEnd(Reason.UPSTREAM_ERROR, error=error, status=status)
    assert server.paths == [NEW]
    assert sink.remembered == []


async def test_nobody_listens(make: Callable[..., AnythingLLM]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    end = ending(await ask(make(f"http://127.0.0.1:{port}"), ASK))
    assert end.reason is Reason.UPSTREAM_UNREACHABLE
    assert end.error == f"notes: cannot connect to 127.0.0.1:{port} (Connection refused)"


@pytest.mark.parametrize(
    "script",
    [
        whole({"error": f"bad key {SECRET}"}, 403),
        whole(abort(f"bad key {SECRET}")),
        stream(event(abort(f"bad key {SECRET}"))),
        stream(event(f"bad key {SECRET}")),
    ],
)
async def test_a_key_that_the_server_repeats_is_blacked_out(
    make: Callable[..., AnythingLLM], script: Script
) -> None:
    async with AnythingLLMServer({STREAM: [script]}) as server:
        end = ending(await ask(make(server.base_url)))
    assert end.reason is Reason.UPSTREAM_ERROR
    assert "bad key ***" in (end.error or "")


# ---------------------------------------------------------------------- closing


async def test_a_run_that_takes_no_more_closes_the_socket_at_once(
    make: Callable[..., AnythingLLM],
) -> None:
    limit = UpstreamEnd(Reason.LIMIT, error="enough")
    async with AnythingLLMServer({STREAM: [SILENT]}) as server:
        sink = RecordingSink(1, limit)
        assert await make(server.base_url).answer(AGAIN, Exchange(), sink) == limit
        await server.client_left()
    assert server.paths == [STREAM]


async def test_a_limit_counts_for_what_the_history_adds(make: Callable[..., AnythingLLM]) -> None:
    limit = UpstreamEnd(Reason.LIMIT, error="enough")
    broken: Script = [head(), chunk(says("Every ")), Wire.CLOSE]
    async with AnythingLLMServer({STREAM: [broken], CHATS: [saved("Every month.")]}) as server:
        sink = RecordingSink(2, limit)
        assert await make(server.base_url).answer(AGAIN, Exchange(), sink) == limit
    assert sink.text == "Every month."


@pytest.mark.parametrize(
    ("scripts", "ask"),
    [
        ({NEW: [[Wire.STALL]]}, ASK),
        ({STREAM: [[Wire.STALL]]}, AGAIN),
        ({STREAM: [stream(end=[Wire.STALL])]}, AGAIN),
        ({STREAM: [SILENT]}, AGAIN),
    ],
    ids=["making a thread", "before the head", "before the text", "in the text"],
)
async def test_cancelling_the_task_closes_the_socket_at_once(
    make: Callable[..., AnythingLLM], scripts: dict[str, Sequence[Script]], ask: Ask
) -> None:
    async with AnythingLLMServer(scripts) as server:
        answer = make(server.base_url).answer(ask, Exchange(), RecordingSink())
        task = asyncio.create_task(answer)
        await server.asked()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.client_left()
    assert len(server.paths) == 1


async def test_cancelling_while_it_looks_into_the_history(make: Callable[..., AnythingLLM]) -> None:
    script = stream(says("Every <thi"), end=[Wire.STALL])
    async with AnythingLLMServer({STREAM: [script], CHATS: [[Wire.STALL]]}) as server:
        sink = RecordingSink()
        upstream = make(server.base_url, idle_timeout_s=0.02)
        task = asyncio.create_task(upstream.answer(AGAIN, Exchange(), sink))
        await server.asked(2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.client_left(2)
    assert sink.text == "Every <thi"


async def test_whole_answers_share_a_connection(
    make: Callable[..., AnythingLLM], transport: Transport
) -> None:
    async with AnythingLLMServer({NEW: [new_thread()], STREAM: [ANSWER]}) as server:
        upstream = make(server.base_url)
        for _ in range(3):
            assert ending(await ask(upstream, ASK)) == WHOLE
            await until(lambda: not transport._settling)
        assert server.connections == 1


# ---------------------------------------------------------------------- the check


@pytest.mark.parametrize(
    ("script", "detail"),
    [
        (whole({"workspace": [{"id": 1, "slug": "test1"}]}), ""),
        (whole({"workspace": {"id": 1, "slug": "test1"}}), ""),
        (whole({"workspace": [{"documents": ["x" * 50] * 50_000}]}), ""),
        (whole({"workspace": []}), "there is no workspace 'test1'"),
        (whole({"workspace": None}), "there is no workspace 'test1'"),
        (
            whole({"error": "No valid api key found."}, 403),
            "answered 403: the api_key is missing or refused",
        ),
        (
            whole("<!doctype html>", 200, "text/html; charset=UTF-8"),
            "base_url leads to a web page and not to AnythingLLM's API",
        ),
        (
            whole({"object": "list"}),
            "answered, but not as AnythingLLM does; is base_url right?",
        ),
        (whole({"error": f"busy {SECRET}"}, 503), "answered 503: busy ***"),
        (whole("", 404), "answered 404"),
        ([Wire.CLOSE], "the connection was closed before there was an answer"),
    ],
)
async def test_the_check_tells_what_is_wrong(
    make: Callable[..., AnythingLLM], script: Script, detail: str
) -> None:
    async with ScriptedUpstream(script) as server:
        health = await make(server.base_url + "/api").check()
    assert (health.ok, health.detail) == (not detail, detail)
    assert (server.requests[0].method, server.requests[0].path) == ("GET", AT)
    assert server.requests[0].headers["authorization"] == f"Bearer {SECRET}"


async def test_the_check_does_not_wait_for_ever(
    make: Callable[..., AnythingLLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.upstreams.remote.CHECK_TIMEOUT_S", 0.01)
    async with ScriptedUpstream([Wire.STALL]) as server:
        health = await make(server.base_url).check()
        await server.client_left()
    assert not health.ok
    assert "no answer within" in health.detail
