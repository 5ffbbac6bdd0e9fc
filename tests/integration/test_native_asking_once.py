"""One question, one run: idempotency keys, and sessions that are busy."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from tests.support.raw_client import GIVE_UP_S, Reply, eventually
from tests.support.server import Deployment
from tests.support.upstream_server import Wire, completion, completion_chunk


@pytest.fixture(scope="module")
async def site(
    tmp_path_factory: pytest.TempPathFactory, storage: dict[str, Any]
) -> AsyncIterator[Deployment]:
    async with Deployment(tmp_path_factory.mktemp("site"), storage=storage) as site:
        yield site


async def wait_for(site: Deployment, key: str, body: dict[str, Any]) -> Reply:
    body = {"stream": False, **body}
    return await site.server.post("/api/v1/runs", body, Idempotency_Key=key)


async def all_but_one(tasks: Sequence["asyncio.Task[Any]"]) -> None:
    """Wait until one of the tasks is left."""
    pending = set(tasks)
    async with asyncio.timeout(GIVE_UP_S):
        while len(pending) > 1:
            _, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)


async def live_run(site: Deployment, session_id: str) -> str | None:
    session = (await site.server.get(f"/api/v1/sessions/{session_id}")).json
    return session["live_run_id"] and str(session["live_run_id"])


class TestSameKey:
    async def test_p7_is_the_same_run_from_its_first_event(self, site: Deployment) -> None:
        question = site.answers(*completion("Yes", ", it is."))
        headers = {"Idempotency-Key": "stream-stream"}
        async with site.ask(question, headers=headers) as first:
            await first.rest()
        async with site.ask(question, headers=headers) as second:
            await second.rest()
        assert second.log == first.log
        assert second.message_id == first.message_id
        assert len(site.requests_for(question)) == 1

    async def test_p7_is_answered_in_the_form_asked_for(self, site: Deployment) -> None:
        question = site.answers(*completion("Yes."))
        headers = {"Idempotency-Key": "form"}
        async with site.ask(question, headers=headers) as stream:
            await stream.rest()
        waited = await wait_for(site, "form", {"message": question})
        assert waited.json["run"]["id"] == stream.run_id
        assert waited.json["message"]["content"] == "Yes."
        async with site.ask(question, headers=headers) as again:
            await again.rest()
        assert again.log == stream.log
        assert len(site.requests_for(question)) == 1

    async def test_p7_joins_the_run_while_it_is_live(self, site: Deployment) -> None:
        gate = asyncio.Event()
        question = site.answers(completion_chunk(content="Ha"), gate, *completion("lf."))
        headers = {"Idempotency-Key": "live"}
        async with site.ask(question, headers=headers) as first:
            await first.read_text("Ha")
            async with site.ask(question, headers=headers) as second:
                await second.read_text("Ha")
                gate.set()
                await second.rest()
            await first.rest()
        assert second.log == first.log
        assert len(site.requests_for(question)) == 1

    async def test_p7_twice_in_a_busy_session_is_no_conflict(self, site: Deployment) -> None:
        session_id = (await site.asked("First?"))["run"]["session_id"]
        question = site.answers(completion_chunk(content="Ha"), Wire.STALL)
        headers = {"Idempotency-Key": "busy"}
        for on_busy in ("reject", "cancel"):
            body = {"session_id": session_id, "on_busy": on_busy}
            headers = {"Idempotency-Key": f"busy-{on_busy}"}
            async with site.ask(question, headers=headers, **body) as first:
                await first.read_text("Ha")
                async with site.ask(question, headers=headers, **body) as second:
                    await second.read_text("Ha")
                    assert second.run_id == first.run_id
                await site.server.post(f"/api/v1/runs/{first.run_id}/cancel")

    async def test_p7_of_many_requests_at_once_one_asks(self, site: Deployment) -> None:
        question = site.answers(*completion("Yes."))
        replies = await asyncio.gather(
            *(wait_for(site, "at-once", {"message": question}) for _ in range(20))
        )
        assert {reply.status for reply in replies} == {200}
        assert len({reply.json["run"]["id"] for reply in replies}) == 1
        assert len({reply.json["run"]["session_id"] for reply in replies}) == 1
        assert len(site.requests_for(question)) == 1
        session_id = replies[0].json["run"]["session_id"]
        listed = await site.server.get("/api/v1/sessions?limit=200")
        named = [one["id"] for one in listed.json["items"] if one["title"] == question]
        assert named == [session_id]

    async def test_p7_of_a_run_that_failed_gives_that_run(self, site: Deployment) -> None:
        question = site.answers()
        first = await wait_for(site, "failed", {"message": question})
        again = await wait_for(site, "failed", {"message": question})
        assert first.json["run"]["outcome"] == "failed"
        assert again.json == first.json

    @pytest.mark.parametrize(
        "other",
        [
            {"message": "Another?"},
            {"message": "Why?", "temperature": 0.5},
            {"message": "Why?", "metadata": {"a": 1}},
            {"message": "Why?", "on_busy": "cancel"},
            {"message": "Why?", "system": "Be brief."},
        ],
    )
    async def test_p7_with_another_body_is_422_and_asks_nothing(
        self, other: dict[str, Any], site: Deployment
    ) -> None:
        key = f"other-{sorted(other)}-{other['message']}"
        assert (await wait_for(site, key, {"message": "Why?"})).status == 200
        asked = len(site.upstream.requests)
        (await wait_for(site, key, other)).refused(422, "idempotency_mismatch")
        assert len(site.upstream.requests) == asked

    async def test_p7_with_the_same_body_in_another_spelling_is_the_same(
        self, site: Deployment
    ) -> None:
        question = site.answers(*completion("Yes."))
        spellings = (
            f'{{"message": "{question}", "stream": false, "metadata": {{"a": 1, "b": 2}}}}',
            f'{{ "metadata":{{"b":2,"a":1}},"stream":false,"message":"{question}","model":null}}',
        )
        replies = [
            await site.server.post("/api/v1/runs", text.encode(), Idempotency_Key="spelling")
            for text in spellings
        ]
        assert replies[1].status == 200
        assert replies[1].json == replies[0].json

    async def test_p7_on_another_route_is_422(self, site: Deployment) -> None:
        run = (await wait_for(site, "route", {"message": "Why?"})).json["run"]
        path = f"/api/v1/messages/{run['message_id']}/regenerate"
        reply = await site.server.post(path, {"stream": False}, Idempotency_Key="route")
        reply.refused(422, "idempotency_mismatch")

    async def test_is_free_again_when_its_run_was_deleted(self, site: Deployment) -> None:
        question = site.answers(*completion("Yes."))
        first = (await wait_for(site, "deleted", {"message": question})).json["run"]
        await site.server.call("DELETE", f"/api/v1/sessions/{first['session_id']}")
        second = await wait_for(site, "deleted", {"message": question})
        assert second.status == 200
        assert second.json["run"]["id"] != first["id"]
        assert len(site.requests_for(question)) == 2


class TestKeys:
    @pytest.mark.parametrize("key", ["k" * 255, "ké" * 85])
    async def test_of_255_bytes_are_taken(self, key: str, site: Deployment) -> None:
        assert len(key.encode()) == 255
        request = site.server.request(
            "POST", "/api/v1/runs", {"message": "Why?", "stream": False}, {"Idempotency-Key": key}
        )
        async with site.server.connect() as connection:
            await connection.send(request)
            assert (await connection.reply()).status == 200

    async def test_of_more_are_400(self, site: Deployment) -> None:
        (await wait_for(site, "k" * 256, {"message": "Why?"})).refused(400, "bad_request")

    async def test_that_are_empty_are_400(self, site: Deployment) -> None:
        request = site.server.request("POST", "/api/v1/runs", {"message": "Why?"}, {"X-Key": "y"})
        async with site.server.connect() as connection:
            await connection.send(request.replace(b"X-Key: y", b"Idempotency-Key:"))
            (await connection.reply()).refused(400, "bad_request")


class TestBusySession:
    async def test_a_second_question_is_409_and_names_the_live_run(self, site: Deployment) -> None:
        async with site.ask(site.answers(completion_chunk(content="A"), Wire.STALL)) as stream:
            await stream.read_text("A")
            asked = len(site.upstream.requests)
            body = {"message": "And?", "session_id": stream.session_id}
            reply = await site.server.post("/api/v1/runs", body)
            assert reply.refused(409, "run_active")["run_id"] == stream.run_id
            assert len(site.upstream.requests) == asked
            listed = await site.server.get(f"/api/v1/sessions/{stream.session_id}/messages")
            assert len(listed.json["items"]) == 2
            await site.server.post(f"/api/v1/runs/{stream.run_id}/cancel")

    async def test_on_busy_cancel_stops_the_old_run_and_keeps_its_partial_answer(
        self, site: Deployment
    ) -> None:
        left = site.upstream.closed_early
        async with site.ask(site.answers(completion_chunk(content="Half"), Wire.STALL)) as old:
            await old.read_text("Half")
            question = site.answers(*completion("New."))
            body = {"session_id": old.session_id, "on_busy": "cancel"}
            found = await site.asked(question, **body)
            await old.rest()
        await site.upstream.client_left(left + 1)
        assert (old.end["outcome"], old.end["reason"]) == ("cancelled", "client_cancelled")
        assert found["message"]["content"] == "New."
        listed = await site.server.get(f"/api/v1/sessions/{old.session_id}/messages")
        shown = [(one["content"], one["status"]) for one in listed.json["items"]]
        assert shown[1] == ("Half", "partial")
        assert shown[3] == ("New.", "complete")
        assert site.requests_for(question)[0].json["messages"][1]["content"] == "Half"

    async def test_of_questions_at_once_one_is_taken(self, site: Deployment) -> None:
        session_id = (await site.asked("First?"))["run"]["session_id"]
        gate = asyncio.Event()
        question = site.answers(gate, *completion("Yes."))
        body = {"message": question, "session_id": session_id, "stream": False}
        posts = [asyncio.create_task(site.server.post("/api/v1/runs", body)) for _ in range(8)]
        await all_but_one(posts)
        gate.set()
        replies = await asyncio.gather(*posts)
        assert sorted(reply.status for reply in replies) == [200] + [409] * 7
        assert len(site.requests_for(question)) == 1

    async def test_questions_at_once_that_cancel_leave_one_live_run(self, site: Deployment) -> None:
        session_id = (await site.asked("First?"))["run"]["session_id"]
        question = site.answers(completion_chunk(content="A"), Wire.STALL)
        body = {"message": question, "session_id": session_id, "on_busy": "cancel"}
        posts = [
            asyncio.create_task(site.server.post("/api/v1/runs", {**body, "stream": False}))
            for _ in range(4)
        ]
        await all_but_one(posts)
        live = await eventually(lambda: live_run(site, session_id))
        await site.server.post(f"/api/v1/runs/{live}/cancel")
        replies = await asyncio.gather(*posts)
        assert {reply.json["run"]["outcome"] for reply in replies} == {"cancelled"}

    async def test_other_sessions_are_not_concerned(self, site: Deployment) -> None:
        async with site.ask(site.answers(completion_chunk(content="A"), Wire.STALL)) as stream:
            await stream.read_text("A")
            assert (await site.asked("Why?"))["run"]["outcome"] == "completed"
            await site.server.post(f"/api/v1/runs/{stream.run_id}/cancel")
