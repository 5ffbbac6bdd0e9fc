"""What a round left behind, and what may be wrong with it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tests.faults.database import Image
from tests.faults.wire import Response
from tests.faults.witness import Asked, UpstreamLog


class Violation(NamedTuple):
    """A promise that did not hold, or a round that proves nothing."""

    promise: str
    text: str

    def __str__(self) -> str:
        return f"{self.promise}: {self.text}"


@dataclass
class Kill:
    """A kill: the database as the dead server left it, and what it wrote down before."""

    image: Image
    place: str
    """Where the server was, from its control page."""
    point: str | None
    record: dict[str, Any] | None


@dataclass
class Evidence:
    """Everything that a round left behind."""

    clients: list[Asked]
    watched: list[Response]
    kills: list[Kill]
    upstream_at_kill: UpstreamLog
    upstream: UpstreamLog
    final: Image
    runs: dict[str, Any]
    """By run: what GET of the run says."""
    streams: dict[str, Response]
    """By run: its events from the first on."""
    messages: dict[str, Any]
    """By session: its messages."""
    again: dict[str, Response]
    """By the name of a question: the answer to the same request once more."""
    streaming_s: float
    """How long after the restart messages of the dead server were `streaming`."""
    exit_code: int
    """Of the last server, after SIGTERM."""
    logs: list[Path]
    """What the servers logged."""

    @property
    def at_kill(self) -> Image:
        """The database after the first kill."""
        return self.kills[0].image
