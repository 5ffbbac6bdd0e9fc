"""A run of 200 events is read from every cursor, while it is live and after its end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import Deployment
from tests.support.upstream_server import Step, completion, completion_chunk

EVENTS = 200
TEXTS = EVENTS - 2
"""Between run-start and run-end."""


@pytest.fixture(scope="module", params=[256_000, 2_000], ids=["memory", "store"])
async def site(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    storage: dict[str, Any],
) -> AsyncIterator[Deployment]:
    """One whose live runs are all in memory, and one that must read its store for most of them."""
    folder: Path = tmp_path_factory.mktemp("site")
    limits = {"tail_bytes": request.param}
    async with Deployment(folder, storage=storage, limits=limits) as site:
        yield site


def letters(count: int) -> list[bytes]:
    return [completion_chunk(content=f"海{n} \n") for n in range(count)]


async def test_p5_after_its_end_it_gives_exactly_the_rest(site: Deployment) -> None:
    async with site.ask(site.answers(*letters(TEXTS), *completion())) as stream:
        await stream.rest()
    assert len(stream.frames) == EVENTS
    path = f"/api/v1/runs/{stream.run_id}/events"
    rest = [b"".join(frame.raw for frame in stream.frames[seq:]) for seq in range(EVENTS)]

    async def read(seq: int) -> None:
        cursor = f"{stream.run_id}.{seq}"
        async with site.server.stream("GET", path, Last_Event_ID=cursor) as resumed:
            assert await resumed.rest_as_bytes() == rest[seq]
        async with site.server.stream("GET", f"{path}?after={seq}") as resumed:
            assert await resumed.rest_as_bytes() == rest[seq]
        async with site.ask("x", headers={"Last-Event-ID": cursor}) as resumed:
            assert await resumed.rest_as_bytes() == rest[seq]

    await asyncio.gather(*(read(seq) for seq in range(EVENTS)))
    assert (await site.server.get(f"{path}?after={EVENTS}")).status == 204


async def test_p5_while_it_is_live_it_gives_exactly_the_rest(site: Deployment) -> None:
    half, gate = TEXTS // 2, asyncio.Event()
    pieces: list[Step] = [*letters(TEXTS)]
    pieces.insert(half, gate)
    async with contextlib.AsyncExitStack() as stack:
        stream = await stack.enter_async_context(site.ask(site.answers(*pieces, *completion())))
        while len(stream.frames) < 1 + half:
            await stream.event()
        path = f"/api/v1/runs/{stream.run_id}/events?after="
        resuming = [site.server.stream("GET", f"{path}{seq}") for seq in range(2 + half)]
        readers = [await stack.enter_async_context(one) for one in resuming]
        reading = asyncio.gather(*(reader.rest_as_bytes() for reader in readers))
        gate.set()
        await stream.rest()
        rests = await reading
    assert len(stream.frames) == EVENTS
    for seq, rest in enumerate(rests):
        assert rest == b"".join(frame.raw for frame in stream.frames[seq:]), seq


async def test_p5_readers_that_leave_and_come_back_at_every_event_miss_nothing(
    site: Deployment,
) -> None:
    gates = [asyncio.Event() for _ in range(TEXTS)]
    steps: list[Step] = [
        step for pair in zip(letters(TEXTS), gates, strict=True) for step in reversed(pair)
    ]
    async with site.ask(site.answers(*steps, *completion())) as whole:
        await whole.until("run-start")
        log, seq = b"", 0
        path = f"/api/v1/runs/{whole.run_id}/events?after="
        for gate in gates:
            async with site.server.stream("GET", f"{path}{seq}") as stream:
                gate.set()
                frame = await stream.event()
            assert frame is not None
            log, seq = log + frame.raw, seq + 1
        async with site.server.stream("GET", f"{path}{seq}") as stream:
            log += await stream.rest_as_bytes()
        await whole.rest()
    assert log == whole.log
    assert log == await site.server.log_of(whole.run_id)
