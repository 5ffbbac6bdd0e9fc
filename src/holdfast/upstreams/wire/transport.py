"""The one place that speaks HTTP to upstreams.

It knows bytes, statuses and headers, and nothing of what they mean. Time-outs other than the one
for connecting belong to the runner, which cancels; redirects, cookies and proxies from the
environment are not followed.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import quote, urlsplit

import msgspec

from holdfast.errors import LocalProtocolError, UpstreamError
from holdfast.events import Reason
from holdfast.upstreams.wire.http1 import Address, Connection, Pool, request_bytes

CONNECT_TIMEOUT_S: Final = 10.0
SETTLE_S: Final = 1.0

_PORTS: Final = {"http": 80, "https": 443}
_IN_TARGET: Final = "!#$%&'()*+,/:;=?@[]~"


class Fetched(msgspec.Struct, frozen=True):
    """A whole answer to a small request."""

    status: int
    content_type: str
    body: bytes


class Response:
    """An answer whose body is still coming.

    Attributes:
        status: The HTTP status.
        content_type: Media type in lower case without parameters, empty if there is none.
        headers: The answer's headers, by name in lower case.
        read: `await read()` gives all bytes that are there, waits if there are none, and gives
            b"" at the end.
        pump: `await pump(take)` calls `take` with each piece in the turn in which it comes, until
            that gives True or the body ends.
        pause: Stop reading the socket, from within `take`; `resume` goes on.
    """

    __slots__ = (
        "connection",
        "content_type",
        "headers",
        "pause",
        "pump",
        "read",
        "resume",
        "settled",
        "status",
    )

    def __init__(self, connection: Connection) -> None:
        """Wrap a connection on which the head of an answer has come."""
        self.connection = connection
        self.status = connection.status
        self.headers: Mapping[str, str] = connection.headers
        content_type = self.headers.get("content-type", "")
        self.content_type = content_type.partition(";")[0].strip().lower()
        self.read = connection.read
        self.pump = connection.pump
        self.pause = connection.pause
        self.resume = connection.resume
        self.settled = False

    async def read_all(self, limit: int) -> bytes:
        """The whole body.

        Raises:
            UpstreamError: It is larger than `limit` bytes, or breaks off.
        """
        pieces: list[bytes] = []
        size = 0
        while piece := await self.read():
            size += len(piece)
            if size > limit:
                raise UpstreamError(Reason.LIMIT, f"an answer of more than {limit} bytes")
            pieces.append(piece)
        return b"".join(pieces)

    async def read_start(self, size: int) -> bytes:
        """The body's first bytes, about `size` of them, however it ends."""
        start = b""
        try:
            while len(start) < size and (piece := await self.read()):
                start += piece
        except UpstreamError:
            pass  # what came before the break is what there is to say
        return start

    def settle(self) -> None:
        """Say that all that matters has come.

        The connection then gets a moment to come to its end by itself and be used again;
        without this it is closed at the end of the block, unless its end was read.
        """
        self.settled = True


class Transport:
    """The HTTP client of all upstreams that share it.

    Each of them opens it and closes it; the last to close ends all its connections.
    """

    def __init__(self) -> None:
        """Make it anywhere, also without a loop."""
        self._users = 0
        self._pool = Pool()
        self._settling: dict[Connection, asyncio.TimerHandle] = {}

    async def open(self) -> None:
        """Be ready until `close` was called as often as this."""
        self._users += 1

    async def close(self) -> None:
        """Let go; the last user's call closes every connection."""
        self._users = max(0, self._users - 1)
        if self._users:
            return
        for connection in tuple(self._settling):
            self._settling.pop(connection).cancel()
        self._pool.close()

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
        *,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
    ) -> AsyncIterator[Response]:
        """Send a request whose answer is read as it comes: `async with transport.stream(...)`.

        Leaving the block early, also by cancellation, closes the socket at once.

        Raises:
            UpstreamError: Whatever goes wrong with the connection.
        """
        if not self._users:
            raise LocalProtocolError("the transport is not open")
        address, request = _request(method, url, headers, body)
        connection = await self._pool.get(address, connect_timeout_s)
        response: Response | None = None
        try:
            await connection.send(request)
            response = Response(connection)
            yield response
        finally:
            if response is not None and response.settled and not connection.complete:
                self._let_settle(address, connection)
            else:
                self._pool.put(address, connection)

    async def fetch(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
        *,
        limit: int = 1_000_000,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
    ) -> Fetched:
        """Send a request whose answer is small and wanted whole, whatever its status.

        Raises:
            UpstreamError: No whole answer came, or one of more than `limit` bytes.
        """
        async with self.stream(
            method, url, headers, body, connect_timeout_s=connect_timeout_s
        ) as response:
            content = await response.read_all(limit)
        return Fetched(response.status, response.content_type, content)

    def _let_settle(self, address: Address, connection: Connection) -> None:
        def settled() -> None:
            timer = self._settling.pop(connection, None)
            if timer is not None:
                timer.cancel()
                self._pool.put(address, connection)

        def give_up() -> None:
            self._settling.pop(connection, None)
            self._pool.put(address, connection)  # closed there, as its answer has not ended

        self._settling[connection] = asyncio.get_running_loop().call_later(SETTLE_S, give_up)
        connection.on_complete = settled


def _request(
    method: str, url: str, headers: Mapping[str, str], body: bytes | None
) -> tuple[Address, bytes]:
    """Where a request goes, and its bytes.

    Raises:
        UpstreamError: The URL or a header cannot be.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        if parts.scheme not in _PORTS or not host or parts.username is not None:
            raise ValueError("not an http or https URL")
        host = host.encode("idna").decode() if not host.isascii() else host
    except ValueError:
        raise UpstreamError(Reason.UPSTREAM_UNREACHABLE, "its address cannot be used") from None
    address = Address(parts.scheme == "https", host, port or _PORTS[parts.scheme])
    name = f"[{host}]" if ":" in host else host
    if port is not None and port != _PORTS[parts.scheme]:
        name = f"{name}:{port}"
    target = quote(parts.path or "/", safe=_IN_TARGET)
    if parts.query:
        target += "?" + quote(parts.query, safe=_IN_TARGET)
    sent = {"User-Agent": "holdfast", "Accept-Encoding": "identity", **headers}
    try:
        return address, request_bytes(method, target, name, sent, body)
    except ValueError:  # UnicodeEncodeError is one
        raise UpstreamError(Reason.UPSTREAM_ERROR, "the request cannot be sent") from None
