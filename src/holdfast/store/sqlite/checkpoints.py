"""Moving what the write-ahead log holds into the database, beside the one who writes.

SQLite lets the commit that fills its log do this, and all answers wait for that commit. Done now
and then by another thread on a connection of its own it holds up nobody, and little is left for
the commit that ends it and lets the log begin anew.
"""

import logging
import sqlite3
import time
from typing import Final

from holdfast.store.sqlite.work_thread import WorkThread

logger = logging.getLogger(__name__)

INTERVAL_S: Final = 1.0


class Checkpoints:
    """Checkpoints of one database while it is written to."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Use a connection that nobody else does; `close` closes it."""
        self._connection = connection
        self._thread = WorkThread("holdfast-store-checkpoints")
        self._due = 0.0
        self._busy = False

    def committed(self) -> None:
        """Something was committed; a checkpoint is begun if the last one was long ago."""
        now = time.monotonic()
        if now >= self._due and not self._busy:
            self._busy = True
            self._due = now + INTERVAL_S
            self._thread.post(self._checkpoint)

    def _checkpoint(self) -> None:
        try:
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
        except sqlite3.Error as error:
            # The log keeps what it has, and the writer hears of the same trouble.
            logger.debug("no checkpoint: %s", error)
        finally:
            self._busy = False

    async def close(self) -> None:
        """Wait for the one that is under way, and disconnect."""
        await self._thread.run(self._connection.close)
        self._thread.close()
