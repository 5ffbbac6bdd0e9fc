"""The stores that the contract holds for: one more implementation is one more line."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import pytest

from holdfast.store.port import Store
from tests.support.harness import SqliteHarness, StoreHarness

HARNESSES: Final[dict[str, Callable[[Path], StoreHarness]]] = {
    "sqlite": SqliteHarness,
}


@pytest.fixture(params=HARNESSES)
async def harness(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StoreHarness]:
    harness = HARNESSES[request.param](tmp_path)
    yield harness
    await harness.close()


@pytest.fixture
async def store(harness: StoreHarness) -> Store:
    return await harness.open()
