"""A scripted server that speaks the native surface, for tests of its clients."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Self
from urllib.parse import urlsplit

from holdfast.events import Event, encode
from tests.support.upstream_server import Request, Script, ScriptedUpstream, whole


def in_turn(*scripts: Script) -> Callable[[Request], Script]:
    """Play one script for each request, in this order."""
    waiting = list(scripts)

    def choose(request: Request) -> Script:
        return waiting.pop(0) if waiting else whole("no script is left", 500, "text/plain")

    return choose


def session_object(**fields: Any) -> dict[str, Any]:
    """A session as the server writes it."""
    plain = {"id": "s", "title": None, "preset": None, "metadata": None, "live_run_id": None}
    times = {"created_at": "T1", "updated_at": "T1"}
    return plain | times | fields


def message_object(**fields: Any) -> dict[str, Any]:
    """A message as the server writes it: a question, if nothing else is said."""
    nothing = ("outcome", "reason", "error", "upstream", "model", "usage", "run_id", "feedback")
    return {
        **dict.fromkeys((*nothing, "metadata", "completed_at")),
        "id": "m",
        "session_id": "s",
        "role": "user",
        "status": "complete",
        "content": "What?",
        "marks": [],
        "reasoning": "",
        "references": [],
        "versions": [],
        "created_at": "T1",
        **fields,
    }


class RestartedServer(ScriptedUpstream):
    """Another server at the address where `before` was."""

    def __init__(self, before: ScriptedUpstream, *scripts: Script) -> None:
        super().__init__(in_turn(*scripts))
        self._port = urlsplit(before.base_url).port

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connect, "127.0.0.1", self._port)
        return self


def frames(run_id: str, events: Sequence[Event]) -> list[bytes]:
    """The native frames of a run's first events."""
    return [
        f"id: {run_id}.{seq}\nevent: x\ndata: ".encode() + encode(event) + b"\n\n"
        for seq, event in enumerate(events, 1)
    ]
