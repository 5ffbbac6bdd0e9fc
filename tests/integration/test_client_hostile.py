"""Both clients behind a proxy that does what bad networks do: the answer comes whole and once."""

import asyncio
import signal
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from holdfast.client import Answer, AsyncClient, Client, _reading
from holdfast.events import Entry, Outcome
from tests.support.hostile_proxy import Cut, HostileProxy
from tests.support.raw_client import eventually
from tests.support.server import Deployment
from tests.support.upstream_server import Wire, completion, completion_chunk

Came: TypeAlias = tuple[list[Entry], Answer]
Ask: TypeAlias = Callable[..., Coroutine[Any, Any, Came]]

LONG = [f"Word {number} of kelp. " for number in range(200)]


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_reading, "FIRST_WAIT_S", 0.0)
    monkeypatch.setattr(_reading, "LONGEST_WAIT_S", 0.02)


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    async with Deployment(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture
async def proxy(site: Deployment) -> AsyncIterator[HostileProxy]:
    async with HostileProxy(site.server.port) as proxy:
        yield proxy


@pytest.fixture(params=["AsyncClient", "Client"])
async def ask(request: pytest.FixtureRequest, proxy: HostileProxy) -> AsyncIterator[Ask]:
    """Ask through the proxy with one client; gives every entry that came, and the answer."""
    if request.param == "AsyncClient":
        async with AsyncClient(proxy.url, wait_for_server=True) as client:
            yield lambda *given, **options: _with_async_client(client, *given, **options)
    else:
        waiting = Client(proxy.url, wait_for_server=True)
        yield lambda *given, **options: asyncio.to_thread(_with_client, waiting, *given, **options)
        await asyncio.to_thread(waiting.close)


async def _with_async_client(client: AsyncClient, *given: str, **options: Any) -> Came:
    stream = client.ask(*given, **options)
    entries = [entry async for entry in stream.entries()]
    return entries, await stream.answer()


def _with_client(client: Client, *given: str, **options: Any) -> Came:
    stream = client.ask(*given, **options)
    entries = list(stream.entries())
    return entries, stream.answer()


async def assert_whole_and_once(site: Deployment, question: str, came: Came) -> None:
    """What came is the run's log; there is one run of one message, and one was asked for."""
    entries, answer = came
    assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
    async with site.server.stream("GET", f"/api/v1/runs/{answer.run_id}/events") as log:
        await log.rest()
    assert [entry.data for entry in entries] == [
        frame.field("data").encode() for frame in log.frames
    ]
    assert len(site.requests_for(question)) == 1
    stored = (await site.server.get(f"/api/v1/sessions/{answer.session_id}/messages")).json
    assert [one["id"] for one in stored["items"]] == [answer.question_id, answer.message_id]
    shown = stored["items"][1]
    assert (shown["content"], shown["status"]) == (answer.text, answer.status)
    assert shown["versions"] == [answer.message_id]


async def response_size(proxy: HostileProxy, ask: Ask, question: str) -> int:
    before = proxy.response_bytes
    await ask(question)
    return proxy.response_bytes - before


async def until_shown(site: Deployment, question: str, text: str) -> None:
    """Wait until the answer to the question, which was asked last, begins with `text`."""

    async def look() -> bool | None:
        newest = (await site.server.get("/api/v1/sessions?limit=1")).json["items"]
        if not newest or newest[0]["title"] != question:
            return None
        path = f"/api/v1/sessions/{newest[0]['id']}/messages"
        answer = (await site.server.get(path)).json["items"][1]
        return answer["content"].startswith(text) or None

    await eventually(look)


def stored(site: Deployment) -> list[int]:
    """How many runs, messages and sessions there are."""
    with closing(sqlite3.connect(site.server.database)) as database:
        counts = "SELECT count(*) FROM "
        return [
            database.execute(counts + table).fetchone()[0]
            for table in ("runs", "messages", "sessions")
        ]


class TestCuts:
    @pytest.mark.timeout(900)  # some 800 questions
    async def test_after_every_byte_of_a_short_answer(
        self, site: Deployment, proxy: HostileProxy, ask: Ask
    ) -> None:
        question = site.answers(*completion("Yes."))
        size = await response_size(proxy, ask, question)
        before = stored(site)
        for at in range(1, size):
            proxy.cut_once_at(at, (Cut.FIN, Cut.RST, Cut.END)[at % 3])
            entries, answer = await ask(question)
            assert [entry.seq for entry in entries] == [1, 2, 3]
            assert (answer.text, answer.status) == ("Yes.", "complete")
        assert proxy.cuts > size * 0.9
        asked = size - 1
        assert stored(site) == [before[0] + asked, before[1] + 2 * asked, before[2] + asked]
        assert len(site.requests_for(question)) == size

    @pytest.mark.parametrize("kind", list(Cut))
    async def test_of_every_connection_of_a_long_answer(
        self, kind: Cut, site: Deployment, proxy: HostileProxy, ask: Ask
    ) -> None:
        for size in (1_500, 2_039, 4_001, 9_973):
            question = site.answers(*completion(*LONG))
            proxy.cut_after(size, kind)
            came = await ask(question)
            assert came[1].text == "".join(LONG)
            await assert_whole_and_once(site, question, came)
            assert proxy.cuts > 2
            proxy.calm()

    async def test_in_the_middle_of_a_live_answer(
        self, site: Deployment, proxy: HostileProxy, ask: Ask
    ) -> None:
        gates = [asyncio.Event() for _ in range(10)]
        pieces = [step for gate in gates for step in (gate, completion_chunk(content="Kelp. "))]
        question = site.answers(*pieces, *completion("Fast."))
        proxy.cut_after(900)
        asking = asyncio.create_task(ask(question))
        for number, gate in enumerate(gates):
            gate.set()
            await until_shown(site, question, "Kelp. " * (number + 1))
        came = await asking
        assert proxy.cuts >= 2
        assert came[1].text == "Kelp. " * 10 + "Fast."
        await assert_whole_and_once(site, question, came)

    async def test_when_the_question_was_taken_and_nothing_was_said(
        self, site: Deployment, proxy: HostileProxy, ask: Ask
    ) -> None:
        for kind in (Cut.FIN, Cut.RST):
            question = site.answers(*completion(*LONG[:5]))
            proxy.cut_uploads(3, kind)
            await assert_whole_and_once(site, question, await ask(question))
        keys = [one.headers["idempotency-key"] for one in proxy.requests if one.method == "POST"]
        assert len(keys) == 8
        assert len(set(keys)) == 2


class TestOtherHarm:
    async def test_delays_of_single_bytes(
        self, site: Deployment, proxy: HostileProxy, ask: Ask
    ) -> None:
        question = site.answers(*completion("海带 ", "holds."))
        proxy.piece, proxy.delay_s = 7, 0.001
        await assert_whole_and_once(site, question, await ask(question))

    async def test_a_gateway_that_is_bad_for_a_while(
        self, site: Deployment, proxy: HostileProxy, ask: Ask
    ) -> None:
        question = site.answers(*completion(*LONG))
        proxy.refuse()
        asking = asyncio.create_task(ask(question))
        await proxy.came(5)
        proxy.cut_once_at(3_000)
        proxy.refuse(4)
        await assert_whole_and_once(site, question, await asking)
        assert proxy.refused >= 8
        assert proxy.cuts == 1

    async def test_nobody_behind_the_address_for_a_while(
        self, site: Deployment, ask: Ask, proxy: HostileProxy
    ) -> None:
        question = site.answers(*completion(*LONG))
        port = int(proxy.url.rpartition(":")[2])
        proxy._server.close()
        await proxy._server.wait_closed()
        asking = asyncio.create_task(ask(question))
        await asyncio.sleep(0)
        proxy._server = await asyncio.start_server(proxy._connect, "127.0.0.1", port)
        await assert_whole_and_once(site, question, await asking)

    async def test_a_connection_that_falls_silent(
        self, site: Deployment, proxy: HostileProxy
    ) -> None:
        question = site.answers(*completion(*LONG[:3]))
        proxy.stall(1)
        async with AsyncClient(proxy.url, silence_s=0.3) as client:
            await assert_whole_and_once(site, question, await _with_async_client(client, question))
        assert proxy.connections >= 2


@pytest.mark.parametrize("synchronous", [False, True])
class TestKilledServer:
    async def test_is_waited_for_and_what_was_read_stays(
        self, synchronous: bool, tmp_path: Path
    ) -> None:
        async with Deployment(tmp_path) as site:
            question = site.answers(*[completion_chunk(content=word) for word in LONG], Wire.STALL)
            asking = asyncio.create_task(self.ask(site.server.url, question, synchronous))
            await until_shown(site, question, LONG[0])
            site.server.signal(signal.SIGKILL)
            await site.restart()
            came = await asking
            assert came[1].outcome is Outcome.INTERRUPTED
            assert came[1].status == "partial"
            assert came[1].reason == "server_crash"
            assert "".join(LONG).startswith(came[1].text)
            await assert_whole_and_once(site, question, came)

    async def ask(self, url: str, question: str, synchronous: bool) -> Came:
        if not synchronous:
            async with AsyncClient(url) as client:
                return await _with_async_client(client, question)

        def work() -> Came:
            with Client(url) as client:
                return _with_client(client, question)

        return await asyncio.to_thread(work)
