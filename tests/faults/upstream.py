"""The scripted upstream: a process of its own that writes down what it is asked and what it sends.

    python -m tests.faults.upstream LOG

It prints its port. Its log has a line for each question (`asked NAME`) and for each write that the
kernel took (`sent NAME FRAMES`, the frames so far). SIGUSR1 makes it send without pauses.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress

from tests.faults.lifeline import die_with_parent
from tests.faults.script import Frame, Kind, name_of, script_of

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"


class Upstream:
    def __init__(self, log: int) -> None:
        self._log = log
        self._hurry = asyncio.Event()

    async def serve(self) -> None:
        server = await asyncio.start_server(self._connect, "127.0.0.1", 0)
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self._hurry.set)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    def _note(self, *words: object) -> None:
        os.write(self._log, " ".join(map(str, words)).encode() + b"\n")

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A killed server resets its connections.
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while await self._answer(reader, writer):
                pass
        writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; whether the connection may have another one."""
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
        body = json.loads(await reader.readexactly(int(length)))
        question = body["messages"][-1]["content"]
        script, name = script_of(question), name_of(question)
        self._note("asked", name)
        writer.write(_HEAD)
        sent = 0
        for batch in _batches(script.frames):
            data = b"".join(frame.data for frame in batch)
            writer.write(b"%x\r\n%b\r\n" % (len(data), data))
            await writer.drain()
            sent += len(batch)
            self._note("sent", name, sent)
            await self._pause(batch[-1].pause_s)
        if script.kind is Kind.CUT:
            return False
        writer.write(_LAST_CHUNK)
        await writer.drain()
        return True

    async def _pause(self, seconds: float) -> None:
        if seconds > 0 and not self._hurry.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), seconds)


def _batches(frames: Sequence[Frame]) -> list[list[Frame]]:
    """The frames as they are written: together until one with a pause."""
    batches: list[list[Frame]] = [[]]
    for frame in frames:
        batches[-1].append(frame)
        if frame.pause_s:
            batches.append([])
    return [batch for batch in batches if batch]


def main() -> None:
    die_with_parent()
    log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    asyncio.run(Upstream(log).serve())


if __name__ == "__main__":
    main()
