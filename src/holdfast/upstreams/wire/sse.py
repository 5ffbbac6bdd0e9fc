"""An incremental parser of server-sent events: bytes in, events out.

Written to the HTML Living Standard, section 9.2 (Server-sent events). It never raises: what is
not an event is passed over, as the standard asks, and an event over its size ends the parsing
(`overflowed`). Any chunking of the same bytes gives the same events.

Blocks of the usual form, `data: ...` and two line feeds, are cut out all at once; all other
bytes go through the general line parser. The two may take turns, because a chunk is cut only
where the parser stands between two blocks.
"""

from typing import Final

import msgspec

BOM: Final = b"\xef\xbb\xbf"


class SseEvent(msgspec.Struct, frozen=True, gc=False):
    """One dispatched event.

    Attributes:
        data: The data lines joined by LF, as they came: a reader of JSON takes bytes, and what
            is not UTF-8 is its business.
        event: The event's type, `message` if the stream does not name one.
        id: The last event id that the stream has set.
    """

    data: bytes
    event: str = "message"
    id: str = ""


class SseParser:
    """Cuts a byte stream into events.

    Attributes:
        overflowed: A line, or an event's data, was larger than `max_event`. The events before
            it were given; nothing after it is looked at or kept.
        retry_ms: The reconnection time that the stream asked for.
    """

    def __init__(self, max_event: int = 1_000_000) -> None:
        """Begin before the first byte.

        Args:
            max_event: How many bytes one line, and the data of one event, may have.
        """
        self.overflowed = False
        self.retry_ms: int | None = None
        self._max = max_event
        self._between = False  # two blocks, with nothing kept of the one before
        self._start: bytes | None = b""  # what may still become a byte order mark
        self._after_cr = False
        self._line = bytearray()  # of the line that has no end yet
        self._data: list[bytes] = []  # the data lines of the block that has no end yet
        self._data_size = 0
        self._event = ""
        self._id = ""

    @property
    def unfinished(self) -> bool:
        """Whether bytes of an event wait for its end; at the end of a stream it was truncated."""
        return bool(self._start or self._line or self._data)

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """Take the next bytes and give the events that they complete."""
        events: list[SseEvent] = []
        if not self._between:
            chunk = self._feed_to_end_of_block(chunk, events)
            if not chunk:
                return events
        end = chunk.rfind(b"\n\n")
        if end > 0 and chunk[:6] == b"data: " and len(chunk) <= self._max:
            blocks = chunk[6:end].split(b"\n\ndata: ")
            # No line end but those that the split took: every block is one data line.
            if chunk.count(b"\n", 0, end) == 2 * len(blocks) - 2 and b"\r" not in chunk:
                last_id = self._id
                events += [SseEvent(data, "message", last_id) for data in blocks]
                chunk = chunk[end + 2 :]
        if chunk:
            self._feed_lines(chunk, events)
        return events

    def _feed_to_end_of_block(self, chunk: bytes, events: list[SseEvent]) -> bytes:
        """Feed as far as two line feeds, which end a block whatever came before; give the rest."""
        if self._start is not None:
            start = self._start + chunk
            if len(start) < len(BOM) and BOM.startswith(start):
                self._start = start
                return b""
            self._start = None
            chunk = start.removeprefix(BOM)
        end = chunk.find(b"\n\n") + 2
        if end < 2:
            end = len(chunk)
        self._feed_lines(chunk[:end], events)
        return b"" if self.overflowed else chunk[end:]

    def _feed_lines(self, chunk: bytes, events: list[SseEvent]) -> None:
        if self._after_cr and chunk:
            chunk = chunk.removeprefix(b"\n")
            self._after_cr = False
        if chunk and not self.overflowed:
            self._after_cr = chunk.endswith(b"\r")
            lines = chunk.splitlines()  # of bytes: at CR, LF and CRLF, and nowhere else
            rest = b"" if chunk.endswith((b"\n", b"\r")) else lines.pop()
            if lines and self._line:
                lines[0] = bytes(self._line) + lines[0]
                self._line.clear()
            for line in lines:
                self._take_line(line, events)
            self._keep(rest)
        self._between = not (self.unfinished or self._event or self._after_cr or self.overflowed)

    def _take_line(self, line: bytes, events: list[SseEvent]) -> None:
        if self.overflowed:
            return
        if not line:
            self._dispatch(events)
        elif len(line) > self._max:
            self._overflow()
        else:
            self._take_field(line)

    def _keep(self, rest: bytes) -> None:
        if len(self._line) + len(rest) > self._max:
            self._overflow()
        elif not self.overflowed:
            self._line += rest

    def _take_field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data_size += len(value) + (1 if self._data else 0)
            self._data.append(value)
            if self._data_size > self._max:
                self._overflow()
        elif name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name == b"id":
            if b"\0" not in value:
                self._id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit() and len(value) < 16:
            self.retry_ms = int(value)

    def _dispatch(self, events: list[SseEvent]) -> None:
        if self._data:
            events.append(SseEvent(b"\n".join(self._data), self._event or "message", self._id))
            self._data.clear()
            self._data_size = 0
        self._event = ""

    def _overflow(self) -> None:
        self.overflowed = True
        self._line.clear()
        self._data.clear()
