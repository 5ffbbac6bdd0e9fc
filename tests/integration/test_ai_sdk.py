"""The AI SDK surface over real sockets; `tests/clients` has the clients themselves."""

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.support.raw_client import EventStream, Reply
from tests.support.server import Deployment, script_of
from tests.support.ui_message_stream import Seen, read
from tests.support.upstream_server import Wire, completion, completion_chunk

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    async with Deployment(tmp_path_factory.mktemp("site")) as site:
        yield site


def new_chat() -> str:
    return str(uuid.uuid4())


def said(text: str, name: str | None = None, role: str = "user", **more: Any) -> dict[str, Any]:
    """A UI message."""
    message = {"role": role, "parts": [{"type": "text", "text": text}], **more}
    return message if name is None else {"id": name, **message}


def asking(text: str, chat: str | None = None, **more: Any) -> dict[str, Any]:
    """What `useChat` sends for a new question."""
    message = said(text, f"question-{next(_numbers)}")
    body = {"messages": [message], "trigger": "submit-message", **more}
    return body if chat is None else {"id": chat, **body}


async def post(site: Deployment, body: Any, **headers: str) -> Reply:
    return await site.server.post("/api/chat", body, **headers)


async def answered(site: Deployment, body: Any, **headers: str) -> Seen:
    """What a client has after the stream of an answer."""
    reply = await post(site, body, **headers)
    assert reply.status == 200, reply
    return read(reply.body)


@asynccontextmanager
async def streaming(
    site: Deployment, body: Any, text: str, **headers: str
) -> AsyncIterator[EventStream]:
    """A stream of which `text` has come."""
    async with site.server.stream("POST", "/api/chat", body, **headers) as stream:
        await read_to(stream, text)
        yield stream


async def read_to(stream: EventStream, text: str) -> None:
    while read(bytes(stream.body), whole=False).text != text:
        assert await stream.next() is not None


async def rest(stream: EventStream) -> Seen:
    await stream.rest()
    return read(bytes(stream.body))


async def history(site: Deployment, chat: str, query: str = "") -> Any:
    reply = await site.server.get(f"/api/chat/{chat}/messages{query}")
    assert reply.status == 200, reply
    return reply.json


def texts(messages: Any) -> list[str]:
    return [
        "".join(part["text"] for part in message["parts"] if part["type"] == "text")
        for message in messages
    ]


def refused(reply: Reply, status: int, code: str) -> str:
    """The words of a refusal."""
    assert (reply.status, reply.headers["x-holdfast-error"]) == (status, code), reply
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    return reply.body.decode()


class TestAQuestion:
    async def test_is_answered_by_a_ui_message_stream(self, site: Deployment) -> None:
        chat = new_chat()
        reply = await post(site, asking(site.answers(*completion("Kelp ", "holds.")), chat))
        assert reply.headers["x-vercel-ai-ui-message-stream"] == "v1"
        assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert reply.headers["cache-control"] == "no-cache, no-transform"
        assert reply.headers["x-accel-buffering"] == "no"
        seen = read(reply.body)
        assert (seen.text, seen.id) == ("Kelp holds.", reply.headers["x-holdfast-message"])
        run = seen.data("run")
        assert run["run_id"] == reply.headers["x-holdfast-run"]
        assert run["session_id"] == chat

    async def test_can_come_as_the_last_message_alone(self, site: Deployment) -> None:
        question = site.answers(*completion("Yes."))
        seen = await answered(site, {"id": new_chat(), "message": said(question, "q1")})
        assert seen.text == "Yes."

    async def test_is_the_text_of_the_last_message(self, site: Deployment) -> None:
        question = site.answers(*completion("Yes."))
        first, second = question.split(" ")
        parts = [
            {"type": "text", "text": first, "state": "done"},
            {"type": "data-mood", "data": {"text": 1}},
            {"type": "text", "text": second},
        ]
        last = {"id": "q2", "role": "user", "parts": parts}
        messages = [said("Earlier?", "q1"), said("Yes.", "a1", "assistant"), last]
        await answered(site, {"id": new_chat(), "messages": messages})
        (request,) = [
            one
            for one in site.upstream.requests
            if one.method == "POST" and one.json["messages"][-1]["content"] == f"{first}\n{second}"
        ]
        assert len(request.json["messages"]) == 1  # the history is the server's own

    async def test_p4_is_kept_with_its_answer(self, site: Deployment) -> None:
        chat = new_chat()
        body = asking(site.answers(*completion("Yes.")), chat)
        body["messages"][0]["metadata"] = {"mood": "curious"}
        seen = await answered(site, body)
        question, answer = await history(site, chat)
        assert question == {**body["messages"][0], "role": "user"}
        assert (answer["id"], answer["role"]) == (seen.id, "assistant")
        assert answer["metadata"]["status"] == "complete"
        assert texts([answer]) == ["Yes."]

    async def test_without_a_chat_begins_one(self, site: Deployment) -> None:
        reply = await post(site, asking(site.answers(*completion("Yes."))))
        session = reply.headers["x-holdfast-session"]
        assert read(reply.body).data("run")["session_id"] == session
        again = await post(site, asking(site.answers(*completion("And yes.")), session))
        assert again.headers["x-holdfast-session"] == session
        assert texts(await history(site, session))[1::2] == ["Yes.", "And yes."]

    async def test_goes_on_in_a_session_of_another_surface(self, site: Deployment) -> None:
        run = (await site.asked(site.answers(*completion("One."))))["run"]
        chat = run["session_id"]
        await answered(site, asking(site.answers(*completion("Two.")), chat))
        messages = await history(site, chat)
        assert messages[0]["id"] == run["question_id"]
        assert texts(messages)[1::2] == ["One.", "Two."]

    async def test_is_asked_as_the_body_says(self, site: Deployment) -> None:
        question = site.answers(*completion("Yes."))
        options = {"model": "m9", "temperature": 0.1, "max_tokens": 7, "system": "Be brief."}
        await answered(site, asking(question, new_chat(), **options, unknown={"a": 1}))
        (request,) = site.requests_for(question)
        asked = request.json
        assert (asked["model"], asked["temperature"], asked["max_tokens"]) == ("m9", 0.1, 7)
        assert asked["messages"][0] == {"role": "system", "content": "Be brief."}

    async def test_may_come_with_a_long_chat(self, site: Deployment) -> None:
        long = [said("x" * 100_000, f"old-{n}", "assistant") for n in range(40)]
        body = asking(site.answers(*completion("Yes.")), new_chat())
        body["messages"] = [*long, *body["messages"]]
        assert (await answered(site, body)).text == "Yes."

    async def test_p6_is_answered_to_the_end_if_its_client_leaves(self, site: Deployment) -> None:
        gate, chat = asyncio.Event(), new_chat()
        question = site.answers(completion_chunk(content="Ha"), gate, *completion("lf."))
        async with streaming(site, asking(question, chat), "Ha") as stream:
            pass
        gate.set()
        await site.server.ended(stream.run_id)
        assert texts(await history(site, chat))[-1] == "Half."

    async def test_p9_whose_answer_is_cut_off_ends_with_an_error(self, site: Deployment) -> None:
        chat = new_chat()
        question = site.answers(completion_chunk(content="Ha"), Wire.RESET)
        seen = await answered(site, asking(question, chat))
        assert seen.ending is not None
        assert seen.ending["type"] == "error"
        assert (seen.text, seen.data("run")["status"]) == ("Ha", "partial")
        answer = (await history(site, chat))[-1]
        assert answer["parts"][1]["data"]["error"] == seen.ending["errorText"]
        assert texts([answer]) == ["Ha"]


class TestRefusals:
    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"id": "c", "messages": []},
            {"id": "c", "messages": [1]},
            {"id": "c", "messages": ["Why?"]},
            {"id": "c", "messages": [{"role": "user", "content": "Why?"}]},
            {"id": "c", "messages": [said("Why?", role="assistant")]},
            {"id": "c", "messages": [said("Why?", role="system")]},
            {"id": "c", "messages": [said("")]},
            {"id": "c", "messages": [said("Why?", name="")]},
            {"id": "c", "messages": [said("Why?", name="n" * 256)]},
            {"id": "c", "messages": [said("Why?", metadata="m")]},
            {"id": "c", "messages": [said("Why?", "q", metadata={"m": "m" * 20_000})]},
            {"id": "c", "message": {"role": "user", "parts": [{"type": "text", "text": 1}]}},
            {"id": "", "messages": [said("Why?")]},
            {"id": "a/b", "messages": [said("Why?")]},
            {"id": ".", "messages": [said("Why?")]},
            {"id": "..", "messages": [said("Why?")]},
            {"id": "c" * 256, "messages": [said("Why?")]},
            {"id": "a\nb", "messages": [said("Why?")]},
            {"id": "a\x00b", "messages": [said("Why?")]},
            {"id": "a\x9fb", "messages": [said("Why?")]},
            {"id": "c", "messages": [said("Why?", "q\x7f")]},
            {"id": "c", "messages": [said("Why?", "q" * 256)]},
            {"id": 7, "messages": [said("Why?")]},
            {"id": "c", "messages": [said("Why?")], "trigger": "other"},
            {"id": "c", "messages": [said("Why?")], "temperature": "hot"},
            {"id": "c", "messages": [said("Why?")], "upstream": "nobody"},
            b"{",
            b"[]",
            b'{"messages":[{"role":"user","parts":[{"type":"text","text":"\\ud800"}]}]}',
        ],
    )
    async def test_are_told_in_words(self, site: Deployment, body: Any) -> None:
        asked = len(site.upstream.requests)
        words = refused(await post(site, body), 400, "bad_request")
        assert words[0].isupper() or not words[0].isalpha()
        assert "{" not in words
        assert len(site.upstream.requests) == asked

    async def test_of_files_are_told_instead_of_passing_them_over(self, site: Deployment) -> None:
        message = said("What is this?", "q1")
        message["parts"] += [{"type": "file", "mediaType": "image/png", "url": "data:,x"}]
        reply = await post(site, {"id": new_chat(), "messages": [message]})
        assert refused(reply, 400, "bad_request") == (
            "Files cannot be asked about here; send text only"
        )

    async def test_of_outputs_of_tools_are_told(self, site: Deployment) -> None:
        """Else `sendAutomaticallyWhen` would ask for the same answer for ever."""
        chat = new_chat()
        body = asking(site.answers(*completion("Yes.")), chat)
        await answered(site, body)
        body["messages"].append(said("", "a1", "assistant"))
        assert "tools" in refused(await post(site, body), 400, "bad_request")

    async def test_of_large_bodies(self, site: Deployment) -> None:
        body = asking("Why?", new_chat(), padding="x" * 8_000_000)
        refused(await post(site, body), 413, "too_large")
        refused(await post(site, asking("x" * 200_001, new_chat())), 413, "too_large")

    async def test_of_bodies_that_are_no_json(self, site: Deployment) -> None:
        reply = await post(site, b"Why?", Content_Type="text/plain")
        refused(reply, 415, "unsupported_media_type")

    async def test_of_other_methods(self, site: Deployment) -> None:
        reply = await site.server.get("/api/chat")
        refused(reply, 405, "method_not_allowed")
        assert reply.headers["allow"] == "POST"

    async def test_of_a_busy_chat_name_the_run(self, site: Deployment) -> None:
        chat = new_chat()
        question = site.answers(completion_chunk(content="Ha"), Wire.STALL)
        async with streaming(site, asking(question, chat), "Ha") as stream:
            reply = await post(site, asking("And now?", chat))
            words = refused(reply, 409, "run_active")
            assert words == (
                "An answer is still being written in this chat; stop it or wait for its end"
            )
            assert reply.headers["x-holdfast-run"] == stream.run_id
            other = site.answers(*completion("Now."))
            seen = await answered(site, asking(other, chat, on_busy="cancel"))
            assert seen.text == "Now."
            ending = (await rest(stream)).ending
            assert ending == {"type": "abort"}


class TestAskingAgain:
    async def test_p7_joins_the_run_while_it_is_live(self, site: Deployment) -> None:
        gate = asyncio.Event()
        question = site.answers(completion_chunk(content="Ha"), gate, *completion("lf."))
        body = asking(question, new_chat())
        async with streaming(site, body, "Ha") as first, streaming(site, body, "Ha") as second:
            assert second.run_id == first.run_id
            gate.set()
            one, other = await rest(first), await rest(second)
        assert (one.id, one.parts) == (other.id, other.parts)
        assert len(site.requests_for(question)) == 1

    async def test_p7_afterwards_gives_the_same_answer(self, site: Deployment) -> None:
        question = site.answers(*completion("Yes."))
        body = asking(question, new_chat())
        first, again = await answered(site, body), await answered(site, body)
        assert (first.id, first.parts) == (again.id, again.parts)
        assert len(site.requests_for(question)) == 1

    async def test_p7_of_many_at_once_one_asks(self, site: Deployment) -> None:
        question = site.answers(*completion("Yes."))
        body = asking(question, new_chat())
        found = await asyncio.gather(*(answered(site, body) for _ in range(10)))
        assert len({seen.id for seen in found}) == 1
        assert len(site.requests_for(question)) == 1

    async def test_p7_with_more_of_the_chat_is_the_same_question(self, site: Deployment) -> None:
        question = site.answers(*completion("Yes."))
        body = asking(question, new_chat())
        first = await answered(site, body)
        alone = {"id": body["id"], "message": body["messages"][0]}
        longer = {**body, "messages": [said("Hello", "m0", "assistant"), *body["messages"]]}
        for other in (alone, longer, {**body, "messageId": body["messages"][0]["id"]}):
            assert (await answered(site, other)).id == first.id
        assert len(site.requests_for(question)) == 1

    async def test_p7_with_another_text_is_refused(self, site: Deployment) -> None:
        body = asking(site.answers(*completion("Yes.")), new_chat())
        await answered(site, body)
        body["messages"] = [said("Another?", body["messages"][0]["id"])]
        refused(await post(site, body), 422, "idempotency_mismatch")

    async def test_in_another_chat_is_another_question(self, site: Deployment) -> None:
        question = site.answers(*completion("Yes."))
        body = asking(question, new_chat())
        first = await answered(site, body)
        assert (await answered(site, {**body, "id": new_chat()})).id != first.id

    async def test_without_ids_asks_again(self, site: Deployment) -> None:
        question = site.answers(*completion("Yes."))
        body = {"id": new_chat(), "messages": [said(question)]}
        first = await answered(site, body)
        assert (await answered(site, body)).id != first.id

    async def test_p7_a_key_of_the_callers_own_counts_more(self, site: Deployment) -> None:
        question = site.answers(*completion("Yes."))
        chat = new_chat()
        first, other = asking(question, chat), asking(question, chat)
        first["messages"][0]["id"] = other["messages"][0]["id"] = "same"
        one = await answered(site, first, Idempotency_Key=f"{chat} 1")
        two = await answered(site, other, Idempotency_Key=f"{chat} 2")
        again = await answered(site, first, Idempotency_Key=f"{chat} 1")
        assert one.id == again.id != two.id

    async def test_p7_last_event_id_means_nothing_here(self, site: Deployment) -> None:
        question = site.answers(*completion("Yes."))
        body = asking(question, new_chat())
        seen = await answered(site, body, Last_Event_ID="01-nonsense.3")
        assert seen.text == "Yes."

    async def test_an_edited_question_replaces_what_came_after_it(self, site: Deployment) -> None:
        chat = new_chat()
        first = asking(site.answers(*completion("One.")), chat)
        second = asking(site.answers(*completion("Two.")), chat)
        await answered(site, first)
        await answered(site, second)
        name = first["messages"][0]["id"]
        question = site.answers(*completion("New."))
        edited = {"id": chat, "messages": [said(question, name)], "messageId": name}
        seen = await answered(site, edited)
        again = await answered(site, edited)
        assert seen.id == again.id
        assert len(site.requests_for(question)) == 1
        messages = await history(site, chat)
        assert [message["id"] for message in messages] == [name, seen.id]
        third = asking(site.answers(*completion("Three.")), chat)
        await answered(site, third)
        assert texts(await history(site, chat))[1::2] == ["New.", "Three."]
        # Nothing is lost: it is only not shown.
        kept = await site.server.get(f"/api/v1/sessions/{await session_of(site, chat)}/messages")
        assert len(kept.json["items"]) == 8


async def session_of(site: Deployment, chat: str) -> str:
    reply = await site.server.get(f"/api/chat/{chat}/messages")
    return reply.headers["x-holdfast-session"]


class TestRegenerating:
    async def test_keeps_the_old_answer_as_a_version(self, site: Deployment) -> None:
        chat = new_chat()
        question = site.question(*(script_of(*completion(text)) for text in ("1", "2", "3", "4")))
        body = asking(question, chat)
        name = body["messages"][0]["id"]
        ids = [(await answered(site, body)).id]
        again = {**body, "trigger": "regenerate-message"}
        for meant in (None, ids[0], name):
            seen = await answered(site, {**again, "messageId": meant})
            ids += [seen.id]
        messages = await history(site, chat)
        assert (len(messages), texts(messages)[-1]) == (2, "4")
        assert messages[-1]["metadata"]["versions"] == ids
        assert len(site.requests_for(question)) == 4

    async def test_of_an_earlier_answer_leaves_the_later_ones(self, site: Deployment) -> None:
        chat = new_chat()
        question = site.question(script_of(*completion("One.")), script_of(*completion("Two.")))
        first = await answered(site, asking(question, chat))
        await answered(site, asking(site.answers(*completion("Later.")), chat))
        body = {"id": chat, "trigger": "regenerate-message", "messageId": first.id}
        assert (await answered(site, body)).text == "Two."
        assert texts(await history(site, chat))[1::2] == ["Two.", "Later."]

    async def test_without_saying_what_means_the_last_answer(self, site: Deployment) -> None:
        chat = new_chat()
        await answered(site, asking(site.answers(*completion("Earlier.")), chat))
        question = site.question(script_of(*completion("One.")), script_of(*completion("Two.")))
        await answered(site, asking(question, chat))
        body = {"id": chat, "trigger": "regenerate-message"}
        assert (await answered(site, body)).text == "Two."

    async def test_of_a_question_that_never_came_asks_it(self, site: Deployment) -> None:
        question = site.answers(*completion("Yes."))
        body = {**asking(question, new_chat()), "trigger": "regenerate-message"}
        first = await answered(site, body)
        assert first.text == "Yes."
        later = asking(site.answers(*completion("And yes.")), body["id"])
        assert (await answered(site, {**later, "trigger": "regenerate-message"})).text == "And yes."
        assert len(await history(site, body["id"])) == 4
        # The first request, which was thought to be lost, arrives after all.
        again = await answered(site, {**body, "trigger": "submit-message"})
        assert again.id == first.id

    @pytest.mark.parametrize("meant", [None, "nope"])
    async def test_of_nothing_is_refused(self, site: Deployment, meant: str | None) -> None:
        body = {"id": new_chat(), "trigger": "regenerate-message", "messageId": meant}
        refused(await post(site, body), 404, "not_found")
        refused(await post(site, {**body, "id": None}), 404, "not_found")

    async def test_of_a_message_of_another_chat_is_refused(self, site: Deployment) -> None:
        other = await answered(site, asking(site.answers(*completion("Yes.")), new_chat()))
        chat = new_chat()
        await answered(site, asking(site.answers(*completion("Here.")), chat))
        body = {"id": chat, "trigger": "regenerate-message", "messageId": other.id}
        refused(await post(site, body), 404, "not_found")

    async def test_p7_with_a_key_asks_once(self, site: Deployment) -> None:
        chat = new_chat()
        question = site.answers(*completion("Yes."))
        first = await answered(site, asking(question, chat))
        body = {"id": chat, "trigger": "regenerate-message", "messageId": first.id}
        one = await answered(site, body, Idempotency_Key=chat)
        two = await answered(site, body, Idempotency_Key=chat)
        assert first.id != one.id == two.id
        assert len(site.requests_for(question)) == 2


class TestResuming:
    async def test_p5_gives_the_whole_answer_from_its_start(self, site: Deployment) -> None:
        gate, chat = asyncio.Event(), new_chat()
        question = site.answers(
            completion_chunk(reasoning_content="Hm"),
            completion_chunk(content="Ha"),
            gate,
            *completion("lf."),
        )
        async with (
            streaming(site, asking(question, chat), "Ha") as first,
            site.server.stream("GET", f"/api/chat/{chat}/stream") as second,
        ):
            await read_to(second, "Ha")
            assert second.headers["x-vercel-ai-ui-message-stream"] == "v1"
            assert second.run_id == first.run_id
            gate.set()
            one, other = await rest(first), await rest(second)
        assert (one.id, one.parts) == (other.id, other.parts)
        assert other.reasoning == "Hm"

    async def test_of_nothing_is_204(self, site: Deployment) -> None:
        chat = new_chat()
        path = f"/api/chat/{chat}/stream"
        assert (await site.server.get(path)).status == 204
        await answered(site, asking(site.answers(*completion("Yes.")), chat))
        assert (await site.server.get(path)).status == 204

    async def test_p5_of_an_answer_by_name_gives_it_even_if_it_has_ended(
        self, site: Deployment
    ) -> None:
        chat = new_chat()
        seen = await answered(site, asking(site.answers(*completion("Yes.")), chat))
        path = f"/api/chat/{chat}/stream?message="
        again = read((await site.server.get(path + str(seen.id))).body)
        assert (again.id, again.parts) == (seen.id, seen.parts)
        question = (await history(site, chat))[0]["id"]
        other = await answered(site, asking(site.answers(*completion("Yes.")), new_chat()))
        for name in ("nope", question, other.id):
            assert (await site.server.get(path + str(name))).status == 204
        assert (await site.server.get(f"/api/chat/x/stream?message={seen.id}")).status == 204

    async def test_finds_chats_whatever_their_names_are(self, site: Deployment) -> None:
        chat = f"Chat Nr. 1: 海带? &#% {new_chat()}"
        question = site.answers(completion_chunk(content="Ha"), Wire.STALL)
        quoted = "".join(f"%{byte:02X}" for byte in chat.encode())
        async with streaming(site, asking(question, chat), "Ha"):
            async with site.server.stream("GET", f"/api/chat/{quoted}/stream") as second:
                await read_to(second, "Ha")
            assert (await site.server.post(f"/api/chat/{quoted}/stop")).status == 204
        assert texts(await history(site, quoted))[-1] == "Ha"

    async def test_by_head_reads_nothing(self, site: Deployment) -> None:
        chat = new_chat()
        question = site.answers(completion_chunk(content="Ha"), Wire.STALL)
        async with streaming(site, asking(question, chat), "Ha"):
            async with site.server.connect() as connection:
                await connection.send(site.server.request("HEAD", f"/api/chat/{chat}/stream"))
                status, headers = await connection.head()
            assert (status, headers["x-vercel-ai-ui-message-stream"]) == (200, "v1")
            await site.server.post(f"/api/chat/{chat}/stop")


class TestStopping:
    async def test_p10_closes_the_upstream_and_keeps_the_text(self, site: Deployment) -> None:
        chat, left = new_chat(), site.upstream.closed_early
        question = site.answers(completion_chunk(content="Ha"), Wire.STALL)
        async with streaming(site, asking(question, chat), "Ha") as stream:
            reply = await site.server.post(f"/api/chat/{chat}/stop")
            assert (reply.status, reply.headers["x-holdfast-run"]) == (204, stream.run_id)
            await site.upstream.client_left(left + 1)
            seen = await rest(stream)
        assert seen.ending == {"type": "abort"}
        assert [part["state"] for part in seen.of("text")] == ["done"]
        answer = (await history(site, chat))[-1]
        assert texts([answer]) == ["Ha"]
        assert answer["metadata"]["status"] == "partial"

    async def test_p10_needs_no_body(self, site: Deployment) -> None:
        reply = await site.server.call("POST", f"/api/chat/{new_chat()}/stop")
        assert reply.status == 204

    async def test_p10_works_on_the_native_surface_too(self, site: Deployment) -> None:
        question = site.answers(completion_chunk(content="Ha"), Wire.STALL)
        async with streaming(site, asking(question, new_chat()), "Ha") as stream:
            await site.server.post(f"/api/v1/runs/{stream.run_id}/cancel")
            assert (await rest(stream)).ending == {"type": "abort"}


class TestTheHistory:
    async def test_of_a_chat_that_is_not_known_is_empty(self, site: Deployment) -> None:
        assert await history(site, new_chat()) == []

    async def test_has_the_answer_so_far_while_it_is_written(self, site: Deployment) -> None:
        gate, chat = asyncio.Event(), new_chat()
        question = site.answers(completion_chunk(content="Ha"), gate, *completion("lf."))
        async with streaming(site, asking(question, chat), "Ha") as stream:
            answer = (await history(site, chat))[-1]
            assert (answer["id"], texts([answer])) == (stream.message_id, ["Ha"])
            assert answer["metadata"]["status"] == "streaming"
            bare = (await history(site, chat, "?resume=1"))[-1]
            assert bare == {**answer, "parts": []}
            gate.set()
            await stream.rest()
        assert texts(await history(site, chat, "?resume=1"))[-1] == "Half."

    async def test_of_a_long_chat_has_all_pages(self, site: Deployment) -> None:
        chat, turns = new_chat(), 101
        for number in range(turns):
            await answered(site, asking(f"Question number {number}?", chat))
        messages = await history(site, chat)
        assert len(messages) == 2 * turns > 200
        assert texts(messages)[-2] == f"Question number {turns - 1}?"
        assert await history(site, chat, "?limit=3") == messages[-3:]

    async def test_refuses_a_limit_that_is_none(self, site: Deployment) -> None:
        for limit in ("0", "1001", "x", "-1"):
            reply = await site.server.get(f"/api/chat/c/messages?limit={limit}")
            refused(reply, 400, "bad_request")

    async def test_of_a_deleted_session_is_empty(self, site: Deployment) -> None:
        chat = new_chat()
        body = asking(site.answers(*completion("Yes.")), chat)
        first = await answered(site, body)
        await site.server.call("DELETE", f"/api/v1/sessions/{await session_of(site, chat)}")
        assert await history(site, chat) == []
        assert (await answered(site, body)).id != first.id

    async def test_takes_metadata_of_other_surfaces_as_they_are(self, site: Deployment) -> None:
        metadata = {"ai-sdk": "mine", "other": 1}
        run = (await site.asked("Why?", metadata=metadata))["run"]
        question = (await history(site, run["session_id"]))[0]
        assert question["id"] == run["question_id"]
