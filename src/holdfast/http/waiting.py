"""Waiting for a run's end on behalf of a client that wants one answer and no stream."""

import asyncio
import contextlib

from starlette.types import Receive

from holdfast.runner.reader import Reader


class ClientGone(Exception):
    """The client left while it waited; its run goes on or not, as its policy says."""


async def run_to_end(reader: Reader, receive: Receive) -> None:
    """Read to the last event; closes the reader.

    Raises:
        ClientGone: There is nobody left to answer.
        HoldfastError: What `Reader.next` raises.
    """
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        reader.wake.ring()

    watcher = asyncio.create_task(watch(), name="disconnect-watch")
    try:
        while await reader.next() is not None:
            if gone:
                raise ClientGone
    finally:
        watcher.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watcher
        reader.close()
