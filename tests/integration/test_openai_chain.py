"""One Holdfast in front of another: its `openai` upstream asks the other's OpenAI surface."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.openai_surface import (
    CUT,
    PATH,
    body_of,
    deployment,
    failing,
    post,
    refusal,
    user,
)
from tests.support.raw_client import GIVE_UP_S
from tests.support.server import Deployment, Server
from tests.support.upstream_server import Wire, completion_chunk, event

NAMES = ("script", "docs")


@pytest.fixture(scope="module")
async def behind(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    async with deployment(tmp_path_factory.mktemp("behind")) as behind:
        yield behind


@pytest.fixture(scope="module")
async def front(
    behind: Deployment, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Server]:
    links = {
        name: {"kind": "openai", "base_url": f"{behind.server.url}/v1", "model": name}
        for name in NAMES
    }
    folder: Path = tmp_path_factory.mktemp("front")
    async with Server(folder, upstreams=links, runs={"disconnect_grace_s": 0}) as front:
        yield front


async def test_text_reasoning_tools_annotations_and_usage_survive(
    behind: Deployment, front: Server
) -> None:
    call = {"index": 0, "id": "c1", "function": {"name": "find", "arguments": '{"a":1}'}}
    cited = {"url": "https://kelp.example/", "title": "Kelp", "content": "It holds."}
    question = behind.answers(
        completion_chunk(reasoning_content="Hm."),
        completion_chunk(content="Kelp 海.\u2028"),
        completion_chunk(annotations=[{"type": "url_citation", "url_citation": cited}]),
        completion_chunk(tool_calls=[call]),
        completion_chunk("tool_calls"),
        event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}),
        event("[DONE]"),
    )
    body = body_of(question, tools=[{"type": "function", "function": {"name": "find"}}])
    direct, chained = await post(behind.server, body), await post(front, body)
    assert chained.json["choices"] == direct.json["choices"]
    assert chained.json["usage"] == direct.json["usage"]
    message = chained.json["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("Kelp 海.\u2028", "Hm.")
    assert message["tool_calls"][0]["function"] == call["function"]
    assert message["annotations"][0]["url_citation"]["url"] == "https://kelp.example/"
    assert [one["text"] for one in message["references"]] == ["It holds."]
    assert [one.json["tools"] for one in behind.requests_for(question)] == [body["tools"]] * 2


async def test_references_survive(behind: Deployment, front: Server) -> None:
    body = {"model": "docs", "messages": [user("What is a holdfast?")]}
    direct, chained = await post(behind.server, body), await post(front, body)
    assert chained.json["choices"] == direct.json["choices"]
    assert chained.json["choices"][0]["message"]["references"]


async def test_failures_survive(behind: Deployment, front: Server) -> None:
    question = behind.question(failing(429))
    refusal(await post(front, body_of(question, stream=True)), 429, "upstream_error")
    assert len(behind.requests_for(question)) == 1
    cut = (await post(front, body_of(behind.answers(*CUT)))).json
    assert (cut["choices"][0]["message"]["content"], cut["status"]) == ("Kelp ho", "partial")


async def test_whoever_leaves_the_first_leaves_the_last(behind: Deployment, front: Server) -> None:
    left = behind.upstream.closed_early
    question = behind.answers(completion_chunk(content="Kelp"), Wire.STALL)
    async with front.stream("POST", PATH, body_of(question, stream=True)) as found:
        while b"Kelp" not in found.body:
            await found.next()
    async with asyncio.timeout(GIVE_UP_S):
        await behind.upstream.client_left(left + 1)
