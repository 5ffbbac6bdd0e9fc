"""The PostgreSQL of the benchmark: a private one, on the disk, which flushes as it does by default.

What it costs is read from its processes, what it wrote from its own counters.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from bench.process import BenchError, cpu_us, tree_of
from tests.support.postgres import NoPostgres, PrivateServer, private_server

_COUNTERS = """
SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint AS transactions,
       (pg_current_wal_insert_lsn() - '0/0')::bigint AS wal_bytes
"""


@dataclass(frozen=True)
class DatabaseReading:
    """What a server has done so far."""

    cpu_us: float
    """User and system time of all its processes."""
    transactions: int
    """Those that wrote something, or notified."""
    wal_bytes: int

    def since(self, before: "DatabaseReading") -> "DatabaseReading":
        """What was done in between."""
        return DatabaseReading(
            self.cpu_us - before.cpu_us,
            self.transactions - before.transactions,
            self.wal_bytes - before.wal_bytes,
        )


class Database:
    """See the module."""

    def __init__(self, server: PrivateServer) -> None:
        self._server = server

    @contextmanager
    def fresh(self) -> Iterator[str]:
        """A new database for the time of the block; its URL. What was before it is on the disk."""
        with self._server.database() as url:
            self._server.run("CHECKPOINT")
            yield url

    def read_before(self) -> DatabaseReading:
        """The counters before a load: what asking for them costs comes first."""
        counters = self._counters()
        return DatabaseReading(self._cpu_us(), *counters)

    def read_after(self) -> DatabaseReading:
        """The counters after a load: what asking for them costs comes last."""
        cost = self._cpu_us()
        return DatabaseReading(cost, *self._counters())

    def _cpu_us(self) -> float:
        return cpu_us(tree_of(self._server.pid))

    def _counters(self) -> tuple[int, int]:
        (row,) = self._server.run(_COUNTERS)
        return row["transactions"], row["wal_bytes"]


@contextmanager
def start_database() -> Iterator[Database]:
    """A server for the time of the block.

    Raises:
        BenchError: PostgreSQL is not installed.
    """
    try:
        with private_server(durable=True) as server:
            yield Database(server)
    except NoPostgres as problem:
        raise BenchError(str(problem)) from None
