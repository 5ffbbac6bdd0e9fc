"""The plain surface on a real server: `/chat`, `/chat/stream`, `/sessions/{id}/messages`."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.frames import datas_of
from tests.support.raw_client import Reply
from tests.support.server import Deployment
from tests.support.upstream_server import Wire, completion, completion_chunk, event

CHAT, STREAM = "/chat", "/chat/stream"
CHUNKS = [{"id": "c1", "document_id": "d1", "document_name": "kelp.md", "content": "A root."}]
KEYS = {
    *("id", "session_id", "role", "content", "timestamp", "references", "metadata", "status"),
}


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    presets = {
        "careful": {"upstream": "script", "system": "Be careful.", "temperature": 0.2},
        "7": {"system": "Be seven."},
    }
    async with Deployment(tmp_path_factory.mktemp("site"), presets=presets) as site:
        yield site


async def chat(site: Deployment, message: str, path: str = CHAT, **body: Any) -> Reply:
    return await site.server.post(path, {"message": message, **body})


async def messages(site: Deployment, session_id: str) -> Any:
    reply = await site.server.get(f"/sessions/{session_id}/messages")
    assert reply.status == 200
    assert reply.headers["content-type"] == "application/json"
    return reply.json


def with_references(*texts: str) -> list[bytes]:
    return [completion_chunk(content="", reference={"chunks": CHUNKS}), *completion(*texts)]


class TestStream:
    async def test_is_text_and_done_the_first_frame_names_the_session(
        self, site: Deployment
    ) -> None:
        gate = asyncio.Event()
        question = site.answers(completion_chunk(content="海"), gate, *completion("带 holds"))
        async with site.server.stream("POST", STREAM, {"message": question}) as stream:
            first = await stream.event()
            gate.set()
            second = await stream.event()
            done = await stream.event()
            assert await stream.event() is None
        assert first is not None
        assert second is not None
        assert done is not None
        assert first.raw.startswith(b'data: {"content":"\\u6d77"')
        assert first.data == {"content": "海", "session_id": stream.session_id}
        assert second.data == {"content": "带 holds"}
        assert done.raw == b"data: [DONE]\n\n"

    async def test_has_the_headers_of_every_stream(self, site: Deployment) -> None:
        reply = await chat(site, "Why?", STREAM)
        assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert reply.headers["cache-control"] == "no-cache, no-transform"
        assert reply.headers["x-accel-buffering"] == "no"
        run = await site.server.run(reply.headers["x-holdfast-run"])
        assert run["message"]["id"] == reply.headers["x-holdfast-message"]

    async def test_p9_an_error_is_told_before_done(self, site: Deployment) -> None:
        question = site.answers(completion_chunk(content="Kelp"), Wire.RESET)
        reply = await chat(site, question, STREAM)
        text, error, done = datas_of(reply.body)
        assert text["content"] == "Kelp"
        assert error.keys() == {"error"}
        assert done == "[DONE]"
        _, answer = await messages(site, text["session_id"])
        assert answer["metadata"]["error"] == error["error"]

    async def test_p10_a_cancelled_answer_just_ends(self, site: Deployment) -> None:
        question = site.answers(completion_chunk(content="Kelp"), Wire.STALL)
        async with site.server.stream("POST", STREAM, {"message": question}) as stream:
            await stream.event()
            await site.server.post(f"/api/v1/runs/{stream.run_id}/cancel")
            (done,) = await stream.rest()
        assert done.field("data") == "[DONE]"

    async def test_a_long_piece_of_text_is_sent_in_small_whole_frames(
        self, site: Deployment
    ) -> None:
        """A reader that parses each read by itself must not be cut within one packet."""
        text = "海带 kelp\n" * 2_000
        question = site.answers(*completion(text))
        request = site.server.request("POST", STREAM, {"message": question})
        async with site.server.connect() as connection:
            await connection.send(request)
            await connection.head()
            pieces = []
            while piece := await connection.piece():
                pieces.append(piece)
        assert all(piece.endswith(b"\n\n") for piece in pieces)
        assert max(map(len, pieces)) <= 1_200
        *texts, done = datas_of(b"".join(pieces))
        assert "".join(said["content"] for said in texts) == text
        assert done == "[DONE]"


class TestWaiting:
    async def test_answers_with_both_ids(self, site: Deployment) -> None:
        reply = await chat(site, site.answers(*with_references("Kelp [ID:0]")))
        assert reply.status == 200
        question, answer = await messages(site, reply.json["session_id"])
        assert reply.json == {
            "session_id": reply.headers["x-holdfast-session"],
            "user_message_id": question["id"],
            "message_id": answer["id"],
            "content": "Kelp [1]",
            "references": answer["references"],
            "status": "complete",
            "error": None,
        }
        assert [r["document_name"] for r in answer["references"]] == ["kelp.md"]

    async def test_streams_if_it_is_told_to(self, site: Deployment) -> None:
        streamed = await chat(site, "Why?", CHAT, stream=True)
        always = await chat(site, "Why?", STREAM, stream=False)
        for reply in (streamed, always):
            assert datas_of(reply.body)[-1] == "[DONE]"

    async def test_a_partial_answer_is_an_answer_with_its_error(self, site: Deployment) -> None:
        reply = await chat(site, site.answers(completion_chunk(content="Kelp"), Wire.CLOSE))
        assert reply.status == 200
        assert (reply.json["content"], reply.json["status"]) == ("Kelp", "partial")
        assert reply.json["error"]

    async def test_p9_without_any_text_it_is_an_error_of_the_gateway(
        self, site: Deployment
    ) -> None:
        reply = await chat(site, site.answers(event({"error": {"message": "no quota"}})))
        assert reply.status == 502
        assert reply.json == {"error": "no quota"}
        question, answer = await messages(site, reply.headers["x-holdfast-session"])
        assert question["role"] == "user"
        assert answer["status"] == "failed"

    async def test_an_answer_that_is_only_reasoning_says_so(self, site: Deployment) -> None:
        chunks = [completion_chunk(reasoning_content="Hm."), *completion()]
        reply = await chat(site, site.answers(*chunks))
        assert reply.status == 502
        assert reply.json == {"error": "the answer has no text, only reasoning"}

    async def test_null_is_as_good_as_nothing(self, site: Deployment) -> None:
        reply = await chat(site, "Why?", session_id=None, config_id=None, stream=None)
        assert (reply.status, reply.json["content"]) == (200, "Kelp holds fast.")


class TestSessions:
    async def test_go_on_by_the_id_that_came_back(self, site: Deployment) -> None:
        first = await chat(site, "One?")
        session_id = first.json["session_id"]
        again = await chat(site, "Two?", STREAM, session_id=session_id)
        assert datas_of(again.body)[0]["session_id"] == session_id
        said = [message["content"] for message in await messages(site, session_id)]
        assert said == ["One?", "Kelp holds fast.", "Two?", "Kelp holds fast."]

    @pytest.mark.parametrize("unknown", ["nope", 12, "01a1fdfa-68c5-71c7-9f98-61cf48b0ed2a"])
    @pytest.mark.parametrize("path", [CHAT, STREAM])
    async def test_that_are_unknown_are_a_404(
        self, site: Deployment, path: str, unknown: str | int
    ) -> None:
        reply = await chat(site, "One?", path, session_id=unknown)
        assert reply.status == 404
        assert reply.json == {"error": "there is no such session"}
        assert (await site.server.get(f"/sessions/{unknown}/messages")).status == 404

    @pytest.mark.parametrize("empty", [None, "", 0])
    async def test_are_new_without_an_id(self, site: Deployment, empty: Any) -> None:
        replies = [await chat(site, "One?", session_id=empty) for _ in range(2)]
        assert replies[0].json["session_id"] != replies[1].json["session_id"]

    @pytest.mark.parametrize(
        ("config_id", "system"), [("careful", "Be careful."), ("7", "Be seven."), (7, "Be seven.")]
    )
    async def test_are_created_with_the_preset_that_config_id_names(
        self, site: Deployment, config_id: str | int, system: str
    ) -> None:
        first, second = site.answers(*completion("1")), site.answers(*completion("2"))
        reply = await chat(site, first, config_id=config_id)
        await chat(site, second, session_id=reply.json["session_id"])
        for question in (first, second):
            (asked,) = site.requests_for(question)
            assert asked.json["messages"][0] == {"role": "system", "content": system}

    async def test_are_not_created_with_a_preset_that_is_not_there(self, site: Deployment) -> None:
        reply = await chat(site, "One?", config_id="nope")
        assert reply.status == 400
        assert "nope" in reply.json["error"]


class TestMessages:
    async def test_have_their_shape(self, site: Deployment) -> None:
        reply = await chat(site, "One?")
        session_id = reply.json["session_id"]
        question, answer = await messages(site, session_id)
        for message in (question, answer):
            assert message.keys() == KEYS
            assert message["session_id"] == session_id
            assert message["metadata"] == {}
            assert message["status"] == "complete"
            assert message["timestamp"].endswith("Z")
        assert (question["role"], question["content"]) == ("user", "One?")
        assert (answer["role"], answer["content"]) == ("assistant", "Kelp holds fast.")

    async def test_say_how_an_answer_ended_early(self, site: Deployment) -> None:
        reply = await chat(site, site.answers(completion_chunk(content="Kelp"), Wire.CLOSE))
        _, answer = await messages(site, reply.json["session_id"])
        assert answer["status"] == "partial"
        assert answer["metadata"] == {
            "partial": True,
            "reason": "upstream_truncated",
            "error": reply.json["error"],
        }

    async def test_say_how_there_came_none(self, site: Deployment) -> None:
        reply = await chat(site, site.answers(event({"error": {"message": "no quota"}})))
        _, answer = await messages(site, reply.headers["x-holdfast-session"])
        assert answer["metadata"] == {
            "partial": False,
            "reason": "upstream_error",
            "error": "no quota",
        }

    async def test_p2_have_what_is_committed_while_the_answer_is_written(
        self, site: Deployment
    ) -> None:
        gate = asyncio.Event()
        question = site.answers(completion_chunk(content="Kelp "), gate, *completion("holds"))
        async with site.server.stream("POST", STREAM, {"message": question}) as stream:
            await stream.event()
            _, answer = await messages(site, stream.session_id)
            assert (answer["content"], answer["status"]) == ("Kelp ", "streaming")
            assert answer["metadata"] == {}
            gate.set()
            await stream.rest()
        _, answer = await messages(site, stream.session_id)
        assert (answer["content"], answer["status"]) == ("Kelp holds", "complete")

    async def test_are_all_there_are(self, site: Deployment) -> None:
        """More than one page of what the store gives at once."""
        session_id = (await chat(site, "Turn 0?")).json["session_id"]
        for number in range(1, 110):
            await chat(site, f"Turn {number}?", session_id=session_id)
        said = await messages(site, session_id)
        asked = [message["content"] for message in said if message["role"] == "user"]
        assert asked == [f"Turn {number}?" for number in range(110)]
        assert len({message["id"] for message in said}) == 220

    async def test_of_an_empty_session_are_none(self, site: Deployment) -> None:
        created = await site.server.post("/api/v1/sessions", {"title": "Empty"})
        assert await messages(site, created.json["id"]) == []


class TestRefusals:
    @pytest.mark.parametrize("path", [CHAT, STREAM])
    @pytest.mark.parametrize(
        ("body", "status", "why"),
        [
            ({"message": " "}, 400, "empty"),
            ({}, 400, "message"),
            ({"message": "x", "session_id": []}, 400, "session_id"),
            ({"message": "x", "stream": "yes"}, 400, "stream"),
            ({"message": "x" * 300_000}, 413, "200000"),
            (b"{", 400, "JSON"),
        ],
    )
    async def test_are_one_error(
        self, site: Deployment, path: str, body: Any, status: int, why: str
    ) -> None:
        reply = await site.server.post(path, body)
        assert reply.status == status
        assert reply.headers["content-type"] == "application/json"
        assert reply.json.keys() == {"error"}
        assert why in reply.json["error"]

    async def test_a_busy_session_names_its_run(self, site: Deployment) -> None:
        gate = asyncio.Event()
        question = site.answers(completion_chunk(content="Kelp"), gate, *completion())
        async with site.server.stream("POST", STREAM, {"message": question}) as stream:
            reply = await chat(site, "And now?", session_id=stream.session_id)
            assert reply.status == 409
            assert reply.headers["x-holdfast-run"] == stream.run_id
            gate.set()
            await stream.rest()

    async def test_another_method_names_the_right_one(self, site: Deployment) -> None:
        reply = await site.server.get(CHAT)
        assert (reply.status, reply.headers["allow"]) == (405, "POST")
        assert reply.json.keys() == {"error"}


async def test_p7_the_same_key_replays_from_the_beginning_in_the_form_asked_for(
    site: Deployment,
) -> None:
    body = {"message": site.answers(*completion("Kelp ", "holds"))}
    first = await site.server.post(STREAM, body, Idempotency_Key="plain-once")
    again = await site.server.post(STREAM, body, Idempotency_Key="plain-once")
    waited = await site.server.post(CHAT, body, Idempotency_Key="plain-once")
    assert len(site.requests_for(body["message"])) == 1
    for reply in (first, again):
        *texts, done = datas_of(reply.body)
        assert "".join(said["content"] for said in texts) == "Kelp holds"
        assert done == "[DONE]"
        assert texts[0]["session_id"] == waited.json["session_id"]
    assert waited.json["content"] == "Kelp holds"
    refused = await site.server.post(CHAT, {"message": "Two?"}, Idempotency_Key="plain-once")
    assert refused.status == 422


async def test_p7_who_left_while_waiting_gets_the_answer_with_the_same_key(
    site: Deployment,
) -> None:
    gate = asyncio.Event()
    body = {"message": site.answers(completion_chunk(content="Kelp "), gate, *completion("holds"))}
    headers = {"Idempotency-Key": "plain-left"}
    before = len(site.upstream.requests)
    async with site.server.connect() as connection:
        await connection.send(site.server.request("POST", CHAT, body, headers))
        await site.upstream.asked(before + 1)
    gate.set()
    reply = await site.server.post(CHAT, body, **headers)
    assert (reply.json["content"], reply.json["status"]) == ("Kelp holds", "complete")
    assert len(site.requests_for(body["message"])) == 1


async def test_a_last_event_id_means_nothing_here(site: Deployment) -> None:
    first = await chat(site, "Why?", STREAM)
    cursor = f"{first.headers['x-holdfast-run']}.1"
    again = await site.server.post(STREAM, {"message": "Why?"}, Last_Event_ID=cursor)
    assert again.headers["x-holdfast-run"] != first.headers["x-holdfast-run"]
