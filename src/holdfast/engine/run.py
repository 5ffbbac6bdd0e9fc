"""The life of a run, as two tables.

A run is one attempt to write one assistant message. It moves forward through four states, and
back only when another upstream is asked:

    accepted    the question and the run are committed; nothing was asked of anybody yet
    connecting  an upstream was called; it has not answered with anything yet
    streaming   something arrived
    ended       the outcome is decided; nothing may follow

What ends a run is a cause: either the upstream's own terminal marker (no reason), or one of the
reasons. Which outcome a cause gives depends on one more bit: had anything *arrived*, that is any
text, reasoning, reference or tool call? Steps, notices and usage do not count.

    cause                          something arrived   nothing arrived
    terminal marker                completed           failed, upstream_empty
    client_cancelled               cancelled           cancelled
    client_disconnected            cancelled           cancelled
    every other reason             interrupted         failed

Errors are sticky: the first cause decides, and a run that ended stays as it ended.
"""

from enum import StrEnum
from typing import Final

import msgspec

from holdfast.errors import LocalProtocolError
from holdfast.events import (
    Event,
    Finish,
    Outcome,
    Reason,
    ReasoningDelta,
    References,
    RunEnd,
    TextDelta,
    TextReplace,
    ToolCall,
)


class State(StrEnum):
    """Where a run is in its life."""

    ACCEPTED = "accepted"
    CONNECTING = "connecting"
    STREAMING = "streaming"
    ENDED = "ended"


class Status(StrEnum):
    """How a message is shown: the outcome of its run, in the words of people."""

    STREAMING = "streaming"
    COMPLETE = "complete"
    PARTIAL = "partial"
    FAILED = "failed"


class Signal(StrEnum):
    """What can happen to a run."""

    CONNECT = "connect"
    ARRIVE = "arrive"
    END = "end"


TRANSITIONS: Final[dict[tuple[State, Signal], State]] = {
    (State.ACCEPTED, Signal.CONNECT): State.CONNECTING,
    (State.ACCEPTED, Signal.END): State.ENDED,
    (State.CONNECTING, Signal.CONNECT): State.CONNECTING,  # the next candidate
    (State.STREAMING, Signal.CONNECT): State.CONNECTING,  # what the last one gave is taken back
    (State.CONNECTING, Signal.ARRIVE): State.STREAMING,
    (State.CONNECTING, Signal.END): State.ENDED,
    (State.STREAMING, Signal.ARRIVE): State.STREAMING,
    (State.STREAMING, Signal.END): State.ENDED,
}

CANCELLATIONS: Final = frozenset({Reason.CLIENT_CANCELLED, Reason.CLIENT_DISCONNECTED})


class UpstreamEnd(msgspec.Struct, frozen=True):
    """How an upstream's answer ended, as its decoder tells it. Not an event of the log.

    Attributes:
        reason: None for any terminal marker that the upstream is known to use.
        finish: Why the model stopped, where the upstream says it.
        error: The upstream's own words, for people; never a secret.
        status: The HTTP status by which it refused to answer.
    """

    reason: Reason | None = None
    finish: Finish | None = None
    error: str | None = None
    status: int | None = None


def has_arrived(event: Event) -> bool:
    """Whether this event is something that a partial answer would keep."""
    match event:
        case TextDelta(text=text) | TextReplace(text=text) | ReasoningDelta(text=text):
            return bool(text)
        case References(references=references):
            return bool(references)
        case ToolCall():
            return True
        case _:
            return False


def decide(end: UpstreamEnd, arrived: bool) -> RunEnd:
    """The closing event for a cause (the second table above)."""
    reason, error = end.reason, end.error
    if reason is None and not arrived:
        reason, error = Reason.UPSTREAM_EMPTY, error or "the upstream ended without an answer"
    if reason is None:
        outcome = Outcome.COMPLETED
    elif reason in CANCELLATIONS:
        outcome = Outcome.CANCELLED
    else:
        outcome = Outcome.INTERRUPTED if arrived else Outcome.FAILED
    if error is not None:  # an upstream's words may hold what no JSON can
        error = error.encode("utf-8", "replace").decode()
    return RunEnd(outcome, reason, end.finish, error, end.status)


def message_status(outcome: Outcome | None, arrived: bool) -> Status:
    """How a message with this outcome is shown; None is a run that is still live."""
    if outcome is None:
        return Status.STREAMING
    if outcome is Outcome.COMPLETED:
        return Status.COMPLETE
    return Status.PARTIAL if arrived else Status.FAILED


class RunMachine:
    """Walks one run through the transition table."""

    __slots__ = ("arrived", "state")

    def __init__(self) -> None:
        """Begin in `accepted`."""
        self.state = State.ACCEPTED
        self.arrived = False

    def signal(self, signal: Signal) -> None:
        """Take one step.

        Raises:
            LocalProtocolError: The table does not allow it.
        """
        try:
            self.state = TRANSITIONS[self.state, signal]
        except KeyError:
            raise LocalProtocolError(f"a run that is {self.state} cannot {signal}") from None
        if signal is Signal.CONNECT:
            self.arrived = False

    def see(self, event: Event) -> None:
        """Note an event of the upstream; the first that counts moves the run to `streaming`."""
        if not self.arrived and has_arrived(event):
            self.arrived = True
            self.signal(Signal.ARRIVE)

    def end(self, end: UpstreamEnd) -> RunEnd:
        """End the run and say how.

        Raises:
            LocalProtocolError: It has ended already.
        """
        self.signal(Signal.END)
        return decide(end, self.arrived)
