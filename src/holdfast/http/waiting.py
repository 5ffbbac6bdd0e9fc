"""Waiting for a run on behalf of a client that is not streamed to, or not yet."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeAlias

from starlette.types import Receive

from holdfast.engine.run import has_arrived
from holdfast.events import Entry, RunEnd
from holdfast.runner.reader import Reader


class ClientGone(Exception):
    """The client left while it waited; its run goes on or not, as its policy says."""


See: TypeAlias = Callable[[list[Entry]], object]
"""Is given what is read of a run."""


async def run_to_end(reader: Reader, receive: Receive, see: See | None = None) -> RunEnd:
    """Read to the last event and give it; closes the reader, which must not be there yet.

    Args:
        reader: A cursor of its own.
        receive: Tells that the client has gone.
        see: Is given the events on the way.

    Raises:
        ClientGone: There is nobody left to answer.
        HoldfastError: What `Reader.next` raises.
    """
    end: RunEnd | None = None
    async with _attended(reader, receive) as read:
        while (entries := await read()) is not None:
            if see is not None:
                see(entries)
            if entries and isinstance(entries[-1].event, RunEnd):
                end = entries[-1].event
    assert end is not None
    return end


async def early_end(reader: Reader, receive: Receive, patience_s: float) -> RunEnd | None:
    """Look ahead, for a response whose status is not decided yet; closes the reader.

    Args:
        reader: A cursor of its own, at the beginning of the run.
        receive: Tells that the client has gone.
        patience_s: How long to wait for something to arrive.

    Returns:
        How the run ended, if it did so before anything of its answer had arrived; None if
        something has arrived, or the patience is over.

    Raises:
        ClientGone: There is nobody left to answer.
        HoldfastError: What `Reader.next` raises.
    """
    late = False

    def give_up() -> None:
        nonlocal late
        late = True
        reader.wake.ring()

    alarm = asyncio.get_running_loop().call_later(patience_s, give_up)
    try:
        async with _attended(reader, receive) as read:
            while not late and (entries := await read()) is not None:
                for event in (entry.event for entry in entries):
                    if isinstance(event, RunEnd):
                        return event
                    if has_arrived(event):
                        return None
    finally:
        alarm.cancel()
    return None


@contextlib.asynccontextmanager
async def _attended(
    reader: Reader, receive: Receive
) -> AsyncIterator[Callable[[], Awaitable[list[Entry] | None]]]:
    """Reads as `Reader.next` does, as long as there is a client; closes the reader."""
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        reader.wake.ring()

    async def read() -> list[Entry] | None:
        entries = await reader.next()
        if gone and entries is not None:
            raise ClientGone
        return entries

    watcher = asyncio.create_task(watch(), name="disconnect-watch")
    try:
        yield read
    finally:
        watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watcher
        reader.close()
