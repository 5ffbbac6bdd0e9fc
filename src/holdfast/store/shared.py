"""The port of a store that several nodes share.

A node is a process. It writes under a generation, which is its claim; it keeps the claim by
heartbeats. When they stop for as long as its lease, any other node may take the claim away by
raising the generation, and from that moment on not one more write of the old generation passes.

    join ──► beat, beat, beat … ──► leave
                │ lease over
                ▼
      another node: reap ──► orphans ──► ends them            (recovery)
                │
                ▼ the node wakes up: Fenced ──► join, as a new generation

Hints are no truth: they tell another node that there is something to read or to do. Any of them
may be lost, which costs latency only; everything they say can be found in the tables.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from holdfast.events import Entry
from holdfast.store.port import RunRecord, Store

OnHint: TypeAlias = Callable[[str], None]
OnGap: TypeAlias = Callable[[], None]


class SharedStore(Store):
    """A store that several nodes write to.

    Besides what `Store` guarantees:

    - No write passes that was not made under the current generation of its node. `commit` raises
      `Fenced` instead, and nothing of the batch is written.
    - A write whose acknowledgement got lost may be tried again: it is applied once.
    - Times that decide about leases are the database's.
    """

    node_id: str
    """This node. A process is one node as long as it lives."""

    @abstractmethod
    async def join(self) -> int:
        """Begin to write, under a new generation; the claim begins now.

        Returns:
            The database's time.

        Raises:
            StoreUnavailable: The database does not answer.
        """

    @abstractmethod
    async def beat(self) -> int:
        """Keep the claim for another lease.

        Returns:
            The database's time.

        Raises:
            Fenced: The claim was taken away.
            StoreUnavailable: The database does not answer.
        """

    @abstractmethod
    async def leave(self) -> None:
        """Give the claim back; what this node has not ended, others end at once."""

    @abstractmethod
    async def reap(self) -> int:
        """Take the claim from every node that was silent for its lease, and could have spoken.

        While the database was away nobody could. So a lease that ran out in a time when this
        node could not beat either is given once more.

        Returns:
            How many there were.

        Raises:
            StoreUnavailable: The database does not answer.
        """

    @abstractmethod
    async def orphans(self) -> list[tuple[RunRecord, bool]]:
        """Live runs that nobody executes, oldest first, each with whether it was cancelled."""

    @abstractmethod
    async def sweep(self) -> None:
        """Erase events that came in while another node erased their session.

        Nobody could read them any more.
        """

    @abstractmethod
    async def own_runs(self) -> list[tuple[RunRecord, bool]]:
        """The live runs of this node, oldest first, each with whether it was cancelled."""

    @abstractmethod
    async def node_of(self, run_id: str) -> str | None:
        """The node that executes a live run; None if it is not live."""

    @abstractmethod
    async def read_news(self, cursors: Mapping[str, int]) -> Mapping[str, list[Entry]]:
        """The entries of each run after its seq that are in the journal.

        A run without news is left out, and so is one that has ended: `read_log` has the rest.
        """

    @abstractmethod
    async def not_live(self, run_ids: Sequence[str]) -> set[str]:
        """Those of these runs that have ended or were erased."""

    @abstractmethod
    def listen(self, on_hint: OnHint, on_gap: OnGap) -> None:
        """Call `on_hint` with each hint for this node, `on_gap` when some may have been lost."""

    @abstractmethod
    def send_hint(self, node_id: str, hint: str) -> None:
        """Send a hint soon, if that is possible; at most `HINT_BYTES` of ASCII."""


HINT_BYTES = 7_900
"""PostgreSQL takes less than 8,000 bytes in a notification."""
