"""Sessions and their messages: creating, listing by pages, renaming, deleting, versions."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.server import Deployment, script_of
from tests.support.upstream_server import Wire, completion, completion_chunk

SESSION_KEYS = {
    *("id", "title", "preset", "metadata", "live_run_id"),
    *("created_at", "updated_at"),
}


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    async with Deployment(tmp_path_factory.mktemp("site")) as site:
        yield site


async def create(site: Deployment, **body: Any) -> Any:
    reply = await site.server.post("/api/v1/sessions", body)
    assert reply.status == 201
    return reply.json


async def pages(site: Deployment, path: str, limit: int, parameter: str) -> list[list[Any]]:
    """All pages of a list."""
    found, query = [], f"?limit={limit}"
    while True:
        reply = await site.server.get(path + query)
        assert set(reply.json) == {"items", "next"}
        found.append(reply.json["items"])
        if reply.json["next"] is None:
            return found
        query = f"?limit={limit}&{parameter}={reply.json['next']}"


async def used(site: Deployment, session_id: str) -> str:
    """When a session was last used, to the millisecond."""
    found = await site.server.get(f"/api/v1/sessions/{session_id}")
    return str(found.json["updated_at"])


class TestSessions:
    async def test_are_created_with_title_and_metadata(self, site: Deployment) -> None:
        session = await create(site, title="海带", metadata={"a": [1, None, "x"]})
        assert set(session) == SESSION_KEYS
        assert (session["title"], session["metadata"]) == ("海带", {"a": [1, None, "x"]})
        assert session["live_run_id"] is None
        assert (await site.server.get(f"/api/v1/sessions/{session['id']}")).json == session

    async def test_are_created_by_a_question_and_named_after_it(self, site: Deployment) -> None:
        question = site.answers(*completion("Yes."))
        run = (await site.asked(question))["run"]
        session = (await site.server.get(f"/api/v1/sessions/{run['session_id']}")).json
        assert session["title"] == question

    async def test_a_question_names_an_untitled_session_and_leaves_a_titled_one(
        self, site: Deployment
    ) -> None:
        untitled, titled = await create(site), await create(site, title="Kelp")
        await site.asked("What is it?", session_id=untitled["id"])
        await site.asked("What is it?", session_id=titled["id"])
        found = [
            (await site.server.get(f"/api/v1/sessions/{one['id']}")).json["title"]
            for one in (untitled, titled)
        ]
        assert found == ["What is it?", "Kelp"]

    async def test_an_unknown_session_is_404_and_asks_nothing(self, site: Deployment) -> None:
        asked = len(site.upstream.requests)
        reply = await site.server.post("/api/v1/runs", {"message": "Hi", "session_id": "nope"})
        reply.refused(404, "not_found")
        assert len(site.upstream.requests) == asked

    async def test_are_renamed_and_keep_what_is_not_named(self, site: Deployment) -> None:
        session = await create(site, title="Old", metadata={"a": 1})
        path = f"/api/v1/sessions/{session['id']}"
        renamed = (await site.server.call("PATCH", path, {"title": "New"})).json
        assert (renamed["title"], renamed["metadata"]) == ("New", {"a": 1})
        changed = (await site.server.call("PATCH", path, {"metadata": {"b": 2}})).json
        assert (changed["title"], changed["metadata"]) == ("New", {"b": 2})
        assert (await site.server.get(path)).json == changed

    async def test_an_unknown_one_cannot_be_changed(self, site: Deployment) -> None:
        path = "/api/v1/sessions/nope"
        for method, body in (("PATCH", {"title": "x"}), ("DELETE", None), ("GET", None)):
            (await site.server.call(method, path, body)).refused(404, "not_found")
        (await site.server.get(f"{path}/messages")).refused(404, "not_found")

    async def test_name_their_live_run(self, site: Deployment) -> None:
        async with site.ask(site.answers(completion_chunk(content="A"), Wire.STALL)) as stream:
            await stream.read_text("A")
            path = f"/api/v1/sessions/{stream.session_id}"
            assert (await site.server.get(path)).json["live_run_id"] == stream.run_id
            await site.server.post(f"/api/v1/runs/{stream.run_id}/cancel")
        assert (await site.server.get(path)).json["live_run_id"] is None

    async def test_are_listed_by_pages_last_used_first(self, site: Deployment) -> None:
        made = [(await create(site, title=f"Session {n}"))["id"] for n in range(5)]
        while await used(site, made[1]) <= await used(site, made[4]):
            await site.asked("Again?", session_id=made[1])
        everything = (await site.server.get("/api/v1/sessions?limit=200")).json["items"]
        assert [one["id"] for one in everything[:5]] == [made[n] for n in (1, 4, 3, 2, 0)]
        by_pages = await pages(site, "/api/v1/sessions", 2, "before")
        assert [one for page in by_pages for one in page] == everything
        assert {len(page) for page in by_pages[:-1]} == {2}

    async def test_a_page_that_ends_exactly_at_the_end_names_no_next(
        self, site: Deployment
    ) -> None:
        count = len((await site.server.get("/api/v1/sessions?limit=200")).json["items"])
        reply = await site.server.get(f"/api/v1/sessions?limit={count}")
        assert reply.json["next"] is None

    async def test_deleting_one_erases_everything_in_it(self, site: Deployment) -> None:
        found = await site.asked("Secret question?")
        run = found["run"]
        path = f"/api/v1/sessions/{run['session_id']}"
        reply = await site.server.call("DELETE", path)
        assert (reply.status, reply.body) == (204, b"")
        for gone in (
            path,
            f"{path}/messages",
            f"{path}/events",
            f"/api/v1/runs/{run['id']}",
            f"/api/v1/messages/{run['message_id']}",
            f"/api/v1/messages/{run['question_id']}",
        ):
            (await site.server.get(gone)).refused(404, "not_found")
        (await site.server.call("DELETE", path)).refused(404, "not_found")

    async def test_p10_deleting_one_stops_its_live_run(self, site: Deployment) -> None:
        left = site.upstream.closed_early
        async with site.ask(site.answers(completion_chunk(content="A"), Wire.STALL)) as stream:
            await stream.read_text("A")
            reply = await site.server.call("DELETE", f"/api/v1/sessions/{stream.session_id}")
            assert reply.status == 204
            await site.upstream.client_left(left + 1)
            await stream.rest()
        assert stream.end["outcome"] == "cancelled"


class TestMessages:
    async def test_are_listed_by_pages_oldest_first(self, site: Deployment) -> None:
        session_id = (await create(site))["id"]
        for n in range(3):
            await site.asked(f"Question {n} of a list?", session_id=session_id)
        path = f"/api/v1/sessions/{session_id}/messages"
        everything = (await site.server.get(path)).json["items"]
        shown = [(one["role"], one["content"]) for one in everything]
        assert shown == [
            pair
            for n in range(3)
            for pair in (
                ("user", f"Question {n} of a list?"),
                ("assistant", "Kelp holds fast."),
            )
        ]
        for limit in range(1, 7):
            by_pages = await pages(site, path, limit, "after")
            assert [one for page in by_pages for one in page] == everything
            assert len(by_pages) == -(-6 // limit)

    async def test_an_empty_session_has_none(self, site: Deployment) -> None:
        session_id = (await create(site))["id"]
        reply = await site.server.get(f"/api/v1/sessions/{session_id}/messages")
        assert reply.json == {"items": [], "next": None}

    @pytest.mark.parametrize("limit", ["0", "201", "-1", "x", "", "1.5", "٣", "9" * 40, "1_0"])
    async def test_a_limit_out_of_bounds_is_400(self, limit: str, site: Deployment) -> None:
        session_id = (await create(site))["id"]
        for path in ("/api/v1/sessions", f"/api/v1/sessions/{session_id}/messages"):
            quoted = limit.replace("٣", "%D9%A3")
            (await site.server.get(f"{path}?limit={quoted}")).refused(400, "bad_request")

    @pytest.mark.parametrize(
        "before", ["", "x", "1", "x.y", "-1.y", "9" * 150 + ".y", "9" * 20 + ".y", "1" * 300]
    )
    async def test_a_page_that_is_no_next_is_400(self, before: str, site: Deployment) -> None:
        (await site.server.get(f"/api/v1/sessions?before={before}")).refused(400, "bad_request")


class TestRegenerate:
    async def test_keeps_the_old_answer_as_an_earlier_version(self, site: Deployment) -> None:
        question = site.question(script_of(*completion("First.")), script_of(*completion("New.")))
        first = (await site.asked(question))["run"]
        path = f"/api/v1/messages/{first['message_id']}/regenerate"
        async with site.server.stream("POST", path, {}) as stream:
            await stream.rest()
        second = stream.message_id
        assert stream.text == "New."
        listed = await site.server.get(f"/api/v1/sessions/{first['session_id']}/messages")
        assert [one["content"] for one in listed.json["items"]] == [question, "New."]
        for message_id, content in ((first["message_id"], "First."), (second, "New.")):
            message = (await site.server.get(f"/api/v1/messages/{message_id}")).json
            assert message["content"] == content
            assert message["versions"] == [first["message_id"], second]
        assert stream.session_id == first["session_id"]
        assert stream.frames[0].data["question_id"] == first["question_id"]

    async def test_p5_the_log_of_the_old_version_stays(self, site: Deployment) -> None:
        async with site.ask("Why?") as stream:
            await stream.rest()
        await site.server.post(f"/api/v1/messages/{stream.message_id}/regenerate", {})
        assert await site.server.log_of(stream.run_id) == stream.log

    async def test_waits_for_the_answer_if_asked_to(self, site: Deployment) -> None:
        first = (await site.asked("Why?"))["run"]
        path = f"/api/v1/messages/{first['message_id']}/regenerate"
        found = (await site.server.post(path, {"stream": False})).json
        assert found["message"]["content"] == "Kelp holds fast."
        assert found["message"]["versions"] == [first["message_id"], found["message"]["id"]]

    async def test_asks_with_the_history_before_the_question_and_its_options(
        self, site: Deployment
    ) -> None:
        first, second, third = (site.answers(*completion(f"Answer {n}.")) for n in range(3))
        session_id = (await site.asked(first))["run"]["session_id"]
        run = (await site.asked(second, session_id=session_id))["run"]
        await site.asked(third, session_id=session_id)
        path = f"/api/v1/messages/{run['message_id']}/regenerate"
        body = {"stream": False, "temperature": 0.5, "system": "Again.", "model": "m3"}
        assert (await site.server.post(path, body)).status == 200
        request = site.requests_for(second)[1].json
        assert request["messages"] == [
            {"role": "system", "content": "Again."},
            {"role": "user", "content": first},
            {"role": "assistant", "content": "Answer 0."},
            {"role": "user", "content": second},
        ]
        assert (request["temperature"], request["model"]) == (0.5, "m3")

    async def test_later_questions_are_asked_with_the_new_version(self, site: Deployment) -> None:
        question = site.question(script_of(*completion("Old.")), script_of(*completion("New.")))
        run = (await site.asked(question))["run"]
        path = f"/api/v1/messages/{run['message_id']}/regenerate"
        await site.server.post(path, {"stream": False})
        later = site.answers(*completion("Later."))
        await site.asked(later, session_id=run["session_id"])
        messages = site.requests_for(later)[0].json["messages"]
        assert [one["content"] for one in messages] == [question, "New.", later]

    async def test_a_question_cannot_be_regenerated(self, site: Deployment) -> None:
        run = (await site.asked("Why?"))["run"]
        path = f"/api/v1/messages/{run['question_id']}/regenerate"
        (await site.server.post(path, {})).refused(409, "conflict")

    async def test_while_the_session_is_busy_is_409(self, site: Deployment) -> None:
        async with site.ask(site.answers(completion_chunk(content="A"), Wire.STALL)) as stream:
            await stream.read_text("A")
            path = f"/api/v1/messages/{stream.message_id}/regenerate"
            reply = await site.server.post(path, {})
            assert reply.refused(409, "run_active")["run_id"] == stream.run_id
            await site.server.post(f"/api/v1/runs/{stream.run_id}/cancel")

    async def test_p7_the_same_key_regenerates_once(self, site: Deployment) -> None:
        question = site.answers(*completion("Yes."))
        run = (await site.asked(question))["run"]
        path = f"/api/v1/messages/{run['message_id']}/regenerate"
        replies = [
            await site.server.post(path, {"stream": False}, Idempotency_Key="regenerate-1")
            for _ in range(2)
        ]
        assert replies[0].json == replies[1].json
        assert len(site.requests_for(question)) == 2

    async def test_the_answer_that_streams_is_the_active_version(self, site: Deployment) -> None:
        gate = asyncio.Event()
        question = site.question(
            script_of(*completion("Old.")),
            script_of(completion_chunk(content="Ne"), gate, *completion("w.")),
        )
        run = (await site.asked(question))["run"]
        path = f"/api/v1/messages/{run['message_id']}/regenerate"
        async with site.server.stream("POST", path, {}) as stream:
            await stream.read_text("Ne")
            listed = await site.server.get(f"/api/v1/sessions/{run['session_id']}/messages")
            gate.set()
            await stream.rest()
        answer = listed.json["items"][1]
        assert (answer["content"], answer["status"]) == ("Ne", "streaming")
        assert answer["id"] == stream.message_id
