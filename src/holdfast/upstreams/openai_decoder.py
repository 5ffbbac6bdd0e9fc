"""The answers of `/chat/completions`, as servers really send them: bytes in, items out.

The decoder takes the API as it is found, not only as it is written: `reasoning_content` or
`reasoning`; errors in the middle of a stream that began with status 200; servers that never send
`[DONE]`, or nothing but it; whole answers where a stream was asked for; RAGFlow's references and
its errors told as text.

An answer is whole if any terminal marker came: a `finish_reason` or `[DONE]`. After the former
the stream is read on for the usage, but its way of ending does not matter any more.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from holdfast.engine.run import UpstreamEnd
from holdfast.events import (
    Finish,
    Reason,
    ReasoningDelta,
    Reference,
    References,
    TextDelta,
    TextReplace,
    ToolCall,
    Usage,
)
from holdfast.settings import LimitSettings
from holdfast.upstreams.base import Item
from holdfast.upstreams.citations import CitationTranslator
from holdfast.upstreams.lenient import decode_any, repair
from holdfast.upstreams.references import (
    CHUNK,
    URL_CITATION,
    Fields,
    bounded_extra,
    http_url,
    read_reference,
)
from holdfast.upstreams.refusal import clean, error_text
from holdfast.upstreams.sse import SseEvent, SseParser

FINISHES: Final = {
    "stop": Finish.STOP,
    "length": Finish.LENGTH,
    "max_tokens": Finish.LENGTH,
    "tool_calls": Finish.TOOL_CALLS,
    "function_call": Finish.TOOL_CALLS,
    "content_filter": Finish.CONTENT_FILTER,
}
BROKEN_FINISHES: Final = frozenset({"error", "abort", "insufficient_system_resource"})
"""Finish reasons by which servers say that they failed."""

_TOLD_ERROR: Final = re.compile(r"(?:\A\s*|\n)\*\*ERROR\*\*: |\*\*ERROR\*\*: (?=[A-Z_]{3,} - )")
"""RAGFlow tells failures as text: at the start of a piece or line, or with a code in capitals."""
_TOLD_ERROR_CHARS: Final = 1_000
_THINKING: Final = re.compile(r"<think>.*?</think>", re.DOTALL)


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: Any = None


class _ToolCall(msgspec.Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(msgspec.Struct, gc=False):
    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    refusal: Any = None
    tool_calls: list[_ToolCall] | None = None
    function_call: _Function | None = None
    reference: Any = None
    annotations: Any = None
    final_content: Any = None


class _Choice(msgspec.Struct, gc=False):
    index: int | None = 0
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: Any = None


class _Frame(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None
    usage: Any = None
    error: Any = None


_decode: Final = msgspec.json.Decoder(_Frame).decode


class OpenAIDecoder:
    """Bytes of one answer in, items out.

    Attributes:
        ended: The `UpstreamEnd` was given; nothing follows.
        finished: A terminal marker came; at most the usage is still missing.
    """

    def __init__(
        self, limits: LimitSettings | None = None, citations: CitationTranslator | None = None
    ) -> None:
        """Begin before the first byte."""
        self.ended = False
        self.finished = False
        self._limits = limits or LimitSettings()
        self._citations = citations or CitationTranslator(loose=False)
        self._sse = SseParser(self._limits.event_bytes)
        self._head: dict[str, Any] | None = None
        self._finish_reason: str | None = None
        self._usage: dict[str, Any] | None = None
        self._references: dict[str, Reference] = {}
        self._length = 0  # of the text as the upstream wrote it
        self._told_error: str | None = None

    @property
    def closing(self) -> dict[str, Any] | None:
        """What the upstream said about the answer besides the answer."""
        closing = {**(self._head or {}), "finish_reason": self._finish_reason}
        return bounded_extra({**closing, "usage": self._usage})

    def feed(self, data: bytes) -> list[Item]:
        """Take the next bytes of an event stream; give the items that they complete."""
        items: list[Item] = []
        if self.ended:
            return items
        for event in self._sse.feed(data):
            try:
                frame = _decode(event.data)
            except (ValueError, RecursionError):
                self._take_odd(event, items)
            else:
                self._take(frame, event, items)
            if self.ended:
                return items
        if self._sse.overflowed:
            limit = self._limits.event_bytes
            error = f"the upstream sent an event of more than {limit} bytes"
            items += self.finish(UpstreamEnd(Reason.LIMIT, error=error))
        return items

    def feed_whole(self, body: bytes) -> list[Item]:
        """Take an answer that came in one piece of JSON, and end."""
        items: list[Item] = []
        data = repair(body) or b""
        try:
            frame = _decode(data)
        except (ValueError, RecursionError):
            self._fail("the upstream sent an answer that is not a chat completion", items)
            return items
        if not frame.choices and not frame.error:
            self._fail(error_text(decode_any(data)) or "an answer without choices", items)
            return items
        self._take(frame, SseEvent(data), items)
        self.finished = True
        return items + self.finish()

    def finish(self, cause: UpstreamEnd | None = None) -> list[Item]:
        """Take the end of the stream; give what was held back, and the end.

        Args:
            cause: What cut the stream off; None if it came to its end.
        """
        items: list[Item] = []
        if self.ended:
            return items
        if self.finished:
            cause = UpstreamEnd()
        elif cause is None:
            cause = UpstreamEnd(
                Reason.UPSTREAM_TRUNCATED,
                error="the upstream's stream ended without a terminal marker",
            )
        self._end(cause, items)
        return items

    def release(self) -> list[Item]:
        """Give what was held back, for somebody who reads no further."""
        items: list[Item] = []
        if not self.ended:
            self._flush(items)
        return items

    # ------------------------------------------------------------------ frames

    def _take(self, frame: _Frame, event: SseEvent, items: list[Item]) -> None:
        if self._head is None:
            head = decode_any(event.data)
            self._head = {name: head.get(name) for name in ("id", "model")}
        if frame.usage.__class__ is dict and frame.usage:
            self._usage = frame.usage
        if frame.choices:
            for choice in frame.choices:
                if not choice.index:
                    self._take_choice(choice, items)
        if frame.error:
            self._fail(error_text(frame.error) or "an error without a message", items)
        elif frame.choices is None:
            self._take_bare(event, items)

    def _take_choice(self, choice: _Choice, items: list[Item]) -> None:
        delta = choice.delta or choice.message
        if delta is not None:
            thought = delta.reasoning_content or delta.reasoning
            if thought and thought.__class__ is str:
                items.append(ReasoningDelta(thought))
            content = delta.content
            if content:
                if content.__class__ is str:
                    self._take_text(content, items)
                else:
                    self._take_parts(content, items)
            if delta.refusal and delta.refusal.__class__ is str:
                self._take_text(delta.refusal, items)
            if delta.tool_calls or delta.function_call:
                items += _tool_calls(delta)
            if delta.reference or delta.annotations:
                self._take_references(delta, items)
            if delta.final_content:
                self._take_final_content(delta.final_content, items)
        if choice.finish_reason:
            self._finish_reason = str(choice.finish_reason)
            self.finished = True
            self._flush(items)

    def _take_bare(self, event: SseEvent, items: list[Item]) -> None:
        """An object that is no chunk: an error in one of its other forms, or nothing to us."""
        body = decode_any(event.data)
        if event.event == "error" or body.get("object") == "error" or body.get("code"):
            self._fail(error_text(body) or "an error without a message", items)

    def _take_odd(self, event: SseEvent, items: list[Item]) -> None:
        """What the strict reader refused: the terminal `[DONE]`, or something broken."""
        text = event.data.strip()
        if not text:
            return  # a keep-alive
        if text == b"[DONE]":
            self.finished = True
            self._end(UpstreamEnd(), items)
            return
        data = repair(event.data) or b""
        try:
            frame = _decode(data)
        except (ValueError, RecursionError):
            start = clean(event.data[:80].decode("utf-8", "replace"))
            error = f"the upstream sent something that is not a completion chunk: {start}"
            items += self.finish(UpstreamEnd(Reason.UPSTREAM_ERROR, error=error))
        else:
            self._take(frame, SseEvent(data, event.event), items)

    # ------------------------------------------------------------------ deltas

    def _take_text(self, text: str, items: list[Item]) -> None:
        if self._told_error is not None:
            self._told_error = (self._told_error + text)[:_TOLD_ERROR_CHARS]
            return
        if "**ERROR**: " in text:
            told = _TOLD_ERROR.search(text)
            if told is not None:
                self._told_error = text[told.end() :][:_TOLD_ERROR_CHARS]
                text = text[: told.start()]
        self._length += len(text)
        text, marks = self._citations.feed(text)
        if text:
            items.append(TextDelta(text, marks))

    def _take_parts(self, parts: Any, items: list[Item]) -> None:
        """Content as a list of typed parts, which some servers send instead of a string."""
        for part in parts if isinstance(parts, list) else ():
            match part:
                case {"text": str(text)} if text:
                    self._take_text(text, items)
                case {"thinking": [*thoughts]}:
                    joined = "".join(_texts(thoughts))
                    if joined:
                        items.append(ReasoningDelta(joined))
                case _:
                    pass

    def _take_references(self, delta: _Delta, items: list[Item]) -> None:
        before = dict(self._references)
        reference = delta.reference
        chunks = reference.get("chunks") if isinstance(reference, dict) else reference
        if isinstance(chunks, dict):
            keyed = {key: {**_mapping(chunk), "key": key} for key, chunk in chunks.items()}
            self._keep_references(keyed, CHUNK)
        elif isinstance(chunks, list):
            placed = {str(place): _mapping(chunk) for place, chunk in enumerate(chunks)}
            self._keep_references(placed, CHUNK)
        for annotation in delta.annotations if isinstance(delta.annotations, list) else ():
            source = _mapping(_mapping(annotation).get("url_citation"))
            url = http_url(source.get("url"))
            if url is not None and url not in self._references:
                self._keep_references({url: source}, URL_CITATION)
        if self._references != before:
            ordered = sorted(self._references.values(), key=lambda one: one.ordinal)
            items.append(References(tuple(ordered[: self._limits.references])))

    def _keep_references(self, sources: Mapping[str, dict[str, Any]], fields: Fields) -> None:
        if not sources:
            return
        for key, ordinal in zip(sources, self._citations.number([*sources]), strict=True):
            self._references[key] = read_reference(
                sources[key], fields, ordinal=ordinal, text_bytes=self._limits.reference_bytes
            )

    def _take_final_content(self, text: Any, items: list[Item]) -> None:
        """RAGFlow repeats the answer at its end, sometimes with the citations only there."""
        if not isinstance(text, str) or self._told_error is not None:
            return
        text = _THINKING.sub("", text)
        if len(text) > self._length:
            items.append(TextReplace(*self._citations.rewrite(text)))

    # ------------------------------------------------------------------ the end

    def _flush(self, items: list[Item]) -> None:
        held = self._citations.flush()
        if held:
            items.append(TextDelta(held))

    def _fail(self, text: str, items: list[Item]) -> None:
        self._end(UpstreamEnd(Reason.UPSTREAM_ERROR, error=text), items)

    def _end(self, end: UpstreamEnd, items: list[Item]) -> None:
        self._flush(items)
        if self._usage:
            items.append(_usage(self._usage))
        items.append(self.ending(end))
        self.ended = True

    def ending(self, cause: UpstreamEnd) -> UpstreamEnd:
        """How the answer ends if `cause` ends it now."""
        if self._told_error is not None:
            return UpstreamEnd(Reason.UPSTREAM_ERROR, error=clean(self._told_error))
        if cause.reason is not None:
            return cause
        if self._finish_reason in BROKEN_FINISHES:
            error = f"the upstream stopped with finish_reason {self._finish_reason}"
            return UpstreamEnd(Reason.UPSTREAM_ERROR, error=error)
        return UpstreamEnd(finish=FINISHES.get(self._finish_reason or ""))


def _tool_calls(delta: _Delta) -> Iterator[ToolCall]:
    calls = list(delta.tool_calls or ())
    if delta.function_call is not None:
        calls.append(_ToolCall(function=delta.function_call))
    for place, call in enumerate(calls):
        function = call.function or _Function()
        arguments = function.arguments
        if arguments is not None and not isinstance(arguments, str):
            arguments = msgspec.json.encode(arguments).decode()
        yield ToolCall(
            index=place if call.index is None else call.index,
            id=call.id,
            name=function.name,
            arguments_delta=arguments or "",
        )


def _usage(usage: Mapping[str, Any]) -> Usage:
    rest = dict(usage)
    return Usage(
        input_tokens=_count(rest.pop("prompt_tokens", None) or rest.pop("input_tokens", None)),
        output_tokens=_count(
            rest.pop("completion_tokens", None) or rest.pop("output_tokens", None)
        ),
        extra=bounded_extra(rest),
    )


def _count(value: object) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53:
        return value
    return None


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _texts(parts: list[Any]) -> Iterator[str]:
    for part in parts:
        match part:
            case str(text) | {"text": str(text)}:
                yield text
            case _:
                pass
