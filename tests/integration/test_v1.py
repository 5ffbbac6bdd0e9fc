"""The v1 surface on a real server: `/api/v1/chat` and `/api/v1/chat/stream`."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.frames import datas_of, frames_of
from tests.support.raw_client import Reply
from tests.support.server import Deployment
from tests.support.upstream_server import Wire, completion, completion_chunk, event

CHAT, STREAM = "/api/v1/chat", "/api/v1/chat/stream"
CHUNKS = [
    {"id": "c1", "document_id": "d1", "document_name": "kelp.md", "content": "A root."},
    {"id": "c2", "document_id": "d2", "document_name": "tides.md", "content": "The moon."},
]


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    sections = {
        "router": {"default": "script", "local": "small", "cloud": "script"},
        "stream": {"heartbeat_s": 0.05},
        "limits": {"question_bytes": 1_000, "body_bytes": 10_000},
        "presets": {"brief": {"max_tokens": 5}},
    }
    folder = tmp_path_factory.mktemp("site")
    small = {"kind": "library", "path": str(documents(folder)), "pace": 100_000}
    async with Deployment(folder, upstreams={"small": small}, **sections) as site:
        yield site


def documents(folder: Path) -> Path:
    found = folder / "documents"
    found.mkdir()
    (found / "kelp.md").write_text("# Kelp\n\nA holdfast keeps kelp in place.\n")
    return found


async def chat(site: Deployment, message: str, path: str = CHAT, **body: Any) -> Reply:
    return await site.server.post(path, {"message": message, **body})


def with_references(*texts: str) -> list[bytes]:
    return [completion_chunk(content="", reference={"chunks": CHUNKS}), *completion(*texts)]


class TestStream:
    async def test_every_frame_has_content_session_and_model(self, site: Deployment) -> None:
        question = site.answers(*with_references("海带 ", "[ID:1] holds"))
        reply = await chat(site, question, STREAM, session_id="session_123")
        assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
        *texts, closing, done = datas_of(reply.body)
        for frame in (*texts, closing):
            assert frame["session_id"] == "session_123"
            assert frame["model_used"] == "script"
        assert "".join(frame["content"] for frame in texts) == "海带 [2] holds"
        assert all(frame.keys() == {"content", "session_id", "model_used"} for frame in texts)
        assert closing["content"] == ""
        assert closing["message_id"] == reply.headers["x-holdfast-message"]
        assert closing["status"] == "complete"
        assert [r["document_name"] for r in closing["references"]] == ["kelp.md", "tides.md"]
        assert done == "[DONE]"

    async def test_has_the_headers_of_every_stream(self, site: Deployment) -> None:
        reply = await chat(site, "Why?", STREAM)
        assert reply.headers["cache-control"] == "no-cache, no-transform"
        assert reply.headers["x-accel-buffering"] == "no"
        assert reply.body.startswith(b": ok\n\n")
        run = await site.server.run(reply.headers["x-holdfast-run"])
        assert run["message"]["id"] == reply.headers["x-holdfast-message"]
        assert run["run"]["session_id"] == reply.headers["x-holdfast-session"]

    async def test_says_nothing_of_what_is_not_part_of_it_and_stays_alive_meanwhile(
        self, site: Deployment
    ) -> None:
        """Reasoning, steps and references are news for the run, but nothing is written for them."""
        gates = [asyncio.Event() for _ in range(3)]
        question = site.answers(
            completion_chunk(reasoning_content="Hm."),
            gates[0],
            completion_chunk(reasoning_content="Hm!"),
            gates[1],
            completion_chunk(content="", reference={"chunks": CHUNKS}),
            gates[2],
            *completion("Kelp"),
        )
        async with site.server.stream("POST", STREAM, {"message": question}) as stream:
            for gate in gates:
                before = stream.comments
                while stream.comments < before + 2:
                    frame = await stream.next()
                    assert frame is not None, "the response ended"
                    assert frame.is_comment
                gate.set()
            frames = await stream.rest()
        assert [frame.data["content"] for frame in frames[:-1]] == ["Kelp", ""]

    async def test_p9_an_error_is_told_before_the_closing_frame(self, site: Deployment) -> None:
        question = site.answers(*with_references("Kelp ")[:-2], Wire.RESET)
        reply = await chat(site, question, STREAM)
        *_, error, closing, done = datas_of(reply.body)
        assert reply.status == 200
        assert error["content"] == ""
        assert "broke in the middle" in error["error"]
        assert closing["status"] == "partial"
        assert len(closing["references"]) == 2
        assert done == "[DONE]"
        message = (await site.server.run(reply.headers["x-holdfast-run"]))["message"]
        assert message["content"] == "Kelp "
        assert message["error"] == error["error"]

    async def test_p10_a_cancelled_answer_is_no_error(self, site: Deployment) -> None:
        question = site.answers(completion_chunk(content="Kelp"), Wire.STALL)
        async with site.server.stream("POST", STREAM, {"message": question}) as stream:
            await stream.event()
            await site.server.post(f"/api/v1/runs/{stream.run_id}/cancel")
            frames = await stream.rest()
        assert frames[-1].field("data") == "[DONE]"
        assert frames[-2].data["status"] == "partial"
        assert len(frames) == 2

    async def test_on_the_other_route_needs_the_word_stream(self, site: Deployment) -> None:
        streamed = await chat(site, "Why?", CHAT, stream=True)
        waited = await chat(site, "Why?", CHAT, stream=False)
        always = await chat(site, "Why?", STREAM, stream=False)
        for reply in (streamed, always):
            assert datas_of(reply.body)[-1] == "[DONE]"
        assert waited.json["content"] == "Kelp holds fast."

    async def test_a_large_set_of_references_is_shortened_here_and_whole_in_the_history(
        self, site: Deployment
    ) -> None:
        chunks = [
            {"id": f"c{n}", "document_name": f"{n}.md", "content": "海" * 3_000} for n in range(100)
        ]
        question = site.answers(
            completion_chunk(content="", reference={"chunks": chunks}), *completion("Kelp")
        )
        reply = await chat(site, question, STREAM)
        assert max(map(len, frames_of(reply.body))) < 32_768
        closing = datas_of(reply.body)[-2]
        assert [r["ordinal"] for r in closing["references"]] == list(range(1, 101))
        message = (await site.server.run(reply.headers["x-holdfast-run"]))["message"]
        assert {r["text"] for r in message["references"]} == {"海" * 3_000}


class TestWaiting:
    async def test_answers_in_one_piece(self, site: Deployment) -> None:
        question = site.answers(*with_references("Kelp [ID:0]"))
        reply = await chat(site, question, session_id="mine")
        assert reply.status == 200
        references = reply.json["references"]
        assert [r["document_name"] for r in references] == ["kelp.md", "tides.md"]
        assert reply.json == {
            "content": "Kelp [1]",
            "session_id": "mine",
            "model_used": "script",
            "references": references,
            "message_id": reply.headers["x-holdfast-message"],
            "status": "complete",
            "error": None,
        }

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
        assert reply.json == {"content": "", "error": "no quota"}
        run = await site.server.run(reply.headers["x-holdfast-run"])
        assert run["message"]["status"] == "failed"


class TestRefusals:
    @pytest.mark.parametrize(
        ("body", "status", "why"),
        [
            ({"message": ""}, 400, "empty"),
            ({}, 400, "message"),
            ({"message": 1}, 400, "message"),
            ({"message": "x", "model_type": "gpt"}, 400, "model_type"),
            ({"message": "x", "max_tokens": 0}, 400, "max_tokens"),
            ({"message": "x", "temperature": "hot"}, 400, "temperature"),
            ({"message": "x", "session_id": "k" * 256}, 400, "session_id"),
            ({"message": "x", "session_id": "a\nb"}, 400, "session_id"),
            ({"message": "x", "preferred_model": "m" * 201}, 400, "preferred_model"),
            ({"message": "x" * 1_001}, 413, "1000"),
            ({"message": "x", "more": "x" * 10_000}, 413, "10000"),
            (b"{", 400, "JSON"),
            (b"[]", 400, "object"),
            ({"message": "x", "model_type": "海" * 1_000}, 400, "Invalid enum value"),
        ],
    )
    async def test_keep_their_status_and_are_one_frame_on_the_stream_route(
        self, site: Deployment, body: Any, status: int, why: str
    ) -> None:
        waited = await site.server.post(CHAT, body)
        streamed = await site.server.post(STREAM, body)
        assert waited.status == streamed.status == status
        assert waited.headers["content-type"] == "application/json"
        assert streamed.headers["content-type"] == "text/event-stream; charset=utf-8"
        (frame,) = datas_of(streamed.body)
        assert len(streamed.body) < 1_024
        for said in (frame, waited.json):
            assert said.keys() == {"content", "error"}
            assert said["content"] == ""
            assert why in said["error"]

    async def test_a_body_that_is_no_json_is_a_415(self, site: Deployment) -> None:
        reply = await site.server.post(STREAM, {"message": "x"}, Content_Type="text/plain")
        assert reply.status == 415
        assert "application/json" in datas_of(reply.body)[0]["error"]

    async def test_another_method_names_the_right_one(self, site: Deployment) -> None:
        reply = await site.server.get(STREAM)
        assert (reply.status, reply.headers["allow"]) == (405, "POST")
        assert datas_of(reply.body)[0]["content"] == ""

    async def test_a_busy_session_names_its_run(self, site: Deployment) -> None:
        gate = asyncio.Event()
        question = site.answers(completion_chunk(content="Kelp"), gate, *completion())
        asked = {"message": question, "session_id": "busy"}
        async with site.server.stream("POST", STREAM, asked) as stream:
            reply = await chat(site, "And now?", session_id="busy")
            assert reply.status == 409
            assert reply.json["content"] == ""
            assert reply.headers["x-holdfast-run"] == stream.run_id
            gate.set()
            await stream.rest()

    async def test_fields_that_are_not_known_are_ignored(self, site: Deployment) -> None:
        reply = await chat(site, "Why?", top_p=1, user={"id": 1})
        assert reply.status == 200


class TestSessions:
    async def test_a_key_is_one_conversation_and_another_is_another(self, site: Deployment) -> None:
        first = await chat(site, "One?", session_id="会话-1\u3000👨\u200d👩\u200d👧")
        again = await chat(site, "Two?", STREAM, session_id=first.json["session_id"])
        other = await chat(site, "Three?", session_id="会话-2")
        sessions = [reply.headers["x-holdfast-session"] for reply in (first, again, other)]
        assert sessions[0] == sessions[1] != sessions[2]
        for said in (first.json, datas_of(again.body)[0]):
            assert said["session_id"] == "会话-1\u3000👨\u200d👩\u200d👧"
        (asked,) = site.requests_for("Two?")
        assert [m["content"] for m in asked.json["messages"]] == [
            "One?",
            "Kelp holds fast.",
            "Two?",
        ]

    async def test_without_a_key_the_id_is_minted_and_valid_as_a_key(
        self, site: Deployment
    ) -> None:
        first = await chat(site, "One?")
        minted = first.json["session_id"]
        assert minted == first.headers["x-holdfast-session"]
        again = await chat(site, "Two?", session_id=minted)
        assert again.headers["x-holdfast-session"] == again.json["session_id"] == minted
        empty = await chat(site, "Three?", session_id="")
        assert empty.json["session_id"] not in ("", minted)

    async def test_two_first_questions_at_once_begin_one_session(self, site: Deployment) -> None:
        gate = asyncio.Event()
        questions = [site.answers(gate, *completion("x")) for _ in range(2)]
        asking = [asyncio.create_task(chat(site, q, session_id="race")) for q in questions]
        done, _ = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        assert [task.result().status for task in done] == [409]
        gate.set()
        replies = await asyncio.gather(*asking)
        assert sorted(reply.status for reply in replies) == [200, 409]


class TestModels:
    @pytest.mark.parametrize(
        ("body", "used", "model"),
        [
            ({}, "script", "m1"),
            ({"preferred_model": "script"}, "script", "m1"),
            ({"preferred_model": "m1"}, "script", "m1"),
            ({"preferred_model": "m1", "model_type": "local_small"}, "script", "m1"),
            ({"preferred_model": "m2"}, "script", "m2"),
            ({"preferred_model": "", "model_type": None}, "script", "m1"),
            ({"preferred_model": "m2", "model_type": "cloud_large"}, "cloud_large", "m2"),
            ({"model_type": "cloud_large"}, "cloud_large", "m1"),
            ({"preferred_model": "cloud_large"}, "cloud_large", "m1"),
        ],
    )
    async def test_are_chosen_by_type_and_name(
        self, site: Deployment, body: Any, used: str, model: str
    ) -> None:
        question = site.answers(*completion("Kelp"))
        waited = await chat(site, question, **body)
        streamed = await chat(site, question, STREAM, **body)
        asked = [request.json["model"] for request in site.requests_for(question)]
        assert asked == [model, model]
        assert waited.json["model_used"] == datas_of(streamed.body)[0]["model_used"] == used

    async def test_a_small_local_one_answers_where_it_is_asked_for(self, site: Deployment) -> None:
        reply = await chat(site, "What keeps kelp in place?", model_type="local_small")
        assert reply.json["model_used"] == "local_small"
        assert "holdfast" in reply.json["content"]
        assert (await chat(site, "kelp", preferred_model="small")).json["model_used"] == "small"

    async def test_get_what_the_question_says_of_them(self, site: Deployment) -> None:
        question = site.answers(*completion("Kelp"))
        await chat(site, question)
        await chat(site, question, max_tokens=7, temperature=0)
        asked = [request.json for request in site.requests_for(question)]
        assert [(one["max_tokens"], one["temperature"]) for one in asked] == [(1024, 0.7), (7, 0.0)]

    async def test_get_what_the_preset_says_unless_the_question_does(
        self, site: Deployment
    ) -> None:
        session = {"title": "Brief", "preset": "brief"}
        key = (await site.server.post("/api/v1/sessions", session)).json["id"]
        question = site.answers(*completion("Kelp"))
        await chat(site, question, session_id=key)
        await chat(site, question, session_id=key, max_tokens=1024, temperature=None)
        asked = [request.json for request in site.requests_for(question)]
        assert [(one["max_tokens"], one["temperature"]) for one in asked] == [(5, 0.7), (1024, 0.7)]

    async def test_null_is_as_good_as_nothing(self, site: Deployment) -> None:
        question = site.answers(*completion("Kelp"))
        nothing: dict[str, Any] = dict.fromkeys(
            ["session_id", "max_tokens", "temperature", "model_type", "preferred_model", "stream"]
        )
        reply = await chat(site, question, **nothing)
        assert (reply.status, reply.json["content"]) == (200, "Kelp")
        (asked,) = site.requests_for(question)
        assert (asked.json["max_tokens"], asked.json["temperature"]) == (1024, 0.7)

    async def test_have_their_defaults_in_the_description(self, site: Deployment) -> None:
        document = (await site.server.get("/openapi.json")).json
        fields = document["components"]["schemas"]["V1Request"]["properties"]
        assert fields["max_tokens"]["default"] == 1024
        assert fields["temperature"]["default"] == 0.7


class TestAskOnce:
    async def test_p7_the_same_key_replays_from_the_beginning_in_the_form_asked_for(
        self, site: Deployment
    ) -> None:
        question = site.answers(*with_references("Kelp ", "holds"))
        body = {"message": question, "session_id": "once"}
        first = await site.server.post(STREAM, body, Idempotency_Key="v1-once")
        again = await site.server.post(STREAM, body, Idempotency_Key="v1-once")
        other = {**body, "stream": True}
        waited = await site.server.post(CHAT, body, Idempotency_Key="v1-once")
        streamed = await site.server.post(CHAT, other, Idempotency_Key="v1-once")
        assert len(site.requests_for(question)) == 1
        assert {r.headers["x-holdfast-run"] for r in (first, again, waited, streamed)} == {
            first.headers["x-holdfast-run"]
        }
        closing = datas_of(first.body)[-2]
        for reply in (again, streamed):
            assert datas_of(reply.body)[-2:] == [closing, "[DONE]"]
            assert "".join(d["content"] for d in datas_of(reply.body)[:-1]) == "Kelp holds"
        assert waited.json["content"] == "Kelp holds"
        assert waited.json["references"] == closing["references"]

    async def test_p7_the_same_key_with_another_body_is_refused(self, site: Deployment) -> None:
        await site.server.post(STREAM, {"message": "One?"}, Idempotency_Key="v1-two")
        reply = await site.server.post(STREAM, {"message": "Two?"}, Idempotency_Key="v1-two")
        assert reply.status == 422
        assert datas_of(reply.body)[0]["content"] == ""

    async def test_a_last_event_id_means_nothing_here(self, site: Deployment) -> None:
        first = await chat(site, "Why?", STREAM)
        cursor = f"{first.headers['x-holdfast-run']}.1"
        again = await site.server.post(STREAM, {"message": "Why?"}, Last_Event_ID=cursor)
        assert again.headers["x-holdfast-run"] != first.headers["x-holdfast-run"]

    async def test_its_runs_can_be_read_through_the_native_routes(self, site: Deployment) -> None:
        reply = await chat(site, "Why?", STREAM)
        log = await site.server.log_of(reply.headers["x-holdfast-run"])
        assert b"event: run-end" in log
