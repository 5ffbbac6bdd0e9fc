"""An answer as it comes: its events one by one, then the whole of it."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from types import TracebackType
from typing import Self

import msgspec

from holdfast.client._reading import Reading
from holdfast.engine import fold
from holdfast.engine.cursor import Cursor
from holdfast.errors import NotFound
from holdfast.events import Entry, Event, Outcome, Reason
from holdfast.http.shapes import RunAnswer


class Answer(fold.Answer, frozen=True, kw_only=True):
    """A whole answer, complete or not: `status`, `outcome` and `reason` say which.

    Attributes:
        run_id: The run that wrote it.
        session_id: The session to ask on in.
        message_id: The answer, as a message.
        question_id: The question, as a message.
    """

    run_id: str
    session_id: str
    message_id: str
    question_id: str

    @property
    def outcome(self) -> Outcome | None:
        """How its run ended."""
        return self.end.outcome if self.end else None

    @property
    def reason(self) -> Reason | None:
        """Why it ended early; None if it did not."""
        return self.end.reason if self.end else None

    @property
    def error(self) -> str | None:
        """What the upstream or the server said of that."""
        return self.end.error if self.end else None


class AsyncAnswerStream:
    """The events of one run, each once and in order, over as many connections as it takes.

    Iterate it for the events; `answer` gives what they amount to. The question is asked when the
    first event is wanted, or with `start`. Waiting for an event may be cancelled at any time:
    nothing is lost, the next one wanted is the next one there is. To leave early, use it as a
    context manager, or `close` it; the run goes on as the server's policy has it.
    """

    def __init__(
        self,
        reading: Reading,
        cancel: Callable[[str], Awaitable[RunAnswer]],
        resume: Callable[[str], "AsyncAnswerStream"],
    ) -> None:
        """Give what `reading` reads; `cancel` and `resume` are the client's."""
        self._reading = reading
        self._cancel = cancel
        self._resume = resume
        self._lock = asyncio.Lock()
        self._fold = fold.Fold() if reading.seq == 0 else None
        self._last: Entry | None = None

    async def __aenter__(self) -> Self:
        """Nothing is asked yet."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let go of the connection."""
        await self.close()

    @property
    def run_id(self) -> str | None:
        """The run, once the server has answered."""
        return self._reading.run_id

    @property
    def session_id(self) -> str | None:
        """The session, once the server has answered."""
        return self._reading.ids.get("session_id")

    @property
    def message_id(self) -> str | None:
        """The answer's message, once the server has answered."""
        return self._reading.ids.get("message_id")

    @property
    def cursor(self) -> str | None:
        """The position after the last event that was given; `resume` goes on from there."""
        reading = self._reading
        return str(Cursor(reading.run_id, reading.seq)) if reading.run_id else None

    def __aiter__(self) -> Self:
        """The events that were not given yet."""
        return self

    async def __anext__(self) -> Event:
        """The next event.

        Raises:
            ServerUnreachable: Nobody answers, or not any more for the client's `patience_s`.
            HoldfastError: What the server answered, as the error that it stands for.
        """
        entry = await self._next()
        if entry is None:
            raise StopAsyncIteration
        return entry.event

    async def entries(self) -> AsyncGenerator[Entry, None]:
        """The events that were not given yet, each with its `seq` and the bytes of its JSON.

        Raises:
            HoldfastError: As for the events.
        """
        while (entry := await self._next()) is not None:
            yield entry

    async def _next(self) -> Entry | None:
        async with self._lock:
            return await self._read()

    async def _after(self, seq: int) -> Entry | None:
        """The first entry after `seq`, which is the last one that the caller has.

        That may be one that was given before, to somebody who could not take it any more.
        """
        async with self._lock:
            given = self._last
            return given if given is not None and given.seq > seq else await self._read()

    async def _read(self) -> Entry | None:
        self._last = await self._reading.next()
        if self._last is not None and self._fold is not None:
            self._fold.add(self._last.event)
        return self._last

    async def start(self) -> None:
        """Ask now; `run_id` and the other ids are known then. Takes no event.

        Raises:
            HoldfastError: As for the events.
        """
        async with self._lock:
            await self._reading.open()

    async def answer(self) -> Answer:
        """Read to the end; the whole answer, also of what was given before.

        An answer that ended early is returned as it is; see `Answer.status`.

        Raises:
            NotFound: There is no run to read: the session that is followed has no live one.
            HoldfastError: As for the events.
        """
        while await self._next() is not None:
            pass
        run_id = self._known_run()
        if self._fold is None:  # it began in the middle
            return await self._resume(run_id).answer()
        return Answer(**{**msgspec.structs.asdict(self._fold.answer()), **self._reading.ids})

    async def cancel(self) -> RunAnswer:
        """Stop the run and keep what it has written; what there is of it can still be read.

        Raises:
            NotFound: There is no run to stop.
            HoldfastError: As for the events.
        """
        if self.run_id is None:
            await self.start()
        return await self._cancel(self._known_run())

    def _known_run(self) -> str:
        if self.run_id is None:
            raise NotFound("the session has no live run")
        return self.run_id

    async def close(self) -> None:
        """Let go of the connection. Reading on is possible; it takes another one."""
        self._pause()

    def _pause(self) -> None:
        self._reading.pause()
