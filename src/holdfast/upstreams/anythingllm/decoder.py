"""The answers of AnythingLLM's developer API: bytes in, items out.

Written to what servers of version 1.16 send for `stream-chat` of a workspace or a thread, and to
older ones where they differ (Mintplex-Labs/anything-llm, `server/utils/chats/apiChatHandler.js`
and `server/utils/agents/ephemeral.js`). What has to be known about it:

- `textResponseChunk` adds to the answer, `textResponse` and a `textResponse` in the closing
  `finalizeResponseStream` say all of it once more. `close: true` on any of them is no end: the
  sources come after it.
- An `abort` is followed by a closing frame that knows of no error, as what was written before was
  saved; some providers tell their error on a chunk. The first error counts, and text stays.
- Sources come on the closing frame, or on chunks (up to 1.8.5), again and again.
- An agent's failure is told as its answer, right after a thought that says so.
- An answer that breaks off, or goes silent, may be in the history: `newest_turn`, `take_saved`.
- There are no citation marks: a "[1]" is the model's own, and counts nothing that is known here.
"""

from itertools import pairwise
from typing import Any, Final

import msgspec

from holdfast.engine.run import UpstreamEnd
from holdfast.events import Reason, ReasoningDelta, Step, TextDelta, TextReplace
from holdfast.settings import LimitSettings
from holdfast.upstreams.anythingllm.sources import FIELDS, Sources
from holdfast.upstreams.base import Item
from holdfast.upstreams.decoding.citations import CitationTranslator, Style
from holdfast.upstreams.decoding.decoder import Decoder, mapping, read_usage
from holdfast.upstreams.decoding.lenient import decode_any, repair
from holdfast.upstreams.decoding.references import bounded_extra, shorten
from holdfast.upstreams.decoding.refusal import clean, error_text
from holdfast.upstreams.decoding.thinking import ThinkSplitter
from holdfast.upstreams.wire.sse import SseEvent

AGENT_FAILS: Final = "Error encountered while running: "
"""How an agent's last thought begins when it failed; its answer is then the rest of it."""
AGENT_FAILED: Final = "The agent model failed to respond: "
"""How the answer of an agent begins whose model failed."""
NOTHING_THERE: Final = "Cannot read properties of null (reading 'id')"
"""What it says when a thread's workspace does not exist, or an answer could not be saved."""


NO_SOURCES: Final = msgspec.Raw(b"[]")


class _Frame(msgspec.Struct, gc=False, rename="camel"):
    type: Any = None
    text_response: Any = None
    sources: msgspec.Raw = NO_SOURCES
    """Only read where they change: some servers repeat them on every chunk."""
    close: Any = None
    error: Any = None
    thought: Any = None
    content: Any = None
    file_download: Any = None
    metrics: Any = None
    outputs: Any = None
    chat_id: Any = None
    animate: Any = None
    id: Any = None
    uuid: Any = None


class SavedTurn(msgspec.Struct, frozen=True, rename="camel"):
    """One item of a workspace's or thread's `history`: a question or an answer."""

    role: Any = None
    content: Any = None
    sources: msgspec.Raw = NO_SOURCES
    metrics: Any = None
    chat_id: Any = None


class _History(msgspec.Struct):
    history: list[SavedTurn]


_decode: Final = msgspec.json.Decoder(_Frame).decode
_decode_history: Final = msgspec.json.Decoder(_History).decode


class AnythingLLMDecoder(Decoder):
    """See the module and `Decoder`.

    Attributes:
        is_agent: The turn is an agent's, which the server brings to its end without a reader.
        is_written: The model has said all; at most what belongs to it is missing.
    """

    def __init__(self, limits: LimitSettings | None = None) -> None:
        """Begin before the first byte."""
        super().__init__(limits, CitationTranslator(Style.NONE))
        self.is_agent = False
        self.is_written = False
        self._is_speaking = False  # what came last is answer
        self._is_told = False  # the whole answer came in one frame, which may be the last one
        self._splitter = ThinkSplitter()
        self._said: list[str] = []
        self._thought: list[str] = []
        self._sources = Sources(self._limits.references, self._limits.reference_bytes)
        self._last_sources = bytes(NO_SOURCES)
        self._metrics: dict[str, Any] | None = None
        self._about: dict[str, Any] = {}
        self._error: str | None = None
        self._agent_error: str | None = None

    # ------------------------------------------------------------------ the end

    @property
    def closing(self) -> dict[str, Any] | None:
        """See `Decoder.closing`."""
        return bounded_extra({**self._about, "error": self._error, "metrics": self._metrics})

    @property
    def has_failed(self) -> bool:
        """Whether an error came."""
        return self._error is not None

    @property
    def is_broken_off(self) -> bool:
        """Whether an answer has begun and, if nothing follows, has no end."""
        is_over = self._is_told or self.has_failed or self.finished or self.ended
        return bool(self._said) and not is_over

    @property
    def is_speaking(self) -> bool:
        """Whether what comes next should not take long; thoughts and tools may."""
        return self._is_speaking and (self._is_told or not self.is_agent)

    def finish(self, cause: UpstreamEnd | None = None) -> list[Item]:
        """See `Decoder.finish`."""
        self.finished = self.finished or self._is_told
        return super().finish(cause)

    def _closing_items(self) -> list[Item]:
        return [read_usage(self._metrics)] if self._metrics else []

    def _ending(self, cause: UpstreamEnd) -> UpstreamEnd:
        if self._error is not None:
            return UpstreamEnd(Reason.UPSTREAM_ERROR, error=self._error)
        if not self._said and self._about.get("chatId") is None:
            error = "AnythingLLM ended the answer without a text, and saved nothing of it"
            return UpstreamEnd(Reason.UPSTREAM_EMPTY, error=error)
        return cause

    def _flush(self, items: list[Item]) -> None:
        self._take_pieces(self._splitter.flush(), items)
        super()._flush(items)

    def _note_error(self, error: str) -> None:
        if self._error is None:
            if error == NOTHING_THERE:
                cause = "is the answer not saved" if self._said else "does the workspace not exist"
                error = f"{error}: {cause}?"
            self._error = clean(error)
        self.finished = True  # at most a closing frame follows

    # ------------------------------------------------------------------ frames

    def _take_event(self, event: SseEvent, items: list[Item]) -> None:
        try:
            frame = _decode(event.data)
        except (ValueError, RecursionError):
            self._take_odd(event.data, items)
        else:
            self._take(frame, items)

    def _take_odd(self, data: bytes, items: list[Item]) -> None:
        """What the strict reader refused: text cut inside a character, or something broken."""
        text = data.strip()
        if text in (b"", b"[DONE]"):
            return  # a keep-alive, or the end mark of a gateway; ours is another
        try:
            frame = _decode(repair(data) or b"")
        except (ValueError, RecursionError):
            start = clean(data[:80].decode("utf-8", "replace"))
            error = f"the upstream sent something that is not a frame of AnythingLLM: {start}"
            self._fail(error, items)
        else:
            self._take(frame, items)

    def _take_whole(self, body: bytes, items: list[Item]) -> None:
        """The answer of `/chat`, or an error in the form of a frame."""
        data = repair(body) or b""
        try:
            frame = _decode(data)
        except (ValueError, RecursionError):
            frame = _Frame()
        if frame.error or frame.type in ("textResponse", "abort"):
            self._take(frame, items)
            self.finished = True
        else:
            error = error_text(decode_any(data)) or "an answer that is not AnythingLLM's"
            self._fail(error, items)

    def _take(self, frame: _Frame, items: list[Item]) -> None:
        kind = frame.type
        if frame.error:
            self._note_error(error_text(frame.error) or "an error without a message")
        text = frame.text_response
        if text.__class__ is not str:
            text = ""
        if kind == "textResponseChunk":
            self._take_chunk(text, frame, items)
        else:
            self._take_other(kind, text, frame, items)
        if bytes(frame.sources) != self._last_sources:
            self._take_sources(bytes(frame.sources), items)
        if frame.metrics:
            self._take_metrics(frame.metrics)
        if kind == "finalizeResponseStream":
            self.finished = True
            self._end(UpstreamEnd(), items)

    def _take_chunk(self, text: str, frame: _Frame, items: list[Item]) -> None:
        if text:
            self._take_pieces(self._splitter.feed(text), items)
        self.is_written = self.is_written or frame.close is True
        if frame.uuid is None and frame.id is not None:
            self.is_agent = True  # only an agent's chunks have an `id`

    def _take_other(self, kind: Any, text: str, frame: _Frame, items: list[Item]) -> None:
        """What a frame says that is no chunk of text; kinds that are not known say nothing."""
        match kind:
            case "textResponse":
                self._take_answer(text, items)
                self.is_written = self._is_told = self._is_speaking = True
                # A closing frame follows an agent's answer in its own time, others at once.
                self.is_agent = self.is_agent or frame.animate is not None
                self.finished = self.finished or (frame.close is True and not self.is_agent)
            case "finalizeResponseStream":
                self._take_answer(text, items)
            case "abort":
                self._note_error("the upstream broke the answer off without saying why")
            case "agentThought" | "statusResponse":
                self._take_step("agent", frame.thought or text or frame.content, items)
            case "fileDownload":
                self._take_step("file", mapping(frame.file_download).get("filename"), items)
            case _:
                return
        about = {"id": frame.uuid or frame.id, "chatId": frame.chat_id, "outputs": frame.outputs}
        self._about |= {name: value for name, value in about.items() if value is not None}

    def _take_step(self, label: str, detail: Any, items: list[Item]) -> None:
        self.is_agent = True
        self._is_speaking = False
        if detail and isinstance(detail, str):
            if detail.startswith(AGENT_FAILS):
                self._agent_error = detail.removeprefix(AGENT_FAILS).strip()
            self._show([Step(label, shorten(detail, self._limits.reference_bytes))], items)

    def _take_metrics(self, metrics: Any) -> None:
        """Note the last metrics that say something; an agent's are often nothing but zeros."""
        if isinstance(metrics, dict) and any(metrics.values()):
            self._metrics = metrics

    def _take_sources(self, data: bytes, items: list[Item]) -> None:
        self._last_sources = data
        sources = decode_any(data)
        changed = self._sources.merge(sources if isinstance(sources, list) else [])
        if changed:
            self._keep_references(changed, FIELDS)
            self._give_references(items)

    # ------------------------------------------------------------------ text

    def _take_pieces(self, pieces: list[tuple[bool, str]], items: list[Item]) -> None:
        for is_thought, text in pieces:
            if is_thought:
                self._is_speaking = False  # nothing of it is saved before it ends
                self._thought.append(text)
                items.append(ReasoningDelta(text))
            else:
                self._say(text, items)

    def _say(self, text: str, items: list[Item]) -> None:
        if text:
            self._is_speaking = True
            self._said.append(text)
            items.append(TextDelta(text))

    def _take_answer(self, text: str, items: list[Item]) -> None:
        """The whole answer once more: the same, or more than came, or other words."""
        if not text:
            return
        self._take_pieces(self._splitter.flush(), items)
        thought, said = _split(text)
        before = "".join(self._said)
        if said.strip() == self._agent_error or (
            said.startswith(AGENT_FAILED) and not before.startswith(AGENT_FAILED)
        ):
            self._note_error(said)
        elif not (before and self.has_failed):  # what was written before an error stays
            self._extend_thought(thought, items)
            if said.startswith(before):
                self._say(said[len(before) :], items)
            elif said.strip() not in ("", before.strip()):
                self._said = [said]
                items.append(TextReplace(said))

    def _extend_thought(self, thought: str, items: list[Item]) -> None:
        before = "".join(self._thought)
        if thought.startswith(before) and thought != before:
            self._thought = [thought]
            items.append(ReasoningDelta(thought[len(before) :]))

    # ------------------------------------------------------------------ the history

    def is_begun_of(self, saved: SavedTurn) -> bool:
        """Whether what was given, after `release`, is the beginning of this saved answer."""
        return self._rest_of(saved) is not None

    def _rest_of(self, saved: SavedTurn) -> str | None:
        """What a saved answer has beyond what came; None if it is another answer."""
        if not isinstance(saved.content, str):
            return None
        before, said = "".join(self._said), _split(saved.content)[1]
        if said.startswith(before):
            return said[len(before) :]
        return "" if said.strip() == before.strip() else None

    def take_saved(self, saved: SavedTurn, *, is_whole: bool) -> list[Item]:
        """Take what the history has of this answer and the stream did not bring.

        Args:
            saved: The answer; `is_begun_of` was true of it.
            is_whole: Whether it may pass for all of it; the answer then ends here.
        """
        items: list[Item] = []
        if self.ended:
            return items
        self._say(self._rest_of(saved) or "", items)
        self._take_sources(bytes(saved.sources), items)
        self._take_metrics(saved.metrics)
        if isinstance(saved.chat_id, int):
            self._about["chatId"] = saved.chat_id
        if is_whole:
            self.finished = True
            self._end(UpstreamEnd(), items)
        return items


def newest_turn(body: bytes, question: str) -> SavedTurn | None:
    """The last answer of a history, if it is one to this question.

    Args:
        body: The JSON of `/chats`: for each turn the question and then the answer, in any order
            of turns. Older servers number only the answers.
        question: What was asked.
    """
    try:
        history = _decode_history(body).history
    except (ValueError, RecursionError):
        return None
    turns = [
        (answer.chat_id if isinstance(answer.chat_id, int) else 0, place, asked, answer)
        for place, (asked, answer) in enumerate(pairwise(history))
        if answer.role == "assistant" and asked.role == "user"
    ]
    if not turns:
        return None
    *_, asked, answer = max(turns, key=lambda turn: turn[:2])
    is_ours = isinstance(asked.content, str) and asked.content.strip() == question.strip()
    return answer if is_ours else None


def _split(text: str) -> tuple[str, str]:
    """The thoughts and the answer in a whole text."""
    splitter = ThinkSplitter()
    pieces = [*splitter.feed(text), *splitter.flush()]
    thought = "".join(piece for is_thought, piece in pieces if is_thought)
    return thought, "".join(piece for is_thought, piece in pieces if not is_thought)
