"""The log of one live run in memory: what waits for its commit, and a tail of what is saved.

Only committed entries can be read here (promise P2). The tail is bounded; a reader that has
fallen behind it reads the store (promise P6).
"""

import logging
from collections.abc import Callable, Iterable, Sequence

from holdfast.events import Entry, Event, encode

logger = logging.getLogger(__name__)

ENTRY_OVERHEAD_BYTES = 200
"""What an entry costs in memory besides its data, roughly."""


class RunLog:
    """Events go in at one end, committed entries come out at the other."""

    __slots__ = (
        "_listeners",
        "_pending",
        "_tail",
        "_tail_bound",
        "_tail_bytes",
        "_taken",
        "_taken_bytes",
        "broken",
        "ended",
        "last_seq",
        "run_id",
        "saved_seq",
        "unsaved_bytes",
    )

    def __init__(self, run_id: str, start: Entry, tail_bytes: int) -> None:
        """Begin with `start`, the committed first entry."""
        self.run_id = run_id
        self.last_seq = start.seq
        self.saved_seq = start.seq
        self.ended = False
        """The last event is committed."""
        self.broken = False
        """The store has failed for too long; readers must go and come back later."""
        self.unsaved_bytes = 0
        self._pending: list[Entry] = []
        self._taken: list[Entry] = []
        self._taken_bytes = 0
        self._tail = [start]
        self._tail_bytes = _size(start)
        self._tail_bound = tail_bytes
        self._listeners: set[Callable[[], None]] = set()

    # ------------------------------------------------------------------ the writing side

    def append(self, events: Iterable[Event]) -> None:
        """Add events after the last one.

        Raises:
            TypeError, ValueError: One has no JSON; those before it were added.
        """
        seq, size, pending = self.last_seq, 0, self._pending
        try:
            for event in events:
                data = encode(event)
                seq += 1
                size += len(data)
                pending.append(Entry(seq, event, data))
        finally:
            self.last_seq = seq
            self.unsaved_bytes += size

    def take(self) -> Sequence[Entry]:
        """The entries to commit next; they stay taken until `saved` or `drop_unsaved`."""
        taken = self._taken = self._pending
        self._taken_bytes = self.unsaved_bytes
        self._pending = []
        return taken

    @property
    def taken(self) -> Sequence[Entry]:
        """The entries that are being committed."""
        return self._taken

    def saved(self, ended: bool = False) -> None:
        """The taken entries are committed: show them to the readers."""
        taken = self._taken
        self.unsaved_bytes -= self._taken_bytes
        self._tail_bytes += self._taken_bytes + len(taken) * ENTRY_OVERHEAD_BYTES
        self._taken, self._taken_bytes = [], 0
        self._tail += taken
        if taken:
            self.saved_seq = taken[-1].seq
        self.ended = ended
        if self._tail_bytes > 2 * self._tail_bound:
            self._trim()
        self.ring()

    def drop_unsaved(self) -> None:
        """Forget what cannot be committed; no reader has seen it."""
        self._taken, self._pending = [], []
        self._taken_bytes = self.unsaved_bytes = 0
        self.last_seq = self.saved_seq

    def _trim(self) -> None:
        # Rarely and by much, since cutting the front of a list costs its whole length.
        cut = 0
        while self._tail_bytes > self._tail_bound and cut < len(self._tail) - 1:
            self._tail_bytes -= _size(self._tail[cut])
            cut += 1
        del self._tail[:cut]

    # ------------------------------------------------------------------ the reading side

    def after(self, seq: int) -> list[Entry] | None:
        """The committed entries after `seq`; None if the tail does not reach back that far."""
        tail = self._tail
        start = seq + 1 - tail[0].seq
        return tail[start:] if start >= 0 else None

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


def _size(entry: Entry) -> int:
    return len(entry.data) + ENTRY_OVERHEAD_BYTES
