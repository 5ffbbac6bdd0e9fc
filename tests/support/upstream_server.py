"""A scripted HTTP server on the loopback, for tests of everything that asks an upstream.

What it sends is exact to the byte, and what it does in between is a script:

    async with ScriptedUpstream([head(), chunk(b"data: {}\\n\\n"), Wire.STALL]) as server:
        ...  # ask server.base_url
        await server.client_left()

A script is played for every request; a function of the request may choose one. A connection is
kept for the next request if its script was played to the end, so a script whose response has
no end of its own must end in `Wire.CLOSE`.
"""

import asyncio
import json
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from typing import Any, TypeAlias

from tests.support.listener import Listener


class Wire(Enum):
    """Things to do that are no bytes."""

    STALL = auto()
    """Send nothing more, until the client leaves or the server is closed."""
    CLOSE = auto()
    """Close the connection in the orderly way (FIN)."""
    RESET = auto()
    """Break the connection (RST)."""


Step: TypeAlias = bytes | asyncio.Event | Wire
"""Bytes to send, an event to wait for, or one of `Wire`."""
Script: TypeAlias = Sequence[Step]


@dataclass(frozen=True)
class Request:
    """What a client asked; names of headers are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


class ScriptedUpstream(Listener):
    """The server.

    Attributes:
        requests: What was asked, in the order of arrival.
        closed_early: How many times a client left before its script had been played.
        played: How many scripts were played to their end.
    """

    def __init__(self, script: Script | Callable[[Request], Script]) -> None:
        super().__init__()
        self._choose = script if callable(script) else lambda _: script
        self.requests: list[Request] = []
        self.closed_early = 0
        self.played = 0
        self._changed = asyncio.Condition()

    @property
    def base_url(self) -> str:
        """`http://127.0.0.1:<port>`."""
        return self.url

    async def client_left(self, times: int = 1) -> None:
        """Wait until clients have left early so many times."""
        async with self._changed:
            await self._changed.wait_for(lambda: self.closed_early >= times)

    async def asked(self, times: int = 1) -> None:
        """Wait until so many requests have come."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.requests) >= times)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.read(1)
        while first:
            request = await _read_request(first, reader)
            script = self._choose(request)
            await self._note(partial(self.requests.append, request))
            # What comes before the script is over is the client's leaving (b""), or the start of
            # the next request of one that has seen the whole response already.
            watch = asyncio.ensure_future(_read_byte(reader))
            try:
                if not await self._play(script, writer, watch):
                    return
                first = await watch
            finally:
                watch.cancel()

    async def _play(
        self, script: Script, writer: asyncio.StreamWriter, watch: asyncio.Future[bytes]
    ) -> bool:
        """Play a script; whether the connection is to be kept."""
        for place, step in enumerate(script):
            match step:
                case Wire.CLOSE | Wire.RESET:
                    assert place == len(script) - 1, "nothing can follow the end of a connection"
                    await self._note(self._count_played)
                    await _end(writer, reset=step is Wire.RESET)
                    return False
                case Wire.STALL:
                    await watch
                case asyncio.Event():
                    await _first(step.wait(), watch)
                case bytes():
                    writer.write(step)
                    with suppress(ConnectionError):
                        await _first(writer.drain(), watch)
            if _has_left(watch):
                await self._note(self._count_closed_early)
                return False
        await self._note(self._count_played)
        return True

    async def _note(self, change: Callable[[], object]) -> None:
        async with self._changed:
            change()
            self._changed.notify_all()

    def _count_played(self) -> None:
        self.played += 1

    def _count_closed_early(self) -> None:
        self.closed_early += 1


# ---------------------------------------------------------------------- bytes to send


def head(
    status: int = 200,
    content_type: str | None = "text/event-stream",
    *,
    length: int | None = None,
    **headers: str,
) -> bytes:
    """A response's head: chunked, or with the length given (a negative one: until EOF)."""
    lines = [f"HTTP/1.1 {status} Scripted"]
    if content_type is not None:
        lines.append(f"Content-Type: {content_type}")
    if length is None:
        lines.append("Transfer-Encoding: chunked")
    elif length >= 0:
        lines.append(f"Content-Length: {length}")
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def chunk(data: bytes) -> bytes:
    """One piece of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"


def stream(*pieces: bytes, end: Sequence[Step] = (LAST_CHUNK,)) -> list[Step]:
    """The script of an event stream, a write for each piece."""
    return [head(), *[chunk(piece) for piece in pieces], *end]


def whole(
    body: bytes | str | dict[str, Any],
    status: int = 200,
    content_type: str | None = "application/json",
    **headers: str,
) -> list[Step]:
    """The script of a response in one piece."""
    if isinstance(body, dict):
        body = json.dumps(body)
    if isinstance(body, str):
        body = body.encode()
    return [head(status, content_type, length=len(body), **headers) + body]


def event(data: object) -> bytes:
    """One server-sent event; anything but a `str` is written as JSON."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    return f"data: {text}\n\n".encode()


def completion_chunk(finish_reason: str | None = None, **delta: Any) -> bytes:
    """One event of a `/chat/completions` stream."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return event(
        {"id": "c1", "object": "chat.completion.chunk", "model": "m1", "choices": [choice]}
    )


def completion(*texts: str) -> list[bytes]:
    """A whole `/chat/completions` stream of these texts."""
    return [
        *[completion_chunk(content=text) for text in texts],
        completion_chunk("stop"),
        event("[DONE]"),
    ]


# ---------------------------------------------------------------------- the wire


async def _read_request(first: bytes, reader: asyncio.StreamReader) -> Request:
    top = first + await reader.readuntil(b"\r\n\r\n")
    start, *lines = top.decode("latin-1").split("\r\n")
    method, path, _ = start.split(" ", 2)
    pairs = (line.partition(":") for line in lines if line)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(method, path, headers, body)


async def _read_byte(reader: asyncio.StreamReader) -> bytes:
    with suppress(ConnectionError):
        return await reader.read(1)
    return b""


def _has_left(watch: asyncio.Future[bytes]) -> bool:
    return watch.done() and not watch.result()


async def _first(action: Any, watch: asyncio.Future[bytes]) -> None:
    """Wait for `action`, but no longer than the client is there."""
    task = asyncio.ensure_future(action)
    try:
        while not task.done() and not _has_left(watch):
            pending = {task} if watch.done() else {task, watch}
            await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
    finally:
        task.cancel()


async def _end(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    if reset:
        linger = struct.pack("ii", 1, 0)
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()
    else:
        writer.close()
        await writer.wait_closed()
