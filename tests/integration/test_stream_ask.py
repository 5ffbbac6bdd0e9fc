"""The stream-ask surface on a real server: `POST /stream-ask`."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.frames import Message, datas_of, messages_of
from tests.support.raw_client import Reply
from tests.support.server import Deployment
from tests.support.upstream_server import (
    Request,
    Script,
    ScriptedUpstream,
    Wire,
    completion,
    completion_chunk,
    event,
    stream,
    whole,
)

PATH = "/stream-ask"
CHUNKS = [{"id": "c1", "document_id": "d1", "document_name": "kelp.md", "content": "A root."}]

SEED_ENV = """\
# ---- AnythingLLM ----
ANYTHINGLLM_BASE_URL = "{url}"
ANYTHINGLLM_API_KEY = "sk-secret"
ANYTHINGLLM_WORKSPACE_SLUG = "test1"

FLASK_APP=app.py
FLASK_DEBUG=True    # for development
"""


def knowledge_base(request: Request) -> Script:
    """AnythingLLM, as far as it is asked here."""
    if not request.path.endswith("/stream-chat"):
        return whole({"thread": {"id": 1, "slug": "t1"}, "message": None})
    said = {"id": "u1", "type": "textResponseChunk", "sources": [], "close": False, "error": False}
    source = {"id": "v1", "title": "kelp.md", "chunkSource": "", "text": "A root.", "score": 0.5}
    end = {"type": "finalizeResponseStream", "close": True, "error": False, "chatId": 7}
    return stream(
        event({**said, "textResponse": "海带 "}),
        event({**said, "textResponse": "holds."}),
        event({"uuid": "u1", **end, "sources": [source], "metrics": {}}),
    )


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    async with Deployment(tmp_path_factory.mktemp("site")) as site:
        yield site


async def ask(site: Deployment, question: str, **body: Any) -> Reply:
    return await site.server.post(PATH, {"question": question, **body})


async def post(site: Deployment, **options: Any) -> requests.Response:
    """As people's programs post, with requests."""
    return await asyncio.to_thread(requests.post, site.server.url + PATH, timeout=20, **options)


def text_of(messages: list[Message]) -> str:
    return "".join(m.data["content"] for m in messages if m.data.get("type") == "chunk")


def with_references(*texts: str) -> list[bytes]:
    return [completion_chunk(content="", reference={"chunks": CHUNKS}), *completion(*texts)]


class TestStream:
    async def test_is_chunks_and_the_sources_at_the_end(self, site: Deployment) -> None:
        reply = await ask(site, site.answers(*with_references("海带 ", "[ID:0]")))
        *chunks, end = messages_of(reply.body)
        assert all(chunk.fields == () for chunk in chunks)
        assert all(chunk.data.keys() == {"type", "content"} for chunk in chunks)
        assert text_of(chunks) == "海带 [1]"
        assert end.fields == ("event: final_end",)
        assert end.data == {
            "sources": [
                {
                    "ordinal": 1,
                    "document_id": "d1",
                    "document_name": "kelp.md",
                    "chunk_id": "c1",
                    "text": "A root.",
                }
            ],
            "session_id": reply.headers["x-holdfast-session"],
            "message_id": reply.headers["x-holdfast-message"],
            "status": "complete",
        }

    async def test_has_the_headers_of_every_stream(self, site: Deployment) -> None:
        reply = await ask(site, "Why?")
        assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert reply.headers["cache-control"] == "no-cache, no-transform"
        assert reply.headers["x-accel-buffering"] == "no"
        assert reply.body.startswith(b": ok\n\n")

    async def test_p9_an_error_is_an_event_before_the_end(self, site: Deployment) -> None:
        reply = await ask(site, site.answers(completion_chunk(content="Kelp"), Wire.RESET))
        chunk, error, end = messages_of(reply.body)
        assert chunk.data["content"] == "Kelp"
        assert error.fields == ("event: error",)
        assert error.data.keys() == {"message"}
        assert end.data["status"] == "partial"
        message = (await site.server.run(reply.headers["x-holdfast-run"]))["message"]
        assert (message["content"], message["error"]) == ("Kelp", error.data["message"])

    async def test_p9_also_if_nothing_came(self, site: Deployment) -> None:
        reply = await ask(site, site.answers(event({"error": {"message": "no quota"}})))
        error, end = messages_of(reply.body)
        assert error.data == {"message": "no quota"}
        assert end.data["status"] == "failed"

    async def test_p10_a_cancelled_answer_just_ends(self, site: Deployment) -> None:
        question = site.answers(completion_chunk(content="Kelp"), Wire.STALL)
        async with site.server.stream("POST", PATH, {"question": question}) as stream:
            await stream.event()
            await site.server.post(f"/api/v1/runs/{stream.run_id}/cancel")
            (end,) = await stream.rest()
        assert end.event == "final_end"
        assert end.data["status"] == "partial"


class TestForms:
    @pytest.mark.parametrize("how", ["json", "data", "files"])
    async def test_and_json_ask_the_same(self, site: Deployment, how: str) -> None:
        question = f"什么是海带 & kelp?\n50% + 1, {how}"
        body: Any = {"question": (None, question) if how == "files" else question}
        response = await post(site, **{how: body})
        assert response.status_code == 200
        assert text_of(messages_of(response.content)) == "Kelp holds fast."
        assert len(site.requests_for(question)) == 1

    async def test_may_go_on_in_a_session(self, site: Deployment) -> None:
        first = await post(site, data={"question": "One?", "session_id": ""})
        session_id = datas_of(first.content)[-1]["session_id"]
        again = await post(site, data={"question": "Two?", "session_id": session_id})
        assert datas_of(again.content)[-1]["session_id"] == session_id

    @pytest.mark.parametrize(
        ("options", "status", "why"),
        [
            ({"data": {"q": "One?"}}, 400, "question"),
            ({"data": {"question": " "}}, 400, "empty"),
            ({"data": b"", "headers": {"Content-Type": "multipart/form-data"}}, 400, "boundary"),
            ({"files": {"question": ("q.txt", b"One?")}}, 400, "question"),
            ({"data": {"question": "x" * 1_200_000}}, 413, "1000000"),
            ({"data": {"question": "x" * 300_000}}, 413, "200000"),
        ],
    )
    async def test_that_do_not_fit_are_refused(
        self, site: Deployment, options: Any, status: int, why: str
    ) -> None:
        response = await post(site, **options)
        assert response.status_code == status
        assert response.json().keys() == {"error"}
        assert why in response.json()["error"]

    async def test_hold_a_question_as_long_as_json_does(self, site: Deployment) -> None:
        question = "海" * (200_000 // 3)
        assert (await post(site, json={"question": question})).status_code == 200
        assert (await post(site, data={"question": question})).status_code == 200


class TestRefusals:
    @pytest.mark.parametrize(
        ("body", "status", "why"),
        [
            ({}, 400, "question"),
            ({"question": ""}, 400, "empty"),
            ({"question": 1}, 400, "question"),
            (b"{", 400, "JSON"),
            ({"question": "x", "session_id": "nope"}, 404, "no such session"),
        ],
    )
    async def test_are_one_error(self, site: Deployment, body: Any, status: int, why: str) -> None:
        reply = await site.server.post(PATH, body)
        assert reply.status == status
        assert reply.headers["content-type"] == "application/json"
        assert reply.json.keys() == {"error"}
        assert why in reply.json["error"]

    async def test_another_media_type_is_a_415(self, site: Deployment) -> None:
        reply = await site.server.post(PATH, b"question=x", Content_Type="text/plain")
        assert reply.status == 415
        assert reply.json.keys() == {"error"}


async def test_each_question_is_a_session_of_its_own_unless_it_names_one(site: Deployment) -> None:
    first, other = await ask(site, "One?"), await ask(site, "Two?")
    sessions = [reply.headers["x-holdfast-session"] for reply in (first, other)]
    assert sessions[0] != sessions[1]
    again = await ask(site, "Three?", session_id=sessions[0])
    assert again.headers["x-holdfast-session"] == sessions[0]
    (asked,) = site.requests_for("Three?")
    assert asked.json["messages"][0]["content"] == "One?"


async def test_p7_the_same_key_replays_from_the_beginning_as_json_or_form(site: Deployment) -> None:
    question = site.answers(*with_references("Kelp ", "holds"))
    headers = {"Idempotency-Key": "ask-once"}
    replies = [
        await post(site, json={"question": question}, headers=headers),
        await post(site, json={"question": question}, headers=headers),
        await post(site, data={"question": question}, headers=headers),
    ]
    assert len(site.requests_for(question)) == 1
    ends = [messages_of(reply.content)[-1] for reply in replies]
    assert ends == ends[:1] * 3
    for reply in replies:
        assert text_of(messages_of(reply.content)) == "Kelp holds"
    refused = await post(site, json={"question": "Two?"}, headers=headers)
    assert refused.status_code == 422


async def test_a_last_event_id_means_nothing_here(site: Deployment) -> None:
    first = await ask(site, "Why?")
    cursor = f"{first.headers['x-holdfast-run']}.1"
    again = await site.server.post(PATH, {"question": "Why?"}, Last_Event_ID=cursor)
    assert again.headers["x-holdfast-run"] != first.headers["x-holdfast-run"]


class TestWhoIsAsked:
    async def test_the_upstream_that_the_settings_name(self, tmp_path: Path) -> None:
        other = {"kind": "openai", "base_url": "http://127.0.0.1:1/v1", "model": "m"}
        async with Deployment(
            tmp_path,
            upstreams={"other": other},
            router={"default": "other"},
            dialects={"stream_ask": "script"},
        ) as site:
            assert text_of(messages_of((await ask(site, "Why?")).body)) == "Kelp holds fast."

    async def test_a_name_that_is_not_there_stops_the_start(self, tmp_path: Path) -> None:
        site = Deployment(tmp_path, dialects={"stream_ask": "nope"})
        with pytest.raises(AssertionError, match=r"dialects\.stream_ask names 'nope'"):
            await site.__aenter__()
        assert "Traceback" not in site.server.log_text

    async def test_else_the_first_knowledge_base(self, tmp_path: Path) -> None:
        async with ScriptedUpstream(knowledge_base) as notes:
            (tmp_path / ".env").write_text(SEED_ENV.format(url=notes.base_url))
            async with Deployment(tmp_path, router={"default": "script"}) as site:
                reply = await ask(site, "什么是海带?")
                assert site.requests_for("什么是海带?") == []
        *chunks, end = messages_of(reply.body)
        assert text_of(chunks) == "海带 holds."
        assert [source["document_name"] for source in end.data["sources"]] == ["kelp.md"]
        asked = [request for request in notes.requests if request.path.endswith("/stream-chat")]
        assert asked[0].json["message"] == "什么是海带?"
        assert "/workspace/test1/" in asked[0].path

    async def test_settings_of_a_knowledge_base_that_are_incomplete_are_named(
        self, tmp_path: Path
    ) -> None:
        env = SEED_ENV.format(url="http://127.0.0.1:1")
        (tmp_path / ".env").write_text(env.replace("ANYTHINGLLM_WORKSPACE_SLUG", "# "))
        async with Deployment(tmp_path) as site:
            reply = await ask(site, "Why?")
            assert reply.status == 500
            assert reply.json.keys() == {"error"}
            assert "ANYTHINGLLM_WORKSPACE_SLUG" in reply.json["error"]
            assert "ANYTHINGLLM_API_KEY" not in reply.json["error"]
            assert "sk-secret" not in reply.json["error"]
            assert (await site.server.post("/chat", {"message": "Why?"})).status == 200
