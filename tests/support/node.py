"""JavaScript clients as processes: see `tests/clients/node`."""

import asyncio
import json
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.raw_client import GIVE_UP_S

CLIENTS = Path(__file__).parent.parent / "clients" / "node"
LINE_BYTES = 1 << 24


class NodeClient:
    """A script of `tests/clients/node` that does one command after the other."""

    def __init__(self, script: str, *arguments: str) -> None:
        """Prepare `node SCRIPT ARGUMENTS`."""
        self._command = ["node", script, *arguments]

    async def __aenter__(self) -> Self:
        installed = (CLIENTS / "node_modules" / ".installed").exists()
        assert installed, "the clients are not installed: `make test` does it"
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            cwd=CLIENTS,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=LINE_BYTES,
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
        # Its pipes are closed by the loop, a turn later.
        self._process._transport.close()  # type: ignore[attr-defined]

    async def do(self, name: str, **given: Any) -> Any:
        """The result of a command."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": name, **given}).encode() + b"\n")
        try:
            async with asyncio.timeout(GIVE_UP_S):
                line = await self._process.stdout.readline()
        except TimeoutError:
            self._process.kill()  # it waits for what will not happen; the next test must not
            raise
        assert line, f"{self._command} has died"
        answer = json.loads(line)
        assert "error" not in answer, answer["error"]
        return answer["result"]
