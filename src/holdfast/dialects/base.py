"""What an encoder is.

An encoder belongs to one response. It is fed the entries of one run in order, from event 1 or,
when it is resumed, from event 1 with the output thrown away; so it writes from any point on what
it would have written without the interruption, byte for byte.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from holdfast.events import Entry

OPENING = b": ok\n\n"
"""Sent at once: proxies and middlewares hold headers back until the first byte of the body."""

HEARTBEAT = b": keep-alive\n\n"


class Encoder(ABC):
    """Writes a run's events in the words of one dialect."""

    needs_history: ClassVar[bool] = True
    """Whether a resumed encoder must see the events before its cursor."""

    def opening(self) -> bytes:
        """The first bytes of the body, before any event."""
        return OPENING

    def heartbeat(self) -> bytes:
        """What keeps a silent connection open."""
        return HEARTBEAT

    @abstractmethod
    def encode(self, entries: Sequence[Entry]) -> bytes:
        """The bytes for the next entries."""
