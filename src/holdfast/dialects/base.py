"""What an encoder is.

An encoder belongs to one response. It is fed the entries of one run in order, from event 1 or,
when it is resumed, from event 1 with the output thrown away; so it writes from any point on what
it would have written without the interruption, byte for byte.
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, assert_never

import msgspec

from holdfast.engine.fold import Answer, Fold
from holdfast.events import (
    Entry,
    Mark,
    Notice,
    ReasoningDelta,
    References,
    RunEnd,
    RunStart,
    Step,
    TextDelta,
    TextReplace,
    ToolCall,
    Usage,
    joined,
)

OPENING = b": ok\n\n"
"""Sent at once: proxies and middlewares hold headers back until the first byte of the body."""

HEARTBEAT = b": keep-alive\n\n"

DONE = b"data: [DONE]\n\n"


class About(msgspec.Struct, frozen=True):
    """What an encoder is told besides the events."""

    run_id: str
    session: str
    """The session's name as the caller knows it: his own key, or its id."""
    created_at: int
    """When the question was asked, in milliseconds since the epoch."""


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

    def farewell(self) -> bytes:
        """What sends a client elsewhere that will come back with its cursor; b"" if it cannot."""
        return b""

    @abstractmethod
    def encode(self, entries: Sequence[Entry]) -> bytes:
        """The bytes for the next entries."""

    def packets(self, body: bytes) -> Iterable[bytes]:
        """What was encoded, if it was anything, in the pieces that are sent one by one."""
        return (body,)


class AnswerEncoder(Encoder):
    """An encoder for clients that know an answer, and no log.

    The base owns the order of things, a dialect its words, as the methods below. Text of one
    wake-up comes in one call. Text and reasoning are parts: each is begun before its first piece
    and ended before the other begins and before the end, whatever the end is. What a client
    cannot replace it is not sent twice: a rewritten answer goes on where it extends what was sent,
    else nothing more of it is sent, and the closing frame and the history are right.
    """

    replaces: ClassVar[bool] = False
    """Whether the clients can replace the text that they have; then `rewrite` is called."""

    def __init__(self, about: About) -> None:
        """Begin before the first event."""
        self.about = about
        self._fold = Fold()
        self._part: type[TextDelta] | type[ReasoningDelta] | None = None
        self._sent: str | None = None
        """What was sent, once that is not what the answer says any more."""

    # ------------------------------------------------------------------ a dialect's words

    def start(self, event: RunStart) -> bytes:
        """The run begins."""
        return b""

    def begin_text(self) -> bytes:
        """Text follows."""
        return b""

    def text(self, text: str, marks: tuple[Mark, ...]) -> bytes:
        """More text; never empty."""
        return b""

    def end_text(self) -> bytes:
        """No more text for now."""
        return b""

    def rewrite(self, text: str, marks: tuple[Mark, ...]) -> bytes:
        """The text of the whole answer, in place of what was sent."""
        return b""

    def begin_reasoning(self) -> bytes:
        """Reasoning follows."""
        return b""

    def reasoning(self, text: str) -> bytes:
        """More reasoning; never empty."""
        return b""

    def end_reasoning(self) -> bytes:
        """No more reasoning for now."""
        return b""

    def references(self, event: References) -> bytes:
        """The references so far."""
        return b""

    def tool_call(self, event: ToolCall) -> bytes:
        """A piece of a tool call."""
        return b""

    def step(self, event: Step) -> bytes:
        """Progress."""
        return b""

    def notice(self, event: Notice) -> bytes:
        """Something about how the answer is made."""
        return b""

    def usage(self, event: Usage) -> bytes:
        """Tokens used."""
        return b""

    @abstractmethod
    def end(self, event: RunEnd, answer: Answer) -> bytes:
        """The terminal frames; all parts are ended. `answer` is the whole answer."""

    # ------------------------------------------------------------------ the order of things

    def encode(self, entries: Sequence[Entry]) -> bytes:
        """See `Encoder.encode`."""
        frames: list[bytes] = []
        waiting: list[TextDelta | ReasoningDelta] = []
        for entry in entries:
            event = entry.event
            if isinstance(event, TextReplace):
                self._write(waiting, frames)
                rest = self._rest_of(event)
                self._fold.add(event)
                if rest is None:
                    frames.append(self._rewrite(event))
                    continue
                event = rest
            else:
                self._fold.add(event)
            if isinstance(event, TextDelta | ReasoningDelta):
                if waiting and type(waiting[0]) is not type(event):
                    self._write(waiting, frames)
                waiting.append(event)
            else:
                self._write(waiting, frames)
                frames.append(self._other(event))
        self._write(waiting, frames)
        return b"".join(frames)

    def _rest_of(self, event: TextReplace) -> TextDelta | None:
        """What a rewritten answer adds to what was sent; None if it says something else."""
        if self.replaces:
            return None
        sent = self._fold.answer().text if self._sent is None else self._sent
        if not event.text.startswith(sent):
            self._sent = sent
            return TextDelta("")
        self._sent = None
        at = len(sent)
        marks = [(start - at, end - at, n) for start, end, n in event.marks if start >= at]
        return TextDelta(event.text[at:], tuple(marks))

    def _rewrite(self, event: TextReplace) -> bytes:
        return self._turn_to(TextDelta) + self.rewrite(event.text, event.marks)

    def _write(self, waiting: list[TextDelta | ReasoningDelta], frames: list[bytes]) -> None:
        """Write what waits as one piece."""
        if not waiting:
            return
        kind = type(waiting[0])
        text, marks = joined(waiting)
        waiting.clear()
        if not text or (kind is TextDelta and self._sent is not None):
            return
        frames.append(self._turn_to(kind))
        frames.append(self.text(text, marks) if kind is TextDelta else self.reasoning(text))

    def _turn_to(self, part: type[TextDelta] | type[ReasoningDelta] | None) -> bytes:
        """End the part that is open and begin the other."""
        if part is self._part:
            return b""
        ended = begun = b""
        if self._part is not None:
            ended = self.end_text() if self._part is TextDelta else self.end_reasoning()
        if part is not None:
            begun = self.begin_text() if part is TextDelta else self.begin_reasoning()
        self._part = part
        return ended + begun

    def _other(
        self, event: RunStart | References | ToolCall | Step | Notice | Usage | RunEnd
    ) -> bytes:
        match event:
            case RunStart():
                return self.start(event)
            case References():
                return self.references(event)
            case ToolCall():
                return self._turn_to(None) + self.tool_call(event)
            case Step():
                return self.step(event)
            case Notice():
                return self.notice(event)
            case Usage():
                return self.usage(event)
            case RunEnd():
                return self._turn_to(None) + self.end(event, self._fold.answer())
            case _:
                assert_never(event)


def ascii_json(value: Any) -> bytes:
    """JSON in ASCII: whoever parses each network read by itself never gets half a character."""
    return json.dumps(value, separators=(",", ":")).encode()


def split_text(text: str, size: int) -> Iterator[str]:
    """The text in pieces each of which has at most `size` bytes as ASCII JSON.

    Args:
        text: What to split.
        size: At least 12, which is what one character may need.
    """
    start = 0
    while start < len(text):
        count = size
        while (cost := json_size(text[start : start + count])) > size:
            count = max(1, count * size // cost)  # whole slices: no call for each character
        yield text[start : start + count]
        start += count


def json_size(text: str) -> int:
    """How many bytes the text has as ASCII JSON, without the quotes."""
    return len(json.dumps(text)) - 2
