"""The messages surface on a real server: `/api/messages` as RAGFlow's front ends know it."""

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest

from tests.support.frames import datas_of
from tests.support.raw_client import Reply
from tests.support.server import Deployment
from tests.support.upstream_server import Wire, completion, completion_chunk, event

ASK, STREAM, SAVE = "/api/messages", "/api/messages/stream", "/api/messages/save"
CHUNKS = [
    {"id": "c1", "document_id": "d1", "document_name": "kelp.md", "content": "A root."},
    {"id": "c2", "document_id": "d2", "document_name": "tide.md", "content": "A wave."},
]
TERMINATOR = {"code": 0, "message": "", "data": True}


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    async with Deployment(tmp_path_factory.mktemp("site")) as site:
        yield site


async def ask(site: Deployment, question: str, path: str = ASK, **body: Any) -> Reply:
    return await site.server.post(path, {"question": question, **body})


async def listed(site: Deployment, session_id: str) -> list[dict[str, Any]]:
    reply = await site.server.get(f"/api/messages?session_id={session_id}")
    assert reply.status == 200
    assert reply.json["code"] == 0
    items: list[dict[str, Any]] = reply.json["data"]
    return items


async def save(site: Deployment, session_id: str, message_id: str, **body: Any) -> Reply:
    body = {"session_id": session_id, "message_id": message_id, **body}
    return await site.server.call("PUT", SAVE, body, {})


def cited(*texts: str) -> list[bytes]:
    return [completion_chunk(content="", reference={"chunks": CHUNKS}), *completion(*texts)]


async def broken(site: Deployment, key: str, *texts: str) -> dict[str, Any]:
    """An answer that ended early, as its session shows it."""
    question = site.answers(
        completion_chunk(content="", reference={"chunks": CHUNKS}),
        *(completion_chunk(content=text) for text in texts),
        Wire.RESET,
    )
    await ask(site, question, STREAM, session_id=key)
    return (await listed(site, key))[-1]


class TestStream:
    async def test_is_deltas_a_final_frame_with_everything_and_the_terminator(
        self, site: Deployment
    ) -> None:
        gate = asyncio.Event()
        question = site.answers(
            completion_chunk(content="海带 "), gate, *cited("holds [ID:1]", " and [ID:0].")
        )
        path = {"question": question, "session_id": "我的"}
        async with site.server.stream("POST", STREAM, path) as stream:
            first = await stream.event()
            gate.set()
            rest = [frame.data for frame in await stream.rest()]
        assert first is not None
        assert first.raw.startswith(b'data:{"code":0,"message":"","data":{"answer":"')
        *deltas, final, terminator = [first.data, *rest]
        assert terminator == TERMINATOR
        for delta in deltas:
            assert (delta["code"], delta["data"]["final"]) == (0, False)
            assert delta["data"]["reference"] == {"chunks": []}
            assert delta["data"]["session_id"] == "我的"
        whole = "海带 holds [ID:1] and [ID:0]."
        assert "".join(delta["data"]["answer"] for delta in deltas) == whole
        said = final["data"]
        assert (final["code"], said["answer"], said["final"]) == (0, whole, True)
        assert [chunk["document_name"] for chunk in said["reference"]["chunks"]] == [
            "kelp.md",
            "tide.md",
        ]
        assert said["reference"]["total"] == 2
        assert said["reference"]["doc_aggs"][0] == {
            "doc_name": "kelp.md",
            "doc_id": "d1",
            "count": 1,
        }
        assert said["id"] == stream.message_id

    async def test_legacy_answers_are_cumulative(self, site: Deployment) -> None:
        gate = asyncio.Event()
        question = site.answers(completion_chunk(content="Kelp"), gate, *completion(" holds"))
        body = {"question": question, "legacy": True}
        async with site.server.stream("POST", STREAM, body) as stream:
            first = await stream.event()
            gate.set()
            *texts, terminator = [frame.data for frame in await stream.rest()]
        assert first is not None
        answers = [found["data"]["answer"] for found in [first.data, *texts]]
        assert (answers[0], answers[-1], terminator) == ("Kelp", "Kelp holds", TERMINATOR)
        assert all(later.startswith(sooner) for sooner, later in pairwise(answers))

    async def test_p9_an_early_end_has_code_500_with_all_that_came(self, site: Deployment) -> None:
        question = site.answers(completion_chunk(content="Kelp [ID:0]"), Wire.RESET)
        reply = await ask(site, question, STREAM)
        *_, final, terminator = datas_of(reply.body)
        assert (final["code"], final["data"]["answer"]) == (500, "Kelp [ID:0]")
        assert final["message"]
        assert final["data"]["final"] is True
        assert terminator == TERMINATOR

    async def test_a_cancelled_answer_ends_like_a_whole_one(self, site: Deployment) -> None:
        question = site.answers(completion_chunk(content="Kelp"), Wire.STALL)
        async with site.server.stream("POST", STREAM, {"question": question}) as stream:
            await stream.event()
            await site.server.post(f"/api/v1/runs/{stream.run_id}/cancel")
            final, terminator = [frame.data for frame in await stream.rest()]
        assert (final["code"], final["data"]["answer"]) == (0, "Kelp")
        assert terminator == TERMINATOR


class TestWhole:
    async def test_is_one_envelope(self, site: Deployment) -> None:
        reply = await ask(site, site.answers(*cited("Kelp [ID:0]")), session_id="whole")
        assert reply.status == 200
        said = reply.json["data"]
        assert (reply.json["code"], said["answer"], said["status"]) == (
            0,
            "Kelp [ID:0]",
            "complete",
        )
        assert said["reference"]["chunks"][0]["content"] == "A root."
        assert (said["id"], said["session_id"]) == (reply.headers["x-holdfast-message"], "whole")

    async def test_an_answer_without_text_has_code_500_and_status_200(
        self, site: Deployment
    ) -> None:
        reply = await ask(site, site.answers(event('{"error": {"message": "no luck"}}')))
        assert (reply.status, reply.json["code"], reply.json["message"]) == (200, 500, "no luck")

    @pytest.mark.parametrize(
        "body",
        [
            {"message": "Why?"},
            {"question": "Why?"},
            {"messages": [{"role": "user", "content": "No"}, {"role": "user", "content": "Why?"}]},
            {"messages": [{"content": [{"type": "text", "text": "Why?"}]}, {"role": "assistant"}]},
            {"question": "", "message": "Why?"},
            {"question": " ", "message": "", "messages": [{"role": "user", "content": "Why?"}]},
            {"question": "Why?", "stream": None, "legacy": None, "session_id": None},
        ],
    )
    async def test_the_question_may_stand_in_any_of_its_places(
        self, site: Deployment, body: dict[str, Any]
    ) -> None:
        reply = await site.server.post(ASK, body)
        assert reply.status == 200
        question = (await listed(site, reply.json["data"]["session_id"]))[0]
        assert (question["role"], question["content"]) == ("user", "Why?")

    @pytest.mark.parametrize(
        ("body", "status"),
        [
            ({}, 400),
            ({"question": " "}, 400),
            ({"question": 1}, 400),
            ({"question": "Why?", "session_id": "x" * 256}, 400),
            ({"question": "Why?", "upstream": "nobody"}, 400),
        ],
    )
    async def test_a_refusal_is_an_envelope(
        self, site: Deployment, body: dict[str, Any], status: int
    ) -> None:
        for path in (ASK, STREAM):
            reply = await site.server.post(path, body)
            assert (reply.status, reply.json["code"], reply.json["data"]) == (status, status, None)
            assert reply.json["message"]


class TestSessions:
    async def test_a_key_is_created_on_first_use_and_found_again(self, site: Deployment) -> None:
        first = await ask(site, "Why?", session_id="chat 7")
        second = await ask(site, "And?", STREAM, conversation_id="chat 7")
        assert first.headers["x-holdfast-session"] == second.headers["x-holdfast-session"]
        assert [item["role"] for item in await listed(site, "chat%207")] == [
            *("user", "assistant", "user", "assistant")
        ]

    async def test_a_minted_id_is_valid_as_the_key_afterwards(self, site: Deployment) -> None:
        minted = (await ask(site, "Why?")).json["data"]["session_id"]
        reply = await ask(site, "And?", session_id=minted)
        assert reply.headers["x-holdfast-session"] == minted
        assert reply.json["data"]["session_id"] == minted
        assert len(await listed(site, minted)) == 4

    @pytest.mark.parametrize(("query", "status"), [("", 400), ("?session_id=nobody", 404)])
    async def test_no_session_is_an_envelope(
        self, site: Deployment, query: str, status: int
    ) -> None:
        reply = await site.server.get(ASK + query)
        assert (reply.status, reply.json["code"]) == (status, status)

    async def test_p4_references_of_a_broken_answer_are_found_again(self, site: Deployment) -> None:
        item = await broken(site, "broken", "Kelp [ID:1]")
        assert (item["status"], item["content"]) == ("partial", "Kelp [ID:1]")
        assert [chunk["id"] for chunk in item["reference"]["chunks"]] == ["c1", "c2"]


class TestSave:
    async def test_completes_a_broken_answer_and_may_be_repeated(self, site: Deployment) -> None:
        item = await broken(site, "save", "Kelp [ID:1]")
        whole = "Kelp [ID:1] holds [ID:0]."
        for _ in range(2):
            reply = await save(site, "save", item["id"], answer=whole, reference={"chunks": CHUNKS})
            assert (reply.status, reply.json["code"]) == (200, 0)
        saved = (await listed(site, "save"))[-1]
        assert (saved["status"], saved["content"]) == ("complete", whole)
        message = (await site.server.get(f"/api/v1/messages/{item['id']}")).json
        assert message["metadata"]["completed_by"] == "client"
        assert message["marks"] == [[5, 8, 2]]
        assert [one["chunk_id"] for one in message["references"]] == ["c1", "c2"]
        log = await site.server.get(f"/api/v1/runs/{message['run_id']}/events")
        assert b"holds" not in log.body  # the log is what the upstream said

    async def test_leaves_the_references_when_none_are_told(self, site: Deployment) -> None:
        item = await broken(site, "keep", "Kelp")
        await save(site, "keep", item["id"], answer="Kelp holds")
        saved = (await listed(site, "keep"))[-1]
        assert saved["reference"] == item["reference"]

    async def test_refuses_what_does_not_begin_with_what_is_stored(self, site: Deployment) -> None:
        item = await broken(site, "other", "Kelp")
        reply = await save(site, "other", item["id"], answer="Rock")
        assert (reply.status, reply.json["code"]) == (409, 409)
        assert (await listed(site, "other"))[-1] == item

    async def test_refuses_a_whole_answer_and_one_that_is_being_written(
        self, site: Deployment
    ) -> None:
        await ask(site, site.answers(*completion("Kelp")), session_id="done")
        item = (await listed(site, "done"))[-1]
        assert (await save(site, "done", item["id"], answer="Kelp holds")).status == 409
        question = site.answers(completion_chunk(content="Kelp"), Wire.STALL)
        body = {"question": question, "session_id": "live"}
        async with site.server.stream("POST", STREAM, body) as stream:
            await stream.event()
            reply = await save(site, "live", stream.message_id, answer="Kelp holds")
            assert reply.status == 409
            await site.server.post(f"/api/v1/runs/{stream.run_id}/cancel")

    async def test_refuses_a_message_of_another_session(self, site: Deployment) -> None:
        item = await broken(site, "mine", "Kelp")
        await ask(site, "Why?", session_id="yours")
        assert (await save(site, "yours", item["id"], answer="Kelp holds")).status == 404
        assert (await save(site, "nobody", item["id"], answer="Kelp holds")).status == 404
        assert (await save(site, "mine", "nothing", answer="Kelp holds")).status == 404

    async def test_bounds_what_it_takes(self, site: Deployment) -> None:
        item = await broken(site, "large", "Kelp")
        reply = await save(site, "large", item["id"], answer="Kelp" + "x" * 2_000_000)
        assert reply.status == 413
        strange = {"chunks": [None, 1, {"id": [], "content": 5, "url": "javascript:alert(1)"}]}
        reply = await save(site, "large", item["id"], answer="Kelp!", reference=strange)
        assert reply.status == 200
        chunks = (await listed(site, "large"))[-1]["reference"]["chunks"]
        assert all(chunk["url"] is None for chunk in chunks)
