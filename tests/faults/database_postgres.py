"""The same on PostgreSQL."""

import json
from pathlib import Path
from typing import Any

import asyncpg

from tests.faults.database import STREAMING, TABLES, Database, Image, image_of
from tests.faults.processes import wait_until
from tests.support.postgres import PostgresServer, run_apart, run_sql

GONE_S = 10.0
CONNECTED = """
SELECT pid FROM pg_stat_activity
WHERE datname = current_database() AND application_name LIKE 'holdfast %'
"""
QUERIES = {**TABLES, "journal": "SELECT * FROM journal ORDER BY run_id, first_seq"}


class PostgresDatabase(Database):
    """A database of the round's own."""

    def __init__(self, server: PostgresServer) -> None:
        """Make it."""
        self._server = server
        self.url = server.create_database()

    def left_behind(self, target: Path) -> Image:
        """See `Database`. PostgreSQL may still do what the dead process has asked for last."""
        wait_until(lambda: not run_sql(self.url, CONNECTED), GONE_S, "the end of its connections")
        image = self.image()
        rows = [run.row for run in image.runs.values()]
        (target / "runs.json").write_text(json.dumps(rows, indent=1))
        return image

    def image(self) -> Image:
        """See `Database`."""
        return run_apart(self._image)

    async def _image(self) -> Image:
        connection = await asyncpg.connect(self.url)
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                tables: dict[str, list[dict[str, Any]]] = {
                    name: [dict(row) for row in await connection.fetch(sql)]
                    for name, sql in QUERIES.items()
                }
            return image_of(tables)
        finally:
            await connection.close()

    def streaming(self) -> set[str]:
        """See `Database`."""
        return {row["id"] for row in run_sql(self.url, STREAMING)}

    def close(self) -> None:
        """See `Database`."""
        self._server.drop_database(self.url)
