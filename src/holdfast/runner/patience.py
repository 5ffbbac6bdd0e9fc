"""Reading what a run needs, as patiently as its events are committed."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import TypeVar

from holdfast.errors import StoreUnavailable
from holdfast.store.group_commit import RETRY_S

T = TypeVar("T")


async def patiently(read: Callable[[], Awaitable[T]], patience_s: float) -> T:
    """Try `read` again while the store does not answer.

    Args:
        read: Reads from the store.
        patience_s: For how many seconds.

    Raises:
        StoreUnavailable: It did not answer in all that time.
    """
    loop = asyncio.get_running_loop()
    ends = loop.time() + patience_s
    for pause_s in itertools.chain(RETRY_S, itertools.repeat(RETRY_S[-1])):
        try:
            return await read()
        except StoreUnavailable:
            if loop.time() + pause_s >= ends:
                raise
        await asyncio.sleep(pause_s)
    raise AssertionError("the pauses never end")
