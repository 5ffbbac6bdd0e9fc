"""The official `openai` package, unmodified, in front of a real server.

Its own retries are left on: what it sends is counted, and so is what reaches the upstream.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import anyio
import httpx2
import openai
import pydantic
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

from tests.support.openai_surface import CUT, deployment, failing
from tests.support.raw_client import GIVE_UP_S
from tests.support.server import Deployment
from tests.support.upstream_server import (
    Step,
    Wire,
    completion,
    completion_chunk,
    event,
)

KELP = completion_chunk(content="Kelp ")
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "find",
        "description": "Find something.",
        "parameters": {"type": "object", "properties": {"what": {"type": "string"}}},
        "strict": True,
    },
}


class Counted:
    """A client, with the number of requests that it has sent."""

    def __init__(self, site: Deployment) -> None:
        self.sent = 0
        transport = openai.DefaultAsyncHttpxClient(event_hooks={"request": [self._count]})
        self.client = AsyncOpenAI(
            base_url=f"{site.server.url}/v1", api_key="any", http_client=transport
        )

    async def _count(self, request: httpx2.Request) -> None:
        self.sent += 1


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    async with deployment(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture
async def counted(site: Deployment) -> AsyncIterator[Counted]:
    counted = Counted(site)
    async with counted.client:
        yield counted


@pytest.fixture
def client(counted: Counted) -> AsyncOpenAI:
    return counted.client


def says(text: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


def text_of(chunks: Iterable[ChatCompletionChunk]) -> str:
    return "".join(one.choices[0].delta.content or "" for one in chunks if one.choices)


async def all_of(stream: openai.AsyncStream[ChatCompletionChunk]) -> list[ChatCompletionChunk]:
    return [chunk async for chunk in stream]


async def read_to(stream: openai.AsyncStream[ChatCompletionChunk], text: str) -> None:
    """Read until the text that came is `text`."""
    chunks: list[ChatCompletionChunk] = []
    while text_of(chunks) != text:
        chunks.append(await anext(stream))


# ---------------------------------------------------------------------- answers


async def test_a_stream(site: Deployment, client: AsyncOpenAI) -> None:
    question = site.answers(*completion("Kelp ", "海\u2028", "holds."))
    stream = await client.chat.completions.create(
        model="script", messages=says(question), stream=True
    )
    chunks = await all_of(stream)
    assert text_of(chunks) == "Kelp 海\u2028holds."
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert {one.model for one in chunks} == {"m1"}
    assert {one.id for one in chunks} == {f"chatcmpl-{stream.response.headers['x-holdfast-run']}"}
    for one in chunks:
        assert ChatCompletionChunk.model_validate(one.model_dump()) == one


async def test_a_whole_answer(site: Deployment, client: AsyncOpenAI) -> None:
    question = site.answers(completion_chunk(reasoning_content="Hm."), *completion("Kelp."))
    answer = await client.chat.completions.create(model="script", messages=says(question))
    assert type(answer).model_validate(answer.model_dump()) == answer
    choice = answer.choices[0]
    assert (choice.message.content, choice.finish_reason) == ("Kelp.", "stop")
    assert (choice.message.model_extra or {})["reasoning_content"] == "Hm."
    assert answer._request_id


async def test_the_blocking_client(site: Deployment) -> None:
    question = site.answers(*completion("Kelp ", "holds."))

    def ask() -> tuple[str, str | None]:
        with OpenAI(base_url=f"{site.server.url}/v1", api_key="any") as client:
            asked: Any = {"model": "script", "messages": says(question)}
            whole = client.chat.completions.create(**asked)
            with client.chat.completions.create(**asked, stream=True) as stream:
                return text_of(list(stream)), whole.choices[0].message.content

    assert await anyio.to_thread.run_sync(ask) == ("Kelp holds.", "Kelp holds.")


async def test_reasoning(site: Deployment, client: AsyncOpenAI) -> None:
    question = site.answers(completion_chunk(reasoning_content="Hm."), *completion("Yes."))
    chunks = await all_of(
        await client.chat.completions.create(model="script", messages=says(question), stream=True)
    )
    thoughts = [(one.choices[0].delta.model_extra or {}).get("reasoning_content") for one in chunks]
    assert [thought for thought in thoughts if thought] == ["Hm."]
    assert text_of(chunks) == "Yes."


async def test_usage(site: Deployment, client: AsyncOpenAI) -> None:
    used = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    question = site.answers(
        *completion("Yes.")[:-1], event({"choices": [], "usage": used}), event("[DONE]")
    )
    chunks = await all_of(
        await client.chat.completions.create(
            model="script",
            messages=says(question),
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    usage = chunks[-1].usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (3, 4, 7)
    assert [one.usage for one in chunks[:-1]] == [None] * (len(chunks) - 1)


async def test_an_upstream_of_another_kind(client: AsyncOpenAI) -> None:
    question = says("What is a holdfast?")
    async with client.chat.completions.stream(model="docs", messages=question) as stream:
        answer = (await stream.get_final_completion()).choices[0].message
    assert "anchors kelp to the rock" in (answer.content or "")
    (reference,) = (answer.model_extra or {})["references"]
    assert (reference["ordinal"], reference["document_name"]) == (1, "Kelp")


# ---------------------------------------------------------------------- tools


def call_piece(index: int, arguments: str, **more: Any) -> bytes:
    function = {"arguments": arguments, **({"name": more.pop("name")} if more else {})}
    return completion_chunk(tool_calls=[{"index": index, "function": function, **more}])


TOOL_CALLS = (
    call_piece(0, "", name="find", id="call_a", type="function"),
    call_piece(0, '{"what":'),
    call_piece(0, '"kelp"}'),
    call_piece(1, '{"what":"海"}', name="find", id="call_b", type="function"),
    completion_chunk("tool_calls"),
    event("[DONE]"),
)


async def test_tools_go_to_the_upstream_and_its_calls_come_back(
    site: Deployment, client: AsyncOpenAI
) -> None:
    question = site.answers(*TOOL_CALLS)
    asked: Any = {"model": "script", "messages": says(question), "tools": [TOOL], "seed": 7}
    async with client.chat.completions.stream(**asked) as stream:
        streamed = (await stream.get_final_completion()).choices[0]
    whole = (await client.chat.completions.create(**asked)).choices[0]
    for choice in (streamed, whole):
        assert choice.finish_reason == "tool_calls"
        calls = [call.model_dump() for call in choice.message.tool_calls or ()]
        assert [(call["id"], call["type"]) for call in calls] == [
            ("call_a", "function"),
            ("call_b", "function"),
        ]
        functions = [(call["function"]["name"], call["function"]["arguments"]) for call in calls]
        assert functions == [("find", '{"what":"kelp"}'), ("find", '{"what":"海"}')]
    sent = [(one.json["tools"], one.json["seed"]) for one in site.requests_for(question)]
    assert sent == [([TOOL], 7)] * 2


async def test_results_of_tools_go_to_the_upstream(site: Deployment, client: AsyncOpenAI) -> None:
    first = await client.chat.completions.create(
        model="script", messages=says(site.answers(*TOOL_CALLS)), tools=[TOOL]
    )
    result = site.answers(*completion("Found."))
    spoken = first.choices[0].message.model_dump(exclude_none=True)
    messages: Any = [*says("Find."), spoken, {"role": "tool", "tool_call_id": "call_a"}]
    messages[-1]["content"] = result
    second = await client.chat.completions.create(model="script", messages=messages, tools=[TOOL])
    assert second.choices[0].message.content == "Found."
    (request,) = site.requests_for(result)
    assert request.json["messages"] == messages


# ---------------------------------------------------------------------- references


async def test_references_in_many_chunks_do_not_trip_its_helpers(
    site: Deployment, client: AsyncOpenAI
) -> None:
    chunks = [
        {"id": f"c{n}", "content": "海" * 3_000, "url": f"https://kelp.example/{n}"}
        for n in range(12)
    ]
    question = site.answers(
        completion_chunk(content="It holds [ID:1]."),
        completion_chunk("stop", reference={"chunks": chunks}),
        event("[DONE]"),
    )
    asked: Any = {"model": "script", "messages": says(question)}
    async with client.chat.completions.stream(**asked) as stream:
        streamed = (await stream.get_final_completion()).choices[0].message
    whole = (await client.chat.completions.create(**asked)).choices[0].message
    assert streamed.content == whole.content == "It holds [2]."
    found = [dict(one) for one in (streamed.model_extra or {})["references"]]
    assert [one.pop("index") for one in found] == list(range(12))
    assert found == (whole.model_extra or {})["references"]
    for message in (streamed, whole):
        cited = [one.url_citation for one in message.annotations or ()]
        assert [one.url for one in cited] == [one["url"] for one in chunks]
        assert (cited[1].start_index, cited[1].end_index) == (9, 12)


# ---------------------------------------------------------------------- errors, and no retries


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("script", "kind", "status"),
    [
        (failing(429), openai.RateLimitError, 429),
        (failing(500), openai.InternalServerError, 502),
        (failing(401), openai.InternalServerError, 502),
        (failing(400), openai.BadRequestError, 400),
    ],
    ids=["429", "500", "401", "400"],
)
async def test_early_failures_are_its_exceptions_and_nothing_is_asked_twice(
    site: Deployment,
    counted: Counted,
    script: list[Step],
    kind: type[openai.APIStatusError],
    status: int,
    stream: bool,
) -> None:
    question = site.question(script)
    asked: Any = {"model": "script", "messages": says(question), "stream": stream}
    with pytest.raises(kind, match=r"Because\.") as raised:
        await counted.client.chat.completions.create(**asked)
    error = raised.value
    assert type(error) is kind
    assert (error.status_code, error.code) == (status, "upstream_error")
    assert error.request_id
    assert (counted.sent, len(site.requests_for(question))) == (1, 1)


async def test_an_unreachable_upstream(counted: Counted) -> None:
    with pytest.raises(openai.InternalServerError) as raised:
        await counted.client.chat.completions.create(model="dead", messages=says("Who?"))
    assert (raised.value.status_code, raised.value.code) == (502, "upstream_unreachable")
    assert counted.sent == 1


async def test_a_model_that_is_not_there(counted: Counted) -> None:
    with pytest.raises(openai.NotFoundError) as raised:
        await counted.client.chat.completions.create(model="gpt-9", messages=says("?"))
    assert raised.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        await counted.client.models.retrieve("gpt-9")
    assert counted.sent == 2


async def test_more_than_one_answer(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        await client.chat.completions.create(model="script", messages=says("?"), n=2)
    assert raised.value.param == "n"


async def test_a_busy_session_is_a_conflict_at_once(site: Deployment, counted: Counted) -> None:
    create = counted.client.chat.completions.create
    question = site.answers(KELP, Wire.STALL)
    stream = await create(model="script", messages=says(question), stream=True)
    session = {"X-Holdfast-Session": stream.response.headers["x-holdfast-session"]}
    with pytest.raises(openai.ConflictError) as raised:
        await create(model="script", messages=says("Next?"), extra_headers=session)
    assert raised.value.code == "run_active"
    await stream.close()
    assert counted.sent == 2


async def test_an_error_in_the_stream_is_raised(site: Deployment, counted: Counted) -> None:
    question = site.answers(*CUT)
    stream = await counted.client.chat.completions.create(
        model="script", messages=says(question), stream=True
    )
    await read_to(stream, "Kelp ho")
    with pytest.raises(openai.APIError) as raised:
        await all_of(stream)
    assert type(raised.value) is openai.APIError
    assert raised.value.code == "upstream_truncated"
    assert (counted.sent, len(site.requests_for(question))) == (1, 1)


async def test_a_partial_answer_says_so(site: Deployment, counted: Counted) -> None:
    asked: Any = {"model": "script", "messages": says(site.answers(*CUT))}
    answer = await counted.client.chat.completions.create(**asked)
    choice = answer.choices[0]
    assert (choice.message.content, choice.finish_reason) == ("Kelp ho", "length")
    assert (answer.model_extra or {})["error"]["code"] == "upstream_truncated"
    assert counted.sent == 1

    class Shape(pydantic.BaseModel):
        kelp: str

    with pytest.raises(openai.LengthFinishReasonError):
        await counted.client.chat.completions.parse(**asked, response_format=Shape)


# ---------------------------------------------------------------------- leaving, and coming back


async def test_closing_the_stream_stops_the_answer(site: Deployment, client: AsyncOpenAI) -> None:
    left = site.upstream.closed_early
    stream = await client.chat.completions.create(
        model="script", messages=says(site.answers(KELP, Wire.STALL)), stream=True
    )
    async with stream:
        await read_to(stream, "Kelp ")
    async with asyncio.timeout(GIVE_UP_S):
        await site.upstream.client_left(left + 1)


async def test_its_time_out_in_the_stream_stops_the_answer(
    site: Deployment, counted: Counted
) -> None:
    left = site.upstream.closed_early
    question = site.answers(KELP, Wire.STALL)
    hasty = counted.client.with_options(timeout=0.3)
    stream = await hasty.chat.completions.create(
        model="script", messages=says(question), stream=True
    )
    with pytest.raises(openai.APITimeoutError):
        await all_of(stream)
    async with asyncio.timeout(GIVE_UP_S):
        await site.upstream.client_left(left + 1)
    assert (counted.sent, len(site.requests_for(question))) == (1, 1)


@pytest.mark.parametrize("stream", [False, True])
async def test_p7_with_a_key_its_retries_ask_once(tmp_path: Path, stream: bool) -> None:
    async with deployment(tmp_path, runs={"disconnect_grace_s": 30}) as site:
        counted = Counted(site)
        question = site.question([Wire.STALL])
        asked: Any = {"model": "script", "messages": says(question), "stream": stream}
        async with counted.client:
            hasty = counted.client.with_options(timeout=0.3)
            with pytest.raises(openai.APITimeoutError):
                await hasty.chat.completions.create(
                    **asked, extra_headers={"Idempotency-Key": "one"}
                )
        assert (counted.sent, len(site.requests_for(question))) == (3, 1)


async def test_p3_a_server_that_is_killed(tmp_path: Path) -> None:
    async with deployment(tmp_path) as site:
        counted = Counted(site)
        question = site.answers(KELP, Wire.STALL)
        async with counted.client:
            stream = await counted.client.chat.completions.create(
                model="script", messages=says(question), stream=True
            )
            await read_to(stream, "Kelp ")
            site.server.process.kill()
            with pytest.raises(openai.APIConnectionError):
                await all_of(stream)
        assert counted.sent == 1
        await site.restart()
        ended = await site.server.ended(stream.response.headers["x-holdfast-run"])
    assert (ended["message"]["content"], ended["message"]["status"]) == ("Kelp ", "partial")


# ---------------------------------------------------------------------- models and sessions


async def test_models(client: AsyncOpenAI) -> None:
    names = [model.id async for model in client.models.list()]
    assert {"script", "m1", "docs", "careful", "auto"} <= {*names}
    assert (await client.models.retrieve("m1")).owned_by == "script"
    assert (await client.models.retrieve("script/any")).id == "script/any"


async def test_a_session_keeps_its_questions(site: Deployment, client: AsyncOpenAI) -> None:
    session: dict[str, str] = {}
    questions = [site.answers(*completion("Yes.")) for _ in range(2)]
    for question in questions:
        answer = await client.chat.completions.with_raw_response.create(
            model="script", messages=says(question), extra_headers=session
        )
        session = {"X-Holdfast-Session": answer.headers["x-holdfast-session"]}
    path = f"/api/v1/sessions/{session['X-Holdfast-Session']}/messages"
    contents = [one["content"] for one in (await site.server.get(path)).json["items"]]
    assert contents == [questions[0], "Yes.", questions[1], "Yes."]
