"""A real server process, with a scripted upstream behind it.

async with Deployment(folder) as site:
    async with site.ask(site.answers(*completion("Be", "cause."))) as stream:
        frames = await stream.rest()
"""

import asyncio
import itertools
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.raw_client import GIVE_UP_S, POLL_S, Client, EventStream
from tests.support.upstream_server import (
    LAST_CHUNK,
    Request,
    Script,
    ScriptedUpstream,
    Step,
    Wire,
    chunk,
    completion,
    head,
    stream,
    whole,
)

START_S = 60.0
"""What a busy machine may take to start a server."""
DEFAULT_ANSWER = completion("Kelp ", "holds ", "fast.")


class Server(Client):
    """`holdfast serve` as a process, on a free port of the loopback.

    Attributes:
        process: The process; with a `prefix`, that of the command which became the server.
        pid: Its id.
        database: The file of the store.
    """

    def __init__(
        self,
        folder: Path,
        *,
        port: int = 0,
        prefix: Sequence[str] = (),
        **sections: Mapping[str, Any],
    ) -> None:
        """Prepare a server.

        Args:
            folder: Where its settings, its log and, unless `storage` says otherwise, its data are.
            port: Where to listen; 0 is any free port.
            prefix: A command that becomes the server, with the server's command behind it.
            sections: The tables of the configuration.
        """
        self.folder = folder
        self.database = folder / "chat.db"
        storage = {"url": f"sqlite:///{self.database}", "synchronous": "normal"}
        self._sections = {
            **sections,
            "server": {"port": port, **sections.get("server", {})},
            "storage": {**storage, **sections.get("storage", {})},
        }
        self._prefix = prefix
        self._log = folder / "server.log"

    async def __aenter__(self) -> Self:
        config = self.folder / "test.toml"
        config.write_text(_toml(self._sections))
        command = [sys.executable, "-m", "holdfast.cli", "serve", "--config", str(config)]
        with self._log.open("ab") as log:
            start = log.tell()
            self.process = await asyncio.create_subprocess_exec(
                *self._prefix,
                *command,
                cwd=self.folder,
                env={"PATH": os.environ["PATH"], "PYTHONWARNINGS": "error"},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.pid = self.process.pid
        try:
            await self._ready(start)
        except BaseException:
            if self.process.returncode is None:
                self.process.kill()
            await self.process.wait()
            raise
        return self

    async def _ready(self, start: int) -> None:
        async with asyncio.timeout(START_S):
            while "Holdfast at " not in (text := self.log_text[start:]) or "\n" not in text:
                assert self.process.returncode is None, text
                await asyncio.sleep(POLL_S)
        self.url = text.partition("Holdfast at ")[2].partition(",")[0]

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        told, found, trace = self.log_text.partition("Traceback")
        assert error is not None or not found, told[-300:] + found + trace[:3_000]

    @property
    def log_text(self) -> str:
        """What it has said."""
        return self._log.read_text(errors="replace")

    @property
    def peak_memory(self) -> int:
        """The most memory that it had since `reset_peak_memory`, in bytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024

    def reset_peak_memory(self) -> int:
        """Let the peak begin anew; the memory that it has now, in bytes."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        return self.peak_memory

    def signal(self, sig: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(sig)

    async def exit(self) -> int:
        """Wait for its exit; the exit code."""
        async with asyncio.timeout(GIVE_UP_S):
            return await self.process.wait()

    async def stop(self) -> int:
        """SIGTERM, and wait for its exit; the exit code."""
        self.signal(signal.SIGTERM)
        return await self.exit()


class Deployment:
    """A scripted upstream called `script`, and a server in front of it.

    Each question that a test makes has its own script, so that tests can share a deployment.
    """

    def __init__(self, folder: Path, **sections: Any) -> None:
        """Prepare; `sections` are as for `Server`."""
        self._folder = folder
        self._sections = sections
        self._scripts: dict[str, list[Script]] = {}
        self._numbers = itertools.count(1)
        self.choose: Callable[[str], Script] = lambda question: stream(*DEFAULT_ANSWER)
        """Chooses the script for a question that was not made here."""
        self.upstream = ScriptedUpstream(self._choose)

    async def __aenter__(self) -> Self:
        await self.upstream.__aenter__()
        self.server = self.make_server()
        try:
            await self.server.__aenter__()
        except BaseException:
            await self.upstream.__aexit__(None, None, None)
            raise
        return self

    def make_server(self, **options: Any) -> Server:
        """A server with these settings; `restart` and the start of the block use it."""
        table = {
            "kind": "openai",
            "base_url": f"{self.upstream.base_url}/v1",
            "api_key": "sk-secret-key",
            "model": "m1",
        }
        upstreams = {"script": table, **self._sections.get("upstreams", {})}
        return Server(self._folder, **{**self._sections, **options, "upstreams": upstreams})

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self.server.__aexit__(kind, error, traceback)
        finally:
            await self.upstream.__aexit__(kind, error, traceback)

    async def restart(self) -> None:
        """Start the server once more, where it was, when its process is gone."""
        await self.server.process.wait()
        self.server = self.make_server(port=self.server.port)
        await self.server.__aenter__()

    def _choose(self, request: Request) -> Script:
        if request.method == "GET":
            return whole({"object": "list", "data": []})
        question = request.json["messages"][-1]["content"]
        scripts = self._scripts.get(question, [])
        if not scripts:
            return self.choose(question)
        return scripts.pop(0) if len(scripts) > 1 else scripts[0]

    def question(self, *scripts: Script) -> str:
        """A new question that is answered by these scripts in turn, the last one for ever."""
        text = f"Question {next(self._numbers)}?"
        self._scripts[text] = list(scripts)
        return text

    def answers(self, *pieces: bytes | Step) -> str:
        """A new question that is answered by an event stream of these pieces and steps."""
        return self.question(script_of(*pieces))

    def requests_for(self, question: str) -> list[Request]:
        """What the upstream was sent for a question."""
        return [
            request
            for request in self.upstream.requests
            if request.method == "POST" and request.json["messages"][-1]["content"] == question
        ]

    @asynccontextmanager
    async def ask(
        self, message: str, *, headers: Mapping[str, str] | None = None, **body: Any
    ) -> AsyncIterator[EventStream]:
        """POST a question and read its stream."""
        body = {"message": message, **body}
        async with self.server.stream("POST", "/api/v1/runs", body, **(headers or {})) as found:
            yield found

    async def asked(self, message: str, **body: Any) -> Any:
        """POST a question and wait for the answer: the run with its message."""
        reply = await self.server.post(
            "/api/v1/runs", {"message": message, "stream": False, **body}
        )
        assert reply.status == 200, reply
        return reply.json


def script_of(*pieces: bytes | Step) -> Script:
    """An event stream of these pieces, each a chunk of its own, and steps in between.

    It comes to its proper end unless a step of `Wire` is the last.
    """
    steps: list[Step] = [head()]
    steps += [chunk(piece) if isinstance(piece, bytes) else piece for piece in pieces]
    if not isinstance(pieces[-1] if pieces else None, Wire):
        steps.append(LAST_CHUNK)
    return steps


def _toml(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """Tables of plain values; upstreams are tables of tables."""
    lines: list[str] = []
    for section, table in sections.items():
        inner = {key: value for key, value in table.items() if isinstance(value, dict)}
        lines.append(f"[{section}]")
        lines += [f"{key} = {json.dumps(v)}" for key, v in table.items() if key not in inner]
        for name, values in inner.items():
            lines.append(f"[{section}.{name}]")
            lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"
