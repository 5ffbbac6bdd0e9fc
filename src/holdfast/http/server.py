"""Running the application with uvicorn, so that SIGTERM ends streams in good order.

Left to itself, uvicorn waits for open responses before it runs the application's shutdown, and
then cancels them: readers would see their streams cut off, or the server would not stop at all.
So the order is turned round. The signal first drains the supervisor: it takes no more questions,
lets live runs finish within the grace time, ends the others and so their streams. Only then is
uvicorn told to exit. A second signal exits at once.
"""

import asyncio
import gc
import ipaddress
import logging
import math
import socket
import sys
from collections.abc import Callable
from types import FrameType

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from holdfast.errors import ConfigError
from holdfast.http.app import make_app
from holdfast.http.stream import CONNECTION_EXTENSION, StreamBroken
from holdfast.runner.factory import make_supervisor
from holdfast.runner.supervisor import Supervisor
from holdfast.settings import Settings

logger = logging.getLogger(__name__)

SWITCH_INTERVAL_S = 0.001
"""The store's threads wait for the interpreter's lock at most about this long (default 5 ms)."""


GC_THRESHOLDS = (20_000, 20, 50)
"""Streams make many objects and hardly a cycle; the default looks for cycles all the time."""

HEAD_BYTES = 65_536
HEAD_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"connection: close\r\ncontent-length: 0\r\n\r\n"
)


class StreamingProtocol(HttpToolsProtocol):
    """Gives streaming responses their connection (`holdfast.http.stream.Connection`)."""

    _on_lost: Callable[[], None] | None = None
    _in_head = True
    _head_bytes = 0
    _heads = 0

    def on_message_begin(self) -> None:
        """Put the connection into the request's scope."""
        super().on_message_begin()
        self._on_lost = None
        self.scope["extensions"] = {CONNECTION_EXTENSION: {"connection": self}}

    def can_write(self) -> bool:
        """See `Connection.can_write`."""
        return not self.flow.write_paused and not self.transport.is_closing()

    def write(self, body: bytes) -> None:
        """See `Connection.write`. The response is chunked: it has no Content-Length."""
        self.transport.write(b"%x\r\n%b\r\n" % (len(body), body))

    def on_lost(self, call: Callable[[], None] | None) -> None:
        """See `Connection.on_lost`; a client may have gone before anybody listens."""
        self._on_lost = call
        if call is not None and self.transport.is_closing():
            call()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the response, too."""
        super().connection_lost(exc)
        if self._on_lost is not None:
            self._on_lost()

    def flush_within(self, seconds: float) -> None:
        """See `Connection.flush_within`; a client that asks again is taken to be alive."""
        self.loop.call_later(seconds, self._drop_unflushed, self.cycle)

    def _drop_unflushed(self, cycle: object) -> None:
        if self.cycle is cycle and self.transport.get_write_buffer_size() > 0:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Parse; a head without end is cut off."""
        heads, began_in_head = self._heads, self._in_head
        super().data_received(data)
        if began_in_head and self._in_head and self._heads == heads:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
                self.transport.write(HEAD_TOO_LARGE)
                self.transport.close()

    def on_headers_complete(self) -> None:
        """The head is there."""
        self._in_head = False
        self._heads += 1
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The next head may come."""
        self._in_head, self._head_bytes = True, 0
        super().on_message_complete()

    def abort(self) -> None:
        """See `Connection.abort`."""
        self.transport.abort()


class Server(uvicorn.Server):
    """See the module."""

    def __init__(
        self,
        config: uvicorn.Config,
        supervisor: Supervisor,
        on_ready: Callable[[str, Supervisor], None] | None = None,
    ) -> None:
        """Serve `config`, draining `supervisor` before the exit."""
        super().__init__(config)
        self._supervisor = supervisor
        self._on_ready = on_ready
        self._drain: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, remember the loop for the signals, and tell that the server is ready."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets=sockets)
        if self._on_ready is not None and sockets:
            host, port = sockets[0].getsockname()[:2]
            name = f"[{host}]" if ":" in host else host
            self._on_ready(f"http://{name}:{port}", self._supervisor)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """First signal: drain, then exit. Second: exit at once."""
        if self._drain is not None or self.should_exit:
            self.should_exit = self.force_exit = True
            if self._drain is not None:
                self._loop.call_soon_threadsafe(self._drain.cancel)
            return
        self._loop.call_soon_threadsafe(self._begin_drain)

    def _begin_drain(self) -> None:
        if self._drain is None:
            self._drain = asyncio.create_task(self._drain_and_exit(), name="drain")

    async def _drain_and_exit(self) -> None:
        grace_s = self._supervisor.settings.server.shutdown_grace_s
        logger.info("shutting down: live runs may go on for %g s", grace_s)
        try:
            await self._supervisor.drain(grace_s)
        finally:
            self.should_exit = True


class _BrokenStreams(logging.Filter):
    """A stream that was broken off on purpose, or by the shutdown, is no error of ours."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (
            record.exc_info
            and isinstance(record.exc_info[1], StreamBroken | asyncio.CancelledError)
        )


def serve(settings: Settings, on_ready: Callable[[str, Supervisor], None] | None = None) -> None:
    """Serve until a signal ends the process.

    Args:
        settings: All settings.
        on_ready: Called with the server's URL once it takes requests.

    Raises:
        HoldfastError: The settings cannot work, the port is taken, the database is locked.
    """
    supervisor = make_supervisor(settings)
    listener = _listen(settings.server.host, settings.server.port)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.freeze()  # what was made by now stays
    gc.set_threshold(*GC_THRESHOLDS)
    with listener, asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(supervisor, listener, on_ready))


async def _serve(
    supervisor: Supervisor,
    listener: socket.socket,
    on_ready: Callable[[str, Supervisor], None] | None,
) -> None:
    logging.getLogger("uvicorn.error").addFilter(_BrokenStreams())
    config = uvicorn.Config(
        make_app(supervisor),
        http=StreamingProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=math.ceil(supervisor.settings.stream.send_timeout_s),
    )
    server = Server(config, supervisor, on_ready)
    await supervisor.start()
    try:
        _check_keys(supervisor, listener)
        await server.serve(sockets=[listener])
        for connection in tuple(server.server_state.connections):
            connection.transport.abort()  # a peer that takes nothing must not keep the process
    finally:
        await supervisor.stop()


def _check_keys(supervisor: Supervisor, listener: socket.socket) -> None:
    """Pass if whoever can reach the listener needs a key, or is on this machine.

    What counts is the address that is bound, whatever name the settings have for it. Nobody has
    been listened to by now.

    Raises:
        ConfigError: Others could reach it, and there is no key.
    """
    address = listener.getsockname()[0]
    if len(supervisor.keys) or ipaddress.ip_address(address).is_loopback:
        return
    raise ConfigError(
        f"server.host is {supervisor.settings.server.host!r}, where others can reach the server, "
        "and there is no key: make one with `holdfast keys create OWNER`, or set "
        "HOLDFAST_API_KEYS=OWNER:KEY, or listen on 127.0.0.1"
    )


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Uvloop where there is one; plain asyncio costs about a third more."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigError(f"cannot listen on {host}:{port}: {error.strerror}") from None
    listener.set_inheritable(False)
    return listener
