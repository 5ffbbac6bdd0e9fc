"""A client that sees every byte: HTTP over a plain socket.

It can send what no HTTP library would, and `Connection.log` holds all that came back.
"""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

GIVE_UP_S = 20.0
"""Far more than anything takes: only a test that fails waits for it."""
POLL_S = 0.01


T = TypeVar("T")


async def eventually(look: Callable[[], Awaitable[T | None]]) -> T:
    """What `look` gives, as soon as it gives something."""
    async with asyncio.timeout(GIVE_UP_S):
        while True:
            found = await look()
            if found is not None:
                return found
            await asyncio.sleep(POLL_S)


class Broken(Exception):
    """The response was cut off: the connection ended before the last chunk."""


@dataclass(frozen=True)
class Reply:
    """A whole response; names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The object of the error envelope, which must be one."""
        error = self.json["error"]
        assert self.headers["content-type"] == "application/json", self
        assert error["code"], error
        assert error["message"], error
        assert error["request_id"], error
        return dict(error)

    def refused(self, status: int, code: str) -> dict[str, Any]:
        """The error object of a response that must be this refusal."""
        assert (self.status, self.error["code"]) == (status, code), self
        return self.error


@dataclass(frozen=True)
class Frame:
    """One SSE message, or one comment, with its blank line."""

    raw: bytes

    @property
    def is_comment(self) -> bool:
        """Whether it is a heartbeat or the opening."""
        return self.raw.startswith(b":")

    def field(self, name: str) -> str:
        """The value of a field that occurs once."""
        prefix = f"{name}:".encode()
        (line,) = [line for line in self.raw.split(b"\n") if line.startswith(prefix)]
        return line.removeprefix(prefix).removeprefix(b" ").decode()

    @property
    def id(self) -> str:
        """The cursor."""
        return self.field("id")

    @property
    def event(self) -> str:
        """The type of the event."""
        return self.field("event")

    @property
    def data(self) -> dict[str, Any]:
        """The event."""
        return dict(json.loads(self.field("data")))


class Connection:
    """One connection of a client.

    Attributes:
        log: Every byte that has come.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.log = bytearray()

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self._writer.write(data)
        async with asyncio.timeout(GIVE_UP_S):
            await self._writer.drain()

    async def head(self) -> tuple[int, dict[str, str]]:
        """Read status and headers."""
        async with asyncio.timeout(GIVE_UP_S):
            top = await self._until(b"\r\n\r\n")
        start, *lines = top.decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines if line)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        return int(start.split(" ")[1]), headers

    async def piece(self) -> bytes:
        """Read one chunk of a chunked body; b"" after the last one.

        Raises:
            Broken: The connection ended before.
        """
        async with asyncio.timeout(GIVE_UP_S):
            size = int(await self._until(b"\r\n"), 16)
            data = await self._exactly(size + 2)
        return data[:-2]

    async def reply(self) -> Reply:
        """Read a whole response."""
        status, headers = await self.head()
        body = b""
        if "content-length" in headers:
            async with asyncio.timeout(GIVE_UP_S):
                body = await self._exactly(int(headers["content-length"]))
        elif headers.get("transfer-encoding") == "chunked":
            while piece := await self.piece():
                body += piece
        return Reply(status, headers, body)

    async def closed(self) -> bytes:
        """Read until the server closes; what came before."""
        rest = b""
        async with asyncio.timeout(GIVE_UP_S):
            try:
                while data := await self._reader.read(65536):
                    rest += data
            except ConnectionError:
                pass
        self.log += rest
        return rest

    def end(self) -> None:
        """Say that nothing more will be sent."""
        with suppress(OSError):  # the other side was faster
            self._writer.write_eof()

    def abort(self) -> None:
        """Go away without a word."""
        self._writer.transport.abort()

    async def _until(self, end: bytes) -> bytes:
        return await self._logged(self._reader.readuntil(end))

    async def _exactly(self, size: int) -> bytes:
        return await self._logged(self._reader.readexactly(size))

    async def _logged(self, reading: Any) -> bytes:
        try:
            data: bytes = await reading
        except asyncio.IncompleteReadError as error:
            self.log += error.partial
            raise Broken(error.partial) from None
        except ConnectionError as error:
            raise Broken(str(error)) from None
        self.log += data
        return data


class EventStream:
    """A response that is read frame by frame.

    Attributes:
        body: The bytes of the body so far, without the framing of HTTP.
        frames: The events that were read; comments are counted only.
        comments: How many comments came.
    """

    def __init__(self, connection: Connection, status: int, headers: dict[str, str]) -> None:
        self.connection = connection
        self.status = status
        self.headers = headers
        self.body = bytearray()
        self.frames: list[Frame] = []
        self.comments = 0
        self._at = 0

    @property
    def run_id(self) -> str:
        """The run that is read."""
        return self.headers["x-holdfast-run"]

    @property
    def session_id(self) -> str:
        """The run's session."""
        return self.headers["x-holdfast-session"]

    @property
    def message_id(self) -> str:
        """The run's message."""
        return self.headers["x-holdfast-message"]

    @property
    def log(self) -> bytes:
        """The bytes of the events that were read, without the comments."""
        return b"".join(frame.raw for frame in self.frames)

    @property
    def text(self) -> str:
        """The text of the deltas that were read."""
        datas = (frame.data for frame in self.frames if frame.event == "text-delta")
        return "".join(data["text"] for data in datas)

    async def next(self) -> Frame | None:
        """The next event or comment; None at the clean end of the response.

        Raises:
            Broken: The response was cut off.
        """
        while (end := self.body.find(b"\n\n", self._at)) < 0:
            piece = await self.connection.piece()
            if not piece:
                assert self._at == len(self.body), "half a frame before the clean end"
                return None
            self.body += piece
        frame = Frame(bytes(self.body[self._at : end + 2]))
        self._at = end + 2
        if frame.is_comment:
            self.comments += 1
        else:
            self.frames.append(frame)
        return frame

    async def event(self) -> Frame | None:
        """The next event."""
        while (frame := await self.next()) is not None and frame.is_comment:
            pass
        return frame

    async def until(self, wanted: str | Callable[[Frame], bool]) -> Frame:
        """Read to the first event of this type, or with this property."""
        while (frame := await self.event()) is not None:
            if frame.event == wanted if isinstance(wanted, str) else wanted(frame):
                return frame
        raise AssertionError(f"the stream ended without {wanted}: {self.frames[-3:]}")

    async def read_text(self, text: str) -> None:
        """Read until the text that came is `text`."""
        await self.until(lambda _: self.text == text)

    async def rest(self) -> list[Frame]:
        """All further events, to the clean end."""
        start = len(self.frames)
        while await self.next() is not None:
            pass
        return self.frames[start:]

    async def rest_as_bytes(self) -> bytes:
        """The bytes of all further events, without comments; faster than `rest` for many."""
        while piece := await self.connection.piece():
            self.body += piece
        rest, self._at = bytes(self.body[self._at :]), len(self.body)
        return re.sub(rb"^:.*\n\n", b"", rest, flags=re.MULTILINE)

    async def broken(self) -> list[Frame]:
        """All further events of a response that must be cut off."""
        start = len(self.frames)
        try:
            await self.rest()
        except Broken:
            return self.frames[start:]
        raise AssertionError("the response came to a clean end")

    @property
    def end(self) -> dict[str, Any]:
        """The run-end, which must have been read as the last event."""
        frame = self.frames[-1]
        assert frame.event == "run-end", frame
        return frame.data

    def close(self) -> None:
        """Leave."""
        self.connection.abort()


class Client:
    """Speaks to the server at a URL."""

    url: str

    @property
    def port(self) -> int:
        """Where it listens."""
        return urlsplit(self.url).port or 0

    @asynccontextmanager
    async def connect(self, limit: int = 1 << 26) -> AsyncIterator[Connection]:
        """A new connection; it is aborted at the end of the block."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=limit)
        connection = Connection(reader, writer)
        try:
            yield connection
        finally:
            connection.abort()

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """A request as bytes; a body that is no bytes is sent as JSON."""
        lines = {"Host": f"127.0.0.1:{self.port}"}
        if body is not None:
            if not isinstance(body, bytes):
                body = json.dumps(body).encode()
            lines |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        lines |= headers or {}
        top = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
        return f"{method} {path} HTTP/1.1\r\n{top}\r\n".encode() + (body or b"")

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send a request on a connection of its own and read the whole response."""
        async with self.connect() as connection:
            await connection.send(self.request(method, path, body, headers))
            return await connection.reply()

    async def get(self, path: str, **headers: str) -> Reply:
        """GET; underscores in names of headers stand for hyphens."""
        return await self.call("GET", path, None, _named(headers))

    async def post(self, path: str, body: Any = None, **headers: str) -> Reply:
        """POST, by default with an empty object."""
        return await self.call("POST", path, {} if body is None else body, _named(headers))

    @asynccontextmanager
    async def stream(
        self, method: str, path: str, body: Any = None, **headers: str
    ) -> AsyncIterator[EventStream]:
        """Send a request and read its response as a stream, which it must be."""
        async with self.connect() as connection:
            await connection.send(self.request(method, path, body, _named(headers)))
            status, found = await connection.head()
            if status != 200 or "text/event-stream" not in found.get("content-type", ""):
                raise AssertionError(f"no stream: {status} {found}")
            yield EventStream(connection, status, found)

    async def log_of(self, run_id: str) -> bytes:
        """The frames of a run that has ended, as they are served from the store."""
        async with self.stream("GET", f"/api/v1/runs/{run_id}/events") as stream:
            await stream.rest()
            assert stream.end
            return stream.log

    async def run(self, run_id: str) -> Any:
        """A run with its message."""
        reply = await self.get(f"/api/v1/runs/{run_id}")
        assert reply.status == 200, reply
        return reply.json

    async def ended(self, run_id: str) -> Any:
        """Wait for a run's end; the run with its message."""

        async def look() -> Any:
            found = await self.run(run_id)
            return found if found["run"]["status"] == "ended" else None

        return await eventually(look)

    async def becomes(self, path: str, status: int) -> Reply:
        """Ask until the answer has this status."""

        async def look() -> Reply | None:
            reply = await self.get(path)
            return reply if reply.status == status else None

        return await eventually(look)


class StuckReader:
    """A client that asks and then takes nothing of the answer.

    Attributes:
        port: Its own.
    """

    RECEIVE_BUFFER = 4096

    def __init__(self, client: Client, path: str) -> None:
        """Ask for `path`."""
        self.socket = self._connect(client.port)
        self.socket.sendall(client.request("GET", path))
        self.port = self.socket.getsockname()[1]

    @classmethod
    def _connect(cls, port: int) -> socket.socket:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, cls.RECEIVE_BUFFER)
        connection.connect(("127.0.0.1", port))
        return connection

    @classmethod
    def capacity(cls) -> int:
        """How many bytes the kernel takes for such a client."""
        taken = 0
        with socket.create_server(("127.0.0.1", 0)) as listener:
            client = cls._connect(listener.getsockname()[1])
            server, _ = listener.accept()
            with client, server, suppress(BlockingIOError):
                server.setblocking(False)
                while True:
                    taken += server.send(bytes(65_536))
        return taken

    async def drain(self) -> bytes:
        """Take what is still on the way, to the end of the connection."""
        reader, writer = await asyncio.open_connection(sock=self.socket)
        try:
            return await reader.read()
        except ConnectionError:
            return b""
        finally:
            writer.transport.abort()


def _named(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}
