"""Waiting in tests without the clock."""

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until something that nobody tells has happened, and once more."""
    while not condition():  # noqa: ASYNC110 - there is no event to wait for
        await asyncio.sleep(0)
    await asyncio.sleep(0)


async def turns(count: int = 20) -> None:
    """Let everything that is ready run, so often; for showing that nothing happens."""
    for _ in range(count):
        await asyncio.sleep(0)
