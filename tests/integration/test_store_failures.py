"""What readers, questions and runs meet when the database takes no writes."""

import asyncio
import contextlib
import os
import re
import resource
import shutil
import signal
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.support.failing_store import (
    FAST,
    IMPATIENT,
    PATIENT,
    Failure,
    Halved,
    comes_back,
    gives_up,
    heartbeats,
    seen_is_stored,
    shows_nothing_new,
)
from tests.support.server import Deployment
from tests.support.upstream_server import Step, Wire, completion, completion_chunk


@pytest.fixture(scope="module")
async def patient(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    folder = tmp_path_factory.mktemp("patient")
    async with Deployment(folder, storage=PATIENT, stream=FAST) as site:
        yield site


@pytest.fixture(scope="module")
async def impatient(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    folder = tmp_path_factory.mktemp("impatient")
    async with Deployment(folder, storage=IMPATIENT, stream=FAST) as site:
        yield site


@asynccontextmanager
async def locked(site: Deployment) -> AsyncIterator[None]:
    """The file, locked by another process: this one."""
    connection = sqlite3.connect(site.server.database, isolation_level=None, timeout=10)
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
    finally:
        connection.close()


@asynccontextmanager
async def no_room(site: Deployment) -> AsyncIterator[None]:
    """No file of the server may be written beyond its first page."""
    limits = resource.prlimit(site.server.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(site.server.pid, resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        yield
    finally:
        resource.prlimit(site.server.pid, resource.RLIMIT_FSIZE, limits)


@asynccontextmanager
async def full_disk(site: Deployment) -> AsyncIterator[None]:
    """The server's own small disk, filled up."""
    folder = Path(f"/proc/{site.server.pid}/root{site.server.folder}/disk")
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    try:
        yield
    finally:
        filler.unlink()


FAILURES: list[Failure] = [locked, no_room]


class TestForAShortTime:
    @pytest.mark.parametrize("failure", FAILURES)
    async def test_p2_readers_get_heartbeats_and_no_text_and_then_the_rest(
        self, failure: Failure, patient: Deployment
    ) -> None:
        await comes_back(patient, failure)

    async def test_p2_nothing_that_is_not_committed_is_shown_in_any_form(
        self, patient: Deployment
    ) -> None:
        await shows_nothing_new(patient, locked)

    async def test_p2_pieces_that_come_one_by_one_meanwhile_are_all_there_in_order(
        self, patient: Deployment
    ) -> None:
        site, gates = patient, [asyncio.Event() for _ in range(6)]
        pieces: list[Step] = [completion_chunk(content="Half")]
        for n, gate in enumerate(gates):
            pieces += [gate, completion_chunk(content=f" {n}")]
        async with site.ask(site.answers(*pieces, *completion())) as stream:
            await stream.read_text("Half")
            async with locked(site):
                for gate in gates:
                    gate.set()
                    await heartbeats(stream, 3)
            await stream.rest()
        assert stream.text == "Half 0 1 2 3 4 5"
        seqs = [int(frame.id.rpartition(".")[2]) for frame in stream.frames]
        assert seqs == list(range(1, len(seqs) + 1))
        assert await site.server.log_of(stream.run_id) == stream.log
        assert (await site.server.run(stream.run_id))["message"]["content"] == stream.text

    async def test_p10_a_cancel_closes_the_upstream_at_once(self, patient: Deployment) -> None:
        site = patient
        question = site.answers(completion_chunk(content="Half"), Wire.STALL)
        async with site.ask(question) as stream:
            await stream.read_text("Half")
            left = site.upstream.closed_early
            async with locked(site):
                path = f"/api/v1/runs/{stream.run_id}/cancel"
                cancelling = asyncio.create_task(site.server.post(path))
                await site.upstream.client_left(left + 1)
            reply = await cancelling
            await stream.rest()
        assert stream.end["outcome"] == reply.json["run"]["outcome"] == "cancelled"
        assert reply.json["message"]["content"] == "Half"

    async def test_p6_the_upstream_is_not_read_beyond_what_may_wait(self, tmp_path: Path) -> None:
        async with Deployment(
            tmp_path,
            storage=PATIENT,
            stream=FAST,
            limits={"unsaved_bytes": 100_000, "answer_bytes": 40_000_000},
            runs={"idle_timeout_s": 0.3, "first_byte_timeout_s": 0.3},
        ) as site:
            gate = asyncio.Event()
            piece = b"".join([completion_chunk(content="x" * 1_000)] * 100)
            question = site.answers(
                completion_chunk(content="Half"), gate, *[piece] * 300, *completion()
            )
            async with site.ask(question) as stream:
                await stream.read_text("Half")
                before = site.server.reset_peak_memory()
                async with locked(site):
                    gate.set()
                    await site.server.becomes("/readyz", 503)
                    await heartbeats(stream, 12)  # longer than the idle time-out: excused
                    assert site.upstream.played == 0
                    assert site.server.peak_memory - before < 10_000_000
                log = await stream.rest_as_bytes()
            texts = re.findall(
                rb'\nevent: text-delta\ndata: {"type":"text-delta","text":"(x+)"}', log
            )
            assert sum(map(len, texts)) == 30_000 * 1_000
            assert log.endswith(b'"outcome":"completed","finish":"stop"}\n\n')


class TestForTooLong:
    @pytest.mark.parametrize("failure", FAILURES)
    async def test_p2_p3_readers_are_cut_off_and_runs_end_when_the_store_is_back(
        self, failure: Failure, impatient: Deployment
    ) -> None:
        await gives_up(impatient, failure)

    @pytest.mark.skipif(
        os.geteuid() != 0 or shutil.which("unshare") is None, reason="only root can mount a disk"
    )
    async def test_p2_p3_a_full_disk_is_no_different(self, tmp_path: Path) -> None:
        disk = tmp_path / "disk"
        disk.mkdir()
        mount = 'mount -t tmpfs -o size=8m tmpfs "$0" && exec "$@"'
        async with Deployment(
            tmp_path,
            prefix=["unshare", "-m", "sh", "-c", mount, str(disk)],
            storage={"url": f"sqlite:///{disk}/chat.db", **IMPATIENT},
            stream=FAST,
        ) as site:
            # A log that begins anew has the room that it had before: little still fits in.
            await gives_up(site, full_disk, more="x" * 500_000)

    async def test_the_upstream_is_closed(self, impatient: Deployment) -> None:
        site, halved = impatient, Halved(impatient, ends=False)
        async with site.ask(halved.question) as stream:
            await stream.read_text("Half")
            left = site.upstream.closed_early
            async with locked(site):
                halved.gate.set()
                await site.upstream.client_left(left + 1)
                assert await stream.broken() == []
            ended = await site.server.ended(stream.run_id)
        assert ended["run"]["reason"] == "storage_error"
        await seen_is_stored(site, stream)

    async def test_p3_twenty_runs_end_alike(self, impatient: Deployment) -> None:
        site, halves = impatient, [Halved(impatient, ends=False) for _ in range(20)]
        async with contextlib.AsyncExitStack() as stack:
            asking = [site.ask(halved.question) for halved in halves]
            streams = [await stack.enter_async_context(one) for one in asking]
            for stream in streams:
                await stream.read_text("Half")
            async with locked(site):
                for halved in halves:
                    halved.gate.set()
                assert [await stream.broken() for stream in streams] == [[]] * 20
            for stream in streams:
                ended = await site.server.ended(stream.run_id)
                assert ended["run"]["reason"] == "storage_error"
                await seen_is_stored(site, stream)

    async def test_p3_an_answer_that_had_come_to_its_end_is_whole_when_the_store_is_back(
        self, impatient: Deployment
    ) -> None:
        site, halved = impatient, Halved(impatient)
        async with site.ask(halved.question) as stream:
            await stream.read_text("Half")
            async with locked(site):
                halved.gate.set()
                assert await stream.broken() == []
            message = (await site.server.ended(stream.run_id))["message"]
        assert (message["content"], message["status"]) == ("Half whole.", "complete")
        await seen_is_stored(site, stream)

    async def test_p2_p3_a_kill_in_the_middle_of_it_loses_nothing_that_was_seen(
        self, tmp_path: Path
    ) -> None:
        async with Deployment(tmp_path, storage=IMPATIENT, stream=FAST) as site:
            halved = Halved(site)
            async with site.ask(halved.question) as stream:
                await stream.read_text("Half")
                async with locked(site):
                    halved.gate.set()
                    assert await stream.broken() == []
                    site.server.signal(signal.SIGKILL)
                    await site.server.exit()
            await site.restart()
            run, message = (await site.server.run(stream.run_id)).values()
            assert (run["outcome"], run["reason"]) == ("interrupted", "server_crash")
            assert message["content"] == "Half"
            await seen_is_stored(site, stream)

    async def test_a_shutdown_in_the_middle_of_it_does_not_take_longer_for_every_run(
        self, tmp_path: Path
    ) -> None:
        server = {"shutdown_grace_s": 0.1}
        async with Deployment(tmp_path, storage=IMPATIENT, server=server) as site:
            halves = [Halved(site) for _ in range(6)]
            async with contextlib.AsyncExitStack() as stack:
                asking = [site.ask(halved.question) for halved in halves]
                streams = [await stack.enter_async_context(one) for one in asking]
                for stream in streams:
                    await stream.read_text("Half")
                async with locked(site):
                    site.server.signal(signal.SIGTERM)
                    await site.server.exit()
            await site.restart()
            for stream in streams:
                message = (await site.server.run(stream.run_id))["message"]
                assert (message["content"], message["status"]) == ("Half", "partial")
                await seen_is_stored(site, stream)
