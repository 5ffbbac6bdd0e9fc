"""A proxy between client and server that does everything a bad network does.

async with HostileProxy(server.port) as proxy:
    proxy.cut_after(700)          # every connection, after so many bytes of its response
    ...                           # let a client ask proxy.url
    assert proxy.cuts

It passes bytes on as they are, one request per connection. What is set counts for the requests that
come afterwards, and can be set at any time.
"""

import asyncio
import socket
import struct
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Self

from tests.support.listener import Listener
from tests.support.raw_client import GIVE_UP_S

PIECE = 65_536


class Cut(Enum):
    """How a connection ends in the middle."""

    FIN = auto()
    """In the orderly way; the response is just not whole."""
    RST = auto()
    """With a reset."""
    END = auto()
    """In the orderly way, and the response looks whole: no length is told, as in HTTP/1.0."""


class Fate(Enum):
    """What becomes of a request."""

    PASSED = auto()
    REFUSED = auto()
    STALLED = auto()
    CUT_UNANSWERED = auto()


@dataclass(frozen=True)
class Passed:
    """A request that came; names of headers are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class HostileProxy(Listener):
    """The proxy.

    Attributes:
        requests: Every request that came, in order.
        cuts: How many of them were cut.
        refused: How many requests were answered by the proxy itself.
        response_bytes: How many bytes of responses were passed on.
        piece: The most bytes that are passed on at once.
        delay_s: How long every piece waits.
    """

    def __init__(self, port: int) -> None:
        """Prepare a proxy in front of what listens on `port` of the loopback."""
        super().__init__()
        self._server_port = port
        self.requests: list[Passed] = []
        self.cuts = self.refused = self.response_bytes = 0
        self.piece = PIECE
        self.delay_s = 0.0
        self.calm()
        self._cutting: asyncio.Future[Cut]

    def calm(self) -> None:
        """Pass everything on from now on."""
        self._kind = Cut.FIN
        self._each: int | None = None
        self._once: int | None = None
        self._fates: dict[Fate, float] = {}
        self._refusal = b""

    def cut_after(self, size: int, kind: Cut = Cut.FIN) -> None:
        """Cut every connection after so many bytes of its response."""
        self._each, self._kind = size, kind

    def cut_once_at(self, size: int, kind: Cut = Cut.FIN) -> None:
        """Cut once, when so many bytes of responses have been passed on from now on."""
        self._once, self._kind = size, kind

    def cut_uploads(self, times: int, kind: Cut = Cut.FIN) -> None:
        """Cut so many connections when the server has begun to answer, of which nothing is told."""
        self._fates[Fate.CUT_UNANSWERED], self._kind = times, kind

    def cut_now(self, kind: Cut = Cut.FIN) -> None:
        """Cut every connection that is open."""
        self._cutting.set_result(kind)
        self._cutting = asyncio.get_running_loop().create_future()

    def stall(self, times: int) -> None:
        """Pass on nothing of the next so many responses, and keep their connections open."""
        self._fates[Fate.STALLED] = times

    def refuse(
        self, times: float = float("inf"), status: int = 502, retry_after_s: int | None = None
    ) -> None:
        """Answer so many requests instead of the server; `calm` ends it."""
        self._fates[Fate.REFUSED] = times
        self._refusal = _refusal(status, retry_after_s)

    @property
    def open(self) -> int:
        """How many connections are open."""
        return len(self._tasks)

    async def came(self, times: int) -> None:
        """Wait until so many requests have come."""
        async with asyncio.timeout(GIVE_UP_S), self._changed:
            await self._changed.wait_for(lambda: len(self.requests) >= times)

    async def __aenter__(self) -> Self:
        self._changed = asyncio.Condition()
        self._cutting = asyncio.get_running_loop().create_future()
        return await super().__aenter__()

    # ------------------------------------------------------------------ one connection

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await _read_request(reader)
        fate = self._next_fate()
        async with self._changed:
            self.requests.append(request)
            self._changed.notify_all()
        await self._while_connected(self._answer(request, writer, fate), reader, writer)

    def _next_fate(self) -> Fate:
        for fate, times in self._fates.items():
            if times > 0:
                self._fates[fate] = times - 1
                return fate
        return Fate.PASSED

    async def _while_connected(
        self,
        answer: Coroutine[Any, Any, None],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        leaving = asyncio.ensure_future(reader.read(1))
        answering = asyncio.ensure_future(answer)
        cutting = self._cutting
        ends: set[asyncio.Future[Any]] = {leaving, answering, cutting}
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            leaving.cancel()
            answering.cancel()
            await asyncio.gather(leaving, answering, return_exceptions=True)
        if cutting.done():
            await self._cut(writer, cutting.result())

    async def _answer(self, request: Passed, writer: asyncio.StreamWriter, fate: Fate) -> None:
        if fate is Fate.REFUSED:
            await self._refuse(writer, self._refusal)
            return
        try:
            source, target = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:
            await self._refuse(writer, _refusal(502))
            return
        try:
            target.write(_bytes_of(request))
            if fate is Fate.STALLED:
                await asyncio.Event().wait()
            if fate is Fate.CUT_UNANSWERED:
                await source.read(1)
                await self._cut(writer, self._kind)
                return
            await self._relay(source, writer)
        except ConnectionError:
            writer.transport.abort()
        finally:
            target.transport.abort()

    async def _refuse(self, writer: asyncio.StreamWriter, refusal: bytes) -> None:
        self.refused += 1
        writer.write(refusal)
        await _finish(writer)

    async def _relay(self, source: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kind, left = self._kind, self._each
        body = _Unframed() if kind is Cut.END else None
        while data := await source.read(PIECE):
            data = body.feed(data) if body else data
            for start in range(0, len(data), self.piece):
                piece = data[start : start + self.piece][:left]
                piece = piece[: self._once]
                await self._pass(piece, writer)
                left = None if left is None else left - len(piece)
                if self._is_once_over(len(piece)) or left == 0:
                    await self._cut(writer, kind)
                    return
        await _finish(writer)

    def _is_once_over(self, passed: int) -> bool:
        if self._once is None:
            return False
        self._once -= passed
        if self._once > 0:
            return False
        self._once = None
        return True

    async def _pass(self, piece: bytes, writer: asyncio.StreamWriter) -> None:
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        self.response_bytes += len(piece)
        writer.write(piece)
        await writer.drain()

    async def _cut(self, writer: asyncio.StreamWriter, kind: Cut) -> None:
        self.cuts += 1
        if kind is Cut.RST:
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.transport.abort()
        else:
            await _finish(writer)


class _Unframed:
    """Takes the framing of HTTP/1.1 away: what is left ends with its connection."""

    def __init__(self) -> None:
        self._rest = b""
        self._in_head = self._chunked = True

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes of the response; what of them is passed on."""
        self._rest += data
        told = self._head() if self._in_head else b""
        if self._in_head:
            return told
        if not self._chunked:
            told, self._rest = told + self._rest, b""
            return told
        while b"\r\n" in self._rest:
            line, _, after = self._rest.partition(b"\r\n")
            size = int(line, 16)
            if len(after) < size + 2:
                break
            told, self._rest = told + after[:size], after[size + 2 :]
        return told

    def _head(self) -> bytes:
        head, found, rest = self._rest.partition(b"\r\n\r\n")
        if not found:
            return b""
        self._in_head, self._rest = False, rest
        lines = head.split(b"\r\n")
        kept = [
            one for one in lines if not one.lower().startswith((b"transfer-", b"content-length"))
        ]
        self._chunked = any(one.lower().startswith(b"transfer-encoding") for one in lines)
        return b"\r\n".join(kept) + b"\r\n\r\n"


async def _read_request(reader: asyncio.StreamReader) -> Passed:
    top = await reader.readuntil(b"\r\n\r\n")
    start, *lines = top.decode("latin-1").split("\r\n")
    method, path, _ = start.split(" ", 2)
    pairs = (line.partition(":") for line in lines if line)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Passed(method, path, headers, body)


def _bytes_of(request: Passed) -> bytes:
    lines = {**request.headers, "connection": "close"}
    top = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{request.method} {request.path} HTTP/1.1\r\n{top}\r\n".encode("latin-1") + request.body


def _refusal(status: int, retry_after_s: int | None = None) -> bytes:
    again = "" if retry_after_s is None else f"Retry-After: {retry_after_s}\r\n"
    body = b"<html>Bad gateway</html>"
    top = f"HTTP/1.1 {status} Hostile\r\nContent-Type: text/html\r\n{again}"
    return f"{top}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode() + body


async def _finish(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()
