r"""The native dialect: the events of the log as they are, one SSE message each.

    id: <run_id>.<seq>\nevent: <type>\ndata: <the stored JSON>\n\n

The data is what the journal holds, byte for byte. The stream ends after `run-end`; one that is
closed without it means: reconnect with the last id.
"""

from collections.abc import Sequence

from holdfast.dialects.base import About, Encoder
from holdfast.events import EVENT_TYPES, Entry

_TYPE = {kind: name.encode() for kind, name in EVENT_TYPES.items()}

FAREWELL = b"retry: 200\n\n"
"""Come back at once, but not all in the same instant as the others."""


class NativeEncoder(Encoder):
    """Knows no state: every event says all there is to say about itself."""

    needs_history = False

    def __init__(self, about: About) -> None:
        """Write the events of one run."""
        self._prefix = f"id: {about.run_id}.".encode()

    def farewell(self) -> bytes:
        """See `Encoder.farewell`."""
        return FAREWELL

    def encode(self, entries: Sequence[Entry]) -> bytes:
        """See `Encoder.encode`."""
        prefix = self._prefix
        return b"".join(
            [
                b"%b%d\nevent: %b\ndata: %b\n\n"
                % (prefix, entry.seq, _TYPE[type(entry.event)], entry.data)
                for entry in entries
            ]
        )
