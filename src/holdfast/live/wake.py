"""A bell for one coroutine."""

import asyncio


class Wake:
    """Wakes the one coroutine that waits on it; rings before the wait are remembered as one."""

    __slots__ = ("_future", "_rung")

    def __init__(self) -> None:
        """Begin silent."""
        self._rung = False
        self._future: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """Wake the waiter, now or when it comes."""
        self._rung = True
        future = self._future
        if future is not None and not future.done():
            future.set_result(None)

    async def wait(self) -> None:
        """Wait for the next ring, or for one since the last wait."""
        if not self._rung:
            self._future = asyncio.get_running_loop().create_future()
            try:
                await self._future
            finally:
                self._future = None
        self._rung = False
