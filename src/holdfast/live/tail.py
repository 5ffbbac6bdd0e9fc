"""What is kept in memory of a live run's committed entries, and who waits for more.

Only committed entries come in (promise P2). The tail is bounded; a reader that has fallen behind
it reads the store (promise P6).
"""

import logging
from collections.abc import Callable, Sequence

from holdfast.events import Entry

logger = logging.getLogger(__name__)

ENTRY_OVERHEAD_BYTES = 200
"""What an entry costs in memory besides its data, roughly."""


class Tail:
    """Committed entries come in at one end; readers look at them and are told of new ones."""

    __slots__ = (
        "_bound",
        "_bytes",
        "_entries",
        "_first",
        "_listeners",
        "broken",
        "ended",
        "run_id",
        "saved_seq",
    )

    def __init__(self, run_id: str, saved_seq: int, tail_bytes: int) -> None:
        """Begin empty, after the committed entry `saved_seq`."""
        self.run_id = run_id
        self.saved_seq = saved_seq
        self.ended = False
        """The last event is committed."""
        self.broken = False
        """Nothing more will come in; readers must go and come back later."""
        self._first = saved_seq + 1
        self._entries: list[Entry] = []
        self._bytes = 0
        self._bound = tail_bytes
        self._listeners: set[Callable[[], None]] = set()

    def show(self, entries: Sequence[Entry], size: int, ended: bool = False) -> None:
        """The next committed entries, whose data have `size` bytes: readers may have them."""
        self._entries += entries
        self._bytes += size + len(entries) * ENTRY_OVERHEAD_BYTES
        if entries:
            self.saved_seq = entries[-1].seq
        self.ended = ended
        if self._bytes > 2 * self._bound:
            self._trim()
        self.ring()

    def _trim(self) -> None:
        # Rarely and by much, since cutting the front of a list costs its whole length.
        entries, cut = self._entries, 0
        while self._bytes > self._bound and cut < len(entries) - 1:
            self._bytes -= len(entries[cut].data) + ENTRY_OVERHEAD_BYTES
            cut += 1
        del entries[:cut]
        self._first += cut

    def after(self, seq: int) -> list[Entry] | None:
        """The committed entries after `seq`; None if the tail does not reach back that far."""
        start = seq + 1 - self._first
        return self._entries[start:] if start >= 0 else None

    def listen(self, ring: Callable[[], None]) -> None:
        """Call `ring` whenever there may be something new."""
        self._listeners.add(ring)

    def unlisten(self, ring: Callable[[], None]) -> None:
        """Stop calling `ring`."""
        self._listeners.discard(ring)

    def ring(self) -> None:
        """Tell all listeners that something changed."""
        for ring in tuple(self._listeners):
            try:
                ring()
            except Exception:  # one reader's trouble must not reach the run or another reader
                logger.exception("a reader of run %s failed", self.run_id)

    def break_off(self) -> None:
        """Send the readers away: what comes next, if anything does, is elsewhere."""
        self.broken = True
        self.ring()
