"""The `ragflow` upstream over real sockets, against servers of every era."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from holdfast.engine.policy import ChatMessage
from holdfast.engine.run import UpstreamEnd
from holdfast.events import Reason, References, TextDelta
from holdfast.settings import LimitSettings
from holdfast.upstreams.base import Ask, Exchange, Item
from holdfast.upstreams.ragflow.decoder import RagflowDecoder
from holdfast.upstreams.ragflow.upstream import Ragflow
from holdfast.upstreams.wire.transport import Transport
from tests.support.server import Server
from tests.support.sink import RecordingSink
from tests.support.upstream_server import (
    LAST_CHUNK,
    Request,
    Script,
    ScriptedUpstream,
    Wire,
    chunk,
    head,
    stream,
    whole,
)

CORPUS = Path(__file__).parents[1] / "corpus" / "ragflow"
SECRET = "ragflow-very-secret"
CHAT = "/api/v1/chats/c1"
AGENT = "/api/v1/agents/a1"
HISTORY = (ChatMessage("user", "Hi"), ChatMessage("assistant", "Hello, half of"))
WHOLE = UpstreamEnd()


def question(conversation: str | None = None, history: tuple[ChatMessage, ...] = ()) -> Ask:
    return Ask(
        run_id="r",
        session_id="s",
        message_id="m7",
        message="How often?",
        conversation=conversation,
        history=history,
    )


Make = Callable[..., Ragflow]


@pytest.fixture
def make(transport: Transport) -> Make:
    """Makes upstreams over one open transport."""

    def make(base_url: str, limits: LimitSettings | None = None, **settings: Any) -> Ragflow:
        given = {"base_url": base_url, "api_key": SECRET, **settings}
        if "agent_id" not in given:
            given.setdefault("chat_id", "c1")
        table = Ragflow.Settings.model_validate(given)
        return Ragflow("kb", table, limits or LimitSettings(), transport)

    return make


class Answered:
    """What came of one question."""

    def __init__(self, sink: RecordingSink, end: UpstreamEnd, exchange: Exchange) -> None:
        self.items: list[Item] = [*sink.events, end]
        self.text = sink.text
        self.end = end
        self.remembered = sink.remembered
        self.exchange = exchange


async def ask(upstream: Ragflow, asked: Ask | None = None) -> Answered:
    sink, exchange = RecordingSink(), Exchange()
    end = await upstream.answer(asked or question(), exchange, sink)
    assert len(sink.ends) == 1
    return Answered(sink, end, exchange)


# ---------------------------------------------------------------------- servers


def frame(data: object, **more: Any) -> bytes:
    return f"data:{json.dumps({'code': 0, 'data': data, **more})}\n\n".encode()


def answer(
    session: Any, text: str = "Yes.", *, final: bool | None = None, **more: Any
) -> list[bytes]:
    fields = {} if final is None else {"final": final}
    data = {"answer": text, "reference": {}, "id": "m", "session_id": session, **fields, **more}
    return [frame(data), frame(True)]


def event(name: str, session: str = "new-1", **data: Any) -> bytes:
    return f"data:{json.dumps({'event': name, 'data': data, 'session_id': session})}\n\n".encode()


def agent_answer(session: str = "new-1", text: str = "Yes.") -> list[bytes]:
    return [
        event("message", session, content=text),
        event("message_end", session),
        b"data:[DONE]\n\n",
    ]


class RagflowServer:
    """A RAGFlow of some version, as far as asking goes; `known` are its sessions."""

    def __init__(self, *known: str) -> None:
        self.known = set(known)
        self.made = 0

    def new(self) -> str:
        self.made += 1
        session = f"new-{self.made}"
        self.known.add(session)
        return session

    def __call__(self, request: Request) -> Script:
        path = request.path.partition("?")[0]
        if path == f"{CHAT}/sessions" and request.method == "POST":
            return whole({"code": 0, "data": {"id": self.new(), "chat_id": "c1", "messages": []}})
        if path in (f"{CHAT}/completions", f"{AGENT}/completions") and request.method == "POST":
            return self.complete(request.json)
        return whole({"code": 404, "message": f"Not Found: {path}", "data": None}, 404)

    def complete(self, body: dict[str, Any]) -> Script:
        raise NotImplementedError

    def unknown(self, body: dict[str, Any]) -> Script | None:
        session = body.get("session_id")
        if session is None or session in self.known:
            return None
        return whole({"code": 102, "message": f"You don't own the session {session}"})


class Until0250(RagflowServer):
    """Takes a question in a session, without which it only makes one; breaks over messages."""

    def complete(self, body: dict[str, Any]) -> Script:
        session = body.get("session_id")
        if session is None:
            greeting: dict[str, Any] = {
                "answer": "Hi!",
                "reference": {},
                "id": None,
                "session_id": self.new(),
            }
            return stream(frame(greeting, message=""), frame(True))
        if "messages" in body:
            error = "async_chat() got multiple values for argument 'messages'"
            told = {"answer": f"**ERROR**: {error}", "reference": []}
            return self.unknown(body) or stream(frame(told, code=500, message=error), frame(True))
        return self.unknown(body) or stream(*answer(session, body["question"] + " Yes."))


class From0251(RagflowServer):
    """Takes nothing but messages, which become the history."""

    def complete(self, body: dict[str, Any]) -> Script:
        if "messages" not in body:
            missing = "required argument are missing: messages; "
            return whole({"code": 101, "data": None, "message": missing})
        session = body.get("session_id") or self.new()
        if session not in self.known:
            return whole({"code": 102, "message": "Session not found!"})
        return stream(*answer(session, "Yes.", final=False, chat_id="c1"))


class From0256(From0251):
    """Takes either."""

    def complete(self, body: dict[str, Any]) -> Script:
        return super().complete({"messages": [], **body})


class OldAgent(RagflowServer):
    """Up to 0.19.1."""

    def complete(self, body: dict[str, Any]) -> Script:
        session = body.get("session_id")
        if session is None:
            return stream(*answer(self.new(), "Hi, I am an agent!", param=[]))
        return self.unknown(body) or stream(*answer(session, body["question"] + " Yes.", param=[]))


class NewAgent(RagflowServer):
    """Since 0.20."""

    def complete(self, body: dict[str, Any]) -> Script:
        assert body["stream"] is True, "streaming is not the default since 0.25"
        session = body.get("session_id") or self.new()
        if session not in self.known:
            return whole({"code": 102, "message": "Session not found!"})
        return stream(*agent_answer(session, body["query"] + " Yes."))


ALL = [Until0250, From0251, From0256]


def bodies(server: ScriptedUpstream) -> list[dict[str, Any]]:
    """The questions that it was asked."""
    return [one.json for one in server.requests if one.path == f"{CHAT}/completions"]


# ---------------------------------------------------------------------- asking


@pytest.mark.parametrize("era", ALL)
async def test_every_version_answers_a_session_of_questions(
    make: Make, era: type[RagflowServer]
) -> None:
    async with ScriptedUpstream(era()) as server:
        upstream = make(server.base_url)
        first = await ask(upstream)
        again = await ask(upstream, question("new-1", HISTORY))
        other = await ask(make(server.base_url), question("new-1", HISTORY))
    for answered in (first, again, other):
        assert answered.items == [TextDelta(answered.text), WHOLE]
        assert answered.text.endswith("Yes.")
    assert first.remembered == ["new-1"]
    assert again.remembered == other.remembered == []
    asked = bodies(server)
    assert {body["session_id"] for body in asked} == {"new-1"}
    assert all(body["stream"] is True for body in asked)
    assert all(one.headers["authorization"] == f"Bearer {SECRET}" for one in server.requests)
    made = [request.json for request in server.requests if request.path == f"{CHAT}/sessions"]
    assert made == [{"name": "How often?"}]
    assert other.exchange.request == asked[-1]
    assert SECRET not in repr(first.exchange)


@pytest.mark.parametrize("era", [From0251, From0256])
async def test_a_server_that_takes_messages_is_given_the_turns_that_it_lacks(
    make: Make, era: type[RagflowServer]
) -> None:
    async with ScriptedUpstream(era("s1")) as server:
        await ask(make(server.base_url), question("s1", HISTORY))
        await ask(make(server.base_url))
    asked = {"role": "user", "content": "How often?", "id": "m7"}
    assert bodies(server) == [
        {
            "stream": True,
            "question": "How often?",
            "session_id": "s1",
            "messages": [
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "Hello, half of"},
                asked,
            ],
            "pass_all_history_messages": True,
        },
        {
            "stream": True,
            "question": "How often?",
            "session_id": "new-1",
            "messages": [asked],
        },
    ]


async def test_a_server_that_breaks_down_over_messages_gets_none_any_more(make: Make) -> None:
    async with ScriptedUpstream(Until0250("s1")) as server:
        upstream = make(server.base_url)
        for _ in range(3):
            answered = await ask(upstream, question("s1", HISTORY))
            assert answered.items == [TextDelta("How often? Yes."), WHOLE]
    assert ["messages" in body for body in bodies(server)] == [True, False, False, False]


async def test_a_server_that_was_updated_gets_messages_again(make: Make) -> None:
    server: RagflowServer = Until0250("s1")
    async with ScriptedUpstream(lambda request: server(request)) as upstream_server:
        upstream = make(upstream_server.base_url)
        await ask(upstream, question("s1"))
        server = From0251("s1")
        for _ in range(2):
            assert (await ask(upstream, question("s1"))).text == "Yes."
    sent = ["messages" in body for body in bodies(upstream_server)]
    assert sent == [True, False, False, True, True]


@pytest.mark.parametrize("era", ALL)
async def test_a_session_that_is_gone_is_made_anew_once(
    make: Make, era: type[RagflowServer]
) -> None:
    async with ScriptedUpstream(era()) as server:
        answered = await ask(make(server.base_url), question("gone"))
    assert answered.end == WHOLE
    assert answered.text.endswith("Yes.")
    assert answered.remembered == ["new-1"]
    made = [request for request in server.requests if request.path == f"{CHAT}/sessions"]
    assert len(made) == 1


@pytest.mark.parametrize(
    ("refused", "times"),
    [
        (whole({"code": 404, "message": "Session not found!"}, 404), 2),
        (whole({"code": 500, "message": "the session of the database is gone"}, 500), 1),
        (stream(frame(None, code=500, message="Session not found!")), 1),
    ],
)
async def test_only_what_is_refused_before_an_answer_is_asked_once_more(
    make: Make, refused: Script, times: int
) -> None:
    class Refusing(Until0250):
        def complete(self, body: dict[str, Any]) -> Script:
            return refused

    async with ScriptedUpstream(Refusing()) as server:
        answered = await ask(make(server.base_url), question("s1"))
    assert answered.end.reason is Reason.UPSTREAM_ERROR
    assert len(bodies(server)) == times


async def test_a_new_session_that_is_refused_is_not_made_again(make: Make) -> None:
    class Forgetful(Until0250):
        def new(self) -> str:
            self.made += 1
            return f"new-{self.made}"

    async with ScriptedUpstream(Forgetful()) as server:
        fresh = await ask(make(server.base_url))
        gone = await ask(make(server.base_url), question("gone"))
    assert fresh.end.error == "kb: You don't own the session new-1"
    assert gone.end.error == "kb: You don't own the session new-2"
    assert gone.end.reason is Reason.UPSTREAM_ERROR


@pytest.mark.parametrize(
    "script",
    [
        whole({"code": 404, "message": "Not Found", "data": None}, 404),
        whole({"code": 0, "data": {"id": 7}}),
        whole("", 405),
    ],
)
async def test_where_no_session_can_be_made_the_greeting_makes_one(
    make: Make, script: Script
) -> None:
    class Shy(Until0250):
        def __call__(self, request: Request) -> Script:
            return script if request.path == f"{CHAT}/sessions" else super().__call__(request)

    async with ScriptedUpstream(Shy()) as server:
        answered = await ask(make(server.base_url))
    assert answered.items == [TextDelta("How often? Yes."), WHOLE]
    assert answered.remembered == ["new-1"]
    assert [body.get("session_id") for body in bodies(server)] == [None, "new-1", "new-1"]


async def test_a_greeting_to_a_new_session_is_not_asked_past(make: Make) -> None:
    greeting: dict[str, Any] = {"answer": "Hi!", "reference": {}, "id": None, "session_id": "new-1"}

    def greet(request: Request) -> Script:
        if request.path == f"{CHAT}/sessions":
            return whole("", 404)
        return stream(frame(greeting), frame(True))

    async with ScriptedUpstream(greet) as server:
        answered = await ask(make(server.base_url))
    assert answered.items == [TextDelta("Hi!"), WHOLE]
    assert len(server.requests) == 3


@pytest.mark.parametrize("era", [OldAgent, NewAgent])
async def test_agents_of_every_version_answer_a_session_of_questions(
    make: Make, era: type[RagflowServer]
) -> None:
    async with ScriptedUpstream(era()) as server:
        upstream = make(server.base_url, agent_id="a1", extra_body={"inputs": {"topic": "valves"}})
        first = await ask(upstream)
        again = await ask(upstream, question("new-1", HISTORY))
        gone = await ask(upstream, question("gone"))
    assert [one.text for one in (first, again, gone)] == ["How often? Yes."] * 3
    assert (first.remembered, again.remembered, gone.remembered) == (["new-1"], [], ["new-2"])
    assert {request.path for request in server.requests} == {f"{AGENT}/completions"}
    assert again.exchange.request == {
        "stream": True,
        "session_id": "new-1",
        "question": "How often?",
        "query": "How often?",
        "inputs": {"topic": "valves"},
    }


async def test_the_session_of_an_agent_is_remembered_before_its_answer_is_whole(
    make: Make,
) -> None:
    script = stream(agent_answer("new-1", "Ye")[0], end=[Wire.STALL])
    async with ScriptedUpstream(script) as server:
        sink = RecordingSink()
        upstream = make(server.base_url, agent_id="a1")
        task = asyncio.create_task(upstream.answer(question(), Exchange(), sink))
        await sink.has(lambda: sink.text == "Ye")
        assert sink.remembered == ["new-1"]
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_further_members_go_with_each_question(make: Make) -> None:
    async with ScriptedUpstream(From0251()) as server:
        await ask(make(server.base_url, extra_body={"quote": True, "stream": False}))
    assert server.requests[-1].json == {
        "quote": True,
        "stream": True,
        "question": "How often?",
        "session_id": "new-1",
        "messages": [{"role": "user", "content": "How often?", "id": "m7"}],
    }


@pytest.mark.parametrize("suffix", ["", "/", "/api", "/api/v1", "/api/v1/", "/v1"])
async def test_a_base_url_may_have_the_api_at_its_end(make: Make, suffix: str) -> None:
    async with ScriptedUpstream(Until0250()) as server:
        assert (await ask(make(server.base_url + suffix))).end == WHOLE


async def test_a_path_in_front_of_the_server_is_kept(make: Make) -> None:
    async with ScriptedUpstream(whole("", 500)) as server:
        await ask(make(f"{server.base_url}/rag/api/v1?tenant=7", chat_id="a/b c"))
    assert server.requests[0].path == "/rag/api/v1/chats/a%2Fb%20c/sessions?tenant=7"


@pytest.mark.parametrize(
    "table", [{}, {"chat_id": " "}, {"chat_id": "c", "agent_id": "a"}, {"chat_id": "c", "x": 1}]
)
def test_a_table_that_cannot_be_is_refused(table: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Ragflow.Settings.model_validate({"base_url": "http://a.example", **table})


# ---------------------------------------------------------------------- answers


def recording(name: str) -> Callable[[Request], Script]:
    """A server that plays a recorded answer, whatever it is asked."""
    body = (CORPUS / f"{name}.sse").read_bytes()
    pieces = [body[at : at + 100] for at in range(0, len(body), 100)]

    def play(request: Request) -> Script:
        if request.path.endswith("/sessions"):
            return whole({"code": 0, "data": {"id": "s1"}})
        return stream(*pieces)

    return play


@pytest.mark.parametrize("name", sorted(path.stem for path in CORPUS.glob("*.sse")))
async def test_recorded_answers_arrive_whole(make: Make, name: str) -> None:
    async with ScriptedUpstream(recording(name)) as server:
        answered = await ask(make(server.base_url))
    decoder = RagflowDecoder()
    expected = decoder.feed((CORPUS / f"{name}.sse").read_bytes()) + decoder.finish()
    assert answered.items == expected
    assert answered.exchange.response == decoder.closing
    assert answered.remembered[0] == "s1"


async def test_two_content_types_are_one(make: Make) -> None:
    both = head().replace(
        b"\r\n\r\n", b"\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n"
    )
    script = [both, *map(chunk, answer("s1")), LAST_CHUNK]
    async with ScriptedUpstream(script) as server:
        assert (await ask(make(server.base_url), question("s1"))).items == [
            TextDelta("Yes."),
            WHOLE,
        ]


async def test_a_server_that_does_not_stream(make: Make) -> None:
    data = {"answer": "Yes [ID:0].", "reference": {"chunks": [{"id": "a"}]}, "session_id": "s2"}
    async with ScriptedUpstream(whole({"code": 0, "data": data})) as server:
        answered = await ask(make(server.base_url), question("s1"))
    assert isinstance(answered.items[0], References)
    assert answered.text == "Yes [1]."
    assert answered.remembered == ["s2"]
    assert answered.end == WHOLE


@pytest.mark.parametrize(("citations", "text"), [(None, "[4]"), ("key", "[1]"), ("none", "[ID:3]")])
async def test_what_marks_mean_is_known_or_set(
    make: Make, citations: str | None, text: str
) -> None:
    async with ScriptedUpstream(stream(*answer("s1", "[ID:3]"))) as server:
        upstream = make(server.base_url, citations=citations)
        assert (await ask(upstream, question("s1"))).text == text


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("script", "error", "status"),
    [
        (
            whole({"code": 102, "message": "You do not own the assistant."}),
            "kb: You do not own the assistant.",
            None,
        ),
        (
            whole({"code": 109, "data": False, "message": "API key is invalid!"}),
            "kb: API key is invalid!",
            None,
        ),
        (
            whole({"code": 0, "data": False, "message": "`Authorization` can't be empty"}),
            "kb: `Authorization` can't be empty",
            None,
        ),
        (
            whole({"code": 401, "message": f"Unauthorized {SECRET}", "data": None}, 401),
            "kb answered 401: Unauthorized ***",
            401,
        ),
        (whole("<p>", 502, "text/html"), "kb answered 502", 502),
    ],
)
async def test_a_session_that_is_refused_is_an_error_in_words(
    make: Make, script: Script, error: str, status: int | None
) -> None:
    async with ScriptedUpstream(script) as server:
        answered = await ask(make(server.base_url))
    assert answered.items == [UpstreamEnd(Reason.UPSTREAM_ERROR, error=error, status=status)]
    assert len(server.requests) == 1


async def test_a_server_that_hangs_up_before_a_session_is_unreachable(make: Make) -> None:
    async with ScriptedUpstream([Wire.CLOSE]) as server:
        answered = await ask(make(server.base_url))
    error = "kb: the connection was closed before there was an answer"
    assert answered.items == [UpstreamEnd(Reason.UPSTREAM_UNREACHABLE, error=error)]


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (whole({"code": 102, "message": "No such chat"}), "kb: No such chat"),
        (whole({"code": 0, "data": None}), "the upstream sent JSON that is not an answer"),
        (whole("oops"), "the upstream sent JSON that is not an answer"),
        (
            whole("<p>", 200, "text/html"),
            "kb answered with text/html instead of an event stream; is base_url right?",
        ),
        (whole({"code": 404, "message": "Not Found"}, 404), "kb answered 404: Not Found (404)"),
        (stream(frame(None, code=500, message=f"no {SECRET}")), "no ***"),
        (stream(*answer("s1", f"**ERROR**: no {SECRET}")), "no ***"),
    ],
)
async def test_a_question_that_is_refused_is_an_error_in_words(
    make: Make, script: Script, error: str
) -> None:
    async with ScriptedUpstream(script) as server:
        answered = await ask(make(server.base_url), question("s1"))
    assert answered.items[-1:] == [answered.end]
    assert (answered.end.reason, answered.end.error) == (Reason.UPSTREAM_ERROR, error)
    assert len(server.requests) == 1
    assert SECRET not in repr(answered.exchange)


async def test_a_server_that_asks_for_messages_without_end_is_refused(make: Make) -> None:
    missing = whole({"code": 101, "message": "required argument are missing: messages; "})
    async with ScriptedUpstream(missing) as server:
        answered = await ask(make(server.base_url), question("s1"))
    assert answered.end.error == "kb: required argument are missing: messages;"
    assert len(server.requests) == 1


# ---------------------------------------------------------------------- streams that break

RECORDED = (CORPUS / "d_error_frame.sse").read_bytes()


@pytest.mark.parametrize("last", [Wire.CLOSE, Wire.RESET])
async def test_a_stream_cut_at_every_event_keeps_its_whole_events(make: Make, last: Wire) -> None:
    ends = [at + 2 for at in range(len(RECORDED)) if RECORDED.startswith(b"\n\n", at)]
    async with ScriptedUpstream(
        lambda _: [head(), chunk(RECORDED[: ends[len(server.requests)] - 1]), last]
    ) as server:
        upstream = make(server.base_url)
        for place, end in enumerate(ends):
            answered = await ask(upstream, question("s1"))
            decoder = RagflowDecoder()
            given = decoder.feed(RECORDED[: end - 1])
            assert answered.items[:-1] == given
            failed = place > 2
            reason = Reason.UPSTREAM_ERROR if failed else Reason.UPSTREAM_TRUNCATED
            assert answered.end.reason is reason


@pytest.mark.parametrize("settings", [{}, {"agent_id": "a1"}])
@pytest.mark.parametrize("script", [[Wire.STALL], stream(end=[Wire.STALL])])
async def test_cancelling_closes_the_socket_at_once(
    make: Make, script: Script, settings: dict[str, str]
) -> None:
    async with ScriptedUpstream(script) as server:
        task = asyncio.create_task(ask(make(server.base_url, **settings), question("s1")))
        await server.asked()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.client_left()
    assert len(server.requests) == 1


async def test_cancelling_while_a_session_is_made_closes_the_socket(make: Make) -> None:
    async with ScriptedUpstream([Wire.STALL]) as server:
        task = asyncio.create_task(ask(make(server.base_url)))
        await server.asked()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.client_left()
    assert server.requests[0].path == f"{CHAT}/sessions"


async def test_cancelling_loses_no_text_that_was_held(make: Make) -> None:
    script = stream(answer("s1", "see **ERR", final=False)[0], end=[Wire.STALL])
    async with ScriptedUpstream(script) as server:
        sink = RecordingSink()
        task = asyncio.create_task(make(server.base_url).answer(question("s1"), Exchange(), sink))
        await sink.has(lambda: sink.text == "see ")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.client_left()
    assert sink.text == "see **ERR"


async def test_a_run_that_takes_no_more_closes_the_socket_at_once(make: Make) -> None:
    limit = UpstreamEnd(Reason.LIMIT, error="enough")
    script = stream(answer("s1", final=False)[0], end=[Wire.STALL])
    async with ScriptedUpstream(script) as server:
        sink = RecordingSink(1, limit)
        assert await make(server.base_url).answer(question("s1"), Exchange(), sink) == limit
        await server.client_left()


# ---------------------------------------------------------------------- behind a server


async def test_a_session_is_remembered_over_a_stop_and_a_restart(tmp_path: Path) -> None:
    """The turn that was stopped is not in RAGFlow's history, so ours is sent."""
    script = stream(answer("new-1", "Every 18", final=False, chat_id="c1")[0], end=[Wire.STALL])

    class Slow(From0256):
        def complete(self, body: dict[str, Any]) -> Script:
            return script if body.get("question") == "How often?" else super().complete(body)

    async with ScriptedUpstream(Slow()) as ragflow:
        table = {"kind": "ragflow", "base_url": ragflow.base_url, "chat_id": "c1", "api_key": "k"}
        async with Server(tmp_path, upstreams={"kb": table}) as server:
            async with server.stream("POST", "/api/v1/runs", {"message": "How often?"}) as run:
                await run.read_text("Every 18")
                reply = await server.post(f"/api/v1/runs/{run.run_id}/cancel", {})
                assert reply.status == 200
                await run.rest()
            await ragflow.client_left()
            assert await server.stop() == 0
        async with Server(tmp_path, upstreams={"kb": table}) as server:
            for message in ("Why?", "Really?"):
                body = {"message": message, "session_id": run.session_id, "stream": False}
                reply = await server.post("/api/v1/runs", body)
                assert reply.json["message"]["content"] == "Yes."
    paths = [request.path for request in ragflow.requests]
    assert paths == [f"{CHAT}/sessions", *[f"{CHAT}/completions"] * 3]
    assert {body["session_id"] for body in bodies(ragflow)} == {"new-1"}
    assert [[turn["content"] for turn in body["messages"]] for body in bodies(ragflow)] == [
        ["How often?"],
        ["How often?", "Every 18", "Why?"],
        ["How often?", "Every 18", "Why?", "Yes.", "Really?"],
    ]


# ---------------------------------------------------------------------- health


@pytest.mark.parametrize(
    ("script", "detail"),
    [
        (whole({"code": 0, "data": []}), ""),
        (whole({"code": 0, "message": "", "data": {"sessions": [], "total": 0}}), ""),
        (
            whole(
                {"code": 109, "data": False, "message": "Authentication error: API key is invalid!"}
            ),
            "Authentication error: API key is invalid: the api_key is missing or refused",
        ),
        (
            whole({"code": 0, "data": False, "message": "`Authorization` can't be empty"}),
            "`Authorization` can't be empty: the api_key is missing or refused",
        ),
        (
            whole(
                {"code": 401, "message": "<Unauthorized '401: Unauthorized'>", "data": None}, 401
            ),
            "<Unauthorized '401: Unauthorized'>: the api_key is missing or refused",
        ),
        (whole("", 403), "answered 403: the api_key is missing or refused"),
        (
            whole({"code": 102, "message": "You don't own the assistant c1."}),
            "You don't own the assistant c1: is chat_id right?",
        ),
        (
            whole({"code": 109, "data": False, "message": "No authorization."}),
            "No authorization: is chat_id right?",
        ),
        (
            whole({"code": 404, "message": "Not Found: /x", "data": None}, 404),
            "Not Found: /x: this is not RAGFlow's API, or one before 0.13; is base_url right?",
        ),
        (
            whole("<html>", 200, "text/html"),
            "answered 200: this is not RAGFlow's API, or one before 0.13; is base_url right?",
        ),
        (
            whole({"object": "list", "data": []}),
            "answered 200: this is not RAGFlow's API, or one before 0.13; is base_url right?",
        ),
        (whole(f"broken {SECRET}", 500, "text/plain"), "answered 500"),
        ([Wire.CLOSE], "the connection was closed before there was an answer"),
    ],
)
async def test_the_check_tells_what_is_wrong(make: Make, script: Script, detail: str) -> None:
    async with ScriptedUpstream(script) as server:
        health = await make(server.base_url).check()
    assert (health.ok, health.detail) == (not detail, detail)
    assert server.requests[0].method == "GET"
    assert server.requests[0].path == f"{CHAT}/sessions?page=1&page_size=1"
    assert server.requests[0].headers["authorization"] == f"Bearer {SECRET}"


async def test_the_check_of_an_agent(make: Make) -> None:
    refused = whole({"code": 102, "message": "You don't own the agent a1."})
    async with ScriptedUpstream(refused) as server:
        health = await make(server.base_url, agent_id="a1").check()
    assert health.detail == "You don't own the agent a1: is agent_id right?"
    assert server.requests[0].path == f"{AGENT}/sessions?page=1&page_size=1"
