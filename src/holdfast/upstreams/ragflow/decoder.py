"""The answers of RAGFlow's chat assistants and agents, of all its versions: bytes in, items out.

A frame is `{"code", "message", "data"}` (before 0.13 `retcode`, `retmsg`), and its `data` is

    {"answer": ...}   text, see below
    true              the terminal marker of chats; that of agents since 0.20 is `[DONE]`
    false             a refusal

or, of agents since 0.20, it is an event of its own (`ragflow_events`). What `answer` means changed
with the versions; one rule, the server's own, is right for all of them:

    no `final`        the whole answer so far: up to 0.23
    `final: false`    the next piece of it: since 0.24
    `final: true`     the whole answer once more (0.25, 0.26.0 and the Go server, with citations
                      that were not in the pieces), or "", which adds nothing

Reasoning comes between `start_to_think` and `end_to_think`, or in the text as
`<think>...</think>`, which whole answers close each time.

A failure comes as a frame with another code, after which the stream goes on to its terminal
marker, or as text (`told_errors`). It takes nothing back.

Source: infiniflow/ragflow, v0.13.0 to v0.27.0: `conversation_service.py`, `dialog_service.py`,
`canvas_service.py`, `chat_api.py`, `agent_api.py`, `internal/service/chat_session.go`.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, assert_never

from holdfast.engine.run import UpstreamEnd
from holdfast.events import ReasoningDelta, Step, TextReplace
from holdfast.settings import LimitSettings
from holdfast.upstreams.base import Item
from holdfast.upstreams.decoding.citations import CitationTranslator, Style
from holdfast.upstreams.decoding.decoder import Decoder, keyed, mapping, read_usage
from holdfast.upstreams.decoding.lenient import decode_any
from holdfast.upstreams.decoding.references import CHUNK, bounded_extra
from holdfast.upstreams.decoding.refusal import clean
from holdfast.upstreams.decoding.told_errors import MARK
from holdfast.upstreams.ragflow.agent_events import Workflow
from holdfast.upstreams.ragflow.text import Change, Kind, RunningText
from holdfast.upstreams.wire.sse import SseEvent, SseParser

SESSION_CHARS: Final = 500
LEGACY_CHARS: Final = 8
"""From this length on, a second piece that begins with all of the first is a whole answer."""

_NO_MESSAGES: Final = ("multiple values for ", "argument 'messages'")
"""What a server says that breaks down over messages."""
_ABOUT: Final = (
    *("id", "message_id", "session_id", "chat_id", "task_id", "created_at"),
    *("prompt", "status", "attachment", "downloads"),
)
"""What is kept of frames for people who debug."""


class RagflowDecoder(Decoder):
    """See the module and `Decoder`.

    Attributes:
        session: The server's name for the conversation, once it told it.
        awaits_session: The question went out without a session. Up to 0.25.0 (agents: 0.19.1)
            the server then only makes one, and greets; see `begin_anew`.
        offers_messages: The question went out as messages, too. Up to 0.25.0 the server breaks
            down over them; see `begin_anew`.
    """

    def __init__(
        self,
        limits: LimitSettings | None = None,
        citations: CitationTranslator | None = None,
        *,
        agent: bool = False,
    ) -> None:
        """Begin before the first byte.

        Args:
            limits: Bounds on events and references.
            citations: Translates citation marks; by default the form of the frames decides what
                their numbers mean.
            agent: Whether it is an agent that was asked.
        """
        super().__init__(limits, citations or CitationTranslator())
        self.session: str | None = None
        self.awaits_session = False
        self.offers_messages = False
        self._agent = agent
        self._style_is_open = citations is None
        self._is_no_answer = False  # what this stream brings
        self._text = RunningText()
        self._thinking = False  # between marks
        self._last_piece = ""
        self._legacy: bool | None = None  # pieces are whole answers; None: not known yet
        self._refused = False  # by a frame, not as text
        self._workflow = Workflow()
        self._usage: dict[str, Any] = {}
        self._about: dict[str, Any] = {}

    def begin_anew(self) -> bool:
        """Whether what came was no answer to the question; then ask again, and feed what comes.

        `session` then names the one that was made, or `offers_messages` is off, as they were
        refused.
        """
        if not self._is_no_answer or self.ended:
            return False
        self._is_no_answer = self.awaits_session = False
        self._sse = SseParser(self._limits.event_bytes)
        return True

    @property
    def closing(self) -> dict[str, Any] | None:
        """See `Decoder.closing`."""
        return bounded_extra(self._about)

    def _closing_items(self) -> list[Item]:
        return [read_usage(self._usage)] if self._usage else []

    # ------------------------------------------------------------------ frames

    def _take_event(self, event: SseEvent, items: list[Item]) -> None:
        data = event.data.strip()
        if data == b"[DONE]":
            self._take_done(items)
        elif data:
            frame = decode_any(data)
            if isinstance(frame, dict) and frame:
                self._take_frame(frame, items)
            else:
                start = clean(data[:80].decode("utf-8", "replace"))
                self._tell(f"the upstream sent something that is not a frame: {start}")

    def _take_whole(self, body: bytes, items: list[Item]) -> None:
        frame = mapping(decode_any(body))
        data = frame.get("data")
        if not isinstance(data, dict):
            self._fail(refusal(frame) or "the upstream sent JSON that is not an answer", items)
            return
        self._take_frame(frame, items)
        if "answer" not in data:
            for name in ("message", "message_end", "workflow_finished"):
                self._take_agent_event(name, mapping(data.get("data")), items)
        self._take_done(items)

    def _take_frame(self, frame: dict[str, Any], items: list[Item]) -> None:
        data = frame.get("data")
        self._note(frame)
        self._note(mapping(data))
        refused = refusal(frame)
        if refused is not None:
            self._take_refusal(refused)
        elif "event" in frame:
            self._take_agent_event(str(frame["event"]), mapping(data), items)
        elif data is True:
            self._take_done(items)
        elif isinstance(data, dict) and "answer" in data:
            self._take_answer(data, items)

    def _note(self, fields: Mapping[str, Any]) -> None:
        """Keep what is said about the answer."""
        session = fields.get("session_id")
        if isinstance(session, str) and 0 < len(session) <= SESSION_CHARS:
            self.session = session
        self._about.update((name, fields[name]) for name in _ABOUT if fields.get(name) is not None)

    def _take_refusal(self, words: str) -> None:
        if self.offers_messages and all(part in words for part in _NO_MESSAGES):
            self.offers_messages = False
            self._is_no_answer = True
        else:
            self._tell(words)

    def _tell(self, error: str) -> None:
        """Note a failure; the first one counts."""
        if self._told_error is None:
            self._told_error = error
            self._refused = self._text.frozen = True

    def _take_done(self, items: list[Item]) -> None:
        if self._is_no_answer:
            return
        if self._workflow.error is not None:
            self._tell(self._workflow.error)
        self._flush(items)
        if self._workflow.question and self._text.is_empty:
            self._apply(self._text.take_piece(self._workflow.question, thought=False), items)
        self.finished = True
        self._end(UpstreamEnd(), items)

    # ------------------------------------------------------------------ answers

    def _take_answer(self, data: dict[str, Any], items: list[Item]) -> None:
        answer = data["answer"] if isinstance(data["answer"], str) else ""
        if data.get("running_status") is True:
            self._show(_steps(answer), items)
        elif self.awaits_session and self.session and (self._agent or data.get("id") is None):
            self._is_no_answer = True  # but a greeting
        else:
            self._style_is_open = False
            self._take_references(data.get("reference"), items)
            self._merge(answer, data, items)

    def _merge(self, answer: str, frame: Mapping[str, Any], items: list[Item]) -> None:
        """Take the text of an answer's frame as what the frame says that it is."""
        is_piece = self._take_marks(frame) or not frame.get("final", True)
        if is_piece and not self._is_legacy(answer):
            self._take_piece(answer, items)
            return
        self._thinking = False
        if answer:
            self._apply(self._text.take_whole(answer), items)

    def _take_marks(self, frame: Mapping[str, Any]) -> bool:
        """Take a mark where reasoning starts or ends; whether there was one."""
        if frame.get("start_to_think") or frame.get("end_to_think"):
            self._thinking = not frame.get("end_to_think")
            return True
        return False

    def _take_piece(self, piece: str, items: list[Item]) -> None:
        if piece:
            self._apply(self._text.take_piece(piece, thought=self._thinking), items)

    def _is_legacy(self, piece: str) -> bool:
        """Whether the pieces are whole answers, as a server sends that was asked for `legacy`."""
        before = self._last_piece
        if not piece or not before:
            self._last_piece = piece or before
            return bool(self._legacy)
        self._last_piece = piece
        if self._legacy is None:
            self._legacy = len(piece) > len(before) >= LEGACY_CHARS
        self._legacy = self._legacy and piece.startswith(before)
        return self._legacy

    def _apply(self, changes: Iterable[Change], items: list[Item]) -> None:
        for kind, text in changes:
            match kind:
                case Kind.TEXT:
                    self._give_text(text, items)
                case Kind.THOUGHT:
                    items.append(ReasoningDelta(text))
                case Kind.PROGRESS:
                    self._show(_steps(text, "retrieving"), items)
                case Kind.REWRITE:
                    items.append(TextReplace(*self._citations.rewrite(text)))
                case _:
                    assert_never(kind)
        if self._text.error is not None and not self._refused:
            self._told_error = self._text.error

    def _take_references(self, reference: Any, items: list[Item]) -> None:
        before = dict(self._references)
        chunks = reference.get("chunks") if isinstance(reference, dict) else reference
        if isinstance(chunks, dict):
            self._keep_references(keyed(chunks), CHUNK)
        elif isinstance(chunks, list) and chunks:
            self._references.clear()
            placed = {str(place): mapping(chunk) for place, chunk in enumerate(chunks)}
            self._keep_references(placed, CHUNK)
        if self._references != before:
            self._give_references(items)

    def _flush(self, items: list[Item]) -> None:
        self._apply(self._text.flush(), items)
        super()._flush(items)

    # ------------------------------------------------------------------ agents

    def _take_agent_event(self, event: str, data: dict[str, Any], items: list[Item]) -> None:
        if self._style_is_open:
            self._style_is_open = False
            self._citations = CitationTranslator(Style.KEY)
        self._show(self._workflow.take(event, data), items)
        match event:
            case "message":
                content = data.get("content")
                self._citations.reopen()  # each message has references of its own, at its end
                self._take_marks(data)
                self._take_piece(content if isinstance(content, str) else "", items)
            case "message_end":
                self._note(data)
                self._take_references(data.get("reference"), items)
            case "workflow_finished":
                self._usage = mapping(data.get("usage"))


def refusal(frame: Mapping[str, Any]) -> str | None:
    """The words by which a frame, or an answer in one piece, refuses; None if it does not."""
    data = frame.get("data")
    code = frame.get("code", frame.get("retcode"))
    words = frame.get("message") or frame.get("retmsg")
    if isinstance(data, str) and data.startswith(MARK):
        words = data  # an agent that does not stream
    elif code in (None, 0) and not (data is False and words):
        return None
    if not isinstance(words, str):
        words = str(mapping(data).get("answer") or "")
    return clean(words.removeprefix(MARK)) or clean(f"error {code}")


def _steps(text: str, label: str | None = None) -> list[Step]:
    text = clean(text.replace("<br/>", " "))
    if not text:
        return []
    return [Step(label, text) if label else Step(text)]
