"""A PostgreSQL for tests: one that is given, one that is there, or a private one.

with postgres_server() as server, server.database() as url:
    ...

A private server has a folder and a port of its own, and can be stopped, restarted and started:

with private_server() as server:
    server.restart("immediate")
"""

import asyncio
import os
import secrets
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlsplit, urlunsplit

import asyncpg

from tests.support.postgres_private import NoPostgres, PrivateCluster

__all__ = [
    "NoPostgres",
    "PostgresServer",
    "PrivateServer",
    "postgres_server",
    "private_server",
    "run_apart",
    "run_sql",
]

VARIABLE: Final = "HOLDFAST_TEST_POSTGRES_URL"
PREFIX: Final = "holdfast_test_"
PATIENCE_S: Final = 30.0

Rows = list[dict[str, Any]]
T = TypeVar("T")


class PostgresServer:
    """A server in which databases can be made.

    Attributes:
        url: Its maintenance database.
    """

    def __init__(self, url: str) -> None:
        """Use the server that has the database `url`."""
        self.url = url

    def database_url(self, name: str) -> str:
        """The URL of another database of this server."""
        return urlunsplit(urlsplit(self.url)._replace(path=f"/{name}"))

    def run(self, sql: str, *values: Any) -> Rows:
        """The rows of a statement in the maintenance database."""
        return run_sql(self.url, sql, *values)

    def create_database(self, template: str | None = None) -> str:
        """A new database, empty or as another one is that nobody is connected to; its URL."""
        name = PREFIX + secrets.token_hex(8)
        source = urlsplit(template).path[1:] if template else "template0"
        self.run(f'CREATE DATABASE "{name}" TEMPLATE "{source}"')
        return self.database_url(name)

    def drop_database(self, url: str) -> None:
        """Drop a database, whoever is connected to it."""
        self.run(f'DROP DATABASE IF EXISTS "{urlsplit(url).path[1:]}" WITH (FORCE)')

    @contextmanager
    def database(self, template: str | None = None) -> Iterator[str]:
        """A new database for the time of the block; its URL."""
        url = self.create_database(template)
        try:
            yield url
        finally:
            self.drop_database(url)

    def close_database(self, url: str) -> None:
        """Let nobody into a database, and send away who is in."""
        name = urlsplit(url).path[1:]
        self.run(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        self.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)

    def open_database(self, url: str) -> None:
        """Undo `close_database`."""
        self.run(f'ALTER DATABASE "{urlsplit(url).path[1:]}" ALLOW_CONNECTIONS true')

    def cut(self, application_name: str = "holdfast %") -> int:
        """End the connections whose application name is LIKE this one; how many there were."""
        found = self.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name LIKE $1 AND pid <> pg_backend_pid()",
            application_name,
        )
        return len(found)


class PrivateServer(PostgresServer):
    """A server of our own, which may be stopped."""

    def __init__(self, cluster: PrivateCluster) -> None:
        """Use a cluster that runs."""
        super().__init__(cluster.url)
        self._cluster = cluster

    @property
    def pid(self) -> int:
        """The process that all others come from, while it runs."""
        return self._cluster.pid

    @property
    def log_text(self) -> str:
        """What it has said."""
        return self._cluster.log.read_text(errors="replace")

    def stop(self, mode: str = "fast") -> None:
        """Stop it: `smart`, `fast` or `immediate` (no shutdown checkpoint, as in a crash)."""
        self._cluster.stop(mode)

    def start(self) -> None:
        """Start it again where it was; it takes connections when this returns."""
        self._cluster.start()

    def restart(self, mode: str = "fast") -> None:
        """Stop and start it."""
        self.stop(mode)
        self.start()


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """The server that the environment names, else the one of this machine, else a private one.

    Raises:
        NoPostgres: There is none; the message says in one line what to do.
    """
    url = os.environ.get(VARIABLE)
    if url:
        problem = _refusal(url)
        if problem:
            raise NoPostgres(f"{VARIABLE} names a server that is of no use: {problem}")
        yield PostgresServer(url)
    elif _refusal(local := _local_url()) is None:
        yield PostgresServer(local)
    else:
        with private_server() as server:
            yield server


@contextmanager
def private_server(*, durable: bool = False) -> Iterator[PrivateServer]:
    """A server of our own on a free port of the loopback, and nothing of it left afterwards.

    Args:
        durable: Keep it on the disk, and flush. Without, what is committed survives the death of
            any process, but not that of the machine.

    Raises:
        NoPostgres: PostgreSQL is not installed and cannot be.
    """
    cluster = PrivateCluster(durable=durable)
    try:
        cluster.create()
        yield PrivateServer(cluster)
    finally:
        cluster.close()


def run_sql(url: str, sql: str, *values: Any) -> Rows:
    """The rows of a statement, on a connection of its own; for callers with or without a loop."""
    return run_apart(lambda: fetch_sql(url, sql, *values))


def run_apart(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Wait for something asynchronous on a loop of its own, whether or not one runs here."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(work())).result()


async def fetch_sql(url: str, sql: str, *values: Any) -> Rows:
    """The rows of a statement, on a connection of its own."""
    connection = await asyncpg.connect(url, timeout=PATIENCE_S, ssl=False)
    try:
        return [dict(row) for row in await connection.fetch(sql, *values, timeout=PATIENCE_S)]
    finally:
        await connection.close()


def _local_url() -> str:
    """The server that listens here, as the variables of libpq name it."""
    user = quote(os.environ.get("PGUSER", "postgres"), safe="")
    password = os.environ.get("PGPASSWORD")
    secret = f":{quote(password, safe='')}" if password else ""
    host, port = os.environ.get("PGHOST", "127.0.0.1"), os.environ.get("PGPORT", "5432")
    database = quote(os.environ.get("PGDATABASE", "postgres"), safe="")
    return f"postgresql://{user}{secret}@{host}:{port}/{database}"


def _refusal(url: str) -> str | None:
    """Why tests cannot make databases there; None if they can."""
    try:
        (row,) = run_sql(
            url, "SELECT rolcreatedb OR rolsuper AS may FROM pg_roles WHERE rolname = current_user"
        )
    except (OSError, ValueError, TimeoutError, asyncpg.PostgresError) as error:
        return f"{type(error).__name__}: {error}"
    return None if row["may"] else "its user may not create databases"
