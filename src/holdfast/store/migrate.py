"""Bringing a database's schema up to date, forward only."""

import sqlite3
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import OperationalError

from holdfast.errors import ConfigError

HEAD = "0002"
"""The newest revision; a test holds it against the files in `migrations/versions`."""


def current(engine: Engine) -> str | None:
    """The revision of this database; None for an empty one."""
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def _begin_on_sqlite(connection: Connection) -> None:
    """Begin the transaction that the driver would not begin for a change of the schema."""
    driver = connection.connection.driver_connection
    if isinstance(driver, sqlite3.Connection) and not driver.in_transaction:
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def upgrade(engine: Engine) -> tuple[str | None, str]:
    """Run the migrations that are missing; the common case, none, costs one query.

    Returns:
        The revision before and after.

    Raises:
        ConfigError: The database comes from a newer release.
    """
    before = current(engine)
    if before == HEAD:
        return before, HEAD
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if before is not None and before not in known:
        raise ConfigError(
            f"the database has schema {before}, which this release does not know: "
            "it was written by a newer one"
        )
    try:
        with engine.begin() as connection:
            _begin_on_sqlite(connection)
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except OperationalError as error:
        if "already exists" in str(error.orig):
            raise ConfigError(f"the database has tables of another program: {error.orig}") from None
        raise
    return before, HEAD
