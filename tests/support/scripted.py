"""An upstream that does, step by step, what a test says."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import TypeAlias

from holdfast.engine.run import UpstreamEnd
from holdfast.events import Event, TextDelta
from holdfast.upstreams.base import Ask, Exchange, GeneratorUpstream, Health, Item

Step: TypeAlias = Sequence[Item] | BaseException | None
"""A batch to give, an exception to raise, or None: stop without a word."""

DONE = UpstreamEnd()


def texts(*parts: str) -> list[Event]:
    """One text event each."""
    return [TextDelta(part) for part in parts]


class Call:
    """One question to the upstream, and the hand of the test on its answer."""

    def __init__(self, ask: Ask, exchange: Exchange, steps: Sequence[Step]) -> None:
        self.ask = ask
        self.exchange = exchange
        self.given = 0
        """How many batches the engine has taken over."""
        self.hungry = asyncio.Event()
        """The engine waits for the next batch: it has taken in all before."""
        self.close_gate = asyncio.Event()
        """Closing the connection takes until this is set."""
        self.close_gate.set()
        self.close_error: BaseException | None = None
        """What closing the connection raises."""
        self.closing = asyncio.Event()
        self.closed = asyncio.Event()
        """The connection to the upstream is closed."""
        self._steps: asyncio.Queue[Step] = asyncio.Queue()
        for step in steps:
            self._steps.put_nowait(step)

    @property
    def waiting(self) -> int:
        """How many steps the engine has not asked for."""
        return self._steps.qsize()

    def push(self, *items: Item) -> None:
        """Have a batch ready, without waiting for anybody."""
        self._steps.put_nowait(items)

    def end(self, step: BaseException | None = None) -> None:
        """Raise `step`, or stop without a terminal marker."""
        self._steps.put_nowait(step)

    async def give(self, *items: Item) -> None:
        """Give a batch and wait until the engine has taken it in."""
        self.hungry.clear()
        self.push(*items)
        if not any(isinstance(item, UpstreamEnd) for item in items):
            await self.hungry.wait()

    async def play(self) -> AsyncGenerator[Sequence[Item], None]:
        try:
            while True:
                if self._steps.empty():
                    self.hungry.set()
                step = await self._steps.get()
                if step is None:
                    return
                if isinstance(step, BaseException):
                    raise step
                self.given += 1
                yield step
        finally:
            self.closing.set()
            await self.close_gate.wait()
            self.closed.set()
            if self.close_error is not None:
                raise self.close_error


class ScriptedUpstream(GeneratorUpstream):
    """Each question becomes a `Call`; `steps` are ready in it from the beginning."""

    kind = "scripted"

    def __init__(self, name: str = "script", *steps: Step) -> None:
        super().__init__(name)
        self.steps = steps
        self.calls: list[Call] = []
        self.before: Callable[[Ask], Awaitable[None]] | None = None
        """Awaited when a question comes, before anything else."""
        self.prepare: Callable[[Call], None] = lambda call: None
        """Called with each call when it is made."""
        self.opened = self.closed = 0
        self._changed = asyncio.Condition()

    async def items(self, ask: Ask, exchange: Exchange) -> AsyncGenerator[Sequence[Item], None]:
        if self.before is not None:
            await self.before(ask)
        call = Call(ask, exchange, self.steps)
        self.prepare(call)
        async with self._changed:
            self.calls.append(call)
            self._changed.notify_all()
        playing = call.play()
        try:
            async for items in playing:
                yield items
        finally:
            await playing.aclose()

    async def called(self, times: int = 1) -> Call:
        """Wait until it was asked so often; the last call."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.calls) >= times)
        return self.calls[times - 1]

    async def open(self) -> None:
        self.opened += 1

    async def close(self) -> None:
        self.closed += 1

    async def check(self) -> Health:
        return Health(True)
