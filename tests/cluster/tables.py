"""What is in the database, read past the nodes and their proxies."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from tests.faults.database import Image, StoredRun, stored_run

PATIENCE_S: Final = 20.0
AWAY: Final = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError)
"""What reading raises while PostgreSQL is down."""

_ORPHANS: Final = """
SELECT runs.id FROM runs
WHERE runs.status <> 'ended' AND NOT EXISTS (
  SELECT FROM nodes JOIN node_heartbeats
    ON node_heartbeats.node_id = nodes.id AND node_heartbeats.generation = nodes.generation
  WHERE nodes.id = runs.node_id AND nodes.generation = runs.generation)
"""
_CLAIMS: Final = """
SELECT nodes.id, nodes.generation FROM nodes JOIN node_heartbeats
  ON node_heartbeats.node_id = nodes.id AND node_heartbeats.generation = nodes.generation
"""


@dataclass(frozen=True)
class Claim:
    """A node under one of its generations."""

    node_id: str
    generation: int


@dataclass(frozen=True)
class Snapshot:
    """All tables at one instant."""

    image: Image
    journal_rows: list[dict[str, Any]]
    claims: frozenset[Claim]
    """The nodes that may write, each with its generation."""
    orphans: frozenset[str]
    """Live runs whose owner is no node any more."""

    def runs_of(self, claims: Iterable[Claim]) -> dict[str, StoredRun]:
        """The runs that were begun under these claims."""
        wanted = set(claims)
        return {run_id: run for run_id, run in self.image.runs.items() if claim_of(run) in wanted}


def claim_of(run: StoredRun) -> Claim:
    """Who began a run."""
    return Claim(run.row["node_id"], run.row["generation"])


class Tables:
    """A database, each look at it over a connection of its own."""

    def __init__(self, url: str) -> None:
        self._url = url

    def snapshot(self) -> Snapshot:
        """All tables, in one transaction."""
        return asyncio.run(self._snapshot())

    async def _snapshot(self) -> Snapshot:
        connection = await asyncpg.connect(self._url, timeout=PATIENCE_S, ssl=False)
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                return await _read(connection)
        finally:
            await connection.close()

    def rows(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        """The rows of a statement."""
        return asyncio.run(self._rows(sql, *values))

    async def _rows(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        connection = await asyncpg.connect(self._url, timeout=PATIENCE_S, ssl=False)
        try:
            return await _fetch(connection, sql, *values)
        finally:
            await connection.close()

    def claims(self) -> frozenset[Claim]:
        """The nodes that may write now."""
        return _as_claims(self.rows(_CLAIMS))

    def live_runs(self) -> set[str]:
        """The runs that have not ended."""
        return {row["id"] for row in self.rows("SELECT id FROM runs WHERE status <> 'ended'")}

    def live_runs_of(self, node_id: str) -> set[str]:
        """Those of them that this node began, under whatever generation."""
        found = self.rows("SELECT id FROM runs WHERE status <> 'ended' AND node_id = $1", node_id)
        return {row["id"] for row in found}

    def orphans(self) -> set[str]:
        """Live runs whose owner is no node any more."""
        return {row["id"] for row in self.rows(_ORPHANS)}


async def _read(connection: Any) -> Snapshot:
    journal = await _fetch(connection, "SELECT * FROM journal ORDER BY run_id, first_seq")
    by_run: dict[str, list[dict[str, Any]]] = {}
    for row in journal:
        by_run.setdefault(row["run_id"], []).append(row)
    logs = {row["run_id"]: row for row in await _fetch(connection, "SELECT * FROM run_logs")}
    runs = {
        row["id"]: stored_run(row, by_run.get(row["id"], []), logs)
        for row in await _fetch(connection, "SELECT * FROM runs ORDER BY id")
    }
    references: dict[str, list[dict[str, Any]]] = {}
    for row in await _fetch(connection, "SELECT * FROM message_references ORDER BY place"):
        references.setdefault(row["message_id"], []).append(row)
    messages = {row["id"]: row for row in await _fetch(connection, "SELECT * FROM messages")}
    return Snapshot(
        Image(runs, messages, references, len(journal)),
        journal,
        _as_claims(await _fetch(connection, _CLAIMS)),
        frozenset(row["id"] for row in await _fetch(connection, _ORPHANS)),
    )


async def _fetch(connection: Any, sql: str, *values: Any) -> list[dict[str, Any]]:
    return [dict(row) for row in await connection.fetch(sql, *values, timeout=PATIENCE_S)]


def _as_claims(rows: list[dict[str, Any]]) -> frozenset[Claim]:
    return frozenset(Claim(row["id"], row["generation"]) for row in rows)
