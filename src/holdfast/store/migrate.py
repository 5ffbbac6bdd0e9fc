"""Bringing a database's schema up to date, forward only."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine

from holdfast.errors import ConfigError

HEAD = "0001"
"""The newest revision; a test holds it against the files in `migrations/versions`."""


def current(engine: Engine) -> str | None:
    """The revision of this database; None for an empty one."""
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


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
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return before, HEAD
