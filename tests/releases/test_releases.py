"""The code of earlier releases on the schema of this one: what it says still holds.

Nodes are restarted one after the other, so for a while the code of the last release runs on the
schema of the next. Each recording in `data` is what a release said to its database; here it says
it all again, with this release's migrations somewhere in between, and must get the same answers.
"""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from alembic import command
from alembic.config import Config
from blockbuster import BlockBuster
from sqlalchemy import Connection, create_engine
from sqlalchemy.ext.asyncio import create_async_engine

from holdfast.store import migrate
from tests.releases import postgresql, sqlite
from tests.releases.recording import DATA, Said, load
from tests.releases.scenario import view_again
from tests.support.harness import PostgresHarness, SqliteHarness, StoreHarness
from tests.support.postgres import PostgresServer

RECORDINGS = {path.name.split(".")[0]: load(path) for path in sorted(DATA.glob("*.jsonl.gz"))}
MARKS = [
    (name, mark)
    for name, recording in RECORDINGS.items()
    for mark in range(recording.marks if name[:4] < migrate.HEAD else 1)
]


class Replay(ABC):
    """A database on which a release says again what it said."""

    harness: StoreHarness

    @abstractmethod
    async def upgrade(self, revision: str) -> None:
        """Run the migrations as far as a release knew them."""

    @abstractmethod
    async def say(self, part: Sequence[Said]) -> None:
        """Say it, and compare the answers."""


class SqliteReplay(Replay):
    def __init__(self, folder: Path) -> None:
        self.harness: SqliteHarness = SqliteHarness(folder)

    async def upgrade(self, revision: str) -> None:
        await asyncio.to_thread(self._upgrade, revision)

    def _upgrade(self, revision: str) -> None:
        engine = create_engine(f"sqlite:///{self.harness.path}")
        with engine.begin() as connection:
            run_migrations(connection, revision)
        engine.dispose()

    async def say(self, part: Sequence[Said]) -> None:
        await asyncio.to_thread(self._say, part)

    def _say(self, part: Sequence[Said]) -> None:
        for said, answer in sqlite.repeat(self.harness.path, part):
            compare(said, answer)


class PostgresReplay(Replay):
    def __init__(self, url: str) -> None:
        self.harness: PostgresHarness = PostgresHarness(url)

    async def upgrade(self, revision: str) -> None:
        engine = create_async_engine(
            "postgresql+asyncpg://", async_creator=lambda: asyncpg.connect(self.harness.url)
        )
        async with engine.begin() as connection:
            await connection.run_sync(run_migrations, revision)
        await engine.dispose()

    async def say(self, part: Sequence[Said]) -> None:
        async for said, answer in postgresql.repeat(self.harness.url, part):
            compare(said, answer)


def run_migrations(connection: Connection, revision: str) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrate.__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def compare(said: Said, answer: Any) -> None:
    if said.rows is None:
        assert answer == said.changed, said.sql
    elif said.is_about_now:
        assert list(map(len, answer)) == list(map(len, said.rows)), said.sql
    else:
        assert answer == said.rows, said.sql


def lost(recorded: Any, now: Any, place: str = "") -> Iterator[str]:
    """Where something that was seen is not seen now; there may be more fields."""
    if isinstance(recorded, dict) and isinstance(now, dict):
        for name, value in recorded.items():
            yield from lost(value, now.get(name), f"{place}.{name}")
    elif isinstance(recorded, list) and isinstance(now, list) and len(recorded) == len(now):
        for number, (value, other) in enumerate(zip(recorded, now, strict=True)):
            yield from lost(value, other, f"{place}[{number}]")
    elif recorded != now:
        yield f"{place}: {recorded!r} has become {now!r}"


def test_every_release_has_its_recordings() -> None:
    """`python -m tests.releases` makes them, before a release goes out."""
    released = [f"{number:04}" for number in range(1, int(migrate.HEAD))]
    expected = {f"{revision}-sqlite" for revision in released if revision >= "0002"}
    expected |= {f"{revision}-postgresql" for revision in released if revision >= "0003"}
    assert expected <= RECORDINGS.keys()


@pytest.fixture(autouse=True)
def may_read_migrations(loop_guard: BlockBuster) -> None:
    for function in loop_guard.functions.values():
        function.can_block_in("tests/releases/test_releases.py", {"run_migrations"})


@pytest.fixture
async def replay(request: pytest.FixtureRequest, name: str) -> AsyncIterator[Replay]:
    with contextlib.ExitStack() as stack:
        if name.endswith("sqlite"):
            replay: Replay = SqliteReplay(request.getfixturevalue("tmp_path"))
        else:
            server: PostgresServer = request.getfixturevalue("postgres")
            replay = PostgresReplay(stack.enter_context(server.database()))
        yield replay
        await replay.harness.close()


@pytest.mark.parametrize(("name", "mark"), MARKS)
async def test_the_code_of_a_release_goes_on_when_the_schema_changes_under_it(
    name: str, mark: int, replay: Replay
) -> None:
    before, after = RECORDINGS[name].parts(mark)
    await replay.upgrade(name[:4])
    await replay.say(before)
    await replay.upgrade("head")
    await replay.say(after)
    store = await replay.harness.open()
    view = RECORDINGS[name].view
    assert list(lost(view, await view_again(store, view))) == []
