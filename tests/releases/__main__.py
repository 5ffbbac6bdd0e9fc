"""Record what this release says to its databases, for the tests of the releases after it.

    python -m tests.releases

To be done once per release that has a new schema, before it goes out.
"""

import asyncio
import tempfile
from pathlib import Path

from holdfast.store.migrate import HEAD
from holdfast.store.port import Store
from holdfast.store.postgres import PostgresStore
from holdfast.store.sqlite import SqliteStore
from tests.releases import postgresql, sqlite
from tests.releases.recording import DATA, Recording, Said, save
from tests.releases.scenario import Story
from tests.support.postgres import postgres_server


async def record_sqlite(path: Path) -> Recording:
    """The story on SQLite."""
    await _make_schema(SqliteStore(f"sqlite:///{path}"))
    with sqlite.recorded() as steps:
        store = SqliteStore(f"sqlite:///{path}")
        await store.open()
        return await _tell(store, steps)


async def record_postgresql(url: str) -> Recording:
    """The story on PostgreSQL."""
    await _make_schema(PostgresStore(url))
    with postgresql.recorded() as steps:
        store = PostgresStore(url)
        await store.open()
        await store.join()
        return await _tell(store, steps)


async def _make_schema(store: Store) -> None:
    """That is not part of the story."""
    await store.open()
    await store.close()


async def _tell(store: Store, steps: list[Said | None]) -> Recording:
    try:
        story = Story(store, lambda: steps.append(None))
        await story.tell()
        return Recording(await story.view(), steps)
    finally:
        await store.close()


def main() -> None:
    DATA.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        recording = asyncio.run(record_sqlite(Path(folder, "chat.db")))
        save(recording, DATA / f"{HEAD}-sqlite.jsonl.gz")
    with postgres_server() as server, server.database() as url:
        recording = asyncio.run(record_postgresql(url))
        save(recording, DATA / f"{HEAD}-postgresql.jsonl.gz")


if __name__ == "__main__":
    main()
