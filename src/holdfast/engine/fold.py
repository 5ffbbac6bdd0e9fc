"""The fold: events in, answer out.

It is the one function used to finish a run, to recover it and to show it while it is live, so
the three can never disagree. For any split of a log in two parts a and b,
`fold(a + b) == fold(b, fold(a))`.
"""

from collections.abc import Iterable
from typing import Any, assert_never

import msgspec

from holdfast.engine.run import Status, has_arrived, message_status
from holdfast.events import (
    Event,
    Mark,
    Notice,
    Outcome,
    ReasoningDelta,
    Reference,
    References,
    RunEnd,
    RunStart,
    Step,
    TextDelta,
    TextReplace,
    ToolCall,
    Usage,
)


class ToolCallSoFar(msgspec.Struct, frozen=True, omit_defaults=True):
    """A tool call put together from its pieces."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments: str = ""


class Answer(msgspec.Struct, frozen=True):
    """What a log amounts to. Offsets in `marks` count code points of `text`."""

    text: str = ""
    marks: tuple[Mark, ...] = ()
    reasoning: str = ""
    references: tuple[Reference, ...] = ()
    tool_calls: tuple[ToolCallSoFar, ...] = ()
    usage: Usage | None = None
    upstream: str | None = None
    model: str | None = None
    arrived: bool = False
    end: RunEnd | None = None

    @property
    def status(self) -> Status:
        """How the message is shown."""
        return message_status(self.end.outcome if self.end else None, self.arrived)

    @property
    def early_end(self) -> dict[str, Any] | None:
        """What the message's metadata say of an answer that ended early; None if it did not."""
        end = self.end
        if end is None or end.outcome is Outcome.COMPLETED:
            return None
        told = {"partial": self.arrived, "reason": end.reason, "error": end.error}
        return {name: value for name, value in told.items() if value is not None}


class Fold:
    """A running fold; `add` costs the size of the event, not of the answer."""

    def __init__(self, start: Answer | None = None) -> None:
        """Go on from `start`, or from nothing."""
        answer = start or Answer()
        self._text = [answer.text]
        self._length = len(answer.text)
        self._marks = list(answer.marks)
        self._reasoning = [answer.reasoning]
        self._references = answer.references
        self._tool_calls = {call.index: call for call in answer.tool_calls}
        self._usage = answer.usage
        self._upstream = answer.upstream
        self._model = answer.model
        self._end = answer.end
        self.arrived = answer.arrived

    def add(self, event: Event) -> None:
        """Take the next event of the log."""
        if not self.arrived:
            self.arrived = has_arrived(event)
        match event:
            case TextDelta():
                self._add_text(event.text, event.marks)
            case TextReplace():
                self._text.clear()
                self._marks.clear()
                self._length = 0
                self._add_text(event.text, event.marks)
            case ReasoningDelta():
                self._reasoning.append(event.text)
            case References():
                self._references = event.references
            case ToolCall():
                self._add_tool_call(event)
            case Usage():
                self._usage = event
            case RunStart():
                self._upstream, self._model = event.upstream, event.model
            case RunEnd():
                self._end = event
            case Notice(upstream=str(upstream)):
                self._turn_to(upstream, event.model)
            case Step() | Notice():
                pass
            case _:
                assert_never(event)

    def _turn_to(self, upstream: str, model: str | None) -> None:
        """Another upstream answers from here on: the one before gave nothing that stays."""
        self._upstream, self._model, self._usage = upstream, model, None
        kept = self._length, any(self._reasoning), self._tool_calls, self._references
        self.arrived = any(kept)

    def _add_text(self, text: str, marks: tuple[Mark, ...]) -> None:
        if marks:
            at = self._length
            self._marks += [(start + at, end + at, ordinal) for start, end, ordinal in marks]
        self._text.append(text)
        self._length += len(text)

    def _add_tool_call(self, piece: ToolCall) -> None:
        so_far = self._tool_calls.get(piece.index) or ToolCallSoFar(piece.index)
        self._tool_calls[piece.index] = ToolCallSoFar(
            index=piece.index,
            id=piece.id or so_far.id,
            name=piece.name or so_far.name,
            arguments=so_far.arguments + piece.arguments_delta,
        )

    def answer(self) -> Answer:
        """What the events so far amount to."""
        self._text = ["".join(self._text)]
        self._reasoning = ["".join(self._reasoning)]
        return Answer(
            text=self._text[0],
            marks=tuple(self._marks),
            reasoning=self._reasoning[0],
            references=self._references,
            tool_calls=tuple(self._tool_calls.values()),
            usage=self._usage,
            upstream=self._upstream,
            model=self._model,
            arrived=self.arrived,
            end=self._end,
        )


def fold(events: Iterable[Event], start: Answer | None = None) -> Answer:
    """Fold `events` onto `start` (default: nothing)."""
    folding = Fold(start)
    for event in events:
        folding.add(event)
    return folding.answer()
