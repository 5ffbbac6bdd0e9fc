"""`holdfast-client.js` as a process; `tests/clients/node/holdfast_client.mjs` has the commands."""

import asyncio
import itertools
import json
from types import TracebackType
from typing import Any, Self

from tests.support.node import NodeClient
from tests.support.raw_client import GIVE_UP_S, Client

_names = (f"name {number}" for number in itertools.count(1))
PLACE = ("cursor", "runId", "seq")


class JsNode(NodeClient):
    """The process. Commands run side by side."""

    def __init__(self) -> None:
        super().__init__("holdfast_client.mjs")
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self._reading = asyncio.create_task(self._read(), name="node")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._reading.cancel()
        await super().__aexit__(kind, error, traceback)

    async def do(self, name: str, **given: Any) -> Any:
        assert self._process.stdin is not None
        number = next(self._numbers)
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        command = json.dumps({"number": number, "do": name, **given})
        self._process.stdin.write(command.encode() + b"\n")
        async with asyncio.timeout(3 * GIVE_UP_S):
            answer = await future
        assert "error" not in answer, answer["error"]
        return answer["result"]

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            answer = json.loads(line)
            self._waiting.pop(answer.pop("number")).set_result(answer)
        for future in self._waiting.values():
            future.set_exception(AssertionError("the process has died"))


class JsStream:
    """An `AnswerStream` of the module, which is being read."""

    def __init__(self, client: "JsClient") -> None:
        self._client = client
        self.name = next(_names)

    async def do(self, command: str, **given: Any) -> Any:
        """What a command about this stream gives."""
        return await self._client.do(command, reading=self.name, **given)

    async def events(self, times: int) -> Any:
        """Its state once so many events have come, or reading is over."""
        return await self.do("events", times=times)

    async def done(self) -> Any:
        """Its state once reading is over, which must not have failed."""
        state = await self.do("done")
        assert state["error"] is None, state["error"]
        return state

    async def failed(self) -> Any:
        """The error that ended the reading."""
        state = await self.do("done")
        assert state["error"] is not None
        return state["error"]


class JsClient:
    """A `HoldfastClient` of the module."""

    def __init__(self, node: JsNode) -> None:
        self._node = node
        self.name = next(_names)

    async def do(self, command: str, **given: Any) -> Any:
        """What a command about this client gives."""
        return await self._node.do(command, client=self.name, **given)

    async def read(
        self, method: str, *args: Any, leave_after: int | None = None, **options: Any
    ) -> JsStream:
        """Begin to read the stream that a method gives."""
        stream = JsStream(self)
        given: dict[str, Any] = {"method": method, "args": args, "options": options}
        if leave_after is not None:
            given["leave_after"] = leave_after
        await stream.do("read", **given)
        return stream

    async def ask(self, message: str, **options: Any) -> JsStream:
        """Ask, and begin to read."""
        return await self.read("ask", message, **options)

    async def call(self, method: str, *args: Any) -> Any:
        """What a method gives."""
        told = await self.do("call", method=method, args=args)
        assert "error" not in told, told
        return told["value"]

    async def refused(self, method: str, *args: Any) -> Any:
        """The error that a method is rejected with."""
        return (await self.do("call", method=method, args=args))["error"]

    async def fared(self) -> Any:
        """What it asked, why it waited, how often it was connected again."""
        return await self.do("fared")


async def js_client(node: JsNode, url: str, **options: Any) -> JsClient:
    """A new client of the server at `url`."""
    client = JsClient(node)
    await client.do("client", options={"url": url, **options})
    return client


async def is_whole(server: Client, state: Any) -> None:
    """The events are those of a direct read, byte for byte, each once and in order."""
    direct = await server.log_of(state["runId"])
    assert frames(state["events"]) == direct


def frames(events: Any) -> bytes:
    """The frames that the events came in."""
    return b"".join(_frame(event) for event in events)


def _frame(event: Any) -> bytes:
    assert event["cursor"] == f"{event['runId']}.{event['seq']}"
    fields = {name: value for name, value in event.items() if name not in PLACE}
    data = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    return f"id: {event['cursor']}\nevent: {event['type']}\ndata: {data}\n\n".encode()
