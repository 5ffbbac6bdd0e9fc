"""The events of a run's log: a closed, frozen, tagged union.

Decoders produce events, the journal stores them, the fold and the encoders consume them. An
event is written to JSON exactly once, by `encode`; those bytes are what the journal holds and
what the native dialect sends. Fields that have their default value are left out of the JSON.

Offsets in `marks` count Unicode code points of the event's own `text`.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final, TypeAlias

import msgspec


class Outcome(StrEnum):
    """How a run ended."""

    COMPLETED = "completed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"
    FAILED = "failed"


class Reason(StrEnum):
    """Why a run ended otherwise than by its upstream's terminal marker."""

    CLIENT_CANCELLED = "client_cancelled"
    CLIENT_DISCONNECTED = "client_disconnected"
    UPSTREAM_ERROR = "upstream_error"
    UPSTREAM_EMPTY = "upstream_empty"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    UPSTREAM_TRUNCATED = "upstream_truncated"
    UPSTREAM_UNREACHABLE = "upstream_unreachable"
    LIMIT = "limit"
    STORAGE_ERROR = "storage_error"
    SERVER_SHUTDOWN = "server_shutdown"
    SERVER_CRASH = "server_crash"


class Finish(StrEnum):
    """Why the model stopped writing, as the upstream said it."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CONTENT_FILTER = "content_filter"


Mark: TypeAlias = tuple[int, int, int]
"""A citation in a text: start, end (code points, end excluded) and the reference's ordinal."""

MAX_ORDINAL: Final = 2**31 - 1
"""The largest ordinal that every store can hold."""


class Reference(msgspec.Struct, frozen=True, omit_defaults=True):
    """A source item the upstream retrieved; `ordinal` (1-based) is the mark shown for it."""

    ordinal: int
    document_id: str | None = None
    document_name: str | None = None
    chunk_id: str | None = None
    text: str = ""
    url: str | None = None
    """Only http and https; anything else is dropped by the decoder."""
    score: float | None = None
    positions: list[Any] | None = None
    extra: dict[str, Any] | None = None
    """The upstream's own further fields, bounded in size."""


class _Event(msgspec.Struct, frozen=True, omit_defaults=True, gc=False, tag_field="type"):
    """Base of all events. Untracked by the garbage collector: events never form cycles."""


class RunStart(_Event, frozen=True, tag="run-start"):
    """First event of every run. Its ids are those of history and of every resume."""

    run_id: str
    session_id: str
    message_id: str
    question_id: str
    upstream: str
    model: str | None = None
    route_reason: str | None = None
    route: str | None = None
    """`local_small` or `cloud_large`, where the router decided so."""


class TextDelta(_Event, frozen=True, tag="text-delta"):
    """More of the answer's text."""

    text: str
    marks: tuple[Mark, ...] = ()


class TextReplace(_Event, frozen=True, tag="text-replace"):
    """The upstream rewrote the whole answer; what was there before does not count any more."""

    text: str
    marks: tuple[Mark, ...] = ()


class ReasoningDelta(_Event, frozen=True, tag="reasoning-delta"):
    """More of the model's reasoning, kept apart from the answer."""

    text: str


class References(_Event, frozen=True, tag="references"):
    """The full set of references so far; replaces the set before it."""

    references: tuple[Reference, ...]


class ToolCall(_Event, frozen=True, tag="tool-call"):
    """A piece of a tool call, carried through for OpenAI clients."""

    index: int
    id: str | None = None
    name: str | None = None
    arguments_delta: str = ""


class Step(_Event, frozen=True, tag="step"):
    """Progress worth showing; never part of the answer."""

    label: str
    detail: str | None = None


class Notice(_Event, frozen=True, tag="notice"):
    """Something the reader should know about how the answer is made."""

    code: str
    message: str
    upstream: str | None = None
    """Set when another upstream answers from here on; then `model` and `route` are its own."""
    model: str | None = None
    route: str | None = None


class Usage(_Event, frozen=True, tag="usage"):
    """Tokens that the upstream counted."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    extra: dict[str, Any] | None = None


class RunEnd(_Event, frozen=True, tag="run-end"):
    """Last event of every run, exactly once."""

    outcome: Outcome
    reason: Reason | None = None
    finish: Finish | None = None
    error: str | None = None
    status: int | None = None
    """The HTTP status by which the upstream refused to answer."""


Event: TypeAlias = (
    RunStart
    | TextDelta
    | TextReplace
    | ReasoningDelta
    | References
    | ToolCall
    | Step
    | Notice
    | Usage
    | RunEnd
)

encode: Final = msgspec.json.Encoder().encode
"""Event (or any API shape) to JSON bytes."""

decode: Final = msgspec.json.Decoder(Event).decode
"""JSON bytes to event. Raises msgspec.ValidationError on anything else."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """An event with its place in its run's log and the bytes that the journal holds for it."""

    seq: int
    event: Event
    data: bytes


EVENT_TYPES: Final[dict[type, str]] = {kind: kind.__struct_config__.tag for kind in Event.__args__}
"""The `type` of each kind of event, e.g. `text-delta`."""


def joined(deltas: Sequence[TextDelta | ReasoningDelta]) -> tuple[str, tuple[Mark, ...]]:
    """The text of consecutive deltas, and the marks in it."""
    marks: list[Mark] = []
    length = 0
    for delta in deltas:
        if isinstance(delta, TextDelta) and delta.marks:
            marks += [(length + start, length + end, n) for start, end, n in delta.marks]
        length += len(delta.text)
    return "".join([delta.text for delta in deltas]), tuple(marks)


def join_log(entries: Sequence[Entry]) -> bytes:
    r"""The stored form of consecutive entries: their JSON, each ended by `\n`."""
    return b"".join([entry.data + b"\n" for entry in entries])


def split_log(
    payload: bytes, first_seq: int, after: int = 0, limit: int | None = None
) -> list[Entry]:
    """The inverse of `join_log` for a payload whose first entry has `first_seq`.

    Args:
        payload: Consecutive entries as they are stored.
        first_seq: The seq of the first of them.
        after: Leave out the entries up to this seq.
        limit: Give at most so many.
    """
    lines = payload.split(b"\n")
    lines.pop()
    start = max(0, after + 1 - first_seq)
    wanted = lines[start:] if limit is None else lines[start : start + limit]
    return [Entry(seq, decode(line), line) for seq, line in enumerate(wanted, first_seq + start)]
