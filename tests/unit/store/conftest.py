"""What the tests of the store on SQLite share."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from holdfast.store.sqlite import SqliteStore
from tests.support.harness import SqliteHarness


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[SqliteHarness]:
    harness = SqliteHarness(tmp_path)
    yield harness
    await harness.close()


@pytest.fixture
async def store(harness: SqliteHarness) -> SqliteStore:
    store = await harness.open()
    assert isinstance(store, SqliteStore)
    return store
