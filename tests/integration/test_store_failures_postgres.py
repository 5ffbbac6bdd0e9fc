"""What readers, questions and runs meet when PostgreSQL takes no writes, or is away."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from tests.support.failing_store import (
    FAST,
    IMPATIENT,
    PATIENT,
    Halved,
    comes_back,
    gives_up,
    refused,
    seen_is_stored,
    shows_nothing_new,
)
from tests.support.postgres import PostgresServer
from tests.support.server import Deployment


class Faults:
    """What can go wrong with one database."""

    def __init__(self, server: PostgresServer, url: str) -> None:
        self.url = url
        self._server = server

    @asynccontextmanager
    async def locked(self, site: Deployment) -> AsyncIterator[None]:
        """A table that every answer needs, locked by another program; reading goes on."""
        connection = await asyncpg.connect(self.url)
        try:
            async with connection.transaction():
                await connection.execute("LOCK TABLE journal IN SHARE MODE")
                yield
        finally:
            await connection.close()

    @asynccontextmanager
    async def away(self, site: Deployment) -> AsyncIterator[None]:
        """Every connection is lost, and none can be made."""
        await asyncio.to_thread(self._server.close_database, self.url)
        try:
            yield
        finally:
            await asyncio.to_thread(self._server.open_database, self.url)


@pytest.fixture(scope="module")
def faults(postgres: PostgresServer, postgres_template: str) -> Iterator[Faults]:
    with postgres.database(postgres_template) as url:
        yield Faults(postgres, url)


@pytest.fixture(scope="module")
async def patient(
    faults: Faults, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Deployment]:
    storage = {"url": faults.url, **PATIENT}
    folder = tmp_path_factory.mktemp("patient")
    async with Deployment(folder, storage=storage, stream=FAST) as site:
        yield site


@pytest.fixture(scope="module")
async def impatient(
    faults: Faults, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Deployment]:
    storage = {"url": faults.url, **IMPATIENT}
    folder = tmp_path_factory.mktemp("impatient")
    async with Deployment(folder, storage=storage, stream=FAST) as site:
        yield site


async def test_p2_readers_get_heartbeats_and_no_text_and_then_the_rest(
    patient: Deployment, faults: Faults
) -> None:
    await comes_back(patient, faults.locked)
    await comes_back(patient, faults.away)


async def test_p2_nothing_that_is_not_committed_is_shown_in_any_form(
    patient: Deployment, faults: Faults
) -> None:
    await shows_nothing_new(patient, faults.locked)


async def test_p2_p3_readers_are_cut_off_and_runs_end_when_writing_is_possible_again(
    impatient: Deployment, faults: Faults
) -> None:
    await gives_up(impatient, faults.locked)


async def test_p3_an_answer_that_had_come_to_its_end_is_whole_when_the_database_is_back(
    impatient: Deployment, faults: Faults
) -> None:
    site, whole, half = impatient, Halved(impatient), Halved(impatient, ends=False)
    async with site.ask(whole.question) as stream, site.ask(half.question) as other:
        await stream.read_text("Half")
        await other.read_text("Half")
        async with faults.away(site):
            whole.gate.set()
            half.gate.set()
            assert await stream.broken() == []
            assert await other.broken() == []
            refused(await site.server.get(f"/api/v1/runs/{stream.run_id}"))
            refused(await site.server.post("/api/v1/runs", {"message": "And?"}))
        message = (await site.server.ended(stream.run_id))["message"]
        assert (message["content"], message["status"]) == ("Half whole.", "complete")
        assert (await site.server.ended(other.run_id))["run"]["reason"] == "storage_error"
        await seen_is_stored(site, stream)
        await seen_is_stored(site, other)
    assert (await site.asked("And?"))["run"]["outcome"] == "completed"
