"""Running the command `holdfast` as a process of its own."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Self

TIMEOUT_S = 30


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str


class Command:
    """A running command in a folder of its own, with nothing of the real environment but PATH."""

    def __init__(
        self,
        *arguments: str,
        folder: Path,
        environ: Mapping[str, str] | None = None,
        out: int | IO[bytes] = asyncio.subprocess.PIPE,
        err: int | IO[bytes] = asyncio.subprocess.PIPE,
    ) -> None:
        self._arguments = arguments
        self._folder = folder
        self._environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "XDG_STATE_HOME": str(folder / "state"),
            "PYTHONWARNINGS": "error",
            **(environ or {}),
        }
        self._out, self._err = out, err

    async def __aenter__(self) -> Self:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "holdfast.cli"),
            *self._arguments,
            cwd=self._folder,
            env=self._environ,
            stdin=asyncio.subprocess.PIPE,
            stdout=self._out,
            stderr=self._err,
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.communicate()

    async def done(self, text: str = "") -> Done:
        """Give it `text` as its input and wait for its end."""
        async with asyncio.timeout(TIMEOUT_S):
            out, err = await self.process.communicate(text.encode())
        assert self.process.returncode is not None
        return Done(self.process.returncode, (out or b"").decode(), (err or b"").decode())

    async def out_until(self, text: str) -> str:
        """Read its standard output as far as `text`."""
        assert self.process.stdout is not None
        return await _read_until(self.process.stdout, text)

    async def err_until(self, text: str) -> str:
        """Read its standard error as far as `text`."""
        assert self.process.stderr is not None
        return await _read_until(self.process.stderr, text)

    async def stop(self, sig: signal.Signals) -> Done:
        """Send a signal and wait for the end."""
        self.process.send_signal(sig)
        return await self.done()


async def _read_until(stream: asyncio.StreamReader, text: str) -> str:
    async with asyncio.timeout(TIMEOUT_S):
        return (await stream.readuntil(text.encode())).decode()


async def run(
    *arguments: str, folder: Path, environ: Mapping[str, str] | None = None, text: str = ""
) -> Done:
    """Run a command to its end."""
    async with Command(*arguments, folder=folder, environ=environ) as command:
        return await command.done(text)
