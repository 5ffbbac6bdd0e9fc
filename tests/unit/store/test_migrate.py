"""Migrations: the newest schema is that of the code, and none runs twice."""

import asyncio
import io
import re
import runpy
import sqlite3
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.operations import Operations
from sqlalchemy import Engine, create_engine, inspect

from holdfast.errors import ConfigError
from holdfast.events import Reference, References, TextDelta
from holdfast.store import migrate
from holdfast.store.port import CreateKey, Remember
from holdfast.store.schema import metadata
from tests.support.harness import SqliteHarness
from tests.support.records import OWNER, Told, a_key, a_session, begin, commit, read_all, tell

VERSIONS = Path(migrate.__file__).parent / "migrations" / "versions"


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
        "api_keys_by_digest": "",
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
    connection.execute("UPDATE compatibility SET oldest = '9999'")
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


# ------------------------------------------------------------------------------ from release 0.1


def _schema(engine: Engine) -> dict[str, set[str]]:
    """The columns of every table."""
    tables = inspect(engine)
    return {
        name: {column["name"] for column in tables.get_columns(name)}
        for name in tables.get_table_names()
    }


def _create_0001(path: Path, filled_from: Path | None = None) -> None:
    """A database as the first release left it, with what another one has that it could have."""
    engine = create_engine(f"sqlite:///{path}")
    config = Config()
    config.set_main_option("script_location", str(VERSIONS.parent))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    old = _schema(engine)
    if filled_from is not None:
        with engine.connect() as connection:
            connection.exec_driver_sql("ATTACH DATABASE ? AS newer", (str(filled_from),))
            for name in old.keys() - {"alembic_version"}:
                columns = ", ".join(sorted(old[name]))
                connection.exec_driver_sql(
                    f"INSERT INTO {name} ({columns}) SELECT {columns} FROM newer.{name}"
                )
            connection.commit()
    engine.dispose()


async def test_a_database_of_the_first_release_is_upgraded_in_place_with_all_it_holds(
    tmp_path: Path,
) -> None:
    newer = SqliteHarness(tmp_path / "newer")
    store = await newer.open()
    session = a_session(title="海带", dialect="v1", key="k", metadata={"a": 1})
    ended = await tell(store, Told(session), References((Reference(1, text="b"),)), TextDelta("c"))
    live = await begin(store, ended.next_turn(idempotency_key="i", fingerprint="f"), TextDelta("d"))
    shown = await store.list_messages(session.id, 10)
    await newer.abandon(store)
    await asyncio.to_thread(_create_0001, tmp_path / "chat.db", newer.path)

    older = SqliteHarness(tmp_path)
    store = await older.open()
    assert await older.rows("alembic_version") == [{"version_num": migrate.HEAD}]
    assert await store.list_messages(session.id, 10) == shown
    assert await read_all(store, ended.run.id) == ended.entries
    assert await store.live_runs() == [(live.run, False)]
    assert await store.find_session(OWNER, "v1", "k") == await store.get_session(OWNER, session.id)
    assert (await store.list_sessions(OWNER, 10, query="海"))[0].preset is None
    await commit(store, live.finish(TextDelta("e")))
    await commit(store, Remember(session.id, "kb", "c"), CreateKey(key := a_key()))
    store = await older.reopen(store)
    assert await read_all(store, live.run.id) == live.entries
    assert await store.get_conversation(session.id, "kb") == "c"
    assert await store.list_keys() == [key]
    await older.close()


def test_an_upgraded_schema_is_that_of_the_metadata(engine: Engine, tmp_path: Path) -> None:
    _create_0001(tmp_path / "chat.db")
    assert migrate.upgrade(engine) == ("0001", migrate.HEAD)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    engine.dispose()


@pytest.mark.parametrize("table", ["conversations", "api_keys"])
def test_an_upgrade_from_the_first_release_that_fails_leaves_it_as_it_was(
    engine: Engine, tmp_path: Path, table: str
) -> None:
    _create_0001(tmp_path / "chat.db")
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE TABLE {table} (theirs TEXT)")
    before = _schema(engine)
    with pytest.raises(ConfigError, match=table):
        migrate.upgrade(engine)
    assert (_schema(engine), migrate.current(engine)) == (before, "0001")
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DROP TABLE {table}")
    assert migrate.upgrade(engine) == ("0001", migrate.HEAD)
    engine.dispose()


def test_the_statements_of_the_migrations_are_such_that_postgresql_takes_them() -> None:
    """PostgreSQL has booleans, and a default of 0 is none; what else differs, SQLAlchemy knows."""
    rendered = io.StringIO()
    context = MigrationContext.configure(
        dialect_name="postgresql", opts={"as_sql": True, "output_buffer": rendered}
    )
    with Operations.context(context):
        for path in sorted(VERSIONS.glob("*.py")):
            runpy.run_path(str(path))["upgrade"]()
    sql = rendered.getvalue()
    for table in metadata.tables:
        assert f"CREATE TABLE {table} (" in sql
    assert re.findall(r"BOOLEAN DEFAULT (\S+)", sql) == ["false"]
    assert "PRAGMA" not in sql
    assert "_alembic_tmp" not in sql


def test_an_upgrade_leaves_logging_as_the_application_set_it_up(engine: Engine) -> None:
    import logging

    logger = logging.getLogger("holdfast.some.module")
    migrate.upgrade(engine)
    assert not logger.disabled
    engine.dispose()
