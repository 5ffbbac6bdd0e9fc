"""`useChat` of the AI SDK, as it comes from npm, against a real server.

The versions are those of `tests/clients/node/package.json`: one of 6, one of 7, and 6.0.0, which
takes no field that it does not know.
"""

import asyncio
import itertools
import json
import signal
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.node import NodeClient
from tests.support.server import Deployment, script_of
from tests.support.upstream_server import Wire, completion, completion_chunk, event

OLD = "ai-6-strict"
VERSIONS = ["ai-6", "ai-7", OLD]

CHUNKS = [
    {"id": "c1", "content": "Kelp is large.", "document_id": "d1", "document_name": "kelp.pdf"},
    {"id": "c2", "content": "Tides turn.", "document_name": "Tides", "url": "https://tide.example"},
]


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    async with Deployment(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture(scope="module", params=VERSIONS)
async def client(request: pytest.FixtureRequest, site: Deployment) -> AsyncIterator["Client"]:
    async with Client(request.param, site.server.url) as client:
        yield client


class Client(NodeClient):
    """A browser with the AI SDK in it."""

    def __init__(self, version: str, url: str) -> None:
        super().__init__("chat.mjs", version, url)
        self.version = version
        self._numbers = itertools.count(1)

    async def page(self, chat: str | None = None, **given: Any) -> "Page":
        """A page with a chat: a new one, or one that was begun elsewhere."""
        page = Page(self, f"page-{next(self._numbers)}", chat or self.new_chat())
        await self.do("open", page=page.name, chat=page.chat, **given)
        return page

    async def reloaded(self, chat: str) -> "Page":
        """A page as it is after a reload: the history is loaded first."""
        query = "?resume=1" if self.version == OLD else ""
        messages = await self.do("history", chat=chat, query=query)
        return await self.page(chat, messages=messages)

    def new_chat(self) -> str:
        return f"chat {uuid.uuid4()}"


class Page:
    """A chat in the memory of one page."""

    def __init__(self, client: Client, name: str, chat: str) -> None:
        self.client = client
        self.name = name
        self.chat = chat

    async def do(self, command: str, **given: Any) -> Any:
        return await self.client.do(command, page=self.name, **given)

    async def ask(self, text: str, **given: Any) -> Any:
        """Send a question and wait for the end of its stream."""
        await self.do("send", text=text, **given)
        return await self.do("idle")


def roles(state: Any) -> list[str]:
    return [message["role"] for message in state["messages"]]


def parts(state: Any, kind: str) -> list[Any]:
    """The parts of a type of the last message."""
    return [part for part in state["messages"][-1]["parts"] if part["type"] == kind]


def text(state: Any) -> str:
    return "".join(part["text"] for part in parts(state, "text"))


def data(state: Any, name: str) -> Any:
    (part,) = parts(state, f"data-{name}")
    return part["data"]


def bare(messages: Any) -> list[Any]:
    """Messages without what differs between a stream and the history: metadata, and why it went
    where it went."""
    found = json.loads(json.dumps(messages))
    for message in found:
        message.pop("metadata", None)
        for part in message["parts"]:
            part.pop("id", None)
            if part["type"] == "data-run":
                part["data"].pop("route_reason", None)
    return list(found)


class TestAnAnswer:
    async def test_is_text(self, client: Client, site: Deployment) -> None:
        page = await client.page()
        state = await page.ask(site.answers(*completion("Kelp ", "holds ", "海带 🌿.")))
        assert (state["status"], state["errors"]) == ("ready", [])
        assert text(state) == "Kelp holds 海带 🌿."
        assert [part["state"] for part in parts(state, "text")] == ["done"]
        assert state["finishes"] == [
            {"isAbort": False, "isDisconnect": False, "isError": False, "finishReason": "stop"}
        ]
        assert data(state, "run")["status"] == "complete"

    async def test_grows_while_it_is_written(self, client: Client, site: Deployment) -> None:
        gate = asyncio.Event()
        question = site.answers(completion_chunk(content="Ha"), gate, *completion("lf."))
        page = await client.page()
        await page.do("send", text=question)
        state = await page.do("text", wanted="Ha")
        assert (state["status"], parts(state, "text")[0]["state"]) == ("streaming", "streaming")
        gate.set()
        assert text(await page.do("idle")) == "Half."

    async def test_has_reasoning_of_its_own(self, client: Client, site: Deployment) -> None:
        page = await client.page()
        question = site.answers(
            completion_chunk(reasoning_content="Hm"),
            completion_chunk(reasoning_content=", kelp."),
            *completion("It holds."),
        )
        state = await page.ask(question)
        assert [part["text"] for part in parts(state, "reasoning")] == ["Hm, kelp."]
        assert [part["state"] for part in parts(state, "reasoning")] == ["done"]
        assert text(state) == "It holds."

    async def test_p4_has_its_sources(self, client: Client, site: Deployment) -> None:
        page = await client.page()
        reference = {"chunks": CHUNKS}
        question = site.answers(
            completion_chunk(content="🌿 Large [ID:0]", reference=reference),
            *completion(", turning [ID:1]."),
        )
        state = await page.ask(question)
        assert state["errors"] == []
        (document,) = parts(state, "source-document")
        assert (document["title"], document["mediaType"]) == ("kelp.pdf", "application/pdf")
        (page_source,) = parts(state, "source-url")
        assert (page_source["title"], page_source["url"]) == ("Tides", "https://tide.example")
        citations = data(state, "citations")
        assert [one["text"] for one in citations["references"]] == ["Kelp is large.", "Tides turn."]
        units = text(state).encode("utf-16-le")
        marks = {
            units[start * 2 : end * 2].decode("utf-16-le"): ordinal
            for start, end, ordinal in citations["marks"]
        }
        assert marks == {"[1]": 1, "[2]": 2}

    async def test_can_be_a_tool_call(self, client: Client, site: Deployment) -> None:
        page = await client.page()
        call = {"index": 0, "id": "call_1", "type": "function"}
        first = {**call, "function": {"name": "weather", "arguments": '{"city":'}}
        rest = {"index": 0, "function": {"arguments": '"Bergen"}'}}
        question = site.answers(
            completion_chunk(tool_calls=[first]),
            completion_chunk(tool_calls=[rest]),
            completion_chunk("tool_calls"),
            event("[DONE]"),
        )
        state = await page.ask(question)
        assert state["errors"] == []
        (part,) = parts(state, "tool-weather")
        assert (part["state"], part["input"]) == ("input-available", {"city": "Bergen"})
        assert [one["toolCallId"] for one in state["tool_calls"]] == ["call_1"]
        assert state["finishes"][0]["finishReason"] == "tool-calls"

    async def test_p9_that_breaks_off_is_an_error_and_keeps_its_text(
        self, client: Client, site: Deployment
    ) -> None:
        page = await client.page()
        question = site.answers(
            completion_chunk(content="Ha"), event({"error": {"message": "overloaded"}})
        )
        state = await page.ask(question)
        assert state["status"] == "error"
        assert "overloaded" in state["error"]
        assert (text(state), parts(state, "text")[0]["state"]) == ("Ha", "done")
        assert data(state, "run")["outcome"] == "interrupted"

    async def test_p9_that_never_began_is_an_error(self, client: Client, site: Deployment) -> None:
        page = await client.page()
        state = await page.ask(site.answers())
        assert (state["status"], text(state)) == ("error", "")
        assert data(state, "run")["outcome"] == "failed"

    async def test_goes_on_in_the_same_chat(self, client: Client, site: Deployment) -> None:
        page = await client.page(only_last=True)
        await page.ask(site.answers(*completion("Kelp.")))
        question = site.answers(*completion("Tide."))
        state = await page.ask(question)
        assert roles(state) == ["user", "assistant", "user", "assistant"]
        assert len({message["id"] for message in state["messages"]}) == 4
        (request,) = site.requests_for(question)
        assert [one["content"] for one in request.json["messages"]][1:] == ["Kelp.", question]
        assert len({one["session"] for one in state["requests"]}) == 1

    async def test_can_be_chosen_where_it_comes_from(
        self, client: Client, site: Deployment
    ) -> None:
        page = await client.page(body={"model": "m2", "somethingElse": {"a": [1]}})
        question = site.answers(*completion("Yes."))
        state = await page.ask(question, body={"temperature": 0.5})
        assert text(state) == "Yes."
        (request,) = site.requests_for(question)
        assert (request.json["model"], request.json["temperature"]) == ("m2", 0.5)


class TestAReload:
    async def test_p5_in_the_middle_goes_on_without_a_doubled_message(
        self, client: Client, site: Deployment
    ) -> None:
        gate = asyncio.Event()
        question = site.answers(
            completion_chunk(reasoning_content="Hm"),
            completion_chunk(content="Ha", reference={"chunks": CHUNKS}),
            gate,
            *completion("lf."),
        )
        before = await client.page()
        await before.do("send", text=question)
        await before.do("text", wanted="Ha")
        after = await client.reloaded(before.chat)
        await after.do("resume")
        await after.do("status", wanted="streaming")
        state = await after.do("text", wanted="Ha")
        assert (roles(state), state["status"]) == (["user", "assistant"], "streaming")
        gate.set()
        first, second = await before.do("idle"), await after.do("idle")
        assert (second["status"], second["errors"]) == ("ready", [])
        assert bare(second["messages"]) == bare(first["messages"])
        assert len(site.requests_for(question)) == 1
        assert second["finishes"][0]["finishReason"] == "stop"

    async def test_p5_of_a_page_that_stopped_reading(
        self, client: Client, site: Deployment
    ) -> None:
        """`stop` is a disconnect: the answer is written on."""
        gate = asyncio.Event()
        question = site.answers(completion_chunk(content="Ha"), gate, *completion("lf."))
        before = await client.page()
        await before.do("send", text=question)
        await before.do("text", wanted="Ha")
        await before.do("stop")
        assert (await before.do("idle"))["status"] == "ready"
        after = await client.reloaded(before.chat)
        await after.do("resume")
        await after.do("status", wanted="streaming")
        gate.set()
        state = await after.do("idle")
        assert (roles(state), text(state)) == (["user", "assistant"], "Half.")

    async def test_afterwards_has_the_same_messages(self, client: Client, site: Deployment) -> None:
        before = await client.page()
        question = site.answers(
            completion_chunk(reasoning_content="Hm"),
            *completion("Kelp. "),
        )
        state = await before.ask(question)
        after = await client.reloaded(before.chat)
        found = await after.do("idle")
        assert bare(found["messages"]) == bare(state["messages"])

    async def test_with_nothing_running_resumes_nothing(
        self, client: Client, site: Deployment
    ) -> None:
        before = await client.page()
        await before.ask(site.answers(*completion("Kelp.")))
        for chat in (before.chat, client.new_chat()):
            page = await client.reloaded(chat)
            messages = (await page.do("idle"))["messages"]
            await page.do("resume")
            state = await page.do("idle")
            assert (state["status"], state["errors"]) == ("ready", [])
            assert [one["status"] for one in state["requests"]] == [204]
            assert state["messages"] == messages

    @pytest.mark.parametrize("version", ["ai-6", "ai-7"])
    async def test_p5_shows_the_text_so_far_before_it_resumes(
        self, site: Deployment, version: str
    ) -> None:
        gate = asyncio.Event()
        question = site.answers(completion_chunk(content="Ha"), gate, *completion("lf."))
        async with Client(version, site.server.url) as client:
            before = await client.page()
            await before.do("send", text=question)
            await before.do("text", wanted="Ha")
            messages = await client.do("history", chat=before.chat)
            assert messages[-1]["metadata"]["status"] == "streaming"
            after = await client.page(before.chat, messages=messages)
            assert text(await after.do("idle")) == "Ha"
            await after.do("resume")
            await after.do("status", wanted="streaming")
            gate.set()
            state = await after.do("idle")
            assert (roles(state), text(state)) == (["user", "assistant"], "Half.")

    async def test_p5_that_resumes_too_late_can_still_get_the_whole_answer(
        self, client: Client, site: Deployment
    ) -> None:
        """Between loading the history and resuming, the answer came to its end."""
        gate = asyncio.Event()
        question = site.answers(completion_chunk(content="Ha"), gate, *completion("lf."))
        before = await client.page()
        await before.do("send", text=question)
        await before.do("text", wanted="Ha")
        query = "?resume=1" if client.version == OLD else ""
        messages = await client.do("history", chat=before.chat, query=query)
        gate.set()
        await before.do("idle")
        after = await client.page(before.chat, messages=messages, exact=True)
        await after.do("resume")
        state = await after.do("idle")
        assert (roles(state), text(state)) == (["user", "assistant"], "Half.")
        assert [one["status"] for one in state["requests"]] == [200]


class TestStop:
    async def test_p10_ends_the_run_and_keeps_its_text(
        self, client: Client, site: Deployment
    ) -> None:
        left = site.upstream.closed_early
        page = await client.page()
        question = site.answers(completion_chunk(content="Ha"), Wire.STALL)
        await page.do("send", text=question)
        await page.do("text", wanted="Ha")
        assert await client.do("stop_on_server", chat=page.chat) == 204
        await site.upstream.client_left(left + 1)
        state = await page.do("idle")
        assert (state["status"], state["errors"]) == ("ready", [])
        assert (text(state), parts(state, "text")[0]["state"]) == ("Ha", "done")
        assert data(state, "run")["outcome"] == "cancelled"
        after = await client.reloaded(page.chat)
        assert bare((await after.do("idle"))["messages"]) == bare(state["messages"])

    async def test_p10_reaches_every_page(self, client: Client, site: Deployment) -> None:
        page = await client.page()
        await page.do("send", text=site.answers(completion_chunk(content="Ha"), Wire.STALL))
        await page.do("text", wanted="Ha")
        other = await client.reloaded(page.chat)
        await other.do("resume")
        await other.do("text", wanted="Ha")
        await client.do("stop_on_server", chat=page.chat)
        for one in (page, other):
            assert (await one.do("idle"))["status"] == "ready"

    async def test_of_nothing_is_no_error(self, client: Client, site: Deployment) -> None:
        page = await client.page()
        assert await client.do("stop_on_server", chat=page.chat) == 204
        await page.ask(site.answers(*completion("Kelp.")))
        assert await client.do("stop_on_server", chat=page.chat) == 204


class TestAskingAgain:
    async def test_p7_after_the_connection_was_lost_asks_nothing(
        self, client: Client, site: Deployment
    ) -> None:
        """The page sends its messages once more: it cannot know that they had arrived."""
        gate = asyncio.Event()
        question = site.answers(completion_chunk(content="Ha"), gate, *completion("lf."))
        page = await client.page()
        await page.do("send", text=question)
        await page.do("text", wanted="Ha")
        await page.do("stop")
        state = await page.do("idle")
        again = await client.page(page.chat, messages=state["messages"][:1])
        await again.do("submit")
        await again.do("text", wanted="Ha")
        gate.set()
        state = await again.do("idle")
        assert (text(state), roles(state)) == ("Half.", ["user", "assistant"])
        assert len(site.requests_for(question)) == 1

    async def test_p7_for_an_answer_that_is_there_asks_nothing(
        self, client: Client, site: Deployment
    ) -> None:
        question = site.answers(*completion("Kelp."))
        page = await client.page()
        first = await page.ask(question)
        again = await client.page(page.chat, messages=first["messages"][:1])
        await again.do("submit")
        state = await again.do("idle")
        assert bare(state["messages"]) == bare(first["messages"])
        assert len(site.requests_for(question)) == 1

    async def test_in_a_busy_chat_is_told_in_words(self, client: Client, site: Deployment) -> None:
        page = await client.page()
        await page.do("send", text=site.answers(completion_chunk(content="Ha"), Wire.STALL))
        await page.do("text", wanted="Ha")
        other = await client.page(page.chat)
        state = await other.ask(site.answers(*completion("No.")))
        assert state["status"] == "error"
        assert state["error"] == (
            "An answer is still being written in this chat; stop it or wait for its end"
        )
        assert [one["status"] for one in state["requests"]] == [409]
        await client.do("stop_on_server", chat=page.chat)

    async def test_regenerates_the_last_answer_and_keeps_the_old_one(
        self, client: Client, site: Deployment
    ) -> None:
        question = site.question(
            script_of(*completion("One.")), script_of(*completion("Two.")), script_of()
        )
        page = await client.page()
        first = await page.ask(question)
        old = first["messages"][-1]["id"]
        await page.do("regenerate")
        state = await page.do("idle")
        assert (text(state), roles(state)) == ("Two.", ["user", "assistant"])
        new = state["messages"][-1]["id"]
        assert new != old
        history = await client.do("history", chat=page.chat)
        assert [one["id"] for one in history] == [one["id"] for one in state["messages"]]
        assert history[-1]["metadata"]["versions"] == [old, new]
        kept = (await site.server.get(f"/api/v1/messages/{old}")).json
        assert kept["content"] == "One."

    async def test_regenerates_after_an_error(self, client: Client, site: Deployment) -> None:
        question = site.question(script_of(), script_of(*completion("Now.")))
        page = await client.page()
        assert (await page.ask(question))["status"] == "error"
        await page.do("regenerate")
        state = await page.do("idle")
        assert (state["status"], text(state)) == ("ready", "Now.")
        history = await client.do("history", chat=page.chat)
        assert [one["role"] for one in history] == ["user", "assistant"]

    async def test_with_an_edited_question_replaces_it(
        self, client: Client, site: Deployment
    ) -> None:
        page = await client.page()
        await page.ask(site.answers(*completion("One.")))
        state = await page.ask(site.answers(*completion("Old.")))
        edited = site.answers(*completion("New."))
        state = await page.ask(edited, message_id=state["messages"][2]["id"])
        assert (text(state), len(state["messages"])) == ("New.", 4)
        after = await client.reloaded(page.chat)
        assert bare((await after.do("idle"))["messages"]) == bare(state["messages"])


@pytest.mark.parametrize("version", VERSIONS)
async def test_p2_the_death_of_the_server_is_told_and_loses_nothing(
    tmp_path: Path, version: str
) -> None:
    async with Deployment(tmp_path) as site, Client(version, site.server.url) as client:
        question = site.answers(completion_chunk(content="Ha"), Wire.STALL)
        page = await client.page()
        await page.do("send", text=question)
        await page.do("text", wanted="Ha")
        site.server.signal(signal.SIGKILL)
        state = await page.do("idle")
        assert (state["status"], text(state)) == ("error", "Ha")
        assert [one["isError"] for one in state["finishes"]] == [True]

        await site.restart()
        after = await client.reloaded(page.chat)
        await after.do("resume")
        found = await after.do("idle")
        assert (found["status"], found["errors"]) == ("ready", [])
        assert [one["status"] for one in found["requests"]] == [204]
        assert [one["id"] for one in found["messages"]] == [one["id"] for one in state["messages"]]
        assert text(found) == "Ha"
        assert data(found, "run")["reason"] == "server_crash"
        assert len(site.requests_for(question)) == 1
