"""Clients: a process of its own that writes down every byte that it gets before it looks at it.

    python clients.py PLAN

They speak HTTP over bare sockets and know nothing of the project. When a connection breaks, or
says nothing for too long, a client goes on at any node, as behind a load balancer: from its cursor
if it has one, else by asking again with the same key. They ask
nothing more when there is a file `stop` in the folder. PLAN is a file with a JSON object:

    ports, folder  where the nodes are, and where the logs go
    seed           decides which node a client goes to
    clients        a list of objects:
        name          what its files begin with
        bodies        what to ask, one question after the other, all in one session
        keys          the idempotency key of each
        first         the place of the node that it begins with, if it matters
        follow        instead of asking: the name of a client whose run to read
        cancel_after  cancel the run, through another node, after so many events

`NAME.NN.request` is a question as it was sent, `NAME.NN.K.raw` what the connection K gave.
`NAME.NN.notes` has a line for each connection, `K PORT METHOD CURSOR`, and for a cancel that was
acknowledged, `cancel PORT STATUS`.
"""

import asyncio
import contextlib
import json
import os
import random
import sys
import time
from typing import Any

HOST = "127.0.0.1"
SILENCE_S = 5.0
"""Heartbeats come much more often."""
GIVE_UP_S = 150.0
CALL_S = 20.0
BACK_OFF_S = (0.05, 0.3)
THINK_S = (0.05, 0.4)
AGAIN = frozenset({409, 429, 502, 503})
"""What a client may be told while something is broken."""


def request(method: str, path: str, body: bytes = b"", **more: str) -> bytes:
    """An HTTP request over a connection of its own."""
    headers = {"Host": HOST, **more, "Connection": "close"}
    if body:
        headers |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    lines.insert(0, f"{method} {path} HTTP/1.1")
    return "\r\n".join([*lines, "", ""]).encode() + body


class Log:
    """An append-only file; what is written is in the kernel's hands, whoever dies."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._file, data) :]

    def close(self) -> None:
        os.close(self._file)


class Body:
    """A chunked stream of events as it comes, cut anywhere: what a client must know of it."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.cursor: str | None = None
        self.events = 0
        self.ended = False
        self._raw = self._text = b""

    def feed(self, data: bytes) -> None:
        self._raw += data
        if not self.status:
            head, end, rest = self._raw.partition(b"\r\n\r\n")
            if not end:
                return
            self._raw = rest
            start, *lines = head.decode("latin-1").split("\r\n")
            self.status = int(start.split(" ")[1])
            pairs = (line.partition(":") for line in lines)
            self.headers = {name.lower(): value.strip() for name, _, value in pairs}
        if "chunked" in self.headers.get("transfer-encoding", ""):
            self._read_chunks()

    def _read_chunks(self) -> None:
        while True:
            size, line, rest = self._raw.partition(b"\r\n")
            length = int(size or b"0", 16)
            if not line or len(rest) < length + 2:
                break
            self._text += rest[:length]
            self._raw = rest[length + 2 :]
        *blocks, self._text = self._text.split(b"\n\n")
        for block in blocks:
            if block.startswith(b"id: "):
                self.cursor = block[4:].partition(b"\n")[0].decode()
                self.events += 1
                self.ended = self.ended or b"\nevent: run-end\n" in block


class Reading:
    """A run, read until its end over as many connections as it takes."""

    def __init__(self, crowd: "Crowd", plan: dict[str, Any], number: int) -> None:
        self._crowd = crowd
        self._base = os.path.join(crowd.folder, f"{plan['name']}.{number:02}")
        self._notes = Log(f"{self._base}.notes")
        self._choose = random.Random(f"{crowd.seed} {plan['name']} {number}")
        self._cancel_after = plan.get("cancel_after")
        self._port: int | None = crowd.ports[plan["first"]] if "first" in plan else None
        self._left: int | None = None
        self.question: bytes | None = None
        self.run_id: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.session: str | None = None
        self._cursor: str | None = None
        self._events = 0
        self.ended = False

    def ask(self, body: dict[str, Any], key: str) -> None:
        """Begin with a question."""
        data = json.dumps(body).encode()
        self.question = request("POST", "/api/v1/runs", data, Idempotency_Key=key)
        log = Log(f"{self._base}.request")
        log.write(self.question)
        log.close()

    async def run(self) -> None:
        """Read to the end; it gives up when there is no answer for a very long time."""
        connection = 0
        give_up = time.monotonic() + GIVE_UP_S
        async with asyncio.TaskGroup() as tasks:
            while not self.ended and time.monotonic() < give_up:
                port = self._next_port()
                data = self._request()
                said = data.partition(b" ")[0].decode()
                self._note(f"{connection} {port} {said} {self._cursor or '-'}")
                log = Log(f"{self._base}.{connection}.raw")
                connection += 1
                body = Body()
                try:
                    await self._read(port, data, body, log, tasks)
                except (OSError, TimeoutError):
                    pass  # what came is written and counts
                finally:
                    log.close()
                if self.ended:
                    break
                if body.status not in AGAIN and body.status not in (0, 200):
                    self._note(f"refused {body.status}")
                    return
                await asyncio.sleep(self._choose.uniform(*BACK_OFF_S))

    def _note(self, line: str) -> None:
        self._notes.write(f"{line}\n".encode())

    def _next_port(self) -> int:
        """Any node but the one that was just left."""
        port, self._port = self._port, None
        port = port or self._choose.choice([p for p in self._crowd.ports if p != self._left])
        self._left = port
        return port

    def _request(self) -> bytes:
        cursor = self._cursor
        if cursor is None:
            if self.question is not None:
                return self.question
            return request("GET", f"/api/v1/runs/{self.run_id.result()}/events")
        if self._choose.random() < 0.3:
            return request("POST", "/api/v1/runs", b"{}", Last_Event_ID=cursor)
        run_id = cursor.partition(".")[0]
        return request("GET", f"/api/v1/runs/{run_id}/events", Last_Event_ID=cursor)

    async def _read(
        self, port: int, data: bytes, body: Body, log: Log, tasks: asyncio.TaskGroup
    ) -> None:
        reader, writer = await asyncio.wait_for(asyncio.open_connection(HOST, port), SILENCE_S)
        try:
            writer.write(data)
            while read := await asyncio.wait_for(reader.read(65_536), SILENCE_S):
                log.write(read)
                self._take(body, read, tasks)
        finally:
            writer.transport.abort()

    def _take(self, body: Body, read: bytes, tasks: asyncio.TaskGroup) -> None:
        before = body.events
        body.feed(read)
        if body.status != 200:
            return
        self.session = body.headers.get("x-holdfast-session", self.session)
        run_id = body.headers.get("x-holdfast-run")
        if run_id and not self.run_id.done():
            self.run_id.set_result(run_id)
        self._cursor = body.cursor or self._cursor
        self._events += body.events - before
        self.ended = body.ended
        if self._cancel_after is not None and self._events >= self._cancel_after:
            self._cancel_after = None
            tasks.create_task(self._cancel(self.run_id.result()))

    async def _cancel(self, run_id: str) -> None:
        """Cancel through another node, until one acknowledges it."""
        data = request("POST", f"/api/v1/runs/{run_id}/cancel", b"{}")
        give_up = time.monotonic() + GIVE_UP_S
        here = self._left
        while time.monotonic() < give_up:
            port = self._choose.choice([p for p in self._crowd.ports if p != here])
            here = None
            status = 0
            with contextlib.suppress(OSError, TimeoutError):
                status = await asyncio.wait_for(_call(port, data), CALL_S)
            if status not in AGAIN and status != 0:
                self._note(f"cancel {port} {status}")
                return
            await asyncio.sleep(self._choose.uniform(*BACK_OFF_S))


async def _call(port: int, data: bytes) -> int:
    """The status of the answer to a request."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        writer.write(data)
        body = Body()
        while read := await reader.read(65_536):
            body.feed(read)
        return body.status
    finally:
        writer.transport.abort()


class Crowd:
    """All clients of the process."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self.ports: list[int] = plan["ports"]
        self.folder: str = plan["folder"]
        self.seed: str = plan["seed"]
        self._plans: list[dict[str, Any]] = plan["clients"]
        self._first: dict[str, asyncio.Future[str]] = {}

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(0, os._exit, 3)  # the driver says nothing: it has gone
        self._first = {plan["name"]: loop.create_future() for plan in self._plans}
        async with asyncio.TaskGroup() as tasks:
            for plan in self._plans:
                tasks.create_task(self._follow(plan) if "follow" in plan else self._chat(plan))

    async def _follow(self, plan: dict[str, Any]) -> None:
        reading = Reading(self, plan, 0)
        reading.run_id = self._first[plan["follow"]]
        await reading.run_id
        await reading.run()

    def _stopped(self) -> bool:
        return os.path.exists(os.path.join(self.folder, "stop"))

    async def _chat(self, plan: dict[str, Any]) -> None:
        session: str | None = None
        think = random.Random(f"{self.seed} {plan['name']}")
        for number, (body, key) in enumerate(zip(plan["bodies"], plan["keys"], strict=True)):
            reading = Reading(self, plan, number)
            if number == 0:
                reading.run_id = self._first[plan["name"]]
            reading.ask(body if session is None else {**body, "session_id": session}, key)
            await reading.run()
            if not reading.ended or self._stopped():
                return
            session = reading.session
            await asyncio.sleep(think.uniform(*THINK_S))


if __name__ == "__main__":
    with open(sys.argv[1]) as plan:
        crowd = Crowd(json.load(plan))
    asyncio.run(crowd.run())
