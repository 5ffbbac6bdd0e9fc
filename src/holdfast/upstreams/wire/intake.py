"""Reading many sockets in one turn of the event loop.

Who relays thousands of small chunks a second pays more for being woken for each of them than for
what he does with it. While much comes in, the sockets are therefore not watched one by one: every
few milliseconds all that has come is read in one go, while caches are warm and in time for the one
commit that takes all of it. While little comes in, each chunk is read when it comes.
"""

import asyncio
import contextlib
import os
import select
from typing import Final, Protocol

MAX_SPACING_S: Final = 0.010
MIN_SPACING_S: Final = 0.001
"""A timer for less is not worth it."""
QUIET_RATE: Final = 500.0
"""Reads per second up to which every chunk is read when it comes."""
SPACING_PER_RATE: Final = 4e-6
"""Seconds of spacing for each read per second above that: 3,000 a second reach the maximum."""
RATE_WINDOW_S: Final = 0.05
READ_BYTES: Final = 256 * 1024
TURN_READS: Final = 256
"""How many sockets are read before others have their turn; the rest come in the next one."""


class Source(Protocol):
    """Whose socket is read here."""

    def on_read(self, data: bytes) -> None:
        """What has come; b"" at the end of the stream."""

    def on_read_error(self, error: OSError) -> None:
        """The connection broke."""


class Intake:
    """The sockets of one event loop that are read together."""

    def __init__(self) -> None:
        """Make it where a loop runs."""
        self._loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._sources: dict[int, Source] = {}
        self._rate = 0.0
        self._last_turn = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._watch()

    def add(self, socket: int, source: Source) -> None:
        """Read this socket, which does not block, from now on."""
        self._sources[socket] = source
        self._epoll.register(socket, select.EPOLLIN)

    def remove(self, socket: int, source: Source) -> None:
        """Read it no more; called before it is closed, or right after."""
        if self._sources.get(socket) is source:
            del self._sources[socket]
            with contextlib.suppress(OSError):  # closed already
                self._epoll.unregister(socket)

    def close(self) -> None:
        """Let go of everything."""
        self._sources.clear()
        self._unwatch()
        if self._timer is not None:
            self._timer.cancel()
        self._epoll.close()

    def _watch(self) -> None:
        """Be called when something comes."""
        self._timer = None
        self._loop.add_reader(self._epoll.fileno(), self._turn)

    def _unwatch(self) -> None:
        self._loop.remove_reader(self._epoll.fileno())

    def _turn(self) -> None:
        """Read all that has come."""
        ready = self._epoll.poll(0, TURN_READS)
        for socket, _ in ready:
            source = self._sources.get(socket)
            if source is None:
                continue  # removed by what was read before in this turn
            try:
                data = os.read(socket, READ_BYTES)
            except BlockingIOError:
                continue
            except OSError as error:
                source.on_read_error(error)
            else:
                source.on_read(data)
        if not self._epoll.closed:
            self._plan(len(ready))

    def _plan(self, reads: int) -> None:
        """Decide when to look again: at once when something comes, or after a while."""
        now = self._loop.time()
        elapsed = max(now - self._last_turn, 1e-6)
        self._last_turn = now
        weight = elapsed / (elapsed + RATE_WINDOW_S)
        self._rate += (reads / elapsed - self._rate) * weight
        spacing = min(MAX_SPACING_S, (self._rate - QUIET_RATE) * SPACING_PER_RATE)
        if spacing >= MIN_SPACING_S:
            if self._timer is None:
                self._unwatch()
            self._timer = self._loop.call_later(spacing, self._turn)
        elif self._timer is not None:
            self._watch()
