"""Editing a question: it and all that came after it are left out, and the new one is asked."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.keyed import ALICE, BOB, Caller, keyed
from tests.support.server import Deployment, script_of
from tests.support.upstream_server import Wire, completion, completion_chunk


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    async with Deployment(tmp_path_factory.mktemp("site")) as site:
        yield site


def edit_path(question_id: str) -> str:
    return f"/api/v1/messages/{question_id}/edit"


async def edit(site: Deployment, question_id: str, message: str, **body: Any) -> Any:
    """Edit and wait for the answer: the run with its message."""
    body = {"message": message, "stream": False, **body}
    reply = await site.server.post(edit_path(question_id), body)
    assert reply.status == 200, reply
    return reply.json


async def listed(site: Deployment, session_id: str) -> list[str]:
    """What a session says, oldest first."""
    reply = await site.server.get(f"/api/v1/sessions/{session_id}/messages")
    return [one["content"] for one in reply.json["items"]]


async def message(site: Deployment, message_id: str) -> Any:
    return (await site.server.get(f"/api/v1/messages/{message_id}")).json


async def three_turns(site: Deployment) -> tuple[list[str], list[Any]]:
    """A session of three turns: its questions, and their runs."""
    questions = [site.answers(*completion(f"Answer {n}.")) for n in range(3)]
    runs: list[Any] = []
    for question in questions:
        session = {"session_id": runs[0]["session_id"]} if runs else {}
        runs.append((await site.asked(question, **session))["run"])
    return questions, runs


class TestEditing:
    async def test_takes_the_place_of_the_turn_and_of_all_later_ones(
        self, site: Deployment
    ) -> None:
        questions, runs = await three_turns(site)
        other = site.answers(*completion("Other."))
        edited = await edit(site, runs[1]["question_id"], other)
        assert edited["run"]["session_id"] == runs[0]["session_id"]
        assert edited["message"]["content"] == "Other."
        shown = await listed(site, runs[0]["session_id"])
        assert shown == [questions[0], "Answer 0.", other, "Other."]

    async def test_what_is_left_out_is_still_found_by_its_id(self, site: Deployment) -> None:
        questions, runs = await three_turns(site)
        logs = [await site.server.log_of(run["id"]) for run in runs]
        await edit(site, runs[0]["question_id"], site.answers(*completion("Other.")))
        for number, run in enumerate(runs):
            found = await message(site, run["question_id"])
            assert found["content"] == questions[number]
            assert (await message(site, run["message_id"]))["content"] == f"Answer {number}."
            assert await site.server.log_of(run["id"]) == logs[number]

    async def test_the_new_question_says_what_it_was_edited_from(self, site: Deployment) -> None:
        _, runs = await three_turns(site)
        other = site.answers(*completion("Other."))
        mine = {"mine": 1, "edited_from": "me"}
        edited = await edit(site, runs[2]["question_id"], other, metadata=mine)
        found = await message(site, edited["run"]["question_id"])
        assert found["metadata"] == {"mine": 1, "edited_from": runs[2]["question_id"]}

    async def test_what_is_left_out_is_not_in_the_history(self, site: Deployment) -> None:
        questions, runs = await three_turns(site)
        other, later = site.answers(*completion("Other.")), site.answers(*completion("Later."))
        body = {"temperature": 0.5, "system": "Short.", "model": "m3"}
        await edit(site, runs[1]["question_id"], other, **body)
        await site.asked(later, session_id=runs[0]["session_id"])
        (request,) = site.requests_for(other)
        assert [one["content"] for one in request.json["messages"]] == [
            *("Short.", questions[0], "Answer 0.", other)
        ]
        assert (request.json["temperature"], request.json["model"]) == (0.5, "m3")
        (request,) = site.requests_for(later)
        assert [one["content"] for one in request.json["messages"]] == [
            *(questions[0], "Answer 0.", other, "Other.", later)
        ]

    async def test_what_is_left_out_is_not_searched(self, site: Deployment) -> None:
        question = site.answers(*completion("Zostera marina."))
        run = (await site.asked(question))["run"]
        assert len((await site.server.get("/api/v1/sessions?q=zostera")).json["items"]) == 1
        await edit(site, run["question_id"], site.answers(*completion("Other.")))
        assert (await site.server.get("/api/v1/sessions?q=zostera")).json["items"] == []

    async def test_every_version_of_an_answer_is_left_out(self, site: Deployment) -> None:
        question = site.question(script_of(*completion("Old.")), script_of(*completion("New.")))
        run = (await site.asked(question))["run"]
        path = f"/api/v1/messages/{run['message_id']}/regenerate"
        again = (await site.server.post(path, {"stream": False})).json["run"]
        other = site.answers(*completion("Other."))
        edited = await edit(site, run["question_id"], other)
        assert await listed(site, run["session_id"]) == [other, "Other."]
        assert edited["message"]["versions"] == [edited["run"]["message_id"]]
        found = await message(site, again["message_id"])
        assert found["versions"] == [run["message_id"], again["message_id"]]

    async def test_an_edited_question_can_be_edited(self, site: Deployment) -> None:
        _, runs = await three_turns(site)
        first, second = (site.answers(*completion(text)) for text in ("One.", "Two."))
        edited = await edit(site, runs[0]["question_id"], first)
        await edit(site, edited["run"]["question_id"], second)
        assert await listed(site, runs[0]["session_id"]) == [second, "Two."]

    async def test_is_kept_over_a_restart(self, tmp_path: Path) -> None:
        async with Deployment(tmp_path) as site:
            _, runs = await three_turns(site)
            other = site.answers(*completion("Other."))
            await edit(site, runs[0]["question_id"], other)
            site.server.process.kill()
            await site.restart()
            assert await listed(site, runs[0]["session_id"]) == [other, "Other."]


class TestDelivery:
    async def test_streams_like_any_question(self, site: Deployment) -> None:
        _, runs = await three_turns(site)
        body = {"message": site.answers(*completion("Ot", "her."))}
        async with site.server.stream("POST", edit_path(runs[0]["question_id"]), body) as stream:
            await stream.rest()
        assert stream.text == "Other."
        assert stream.frames[0].data["session_id"] == runs[0]["session_id"]
        assert stream.frames[0].data["question_id"] != runs[0]["question_id"]
        assert await site.server.log_of(stream.run_id) == stream.log

    async def test_p5_with_a_cursor_it_goes_on_reading_and_asks_nothing(
        self, site: Deployment
    ) -> None:
        _, runs = await three_turns(site)
        question = site.answers(*completion("Ot", "her."))
        path = edit_path(runs[0]["question_id"])
        async with site.server.stream("POST", path, {"message": question}) as stream:
            await stream.rest()
        cursor = {"Last-Event-ID": f"{stream.run_id}.1"}
        async with site.server.stream("POST", path, {"message": question}, **cursor) as again:
            await again.rest()
        assert again.log == b"".join(frame.raw for frame in stream.frames[1:])
        assert len(site.requests_for(question)) == 1

    async def test_p7_the_same_key_edits_once(self, site: Deployment) -> None:
        _, runs = await three_turns(site)
        other = site.answers(*completion("Other."))
        path, body = edit_path(runs[0]["question_id"]), {"message": other, "stream": False}
        replies = [await site.server.post(path, body, Idempotency_Key="edit-1") for _ in range(2)]
        assert replies[0].json == replies[1].json
        assert replies[0].status == 200
        assert len(site.requests_for(other)) == 1
        assert await listed(site, runs[0]["session_id"]) == [other, "Other."]
        changed = {**body, "message": "Something else?"}
        reply = await site.server.post(path, changed, Idempotency_Key="edit-1")
        reply.refused(422, "idempotency_mismatch")

    async def test_p7_the_key_of_an_edit_is_not_that_of_a_question(self, site: Deployment) -> None:
        _, runs = await three_turns(site)
        body = {"message": site.answers(*completion("Other.")), "stream": False}
        await site.server.post("/api/v1/runs", body, Idempotency_Key="edit-2")
        path = edit_path(runs[0]["question_id"])
        reply = await site.server.post(path, body, Idempotency_Key="edit-2")
        reply.refused(422, "idempotency_mismatch")


class TestBusySessions:
    async def test_are_refused_and_nothing_is_left_out(self, site: Deployment) -> None:
        first = (await site.asked("First?"))["run"]
        hanging = site.answers(completion_chunk(content="Ha"), Wire.STALL)
        async with site.ask(hanging, session_id=first["session_id"]) as stream:
            await stream.read_text("Ha")
            body = {"message": "Other?", "on_busy": "reject"}
            reply = await site.server.post(edit_path(first["question_id"]), body)
            assert reply.refused(409, "run_active")["run_id"] == stream.run_id
            shown = await listed(site, first["session_id"])
            assert shown == ["First?", "Kelp holds fast.", hanging, "Ha"]
            await site.server.post(f"/api/v1/runs/{stream.run_id}/cancel")

    async def test_can_be_freed_by_it(self, site: Deployment) -> None:
        hanging = site.answers(completion_chunk(content="Ha"), Wire.STALL)
        async with site.ask(hanging) as stream:
            await stream.read_text("Ha")
            question_id = stream.frames[0].data["question_id"]
            other = site.answers(*completion("Other."))
            await edit(site, question_id, other, on_busy="cancel")
            await stream.rest()
        assert stream.end["outcome"] == "cancelled"
        assert await listed(site, stream.session_id) == [other, "Other."]
        assert (await message(site, stream.message_id))["content"] == "Ha"


class TestRefusals:
    async def test_an_answer_is_not_edited(self, site: Deployment) -> None:
        run = (await site.asked("Why?"))["run"]
        reply = await site.server.post(edit_path(run["message_id"]), {"message": "How?"})
        assert reply.refused(409, "conflict")["message_id"] == run["message_id"]

    async def test_nor_a_question_that_is_left_out_already(self, site: Deployment) -> None:
        questions, runs = await three_turns(site)
        other = site.answers(*completion("Other."))
        await edit(site, runs[1]["question_id"], other)
        for run in runs[1:]:
            body = {"message": "How?", "on_busy": "cancel"}
            reply = await site.server.post(edit_path(run["question_id"]), body)
            assert reply.refused(409, "conflict")["message_id"] == run["question_id"]
        shown = await listed(site, runs[0]["session_id"])
        assert shown == [questions[0], "Answer 0.", other, "Other."]

    async def test_a_question_that_nobody_asked(self, site: Deployment) -> None:
        reply = await site.server.post(edit_path("nope"), {"message": "How?"})
        reply.refused(404, "not_found")

    @pytest.mark.parametrize(
        ("body", "status", "code"),
        [
            ({}, 400, "bad_request"),
            ({"message": "  "}, 400, "bad_request"),
            ({"message": "How?", "session_id": "s"}, 400, "bad_request"),
            ({"message": "How?", "upstream": "nobody"}, 400, "bad_request"),
            ({"message": "x" * 300_000}, 413, "too_large"),
        ],
    )
    async def test_what_cannot_be_asked_leaves_everything_as_it_is(
        self, body: dict[str, Any], status: int, code: str, site: Deployment
    ) -> None:
        run = (await site.asked("Why?"))["run"]
        (await site.server.post(edit_path(run["question_id"]), body)).refused(status, code)
        assert await listed(site, run["session_id"]) == ["Why?", "Kelp holds fast."]

    async def test_p8_somebody_elses_question_is_not_there(self, tmp_path: Path) -> None:
        async with keyed(tmp_path) as site:
            alice, bob = Caller(site, ALICE), Caller(site, BOB)
            run = (await alice.asked("Why?"))["run"]
            path = edit_path(run["question_id"])
            (await bob.post(path, {"message": "How?"})).refused(404, "not_found")
            shown = await alice.get(f"/api/v1/sessions/{run['session_id']}/messages")
            assert [one["content"] for one in shown.json["items"]] == ["Why?", "Kelp holds fast."]
