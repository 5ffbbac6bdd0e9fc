"""HTTP/1.1 connections to upstreams, cut down to what a stream of small chunks needs.

A chunk goes from the socket to whoever takes it within one callback of the event loop: no task is
woken, no future made, no layer awaited for it. Parsing is httptools' (llhttp). What is not here:
redirects, cookies, proxies, HTTP/2. docs/decisions says why this is not a library's client.
"""

import asyncio
import os
import select
import ssl
import zlib
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import httptools

from holdfast.errors import UpstreamError
from holdfast.events import Reason
from holdfast.upstreams.wire.intake import Intake

BUFFER_BYTES: Final = 64 * 1024
"""How much of a body is kept for a reader before the socket is not read any more."""
HEAD_BYTES: Final = 64 * 1024
KEEP_ALIVE_S: Final = 4.0
"""Shorter than common servers keep an idle connection: a question must not meet its closing."""

INFLATED_BYTES: Final = 8_000_000
"""What one piece of a compressed answer may unpack to."""

BROKEN: Final = "the connection broke in the middle of the answer"
CLOSED: Final = "the connection was closed before there was an answer"
NOT_HTTP: Final = "what answered does not speak HTTP"
UNREADABLE: Final = "the answer's encoding cannot be read"

STEADY_PIECES: Final = 6
"""A body that has come in so many pieces is a stream, whose socket is read with the others'."""

_CODINGS: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}


class Address(NamedTuple):
    """Where a connection goes."""

    tls: bool
    host: str
    port: int


class Connection(asyncio.Protocol):
    """One connection; it carries one exchange at a time."""

    def __init__(self, intake: Intake | None = None) -> None:
        """Not connected yet; `intake` is where the socket is read while much is streamed."""
        self.transport: asyncio.Transport | None = None
        self._intake = intake
        self._joined: int | None = None
        self.idle_timer: asyncio.TimerHandle | None = None
        self.on_idle_lost: Callable[[Connection], None] | None = None
        self._begin_exchange()

    def _begin_exchange(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.complete = False
        self.error: Exception | None = None
        self.on_complete: Callable[[], None] | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._head_bytes = 0
        self._has_head = False
        self._has_length = False
        self._keeps_alive = False
        self._inflate: zlib._Decompress | None = None
        self._parts: list[bytes] = []
        self._take: Callable[[bytes], bool] | None = None
        self._paused = False
        self._news: asyncio.Future[None] | None = None
        self._pieces = 0

    # ------------------------------------------------------------------ asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Parse, and hand on what came of the body as one piece."""
        try:
            self._parser.feed_data(data)
        except Exception:  # llhttp's own errors, and those of the callbacks below
            if not self.complete and self.error is None:
                reason = Reason.UPSTREAM_TRUNCATED if self._has_head else Reason.UPSTREAM_ERROR
                self._fail(UpstreamError(reason, BROKEN if self._has_head else NOT_HTTP))
            elif self.transport is not None:
                self.transport.abort()  # more than the one answer that was asked for
        if self._parts:
            self._hand_on()
        elif not self._has_head and self.error is None:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self._fail(UpstreamError(Reason.UPSTREAM_ERROR, NOT_HTTP))

    def _hand_on(self) -> None:
        take = self._take
        if take is None:
            self._pause_if_full()
            self._wake()
            return
        parts = self._parts
        piece = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        self._pieces += 1
        if self._pieces >= STEADY_PIECES and self._joined is None:
            self._join()
        try:
            if take(piece):
                self._take = None
                self._wake()
        except Exception as error:
            self._take = None
            self._fail(error)

    def eof_received(self) -> None:
        """Let asyncio close the transport."""

    def connection_lost(self, error: Exception | None) -> None:
        """The end of a body without length, or of everything else too early."""
        self._leave()
        if self.on_idle_lost is not None:
            self.on_idle_lost(self)
        if self.complete or self.error is not None:
            self._wake()
        elif self._has_head and not self._has_length and error is None:
            self.complete = True
            self._wake()
        elif self._has_head:
            self._fail(UpstreamError(Reason.UPSTREAM_TRUNCATED, BROKEN))
        else:
            self._fail(UpstreamError(Reason.UPSTREAM_UNREACHABLE, CLOSED))

    def _fail(self, error: Exception) -> None:
        self.error = error
        self._leave()
        if self.transport is not None:
            self.transport.abort()
        self._wake()

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    # ------------------------------------------------------------------ reading with others

    @property
    def joined(self) -> bool:
        """Whether the intake reads the socket."""
        return self._joined is not None

    def _join(self) -> None:
        """Let the intake read the socket; one with TLS only its transport can."""
        transport = self.transport
        if self._intake is None or transport is None or self._paused or self.complete:
            return
        if transport.is_closing() or transport.get_extra_info("ssl_object") is not None:
            return
        transport.pause_reading()
        self._joined = transport.get_extra_info("socket").fileno()
        self._intake.add(self._joined, self)

    def _leave(self) -> None:
        """Let the transport read the socket again."""
        if self._joined is None or self._intake is None or self.transport is None:
            return
        self._intake.remove(self._joined, self)
        self._joined = None
        if not self._paused and not self.transport.is_closing():
            self.transport.resume_reading()

    def on_read(self, data: bytes) -> None:
        """See `intake.Source`."""
        if data:
            self.data_received(data)
        if not data or self.complete:
            self._leave()  # the end of the stream is the transport's to tell

    def on_read_error(self, error: OSError) -> None:
        """See `intake.Source`."""
        self._fail(UpstreamError(Reason.UPSTREAM_TRUNCATED, BROKEN))

    # ------------------------------------------------------------------ the parser's side

    def on_message_begin(self) -> None:
        """Nothing may follow the one answer that was asked for; what does ends the connection."""
        if self.complete:
            raise ValueError("a second answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; a repeated one as a list, as RFC 9110 has it."""
        key = name.decode("latin-1").lower()
        text = value.decode("latin-1").strip()
        if key in self.headers and key != "content-type":
            text = f"{self.headers[key]}, {text}"
        self.headers[key] = text

    def on_headers_complete(self) -> None:
        """The head is there, unless it was an interim one."""
        status = self._parser.get_status_code()
        if status < 200:
            self.headers.clear()
            return
        self.status = status
        headers = self.headers
        self._has_length = "content-length" in headers or "transfer-encoding" in headers
        coding = headers.get("content-encoding", "identity").lower()
        if coding in _CODINGS:
            self._inflate = zlib.decompressobj(_CODINGS[coding])
        elif coding not in ("identity", ""):
            self._fail(UpstreamError(Reason.UPSTREAM_ERROR, UNREADABLE))
        self._has_head = True
        self._wake()

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        if self._inflate is not None:
            body = self._inflate.decompress(body, INFLATED_BYTES)
            if self._inflate.unconsumed_tail:
                self._fail(UpstreamError(Reason.LIMIT, "the answer unpacks to too much"))
        if body:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        """The whole answer is there."""
        if not self._has_head:
            return
        self.complete = True
        self._keeps_alive = self._has_length and self._parser.should_keep_alive()
        if self.on_complete is not None:
            self.on_complete()
        self._wake()

    # ------------------------------------------------------------------ the exchange's side

    async def send(self, request: bytes) -> None:
        """Send a request and wait for the head of its answer.

        Raises:
            UpstreamError: None came.
        """
        self._begin_exchange()
        assert self.transport is not None
        self.transport.write(request)
        while not self._has_head and self.error is None:
            await self._wait()
        if self.error is not None:
            raise self.error

    async def read(self) -> bytes:
        """All of the body that is there; waits if there is nothing; b"" at the end.

        Raises:
            UpstreamError: The connection broke, and all before the break was given.
        """
        while not self._parts:
            if self.error is not None:
                raise self.error
            if self.complete:
                return b""
            await self._wait()
        piece = b"".join(self._parts)
        self._parts.clear()
        self._resume()
        return piece

    async def pump(self, take: Callable[[bytes], bool]) -> None:
        """Call `take` with each piece of the body in the turn in which it comes.

        Returns when `take` gives True, or at the end of the body.

        Raises:
            UpstreamError: The connection broke, and all before the break was taken.
        """
        self._take = take
        try:
            if self._parts:
                self._hand_on()
            self._resume()
            while self._take is not None and self.error is None and not self.complete:
                await self._wait()
            if self.error is not None:
                raise self.error
        finally:
            self._take = None
            self._leave()

    def pause(self) -> None:
        """Read no more from the socket until `resume`."""
        if self.transport is not None and not self._paused and not self.transport.is_closing():
            self._paused = True
            if self._joined is None:
                self.transport.pause_reading()
            else:
                self._leave()  # its transport has been pausing all along

    def resume(self) -> None:
        """Read the socket again."""
        self._resume()

    def _pause_if_full(self) -> None:
        if not self._paused and sum(map(len, self._parts)) > BUFFER_BYTES:
            self.pause()

    def _resume(self) -> None:
        if self._paused and self.transport is not None and not self.transport.is_closing():
            self._paused = False
            self.transport.resume_reading()

    async def _wait(self) -> None:
        self._news = asyncio.get_running_loop().create_future()
        try:
            await self._news
        finally:
            self._news = None

    def can_be_reused(self) -> bool:
        """Whether the answer has ended and the server keeps the connection."""
        return (
            self.complete
            and self.error is None
            and self._keeps_alive
            and self.transport is not None
            and not self.transport.is_closing()
        )

    def abort(self) -> None:
        """Close at once."""
        self._leave()
        if self.transport is not None:
            self.transport.abort()


class Pool:
    """Idle connections, the last used first."""

    def __init__(self) -> None:
        """Empty."""
        self._idle: dict[Address, list[Connection]] = {}
        self._all: set[Connection] = set()
        self._context: ssl.SSLContext | None = None
        self._intake: Intake | None = None

    async def get(self, address: Address, timeout_s: float) -> Connection:
        """An idle connection to `address`, or a new one.

        Raises:
            UpstreamError: It cannot be reached.
        """
        idle = self._idle.get(address)
        while idle:
            connection = idle.pop()
            self._wake_up(connection)
            if connection.transport is not None and not connection.transport.is_closing():
                return connection
        connection = await self._connect(address, timeout_s)
        self._all.add(connection)
        return connection

    async def _connect(self, address: Address, timeout_s: float) -> Connection:
        where = f"{address.host}:{address.port}"
        try:
            async with asyncio.timeout(timeout_s):
                context = await self._tls() if address.tls else None
                if self._intake is None and hasattr(select, "epoll"):
                    self._intake = Intake()
                intake = self._intake
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: Connection(intake), address.host, address.port, ssl=context
                )
        except TimeoutError:
            raise UpstreamError(
                Reason.UPSTREAM_UNREACHABLE, f"connecting to {where} took too long"
            ) from None
        except ssl.SSLError as error:
            detail = getattr(error, "verify_message", "") or error.reason or "TLS failed"
            raise UpstreamError(
                Reason.UPSTREAM_UNREACHABLE, f"cannot connect to {where} safely ({detail})"
            ) from None
        except (OSError, UnicodeError) as error:
            number = getattr(error, "errno", None)
            detail = os.strerror(number) if number and number > 0 else str(error)
            raise UpstreamError(
                Reason.UPSTREAM_UNREACHABLE, f"cannot connect to {where} ({detail})"
            ) from None
        return connection

    async def _tls(self) -> ssl.SSLContext:
        if self._context is None:  # reads the system's certificates from disk
            self._context = await asyncio.to_thread(ssl.create_default_context)
        return self._context

    def put(self, address: Address, connection: Connection) -> None:
        """Give a connection back; it is closed if it cannot be used again."""
        if not connection.can_be_reused():
            connection.abort()
            self._all.discard(connection)
            return
        loop = asyncio.get_running_loop()
        connection.on_idle_lost = lambda lost: self._drop(address, lost)
        connection.idle_timer = loop.call_later(KEEP_ALIVE_S, self._expire, address, connection)
        self._idle.setdefault(address, []).append(connection)

    def _wake_up(self, connection: Connection) -> None:
        connection.on_idle_lost = None
        if connection.idle_timer is not None:
            connection.idle_timer.cancel()
            connection.idle_timer = None

    def _expire(self, address: Address, connection: Connection) -> None:
        self._drop(address, connection)
        connection.abort()

    def _drop(self, address: Address, connection: Connection) -> None:
        self._wake_up(connection)
        self._all.discard(connection)
        idle = self._idle.get(address, [])
        if connection in idle:
            idle.remove(connection)

    def close(self) -> None:
        """Close every connection, idle or not."""
        for connection in tuple(self._all):
            self._wake_up(connection)
            connection.abort()
        self._all.clear()
        self._idle.clear()
        if self._intake is not None:
            self._intake.close()
            self._intake = None


def request_bytes(
    method: str, target: str, host: str, headers: Mapping[str, str], body: bytes | None
) -> bytes:
    """A request as it goes over the wire.

    Raises:
        ValueError: A header or the target holds what HTTP does not allow there.
    """
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    for line in lines:
        if "\r" in line or "\n" in line or "\0" in line:
            raise ValueError("a header holds a line break")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b"")
