"""Reading a run: committed events after a cursor, whether live, resumed or long ended.

There is one way to read. Take what the live run's tail has after the cursor; if it does not
reach back that far, or the run is not live here, read the store; at the end of what there is,
wait to be woken. The reader subscribes before it reads, so nothing falls in between, and a seq
it has is never given again. A run that another node executes has a tail here, too, from the
moment that somebody has read the store to its end (`followers`).
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Protocol

from holdfast.errors import NotFound, Unavailable
from holdfast.events import Entry, RunEnd
from holdfast.live.tail import Tail
from holdfast.live.wake import Wake
from holdfast.store.port import Store

POLL_S = 1.0
"""How often the store is looked at for a run that nobody here rings for."""
PAGE_ENTRIES = 200
"""How many entries are read from the store at once."""
PIECE_BYTES = 65_536
"""How much is given at once: a reader far behind must hold neither the loop nor memory."""


class ReaderBroken(Unavailable):
    """The run's owner cannot save any more; come back with the cursor."""

    code = "store_unavailable"


class Follow(Protocol):
    """Keeps tails of runs that other nodes execute; see `followers.Followers`."""

    leaving: bool

    def follow(self, run_id: str, after: int) -> Tail:
        """The tail for one more reader."""

    def unfollow(self, tail: Tail) -> None:
        """That reader has gone."""


class Reader:
    """A cursor on one run. Call `close` when done."""

    def __init__(
        self,
        store: Store,
        run_id: str,
        after: int,
        log: Tail | None,
        closed: Callable[[], None] | None = None,
        elsewhere: Follow | None = None,
    ) -> None:
        """Begin after the seq `after`.

        Args:
            store: Where committed events are.
            run_id: The run to read.
            after: The last seq the reader has; 0 for none.
            log: The run's log if it is live here.
            closed: Called once by `close`.
            elsewhere: Gives the tail of a run that is live on another node, if there are others.
        """
        self.run_id = run_id
        self.seq = after
        self.done = False
        """The last event was given."""
        self.wake = Wake()
        self._store = store
        self._page: list[Entry] = []
        self._log = log
        self._closed = closed
        self._elsewhere = elsewhere if log is None else None
        self._on_news: Callable[[], None] = self.wake.ring
        if log is not None:
            log.listen(self._on_news)

    def listen(self, on_news: Callable[[], None]) -> None:
        """Be called at once, in the turn of the commit, instead of being woken for news."""
        if self._log is not None:
            self._log.unlisten(self._on_news)
            self._log.listen(on_news)
        self._on_news = on_news

    def poll(self) -> list[Entry] | None:
        """What the live tail has after the cursor; None: only `next` can tell."""
        log = self._log
        entries = log.after(self.seq) if log is not None and not self._page else None
        return self._take(_piece(entries)) if entries else None

    def has_all(self) -> bool:
        """Whether the cursor has reached the last committed entry of the live run."""
        return self._log is not None and self.seq == self._log.saved_seq

    async def next(self) -> list[Entry] | None:
        """The next entries; [] when woken for nothing new; None after the last one.

        Raises:
            ReaderBroken: The run cannot be saved any further at the moment.
            NotFound: The run was deleted.
            StoreUnavailable: The store cannot be read.
        """
        if self.done:
            return None
        if self._page:
            return self._take(self._next_piece())
        log = self._log
        entries = log.after(self.seq) if log is not None else None
        if entries is None:
            page = await self._store.read_log(self.run_id, self.seq, PAGE_ENTRIES)
            if page is None:
                raise NotFound("there is no such run")
            self._page = page.entries
            if self._page:
                if log is None and not page.ended and len(page.entries) < PAGE_ENTRIES:
                    # Now, not after an empty page: a run may write faster than pages are read.
                    self._follow(after=self._page[-1].seq)
                return self._take(self._next_piece())
            if page.ended:
                return None
        elif not entries and log is not None and log.broken:
            raise ReaderBroken("the answer cannot be saved at the moment; resume later")
        if not entries:
            if log is not None:
                await self.wake.wait()
            elif not self._follow(after=self.seq):
                await self._look_again()
            return self.poll() or []
        return self._take(_piece(entries))

    def _follow(self, after: int) -> bool:
        """Get a tail that begins after the seq `after`; False if there are no other nodes."""
        elsewhere = self._elsewhere
        if elsewhere is None:
            return False
        tail = elsewhere.follow(self.run_id, after)
        self._log = tail
        self._closed = lambda: elsewhere.unfollow(tail)
        tail.listen(self._on_news)
        return True

    @property
    def should_leave(self) -> bool:
        """Whether this node is going, and the run is not: the reader does better elsewhere."""
        return self._elsewhere is not None and self._elsewhere.leaving and not self.done

    async def _look_again(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(POLL_S):
                await self.wake.wait()

    def _next_piece(self) -> list[Entry]:
        piece = _piece(self._page)
        self._page = self._page[len(piece) :]
        return piece

    def _take(self, entries: list[Entry]) -> list[Entry]:
        if entries:
            self.seq = entries[-1].seq
            self.done = isinstance(entries[-1].event, RunEnd)
        return entries

    def close(self) -> None:
        """Stop reading."""
        if self._log is not None:
            self._log.unlisten(self._on_news)
            self._log = None
        closed, self._closed = self._closed, None
        if closed is not None:
            closed()


def _piece(entries: list[Entry]) -> list[Entry]:
    """The first of these entries, about `PIECE_BYTES` of them."""
    if len(entries) == 1:
        return entries
    size = 0
    for place, entry in enumerate(entries[:PAGE_ENTRIES]):
        size += len(entry.data)
        if size > PIECE_BYTES:
            return entries[: place + 1]
    return entries[:PAGE_ENTRIES]
