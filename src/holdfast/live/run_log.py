"""The log of one live run in memory: what waits for its commit, then the tail of what is saved."""

from collections.abc import Iterable, Sequence

from holdfast.events import Entry, Event, encode
from holdfast.live.tail import Tail


class RunLog(Tail):
    """Events go in at one end, committed entries come out at the other."""

    __slots__ = ("_pending", "_taken", "_taken_bytes", "last_seq", "unsaved_bytes")

    def __init__(self, run_id: str, start: Entry, tail_bytes: int) -> None:
        """Begin with `start`, the committed first entry."""
        super().__init__(run_id, start.seq - 1, tail_bytes)
        self.last_seq = start.seq
        self.unsaved_bytes = 0
        self._pending: list[Entry] = []
        self._taken: list[Entry] = []
        self._taken_bytes = 0
        self.show([start], len(start.data))

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
        taken, size = self._taken, self._taken_bytes
        self.unsaved_bytes -= size
        self._taken, self._taken_bytes = [], 0
        self.show(taken, size, ended)

    def drop_unsaved(self) -> None:
        """Forget what cannot be committed; no reader has seen it."""
        self._taken, self._pending = [], []
        self._taken_bytes = self.unsaved_bytes = 0
        self.last_seq = self.saved_seq
