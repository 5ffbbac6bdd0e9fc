"""The programs that people have, unmodified, on the dialects that were made for them.

Each after a normal end, after it has left, after an upstream that broke, and after `kill -9` of the
server, always in the middle of an answer. What it showed is in the history each time.
"""

import asyncio
import json
import signal
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.client_process import ClientProcess
from tests.support.frames import messages_of
from tests.support.server import Deployment
from tests.support.upstream_server import Wire, completion, completion_chunk, whole

PEOPLE = Path(__file__).parent / "people"
CHUNKS = [{"id": "c1", "document_id": "d1", "document_name": "海带.md", "content": "A root."}]
REFERENCES = completion_chunk(content="", reference={"chunks": CHUNKS})
FIRST = "海带 🌊 "
LAST = "holds “fast” [1]."


class Client(ABC):
    """A program and how to understand what it shows."""

    survives = True
    """Whether it comes to its own end when the server dies."""

    @abstractmethod
    async def command(self, site: Deployment, question: str) -> list[str]:
        """Its command line."""

    @abstractmethod
    def text(self, shown: bytes) -> str:
        """The answer's text in what it has shown."""

    async def reload(self, site: Deployment) -> list[dict[str, Any]]:
        """The conversation, when it is opened again."""
        sessions = (await site.server.get("/api/v1/sessions?limit=1")).json["items"]
        path = f"/api/v1/sessions/{sessions[0]['id']}/messages"
        found: list[dict[str, Any]] = (await site.server.get(path)).json["items"]
        return found


class ChatPage(Client):
    """A page that parses each read by itself and at `[DONE]` loads the conversation again."""

    survives = False
    program = str(PEOPLE / "chat_page.mjs")

    async def command(self, site: Deployment, question: str) -> list[str]:
        session = (await site.server.post("/api/v1/sessions")).json["id"]
        self.known = [site.server.url, session]
        return ["node", self.program, *self.known, "send", question]

    def text(self, shown: bytes) -> str:
        shows = self.shows(shown)
        return shows[-1][-1]["content"] if shows else ""

    @staticmethod
    def shows(shown: bytes) -> list[Any]:
        return [json.loads(line) for line in shown.split(b"\n")[:-1]]

    async def reload(self, site: Deployment) -> list[dict[str, Any]]:
        async with ClientProcess("node", self.program, *self.known, "load") as page:
            assert await page.end() == (0, "")
            (shown,) = self.shows(page.shown)
        found: list[dict[str, Any]] = shown
        return found


class MessagesPage(Client):
    """A page that was written for RAGFlow, and must find the references again after a reload."""

    survives = False
    program = str(PEOPLE / "messages_page.py")

    async def command(self, site: Deployment, question: str) -> list[str]:
        self.known = [site.server.url, "我的 chat " + question]
        return [sys.executable, self.program, *self.known, "send", question]

    def text(self, shown: bytes) -> str:
        shows = ChatPage.shows(shown)
        return _native(shows[-1][-1]["content"]) if shows else ""

    async def reload(self, site: Deployment) -> list[dict[str, Any]]:
        native = await super().reload(site)
        async with ClientProcess(sys.executable, self.program, *self.known, "load") as page:
            assert await page.end() == (0, "")
            (shown,) = ChatPage.shows(page.shown)
        for here, there in zip(shown, native, strict=True):
            assert (here["id"], here["status"]) == (there["id"], there["status"])
            assert _native(here["content"]) == there["content"]
            names = [chunk["document_name"] for chunk in here["reference"]["chunks"]]
            assert names == [reference["document_name"] for reference in there["references"]]
        return native


def _native(text: str) -> str:
    """RAGFlow's mark as the native surface has it."""
    return text.replace("[ID:0]", "[1]")


class AiohttpChat(Client):
    """A program that prints the `content` of every frame."""

    survives = False

    async def command(self, site: Deployment, question: str) -> list[str]:
        return [sys.executable, str(PEOPLE / "aiohttp_chat.py"), site.server.url, question]

    def text(self, shown: bytes) -> str:
        return shown.decode(errors="ignore")


class RequestsAsk(Client):
    """A program that passes on what it reads by the line."""

    def __init__(self, form: str) -> None:
        self.form = form

    async def command(self, site: Deployment, question: str) -> list[str]:
        program = str(PEOPLE / "requests_ask.py")
        return [sys.executable, program, site.server.url, self.form, question]

    def text(self, shown: bytes) -> str:
        return _chunks(shown)


class Curl(Client):
    """`curl -N`, which shows what comes as it is."""

    survives = False

    def __init__(self, path: str, field: str = "message", *, form: bool = False) -> None:
        self.path = path
        self.field = field
        self.form = form

    async def command(self, site: Deployment, question: str) -> list[str]:
        body = ["-H", "Content-Type: application/json", "-d", json.dumps({self.field: question})]
        if self.form:
            body = ["--data-urlencode", f"{self.field}={question}"]
        return ["curl", "-sS", "-N", "-X", "POST", site.server.url + self.path, *body]

    def text(self, shown: bytes) -> str:
        return _chunks(shown)


def _chunks(shown: bytes) -> str:
    whole = shown[: shown.rfind(b"\n\n") + 2]
    datas = [message.data for message in messages_of(whole)]
    return "".join([data.get("content", "") for data in datas if isinstance(data, dict)])


CLIENTS: dict[str, Callable[[], Client]] = {
    "page": ChatPage,
    "messages-page": MessagesPage,
    "aiohttp": AiohttpChat,
    "requests-json": lambda: RequestsAsk("json"),
    "requests-form": lambda: RequestsAsk("form"),
    "curl-plain": lambda: Curl("/chat/stream"),
    "curl-v1": lambda: Curl("/api/v1/chat/stream"),
    "curl-ask": lambda: Curl("/stream-ask", "question"),
    "curl-ask-form": lambda: Curl("/stream-ask", "question", form=True),
}


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> Client:
    return CLIENTS[request.param]()


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    sections = {"stream": {"heartbeat_s": 0.05}}
    async with Deployment(tmp_path_factory.mktemp("site"), **sections) as site:
        yield site


async def shows(client: Client, process: ClientProcess, text: str) -> None:
    """Wait until this much of the answer is shown."""
    while client.text(process.shown) != text:
        assert await process.more(), (process.shown, await process.end())


async def heartbeats_come(client: Client, site: Deployment) -> None:
    """Wait until every reader of the live answer has had some comments."""
    session = (await client.reload(site))[-1]["session_id"]
    async with site.server.stream("GET", f"/api/v1/sessions/{session}/events") as stream:
        while stream.comments < 4:
            await stream.next()


def is_as_it_ended(message: dict[str, Any], content: str, status: str, reason: str | None) -> None:
    assert message["role"] == "assistant"
    assert (message["content"], message["status"]) == (content, status)
    assert [r["document_name"] for r in message["references"]] == ["海带.md"]
    assert (message.get("metadata") or {}).get("reason") == reason


async def test_after_a_normal_end_it_has_shown_all(client: Client, site: Deployment) -> None:
    gate = asyncio.Event()
    question = site.answers(
        REFERENCES, completion_chunk(content=FIRST), gate, *completion("holds “fast” ", "[ID:0].")
    )
    async with ClientProcess(*await client.command(site, question)) as process:
        await shows(client, process, FIRST)
        await heartbeats_come(client, site)
        gate.set()
        assert await process.end() == (0, "")
    assert client.text(process.shown) == FIRST + LAST
    history = await client.reload(site)
    is_as_it_ended(history[-1], FIRST + LAST, "complete", None)


async def test_p6_after_it_has_left_the_answer_is_there_when_it_is_back(
    client: Client, site: Deployment
) -> None:
    gate = asyncio.Event()
    question = site.answers(
        REFERENCES, completion_chunk(content=FIRST), gate, *completion("holds “fast” ", "[ID:0].")
    )
    async with ClientProcess(*await client.command(site, question)) as process:
        await shows(client, process, FIRST)
        await process.leave()
    session = (await client.reload(site))[-1]["session_id"]
    gate.set()
    await site.server.becomes(f"/api/v1/sessions/{session}/events", 204)
    is_as_it_ended((await client.reload(site))[-1], FIRST + LAST, "complete", None)


async def test_p9_after_the_upstream_broke_it_ends_and_keeps_what_it_has_shown(
    client: Client, site: Deployment
) -> None:
    gate = asyncio.Event()
    question = site.answers(REFERENCES, completion_chunk(content=FIRST), gate, Wire.RESET)
    async with ClientProcess(*await client.command(site, question)) as process:
        await shows(client, process, FIRST)
        gate.set()
        assert await process.end() == (0, "")
    assert client.text(process.shown) == FIRST
    is_as_it_ended((await client.reload(site))[-1], FIRST, "partial", "upstream_truncated")


async def test_p9_after_the_upstream_refused_it_ends(client: Client, site: Deployment) -> None:
    question = site.question(whole({"error": {"message": "no quota"}}, 500))
    async with ClientProcess(*await client.command(site, question)) as process:
        assert await process.end() == (0, "")
    assert client.text(process.shown) == ""
    answer = (await client.reload(site))[-1]
    assert (answer["content"], answer["status"]) == ("", "failed")


async def test_p2_after_the_server_was_killed_what_it_has_shown_is_there(
    client: Client, tmp_path: Path
) -> None:
    async with Deployment(tmp_path) as site:
        question = site.answers(REFERENCES, completion_chunk(content=FIRST), Wire.STALL)
        async with ClientProcess(*await client.command(site, question)) as process:
            await shows(client, process, FIRST)
            site.server.signal(signal.SIGKILL)
            code, told = await process.end()
        assert (code == 0) == client.survives, told
        assert client.text(process.shown) == FIRST
        await site.restart()
        is_as_it_ended((await client.reload(site))[-1], FIRST, "partial", "server_crash")
