"""The streaming response: one reader's cursor, written out as SSE.

It is plain ASGI. One coroutine sends; a bell wakes it for new events, for the heartbeat and when
the client has gone. Whatever is there at a wake-up goes out in one write.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from starlette.types import Receive, Scope, Send

from holdfast.dialects.base import Encoder
from holdfast.errors import HoldfastError
from holdfast.runner.reader import Reader
from holdfast.settings import StreamSettings
from holdfast.store.port import RunRecord

logger = logging.getLogger(__name__)

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]

STREAM_HEADERS: Headers = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
)

CONNECTION_EXTENSION = "holdfast.connection"
"""ASGI extension of our own server: what a `Connection` can do."""


class Connection(Protocol):
    """The client's connection, as our own server hands it to the application."""

    def can_write(self) -> bool:
        """Whether the client takes more, and the response is one that `write` fits."""

    def write(self, body: bytes) -> None:
        """Send a part of the body at once; only after `can_write`."""

    def on_lost(self, call: Callable[[], None] | None) -> None:
        """Call `call` when the client has gone."""

    def flush_within(self, seconds: float) -> None:
        """Drop the connection if what was sent is not taken in this time."""

    def abort(self) -> None:
        """Drop the connection with all that is not sent."""


def run_headers(run: RunRecord) -> Headers:
    """The ids that every response about a run carries."""
    return [
        (b"x-holdfast-session", run.session_id.encode()),
        (b"x-holdfast-message", run.message_id.encode()),
        (b"x-holdfast-run", run.id.encode()),
    ]


class StreamBroken(Exception):
    """Ends a response without its terminal marker, so that the client knows to come back."""


class EventStream:
    """An ASGI response that reads runs to their end, one after the other.

    Its coroutine opens and closes the response, reads the store and waits for slow clients. The
    common case does without it: news of a live run are written at once, in the turn of the commit
    that made them readable, so that no task is woken for them.
    """

    def __init__(
        self,
        parts: Sequence[tuple[Reader, Encoder]],
        settings: StreamSettings,
        headers: Headers = (),
    ) -> None:
        """Stream `parts`; the readers are closed when the response ends, however it ends."""
        self._parts = parts
        self._reader, self._encoder = parts[0]
        self._settings = settings
        self._headers = [*STREAM_HEADERS, *headers]
        self._gone = False
        self._leaving = False
        self._waiting = False
        self._can_write: Callable[[], bool] = bool  # without the extension: never
        self._write_now: Callable[[bytes], None] = _cannot
        self._flush_within: Callable[[float], None] = _no_matter
        self._sending_since: float | None = None
        self._last_sent = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer the request."""
        if scope["method"] == "HEAD":
            await self._head(send)
            return
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.current_task()
        self._send = send
        extension = (scope.get("extensions") or {}).get(CONNECTION_EXTENSION)
        connection: Connection | None = extension and extension["connection"]
        watch: asyncio.Task[None] | None = None
        if connection is not None:
            self._can_write, self._write_now = connection.can_write, connection.write
            connection.on_lost(self._client_gone)
            self._flush_within = connection.flush_within
        else:
            watch = asyncio.create_task(self._watch(receive), name="disconnect-watch")
        self._pulse = self._loop.call_later(self._interval(), self._beat)
        try:
            await self._respond()
        except HoldfastError as error:
            logger.info("a stream was broken off: %s", error)
            raise StreamBroken from error
        except asyncio.CancelledError:
            if self._sending_since is None:
                raise
            if connection is not None:
                connection.abort()
            raise StreamBroken from None
        finally:
            self._pulse.cancel()
            if connection is not None:
                connection.on_lost(None)
            if watch is not None:
                watch.cancel()
            for reader, _ in self._parts:
                reader.close()

    async def _head(self, send: Send) -> None:
        for reader, _ in self._parts:
            reader.close()
        await send({"type": "http.response.start", "status": 200, "headers": self._headers})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _respond(self) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self._headers}
        await self._send(start)
        await self._write(self._encoder.opening())
        for reader, encoder in self._parts:
            self._reader, self._encoder = reader, encoder
            reader.listen(self._on_news)
            await self._stream()
            if self._gone:
                return
            if self._leaving:
                break
        self._sending_since = self._loop.time()
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        self._flush_within(self._settings.send_timeout_s)

    async def _stream(self) -> None:
        reader, encoder = self._reader, self._encoder
        while not self._gone:
            self._waiting = True
            entries = await reader.next()
            self._waiting = False
            if entries is None:
                return
            body = encoder.encode(entries)
            if body:
                await self._write(body)
            elif not entries and reader.should_leave and (farewell := encoder.farewell()):
                # A clean end without `run-end` tells the client to come back (P9).
                await self._write(farewell)
                self._leaving = True
                return
            elif self._loop.time() - self._last_sent >= self._settings.heartbeat_s:
                await self._write(encoder.heartbeat())

    # ------------------------------------------------------------------ sending

    async def _write(self, body: bytes) -> None:
        self._sending_since = self._loop.time()
        for packet in self._encoder.packets(body):
            await self._send({"type": "http.response.body", "body": packet, "more_body": True})
        self._sending_since = None
        self._last_sent = self._loop.time()

    def _on_news(self) -> None:
        """Write what a commit has just made readable; wake the coroutine for anything else."""
        if self._waiting and self._can_write():
            reader = self._reader
            entries = reader.poll()
            if entries:
                body = self._encoder.encode(entries)
                if body:  # an empty chunk would end the response
                    for packet in self._encoder.packets(body):
                        self._write_now(packet)
                    self._last_sent = self._loop.time()
                if not reader.done and reader.has_all():
                    return
        self._reader.wake.ring()

    async def _watch(self, receive: Receive) -> None:
        """Notice that the client has gone."""
        with contextlib.suppress(asyncio.CancelledError):
            while (await receive())["type"] != "http.disconnect":
                pass
            self._client_gone()

    def _client_gone(self) -> None:
        self._gone = True
        self._reader.wake.ring()

    # ------------------------------------------------------------------ time

    def _interval(self) -> float:
        return min(self._settings.heartbeat_s, self._settings.send_timeout_s)

    def _is_stuck(self, now: float) -> bool:
        since = self._sending_since
        return since is not None and now - since >= self._settings.send_timeout_s

    def _beat(self) -> None:
        """Called now and then: wake the stream for a heartbeat, or drop a reader that is stuck."""
        now = self._loop.time()
        if self._is_stuck(now):
            logger.info("a reader took nothing for %g s: dropped", self._settings.send_timeout_s)
            if self._task is not None:
                self._task.cancel()
            return
        due = self._interval()
        if self._sending_since is None:
            silence = now - self._last_sent
            if silence >= self._settings.heartbeat_s:
                self._reader.wake.ring()
            else:
                due = min(due, self._settings.heartbeat_s - silence)
        self._pulse = self._loop.call_later(max(due, 0.01), self._beat)


def _no_matter(seconds: float) -> None:
    """Other servers look after what they have not sent yet."""


def _cannot(body: bytes) -> None:
    raise AssertionError("this server has no way to write at once")
