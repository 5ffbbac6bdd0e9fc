"""The port of the store: what every implementation must guarantee.

Writes are values. `Store.commit` takes a batch of them and applies it in one transaction, so the
cost of a commit is shared by every run that has something to save. Times are whole milliseconds
since the Unix epoch.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec

from holdfast.engine.fold import Answer
from holdfast.engine.policy import Turn
from holdfast.events import Entry, Reference

# ---------------------------------------------------------------------------- records


class SessionRecord(msgspec.Struct, frozen=True):
    """A conversation."""

    id: str
    owner: str
    title: str | None
    created_at: int
    updated_at: int
    dialect: str = "native"
    key: str | None = None
    """The caller's own name for it, unique per owner and dialect; None on the native surface."""
    hidden: bool = False
    preset: str | None = None
    """The named configuration that its questions are asked with."""
    metadata: dict[str, Any] | None = None
    live_run_id: str | None = None


class RunRecord(msgspec.Struct, frozen=True):
    """One attempt to write one assistant message."""

    id: str
    owner: str
    session_id: str
    message_id: str
    question_id: str
    status: str
    """`accepted` while it is live, `ended` after; finer states live in its owner's memory."""
    upstream: str
    created_at: int
    model: str | None = None
    route_reason: str | None = None
    outcome: str | None = None
    reason: str | None = None
    error: str | None = None
    on_disconnect: str = "continue"
    idempotency_key: str | None = None
    fingerprint: str | None = None
    """Digest of the request that the idempotency key stands for."""
    last_seq: int | None = None
    ended_at: int | None = None


class MessageRecord(msgspec.Struct, frozen=True):
    """One turn as people see it."""

    id: str
    session_id: str
    turn_id: str
    """The id of the turn's question; the same for the question and every version of its answer."""
    role: str
    status: str
    created_at: int
    answer: Answer = Answer()
    """What the message says; for a question only `text` is set."""
    outcome: str | None = None
    reason: str | None = None
    error: str | None = None
    run_id: str | None = None
    upstream: str | None = None
    model: str | None = None
    version: int = 1
    active: bool = True
    versions: tuple[str, ...] = ()
    """Ids of all versions of this answer, oldest first; empty for a question."""
    feedback: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None
    completed_at: int | None = None


class KeyRecord(msgspec.Struct, frozen=True):
    """An API key; the key itself is not kept."""

    id: str
    owner: str
    name: str
    """What people call it."""
    digest: str
    """SHA-256 of the key, in hexadecimal digits."""
    scopes: tuple[str, ...]
    created_at: int
    concurrent_runs: int | None = None
    """How many live runs it may have; None: as many as the settings allow."""
    asks_per_minute: int | None = None
    """How many questions it may ask in a minute; None: as many as the settings allow."""
    revoked_at: int | None = None


class LogPage(msgspec.Struct, frozen=True):
    """Some consecutive entries of a run's log."""

    entries: list[Entry]
    ended: bool
    """Whether the log has its last event; `entries` may still stop before it."""
    last_seq: int
    """The last committed seq of the run."""


# ---------------------------------------------------------------------------- writes


class CreateRun(msgspec.Struct, frozen=True):
    """Commit a question and its run together (promises P1 and P7).

    Result: `RunCreated`. Refusals: NotFound (session or question), RunActive, IdempotencyMismatch.
    """

    run: RunRecord
    start: bytes
    """The encoded `run-start`: event 1 of the run's log."""
    session: SessionRecord | None
    """A session to create; None: the one that `run.session_id` names must exist."""
    question: str | None
    """The question's text; None: `run.question_id` must exist (a new version of its answer)."""
    metadata: dict[str, Any] | None = None
    title: str | None = None
    """Set as the session's title if it has none yet."""
    retire_from: str | None = None
    """A turn: it and all later ones of the session are left out from now on; their messages are
    still found by their ids."""


class RunCreated(msgspec.Struct, frozen=True):
    """The result of `CreateRun`."""

    run: RunRecord
    replayed: bool
    """The idempotency key was used before: `run` is that earlier run, nothing was written."""


class Append(msgspec.Struct, frozen=True):
    """Add consecutive events to the journal of a live run."""

    run_id: str
    first_seq: int
    last_seq: int
    payload: bytes
    request: dict[str, Any] | None = None
    """What was sent to the upstream, if it is to be kept now: a crash must not lose it."""


class FinishRun(msgspec.Struct, frozen=True):
    """End a run: its last events, its message, references and outcome, all or nothing (P3, P4).

    Result: True; False if the run had ended already or does not exist any more, in which case
    nothing is written.
    """

    run_id: str
    message_id: str
    append: Append
    """The events that are not in the journal yet, `run-end` among them."""
    answer: Answer
    ended_at: int
    log: bytes | None = None
    """The whole log as it is stored, `append` included, if its owner still has it; else the store
    puts it together from the journal."""
    metadata: dict[str, Any] | None = None
    """The message's; None leaves what it has."""
    request: dict[str, Any] | None = None
    """None leaves what an `Append` has told."""
    response: Any = None


class RequestCancel(msgspec.Struct, frozen=True):
    """Note that a run should stop, for whichever node owns it."""

    run_id: str


class CreateSession(msgspec.Struct, frozen=True):
    """Create an empty session."""

    session: SessionRecord


class UpdateSession(msgspec.Struct, frozen=True):
    """Rename a session or replace its metadata. Refusal: NotFound."""

    owner: str
    session_id: str
    updated_at: int
    title: str | None = None
    metadata: dict[str, Any] | None = None


class DeleteSession(msgspec.Struct, frozen=True):
    """Erase a session with its messages, references, runs, logs and raw data. Refusal: NotFound."""

    owner: str
    session_id: str


class Remember(msgspec.Struct, frozen=True):
    """Note an upstream's own name for a session's conversation; the later one counts.

    A session that does not exist any more is no error.
    """

    session_id: str
    upstream: str
    conversation: str


class SetFeedback(msgspec.Struct, frozen=True):
    """Replace what a person thinks of an answer; None takes it back.

    Refusals: NotFound; Conflict for a question.
    """

    owner: str
    message_id: str
    feedback: dict[str, Any] | None


class CompleteMessage(msgspec.Struct, frozen=True):
    """Complete an ended partial answer with what its reader has of it; the log stays as it is.

    The message gets the text, the references, status `complete` and `completed_by: "client"` in
    its metadata, in place of what they said of the early end; outcome and reason stay. With the
    content that such a message already has, or the text of one that was complete by itself,
    nothing changes. Result: None.

    Refusals: NotFound; Conflict while it streams, against an answer that was complete by itself
    with another text, for a question, for an answer that was completed otherwise before, and for
    a text that does not begin with what is stored.
    """

    owner: str
    session_id: str
    message_id: str
    text: str
    references: tuple[Reference, ...] | None
    """None leaves those that are stored."""
    completed_at: int


class CreateKey(msgspec.Struct, frozen=True):
    """Keep a key."""

    key: KeyRecord


class RevokeKey(msgspec.Struct, frozen=True):
    """Make a key useless from now on. Refusal: NotFound; twice is no error."""

    key_id: str
    revoked_at: int


class Probe(msgspec.Struct, frozen=True):
    """Try whether the store takes writes, as a real append would, and leave nothing behind."""

    at: int


Write: TypeAlias = (
    CreateRun
    | Append
    | FinishRun
    | RequestCancel
    | CreateSession
    | UpdateSession
    | DeleteSession
    | Remember
    | SetFeedback
    | CompleteMessage
    | CreateKey
    | RevokeKey
    | Probe
)


# ---------------------------------------------------------------------------- the port


class Store(ABC):
    """The truth.

    An implementation guarantees:

    - `commit` is atomic and durable: when it returns, everything it says it wrote survives the
      death of this process; when it raises, nothing of the batch was written.
    - Writes of a batch take effect in their order. One that is refused or can never be stored
      does not harm the others: its result is the exception, the others are applied.
    - Reads see every commit that has returned.
    - `read_log` gives a run's events without gap and in order, whether they are still in the
      journal or already in the run's log, also while a finishing transaction moves them.
    - A run has at most one live sibling per session, and exactly one `FinishRun` succeeds.
    - Everything that is asked for with an `owner` exists only for that owner (P8).
    """

    @abstractmethod
    async def open(self) -> None:
        """Connect and check the schema.

        Raises:
            StoreLocked: Another process has the database (SQLite).
            StoreUnavailable: It does not answer.
            ConfigError: Its schema is not one that this release knows.
        """

    @abstractmethod
    async def close(self) -> None:
        """Let go of everything; safe to call twice."""

    @abstractmethod
    async def commit(self, writes: Sequence[Write]) -> list[Any]:
        """Apply `writes` in one transaction.

        Returns:
            A result per write, in order: what its class says, or the exception that refused it.
            A `StoreUnavailable` among them means: this one was not applied, try it again.

        Raises:
            StoreUnavailable: Nothing was applied; the same batch may be tried again.
        """

    @abstractmethod
    async def read_log(self, run_id: str, after: int, limit: int = 1000) -> LogPage | None:
        """Committed entries with seq > `after`, some `limit` at most; None: no such run."""

    @abstractmethod
    async def live_runs(self) -> list[tuple[RunRecord, bool]]:
        """The runs that have not ended, oldest first, each with whether it was cancelled."""

    @abstractmethod
    async def get_run(self, owner: str, run_id: str) -> RunRecord | None:
        """A run of this owner."""

    @abstractmethod
    async def get_raw(self, run_id: str) -> tuple[Any, Any]:
        """What was said on the wire in this run: request and response, None where not kept."""

    @abstractmethod
    async def get_session(self, owner: str, session_id: str) -> SessionRecord | None:
        """A session of this owner."""

    @abstractmethod
    async def find_session(self, owner: str, dialect: str, key: str) -> SessionRecord | None:
        """The session that the caller's own `key` names."""

    @abstractmethod
    async def find_run(self, owner: str, idempotency_key: str) -> RunRecord | None:
        """The run that this key stands for."""

    @abstractmethod
    async def get_conversation(self, session_id: str, upstream: str) -> str | None:
        """What `Remember` noted last for this session and upstream."""

    @abstractmethod
    async def list_keys(self) -> list[KeyRecord]:
        """Every key, revoked ones too, oldest first."""

    @abstractmethod
    async def list_sessions(
        self,
        owner: str,
        limit: int,
        before: tuple[int, str] | None = None,
        query: str | None = None,
    ) -> list[SessionRecord]:
        """Sessions that are not hidden, last used first, from `before` (updated_at, id) on.

        With `query` only those whose title, or an active version of one of whose messages, has
        this text in it; letters of either case are the same, at least those of ASCII. Space
        around it does not count, and nothing but space is no query.
        """

    @abstractmethod
    async def get_message(self, owner: str, message_id: str) -> MessageRecord | None:
        """Any version of a message of this owner."""

    @abstractmethod
    async def list_messages(
        self, session_id: str, limit: int, after: tuple[str, str] | None = None
    ) -> list[MessageRecord]:
        """The active versions in order of their turns, from `after` (turn_id, id) on."""

    @abstractmethod
    async def list_turns(self, session_id: str, before: str, limit: int) -> list[Turn]:
        """The last `limit` turns before the turn `before`, oldest first, active versions only."""
