"""Every statement of the store, built once at import. SQL is written nowhere else.

The write path runs some statements for every answer, thousands of times a second; there a
statement is compiled to plain SQL once (`Prepared`) and given to the driver directly. The read
path uses the statements as they are.
"""

from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from typing import Any

from sqlalchemy import (
    Boolean,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    insert,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql import asyncpg
from sqlalchemy.engine import Dialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.functions import FunctionElement

from holdfast.store.kept_text import KeptText
from holdfast.store.schema import (
    api_keys,
    conversations,
    journal,
    message_references,
    messages,
    nodes,
    run_logs,
    runs,
    sessions,
)

_SQLITE = sqlite.dialect(paramstyle="qmark")
_POSTGRES = asyncpg.dialect()  # type: ignore[no-untyped-call]


class Compiled:
    """A statement as a driver takes it."""

    def __init__(self, statement: ClauseElement, dialect: Dialect) -> None:
        """Compile `statement`; its parameters are taken by name."""
        compiled = statement.compile(dialect=dialect)
        self.sql = str(compiled)
        self._names: Sequence[str] = compiled.positiontup or ()  # type: ignore[attr-defined]
        self._fixed: Mapping[str, Any] = compiled.params

    def row(self, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """The parameters in the order of the SQL; what `values` lacks comes from the statement."""
        fixed = self._fixed
        return tuple([values[name] if name in values else fixed[name] for name in self._names])


class Prepared:
    """A statement of the write path, compiled once for each database that is used."""

    def __init__(self, statement: ClauseElement) -> None:
        """Keep `statement` until it is needed."""
        self._statement = statement

    @cached_property
    def sqlite(self) -> Compiled:
        """As the SQLite driver takes it."""
        return Compiled(self._statement, _SQLITE)

    @cached_property
    def postgres(self) -> Compiled:
        """As the PostgreSQL driver takes it."""
        return Compiled(self._statement, _POSTGRES)


def _p(name: str) -> Any:
    # Prefixed, since a bare column name would clash with the SET clause of an update.
    return bindparam(f"p_{name}")


_QUERY = bindparam("p_query", type_=KeptText())


class _Contains(FunctionElement[bool]):
    """Whether a text has another one in it, letters of either case being the same.

    No LIKE: its wildcards would have to be escaped, and that of SQLite ends at a NUL and refuses
    a pattern of more than 50,000 bytes.
    """

    type = Boolean()
    inherit_cache = True


@compiles(_Contains)
def _compile_contains(element: _Contains, compiler: Any, **kwargs: Any) -> str:
    text, sought = [compiler.process(func.lower(clause), **kwargs) for clause in element.clauses]
    place = "strpos" if compiler.dialect.name == "postgresql" else "instr"
    return f"{place}({text}, {sought}) > 0"


# Written out, not bound: only so can the planner use the partial index on live runs.
_IS_LIVE = runs.c.status != literal_column("'ended'")

# ---------------------------------------------------------------------------- writes

INSERT_SESSION = Prepared(insert(sessions))
INSERT_MESSAGE = Prepared(insert(messages))
INSERT_RUN = Prepared(
    insert(runs).values(
        {
            c.name: bindparam(c.name)
            for c in runs.c
            if c.name not in ("cancel_requested", "request", "response")
        }
    )
)
INSERT_REFERENCE = Prepared(insert(message_references))
INSERT_LOG = Prepared(insert(run_logs))

TOUCH_SESSION = Prepared(
    update(sessions)
    .where(sessions.c.id == _p("id"))
    .values(updated_at=_p("updated_at"), title=func.coalesce(sessions.c.title, _p("title")))
)
UPDATE_SESSION = Prepared(
    update(sessions)
    .where(sessions.c.id == _p("id"), sessions.c.owner == _p("owner"))
    .values(
        updated_at=_p("updated_at"),
        title=func.coalesce(_p("title"), sessions.c.title),
        metadata=func.coalesce(_p("metadata"), sessions.c.metadata),
    )
)
UPDATE_CONVERSATION = Prepared(
    update(conversations)
    .where(
        conversations.c.session_id == _p("session_id"), conversations.c.upstream == _p("upstream")
    )
    .values(conversation=_p("conversation"))
)
INSERT_CONVERSATION = Prepared(
    insert(conversations).from_select(
        ["session_id", "upstream", "conversation"],
        select(sessions.c.id, _p("upstream"), _p("conversation")).where(
            sessions.c.id == _p("session_id")
        ),
    )
)
"""Nothing, if the session does not exist (any more)."""
OWN_SESSION = Prepared(
    select(sessions.c.id).where(sessions.c.id == _p("id"), sessions.c.owner == _p("owner"))
)
RUN_BY_KEY = Prepared(
    select(runs).where(runs.c.owner == _p("owner"), runs.c.idempotency_key == _p("idempotency_key"))
)
LIVE_RUN = Prepared(select(runs.c.id).where(runs.c.session_id == _p("session_id"), _IS_LIVE))
SESSION_RUNS = Prepared(select(runs.c.id).where(runs.c.session_id == _p("session_id")))
NEXT_VERSION = Prepared(
    select((func.coalesce(func.max(messages.c.version), 0) + 1).label("version")).where(
        messages.c.session_id == _p("session_id"),
        messages.c.turn_id == _p("turn_id"),
        messages.c.role == "assistant",
    )
)
OWN_QUESTION = Prepared(
    select(messages.c.id).where(
        messages.c.id == _p("id"),
        messages.c.session_id == _p("session_id"),
        messages.c.role == "user",
        messages.c.active.is_(True),
    )
)
RETIRE_VERSIONS = Prepared(
    update(messages)
    .where(
        messages.c.session_id == _p("session_id"),
        messages.c.turn_id == _p("turn_id"),
        messages.c.role == "assistant",
    )
    .values(active=False)
)
FORGET_CONVERSATIONS = Prepared(
    delete(conversations).where(conversations.c.session_id == _p("session_id"))
)
RETIRE_TURNS = Prepared(
    update(messages)
    .where(messages.c.session_id == _p("session_id"), messages.c.turn_id >= _p("turn_id"))
    .values(active=False)
)
END_RUN = Prepared(
    update(runs)
    .where(runs.c.id == _p("id"), _IS_LIVE)
    .values(
        status="ended",
        outcome=_p("outcome"),
        reason=_p("reason"),
        error=_p("error"),
        upstream=func.coalesce(_p("upstream"), runs.c.upstream),
        # Who answered in the end may have no model where the one before had one.
        model=case((_p("upstream").is_(None), runs.c.model), else_=_p("model")),
        last_seq=_p("last_seq"),
        request=func.coalesce(_p("request"), runs.c.request),
        response=_p("response"),
        ended_at=_p("ended_at"),
    )
)
KEEP_REQUEST = Prepared(update(runs).where(runs.c.id == _p("id")).values(request=_p("request")))
END_MESSAGE = Prepared(
    update(messages)
    .where(messages.c.id == _p("id"))
    .values(
        {"metadata": func.coalesce(_p("metadata"), messages.c.metadata)}
        | {
            name: _p(name)
            for name in (
                "status",
                "content",
                "marks",
                "reasoning",
                "tool_calls",
                "usage",
                "outcome",
                "reason",
                "error",
                "upstream",
                "model",
                "completed_at",
            )
        }
    )
)
OWN_MESSAGE = Prepared(
    select(
        messages.c.session_id,
        messages.c.role,
        messages.c.status,
        messages.c.content,
        messages.c.metadata,
    )
    .join(sessions, sessions.c.id == messages.c.session_id)
    .where(messages.c.id == _p("id"), sessions.c.owner == _p("owner"))
    .with_for_update(of=messages)
)
"""What is written next depends on it, so other writers wait (SQLite has only one)."""
SET_FEEDBACK = Prepared(
    update(messages).where(messages.c.id == _p("id")).values(feedback=_p("feedback"))
)
COMPLETE_MESSAGE = Prepared(
    update(messages)
    .where(messages.c.id == _p("id"))
    .values(
        status="complete",
        content=_p("content"),
        metadata=_p("metadata"),
        completed_at=_p("completed_at"),
    )
)
REFERENCES_OF_MESSAGE = Prepared(
    select(message_references)
    .where(message_references.c.message_id == _p("message_id"))
    .order_by(message_references.c.place)
)
DELETE_REFERENCES = Prepared(
    delete(message_references).where(message_references.c.message_id == _p("message_id"))
)
INSERT_KEY = Prepared(insert(api_keys))
REVOKE_KEY = Prepared(
    update(api_keys)
    .where(api_keys.c.id == _p("id"))
    .values(revoked_at=func.coalesce(api_keys.c.revoked_at, _p("revoked_at")))
)
REQUEST_CANCEL = Prepared(
    update(runs).where(runs.c.id == _p("id"), _IS_LIVE).values(cancel_requested=True)
)
DELETE_SESSION = Prepared(
    delete(sessions).where(sessions.c.id == _p("id"), sessions.c.owner == _p("owner"))
)
DELETE_JOURNAL = Prepared(delete(journal))
DELETE_JOURNAL_ROWS = Prepared(
    delete(journal).where(journal.c.id >= _p("first"), journal.c.id <= _p("last"))
)
DELETE_ENDED_JOURNAL = delete(journal).where(
    journal.c.run_id.not_in(select(runs.c.id).where(_IS_LIVE))
)
DELETE_RUN_JOURNAL = Prepared(delete(journal).where(journal.c.run_id == _p("run_id")))
JOURNAL_PAYLOADS_BY_JSON = Prepared(
    select(journal.c.payload)
    .where(journal.c.id.in_(select(func.json_each(_p("ids")).table_valued("value").c.value)))
    .order_by(journal.c.id)
)
"""The ids as one JSON array, so that the statement is the same however many there are."""

JOURNAL_COLUMNS = 5


@cache
def append_sql(rows: int) -> str:
    """One statement that inserts `rows` rows of the journal.

    One call of the driver for many rows: it lets go of the interpreter's lock once per
    statement, and every hand-over of that lock costs the event loop more than the row does.
    """
    names = ", ".join(column.name for column in journal.c)
    marks = "(" + ", ".join("?" * JOURNAL_COLUMNS) + ")"
    return f"INSERT INTO journal ({names}) VALUES " + ", ".join([marks] * rows)


# ---------------------------------------------------------------------------- reads

_NOT_IN_RECORD = ("request", "response", "cancel_requested", "node_id", "generation")
_RUN_COLUMNS = [c for c in runs.c if c.name not in _NOT_IN_RECORD]

RUN = select(*_RUN_COLUMNS).where(runs.c.id == _p("id"), runs.c.owner == _p("owner"))
RUN_OF_KEY = select(*_RUN_COLUMNS).where(
    runs.c.owner == _p("owner"), runs.c.idempotency_key == _p("idempotency_key")
)
RAW = select(runs.c.request, runs.c.response).where(runs.c.id == _p("id"))
LIVE_RUNS = select(*_RUN_COLUMNS, runs.c.cancel_requested).where(_IS_LIVE).order_by(runs.c.id)
ORPHANS = LIVE_RUNS.outerjoin(
    nodes, and_(nodes.c.id == runs.c.node_id, nodes.c.generation == runs.c.generation)
).where(nodes.c.id.is_(None))
"""Live runs of nodes that have lost their claim, or never had one."""
OWN_RUNS = LIVE_RUNS.where(runs.c.node_id == _p("node_id"), runs.c.generation == _p("generation"))
RUN_LOG = select(run_logs.c.payload, run_logs.c.last_seq).where(run_logs.c.run_id == _p("run_id"))
JOURNAL_ROWS = select(
    journal.c.id, journal.c.run_id, journal.c.first_seq, journal.c.last_seq
).order_by(journal.c.id)
JOURNAL_PAYLOADS = (
    select(journal.c.first_seq, journal.c.payload)
    .where(journal.c.id.in_(bindparam("p_ids", expanding=True)))
    .order_by(journal.c.id)
)

_LIVE = (
    select(runs.c.id)
    .where(runs.c.session_id == sessions.c.id, _IS_LIVE)
    .scalar_subquery()
    .label("live_run_id")
)
SESSION = select(sessions, _LIVE).where(sessions.c.id == _p("id"), sessions.c.owner == _p("owner"))
SESSION_BY_KEY = select(sessions, _LIVE).where(
    sessions.c.owner == _p("owner"),
    sessions.c.dialect == _p("dialect"),
    sessions.c.key == _p("key"),
)
_SESSIONS = (
    select(sessions, _LIVE)
    .where(sessions.c.owner == _p("owner"), sessions.c.hidden.is_(False))
    .order_by(sessions.c.updated_at.desc(), sessions.c.id.desc())
    .limit(_p("limit"))
)
_BEFORE = or_(
    sessions.c.updated_at < _p("at"),
    and_(sessions.c.updated_at == _p("at"), sessions.c.id < _p("id")),
)
_FOUND = or_(
    _Contains(sessions.c.title, _QUERY),
    exists().where(
        messages.c.session_id == sessions.c.id,
        messages.c.active.is_(True),
        _Contains(messages.c.content, _QUERY),
    ),
)
SESSIONS_FIRST = _SESSIONS
SESSIONS_BEFORE = _SESSIONS.where(_BEFORE)
SESSIONS_FOUND_FIRST = _SESSIONS.where(_FOUND)
SESSIONS_FOUND_BEFORE = _SESSIONS.where(_BEFORE, _FOUND)

CONVERSATION = select(conversations.c.conversation).where(
    conversations.c.session_id == _p("session_id"), conversations.c.upstream == _p("upstream")
)
KEYS = select(api_keys).order_by(api_keys.c.created_at, api_keys.c.id)

MESSAGE = (
    select(messages)
    .join(sessions, sessions.c.id == messages.c.session_id)
    .where(messages.c.id == _p("id"), sessions.c.owner == _p("owner"))
)
_MESSAGES = (
    select(messages)
    .where(messages.c.session_id == _p("session_id"), messages.c.active.is_(True))
    .order_by(messages.c.turn_id, messages.c.id)
    .limit(_p("limit"))
)
MESSAGES_FIRST = _MESSAGES
MESSAGES_AFTER = _MESSAGES.where(
    or_(
        messages.c.turn_id > _p("turn_id"),
        and_(messages.c.turn_id == _p("turn_id"), messages.c.id > _p("id")),
    )
)
VERSIONS = (
    select(messages.c.id, messages.c.turn_id)
    .where(
        messages.c.session_id == _p("session_id"),
        messages.c.turn_id.in_(bindparam("p_turns", expanding=True)),
        messages.c.role == "assistant",
    )
    .order_by(messages.c.turn_id, messages.c.version)
)
REFERENCES = (
    select(message_references)
    .where(message_references.c.message_id.in_(bindparam("p_messages", expanding=True)))
    .order_by(message_references.c.message_id, message_references.c.place)
)
TURNS = (
    select(messages.c.turn_id, messages.c.role, messages.c.content)
    .where(
        messages.c.session_id == _p("session_id"),
        messages.c.turn_id < _p("before"),
        messages.c.active.is_(True),
    )
    .order_by(messages.c.turn_id.desc(), messages.c.id.desc())
    .limit(_p("limit"))
)
