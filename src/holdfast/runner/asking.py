"""A request for an answer, and what is committed for it."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from holdfast import ids
from holdfast.engine.policy import ChatMessage, title_of
from holdfast.events import RunStart, encode
from holdfast.runner.router import Route
from holdfast.store.port import CreateRun, KeyRecord, RunRecord, SessionRecord


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A request for an answer, whatever surface it came from."""

    owner: str
    key: KeyRecord | None = None
    """The key that it was asked with, whose limits hold for it."""
    message: str
    session_id: str | None = None
    """A session that exists; None: the one that `session_key` names, else a new one."""
    session_key: str | None = None
    """The caller's own name for a session, created on first use."""
    dialect: str = "native"
    """The surface that the question came from; session keys are unique within it."""
    question_id: str | None = None
    """Set to answer an existing question once more."""
    retire_from: str | None = None
    """A turn that this question takes the place of: it and all later ones are left out of the
    session from now on."""
    hidden: bool = False
    """Whether a session that it creates is left out of lists."""
    preset: str | None = None
    """The named configuration that it is asked with, as are all questions of a session that it
    creates; None: that of its session."""
    history: Sequence[ChatMessage] | None = None
    """The earlier turns, where the caller tells them; None: those that are stored."""
    chat: Mapping[str, Any] | None = None
    """The body of an OpenAI client's request; see `Ask.chat`."""
    upstream: str | None = None
    """An upstream's name, `auto`, `local_small` or `cloud_large`."""
    model: str | None = None
    on_disconnect: str | None = None
    on_busy: str | None = None
    metadata: dict[str, Any] | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    system: str | None = None
    defaults: Mapping[str, Any] = {}
    """Of its surface: fields that hold where neither the question nor its preset says anything."""
    history_messages: int | None = None
    """How many stored messages the upstream is given at most; None: as the settings say."""
    idempotency_key: str | None = None
    fingerprint: str | None = None


def prepare(
    question: Question, route: Route, on_disconnect: str, at: int
) -> tuple[CreateRun, RunStart]:
    """The write that commits the question with its run, and the run's first event.

    Args:
        question: The request; its session has been looked up.
        route: Who is asked.
        on_disconnect: The policy if the question does not choose one.
        at: The time, in milliseconds since the epoch.
    """
    upstream = route.first.upstream
    session = None
    session_id = question.session_id
    title = title_of(question.message)
    if session_id is None:
        session_id = ids.new_id(at)
        session = SessionRecord(
            session_id,
            question.owner,
            title,
            at,
            at,
            dialect=question.dialect,
            key=question.session_key,
            hidden=question.hidden,
            preset=question.preset,
        )
    run = RunRecord(
        id=ids.new_id(at),
        owner=question.owner,
        session_id=session_id,
        question_id=question.question_id or ids.new_id(at),
        message_id=ids.new_id(at),
        status="accepted",
        upstream=upstream.name,
        model=question.model or upstream.model,
        route_reason=route.reason,
        on_disconnect=question.on_disconnect or on_disconnect,
        idempotency_key=question.idempotency_key,
        fingerprint=question.fingerprint,
        created_at=at,
    )
    start = RunStart(
        run_id=run.id,
        session_id=run.session_id,
        message_id=run.message_id,
        question_id=run.question_id,
        upstream=run.upstream,
        model=run.model,
        route_reason=route.reason,
        route=route.first.route,
    )
    write = CreateRun(
        run=run,
        start=encode(start),
        session=session,
        question=None if question.question_id else question.message,
        metadata=question.metadata,
        title=title,
        retire_from=question.retire_from,
    )
    return write, start
