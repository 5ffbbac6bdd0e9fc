"""Reading a run: one stream of entries, however often the connection breaks.

    opening ──► a run's stream ──► entries ──► run-end
       ▲                               │ connection lost
       │ no run known yet              ▼
       └────────────────────────── wait ──► GET events with Last-Event-ID ──► the rest

An opening that asks has a key, and the same key is the same run: sending it again never asks twice.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable
from typing import Final

import msgspec

from holdfast.client._errors import Broken
from holdfast.client._http import Connection, Request, Transport
from holdfast.engine.cursor import Cursor, parse_cursor
from holdfast.errors import BadRequest, HoldfastError, TooManyRequests
from holdfast.events import EVENT_TYPES, Entry, Event, RunEnd, RunStart, decode
from holdfast.upstreams.wire.sse import SseEvent, SseParser

MAX_EVENT: Final = 64_000_000
FIRST_WAIT_S: Final = 0.1
LONGEST_WAIT_S: Final = 3.0


_IDS: Final = ("run_id", "session_id", "message_id", "question_id")


class Policy(msgspec.Struct, frozen=True):
    """How a client goes on after a failure."""

    patience_s: float
    """How long to try again without one new event before giving up."""
    wait_for_server: bool
    """Whether that holds for a server that was not there yet."""
    on_wait: Callable[[str], None] | None
    """Called with the cause before each further try."""


class Reading:
    """See the module.

    Attributes:
        ids: `run_id`, `session_id`, `message_id` and `question_id`, as far as they are known.
        seq: That of the last entry that was given.
        ended: Whether there is nothing more to give.
    """

    def __init__(
        self,
        transport: Transport,
        policy: Policy,
        opening: Request | None = None,
        cursor: Cursor | None = None,
    ) -> None:
        """Begin with the stream that `opening` answers with, or after `cursor`."""
        self.ids: dict[str, str] = {"run_id": cursor.run_id} if cursor else {}
        self.seq = cursor.seq if cursor else 0
        self.ended = False
        self._transport = transport
        self._policy = policy
        self._opening = opening
        self._connection: Connection | None = None
        self._parser = SseParser()
        self._events: deque[SseEvent] = deque()
        self._patience = Patience(policy.patience_s)
        self._reached = False

    @property
    def run_id(self) -> str | None:
        """The run that is read, once it is known."""
        return self.ids.get("run_id")

    async def open(self) -> None:
        """Be connected, so that `ids` are known; nothing is read.

        Raises:
            ServerUnreachable: Nobody answers, or not any more for the time of patience.
            HoldfastError: What the server answered, as the error that it stands for.
        """
        while self._connection is None and not self.ended:
            try:
                await self._connect()
            except Broken as broken:
                await self._wait(broken)

    async def next(self) -> Entry | None:
        """The next entry; None after the last one. It may be cancelled and called again.

        Raises:
            ServerUnreachable: Nobody answers, or not any more for the time of patience.
            HoldfastError: What the server answered, as the error that it stands for.
        """
        while not self.ended:
            try:
                if self._events:
                    entry = self._take(self._events.popleft())
                    if entry is not None:
                        return entry
                else:
                    await self._receive()
            except Broken as broken:
                self.pause()
                await self._wait(broken)
            except HoldfastError:
                self.pause()
                raise
        return None

    def pause(self) -> None:
        """Let go of the connection; the next entry needs another one."""
        self._events.clear()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    async def _connect(self) -> None:
        connection = await self._transport.stream(self._request())
        self._reached = True
        if connection is None:
            self.ended = True
            return
        self._connection = connection
        self._parser = SseParser(MAX_EVENT)
        self.ids |= connection.ids

    def _request(self) -> Request:
        if self.run_id is None:
            assert self._opening is not None
            return self._opening
        headers = {"Last-Event-ID": f"{self.run_id}.{self.seq}"} if self.seq else None
        return Request("GET", ("runs", self.run_id, "events"), headers=headers)

    async def _receive(self) -> None:
        if self._connection is None:
            await self._connect()
            return
        self._events.extend(self._parser.feed(await self._connection.read()))
        if self._parser.overflowed:
            raise self._transport.not_holdfast()
        if self._parser.retry_ms is not None:
            self._patience.at_least_s = self._parser.retry_ms / 1000

    def _take(self, event: SseEvent) -> Entry | None:
        """The event as an entry; None if it was seen before, or is of a type not known here."""
        try:
            run_id, seq = parse_cursor(event.id)
            known = _decode(event.data)
        except (BadRequest, msgspec.MsgspecError):
            raise self._transport.not_holdfast() from None
        if seq > self.seq + 1:
            raise Broken(f"event {self.seq + 1} did not come")
        if seq <= self.seq:
            return None
        self.ids["run_id"], self.seq = run_id, seq
        self._patience.renew()
        if isinstance(known, RunStart):
            self.ids = {name: getattr(known, name) for name in _IDS}
        elif isinstance(known, RunEnd):
            self.ended = True
            self.pause()
        return None if known is None else Entry(seq, known, event.data)

    async def _wait(self, broken: Broken) -> None:
        """Wait before the next try, or raise what is to be said if there is none."""
        if not self._reached and isinstance(broken.refusal, TooManyRequests):
            raise broken.refusal  # nothing was asked; whether to wait is for the caller to say
        self._reached = self._reached or broken.reached
        patient = self._reached or self._policy.wait_for_server
        wait_s = self._patience.next_wait_s(broken.retry_after_s) if patient else None
        if wait_s is None:
            told = self._transport.unreachable(str(broken), reached=self._reached)
            raise (broken.refusal or told) from broken
        if self._policy.on_wait is not None:
            self._policy.on_wait(str(broken))
        await asyncio.sleep(wait_s)


class Patience:
    """How long to wait before each try, and when to stop trying.

    Attributes:
        at_least_s: The shortest wait that the stream asked for.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Have patience for so long, from the first failure on, and anew after each `renew`."""
        self.at_least_s = 0.0
        self._seconds = seconds
        self._clock = clock
        self.renew()

    def renew(self) -> None:
        """Something came: start anew."""
        self._wait_s = FIRST_WAIT_S
        self._deadline: float | None = None

    def next_wait_s(self, at_least_s: float = 0) -> float | None:
        """How long to wait now; None when patience is at its end."""
        # Spread, so that many clients of one server do not come back at the same instant.
        wait_s = self._wait_s * random.uniform(0.75, 1.25)
        self._wait_s = min(self._wait_s * 2, LONGEST_WAIT_S)
        wait_s = max(wait_s, at_least_s, self.at_least_s)
        now = self._clock()
        if self._deadline is None:
            self._deadline = now + self._seconds
        return wait_s if now + wait_s < self._deadline else None


class _Tag(msgspec.Struct):
    type: str


def _decode(data: bytes) -> Event | None:
    """An event; None if its type is of a later version, which is to be passed over."""
    try:
        event: Event = decode(data)
        return event
    except msgspec.ValidationError:
        if msgspec.json.decode(data, type=_Tag).type in EVENT_TYPES.values():
            raise
        return None
