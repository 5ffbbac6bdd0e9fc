"""The stores that the contract holds for: one more implementation is one more line."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final

import pytest

from holdfast.store.port import Store
from holdfast.store.postgres import PostgresStore
from tests.support.harness import PostgresHarness, SqliteHarness, StoreHarness


def _sqlite(request: pytest.FixtureRequest) -> StoreHarness:
    folder: Path = request.getfixturevalue("tmp_path")
    return SqliteHarness(folder)


def _postgresql(request: pytest.FixtureRequest) -> StoreHarness:
    return PostgresHarness(request.getfixturevalue("postgres_url"))


HARNESSES: Final[dict[str, Callable[[pytest.FixtureRequest], StoreHarness]]] = {
    "sqlite": _sqlite,
    "postgresql": _postgresql,
}


@pytest.fixture(params=HARNESSES)
async def harness(request: pytest.FixtureRequest) -> AsyncIterator[StoreHarness]:
    harness = HARNESSES[request.param](request)
    yield harness
    await harness.close()


@pytest.fixture
async def store(harness: StoreHarness) -> Store:
    return await harness.open()


@pytest.fixture
async def cluster(postgres_url: str) -> AsyncIterator[PostgresHarness]:
    """A database that several nodes share."""
    harness = PostgresHarness(postgres_url)
    yield harness
    await harness.close()


@pytest.fixture
async def node(cluster: PostgresHarness) -> PostgresStore:
    """One of its nodes."""
    return await cluster.open()
