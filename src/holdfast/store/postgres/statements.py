"""The statements that only PostgreSQL has: the journal, nodes and their claims.

`$1` and `$2` are the node and its generation wherever something is written. The row of `nodes`
is locked for share in the statement that writes, so the claim cannot be taken away in between:
whoever raises the generation waits for such statements, and those that come later find that it
is not theirs any more.
"""

CLAIM = "SELECT 1 FROM nodes WHERE id = $1 AND generation = $2 FOR SHARE"

_APPEND = """
WITH claim AS MATERIALIZED (
  SELECT 1 FROM nodes WHERE id = $1 AND generation = $2 FOR SHARE
), given AS (
  SELECT * FROM unnest($3::text[], $4::bigint[], $5::bigint[], $6::bytea[])
    AS given(run_id, first_seq, last_seq, payload)
), added AS (
  INSERT INTO journal (run_id, first_seq, last_seq, payload)
  SELECT given.* FROM given
    JOIN runs ON runs.id = given.run_id
      AND runs.status <> 'ended' AND runs.node_id = $1 AND runs.generation = $2
    CROSS JOIN claim
  ON CONFLICT (run_id, first_seq) DO NOTHING
  RETURNING 1
){keep}
SELECT (SELECT count(*) FROM claim), (SELECT count(*) FROM added)
"""

_KEEP = """, kept AS (
  UPDATE runs SET request = asked.request
  FROM unnest($7::text[], $8::text[]) AS asked(run_id, request), claim
  WHERE runs.id = asked.run_id AND runs.node_id = $1 AND runs.generation = $2
    AND runs.status <> 'ended'
)"""

APPEND = _APPEND.format(keep="")
"""Rows of the journal; gives how many claims (0: fenced) and how many rows there were."""
APPEND_WITH_REQUESTS = _APPEND.format(keep=_KEEP)
"""The same, and what was sent to upstreams."""

APPENDED = """
SELECT given.run_id FROM unnest($3::text[], $4::bigint[], $5::bigint[])
    AS given(run_id, first_seq, last_seq)
  JOIN journal USING (run_id, first_seq, last_seq)
  JOIN runs ON runs.id = given.run_id
    AND runs.status <> 'ended' AND runs.node_id = $1 AND runs.generation = $2
"""
"""Which of these rows the journal has."""

CREATED_BEFORE = """
SELECT 1 FROM runs WHERE id = $3 AND node_id = $1 AND generation = $2
"""
"""Whether this node created a run."""
ENDED_BEFORE = """
SELECT 1 FROM runs
WHERE id = $3 AND status = 'ended' AND last_seq = $4 AND node_id = $1 AND generation = $2
"""
"""Whether this node ended a run, with this last seq."""

INSERT_JOURNAL = """
INSERT INTO journal (run_id, first_seq, last_seq, payload) VALUES ($1, $2, $3, $4)
"""
STORED_LOG = "SELECT payload FROM journal WHERE run_id = $1 ORDER BY first_seq"
FORGET_JOURNAL = "DELETE FROM journal WHERE run_id = $1"
FORGET_STRAYS = """
DELETE FROM journal
WHERE NOT EXISTS (SELECT FROM runs WHERE runs.id = journal.run_id AND runs.status <> 'ended')
"""
"""Rows that came while another node deleted their session; nobody can read them."""

# ---------------------------------------------------------------------------- reading

READ_JOURNAL = """
SELECT first_seq, payload FROM journal
WHERE run_id = $1 AND first_seq <= $2::bigint + $3::bigint
  AND first_seq >= coalesce(
    (SELECT max(first_seq) FROM journal WHERE run_id = $1 AND first_seq <= $2::bigint + 1), 0)
ORDER BY first_seq
"""
"""Rows of a run ($1) that have the `$3` entries after the seq `$2`."""

LAST_SEQ = "SELECT max(last_seq) FROM journal WHERE run_id = $1"

READ_NEWS = """
SELECT journal.run_id, journal.first_seq, journal.payload
FROM unnest($1::text[], $2::bigint[]) AS cursors(run_id, seq)
  JOIN journal ON journal.run_id = cursors.run_id AND journal.first_seq > cursors.seq
ORDER BY journal.run_id, journal.first_seq
LIMIT 2000
"""
"""Readers of a whole row at a time: their cursors are where rows end."""

NOT_LIVE = """
SELECT asked.id FROM unnest($1::text[]) AS asked(id)
WHERE NOT EXISTS (SELECT FROM runs WHERE runs.id = asked.id AND runs.status <> 'ended')
"""

# ---------------------------------------------------------------------------- nodes

_NOW_MS = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"

JOIN = f"""
INSERT INTO nodes (id, generation, started_at) VALUES ($1, $2::bigint + 1, {_NOW_MS})
ON CONFLICT (id) DO UPDATE
  SET generation = greatest(nodes.generation, $2) + 1, started_at = excluded.started_at
RETURNING generation
"""
"""No generation comes twice, even if the row was forgotten: the node knows its last one ($2)."""
BEGIN_LEASE = f"""
INSERT INTO node_heartbeats (node_id, generation, lease_ms, beat_at)
VALUES ($1, $2, $3, {_NOW_MS})
ON CONFLICT (node_id) DO UPDATE
  SET generation = excluded.generation, lease_ms = excluded.lease_ms, beat_at = excluded.beat_at
RETURNING beat_at
"""
BEAT = f"""
UPDATE node_heartbeats SET beat_at = {_NOW_MS} WHERE node_id = $1 AND generation = $2
RETURNING beat_at
"""
END_LEASE = "DELETE FROM node_heartbeats WHERE node_id = $1 AND generation = $2"
DROP_NODE = "DELETE FROM nodes WHERE id = $1 AND generation = $2"

_EXPIRED = f"""
beat_at + lease_ms < {_NOW_MS} AND lease_ms <= {_NOW_MS}
  - greatest($2::bigint, (extract(epoch FROM pg_postmaster_start_time()) * 1000)::bigint)
"""
EXPIRE = f"""
DELETE FROM node_heartbeats
WHERE node_id IN (
  SELECT node_id FROM node_heartbeats WHERE {_EXPIRED} FOR UPDATE SKIP LOCKED
) AND {_EXPIRED}
  AND EXISTS (
    SELECT FROM node_heartbeats AS judge
    WHERE judge.node_id = $1 AND judge.beat_at >= {_NOW_MS} - $3::bigint
  )
RETURNING node_id
"""
"""The heartbeat's row is the lease: whoever deletes it takes the claim. Nobody is judged for
silence in a time when the database was away, or the judge: $1, who has beaten without a break
since $2, and within the last $3 milliseconds even if this statement comes late."""
HANG_UP = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
  JOIN unnest($1::text[]) AS node(id) ON application_name = 'holdfast commit ' || node.id
WHERE usename = current_user AND datname = current_database()
"""
"""A process that is stopped in the middle of a transaction must not keep its claim locked."""
RAISE = "UPDATE nodes SET generation = generation + 1 WHERE id = ANY($1::text[])"
FORGET_NODES = f"""
DELETE FROM nodes
WHERE started_at < {_NOW_MS} - 3600000
  AND NOT EXISTS (SELECT FROM node_heartbeats WHERE node_id = nodes.id)
  AND NOT EXISTS (SELECT FROM runs WHERE runs.status <> 'ended' AND runs.node_id = nodes.id)
"""
"""Nodes that are long gone. One that still sleeps is fenced by its row's absence, too."""
NODE_OF = """
SELECT runs.node_id FROM runs
  JOIN nodes ON nodes.id = runs.node_id AND nodes.generation = runs.generation
WHERE runs.id = $1 AND runs.status <> 'ended'
"""
