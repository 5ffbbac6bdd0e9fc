"""One thread that does one thing at a time for an event loop."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any


class WorkThread:
    """Like an executor with one worker, at a fraction of its cost per call."""

    def __init__(self, name: str) -> None:
        """Start the thread; it waits at no cost."""
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self.closed = False
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    def post(self, function: Callable[[], None]) -> None:
        """Call `function`, which must not raise, in the thread; nobody hears of its end."""
        self._jobs.put(function)

    def run(self, function: Callable[..., Any], *arguments: Any) -> "asyncio.Future[Any]":
        """Call `function` in the thread, after everything that was asked before.

        Raises:
            RuntimeError: The thread was closed.
        """
        if self.closed:
            raise RuntimeError("the thread was closed")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()

        def job() -> None:
            try:
                result = function(*arguments)
            except BaseException as error:
                outcome, settle = error, done.set_exception
            else:
                outcome, settle = result, done.set_result
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits
                loop.call_soon_threadsafe(_settle, done, settle, outcome)

        self._jobs.put(job)
        return done

    def close(self) -> None:
        """End the thread after what was asked before."""
        self.closed = True
        self._jobs.put(None)


def _settle(done: "asyncio.Future[Any]", settle: Callable[[Any], None], outcome: Any) -> None:
    if not done.done():
        settle(outcome)
