"""What a round left behind."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.faults import Fenced
from tests.cluster.plans import Plan
from tests.cluster.tables import Snapshot
from tests.cluster.witness import Reader, UpstreamLog
from tests.faults.wire import Response


@dataclass(frozen=True)
class Glimpse:
    """What clients had written down, and after that what was stored, in the middle of a round."""

    when: str
    clients: list[Reader]
    snapshot: Snapshot


@dataclass
class Evidence:
    """Everything that a round left behind."""

    plan: Plan
    span: tuple[float, float]
    """When the round began and ended, by the clock of PostgreSQL's machine."""
    glimpses: list[Glimpse]
    fenced: list[Fenced]
    clients: list[Reader]
    upstream_when_healed: UpstreamLog
    """What the upstream had seen when all was well again, before it hurried to its end."""
    upstream: UpstreamLog
    final: Snapshot
    runs: dict[str, Any]
    """By run: what GET of the run says at one node."""
    streams: dict[str, Response]
    """By run: its events from the first on, from another one."""
    messages: dict[str, Any]
    """By session: its messages."""
    again: dict[str, Response]
    """By the name of a client: the answer to its question once more, at any node."""
    exit_codes: list[int]
    logs: list[Path]
    passed: int
    """Notifications that arrived."""
    swallowed: int
    """Notifications that were kept from arriving."""

    @property
    def healed(self) -> Snapshot:
        """The tables when all was well again."""
        return self.glimpses[-1].snapshot

    @property
    def cancelled_early(self) -> set[str]:
        """The questions whose cancel was acknowledged before the upstream hurried to its end."""
        clients = self.glimpses[-1].clients
        return {one.text for one in clients if one.cancelled and one.text is not None}
