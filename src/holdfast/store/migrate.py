"""Bringing a database's schema up to date, forward only."""

import logging
import sqlite3
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, inspect, select, text
from sqlalchemy.exc import DBAPIError

from holdfast.errors import ConfigError
from holdfast.store.schema import compatibility

logger = logging.getLogger(__name__)

HEAD = "0003"
"""The newest revision; a test holds it against the files in `migrations/versions`."""


UNKNOWN = "~"
"""Sorts after every revision."""
MIGRATION_LOCK = 5_207_100_948_170_324
"""Of the advisory lock that the nodes on one database take turns with."""


def current(engine: Engine) -> str | None:
    """The revision of this database; None for an empty one."""
    with engine.connect() as connection:
        return _current(connection)


def _current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def upgrade(engine: Engine) -> tuple[str | None, str]:
    """Run the migrations that are missing; the common case, none, costs one query.

    Returns:
        The revision before and after.

    Raises:
        ConfigError: The database comes from a newer release that this one cannot work with.
    """
    with engine.connect() as connection:
        before = _current(connection)
        if not _is_behind(connection, before):
            return before, before or HEAD
    with engine.begin() as connection:
        _begin_on_sqlite(connection)
        _migrate(connection)
    return before, HEAD


def upgrade_shared(connection: Connection) -> tuple[str | None, str]:
    """The same within a transaction on PostgreSQL, where several nodes may begin at once.

    Raises:
        ConfigError: See `upgrade`.
    """
    for setting in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"):
        connection.execute(text(f"SET LOCAL {setting} = 0"))
    connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": MIGRATION_LOCK})
    before = _current(connection)
    if not _is_behind(connection, before):
        return before, before or HEAD
    _migrate(connection)
    return before, HEAD


def _begin_on_sqlite(connection: Connection) -> None:
    """Begin the transaction that the driver would not begin for a change of the schema."""
    driver = connection.connection.driver_connection
    if isinstance(driver, sqlite3.Connection) and not driver.in_transaction:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    return config


def _is_behind(connection: Connection, revision: str | None) -> bool:
    """Whether migrations are missing; False also for a newer schema that does no harm."""
    if revision == HEAD:
        return False
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if revision is None or revision in known:
        return True
    if _oldest_release(connection) <= HEAD:
        logger.warning("the database has schema %s, newer than this release's %s", revision, HEAD)
        return False
    raise ConfigError(
        f"the database has schema {revision}, which this release does not know: "
        "it was written by a newer one"
    )


def _oldest_release(connection: Connection) -> str:
    """The oldest revision whose release can work with this schema, as a newer release noted."""
    if not inspect(connection).has_table(compatibility.name):
        return UNKNOWN
    oldest = connection.execute(select(compatibility.c.oldest)).scalars().all()
    return max(oldest, default=UNKNOWN)


def _migrate(connection: Connection) -> None:
    config = _config()
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except DBAPIError as error:
        if "already exists" in str(error.orig):
            raise ConfigError(f"the database has tables of another program: {error.orig}") from None
        raise
