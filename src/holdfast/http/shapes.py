"""The bodies of the native surface. OpenAPI is made from these classes."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from holdfast.engine.cursor import Cursor
from holdfast.engine.fold import Answer, ToolCallSoFar
from holdfast.events import Mark, Reference, Usage
from holdfast.store.port import MessageRecord, RunRecord, SessionRecord


class _Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A request body: a key that is not known is an error, not a silent loss."""


class AnswerOptions(_Body, frozen=True, kw_only=True):
    """How an answer is to be made and delivered."""

    upstream: str | None = None
    model: str | None = None
    stream: bool = True
    on_disconnect: Literal["continue", "cancel"] | None = None
    on_busy: Literal["reject", "cancel"] | None = None
    temperature: Annotated[float, Meta(ge=0, le=10)] | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=10_000_000)] | None = None
    system: str | None = None
    metadata: dict[str, Any] | None = None


class RunRequest(AnswerOptions, frozen=True, kw_only=True):
    """A question."""

    message: str
    session_id: str | None = None
    preset: str | None = None
    """For this question and, if it begins a session, for those that follow in it."""


class EditRequest(AnswerOptions, frozen=True, kw_only=True):
    """A question in other words."""

    message: str


class FeedbackRequest(_Body, frozen=True, kw_only=True):
    """What a person thinks of an answer; a `rating` of null takes it back."""

    rating: Literal["up", "down"] | None
    comment: Annotated[str, Meta(max_length=2_000)] | None = None


class SessionRequest(_Body, frozen=True, kw_only=True):
    """What to change of a session."""

    title: Annotated[str, Meta(max_length=500)] | None = None
    metadata: dict[str, Any] | None = None


class NewSessionRequest(SessionRequest, frozen=True, kw_only=True):
    """A session to create."""

    preset: str | None = None
    """The named configuration that its questions are asked with."""


class RunShape(msgspec.Struct, frozen=True, kw_only=True):
    """A run."""

    id: str
    session_id: str
    message_id: str
    question_id: str
    status: str
    outcome: str | None
    reason: str | None
    error: str | None
    upstream: str
    model: str | None
    route_reason: str | None
    cursor: str
    """The position of this picture: events after it are not in it."""
    created_at: str
    ended_at: str | None


class UsageShape(msgspec.Struct, frozen=True):
    """Tokens that the upstream counted; `extra` has what else it said of them."""

    input_tokens: int | None
    output_tokens: int | None
    extra: dict[str, Any] | None


class MessageShape(msgspec.Struct, frozen=True, kw_only=True):
    """A message. Offsets in `marks` count Unicode code points of `content`."""

    id: str
    session_id: str
    role: str
    content: str
    marks: tuple[Mark, ...]
    reasoning: str
    status: str
    outcome: str | None
    reason: str | None
    error: str | None
    references: tuple[Reference, ...]
    upstream: str | None
    model: str | None
    usage: UsageShape | None
    run_id: str | None
    versions: tuple[str, ...]
    feedback: dict[str, Any] | None
    metadata: dict[str, Any] | None
    created_at: str
    completed_at: str | None
    tool_calls: tuple[ToolCallSoFar, ...] | UnsetType = UNSET


class SessionShape(msgspec.Struct, frozen=True, kw_only=True):
    """A session."""

    id: str
    title: str | None
    preset: str | None
    metadata: dict[str, Any] | None
    live_run_id: str | None
    created_at: str
    updated_at: str


class RunAnswer(msgspec.Struct, frozen=True):
    """A run with the message that it writes."""

    run: RunShape
    message: MessageShape


class RawShape(msgspec.Struct, frozen=True):
    """What was said on the wire between Holdfast and the upstream; secrets are not in it."""

    raw_request: Any
    raw_response: Any


class SessionList(msgspec.Struct, frozen=True):
    """A page of sessions, last used first; `next` goes into `before`."""

    items: list[SessionShape]
    next: str | None


class MessageList(msgspec.Struct, frozen=True):
    """A page of messages, oldest first; `next` goes into `after`."""

    items: list[MessageShape]
    next: str | None


class UpstreamShape(msgspec.Struct, frozen=True):
    """An upstream by name, and whether it answers."""

    name: str
    kind: str
    healthy: bool


class UpstreamList(msgspec.Struct, frozen=True):
    """The upstreams a question can name."""

    items: list[UpstreamShape]
    next: str | None = None


class PresetShape(msgspec.Struct, frozen=True):
    """A preset by name, and who answers with it where it says so."""

    name: str
    upstream: str | None
    model: str | None


class PresetList(msgspec.Struct, frozen=True):
    """The presets that a session can be created with."""

    items: list[PresetShape]
    next: str | None = None


class ErrorDetail(msgspec.Struct, frozen=True):
    """What went wrong; further members depend on the code."""

    code: str
    message: str
    request_id: str


class ErrorShape(msgspec.Struct, frozen=True):
    """Every error's body."""

    error: ErrorDetail


def timestamp(at: int | None) -> str | None:
    """Milliseconds since the epoch as RFC 3339 in UTC."""
    if at is None:
        return None
    text = datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def run_shape(run: RunRecord, seq: int, state: str | None = None) -> RunShape:
    """A run as it is after event `seq`; `state` is finer than what is stored."""
    return RunShape(
        id=run.id,
        session_id=run.session_id,
        message_id=run.message_id,
        question_id=run.question_id,
        status=state or run.status,
        outcome=run.outcome,
        reason=run.reason,
        error=run.error,
        upstream=run.upstream,
        model=run.model,
        route_reason=run.route_reason,
        cursor=str(Cursor(run.id, seq)),
        created_at=timestamp(run.created_at) or "",
        ended_at=timestamp(run.ended_at),
    )


def message_shape(message: MessageRecord) -> MessageShape:
    """A message as it is stored, or as it is so far."""
    answer: Answer = message.answer
    return MessageShape(
        id=message.id,
        session_id=message.session_id,
        role=message.role,
        content=answer.text,
        marks=answer.marks,
        reasoning=answer.reasoning,
        status=message.status,
        outcome=message.outcome,
        reason=message.reason,
        error=message.error,
        references=answer.references,
        upstream=message.upstream,
        model=message.model,
        usage=_usage_shape(answer.usage),
        run_id=message.run_id,
        versions=message.versions,
        feedback=message.feedback,
        metadata=message.metadata,
        created_at=timestamp(message.created_at) or "",
        completed_at=timestamp(message.completed_at),
        tool_calls=answer.tool_calls or UNSET,
    )


def _usage_shape(used: Usage | None) -> UsageShape | None:
    if used is None:
        return None
    return UsageShape(used.input_tokens, used.output_tokens, used.extra)


def session_shape(session: SessionRecord) -> SessionShape:
    """A session."""
    return SessionShape(
        id=session.id,
        title=session.title,
        preset=session.preset,
        metadata=session.metadata,
        live_run_id=session.live_run_id,
        created_at=timestamp(session.created_at) or "",
        updated_at=timestamp(session.updated_at) or "",
    )
