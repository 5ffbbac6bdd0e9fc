"""A proxy between a node and PostgreSQL that cuts, stalls and loses what passes through it.

It knows the messages of PostgreSQL's protocol, so it can swallow a notification and nothing else,
and it never offers TLS. It runs in a thread; everything about it can be called from any other.
"""

import asyncio
import contextlib
import re
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterable, Sequence
from types import TracebackType
from typing import Any, Final, Self, TypeVar
from urllib.parse import urlsplit, urlunsplit

HOST: Final = "127.0.0.1"
READ_BYTES: Final = 65_536
ASKS_FOR_ENCRYPTION: Final = (80_877_103, 80_877_104)
NOTIFICATION = b"A"
READY = b"Z\0\0\0\5I"
"""Ready for a query, and in no transaction: what was asked for before is done."""
WAIT_S: Final = 20.0
RESET: Final = struct.pack("ii", 1, 0)
_NAME: Final = re.compile(rb"\0application_name\0([^\0]*)\0")

Result = TypeVar("Result")


class Messages:
    """Cuts what a server says into its messages; nothing is lost and nothing added."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The messages that are whole by now."""
        data = self._rest + data
        found, start = [], 0
        while len(data) - start >= 5:
            end = start + 1 + int.from_bytes(data[start + 1 : start + 5])
            if end > len(data):
                break
            found.append(data[start:end])
            start = end
        self._rest = data[start:]
        return found


class _Link:
    """A connection of the node and the one to the server that belongs to it."""

    def __init__(self, near: asyncio.StreamWriter, far: asyncio.StreamWriter) -> None:
        self.near, self.far = near, far
        self.told = asyncio.Event()
        """Cleared while the server must not learn that the node's end is gone."""
        self.told.set()

    def cut(self, *, silently: bool) -> None:
        """Reset the node's connection; the server is told unless it is done silently."""
        if silently:
            self.told.clear()
        else:
            _reset(self.far)
        _reset(self.near)


class PgProxy:
    """A listener on a free port; see the module.

    Attributes:
        url: The database as it is reached through the proxy.
        names: The application names of all connections so far, in their order.
        passed: How many notifications went through.
        swallowed: How many did not.
    """

    def __init__(self, url: str) -> None:
        """Stand before the database `url`."""
        parts = urlsplit(url)
        self._target = (parts.hostname or HOST, parts.port or 5432)
        self._parts = parts
        self.url = url
        self.names: list[str] = []
        self.passed = self.swallowed = 0
        self._links: list[_Link] = []
        self._refuses = self._swallows = False
        self._loses: str | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="pg-proxy")

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._open())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    # ------------------------------------------------------------------ faults

    def cut(self, *, silently: bool = False) -> None:
        """Reset every connection and take no new one; silently: the server keeps its ends."""
        self._soon(self._cut, silently)

    def stall(self, *, up: bool = True, down: bool = True) -> None:
        """Hold what comes from the node (`up`), from the server (`down`), and new connections."""
        self._soon(self._stall, up, down)

    def lose_answer(self, name: str = "") -> None:
        """Cut everything when the server tells that something is done, and do not let it tell.

        It waits for an answer on a connection whose application name begins with `name`.
        """
        self._soon(setattr, self, "_loses", name)

    def swallow_notifications(self, swallow: bool = True) -> None:
        """Let no notification through, or let them pass again; this is apart from all else."""
        self._soon(setattr, self, "_swallows", swallow)

    def heal(self) -> None:
        """Let everything pass but notifications that are swallowed, what was held first.

        Ends that were cut silently are told now.
        """
        self._soon(self._heal)

    def _cut(self, silently: bool) -> None:
        self._refuses = True
        for link in self._links:
            link.cut(silently=silently)

    def _stall(self, up: bool, down: bool) -> None:
        self._takes.clear()
        if up:
            self._up.clear()
        if down:
            self._down.clear()

    def _heal(self) -> None:
        self._refuses = False
        self._loses = None
        for gate in (self._takes, self._up, self._down):
            gate.set()
        for link in self._links:
            link.told.set()

    # ------------------------------------------------------------------ the thread

    def _call(self, work: Coroutine[Any, Any, Result]) -> Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(WAIT_S)

    def _soon(self, change: Callable[..., None], *values: Any) -> None:
        """Make a change in the thread; it is made when this returns."""

        async def work() -> None:
            change(*values)

        self._call(work())

    async def _open(self) -> None:
        self._takes, self._up, self._down = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._heal()
        self._server = await asyncio.start_server(self._connect, HOST, 0)
        port = self._server.sockets[0].getsockname()[1]
        user, at, _ = self._parts.netloc.rpartition("@")
        self.url = urlunsplit(self._parts._replace(netloc=f"{user}{at}{HOST}:{port}"))

    async def _close(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ------------------------------------------------------------------ connections

    async def _connect(self, reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
                await self._takes.wait()
                if not self._refuses:
                    await self._serve(reader, near)
        finally:
            _reset(near)
            self._tasks.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        start = await _read_start(reader, near)
        names = [name.decode() for name in _NAME.findall(start)]
        self.names += names
        answers, far = await asyncio.open_connection(*self._target)
        link = _Link(near, far)
        self._links.append(link)
        far.write(start)
        try:
            await asyncio.gather(
                _pass(reader, far, lambda data: (data,), (self._up, link.told)),
                _pass(answers, near, self._filter("".join(names)), (self._down,)),
            )
        finally:
            self._links.remove(link)
            _reset(far)

    def _filter(self, name: str) -> Callable[[bytes], Iterable[bytes]]:
        """What of the server's bytes passes."""
        messages = Messages()

        def passes(message: bytes) -> bool:
            if message[:1] != NOTIFICATION:
                return True
            self.passed += not self._swallows
            self.swallowed += self._swallows
            return not self._swallows

        def pick(data: bytes) -> list[bytes]:
            found = messages.feed(data)
            if self._loses is not None and name.startswith(self._loses) and READY in found:
                self._loses = None
                self._cut(silently=False)
                return []
            return [message for message in found if passes(message)]

        return pick


async def _pass(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    pick: Callable[[bytes], Iterable[bytes]],
    gates: Sequence[asyncio.Event],
) -> None:
    """One direction; its end passes the gates as its bytes do."""
    try:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(READ_BYTES):
                await gates[0].wait()
                writer.writelines(list(pick(data)))
                await writer.drain()
        for gate in gates:
            await gate.wait()
    finally:
        writer.close()


async def _read_start(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    """The first message; offers of encryption are declined."""
    while True:
        head = await reader.readexactly(8)
        length, code = struct.unpack("!ii", head)
        if code not in ASKS_FOR_ENCRYPTION:
            return head + await reader.readexactly(length - 8)
        writer.write(b"N")


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close a connection at once, with a reset if it is still open."""
    peer = writer.get_extra_info("socket")
    if not writer.transport.is_closing():
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()
