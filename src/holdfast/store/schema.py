"""The tables. Times are milliseconds since the Unix epoch; JSON is kept as text.

The journal has no index on SQLite: an index by run would touch one page per run and commit,
which costs several times the insert itself. The one process that writes the file keeps the
places of its live runs' rows in memory instead (docs/decisions, journal without an index). On
PostgreSQL, where any node may read any run, its key is (run_id, first_seq) and it has no `id`.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    false,
    text,
)

from holdfast.store.kept_text import KeptText as Text

metadata = MetaData()

_BigKey = BigInteger().with_variant(Integer, "sqlite")

sessions = Table(
    "sessions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("dialect", Text, nullable=False),
    Column("key", Text),
    Column("title", Text),
    Column("hidden", Boolean, nullable=False),
    Column("metadata", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("preset", Text),
    Index("sessions_by_use", "owner", "updated_at", "id"),
    Index(
        "sessions_by_key",
        "owner",
        "dialect",
        "key",
        unique=True,
        sqlite_where=text("key IS NOT NULL"),
        postgresql_where=text("key IS NOT NULL"),
    ),
)

conversations = Table(
    "conversations",
    metadata,
    Column("session_id", Text, ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True),
    Column("upstream", Text, primary_key=True),
    Column("conversation", Text, nullable=False),
)

messages = Table(
    "messages",
    metadata,
    Column("id", Text, primary_key=True),
    Column("session_id", Text, ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False),
    Column("turn_id", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("content", Text, nullable=False),
    Column("marks", Text),
    Column("reasoning", Text),
    Column("tool_calls", Text),
    Column("usage", Text),
    Column("outcome", Text),
    Column("reason", Text),
    Column("error", Text),
    Column("run_id", Text),
    Column("upstream", Text),
    Column("model", Text),
    Column("version", Integer, nullable=False),
    Column("active", Boolean, nullable=False),
    Column("feedback", Text),
    Column("metadata", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("completed_at", BigInteger),
    Index("messages_by_turn", "session_id", "turn_id", "id"),
)

message_references = Table(
    "message_references",
    metadata,
    Column("message_id", Text, ForeignKey("messages.id", ondelete="CASCADE"), primary_key=True),
    Column("place", Integer, primary_key=True, autoincrement=False),
    Column("ordinal", Integer, nullable=False),
    Column("document_id", Text),
    Column("document_name", Text),
    Column("chunk_id", Text),
    Column("text", Text, nullable=False),
    Column("url", Text),
    Column("score", Float),
    Column("positions", Text),
    Column("extra", Text),
)

runs = Table(
    "runs",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("session_id", Text, ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False),
    Column("message_id", Text, nullable=False),
    Column("question_id", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("upstream", Text, nullable=False),
    Column("model", Text),
    Column("route_reason", Text),
    Column("outcome", Text),
    Column("reason", Text),
    Column("error", Text),
    Column("on_disconnect", Text, nullable=False),
    Column("idempotency_key", Text),
    Column("fingerprint", Text),
    Column("cancel_requested", Boolean, nullable=False, server_default=false()),
    Column("last_seq", BigInteger),
    Column("request", Text),
    Column("response", Text),
    Column("created_at", BigInteger, nullable=False),
    Column("ended_at", BigInteger),
    Column("node_id", Text),
    Column("generation", BigInteger),
    Index(
        "runs_live_by_session",
        "session_id",
        unique=True,
        sqlite_where=text("status <> 'ended'"),
        postgresql_where=text("status <> 'ended'"),
    ),
    Index("runs_by_session", "session_id"),
    Index(
        "runs_by_idempotency_key",
        "owner",
        "idempotency_key",
        unique=True,
        sqlite_where=text("idempotency_key IS NOT NULL"),
        postgresql_where=text("idempotency_key IS NOT NULL"),
    ),
)

journal = Table(
    "journal",
    metadata,
    Column("id", _BigKey, primary_key=True),
    Column("run_id", Text, nullable=False),
    Column("first_seq", BigInteger, nullable=False),
    Column("last_seq", BigInteger, nullable=False),
    Column("payload", LargeBinary, nullable=False),
)

run_logs = Table(
    "run_logs",
    metadata,
    Column("run_id", Text, ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
    Column("last_seq", BigInteger, nullable=False),
    Column("payload", LargeBinary, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("owner", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("concurrent_runs", Integer),
    Column("asks_per_minute", Integer),
    Column("created_at", BigInteger, nullable=False),
    Column("revoked_at", BigInteger),
    Index("api_keys_by_digest", "digest", unique=True),
)

nodes = Table(
    "nodes",
    metadata,
    Column("id", Text, primary_key=True),
    Column("generation", BigInteger, nullable=False),
    Column("started_at", BigInteger, nullable=False),
)
"""The processes that may write. Every write of a node passes only under its generation."""

node_heartbeats = Table(
    "node_heartbeats",
    metadata,
    Column("node_id", Text, primary_key=True),
    Column("generation", BigInteger, nullable=False),
    Column("lease_ms", BigInteger, nullable=False),
    Column("beat_at", BigInteger, nullable=False),
)
"""A row of its own for each node, so that its heartbeats do not wait for its writes. Times are
the database's."""

compatibility = Table("compatibility", metadata, Column("oldest", Text, primary_key=True))
"""One row: the oldest revision whose release can work with this schema. A migration that breaks
older code raises it; until then nodes of the last release and of this one run side by side."""
