"""The scripted upstream of the crash proof, slower, and it writes down who hangs up.

    python -m tests.cluster.upstream LOG

Besides the lines of `tests.faults.upstream` its log has `closed NAME`: the connection over which
this question was answered is gone.
"""

import asyncio
import os
import sys

from tests.faults.lifeline import die_with_parent
from tests.faults.upstream import Upstream

STRETCH = 5
"""Pauses are so much longer than the script says: three nodes and a database share the machine."""
STEP_S = 0.05
"""How soon a closed connection is noticed in a pause."""


class PatientUpstream(Upstream):
    """Pauses longer, and looks for the other side while it does."""

    def __init__(self, log: int) -> None:
        super().__init__(log)
        self._readers: dict[asyncio.Task[None], asyncio.StreamReader] = {}
        self._names: dict[asyncio.Task[None], str] = {}

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = _this_task()
        self._readers[task] = reader
        try:
            await super()._connect(reader, writer)
        finally:
            del self._readers[task]
            name = self._names.pop(task, None)
            if name is not None:
                self._note("closed", name)

    def _note(self, *words: object) -> None:
        if words[0] == "asked":
            self._names[_this_task()] = str(words[1])
        super()._note(*words)

    async def _pause(self, seconds: float) -> None:
        reader = self._readers[_this_task()]
        left = seconds * STRETCH
        while left > 0 and not self._hurry.is_set():
            if reader.at_eof() or reader.exception() is not None:
                raise ConnectionResetError
            await super()._pause(min(left, STEP_S))
            left -= STEP_S


def _this_task() -> "asyncio.Task[None]":
    task = asyncio.current_task()
    assert task is not None
    return task


def main() -> None:
    die_with_parent()
    log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    asyncio.run(PatientUpstream(log).serve())


if __name__ == "__main__":
    main()
