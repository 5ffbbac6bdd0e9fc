"""Nodes with leases; on PostgreSQL a journal that every node can read."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# Ids are compared all the time, and are plain ASCII: no need to ask a locale.
PLAIN_IDS = {
    "sessions": ["id"],
    "conversations": ["session_id"],
    "messages": ["id", "session_id", "turn_id", "run_id"],
    "message_references": ["message_id"],
    "runs": ["id", "session_id", "message_id", "question_id", "node_id"],
    "journal": ["run_id"],
    "run_logs": ["run_id"],
    "nodes": ["id"],
    "node_heartbeats": ["node_id"],
}


def upgrade() -> None:
    op.add_column("runs", sa.Column("node_id", sa.Text(), nullable=True))
    op.add_column("runs", sa.Column("generation", sa.BigInteger(), nullable=True))
    op.create_table(
        "nodes",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "node_heartbeats",
        sa.Column("node_id", sa.Text(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("lease_ms", sa.BigInteger(), nullable=False),
        sa.Column("beat_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("node_id"),
    )
    compatibility = op.create_table(
        "compatibility",
        sa.Column("oldest", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("oldest"),
    )
    op.bulk_insert(compatibility, [{"oldest": revision}])
    if op.get_bind().dialect.name == "postgresql":
        _on_postgresql()


def _on_postgresql() -> None:
    for table, columns in PLAIN_IDS.items():
        changes = [f'ALTER COLUMN {column} TYPE text COLLATE "C"' for column in columns]
        op.execute(f"ALTER TABLE {table} {', '.join(changes)}")
    op.execute("ALTER TABLE journal DROP COLUMN id")
    op.execute("ALTER TABLE journal ADD PRIMARY KEY (run_id, first_seq)")
    op.execute(
        "CREATE INDEX runs_live_by_node ON runs (node_id, generation) WHERE status <> 'ended'"
    )
    # Its rows live as long as their run: cleaning up must keep pace, whatever the table's size.
    op.execute(
        "ALTER TABLE journal SET (autovacuum_vacuum_scale_factor = 0,"
        " autovacuum_vacuum_threshold = 20000, autovacuum_vacuum_insert_scale_factor = 0,"
        " autovacuum_vacuum_insert_threshold = 100000)"
    )
    for table in ("nodes", "node_heartbeats"):
        op.execute(
            f"ALTER TABLE {table} SET (autovacuum_vacuum_scale_factor = 0,"
            " autovacuum_vacuum_threshold = 200)"
        )
