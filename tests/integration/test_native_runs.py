"""Asking over the native surface: streams, waiting answers, cancelling, upstreams."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.server import Deployment, script_of
from tests.support.upstream_server import Wire, completion, completion_chunk, event, whole

RUN_KEYS = {
    *("id", "session_id", "message_id", "question_id", "status", "outcome", "reason", "error"),
    *("upstream", "model", "route_reason", "cursor", "created_at", "ended_at"),
}
MESSAGE_KEYS = {
    *("id", "session_id", "role", "content", "marks", "reasoning", "status", "outcome", "reason"),
    *("error", "references", "upstream", "model", "usage", "run_id", "versions", "feedback"),
    *("metadata", "created_at", "completed_at"),
}
TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
CHUNKS = [
    {"id": "c1", "document_id": "d1", "document_name": "kelp.md", "content": "A root."},
    {"id": "c2", "document_id": "d2", "document_name": "tides.md", "content": "The moon."},
]


@pytest.fixture(scope="module")
async def site(
    tmp_path_factory: pytest.TempPathFactory, storage: dict[str, Any]
) -> AsyncIterator[Deployment]:
    runs = {"on_disconnect": "continue", "disconnect_grace_s": 0.05}
    async with Deployment(tmp_path_factory.mktemp("site"), storage=storage, runs=runs) as site:
        yield site


def with_references() -> bytes:
    return completion_chunk(content="", reference={"chunks": CHUNKS})


class TestStream:
    async def test_has_the_headers_of_an_event_stream_and_the_ids_of_its_run(
        self, site: Deployment
    ) -> None:
        async with site.ask("Why?") as stream:
            assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"
            assert stream.headers["cache-control"] == "no-cache, no-transform"
            assert stream.headers["x-accel-buffering"] == "no"
            start = (await stream.until("run-start")).data
        assert start["run_id"] == stream.run_id
        assert start["session_id"] == stream.session_id
        assert start["message_id"] == stream.message_id

    async def test_frames_are_id_event_data_with_seqs_without_gaps(self, site: Deployment) -> None:
        question = site.answers(
            completion_chunk(reasoning_content="Hm."), with_references(), *completion("Kelp [ID:0]")
        )
        async with site.ask(question) as stream:
            frames = await stream.rest()
        for seq, frame in enumerate(frames, 1):
            lines = frame.raw.split(b"\n")
            assert lines[0] == f"id: {stream.run_id}.{seq}".encode()
            assert lines[1] == b"event: " + frame.event.encode()
            assert lines[2].startswith(b"data: {")
            assert lines[3:] == [b"", b""]
            assert frame.data["type"] == frame.event
        types = [frame.event for frame in frames]
        assert types == ["run-start", "reasoning-delta", "references", "text-delta", "run-end"]

    async def test_p5_the_log_after_the_end_is_the_live_stream_byte_for_byte(
        self, site: Deployment
    ) -> None:
        question = site.answers(
            completion_chunk(reasoning_content="想一想 \u2028 hm"),
            with_references(),
            *completion("海带 [ID:0]", " 🌊\r\n\u0000 tail [ID:1]"),
        )
        async with site.ask(question) as stream:
            await stream.rest()
        assert await site.server.log_of(stream.run_id) == stream.log

    async def test_the_connection_serves_further_requests_after_its_stream(
        self, site: Deployment
    ) -> None:
        async with site.ask("Why?") as stream:
            await stream.rest()
            request = site.server.request("GET", f"/api/v1/runs/{stream.run_id}")
            for _ in range(2):
                await stream.connection.send(request)
                assert (await stream.connection.reply()).status == 200

    async def test_p4_references_travel_in_the_log_and_stay_with_the_message(
        self, site: Deployment
    ) -> None:
        question = site.answers(with_references(), *completion("Kelp [ID:1] moon [ID:0]"))
        async with site.ask(question) as stream:
            references = (await stream.until("references")).data["references"]
            text = (await stream.until("text-delta")).data
            await stream.rest()
        message = (await site.server.get(f"/api/v1/messages/{stream.message_id}")).json
        assert message["references"] == references
        assert [one["document_name"] for one in references] == ["kelp.md", "tides.md"]
        assert message["content"] == text["text"] == "Kelp [2] moon [1]"
        assert message["marks"] == text["marks"] == [[5, 8, 2], [14, 17, 1]]

    async def test_p4_a_partial_answer_keeps_its_references(self, site: Deployment) -> None:
        question = site.answers(with_references(), completion_chunk(content="Ke"), Wire.RESET)
        async with site.ask(question) as stream:
            await stream.rest()
        message = (await site.server.run(stream.run_id))["message"]
        assert message["status"] == "partial"
        assert [one["document_name"] for one in message["references"]] == ["kelp.md", "tides.md"]

    async def test_p1_the_question_is_stored_before_the_upstream_answers(
        self, site: Deployment
    ) -> None:
        gate = asyncio.Event()
        question = site.question([gate, *script_of(*completion("Yes."))])
        async with site.ask(question) as stream:
            while not site.requests_for(question):
                await site.upstream.asked(len(site.upstream.requests) + 1)
            listed = await site.server.get(f"/api/v1/sessions/{stream.session_id}/messages")
            gate.set()
            await stream.rest()
        asked, answer = listed.json["items"]
        assert (asked["role"], asked["content"], asked["status"]) == ("user", question, "complete")
        assert (answer["role"], answer["content"], answer["status"]) == (
            "assistant",
            "",
            "streaming",
        )

    async def test_a_live_run_is_shown_as_far_as_it_was_streamed(self, site: Deployment) -> None:
        gate = asyncio.Event()
        question = site.answers(completion_chunk(content="Half"), gate, *completion(" whole."))
        async with site.ask(question) as stream:
            await stream.read_text("Half")
            found = await site.server.run(stream.run_id)
            messages = await site.server.get(f"/api/v1/sessions/{stream.session_id}/messages")
            single = await site.server.get(f"/api/v1/messages/{stream.message_id}")
            gate.set()
            await stream.rest()
        assert found["run"]["status"] == "streaming"
        assert found["run"]["cursor"] == stream.frames[1].id
        assert found["run"]["outcome"] is found["run"]["ended_at"] is None
        for message in (found["message"], messages.json["items"][1], single.json):
            assert (message["content"], message["status"]) == ("Half", "streaming")
            assert message["outcome"] is message["completed_at"] is None


class TestWait:
    async def test_answers_with_the_run_and_its_message(self, site: Deployment) -> None:
        question = site.answers(
            *completion("It holds.")[:-1],
            event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}),
            event("[DONE]"),
        )
        body = {"message": question, "stream": False, "metadata": {"page": 7}}
        reply = await site.server.post("/api/v1/runs", body)
        assert reply.status == 200
        assert reply.headers["content-type"] == "application/json"
        run, message = reply.json["run"], reply.json["message"]
        assert set(reply.json) == {"run", "message"}
        assert set(run) == RUN_KEYS
        assert set(message) == MESSAGE_KEYS
        assert (run["status"], run["outcome"], run["reason"]) == ("ended", "completed", None)
        assert (message["status"], message["content"]) == ("complete", "It holds.")
        assert message["id"] == run["message_id"] == reply.headers["x-holdfast-message"]
        assert message["run_id"] == run["id"] == reply.headers["x-holdfast-run"]
        assert run["session_id"] == reply.headers["x-holdfast-session"]
        assert message["versions"] == [message["id"]]
        assert message["usage"] == {"input_tokens": 3, "output_tokens": 2, "extra": None}
        assert (message["upstream"], message["model"]) == ("script", "m1")
        for time in (run["created_at"], run["ended_at"], message["completed_at"]):
            assert TIMESTAMP.fullmatch(time)
        assert (await site.server.get(f"/api/v1/runs/{run['id']}")).json == reply.json

    async def test_the_question_is_a_message_with_the_metadata_it_was_asked_with(
        self, site: Deployment
    ) -> None:
        run = (await site.asked("海带?", metadata={"page": 7}))["run"]
        question = (await site.server.get(f"/api/v1/messages/{run['question_id']}")).json
        assert set(question) == MESSAGE_KEYS
        assert (question["role"], question["content"]) == ("user", "海带?")
        assert (question["status"], question["metadata"]) == ("complete", {"page": 7})
        assert question["session_id"] == run["session_id"]
        assert question["references"] == question["versions"] == question["marks"] == []

    async def test_p9_a_run_that_fails_is_an_answer_that_says_so(self, site: Deployment) -> None:
        question = site.question(whole({"error": {"message": "model overloaded"}}, 503))
        reply = await site.server.post("/api/v1/runs", {"message": question, "stream": False})
        assert reply.status == 200
        run, message = reply.json["run"], reply.json["message"]
        assert (run["outcome"], run["reason"]) == ("failed", "upstream_error")
        assert (message["status"], message["reason"]) == ("failed", "upstream_error")
        assert "model overloaded" in run["error"]
        assert message["error"] == run["error"]

    async def test_the_answer_to_a_client_that_left_is_there_when_it_asks_again(
        self, site: Deployment
    ) -> None:
        gate = asyncio.Event()
        question = site.answers(completion_chunk(content="Ha"), gate, *completion("lf."))
        body = {"message": question, "stream": False}
        key = {"Idempotency-Key": "left"}
        async with site.server.connect() as connection:
            await connection.send(site.server.request("POST", "/api/v1/runs", body, key))
            await site.upstream.asked(len(site.upstream.requests) + 1)
        gate.set()
        again = await site.server.post("/api/v1/runs", body, **key)
        assert again.json["message"]["content"] == "Half."
        assert len(site.requests_for(question)) == 1

    async def test_a_client_that_waits_and_leaves_counts_as_a_reader_that_left(
        self, site: Deployment
    ) -> None:
        question = site.answers(completion_chunk(content="Ha"), Wire.STALL)
        body = {"message": question, "stream": False, "on_disconnect": "cancel"}
        left = site.upstream.closed_early
        async with site.server.connect() as connection:
            await connection.send(site.server.request("POST", "/api/v1/runs", body))
            await site.upstream.asked(len(site.upstream.requests) + 1)
        await site.upstream.client_left(left + 1)


ENDINGS: list[tuple[list[Any], str, str | None, str]] = [
    ([*completion("A.")], "completed", None, "complete"),
    ([completion_chunk(content="A."), event("[DONE]")], "completed", None, "complete"),
    ([completion_chunk("stop", content="A.")], "completed", None, "complete"),
    ([event("[DONE]")], "failed", "upstream_empty", "failed"),
    ([], "failed", "upstream_truncated", "failed"),
    ([completion_chunk(content="A.")], "interrupted", "upstream_truncated", "partial"),
    (
        [completion_chunk(content="A."), event({"error": {"message": "no"}}), *completion("B")],
        "interrupted",
        "upstream_error",
        "partial",
    ),
    ([event({"error": {"message": "no"}})], "failed", "upstream_error", "failed"),
    ([completion_chunk(content="A."), Wire.RESET], "interrupted", "upstream_truncated", "partial"),
    (
        [completion_chunk(reasoning_content="Hm.")],
        "interrupted",
        "upstream_truncated",
        "partial",
    ),
]


@pytest.mark.parametrize(("pieces", "outcome", "reason", "status"), ENDINGS)
async def test_p3_p9_every_run_ends_once_and_says_how(
    pieces: list[Any], outcome: str, reason: str | None, status: str, site: Deployment
) -> None:
    async with site.ask(site.answers(*pieces)) as stream:
        await stream.rest()
    assert [frame.event for frame in stream.frames].count("run-end") == 1
    assert (stream.end["outcome"], stream.end.get("reason")) == (outcome, reason)
    found = await site.server.run(stream.run_id)
    message = found["message"]
    assert (message["outcome"], message["reason"], message["status"]) == (outcome, reason, status)
    assert message["content"] == stream.text
    assert (found["run"]["outcome"], found["run"]["reason"]) == (outcome, reason)
    assert message["error"] == stream.end.get("error")


class TestUpstreams:
    async def test_are_listed_by_name_and_health_without_urls_or_keys(
        self, site: Deployment
    ) -> None:
        reply = await site.server.get("/api/v1/upstreams")
        assert reply.json["items"] == [{"name": "script", "kind": "openai", "healthy": True}]
        assert reply.json["next"] is None
        assert b"127.0.0.1" not in reply.body
        assert b"sk-secret-key" not in reply.body

    async def test_are_sent_the_options_of_the_question_as_they_are(self, site: Deployment) -> None:
        question = site.answers(*completion("Yes."))
        options = {"system": "Be brief.", "temperature": 0.25, "max_tokens": 77, "model": "m2"}
        found = await site.asked(question, **options)
        (request,) = site.requests_for(question)
        assert request.path == "/v1/chat/completions"
        assert request.headers["authorization"] == "Bearer sk-secret-key"
        assert request.json["messages"] == [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": question},
        ]
        assert request.json["temperature"] == 0.25
        assert request.json["max_tokens"] == 77
        assert request.json["model"] == "m2"
        assert request.json["stream"] is True
        assert found["run"]["model"] == found["message"]["model"] == "m2"

    async def test_are_sent_no_option_that_was_not_given(self, site: Deployment) -> None:
        question = site.answers(*completion("Yes."))
        await site.asked(question)
        (request,) = site.requests_for(question)
        assert {"temperature", "max_tokens"}.isdisjoint(request.json)
        assert request.json["messages"] == [{"role": "user", "content": question}]

    async def test_a_temperature_of_zero_is_an_option(self, site: Deployment) -> None:
        question = site.answers(*completion("Yes."))
        await site.asked(question, temperature=0)
        assert site.requests_for(question)[0].json["temperature"] == 0

    async def test_are_sent_the_earlier_turns_but_not_those_without_an_answer(
        self, site: Deployment
    ) -> None:
        first = site.answers(completion_chunk(reasoning_content="Hm."), *completion("One."))
        failed = site.question(whole({"error": "no"}, 500))
        partial = site.answers(completion_chunk(content="Two"))
        last = site.answers(*completion("Three."))
        session_id = (await site.asked(first))["run"]["session_id"]
        for question in (failed, partial, last):
            await site.asked(question, session_id=session_id)
        assert site.requests_for(last)[0].json["messages"] == [
            {"role": "user", "content": first},
            {"role": "assistant", "content": "One."},
            {"role": "user", "content": partial},
            {"role": "assistant", "content": "Two"},
            {"role": "user", "content": last},
        ]

    async def test_an_unknown_one_is_refused_before_anything_is_stored(
        self, site: Deployment
    ) -> None:
        before = (await site.server.get("/api/v1/sessions?limit=1")).json["items"]
        reply = await site.server.post("/api/v1/runs", {"message": "Hi", "upstream": "nope"})
        assert "script" in reply.refused(400, "bad_request")["message"]
        assert (await site.server.get("/api/v1/sessions?limit=1")).json["items"] == before

    async def test_p9_secrets_never_reach_an_error_text(self, site: Deployment) -> None:
        question = site.question(whole({"error": {"message": "bad key sk-secret-key"}}, 401))
        async with site.ask(question) as stream:
            await stream.rest()
        assert "401" in stream.end["error"]
        assert b"sk-secret-key" not in stream.log
        assert "sk-secret-key" not in site.server.log_text


class TestCancel:
    async def test_p10_closes_the_upstream_and_keeps_what_was_written(
        self, site: Deployment
    ) -> None:
        question = site.answers(completion_chunk(content="Half"), Wire.STALL)
        left = site.upstream.closed_early
        async with site.ask(question) as stream:
            await stream.read_text("Half")
            reply = await site.server.post(f"/api/v1/runs/{stream.run_id}/cancel")
            await stream.rest()
        await site.upstream.client_left(left + 1)
        assert (stream.end["outcome"], stream.end["reason"]) == ("cancelled", "client_cancelled")
        assert reply.status == 200
        assert reply.json["run"]["outcome"] == "cancelled"
        message = reply.json["message"]
        assert (message["content"], message["status"]) == ("Half", "partial")
        assert message["reason"] == "client_cancelled"

    async def test_p10_before_anything_arrived_leaves_a_failed_message(
        self, site: Deployment
    ) -> None:
        question = site.question([Wire.STALL])
        async with site.ask(question) as stream:
            await stream.until("run-start")
            reply = await site.server.post(f"/api/v1/runs/{stream.run_id}/cancel")
        assert reply.json["run"]["outcome"] == "cancelled"
        assert reply.json["message"]["status"] == "failed"

    async def test_of_an_ended_run_changes_nothing(self, site: Deployment) -> None:
        before = await site.asked("Why?")
        reply = await site.server.post(f"/api/v1/runs/{before['run']['id']}/cancel")
        assert (reply.status, reply.json) == (200, before)

    async def test_needs_no_body(self, site: Deployment) -> None:
        run = (await site.asked("Why?"))["run"]
        reply = await site.server.call("POST", f"/api/v1/runs/{run['id']}/cancel")
        assert reply.status == 200

    async def test_twice_at_once_ends_the_run_once(self, site: Deployment) -> None:
        question = site.answers(completion_chunk(content="Half"), Wire.STALL)
        async with site.ask(question) as stream:
            await stream.read_text("Half")
            path = f"/api/v1/runs/{stream.run_id}/cancel"
            replies = await asyncio.gather(*(site.server.post(path) for _ in range(5)))
            await stream.rest()
        assert {reply.status for reply in replies} == {200}
        assert [frame.event for frame in stream.frames].count("run-end") == 1

    async def test_an_unknown_run_is_404(self, site: Deployment) -> None:
        (await site.server.post("/api/v1/runs/nope/cancel")).refused(404, "not_found")


class TestDisconnect:
    async def test_a_run_goes_on_when_its_only_reader_leaves(self, site: Deployment) -> None:
        gate = asyncio.Event()
        question = site.answers(completion_chunk(content="Ha"), gate, *completion("lf."))
        async with site.ask(question) as stream:
            await stream.read_text("Ha")
        gate.set()
        message = (await site.server.ended(stream.run_id))["message"]
        assert (message["content"], message["status"]) == ("Half.", "complete")

    async def test_p10_a_run_with_the_policy_cancel_ends_when_nobody_reads_it(
        self, site: Deployment
    ) -> None:
        question = site.answers(completion_chunk(content="Half"), Wire.STALL)
        left = site.upstream.closed_early
        async with site.ask(question, on_disconnect="cancel") as stream:
            await stream.read_text("Half")
        await site.upstream.client_left(left + 1)
        found = await site.server.ended(stream.run_id)
        assert found["run"]["outcome"] == "cancelled"
        assert found["run"]["reason"] == "client_disconnected"
        assert (found["message"]["content"], found["message"]["status"]) == ("Half", "partial")

    async def test_a_second_reader_keeps_such_a_run_going(self, site: Deployment) -> None:
        gate = asyncio.Event()
        question = site.answers(completion_chunk(content="Ha"), gate, *completion("lf."))
        left = site.answers(completion_chunk(content="Ha"), Wire.STALL)
        async with site.ask(question, on_disconnect="cancel") as stream:
            await stream.read_text("Ha")
            path = f"/api/v1/runs/{stream.run_id}/events"
            async with site.server.stream("GET", path) as second:
                await second.read_text("Ha")
                stream.close()
                async with site.ask(left, on_disconnect="cancel") as other:
                    await other.read_text("Ha")
                # That one was left later, and has the same grace.
                assert (await site.server.ended(other.run_id))["run"]["outcome"] == "cancelled"
                gate.set()
                await second.rest()
        assert second.end["outcome"] == "completed"
        assert second.text == "Half."


async def test_unknown_runs_and_messages_are_404(site: Deployment) -> None:
    for path in ("runs/nope", "runs/nope/events", "messages/nope", "sessions/nope"):
        (await site.server.get(f"/api/v1/{path}")).refused(404, "not_found")
    (await site.server.post("/api/v1/messages/nope/regenerate")).refused(404, "not_found")


@pytest.mark.parametrize("path", ["/api/v1/nope", "/api/v2/runs", "/nope.html"])
async def test_an_unknown_route_is_404_in_the_error_envelope(path: str, site: Deployment) -> None:
    (await site.server.get(path)).refused(404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/api/v1/runs", {"POST"}),
        ("GET", "/api/v1/runs", {"POST"}),
        ("DELETE", "/api/v1/upstreams", {"GET"}),
        ("PUT", "/api/v1/sessions", {"GET", "POST"}),
        ("POST", "/healthz", {"GET"}),
    ],
)
async def test_a_wrong_method_is_405_in_the_error_envelope(
    method: str, path: str, allowed: set[str], site: Deployment
) -> None:
    reply = await site.server.call(method, path)
    assert reply.status == 405
    assert reply.error["code"] == "method_not_allowed"
    assert allowed <= set(reply.headers["allow"].split(", "))


async def test_every_error_has_a_request_id_of_its_own(site: Deployment) -> None:
    errors = [(await site.server.get("/api/v1/runs/nope")).error for _ in range(2)]
    assert errors[0]["request_id"] != errors[1]["request_id"]


async def test_health_and_readiness_are_told(site: Deployment) -> None:
    assert (await site.server.get("/healthz")).json["status"] == "ok"
    ready = await site.server.get("/readyz")
    assert (ready.status, ready.json) == (200, {"status": "ready"})
