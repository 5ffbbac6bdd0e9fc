"""A run that only records what an upstream gives it."""

import asyncio
from collections.abc import Callable, Sequence

from holdfast.engine.run import UpstreamEnd
from holdfast.events import Event, TextDelta
from holdfast.upstreams.base import Ask, Exchange, Item, Upstream


class RecordingSink:
    """A `Sink` without a run.

    Attributes:
        events: Everything that was given, in order.
        batches: How many times something was given, empty batches included.
        ends: The `UpstreamEnd`s among it.
        remembered: What the upstream wanted to be remembered.
    """

    def __init__(self, limit: int | None = None, end: UpstreamEnd | None = None) -> None:
        """Take everything, or end by `end` once there are `limit` events."""
        self.events: list[Event] = []
        self.batches = 0
        self.ends: list[UpstreamEnd] = []
        self.remembered: list[str] = []
        self._limit = limit
        self._end = end
        self._news = asyncio.Event()

    @property
    def text(self) -> str:
        """The text of the deltas."""
        return "".join(event.text for event in self.events if isinstance(event, TextDelta))

    async def has(self, condition: Callable[[], bool]) -> None:
        """Wait until what was given makes `condition` true."""
        while not condition():
            self._news.clear()
            await self._news.wait()

    def take(self, items: Sequence[Item]) -> UpstreamEnd | None:
        """See `Sink`."""
        assert not self.ends, "nothing may follow the end"
        self.batches += 1
        self._news.set()
        for item in items:
            if isinstance(item, UpstreamEnd):
                self.ends.append(item)
                return item
            self.events.append(item)
        if self._limit is not None and len(self.events) >= self._limit:
            return self._end
        return None

    def foretell(self, end: UpstreamEnd) -> None:
        """See `Sink`."""
        assert not self.ends

    def remember(self, conversation: str) -> None:
        """See `Sink`."""
        self.remembered.append(conversation)

    def is_full(self) -> bool:
        """See `Sink`."""
        return False

    async def room(self) -> None:
        """See `Sink`."""


class FullSink(RecordingSink):
    """Full after each batch until somebody waited; refuses to be given more before."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = 0
        self._is_full = False

    def take(self, items: Sequence[Item]) -> UpstreamEnd | None:
        assert not self._is_full
        self._is_full = bool(items)
        return super().take(items)

    def is_full(self) -> bool:
        return self._is_full

    async def room(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)
        self.waits += 1
        self._is_full = False


async def collect(upstream: Upstream, ask: Ask, exchange: Exchange | None = None) -> list[Item]:
    """All items of an answer; the end is what `answer` returned."""
    sink = RecordingSink()
    end = await upstream.answer(ask, exchange or Exchange(), sink)
    assert len(sink.ends) == 1
    return [*sink.events, end]
