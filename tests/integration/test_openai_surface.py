"""The OpenAI surface of a real server: what is asked and what is answered."""

import itertools
from collections.abc import AsyncIterator
from typing import Any

import pytest

from holdfast.http.surfaces.openai import conversation, text_of
from tests.support.frames import datas_of
from tests.support.openai_surface import PATH, body_of, deployment, failing, post, refusal, user
from tests.support.server import Deployment
from tests.support.upstream_server import Wire, completion, completion_chunk, event

keys = (f"key-{number}" for number in itertools.count())


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    async with deployment(tmp_path_factory.mktemp("site")) as site:
        yield site


async def ask(site: Deployment, question: str, **more: Any) -> Any:
    """A whole answer."""
    reply = await post(site.server, body_of(question, **more))
    assert reply.status == 200, reply
    return reply.json


async def streamed(site: Deployment, question: str, **more: Any) -> bytes:
    """The body of a stream."""
    async with site.server.stream("POST", PATH, body_of(question, stream=True, **more)) as found:
        await found.rest()
        return bytes(found.body)


# ---------------------------------------------------------------------- a stream


async def test_a_stream_is_data_lines_and_comments(site: Deployment) -> None:
    question = site.answers(*completion("Kelp ", "holds."))
    async with site.server.stream("POST", PATH, body_of(question, stream=True)) as found:
        await found.rest()
        body = bytes(found.body)
    assert found.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert found.headers["cache-control"] == "no-cache, no-transform"
    assert found.headers["x-accel-buffering"] == "no"
    assert found.headers["x-request-id"]
    assert body.startswith(b": ok\n\ndata: ")
    assert {line.partition(b":")[0] for line in body.split(b"\n") if line} == {b"", b"data"}
    *chunks, done = datas_of(body)
    assert done == "[DONE]"
    assert {one["id"] for one in chunks} == {f"chatcmpl-{found.run_id}"}
    assert {one["object"] for one in chunks} == {"chat.completion.chunk"}
    assert {one["model"] for one in chunks} == {"m1"}
    choices = [one["choices"][0] for one in chunks]
    assert choices[0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(one["delta"].get("content", "") for one in choices) == "Kelp holds."
    assert [one["finish_reason"] for one in choices] == [None] * (len(choices) - 1) + ["stop"]
    run = await site.server.run(found.run_id)
    assert (run["message"]["content"], run["message"]["status"]) == ("Kelp holds.", "complete")
    assert run["message"]["id"] == found.message_id


async def test_usage_comes_if_it_was_asked_for(site: Deployment) -> None:
    used = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    last = event({"choices": [], "usage": used})
    question = site.answers(*completion("Yes.")[:-1], last, event("[DONE]"))
    options = {"stream_options": {"include_usage": True}}
    *chunks, usage, done = datas_of(await streamed(site, question, **options))
    assert (usage["choices"], usage["usage"], done) == ([], used, "[DONE]")
    assert [one["usage"] for one in chunks] == [None] * len(chunks)
    assert b'"usage"' not in await streamed(site, question)
    assert (await ask(site, question))["usage"] == used


async def test_the_events_of_its_run_can_be_read_natively(site: Deployment) -> None:
    question = site.answers(*completion("Kelp."))
    async with site.server.stream("POST", PATH, body_of(question, stream=True)) as found:
        await found.rest()
    assert b'"text":"Kelp."' in await site.server.log_of(found.run_id)


# ---------------------------------------------------------------------- in one piece


async def test_a_whole_answer(site: Deployment) -> None:
    thought = completion_chunk(reasoning_content="Hm.")
    question = site.answers(thought, *completion("Kelp ", "holds."))
    reply = await post(site.server, body_of(question))
    assert reply.status == 200
    assert reply.headers["x-request-id"]
    message = {"role": "assistant", "content": "Kelp holds.", "reasoning_content": "Hm."}
    assert reply.json == {
        "id": f"chatcmpl-{reply.headers['x-holdfast-run']}",
        "object": "chat.completion",
        "created": reply.json["created"],
        "model": "m1",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
    }
    assert type(reply.json["created"]) is int


async def test_tool_calls_without_text(site: Deployment) -> None:
    call = {"index": 0, "id": "c1", "function": {"name": "find", "arguments": "{}"}}
    question = site.answers(
        completion_chunk(tool_calls=[call]), completion_chunk("tool_calls"), event("[DONE]")
    )
    choice = (await ask(site, question))["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"] == {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
        ],
    }


# ---------------------------------------------------------------------- what is asked


async def test_the_body_is_passed_on(site: Deployment) -> None:
    question = site.answers(*completion("Yes."))
    passed = {
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Look."}, {"type": "x", "y": 1}]},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "c1"}]},
            {"role": "tool", "tool_call_id": "c1", "content": question},
        ],
        "tools": [{"type": "function", "function": {"name": "find", "parameters": {"a": [None]}}}],
        "tool_choice": "auto",
        "temperature": 0,
        "max_completion_tokens": 7,
        "seed": 2**70,
        "response_format": {"type": "json_object"},
        "metadata": {"a": "b"},
        "user": "ada",
        "n": 1,
    }
    own = {"on_disconnect": "continue", "on_busy": "cancel"}
    reply = await post(site.server, {"model": "script", "stream": False, **passed, **own})
    assert reply.status == 200, reply
    (request,) = site.requests_for(question)
    sent = request.json
    assert {name: sent.get(name) for name in passed} == passed
    assert sent.keys() - passed.keys() == {"model", "stream", "stream_options"}
    assert (sent["model"], sent["stream"]) == ("m1", True)
    session = reply.headers["x-holdfast-session"]
    messages = (await site.server.get(f"/api/v1/sessions/{session}/messages")).json["items"]
    assert messages[0]["content"] == "Look."


async def test_history_is_not_added(site: Deployment) -> None:
    first, second = (site.answers(*completion("Yes.")) for _ in range(2))
    session = (await post(site.server, body_of(first))).headers["x-holdfast-session"]
    again = await post(site.server, body_of(second), X_Holdfast_Session=session)
    assert again.headers["x-holdfast-session"] == session
    (request,) = site.requests_for(second)
    assert request.json["messages"] == [user(second)]
    messages = (await site.server.get(f"/api/v1/sessions/{session}/messages")).json["items"]
    assert [one["content"] for one in messages] == [first, "Yes.", second, "Yes."]


async def test_a_preset_adds_what_it_says(site: Deployment) -> None:
    system = {"role": "system", "content": "Take care."}
    for said, told in [
        ({}, {"temperature": 0.2, "max_tokens": 80}),
        ({"temperature": 0, "max_tokens": 7}, {"temperature": 0, "max_tokens": 7}),
        ({"max_completion_tokens": 7}, {"temperature": 0.2, "max_completion_tokens": 7}),
    ]:
        question = site.answers(*completion("Yes."))
        await post(site.server, {**body_of(question), "model": "careful", **said})
        (request,) = site.requests_for(question)
        sent = {name: request.json[name] for name in request.json if name[:3] in ("tem", "max")}
        assert sent == told
        assert request.json["messages"] == [system, user(question)]
        assert request.json["model"] == "m-careful"


async def test_other_upstreams_answer_too(site: Deployment) -> None:
    parts = [{"type": "text", "text": "What is a holdfast?"}]
    earlier = [{"role": "system", "content": "Be brief."}, user("Hi."), {"role": "assistant"}]
    body = {"model": "docs", "messages": [*earlier, user(parts)]}
    reply = await post(site.server, body)
    assert reply.status == 200, reply
    assert reply.json["model"] == "docs"
    message = reply.json["choices"][0]["message"]
    assert "anchors kelp to the rock" in message["content"]
    reference = message["references"][0]
    assert (reference["ordinal"], reference["document_name"]) == (1, "Kelp")
    async with site.server.stream("POST", PATH, {**body, "stream": True}) as found:
        await found.rest()
    deltas = [one["choices"][0]["delta"] for one in datas_of(bytes(found.body))[:-1]]
    assert "".join(one.get("content", "") for one in deltas) == message["content"]
    (told,) = [one["references"] for one in deltas if "references" in one]
    assert [one.pop("index") for one in told] == list(range(len(told)))
    assert told == message["references"]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("a", "a"),
        (None, ""),
        (7, ""),
        ([], ""),
        ([{"type": "text", "text": "a"}, {"type": "image_url"}, {"text": "b"}], "a\nb"),
        ([{"type": "image_url"}, {"type": "file"}], "[image_url]\n[file]"),
        ([None, 1, "x", {"type": "text", "text": None}], "[text]"),
    ],
)
def test_the_text_of_a_message(content: object, text: str) -> None:
    assert text_of(content) == text


def told(*messages: tuple[str, Any]) -> tuple[str, list[tuple[str, str]]]:
    question, history = conversation([{"role": role, "content": text} for role, text in messages])
    return question, [(one.role, one.content) for one in history]


def test_the_question_is_what_the_user_said_last() -> None:
    before = [
        ("developer", "D"),
        ("user", "1"),
        ("assistant", "2"),
        ("assistant", ""),
        ("tool", "3"),
    ]
    after = [("assistant", None), ("tool", "5"), ("assistant", "6")]
    history = [("system", "D"), ("user", "1"), ("assistant", "2")]
    assert told(*before, ("user", "4"), *after) == ("4", history)


def test_without_a_user_the_last_message_is_the_question() -> None:
    assert told(("system", "a"), ("system", "Say hi.")) == ("Say hi.", [("system", "a")])
    assert told(("user", " "), ("odd", "b")) == ("b", [])


# ---------------------------------------------------------------------- models


@pytest.mark.parametrize(
    ("name", "upstream", "model"),
    [
        ("script", "script", "m1"),
        ("m1", "script", "m1"),
        ("script/else/where", "script", "else/where"),
        ("careful", "script", "m-careful"),
        ("local_small", "docs", None),
        (None, "script", "m1"),
    ],
)
async def test_the_model_chooses(
    site: Deployment, name: str | None, upstream: str, model: str | None
) -> None:
    question = site.answers(*completion("Yes."))
    reply = await post(site.server, {"model": name, "messages": [user(question)]})
    assert reply.status == 200, reply
    assert reply.json["model"] == (model or upstream)
    run = (await site.server.run(reply.headers["x-holdfast-run"]))["run"]
    assert (run["upstream"], run["model"]) == (upstream, model)
    if upstream == "script":
        assert [one.json["model"] for one in site.requests_for(question)] == [model]


async def test_the_router_may_choose(site: Deployment) -> None:
    reply = await post(site.server, {"model": "auto", "messages": [user("What is a holdfast?")]})
    run = (await site.server.run(reply.headers["x-holdfast-run"]))["run"]
    assert (reply.status, run["upstream"]) == (200, "docs")  # the question is short


@pytest.mark.parametrize("name", ["gpt-unknown", "nowhere/m1", "script/", ""])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_model_that_is_not_there(site: Deployment, name: str, stream: bool) -> None:
    reply = await post(site.server, {"model": name, "messages": [user("?")], "stream": stream})
    assert refusal(reply, 404, "model_not_found")["type"] == "invalid_request_error"
    assert reply.headers["x-should-retry"] == "false"


async def test_the_models_are_listed(site: Deployment) -> None:
    listed = (await site.server.get("/v1/models")).json
    assert listed["object"] == "list"
    owners = {one["id"]: one["owned_by"] for one in listed["data"]}
    assert owners == {
        "careful": "holdfast",
        "script": "openai",
        "docs": "library",
        "dead": "openai",
        "local_small": "holdfast",
        "auto": "holdfast",
        "m1": "script",
        "none": "dead",
    }
    assert len(listed["data"]) == len(owners)
    for one in listed["data"]:
        assert (one["object"], type(one["created"])) == ("model", int)
        assert (await site.server.get(f"/v1/models/{one['id']}")).json == one


async def test_one_model(site: Deployment) -> None:
    for path in ("script/any/model", "script%2Fany%2Fmodel"):
        found = (await site.server.get(f"/v1/models/{path}")).json
        assert (found["id"], found["owned_by"]) == ("script/any/model", "script")
    refusal(await site.server.get("/v1/models/unknown"), 404, "model_not_found")


async def test_the_interface_is_described(site: Deployment) -> None:
    paths = (await site.server.get("/openapi.json")).json["paths"]
    assert paths.keys() >= {PATH, "/v1/models", "/v1/models/{id}"}
    assert [one["name"] for one in paths["/v1/models/{id}"]["get"]["parameters"]] == ["id"]


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": [user("?")], "n": 2}, "n"),
        ({"messages": [user("?")], "n": 0}, "n"),
        ({"messages": []}, None),
        ({"messages": "hi"}, None),
        ({"messages": ["hi"]}, None),
        ({}, None),
        ([], None),
        ({"messages": [user("")]}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages"),
        ({"messages": [user("?")], "stream": "yes"}, None),
        ({"messages": [user("?")], "temperature": "hot"}, None),
        ({"messages": [user("?")], "on_disconnect": "maybe"}, None),
    ],
)
async def test_a_body_that_does_not_fit(site: Deployment, body: Any, param: str | None) -> None:
    reply = await post(site.server, body)
    error = refusal(reply, 400, "bad_request")
    assert (error["type"], error["param"]) == ("invalid_request_error", param)
    assert reply.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"{", {}, 400, "bad_request"),
        (b'{"messages": "\\ud800"}', {}, 400, "bad_request"),
        (b"{}", {"Content_Type": "text/plain"}, 415, "unsupported_media_type"),
        (body_of("x" * 300_000), {}, 413, "too_large"),
        (body_of("x" * 2_000_000), {}, 413, "too_large"),
        (body_of("?"), {"Idempotency_Key": "k" * 300}, 400, "bad_request"),
        (body_of("?"), {"X_Holdfast_On_Disconnect": "maybe"}, 400, "bad_request"),
        (body_of("?"), {"X_Holdfast_Session": "unknown"}, 404, "not_found"),
    ],
    ids=["json", "surrogate", "media", "question", "body", "key", "policy", "session"],
)
async def test_other_refusals_have_the_shape_too(
    site: Deployment, body: Any, headers: dict[str, str], status: int, code: str
) -> None:
    error = refusal(await post(site.server, body, **headers), status, code)
    assert error["type"] == "invalid_request_error"


async def test_other_methods_are_refused(site: Deployment) -> None:
    reply = await site.server.get(PATH)
    assert refusal(reply, 405, "method_not_allowed")["allow"] == ["POST"]
    assert reply.headers["allow"] == "POST"


# ---------------------------------------------------------------------- sessions


async def test_a_new_session_is_hidden(site: Deployment) -> None:
    reply = await post(site.server, body_of(site.answers(*completion("Yes."))))
    session = reply.headers["x-holdfast-session"]
    assert (await site.server.get(f"/api/v1/sessions/{session}")).status == 200
    listed = await site.server.get("/api/v1/sessions?limit=200")
    assert session not in [one["id"] for one in listed.json["items"]]


async def test_a_busy_session_is_not_asked_again(site: Deployment) -> None:
    question = site.answers(completion_chunk(content="Kelp"), Wire.STALL)
    async with site.server.stream("POST", PATH, body_of(question, stream=True)) as found:
        await found.next()
        session = {"X_Holdfast_Session": found.session_id}
        reply = await post(site.server, body_of("Next?"), **session)
        assert refusal(reply, 409, "run_active")["run_id"] == found.run_id
        assert reply.headers["x-should-retry"] == "false"
        stopping = body_of(site.answers(*completion("Yes.")), on_busy="cancel")
        assert (await post(site.server, stopping, **session)).status == 200
        await found.rest()
    assert datas_of(bytes(found.body))[-2]["error"]["code"] == "client_cancelled"


# ---------------------------------------------------------------------- asking once (P7)


async def test_p7_the_same_key_is_the_same_run_in_any_form(site: Deployment) -> None:
    question = site.answers(*completion("Kelp ", "holds."))
    key = {"Idempotency_Key": next(keys)}
    first = await post(site.server, body_of(question), **key)
    again = await post(site.server, body_of(question, stream=False), **key)
    assert first.json == again.json
    body = body_of(question, stream=True, stream_options={"include_usage": True})
    async with site.server.stream("POST", PATH, body, **key) as found:
        await found.rest()
    assert found.run_id == first.headers["x-holdfast-run"]
    assert datas_of(bytes(found.body))[-1] == "[DONE]"
    assert len(site.requests_for(question)) == 1
    for other in (body_of(question, seed=1), {**body_of(question), "model": "m1"}):
        refusal(await post(site.server, other, **key), 422, "idempotency_mismatch")


async def test_p7_a_failed_run_is_replayed_as_the_same_failure(site: Deployment) -> None:
    question = site.question(failing(429))
    key = {"Idempotency_Key": next(keys)}
    for stream in (False, True, False):
        reply = await post(site.server, body_of(question, stream=stream), **key)
        assert refusal(reply, 429, "upstream_error")["type"] == "rate_limit_error"
    assert len(site.requests_for(question)) == 1
