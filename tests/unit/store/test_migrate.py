"""Migrations: the newest schema is that of the code, and none runs twice."""

import re
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, create_engine, inspect

from holdfast.errors import ConfigError
from holdfast.store import migrate
from holdfast.store.schema import metadata
from tests.support.harness import SqliteHarness

VERSIONS = Path(migrate.__file__).parent / "migrations" / "versions"


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[SqliteHarness]:
    harness = SqliteHarness(tmp_path)
    yield harness
    await harness.close()


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    return create_engine(f"sqlite:///{tmp_path}/chat.db")


def test_the_head_is_the_newest_file() -> None:
    names = sorted(path.name for path in VERSIONS.glob("*.py"))
    assert re.match(r"\d{4}_", names[-1])
    assert names[-1][:4] == migrate.HEAD


def test_every_revision_follows_the_one_before() -> None:
    revisions: list[str | None] = [None]
    for path in sorted(VERSIONS.glob("*.py")):
        text = path.read_text()
        assert f"down_revision = {revisions[-1]!r}".replace("'", '"') in text.replace("'", '"')
        revisions.append(path.name[:4])
        assert f'revision = "{path.name[:4]}"' in text


def test_a_fresh_schema_is_that_of_the_metadata(engine: Engine) -> None:
    migrate.upgrade(engine)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_partial_indexes_are_partial_in_the_database(engine: Engine) -> None:
    """What makes a rule hold is the index as it is in the file; no comparison looks at it."""
    migrate.upgrade(engine)
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql LIKE '%UNIQUE%'"
        ).all()
    wheres = {name: sql.partition("WHERE ")[2] for name, sql in rows}
    assert wheres == {
        "sessions_by_key": "key IS NOT NULL",
        "runs_by_idempotency_key": "idempotency_key IS NOT NULL",
        "runs_live_by_session": "status <> 'ended'",
    }
    engine.dispose()


def test_an_upgrade_tells_where_it_came_from_and_went_to(engine: Engine) -> None:
    assert migrate.current(engine) is None
    assert migrate.upgrade(engine) == (None, migrate.HEAD)
    assert migrate.current(engine) == migrate.HEAD
    assert migrate.upgrade(engine) == (migrate.HEAD, migrate.HEAD)
    engine.dispose()


async def test_a_second_start_runs_no_migration(
    harness: SqliteHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = await harness.open()

    def refuse(*_: object) -> None:
        raise AssertionError("a migration ran")

    monkeypatch.setattr(command, "upgrade", refuse)
    await harness.reopen(store)


async def test_a_schema_of_a_newer_release_is_a_configuration_error(
    harness: SqliteHarness,
) -> None:
    await harness.abandon(await harness.open())
    connection = sqlite3.connect(harness.path)
    connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.commit()
    connection.close()
    store = harness.make()
    with pytest.raises(ConfigError, match=r"schema 9999.*newer"):
        await store.open()
    await store.close()


def test_a_migration_that_fails_in_the_middle_leaves_the_database_as_it_was(
    engine: Engine,
) -> None:
    """Otherwise a start that was killed would make every later start fail for good."""
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE run_logs (theirs TEXT)")
    with pytest.raises(Exception, match="run_logs"):
        migrate.upgrade(engine)
    assert set(inspect(engine).get_table_names()) - {"alembic_version"} == {"run_logs"}
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE run_logs")
    assert migrate.upgrade(engine) == (None, migrate.HEAD)
    engine.dispose()


def test_an_upgrade_leaves_logging_as_the_application_set_it_up(engine: Engine) -> None:
    import logging

    logger = logging.getLogger("holdfast.some.module")
    migrate.upgrade(engine)
    assert not logger.disabled
    engine.dispose()
