"""A request for an answer, and what is committed for it."""

from typing import Any

import msgspec

from holdfast import ids
from holdfast.engine.policy import title_of
from holdfast.events import RunStart, encode
from holdfast.runner.router import Route
from holdfast.store.port import CreateRun, RunRecord, SessionRecord


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """A request for an answer, whatever surface it came from."""

    owner: str
    message: str
    session_id: str | None = None
    """A session that exists; None: the one that `session_key` names, else a new one."""
    session_key: str | None = None
    """The caller's own name for a session, created on first use."""
    dialect: str = "native"
    """The surface that the question came from; session keys are unique within it."""
    question_id: str | None = None
    """Set to answer an existing question once more."""
    upstream: str | None = None
    model: str | None = None
    on_disconnect: str | None = None
    on_busy: str | None = None
    metadata: dict[str, Any] | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    system: str | None = None
    idempotency_key: str | None = None
    fingerprint: str | None = None


def prepare(
    question: Question, route: Route, on_disconnect: str, at: int
) -> tuple[CreateRun, RunStart]:
    """The write that commits the question with its run, and the run's first event.

    Args:
        question: The request; its session has been looked up.
        route: Who answers.
        on_disconnect: The policy if the question does not choose one.
        at: The time, in milliseconds since the epoch.
    """
    upstream = route.upstream
    session = None
    session_id = question.session_id
    title = title_of(question.message)
    if session_id is None:
        session_id = ids.new_id()
        session = SessionRecord(
            session_id,
            question.owner,
            title,
            at,
            at,
            dialect=question.dialect,
            key=question.session_key,
        )
    run = RunRecord(
        id=ids.new_id(),
        owner=question.owner,
        session_id=session_id,
        question_id=question.question_id or ids.new_id(),
        message_id=ids.new_id(),
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
    )
    write = CreateRun(
        run=run,
        start=encode(start),
        session=session,
        question=None if question.question_id else question.message,
        metadata=question.metadata,
        title=title,
    )
    return write, start
