"""A scripted AnythingLLM, and the upstream in front of it."""

from collections.abc import Callable, Sequence
from typing import Any

from holdfast.engine.run import UpstreamEnd
from holdfast.events import (
    Reference,
    References,
    TextDelta,
)
from holdfast.settings import LimitSettings
from holdfast.upstreams.anythingllm.upstream import AnythingLLM
from holdfast.upstreams.base import Ask, Exchange, Item
from holdfast.upstreams.wire.transport import Transport
from tests.support.sink import collect
from tests.support.upstream_server import (
    LAST_CHUNK,
    Request,
    Script,
    ScriptedUpstream,
    Wire,
    chunk,
    event,
    head,
    stream,
    whole,
)

SECRET = "ABCDEFG-1234567-very-secret"
ASK = Ask(run_id="r", session_id="s/1", message_id="m", message="How often?")
AGAIN = Ask(run_id="r", session_id="s/1", message_id="m", message="How often?", conversation="t1")
WHOLE = UpstreamEnd()
AT = "/api/v1/workspace/test1"
STREAM = f"{AT}/thread/t1/stream-chat"
CHATS = f"{AT}/thread/t1/chats"
NEW = f"{AT}/thread/new"
SOURCE = {"title": "a.txt", "text": "Every month.", "score": 0.5}
REFERENCES = References((Reference(1, document_name="a.txt", text="Every month.", score=0.5),))


def says(text: str, *, close: bool = False, **fields: Any) -> bytes:
    frame = {"uuid": "u", "sources": [], "type": "textResponseChunk", "error": False}
    return event({**frame, "textResponse": text, "close": close, **fields})


def final(**fields: Any) -> bytes:
    frame = {"uuid": "u", "type": "finalizeResponseStream", "close": True, "error": False}
    return event({**frame, "chatId": 1, "sources": [SOURCE], **fields})


def abort(error: str) -> dict[str, Any]:
    frame: dict[str, Any] = {"id": "u", "type": "abort", "textResponse": None, "sources": []}
    return {**frame, "close": True, "error": error}


def new_thread(slug: Any = "t1") -> Script:
    return whole({"thread": {"id": 1, "name": "n", "slug": slug}, "message": None})


def saved(text: Any, question: str = "How often?", **fields: Any) -> Script:
    answer = {"type": "chat", "role": "assistant", "content": text, "chatId": 9, **fields}
    return whole({"history": [{"role": "user", "content": question, "chatId": 9}, answer]})


ANSWER = stream(says("Every "), says("month."), says("", close=True), final())
SILENT = stream(says("Every "), end=[Wire.STALL])
"""Begins, and says nothing more."""
GIVEN: list[Item] = [TextDelta("Every "), TextDelta("month."), REFERENCES, WHOLE]
BROKEN: dict[str, Callable[[bytes], Script]] = {
    "closed": lambda data: [head(), chunk(data), Wire.CLOSE],
    "reset": lambda data: [head(), chunk(data), Wire.RESET],
    "ended": lambda data: [head(length=-1) + data, Wire.CLOSE],
    "ended in order": lambda data: [head(), chunk(data), LAST_CHUNK],
}


class AnythingLLMServer(ScriptedUpstream):
    """An AnythingLLM of which each path has its scripts; the last one of a path goes on."""

    def __init__(self, scripts: dict[str, Sequence[Script]]) -> None:
        self.scripts = scripts
        super().__init__(self._script_of)

    def _script_of(self, request: Request) -> Script:
        scripts = self.scripts.get(request.path, [whole("<html>", 200, "text/html")])
        return scripts[min(self.paths.count(request.path), len(scripts) - 1)]

    @property
    def paths(self) -> list[str]:
        """What was asked for, in order."""
        return [request.path for request in self.requests]


def make_anythingllm(
    transport: Transport, base_url: str, limits: LimitSettings | None = None, **settings: Any
) -> AnythingLLM:
    """An upstream called `notes` with these settings."""
    table = {"base_url": base_url, "api_key": SECRET, "workspace": "test1", **settings}
    checked = AnythingLLM.Settings.model_validate(table)
    return AnythingLLM("notes", checked, limits or LimitSettings(), transport)


async def ask(
    upstream: AnythingLLM, ask: Ask = AGAIN, exchange: Exchange | None = None
) -> list[Item]:
    return await collect(upstream, ask, exchange)


def texts(items: Sequence[Item]) -> str:
    return "".join(item.text for item in items if isinstance(item, TextDelta))


def ending(items: Sequence[Item]) -> UpstreamEnd:
    end = items[-1]
    assert isinstance(end, UpstreamEnd)
    return end
