r"""The messages dialect: RAGFlow's envelope, for front ends that were written for RAGFlow.

    data:{"code":0,"message":"","data":{"answer":"Kelp ","reference":{"chunks":[]},"final":false,
         "id":"…","session_id":"…"}}\n\n
    …
    data:{"code":0,"message":"","data":{"answer":"Kelp holds [ID:0].","reference":{…},
         "final":true,…}}\n\n
    data:{"code":0,"message":"","data":true}\n\n

Answers are deltas; the final frame carries the whole answer and the reference object, in place of
what came before. With `legacy` every frame carries the whole answer so far, as RAGFlow up to 0.23
had it. An answer that ended early has code 500 in its final frame, which still holds all of it.
Citation marks are RAGFlow's `[ID:n]`, n the place in `reference.chunks`, from 0. Reasoning, steps
and tool calls are no part of the dialect.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from holdfast.dialects.base import About, AnswerEncoder
from holdfast.engine.fold import Answer
from holdfast.events import Mark, Outcome, Reference, RunEnd, RunStart, encode

MAX_PLACES: Final = 1_000
"""How long `chunks` may be made to let each reference stand in its place."""

_EMPTY: Final[Mapping[str, Any]] = {"chunks": []}


class MessagesEncoder(AnswerEncoder):
    """Deltas, and a final frame with everything."""

    def __init__(self, about: About) -> None:
        """Begin before the first event."""
        super().__init__(about)
        self._id = ""

    def start(self, event: RunStart) -> bytes:
        """Note the message's id, which every frame says."""
        self._id = event.message_id
        return b""

    def text(self, text: str, marks: tuple[Mark, ...]) -> bytes:
        """A frame with a piece of the text."""
        return self._frame(with_ids(text, marks), _EMPTY, final=False)

    def end(self, event: RunEnd, answer: Answer) -> bytes:
        """The whole answer once more, and the terminator."""
        text = with_ids(answer.text, answer.marks)
        early = event.outcome not in (Outcome.COMPLETED, Outcome.CANCELLED)
        error = event.error or f"the answer ended early: {event.reason}"
        return self._frame(
            text, reference_object(answer.references), final=True, error=error if early else None
        ) + frame(True)

    def _frame(
        self, answer: str, reference: Mapping[str, Any], *, final: bool, error: str | None = None
    ) -> bytes:
        said = {
            "answer": answer,
            "reference": reference,
            "final": final,
            "id": self._id,
            "session_id": self.about.session,
        }
        return frame(said) if error is None else frame(said, 500, error)


class LegacyMessagesEncoder(MessagesEncoder):
    """Every frame has the whole answer so far."""

    replaces = True

    def __init__(self, about: About) -> None:
        """Begin before the first event."""
        super().__init__(about)
        self._so_far = ""

    def text(self, text: str, marks: tuple[Mark, ...]) -> bytes:
        """A frame with the text so far."""
        self._so_far += with_ids(text, marks)
        return self._frame(self._so_far, _EMPTY, final=False)

    def rewrite(self, text: str, marks: tuple[Mark, ...]) -> bytes:
        """A frame with the text that stands now."""
        self._so_far = ""
        return self.text(text, marks)


def frame(data: Any, code: int = 0, message: str = "") -> bytes:
    """One SSE message, without a space after the colon, as RAGFlow has it."""
    return b"data:%b\n\n" % encode(envelope(data, code, message))


def envelope(data: Any, code: int = 0, message: str = "") -> dict[str, Any]:
    """What everything is wrapped in; a code of 0 says that all is well."""
    return {"code": code, "message": message, "data": data}


def with_ids(text: str, marks: Iterable[Mark]) -> str:
    """The text with its citation marks as `[ID:n]`, n counting references from 0."""
    pieces: list[str] = []
    at = 0
    for start, end, ordinal in marks:
        pieces += (text[at:start], f"[ID:{ordinal - 1}]")
        at = end
    return "".join([*pieces, text[at:]]) if pieces else text


def reference_object(references: Sequence[Reference]) -> dict[str, Any]:
    """RAGFlow's reference object: each chunk in the place that marks name it by."""
    if not references:
        return {"total": 0, "chunks": [], "doc_aggs": []}
    placed: dict[int, dict[str, Any]] = {}
    for place, reference in enumerate(references):
        named = reference.ordinal - 1
        placed[named if 0 <= named < MAX_PLACES else place] = _chunk(reference)
    chunks = [placed.get(place) or _chunk(None) for place in range(max(placed) + 1)]
    counts: dict[tuple[str, str], int] = {}
    for reference in references:
        document = (reference.document_name or "", reference.document_id or "")
        counts[document] = counts.get(document, 0) + 1
    aggs = [
        {"doc_name": name, "doc_id": doc_id, "count": count}
        for (name, doc_id), count in counts.items()
    ]
    return {"total": len(references), "chunks": chunks, "doc_aggs": aggs}


def _chunk(reference: Reference | None) -> dict[str, Any]:
    """A chunk by RAGFlow's names; an empty one keeps a place that no reference has."""
    reference = reference or Reference(0)
    extra = reference.extra or {}
    return {
        **{name: value for name, value in extra.items() if name not in _OWN},
        "id": reference.chunk_id or "",
        "content": reference.text,
        "document_id": reference.document_id or "",
        "document_name": reference.document_name or "",
        "positions": reference.positions or [],
        "url": reference.url,
        "similarity": reference.score,
    }


_OWN: Final = frozenset(
    {"id", "content", "document_id", "document_name", "positions", "url", "similarity"}
)


def continued(text: str, marks: Iterable[Mark], answer: str) -> str | None:
    """What is stored once `answer`, as a client of this dialect has it, completes `text`.

    Returns:
        The text with what the client has beyond it; None if the client's does not begin with it.
    """
    for begun in (with_ids(text, marks), text):
        if answer.startswith(begun):
            return text + answer[len(begun) :]
    return None
