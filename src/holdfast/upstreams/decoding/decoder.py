"""What a decoder is: the bytes of one answer in, items out.

A decoder does no I/O, asks no clock, and never raises on what a server sends. The base class owns
the order of things; a subclass knows what one service's frames mean:

- every character that arrived comes out, also when the stream breaks off: text that is held back
  for a citation mark is given before the end, whatever the end is;
- the `UpstreamEnd` is given once, last;
- an answer that was not told to be whole is truncated;
- a failure that a server tells as text (`**ERROR**: ...`) becomes the run's error.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final

import msgspec

from holdfast.engine.run import UpstreamEnd
from holdfast.events import (
    Notice,
    Reason,
    Reference,
    References,
    Step,
    TextDelta,
    TextReplace,
    Usage,
    joined,
)
from holdfast.settings import LimitSettings
from holdfast.upstreams.base import Item
from holdfast.upstreams.decoding.citations import CitationTranslator
from holdfast.upstreams.decoding.lenient import decode_any
from holdfast.upstreams.decoding.references import NAME_CHARS, Fields, bounded_extra, read_reference
from holdfast.upstreams.decoding.refusal import clean, error_text, without
from holdfast.upstreams.wire.sse import SseEvent, SseParser

TOLD_ERROR: Final = re.compile(r"(?:\A\s*|\n)\*\*ERROR\*\*: |\*\*ERROR\*\*: (?=[A-Z_]{3,} - )")
"""RAGFlow tells failures as text: at the start of a piece or line, or with a code in capitals."""
TOLD_ERROR_CHARS: Final = 1_000

_WORDS: Final = ("label", "detail", "message")
"""Where a step or notice has its words."""

MERGED_AFTER: Final = 400
"""An answer of fewer items keeps the grain in which it was written."""
MERGED_FROM: Final = 8
"""From so many items of one read on, their texts are merged."""
MERGED_CHARS: Final = 4_000


class Decoder(ABC):
    """Bytes of one answer in, items out.

    Attributes:
        ended: The `UpstreamEnd` was given; nothing follows.
        finished: A terminal marker came; at most something about the answer is still missing.
        secrets: What an error, a step or a notice must not tell, though the upstream may do so.
        refused: The status and the body that came instead of an answer.
    """

    secrets: Sequence[str] = ()
    refused: tuple[int, bytes] | None = None

    def __init__(self, limits: LimitSettings | None, citations: CitationTranslator) -> None:
        """Begin before the first byte.

        Args:
            limits: Bounds on events and references.
            citations: Translates the upstream's citation marks.
        """
        self.ended = False
        self.finished = False
        self._limits = limits or LimitSettings()
        self._citations = citations
        self._sse = SseParser(self._limits.event_bytes)
        self._references: dict[str, Reference] = {}  # in the order of their ordinals
        self._length = 0  # of the text as the upstream wrote it
        self._told_error: str | None = None
        self._given = 0
        self._merged_chars = min(MERGED_CHARS, self._limits.event_bytes // 4)

    # ------------------------------------------------------------------ what a service means

    @abstractmethod
    def _take_event(self, event: SseEvent, items: list[Item]) -> None:
        """Take one event of the stream and add to `items` what it says."""

    def _take_events(self, events: Sequence[SseEvent], items: list[Item]) -> None:
        """Take the events of one read, as far as the answer goes."""
        for event in events:
            self._take_event(event, items)
            if self.ended:
                return

    def _take_whole(self, body: bytes, items: list[Item]) -> None:
        """Take an answer that came in one piece of JSON instead of a stream."""
        self._fail(error_text(decode_any(body)) or "JSON came instead of a stream", items)

    def _closing_items(self) -> list[Item]:
        """What is to be said right before the end, such as the usage."""
        return []

    def _ending(self, cause: UpstreamEnd) -> UpstreamEnd:
        """How an answer without errors ends if `cause` ends it now."""
        return cause

    @property
    def closing(self) -> dict[str, Any] | None:
        """What the upstream said about the answer besides the answer, for people who debug."""
        return None

    # ------------------------------------------------------------------ the order of things

    def feed_read(self, data: bytes) -> list[Item]:
        """As `feed`, for the bytes of one read of a long answer: many small texts are merged."""
        items = self.feed(data)
        fewer = merge_texts(items, self._merged_chars) if self._merges else items
        self._given += len(items)
        return fewer

    def feed(self, data: bytes) -> list[Item]:
        """Take the next bytes of an event stream; give the items that they complete."""
        items: list[Item] = []
        if self.ended:
            return items
        self._take_events(self._sse.feed(data), items)
        if self._sse.overflowed and not self.ended:
            limit = self._limits.event_bytes
            error = f"the upstream sent an event of more than limits.event_bytes ({limit})"
            items += self.finish(UpstreamEnd(Reason.LIMIT, error=error))
        return items

    def feed_whole(self, body: bytes) -> list[Item]:
        """Take an answer that came in one piece of JSON, and end."""
        items: list[Item] = []
        if not self.ended:
            self._take_whole(body, items)
        return items if self.ended else items + self.finish()

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

    def ending(self, cause: UpstreamEnd) -> UpstreamEnd:
        """How the answer ends if `cause` ends it now; its error is free of secrets."""
        end = self._decided(cause)
        if not end.error:
            return end
        return msgspec.structs.replace(end, error=without(self.secrets, end.error))

    def _decided(self, cause: UpstreamEnd) -> UpstreamEnd:
        if self._told_error is not None:
            error = clean(self._told_error) or "an error without a message"
            return UpstreamEnd(Reason.UPSTREAM_ERROR, error=error)
        if cause.reason is not None:
            return cause
        return self._ending(cause)

    # ------------------------------------------------------------------ for subclasses

    @property
    def _merges(self) -> bool:
        """Whether the answer is so long that its grain is not kept."""
        return self._given >= MERGED_AFTER

    def _take_text(self, text: str, items: list[Item]) -> None:
        """More of the answer, as the upstream wrote it."""
        if self._told_error is not None:
            self._told_error = (self._told_error + text)[:TOLD_ERROR_CHARS]
            return
        if "**ERROR**: " in text:
            text = self._without_told_error(text)
        self._give_text(text, items)

    def _take_texts(self, texts: Sequence[str], items: list[Item]) -> None:
        """Several texts that follow each other, in a grain of our own."""
        whole = "".join(texts)
        if self._told_error is not None or "**ERROR**" in whole:
            for text in texts:  # whether it is told as an error depends on the grain
                self._take_text(text, items)
            return
        size = self._merged_chars
        for start in range(0, len(whole), size):
            self._give_text(whole[start : start + size], items)

    def _give_text(self, text: str, items: list[Item]) -> None:
        """Give text of the answer, as the upstream wrote it, as far as its marks are certain."""
        self._length += len(text)
        text, marks = self._citations.feed(text)
        if text:
            items.append(TextDelta(text, marks))

    def _take_rewrite(self, text: str, items: list[Item]) -> None:
        """The whole answer once more, in other words than before."""
        if self._told_error is not None:
            return
        text = self._without_told_error(text)
        self._length = len(text)
        items.append(TextReplace(*self._citations.rewrite(text)))

    def _without_told_error(self, text: str) -> str:
        told = TOLD_ERROR.search(text)
        if told is None:
            return text
        self._told_error = text[told.end() :][:TOLD_ERROR_CHARS]
        return text[: told.start()]

    def _keep_references(self, sources: Mapping[str, dict[str, Any]], fields: Fields) -> None:
        """Note sources by their keys (see `CitationTranslator.number`); the later one counts.

        Only those are kept that are given, which are the first by their ordinals.
        """
        if not sources:
            return
        ordinals = {key: known.ordinal for key, known in self._references.items()}
        ordinals.update(zip(sources, self._citations.number([*sources]), strict=True))
        first = sorted(ordinals.items(), key=itemgetter(1))[: self._limits.references]
        size = self._limits.reference_bytes
        self._references = {
            key: read_reference(sources[key], fields, ordinal=ordinal, text_bytes=size)
            if key in sources
            else self._references[key]
            for key, ordinal in first
        }

    def _give_references(self, items: list[Item]) -> None:
        """The set of references so far, in the order of their ordinals."""
        items.append(References(tuple(self._references.values())))

    def _show(self, shown: Iterable[Step | Notice], items: list[Item]) -> None:
        """Give what is no part of the answer; every step and notice goes this way.

        Unlike the answer, which stays as the model wrote it, they are freed of secrets: agents
        tell the errors of their tools in them.
        """
        for one in shown:
            words = {name: value for name in _WORDS if (value := getattr(one, name, None))}
            cleaned = {name: without(self.secrets, value) for name, value in words.items()}
            items.append(one if cleaned == words else msgspec.structs.replace(one, **cleaned))

    def _flush(self, items: list[Item]) -> None:
        held = self._citations.flush()
        if held:
            items.append(TextDelta(held))

    def _fail(self, text: str, items: list[Item]) -> None:
        """End with an error of the upstream's own."""
        self._end(UpstreamEnd(Reason.UPSTREAM_ERROR, error=text), items)

    def _end(self, end: UpstreamEnd, items: list[Item]) -> None:
        self._flush(items)
        items += self._closing_items()
        items.append(self.ending(end))
        self.ended = True


def merge_texts(items: list[Item], size: int) -> list[Item]:
    """The items of one read with neighbouring texts merged, if they are many.

    Fewer events are cheaper to keep, to send and to read, and say the same.

    Args:
        items: What one read gave.
        size: How many characters a merged text has at most; a longer one stays as it is.
    """
    if len(items) < MERGED_FROM:
        return items
    fewer: list[Item] = []
    texts: list[TextDelta] = []
    length = 0
    for item in items:
        more = len(item.text) if type(item) is TextDelta else size
        if texts and length + more > size:
            fewer.append(TextDelta(*joined(texts)))
            texts, length = [], 0
        if type(item) is TextDelta:
            texts.append(item)
            length += more
        else:
            fewer.append(item)
    return [*fewer, TextDelta(*joined(texts))] if texts else fewer


def read_usage(usage: Mapping[str, Any]) -> Usage:
    """The tokens used, by OpenAI's names or the newer ones; what else there is becomes `extra`."""
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


def mapping(value: object) -> dict[str, Any]:
    """The value if it is an object; else an empty one."""
    return value if isinstance(value, dict) else {}


def keyed(chunks: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """RAGFlow's chunks by their keys, which they name as well."""
    named = ((key[:NAME_CHARS], chunk) for key, chunk in chunks.items())
    return {key: {**mapping(chunk), "key": key} for key, chunk in named}
