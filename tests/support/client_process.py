"""A client program of somebody else, as a process."""

import asyncio
import os
from types import TracebackType
from typing import Self

from tests.support.raw_client import GIVE_UP_S


class ClientProcess:
    """The program, from its start to its end or until it is told to leave.

    Attributes:
        shown: What it has written so far.
    """

    def __init__(self, *command: str) -> None:
        """Prepare; `command` is the program with its arguments."""
        self._command = command
        self.shown = b""

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": os.environ["PATH"]},
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    async def more(self) -> bool:
        """Wait for more of what it writes; False at its end."""
        assert self._process.stdout is not None
        async with asyncio.timeout(GIVE_UP_S):
            piece = await self._process.stdout.read(65_536)
        self.shown += piece
        return bool(piece)

    async def leave(self) -> None:
        """Kill it: its connections go with it."""
        self._process.kill()
        await self._process.wait()

    async def end(self) -> tuple[int, str]:
        """Wait for its end: its exit code, and what it says of itself."""
        assert self._process.stderr is not None
        while await self.more():
            pass
        async with asyncio.timeout(GIVE_UP_S):
            told = await self._process.stderr.read()
            return await self._process.wait(), told.decode(errors="replace")
