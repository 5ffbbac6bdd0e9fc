r"""The AI SDK dialect: UI message stream v1, as `useChat` reads it.

    data: {"type":"start","messageId":"…"}\n\n
    data: {"type":"text-delta","id":"text-1","delta":"Kelp "}\n\n
    data: [DONE]\n\n

The chunks are those of https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol, of which only those and
only with those fields are used that `ai` 6.0.0 knows: before 6.0.220 a field more ends the stream,
and an unknown type ends it in every version. What has no place among them goes into data parts,
which take anything:

    data-run        how the answer is made and how it ended; replaced when that changes
    data-citations  the marks in the text and the references with their passages; replaced likewise
    data-answer     the whole answer, if the upstream rewrote it after it had been sent
    data-step, data-notice  transient: for `onData`, no part of the message

Offsets of marks count UTF-16 code units, as strings in JavaScript do, of the message's text, which
is that of its text parts, one after the other.

A stream that is closed without `finish`, `abort` or `error` looks like success to these clients,
and they take nothing in after an `error`; so one of the three comes last, whatever the end is.
"""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from holdfast.dialects.base import DONE, About, AnswerEncoder
from holdfast.engine.fold import Answer, ToolCallSoFar
from holdfast.events import (
    Finish,
    Mark,
    Notice,
    Outcome,
    Reference,
    References,
    RunEnd,
    RunStart,
    Step,
    ToolCall,
    Usage,
    encode,
)

FINISH_REASONS: Final = {
    None: "stop",
    Finish.STOP: "stop",
    Finish.LENGTH: "length",
    Finish.TOOL_CALLS: "tool-calls",
    Finish.CONTENT_FILTER: "content-filter",
}

MEDIA_TYPES: Final = {
    "csv": "text/csv",
    "doc": "application/msword",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "htm": "text/html",
    "html": "text/html",
    "json": "application/json",
    "md": "text/markdown",
    "pdf": "application/pdf",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "txt": "text/plain",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}
"""By the ending of a document's name."""
OTHER_MEDIA_TYPE: Final = "application/octet-stream"

UNFINISHED_CALL: Final = "the answer ended before this call was complete"
MALFORMED_CALL: Final = "the arguments of this call are no JSON"
NAMELESS: Final = "unknown"
"""The name of a tool whose name never came."""


class _Call:
    """A tool call as far as it was sent."""

    def __init__(self, index: int) -> None:
        self.so_far = ToolCallSoFar(index)
        self.started = False

    def add(self, piece: ToolCall) -> None:
        """Take a piece; the id and the name that the client knows stay."""
        so_far = self.so_far
        self.so_far = ToolCallSoFar(
            so_far.index,
            so_far.id or piece.id,
            so_far.name or piece.name,
            so_far.arguments + piece.arguments_delta,
        )


class AiSdkEncoder(AnswerEncoder):
    """Parts with a beginning and an end; sources as they come; one closing chunk."""

    def __init__(self, about: About) -> None:
        """Begin before the first event."""
        super().__init__(about)
        self._start: RunStart | None = None
        self._parts = 0
        self._offset = 0  # of the text that was sent, in UTF-16 code units
        self._marks: list[Mark] = []
        self._references: tuple[Reference, ...] = ()
        self._cited = 0  # how many marks the client has
        self._sources: set[int] = set()
        self._calls: dict[int, _Call] = {}

    # ------------------------------------------------------------------ a dialect's words

    def start(self, event: RunStart) -> bytes:
        """The message by its id, which is the one that it has in the history, too."""
        self._start = event
        return (
            _chunk("start", messageId=event.message_id)
            + _chunk("start-step")
            + self._run(self._fold.answer())
        )

    def begin_text(self) -> bytes:
        """A text part."""
        self._parts += 1
        return _chunk("text-start", id=self._part_id("text"))

    def text(self, text: str, marks: tuple[Mark, ...]) -> bytes:
        """A piece of a text part."""
        self._marks += in_utf16(text, marks, self._offset)
        self._offset += _units(text)
        return _chunk("text-delta", id=self._part_id("text"), delta=text)

    def end_text(self) -> bytes:
        """The text part is done."""
        return _chunk("text-end", id=self._part_id("text"))

    def begin_reasoning(self) -> bytes:
        """A reasoning part."""
        self._parts += 1
        return _chunk("reasoning-start", id=self._part_id("reasoning"))

    def reasoning(self, text: str) -> bytes:
        """A piece of a reasoning part."""
        return _chunk("reasoning-delta", id=self._part_id("reasoning"), delta=text)

    def end_reasoning(self) -> bytes:
        """The reasoning part is done."""
        return _chunk("reasoning-end", id=self._part_id("reasoning"))

    def references(self, event: References) -> bytes:
        """Each reference once as a source, which no client can take back, and all with passages."""
        self._references = event.references
        fresh = [one for one in event.references if one.ordinal not in self._sources]
        self._sources.update(one.ordinal for one in fresh)
        sources = [_frame(source(one, self._message_id)) for one in fresh]
        return b"".join(sources) + self._citations()

    def tool_call(self, event: ToolCall) -> bytes:
        """The call's beginning as soon as its name is known, then its arguments as they come."""
        call = self._calls.setdefault(event.index, _Call(event.index))
        call.add(event)
        if not call.started:
            return _begin_call(call) if call.so_far.name else b""
        return _call_delta(call.so_far, event.arguments_delta)

    def step(self, event: Step) -> bytes:
        """Progress, for `onData`."""
        said = {"label": event.label, "detail": event.detail}
        return _chunk("data-step", data=_known(said), transient=True)

    def notice(self, event: Notice) -> bytes:
        """The notice for `onData`, and who answers from here on."""
        said = {"code": event.code, "message": event.message, "upstream": event.upstream}
        told = _chunk("data-notice", data=_known(said), transient=True)
        return told if event.upstream is None else told + self._run(self._fold.answer())

    def end(self, event: RunEnd, answer: Answer) -> bytes:
        """What is left to say, then how it ended."""
        completed = event.outcome is Outcome.COMPLETED
        calls = [_end_call(call, completed) for call in self._calls.values()]
        citations = self._citations() if len(self._marks) > self._cited else b""
        rewritten = b"" if self._sent is None else _frame(answer_part(answer))
        return b"".join(
            [*calls, citations, rewritten, self._run(answer), _closing(event, completed), DONE]
        )

    # ------------------------------------------------------------------ their parts

    @property
    def _message_id(self) -> str:
        return self._start.message_id if self._start is not None else ""

    def _part_id(self, kind: str) -> str:
        return f"{kind}-{self._parts}"

    def _citations(self) -> bytes:
        self._cited = len(self._marks)
        return _frame(citations_part(self._marks, self._references))

    def _run(self, answer: Answer) -> bytes:
        start, end = self._start, answer.end
        said = {
            "run_id": self.about.run_id,
            "session_id": self.about.session,
            "status": answer.status,
            "upstream": answer.upstream,
            "model": answer.model,
            "route_reason": start and start.route_reason,
            "usage": answer.usage,
            "outcome": end and end.outcome,
            "reason": end and end.reason,
            "error": end and end.error,
        }
        return _frame(run_part(said))


# ---------------------------------------------------------------------- parts of a message


def message_parts(
    answer: Answer, message_id: str, run: dict[str, Any], live: bool
) -> list[dict[str, Any]]:
    """An answer as the parts of a UI message, as a client has them at the end of its stream.

    Of what was interleaved only the kinds are kept apart: reasoning comes before text.

    Args:
        answer: The answer, or what there is of it.
        message_id: The message's id.
        run: What `data-run` says of it.
        live: Whether it is still being written.
    """
    state = "streaming" if live else "done"
    parts: list[dict[str, Any]] = [{"type": "step-start"}, run_part(run)]
    if answer.reasoning:
        parts.append({"type": "reasoning", "text": answer.reasoning, "state": state})
    if answer.text:
        parts.append({"type": "text", "text": answer.text, "state": state})
    completed = run.get("outcome") == Outcome.COMPLETED
    parts += [_call_part(call, live, completed) for call in answer.tool_calls]
    parts += [source(one, message_id) for one in answer.references]
    if answer.references or answer.marks:
        marks = in_utf16(answer.text, answer.marks)
        parts.append(citations_part(marks, answer.references))
    return parts


def source(reference: Reference, message_id: str) -> dict[str, Any]:
    """A reference as a source; as a chunk and as a part of a message it is the same."""
    name = reference.document_name
    said: dict[str, Any] = {"sourceId": f"{message_id}-{reference.ordinal}"}
    if reference.url is not None and reference.url.lower().startswith(("http://", "https://")):
        said = {"type": "source-url", **said, "url": reference.url}
        if name:
            said["title"] = name
    else:
        title = name or reference.document_id or f"Source {reference.ordinal}"
        ending = title.rpartition(".")[2].lower()
        media_type = MEDIA_TYPES.get(ending, OTHER_MEDIA_TYPE)
        said = {"type": "source-document", **said, "mediaType": media_type, "title": title}
        if name:
            said["filename"] = name
    return {**said, "providerMetadata": {"holdfast": {"ordinal": reference.ordinal}}}


def citations_part(marks: Sequence[Mark], references: Sequence[Reference]) -> dict[str, Any]:
    """The marks (offsets in UTF-16 code units) with the references that they point to."""
    data = {"marks": marks, "references": references}
    return {"type": "data-citations", "id": "citations", "data": data}


def answer_part(answer: Answer) -> dict[str, Any]:
    """The whole answer, for clients that have another one."""
    data = {"text": answer.text, "marks": in_utf16(answer.text, answer.marks)}
    return {"type": "data-answer", "id": "answer", "data": data}


def run_part(said: dict[str, Any]) -> dict[str, Any]:
    """How the answer is made and how it ended; only what is known."""
    used = said.get("usage")
    if isinstance(used, Usage):
        counted = {"input_tokens": used.input_tokens, "output_tokens": used.output_tokens}
        said = {**said, "usage": _known({**counted, "extra": used.extra})}
    return {"type": "data-run", "id": "run", "data": _known(said)}


def _known(said: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in said.items() if value is not None}


def in_utf16(text: str, marks: Sequence[Mark], offset: int = 0) -> list[Mark]:
    """The marks of a text with offsets as JavaScript counts them.

    Args:
        text: What the marks are in.
        marks: With offsets in code points.
        offset: Where the text begins, in UTF-16 code units.
    """
    if not marks:
        return []
    if text.isascii() or max(text) <= "\uffff":
        return [(offset + start, offset + end, ordinal) for start, end, ordinal in marks]
    before = [0]
    for character in text:
        before.append(before[-1] + (2 if character > "\uffff" else 1))
    last = len(text)
    return [
        (offset + before[min(start, last)], offset + before[min(end, last)], ordinal)
        for start, end, ordinal in marks
    ]


def _units(text: str) -> int:
    """The length of a text in UTF-16 code units."""
    if text.isascii():
        return len(text)
    return len(text) + sum(character > "\uffff" for character in text)


# ---------------------------------------------------------------------- chunks


def _frame(chunk: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % encode(chunk)


def _chunk(kind: str, **fields: Any) -> bytes:
    return _frame({"type": kind, **fields})


def _closing(event: RunEnd, completed: bool) -> bytes:
    if completed:
        reason = FINISH_REASONS[event.finish]
        return _chunk("finish-step") + _chunk("finish", finishReason=reason)
    if event.outcome is Outcome.CANCELLED:
        return _chunk("abort")
    return _chunk("error", errorText=event.error or f"the answer ended early: {event.reason}")


# ---------------------------------------------------------------------- tool calls


def _call_id(call: ToolCallSoFar) -> str:
    return call.id or f"call-{call.index}"


def _begin_call(call: _Call) -> bytes:
    call.started = True
    arguments = call.so_far.arguments
    identity, name = _call_id(call.so_far), call.so_far.name or NAMELESS
    call.so_far = ToolCallSoFar(call.so_far.index, identity, name, arguments)
    begun = _chunk("tool-input-start", toolCallId=identity, toolName=name)
    return begun + _call_delta(call.so_far, arguments)


def _call_delta(call: ToolCallSoFar, arguments: str) -> bytes:
    if not arguments:
        return b""
    return _chunk("tool-input-delta", toolCallId=call.id, inputTextDelta=arguments)


def _end_call(call: _Call, completed: bool) -> bytes:
    """A call is available, that is to be executed by the client, only if it is whole."""
    begun = b"" if call.started else _begin_call(call)
    so_far = call.so_far
    said = {"toolCallId": so_far.id, "toolName": so_far.name}
    value, error = _arguments(so_far, completed)
    if error is None:
        return begun + _chunk("tool-input-available", **said, input=value)
    return begun + _chunk("tool-input-error", **said, input=so_far.arguments, errorText=error)


def _call_part(call: ToolCallSoFar, live: bool, completed: bool) -> dict[str, Any]:
    said = {"type": f"tool-{call.name or NAMELESS}", "toolCallId": _call_id(call)}
    if live:
        return {**said, "state": "input-streaming"}
    value, error = _arguments(call, completed)
    if error is None:
        return {**said, "state": "input-available", "input": value}
    return {**said, "state": "output-error", "rawInput": call.arguments, "errorText": error}


def _arguments(call: ToolCallSoFar, completed: bool) -> tuple[Any, str | None]:
    """The arguments, or why there are none to use. A call without any has an empty object."""
    if not completed:
        return None, UNFINISHED_CALL
    try:
        return msgspec.json.decode(call.arguments or "{}"), None
    except (msgspec.DecodeError, RecursionError, UnicodeError):
        return None, MALFORMED_CALL
