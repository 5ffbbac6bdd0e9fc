"""The answers of Dify's `/chat-messages`: bytes in, items out.

Written to what Dify sends for its chatbots, agents and chatflows from 0.6 to 1.16
(langgenius/dify, `api/core/app/entities/task_entities.py` and the task pipelines beside it;
docs.dify.ai, "Consume Streaming Responses"). What has to be known about it:

- `message` and `agent_message` add to the answer; once it has a file, Dify sends its further text
  as `message_file`, too. After the `agent_message`s of a newer agent, one `message` says all of it
  once more.
- `message_end` brings references and usage and is the end. A chatflow also sends
  `workflow_finished`, before it (older) or after it (newer), and sometimes nothing else; either
  is a terminal marker. That of a failed or stopped workflow is none of success.
- `message_replace` puts other words in place of the answer, which is how Dify moderates.
- A chatflow's retrieval nodes tell what they found before the answer begins, so that an answer
  that breaks off has its references.
- Text has no citation marks of Dify's own. `position` is the number of a source, so a literal
  "[1]" that a prompt asked for says the same as the reference's ordinal.
- A thought of an agent repeats what it said; what is news about it is which tool it uses.
"""

import re
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import quote, urljoin

import msgspec

from holdfast.engine.run import UpstreamEnd
from holdfast.events import (
    Finish,
    Notice,
    Reason,
    ReasoningDelta,
    Reference,
    References,
    Step,
    TextReplace,
)
from holdfast.settings import LimitSettings
from holdfast.upstreams.base import Item
from holdfast.upstreams.decoding.citations import CitationTranslator, Style
from holdfast.upstreams.decoding.decoder import Decoder, mapping, read_usage
from holdfast.upstreams.decoding.lenient import decode_any, repair
from holdfast.upstreams.decoding.references import (
    Fields,
    bounded_extra,
    http_url,
    read_reference,
    shorten,
)
from holdfast.upstreams.decoding.refusal import CUT, clean, error_text
from holdfast.upstreams.decoding.thinking import Piece, ThinkSplitter
from holdfast.upstreams.wire.sse import SseEvent

SOURCE: Final[Fields] = {
    "document_id": ("document_id",),
    "document_name": ("document_name", "title"),
    "chunk_id": ("segment_id",),
    "text": ("content",),
    "url": ("url",),
    "score": ("score",),
}
"""Dify's retriever resources, and the results of its retrieval nodes."""

QUIET_NODES: Final = frozenset({"start", "end", "answer"})
"""Nodes of a workflow whose beginning is no progress worth showing."""
WHOLE: Final = frozenset({"succeeded", "partial-succeeded"})
"""What a workflow that ran to its end says; one of them may have nodes that failed."""
LABEL_CHARS: Final = 200
DETAIL_BYTES: Final = 2_000


class _Frame(msgspec.Struct, gc=False):
    event: Any = None
    answer: Any = None
    conversation_id: Any = None
    task_id: Any = None
    message_id: Any = None
    metadata: Any = None
    data: Any = None
    code: Any = None
    message: Any = None
    status: Any = None
    reason: Any = None
    url: Any = None
    type: Any = None
    belongs_to: Any = None
    thought: Any = None
    tool: Any = None
    tool_input: Any = None
    id: Any = None


_decode: Final = msgspec.json.Decoder(_Frame).decode


class DifyDecoder(Decoder):
    """See the module and `Decoder`.

    Attributes:
        conversation: Dify's id of the conversation, once it was told.
        task: Dify's id of the answer, as long as it is being written.
    """

    def __init__(
        self,
        limits: LimitSettings | None = None,
        *,
        base_url: str = "",
        think_tags: bool = True,
    ) -> None:
        """Begin before the first byte.

        Args:
            limits: Bounds on events and references.
            base_url: What addresses of files without a host are relative to.
            think_tags: Whether `<think>...</think>` in the text is reasoning.
        """
        super().__init__(limits, CitationTranslator(Style.NONE))
        self.conversation: str | None = None
        self.task: str | None = None
        self._base_url = base_url
        self._splitter = ThinkSplitter() if think_tags else None
        self._message: str | None = None
        self._agent_text: list[str] = []
        self._has_spoken = False  # since the last thought of an agent
        self._steps: set[str] = set()
        self._sources: tuple[Reference, ...] = ()
        self._usage: dict[str, Any] | None = None
        self._workflow: dict[str, Any] | None = None
        self._failure: str | None = None
        self._finish: Finish | None = None

    # ------------------------------------------------------------------ the end

    @property
    def closing(self) -> dict[str, Any] | None:
        """See `Decoder.closing`."""
        return bounded_extra(
            {
                "conversation_id": self.conversation,
                "message_id": self._message,
                "usage": self._usage,
                "workflow": self._workflow,
            }
        )

    def _closing_items(self) -> list[Item]:
        return [read_usage(self._usage)] if self._usage else []

    def _ending(self, cause: UpstreamEnd) -> UpstreamEnd:
        if self._failure is not None:
            return UpstreamEnd(Reason.UPSTREAM_ERROR, error=clean(self._failure))
        return UpstreamEnd(finish=self._finish)

    def _flush(self, items: list[Item]) -> None:
        if self._splitter is not None:
            self._take_pieces(self._splitter.flush(), items)
        super()._flush(items)

    def _fail_with(self, error: dict[str, Any], items: list[Item]) -> None:
        """End with one of Dify's errors: code, message and status."""
        self.task = None
        code, status = error.get("code"), error.get("status")
        told = {"code": code, "message": error.get("message")}
        is_status = type(status) is int and 400 <= status < 600
        text = error_text(told) or "an error without a message"
        end = UpstreamEnd(Reason.UPSTREAM_ERROR, error=text, status=status if is_status else None)
        self._end(end, items)

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
        if data.strip() in (b"", b"[DONE]", b"ping"):
            return  # a keep-alive, or the end mark of a gateway; ours is another
        try:
            frame = _decode(repair(data) or b"")
        except (ValueError, RecursionError):
            start = clean(data[:80].decode("utf-8", "replace"))
            error = f"the upstream sent something that is not an event of Dify: {start}"
            items += self.finish(UpstreamEnd(Reason.UPSTREAM_ERROR, error=error))
        else:
            self._take(frame, items)

    def _take_whole(self, body: bytes, items: list[Item]) -> None:
        """The answer of the blocking mode, or an error."""
        try:
            frame = _decode(repair(body) or b"")
        except (ValueError, RecursionError):
            frame = _Frame()
        if not isinstance(frame.answer, str):
            error = error_text(decode_any(body)) or "an answer that is not Dify's"
            self._fail_with({**mapping(decode_any(body)), "message": error, "code": None}, items)
            return
        self._note(frame)
        self._take_answer(frame.answer, items)
        self._take_end(frame, items)

    def _take(self, frame: _Frame, items: list[Item]) -> None:
        self._note(frame)
        match frame.event:
            case "message":
                self._take_message(frame.answer, items)
            case "agent_message":
                self._take_answer(frame.answer, items, of_agent=True)
            case "message_file":
                self._take_file(frame, items)
            case "message_replace":
                self._take_replacement(frame.answer, frame.reason, items)
            case "message_end":
                self._take_end(frame, items)
            case "agent_thought":
                self._take_thought(frame, items)
            case "error":
                self._fail_with(msgspec.structs.asdict(frame), items)
            case str():
                self._take_workflow(frame.event, mapping(frame.data), items)
            case _ if frame.code and frame.message:
                self._fail_with(msgspec.structs.asdict(frame), items)

    def _note(self, frame: _Frame) -> None:
        """Keep the names that Dify gives on every frame."""
        if self.conversation is None and frame.conversation_id:
            self.conversation = _name(frame.conversation_id)
        if self.task is None and frame.task_id and not self.finished:
            self.task = _name(frame.task_id)
        if self._message is None and frame.message_id:
            self._message = _name(frame.message_id)

    def _take_workflow(self, event: str, data: dict[str, Any], items: list[Item]) -> None:
        """An event of a chatflow; those that are not known say nothing."""
        match event:
            case "text_chunk":
                self._take_answer(data.get("text"), items)
            case "text_replace":
                self._take_replacement(data.get("text"), None, items)
            case "node_started":
                if _word(data, "node_type") not in QUIET_NODES:
                    self._take_step(data.get("title"), data.get("node_type"), items)
            case "node_finished" if data.get("node_type") == "knowledge-retrieval":
                self._take_results(mapping(data.get("outputs")).get("result"), items)
            case "agent_log" if data.get("status") == "start":
                self._take_step(data.get("label"), None, items)
            case "workflow_finished":
                self._take_workflow_end(data, items)
            case "workflow_paused":
                self.task = None
                error = "the workflow waits for somebody's input, which cannot be given here"
                self._fail(error, items)

    # ------------------------------------------------------------------ text

    def _take_message(self, answer: Any, items: list[Item]) -> None:
        """More of the answer; after what an agent said, all of it once more."""
        if not self._agent_text or not isinstance(answer, str):
            self._take_answer(answer, items)
            return
        said = "".join(self._agent_text)
        self._agent_text.clear()
        if answer.startswith(said):
            self._take_answer(answer[len(said) :], items)
        elif answer.strip() != said.strip():
            self._rewrite(answer, items)

    def _take_answer(self, text: Any, items: list[Item], *, of_agent: bool = False) -> None:
        if not text or not isinstance(text, str):
            return
        self._has_spoken = True
        if of_agent:
            self._agent_text.append(text)
        if self._splitter is None:
            self._give_text(text, items)
        else:
            self._take_pieces(self._splitter.feed(text), items)

    def _take_pieces(self, pieces: Iterable[Piece], items: list[Item]) -> None:
        for is_thought, text in pieces:
            if is_thought:
                items.append(ReasoningDelta(text))
            else:
                self._give_text(text, items)

    def _take_replacement(self, answer: Any, reason: Any, items: list[Item]) -> None:
        if not isinstance(answer, str):
            return
        reason = clean(reason) if isinstance(reason, str) else ""
        if "moderation" in reason:
            self._finish = Finish.CONTENT_FILTER
        why = f" ({reason})" if reason else ""
        words = f"Dify put other words in place of its answer{why}"
        self._show([Notice("answer_replaced", words)], items)
        self._agent_text.clear()
        self._rewrite(answer, items)

    def _rewrite(self, answer: str, items: list[Item]) -> None:
        """Give the whole answer in other words; its thoughts, if it has any, are known."""
        if self._splitter is not None:
            self._splitter.flush()
            self._splitter = splitter = ThinkSplitter()
            pieces = [*splitter.feed(answer), *splitter.flush()]
            answer = "".join(text for is_thought, text in pieces if not is_thought)
        self._length = len(answer)
        items.append(TextReplace(answer))

    def _take_file(self, frame: _Frame, items: list[Item]) -> None:
        """A file of the answer, as a link in it; or text, see the module."""
        self._take_answer(frame.answer, items)
        url = http_url(_joined(self._base_url, frame.url))
        if url is None or frame.belongs_to == "user":
            return
        kind = clean(frame.type) if isinstance(frame.type, str) else ""
        link = f"{'!' if kind == 'image' else ''}[{_UNSAFE.sub('', kind) or 'file'}]"
        before = "\n\n" if self._length else ""
        self._flush(items)
        self._give_text(f"{before}{link}({quote(url, safe=_IN_LINK)})\n\n", items)

    # ------------------------------------------------------------------ what is done meanwhile

    def _take_thought(self, frame: _Frame, items: list[Item]) -> None:
        """An agent's step, which Dify sends anew with each thing that it comes to know of it."""
        if frame.tool:
            key = f"{frame.id} {frame.tool}"[:LABEL_CHARS]
            self._take_step(frame.tool, frame.tool_input, items, key=key)
        elif frame.thought and not self._has_spoken:
            self._take_step("thinking", frame.thought, items)
        self._has_spoken = False

    def _take_step(self, label: Any, detail: Any, items: list[Item], key: str = "") -> None:
        if not isinstance(label, str) or not label.strip():
            return
        detail = shorten(detail, DETAIL_BYTES) if isinstance(detail, str) and detail else None
        if key in self._steps:
            return
        if key:
            self._steps.add(key)
        label = clean(label)
        label = label if len(label) <= LABEL_CHARS else label[: LABEL_CHARS - 1] + CUT
        self._show([Step(label, detail)], items)

    # ------------------------------------------------------------------ references

    def _take_results(self, results: Any, items: list[Item]) -> None:
        """What a retrieval node found; several may find something."""
        found = [mapping(result) for result in results] if isinstance(results, list) else []
        sources = [{**mapping(one.pop("metadata", None)), **one} for one in map(dict, found)]
        if sources:
            self._give_sources([*self._sources, *self._read(sources)], items)

    def _take_resources(self, resources: Any, items: list[Item]) -> None:
        """The references of the whole answer, by their positions if each has its own."""
        sources = [mapping(one) for one in resources] if isinstance(resources, list) else []
        positions = [source.get("position") for source in sources]
        if len(set(map(repr, positions))) == len(positions) and all(
            type(position) is int for position in positions
        ):
            sources.sort(key=lambda source: int(source["position"]))
        if sources:
            self._give_sources(self._read(sources), items)

    def _read(self, sources: Iterable[dict[str, Any]]) -> list[Reference]:
        return [
            read_reference(source, SOURCE, ordinal=1, text_bytes=self._limits.reference_bytes)
            for source in sources
            if source
        ]

    def _give_sources(self, sources: Iterable[Reference], items: list[Item]) -> None:
        """Number the sources, the same passage once, and give them if they are news."""
        merged: dict[Any, Reference] = {}
        for source in sources:
            merged.setdefault(source.chunk_id or (source.document_name, source.text), source)
        numbered = tuple(
            msgspec.structs.replace(source, ordinal=ordinal)
            for ordinal, source in enumerate(merged.values(), 1)
        )[: self._limits.references]
        if numbered != self._sources:
            self._sources = numbered
            items.append(References(numbered))

    # ------------------------------------------------------------------ the whole answer

    def _take_end(self, frame: _Frame, items: list[Item]) -> None:
        metadata = mapping(frame.metadata)
        self._take_resources(metadata.get("retriever_resources"), items)
        self._usage = mapping(metadata.get("usage")) or self._usage
        self.finished = True
        self.task = None
        self._end(UpstreamEnd(), items)

    def _take_workflow_end(self, data: dict[str, Any], items: list[Item]) -> None:
        """The end of a chatflow; `message_end` may follow, or an `error` in better words."""
        self._workflow = {name: data.get(name) for name in ("id", "status", "error")}
        status = _word(data, "status")
        if status in WHOLE:
            answer = mapping(data.get("outputs")).get("answer")
            if not self._length:
                self._take_answer(answer, items)
        elif status == "stopped":
            self._failure = "the answer was stopped in Dify"
        else:
            self._failure = (
                error_text(data.get("error")) or f"the workflow ended as {status or 'nothing'}"
            )
        self.task = None
        self.finished = True
        self._flush(items)


_UNSAFE: Final = re.compile(r"[^\w .-]")
_IN_LINK: Final = ":/?#@!$&'*+,;=%~-._"


def _word(data: dict[str, Any], name: str) -> str:
    """A member that is one of some words; "" if it is none at all."""
    word = data.get(name)
    return clean(word) if isinstance(word, str) else ""


def _name(value: object) -> str | None:
    """An id, if it is one that may be sent back."""
    return value if isinstance(value, str) and 0 < len(value) <= 200 and value.isascii() else None


def _joined(base_url: str, url: object) -> str:
    try:
        return urljoin(base_url, url) if isinstance(url, str) and url else ""
    except ValueError:
        return ""
