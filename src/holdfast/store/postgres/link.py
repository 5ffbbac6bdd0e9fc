"""Connections to PostgreSQL: how they are made, what their failures mean."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import asyncpg
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from holdfast.errors import ConfigError, HoldfastError, StoreError, StoreUnavailable

CONNECT_TIMEOUT_S: Final = 5.0
STATEMENT_TIMEOUT_MS: Final = 10_000
LOCK_TIMEOUT_MS: Final = 3_000
IDLE_IN_TRANSACTION_MS: Final = 3_000
"""A process that is stopped in the middle of a transaction must not keep its locks."""

_PASSING: Final = (
    asyncpg.PostgresConnectionError,  # 08: the connection is gone
    asyncpg.InvalidTransactionStateError,  # 25: idle for too long, or a replica that only reads
    asyncpg.TransactionRollbackError,  # 40: deadlock
    asyncpg.InsufficientResourcesError,  # 53: disk full, too many connections
    asyncpg.ObjectNotInPrerequisiteStateError,  # 55: a lock that was waited for too long
    asyncpg.OperatorInterventionError,  # 57: shutting down, starting up, cancelled
    asyncpg.PostgresSystemError,  # 58: the operating system failed it
    asyncpg.InterfaceError,  # the connection was closed under us
    asyncpg.InternalClientError,  # so too, by a message between two statements
    OSError,
    TimeoutError,
)
"""What may be different the next time."""
_SETTINGS: Final = (
    asyncpg.InvalidAuthorizationSpecificationError,  # 28
    asyncpg.InvalidCatalogNameError,  # 3D: no such database
)


class Link:
    """The database that a URL names."""

    def __init__(self, url: str) -> None:
        """Take `postgresql://user:password@host:port/database?…`, as libpq does.

        Raises:
            ConfigError: It is no such URL.
        """
        scheme, separator, rest = url.partition("://")
        try:
            parsed = make_url(url)
        except (ArgumentError, ValueError):
            parsed = None
        if (
            parsed is None
            or not separator
            or scheme.split("+")[0] not in ("postgresql", "postgres")
        ):
            raise ConfigError("storage.url must be like postgresql://user:password@host/database")
        self._dsn = f"postgresql://{rest}"
        self.name = f"PostgreSQL at {parsed.host or 'localhost'}"

    async def connect(self, purpose: str, **settings: str) -> asyncpg.Connection:
        """A new connection.

        Args:
            purpose: What it is for, as PostgreSQL shows it (`application_name`).
            settings: Settings of the session.

        Raises:
            OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError: It failed.
        """
        try:
            return await asyncpg.connect(
                self._dsn,
                timeout=CONNECT_TIMEOUT_S,
                server_settings={
                    "application_name": f"holdfast {purpose}",
                    "statement_timeout": str(STATEMENT_TIMEOUT_MS),
                    "lock_timeout": str(LOCK_TIMEOUT_MS),
                    "idle_in_transaction_session_timeout": str(IDLE_IN_TRANSACTION_MS),
                    "jit": "off",
                }
                | settings,
            )
        except (asyncpg.ClientConfigurationError, ValueError) as error:
            raise ConfigError(f"storage.url: {error}") from None

    def translate(self, error: BaseException, *, opening: bool = False) -> HoldfastError:
        """The error of the port that an error of the driver stands for.

        Who is not let in when it opens has wrong settings; later, somebody may be changing them.
        """
        cause: BaseException | None = error
        if isinstance(error, DBAPIError):
            cause = error.orig
            # SQLAlchemy hides the driver's own error behind one of its adapter.
            cause = getattr(cause, "__cause__", None) or cause
        if isinstance(cause, HoldfastError):
            return cause
        if opening and isinstance(cause, _SETTINGS):
            return ConfigError(f"{self.name} does not let us in: {cause}")
        told = str(cause) or type(cause).__name__
        if isinstance(cause, (*_PASSING, *_SETTINGS)) or isinstance(error, SQLAlchemyError):
            return StoreUnavailable(f"{self.name} does not answer: {told}")
        return StoreError(f"the database refused a write: {told}")


@contextmanager
def deadline(connection: asyncpg.Connection, at: float) -> Iterator[None]:
    """Hang up when the loop's time is `at`: whatever waits for the server fails then.

    A statement that is cancelled instead would be followed by a ROLLBACK, which waits for a
    server that may be gone without a word.
    """
    alarm = asyncio.get_running_loop().call_at(at, connection.terminate)
    try:
        yield
    finally:
        alarm.cancel()


def is_passing(error: BaseException) -> bool:
    """Whether the same may succeed later."""
    return isinstance(error, (*_PASSING, *_SETTINGS))


FAILURES: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)
"""All that the driver raises."""
