"""The answers of `/chat/completions`, as servers really send them: bytes in, items out.

The decoder takes the API as it is found, not only as it is written: `reasoning_content` or
`reasoning`, or thoughts in `<think>` tags at the start of the content; errors in the middle of a
stream that began with status 200; servers that never send `[DONE]`, or nothing but it; whole
answers where a stream was asked for; parallel tool calls that all have index 0; search services'
sources; RAGFlow's references and its errors told as text.

An answer is whole if any terminal marker came: a `finish_reason` or `[DONE]`. After the former
the stream is read on for the usage, but its way of ending does not matter any more.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from holdfast.engine.run import UpstreamEnd
from holdfast.events import (
    Finish,
    Reason,
    ReasoningDelta,
)
from holdfast.settings import LimitSettings
from holdfast.upstreams.base import Item
from holdfast.upstreams.decoding.citations import MAX_NUMBER, CitationTranslator
from holdfast.upstreams.decoding.decoder import MERGED_FROM, Decoder, keyed, mapping, read_usage
from holdfast.upstreams.decoding.lenient import decode_any, repair
from holdfast.upstreams.decoding.references import (
    CHUNK,
    OURS,
    SEARCH_RESULT,
    URL_CITATION,
    Fields,
    bounded_extra,
    http_url,
)
from holdfast.upstreams.decoding.refusal import clean, error_text
from holdfast.upstreams.decoding.thinking import CLOSE_TAG, OPEN_TAG, OpeningThought, Piece
from holdfast.upstreams.openai.frames import (
    Choice,
    Delta,
    Frame,
    Repetition,
    ToolCalls,
    decode_frame,
)
from holdfast.upstreams.wire.sse import SseEvent

FINISHES: Final = {
    "stop": Finish.STOP,
    "eos": Finish.STOP,
    "end_turn": Finish.STOP,
    "stop_sequence": Finish.STOP,
    "length": Finish.LENGTH,
    "max_tokens": Finish.LENGTH,
    "tool_calls": Finish.TOOL_CALLS,
    "tool_use": Finish.TOOL_CALLS,
    "function_call": Finish.TOOL_CALLS,
    "content_filter": Finish.CONTENT_FILTER,
    "safety": Finish.CONTENT_FILTER,
}
"""The reasons of the API, and those that gateways pass on from elsewhere, in lower case."""
BROKEN_FINISHES: Final = frozenset({"error", "abort", "insufficient_system_resource"})
"""Finish reasons by which servers say that they failed."""
NO_ERRORS: Final = frozenset({None, 0, "", "0", 200, "200"})
"""Values of a bare object's `code` that tell no error."""


class OpenAIDecoder(Decoder):
    """See the module and `Decoder`."""

    def __init__(
        self,
        limits: LimitSettings | None = None,
        citations: CitationTranslator | None = None,
        *,
        think_tags: bool = True,
    ) -> None:
        """Begin before the first byte.

        Args:
            limits: Bounds on events and references.
            citations: Translates citation marks; by default those of RAGFlow.
            think_tags: Whether content that begins with `<think>` begins with a thought.
        """
        super().__init__(limits, citations or CitationTranslator(loose=False))
        self._opening = OpeningThought() if think_tags else None
        self._tool_calls = ToolCalls()
        self._repetition = Repetition()
        self._searched: Any = None
        self._head: dict[str, Any] | None = None
        self._finish_reason: str | None = None
        self._usage: dict[str, Any] | None = None

    @property
    def closing(self) -> dict[str, Any] | None:
        """See `Decoder.closing`."""
        closing = {**(self._head or {}), "finish_reason": self._finish_reason}
        return bounded_extra({**closing, "usage": self._usage})

    def _closing_items(self) -> list[Item]:
        return [read_usage(self._usage)] if self._usage else []

    def _ending(self, cause: UpstreamEnd) -> UpstreamEnd:
        if self._finish_reason in BROKEN_FINISHES:
            error = f"the upstream stopped with finish_reason {self._finish_reason}"
            return UpstreamEnd(Reason.UPSTREAM_ERROR, error=error)
        return UpstreamEnd(finish=FINISHES.get((self._finish_reason or "").lower()))

    def _flush(self, items: list[Item]) -> None:
        if self._opening is not None:
            self._take_pieces(self._opening.flush(), items)
        super()._flush(items)

    def _fail_with(self, error: Any, items: list[Item]) -> None:
        """End with an error in one of its forms."""
        text = error_text(error) or "an error without a message"
        end = UpstreamEnd(Reason.UPSTREAM_ERROR, error=text, status=_status(error))
        self._end(end, items)

    # ------------------------------------------------------------------ frames

    def _take_events(self, events: Sequence[SseEvent], items: list[Item]) -> None:
        """See `Decoder`; what frames in a row say is put together before it is looked at."""
        if len(events) < MERGED_FROM or not self._merges or self._opening is not None:
            super()._take_events(events, items)
            return
        content_of = self._repetition.content
        contents: list[str] = []
        for event in events:
            content = content_of(event.data)
            if content is not None:
                contents.append(content)
                continue
            self._take_texts(contents, items)
            contents.clear()
            self._take_frame(event, items)
            if self.ended:
                return
        self._take_texts(contents, items)

    def _take_event(self, event: SseEvent, items: list[Item]) -> None:
        content = self._repetition.content(event.data)
        if content is None:
            self._take_frame(event, items)
        elif content:
            self._take_content(content, items)

    def _take_frame(self, event: SseEvent, items: list[Item]) -> None:
        """Take a frame that does not repeat."""
        try:
            frame = decode_frame(event.data)
        except (ValueError, RecursionError):
            self._take_odd(event, items)
        else:
            self._repetition.learn(event.data, frame)
            self._take(frame, event, items)

    def _take_whole(self, body: bytes, items: list[Item]) -> None:
        data = repair(body) or b""
        try:
            frame = decode_frame(data)
        except (ValueError, RecursionError):
            self._fail("the upstream sent an answer that is not a chat completion", items)
            return
        if not frame.choices and not frame.error:
            self._fail(error_text(decode_any(data)) or "an answer without choices", items)
            return
        self._take(frame, SseEvent(data), items)
        self.finished = True

    def _take(self, frame: Frame, event: SseEvent, items: list[Item]) -> None:
        if self._head is None:
            head = decode_any(event.data)
            self._head = {name: head.get(name) for name in ("id", "model")}
        if frame.usage.__class__ is dict and frame.usage:
            self._usage = frame.usage
        if frame.citations or frame.search_results:
            self._take_search(frame, items)
        if frame.choices:
            for choice in frame.choices:
                if not choice.index:
                    self._take_choice(choice, items)
                    frame.error = frame.error or choice.error
        if frame.error:
            self._fail_with(frame.error, items)
        elif frame.choices is None:
            self._take_bare(event, items)

    def _take_choice(self, choice: Choice, items: list[Item]) -> None:
        delta = choice.delta or choice.message
        if delta is not None:
            thought = delta.reasoning_content or delta.reasoning
            if thought and thought.__class__ is str:
                items.append(ReasoningDelta(thought))
            content = delta.content
            if content:
                if content.__class__ is str:
                    self._take_content(content, items)
                else:
                    self._take_parts(content, items)
            if delta.refusal and delta.refusal.__class__ is str:
                self._take_text(delta.refusal, items)
            if delta.tool_calls or delta.function_call:
                self._flush(items)
                items += self._tool_calls.take(delta)
            if delta.reference or delta.references or delta.annotations:
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
        is_error = event.event == "error" or "error" in (body.get("object"), body.get("type"))
        if is_error or body.get("detail") or not _is_one_of(body.get("code"), NO_ERRORS):
            self._fail_with(body, items)

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
            frame = decode_frame(data)
        except (ValueError, RecursionError):
            start = clean(event.data[:80].decode("utf-8", "replace"))
            error = f"the upstream sent something that is not a completion chunk: {start}"
            items += self.finish(UpstreamEnd(Reason.UPSTREAM_ERROR, error=error))
        else:
            self._take(frame, SseEvent(data, event.event), items)

    # ------------------------------------------------------------------ deltas

    def _take_content(self, content: str, items: list[Item]) -> None:
        """More of the answer, which may begin with a thought."""
        if self._opening is None:
            self._take_text(content, items)
        else:
            self._take_pieces(self._opening.feed(content), items)

    def _take_pieces(self, pieces: Iterable[Piece], items: list[Item]) -> None:
        """Content whose thoughts are told from its text."""
        for is_thought, text in pieces:
            if is_thought:
                items.append(ReasoningDelta(text))
            else:
                self._take_text(text, items)
        if self._opening is not None and self._opening.is_over:
            self._opening = None

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

    def _take_references(self, delta: Delta, items: list[Item]) -> None:
        before = dict(self._references)
        reference = delta.reference
        chunks = reference.get("chunks") if isinstance(reference, dict) else reference
        if isinstance(chunks, dict):
            self._keep_references(keyed(chunks), CHUNK)
        elif isinstance(chunks, list):
            self._keep_placed([mapping(chunk) for chunk in chunks], CHUNK)
        if isinstance(delta.references, list):
            self._take_ours(delta.references)
        if isinstance(delta.annotations, list):
            self._take_annotations(delta.annotations)
        if self._references != before:
            self._give_references(items)

    def _take_annotations(self, annotations: list[Any]) -> None:
        """OpenAI's form of what is cited, as far as it is not known by another."""
        sources: dict[str, dict[str, Any]] = {}
        for annotation in annotations:
            source = mapping(mapping(annotation).get("url_citation"))
            url = http_url(source.get("url"))
            if url is not None:
                sources.setdefault(url, source)
        for known in self._references.values():
            sources.pop(known.url or "", None)
        self._keep_references(sources, URL_CITATION)

    def _take_ours(self, references: list[Any]) -> None:
        """The references of another Holdfast, which have their ordinals."""
        sources: dict[str, dict[str, Any]] = {}
        for source in map(mapping, references):
            ordinal = source.get("ordinal")
            if type(ordinal) is int and 0 < ordinal <= MAX_NUMBER:
                key = str(ordinal - 1 + self._citations.first_place)
                self._citations.claim(key, ordinal)
                extra = mapping(source.get("extra"))
                sources[key] = {name: extra[name] for name in extra if name not in OURS}
                sources[key] |= {name: source[name] for name in OURS if name in source}
        self._keep_references(sources, OURS)

    def _take_search(self, frame: Frame, items: list[Item]) -> None:
        """What Perplexity and others tell beside the choices: the pages that `[1]`, ... mean."""
        told = (frame.citations, frame.search_results)
        if told == self._searched:
            return  # they are repeated in every chunk
        self._searched = told
        urls, results = ([*one] if isinstance(one, list) else [] for one in told)
        pages = [mapping(result) for result in results]
        by_url = {page["url"]: page for page in pages if isinstance(page.get("url"), str)}
        sources = [by_url.get(url, {"url": url}) for url in urls if isinstance(url, str)]
        before = dict(self._references)
        self._keep_placed(sources or pages, SEARCH_RESULT)
        if self._references != before:
            self._give_references(items)

    def _keep_placed(self, sources: Sequence[dict[str, Any]], fields: Fields) -> None:
        first = self._citations.first_place
        self._keep_references({str(n): one for n, one in enumerate(sources, first)}, fields)

    def _take_final_content(self, text: Any, items: list[Item]) -> None:
        """RAGFlow repeats the answer at its end, sometimes with the citations only there."""
        if not isinstance(text, str) or self._told_error is not None:
            return
        text = _without_thoughts(text)
        # Its versions 0.25.0 to 0.25.6 send the whole answer as one more piece before.
        was_repeated = bool(text) and self._length > 1.5 * len(text)
        if len(text) > self._length or was_repeated:
            self._take_rewrite(text, items)


def _without_thoughts(text: str) -> str:
    """The text without what stands in tags of thoughts; one that is not closed is none."""
    kept: list[str] = []
    at = 0
    while (start := text.find(OPEN_TAG, at)) >= 0 and (end := text.find(CLOSE_TAG, start)) >= 0:
        kept.append(text[at:start])
        at = end + len(CLOSE_TAG)
    return "".join([*kept, text[at:]])


def _texts(parts: list[Any]) -> Iterator[str]:
    for part in parts:
        match part:
            case str(text) | {"text": str(text)}:
                yield text
            case _:
                pass


def _is_one_of(value: Any, values: frozenset[Any]) -> bool:
    return isinstance(value, str | int | None) and value in values


def _status(error: Any) -> int | None:
    """The HTTP status that an error told in a stream names."""
    inner = error.get("error") if isinstance(error, dict) else None
    for one in (mapping(error), mapping(inner)):
        for name in ("status", "code", "status_code"):
            status = one.get(name)
            if isinstance(status, str) and status.isdecimal():
                status = int(status[:4])
            if isinstance(status, int) and 400 <= status < 600:
                return status
    return None
