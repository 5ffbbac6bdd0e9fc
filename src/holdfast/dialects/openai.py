r"""The OpenAI dialect: the chunks of a `/chat/completions` stream.

    data: {"id":"chatcmpl-<run id>","object":"chat.completion.chunk",...}\n\n
    data: [DONE]\n\n

Data lines and comments only. The official Python client decodes every SSE message as JSON, also
the empty ones that `id:`, `retry:` and `event:` lines make of comments, and takes a stream that
stops without `[DONE]` for a whole answer; what it raises as an error is a chunk with a top-level
`error`. So every other end than completion is told that way.

Three members are not in OpenAI's description of a chunk, and clients that do not know them pass
over them: `reasoning_content`, as DeepSeek has it; `annotations`, which OpenAI itself has in whole
answers; and `references`, with everything that is known of the sources. They come once, before the
finish reason, and `references` in several chunks where they are large: `index` is there because the
Python client's helpers put lists of objects together by it.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from holdfast.dialects.base import DONE, About, AnswerEncoder
from holdfast.engine.fold import Answer
from holdfast.events import (
    Finish,
    Mark,
    Notice,
    Outcome,
    Reason,
    Reference,
    RunEnd,
    RunStart,
    ToolCall,
    Usage,
    encode,
)

TEXT_CHARS: Final = 8_000
"""The most text of one chunk: many clients read by the line, and only take so long ones."""
REFERENCES_BYTES: Final = 32_000
"""A chunk with as many bytes of references gets no more of them."""

STATUSES: Final = {
    Reason.UPSTREAM_TIMEOUT: 504,
    Reason.SERVER_SHUTDOWN: 503,
    Reason.SERVER_CRASH: 503,
    Reason.STORAGE_ERROR: 503,
}
"""The HTTP status that tells a reason, where it is not 502."""
PASSED_ON: Final = {400: 400, 413: 400, 422: 400, 429: 429, 504: 504}
"""What a status of the upstream is told as: messages and tools are the caller's, the key is not."""
TYPES: Final = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
"""The `type` of errors, where it does not follow from whose fault they are."""
UNTOLD: Final = {
    Outcome.CANCELLED: "the answer was stopped",
    Outcome.INTERRUPTED: "the answer broke off",
    Outcome.FAILED: "there is no answer",
}
"""What is said of an end that has no words of its own."""

_LINE_ENDS: Final = (
    (b"\xc2\x85", rb"\u0085"),
    (b"\xe2\x80\xa8", rb"\u2028"),
    (b"\xe2\x80\xa9", rb"\u2029"),
)
"""JSON has them as they are; to Python's `splitlines`, which clients use, they end a line."""


class OpenAIEncoder(AnswerEncoder):
    """See the module."""

    def __init__(self, about: About, *, include_usage: bool = False) -> None:
        """Begin before the first event.

        Args:
            about: The run.
            include_usage: Whether a chunk with the tokens used follows the finish reason.
        """
        super().__init__(about)
        self._include_usage = include_usage
        self._after = b',"usage":null}\n\n' if include_usage else b"}\n\n"
        self._places: dict[int, int] = {}
        self._named: set[int] = set()
        self._answers("")

    def _answers(self, model: str) -> None:
        self._before = (
            b'data: {"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,"choices":['
            % (_json(completion_id(self.about)), self.about.created_at // 1000, _json(model))
        )

    def _chunk(self, delta: bytes, finish: bytes = b"null") -> bytes:
        return b'%b{"index":0,"delta":%b,"finish_reason":%b}]%b' % (
            self._before,
            delta,
            finish,
            self._after,
        )

    # ------------------------------------------------------------------ the answer

    def start(self, event: RunStart) -> bytes:
        """See `AnswerEncoder.start`."""
        self._answers(event.model or event.upstream)
        return self._chunk(b'{"role":"assistant","content":""}')

    def notice(self, event: Notice) -> bytes:
        """See `AnswerEncoder.notice`."""
        if event.upstream is not None:
            self._answers(event.model or event.upstream)
        return b""

    def text(self, text: str, marks: tuple[Mark, ...]) -> bytes:
        """See `AnswerEncoder.text`."""
        return self._pieces(b'{"content":%b}', text)

    def reasoning(self, text: str) -> bytes:
        """See `AnswerEncoder.reasoning`."""
        return self._pieces(b'{"reasoning_content":%b}', text)

    def _pieces(self, delta: bytes, text: str) -> bytes:
        if len(text) <= TEXT_CHARS:
            return self._chunk(delta % _json(text))
        starts = range(0, len(text), TEXT_CHARS)
        pieces = [text[start : start + TEXT_CHARS] for start in starts]
        return b"".join([self._chunk(delta % _json(piece)) for piece in pieces])

    def tool_call(self, event: ToolCall) -> bytes:
        """See `AnswerEncoder.tool_call`.

        Clients put the pieces together by place and by adding up strings: places are counted
        anew, from 0, and the id and the name of a call come once.
        """
        place = self._places.get(event.index)
        call: dict[str, Any] = {"index": place}
        function: dict[str, Any] = {}
        if place is None:
            place = self._places[event.index] = len(self._places)
            call = {"index": place, **_call_head(event.id, self.about.run_id, place)}
        if event.name and place not in self._named:
            self._named.add(place)
            function["name"] = event.name
        call["function"] = {**function, "arguments": event.arguments_delta}
        return self._chunk(b'{"tool_calls":[%b]}' % _json(call))

    # ------------------------------------------------------------------ the end

    def end(self, event: RunEnd, answer: Answer) -> bytes:
        """See `AnswerEncoder.end`."""
        frames = [*self._sources(answer)]
        if event.outcome is Outcome.COMPLETED:
            frames.append(self._chunk(b"{}", _json(finish_reason(event, answer))))
            if self._include_usage and answer.usage is not None:
                frames.append(b'%b],"usage":%b}\n\n' % (self._before, _json(usage(answer.usage))))
        else:
            frames.append(b'data: {"error":%b}\n\n' % _json(error(event)))
        return b"".join([*frames, DONE])

    def _sources(self, answer: Answer) -> Iterator[bytes]:
        """What the answer is made of; in a text that was rewritten the marks are elsewhere."""
        sent = self._sent
        cited = annotations(
            answer.references,
            answer.marks if sent is None else (),
            len(answer.text if sent is None else sent),
        )
        for batch in _batches(answer.references):
            yield self._chunk(b'{"references":[%b]}' % b",".join(batch))
        if cited:
            yield self._chunk(b'{"annotations":%b}' % _json(cited))
        if sent is not None and len(answer.text) <= TEXT_CHARS:
            # RAGFlow's name for the answer as it is in the end.
            yield self._chunk(b'{"final_content":%b}' % _json(answer.text))


def _json(value: Any) -> bytes:
    data = encode(value)
    if not data.isascii():
        for end, escaped in _LINE_ENDS:
            data = data.replace(end, escaped)
    return data


def _batches(references: Sequence[Reference]) -> Iterator[list[bytes]]:
    """The references as JSON with their places, in pieces of bounded size."""
    batch: list[bytes] = []
    size = 0
    for place, reference in enumerate(references):
        data = b'{"index":%d,%b' % (place, _json(reference)[1:])
        if batch and size + len(data) > REFERENCES_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(data)
        size += len(data)
    if batch:
        yield batch


# ---------------------------------------------------------------------- also of whole answers


def completion_id(about: About) -> str:
    """The name of a run's answer."""
    return f"chatcmpl-{about.run_id}"


def finish_reason(end: RunEnd, answer: Answer) -> str:
    """Why the model stopped writing; `length` for whatever is not whole."""
    if end.outcome is not Outcome.COMPLETED:
        return Finish.LENGTH
    return end.finish or (Finish.TOOL_CALLS if answer.tool_calls else Finish.STOP)


def tool_calls(answer: Answer, run_id: str) -> list[dict[str, Any]]:
    """The tool calls of a whole answer."""
    return [
        {
            **_call_head(call.id, run_id, place),
            "function": {"name": call.name or "", "arguments": call.arguments},
        }
        for place, call in enumerate(answer.tool_calls)
    ]


def _call_head(call_id: str | None, run_id: str, place: int) -> dict[str, Any]:
    """A call needs an id to be answered; OpenAI takes 40 characters."""
    return {"id": call_id or f"call_{run_id.replace('-', '')}{place}", "type": "function"}


def annotations(
    references: Sequence[Reference], marks: Sequence[Mark], length: int
) -> list[dict[str, Any]]:
    """OpenAI's form of the references that have an address: each where it is cited first.

    Args:
        references: The references.
        marks: Where they are cited.
        length: How long the text is; what is cited nowhere belongs to its end.
    """
    places: dict[int, tuple[int, int]] = {}
    for start, end, ordinal in marks:
        places.setdefault(ordinal, (start, end))
    found = []
    for reference in references:
        if reference.url is not None:
            start, end = places.get(reference.ordinal) or _told_place(reference, length)
            citation = {
                "start_index": start,
                "end_index": end,
                "title": reference.document_name or reference.url,
                "url": reference.url,
            }
            found.append({"type": "url_citation", "url_citation": citation})
    return found


def _told_place(reference: Reference, length: int) -> tuple[int, int]:
    """Where an upstream of the same API said that it is cited; else the end of the text."""
    told = reference.extra or {}
    start, end = told.get("start_index"), told.get("end_index")
    if type(start) is int and type(end) is int and 0 <= start <= end <= length:
        return start, end
    return length, length


def usage(used: Usage) -> dict[str, Any]:
    """The tokens used; what an upstream did not count is 0, as the clients want a number."""
    rest = dict(used.extra or {})
    counted = {
        "prompt_tokens": used.input_tokens or 0,
        "completion_tokens": used.output_tokens or 0,
    }
    total = rest.pop("total_tokens", None)
    if not isinstance(total, int) or isinstance(total, bool):
        total = sum(counted.values())
    return {**rest, **counted, "total_tokens": total}


def error_type(status: int) -> str:
    """What kind of error OpenAI calls one with this HTTP status."""
    return TYPES.get(status) or ("server_error" if status >= 500 else "invalid_request_error")


def status(end: RunEnd) -> int:
    """The HTTP status that tells a run's end to somebody who got nothing of its answer."""
    found = PASSED_ON.get(end.status or 0)
    return found or STATUSES.get(end.reason or Reason.UPSTREAM_ERROR, 502)


def error(end: RunEnd) -> dict[str, Any]:
    """The error object of a run that ended otherwise than by completion."""
    stopped = end.outcome is Outcome.CANCELLED
    return {
        "message": end.error or UNTOLD.get(end.outcome, ""),
        "type": "cancelled" if stopped else error_type(status(end)),
        "param": None,
        "code": end.reason,
    }
