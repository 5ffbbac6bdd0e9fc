"""`holdfast-client.js`, unmodified, on a bad network: the answer arrives whole and once."""

import asyncio
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.hostile_proxy import Cut, HostileProxy
from tests.support.js_client import JsClient, JsNode, JsStream, is_whole, js_client
from tests.support.raw_client import eventually
from tests.support.server import Deployment
from tests.support.upstream_server import (
    ScriptedUpstream,
    Wire,
    completion,
    completion_chunk,
    whole,
)

AT_ONCE = 16
"""How many clients ask at once."""
SHORT = ("Kelp ", "holds 海带 🌿.")
LONG = tuple(f"Word {number} of 海带. " for number in range(60))


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    async with Deployment(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture(scope="module")
async def node() -> AsyncIterator[JsNode]:
    async with JsNode() as node:
        yield node


@pytest.fixture
async def proxy(site: Deployment) -> AsyncIterator[HostileProxy]:
    async with HostileProxy(site.server.port) as proxy:
        yield proxy


@pytest.fixture
async def client(node: JsNode, proxy: HostileProxy) -> JsClient:
    return await js_client(node, proxy.url)


async def arrives(site: Deployment, stream: JsStream, question: str, *texts: str) -> Any:
    """The answer is whole, and was asked and stored once; the state of the stream."""
    state = await stream.done()
    await is_whole(site.server, state)
    assert state["answer"]["text"] == "".join(texts)
    await is_once(site, state, question)
    return state


async def is_once(site: Deployment, state: Any, question: str) -> None:
    """The question was asked once, and its session holds it and its answer."""
    assert len(site.requests_for(question)) == 1
    path = f"/api/v1/sessions/{state['sessionId']}/messages"
    kept = (await site.server.get(path)).json["items"]
    assert [one["content"] for one in kept] == [question, state["answer"]["text"]]
    assert kept[1]["run_id"] == state["runId"]


def stored(site: Deployment) -> tuple[int, int]:
    """How many runs and messages the store has."""
    with closing(sqlite3.connect(site.server.database)) as store:
        runs = store.execute("SELECT count(*) FROM runs").fetchone()
        messages = store.execute("SELECT count(*) FROM messages").fetchone()
    return runs[0], messages[0]


@contextmanager
def asks(site: Deployment, times: int = 1) -> Iterator[None]:
    """What happens in the block leaves so many runs in the store, each with two messages."""
    runs, messages = stored(site)
    yield
    assert stored(site) == (runs + times, messages + 2 * times)


async def length_of(site: Deployment, client: JsClient, proxy: HostileProxy) -> int:
    """How many bytes the response with the short answer has."""
    await (await client.ask(site.answers(*completion(*SHORT)))).done()
    return proxy.response_bytes


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", Cut)
async def test_p5_p7_a_cut_at_any_byte(
    node: JsNode, site: Deployment, client: JsClient, proxy: HostileProxy, kind: Cut
) -> None:
    length = await length_of(site, client, proxy)
    places = asyncio.Queue[int]()
    for place in range(1, length + 1, 1 if kind is Cut.FIN else 5):
        places.put_nowait(place)
    cuts = 0

    async def ask_all() -> None:
        nonlocal cuts
        async with HostileProxy(site.server.port) as own:
            client = await js_client(node, own.url)
            while not places.empty():
                own.cut_once_at(places.get_nowait(), kind)
                question = site.answers(*completion(*SHORT))
                state = await (await client.ask(question)).done()
                await is_whole(site.server, state)
                assert state["answer"]["text"] == "".join(SHORT)
            cuts += own.cuts

    expected = places.qsize()
    with asks(site, expected):
        await asyncio.gather(*[ask_all() for _ in range(AT_ONCE)])
    assert cuts >= expected * 0.9  # a response may be some bytes shorter than the first one was


@pytest.mark.parametrize("kind", Cut)
async def test_p5_p7_cuts_after_every_so_many_bytes(
    node: JsNode, site: Deployment, kind: Cut
) -> None:
    async def ask(size: int) -> int:
        async with HostileProxy(site.server.port) as own:
            own.cut_after(size, kind)
            client = await js_client(node, own.url)
            question = site.answers(*completion(*LONG))
            await arrives(site, await client.ask(question), question, *LONG)
            return own.cuts

    # The head of a response and its first event have to fit; from there on to the whole of it.
    sizes = [950, 1_000, 1_100, 1_300, 1_777, 2_500, 4_000, 6_000, 9_000, 40_000]
    with asks(site, len(sizes)):
        cuts = await asyncio.gather(*[ask(size) for size in sizes])
    assert cuts[0] >= 5
    assert cuts[-1] == 0


async def test_p7_a_network_that_lets_nothing_through_is_given_up(
    node: JsNode, site: Deployment, proxy: HostileProxy
) -> None:
    proxy.cut_after(100)
    client = await js_client(node, proxy.url, patienceMs=1_500)
    question = site.answers(*completion(*SHORT))
    error = await (await client.ask(question)).failed()
    assert error["code"] == "server_unreachable"
    assert proxy.cuts > 2
    assert len(site.requests_for(question)) == 1


@pytest.mark.parametrize("piece", [1, 7])
async def test_bytes_that_drip(
    site: Deployment, client: JsClient, proxy: HostileProxy, piece: int
) -> None:
    proxy.piece = piece
    proxy.delay_s = 0.0005
    question = site.answers(*completion(*SHORT))
    await arrives(site, await client.ask(question), question, *SHORT)
    assert (await client.fared())["waits"] == []


class TestAServerThatIsAway:
    """502 for as long as the test likes."""

    async def test_p7_before_the_question(
        self, site: Deployment, client: JsClient, proxy: HostileProxy
    ) -> None:
        proxy.refuse()
        question = site.answers(*completion(*SHORT))
        stream = await client.ask(question)
        await client.do("waited", times=4)
        assert site.requests_for(question) == []
        proxy.calm()
        await arrives(site, stream, question, *SHORT)
        fared = await client.fared()
        assert set(fared["waits"]) == {"HTTP 502"}
        assert fared["connected"] == 1
        keys = {one.headers["idempotency-key"] for one in proxy.requests}
        assert len(keys) == 1

    async def test_p5_in_the_middle(
        self, site: Deployment, client: JsClient, proxy: HostileProxy
    ) -> None:
        gate = asyncio.Event()
        question = site.answers(completion_chunk(content="Ha"), gate, *completion("lf."))
        stream = await client.ask(question)
        await stream.events(2)
        proxy.refuse()
        proxy.cut_now()
        await client.do("waited", times=4)
        gate.set()
        proxy.calm()
        await arrives(site, stream, question, "Ha", "lf.")
        assert {one.method for one in proxy.requests[1:]} == {"GET"}

    async def test_nobody_listens(self, node: JsNode, site: Deployment) -> None:
        async with HostileProxy(site.server.port) as gone:
            url = gone.url
        client = await js_client(node, url, patienceMs=700)
        error = await (await client.ask("Question?")).failed()
        assert (error["code"], error["status"]) == ("server_unreachable", None)
        assert (await client.refused("sessions"))["code"] == "server_unreachable"

    @pytest.mark.parametrize("status", [502, 503, 504])
    async def test_says_when_to_come_back(
        self, site: Deployment, client: JsClient, proxy: HostileProxy, status: int
    ) -> None:
        proxy.refuse(1, status, retry_after_s=1)
        question = site.answers(*completion(*SHORT))
        start = time.monotonic()
        await arrives(site, await client.ask(question), question, *SHORT)
        assert time.monotonic() - start >= 0.9

    async def test_is_told_with_what_it_said_last(self, node: JsNode) -> None:
        full = whole({"error": {"code": "draining", "message": "M", "request_id": "r"}}, 503)
        async with ScriptedUpstream(full) as server:
            client = await js_client(node, server.base_url, patienceMs=500)
            error = await (await client.ask("Q?")).failed()
        assert (error["code"], error["cause"]["code"]) == ("server_unreachable", "draining")

    async def test_with_too_many_requests_counts_as_away_only_once_the_run_is_known(
        self, site: Deployment, client: JsClient, proxy: HostileProxy
    ) -> None:
        proxy.refuse(1, 429)
        assert (await (await client.ask("Q?")).failed())["status"] == 429
        gate = asyncio.Event()
        question = site.answers(completion_chunk(content="Ha"), gate, *completion("lf."))
        stream = await client.ask(question)
        await stream.events(2)
        proxy.refuse(2, 429)
        proxy.cut_now(Cut.RST)
        gate.set()
        await arrives(site, stream, question, "Ha", "lf.")

    @pytest.mark.parametrize("status", [500, 520])
    async def test_and_something_in_between_says_so_in_its_own_words(
        self, site: Deployment, client: JsClient, proxy: HostileProxy, status: int
    ) -> None:
        gate = asyncio.Event()
        question = site.answers(completion_chunk(content="Ha"), gate, *completion("lf."))
        stream = await client.ask(question)
        await stream.events(2)
        proxy.refuse(2, status)
        proxy.cut_now()
        gate.set()
        await arrives(site, stream, question, "Ha", "lf.")

    async def test_while_it_is_asked_for_what_is_stored(
        self, client: JsClient, proxy: HostileProxy
    ) -> None:
        proxy.refuse()
        asking = asyncio.create_task(client.call("upstreams"))
        await client.do("waited", times=2)
        proxy.calm()
        assert len(await asking) == 1
        assert (await client.fared())["connected"] == 1


class TestARequestWhoseFateIsUnknown:
    """It reached the server, and the connection was cut."""

    @pytest.mark.parametrize("kind", [Cut.FIN, Cut.RST])
    async def test_p7_a_question_is_asked_once(
        self, site: Deployment, client: JsClient, proxy: HostileProxy, kind: Cut
    ) -> None:
        proxy.cut_uploads(3, kind)
        question = site.answers(*completion(*SHORT))
        with asks(site):
            await arrives(site, await client.ask(question), question, *SHORT)
        assert [one.method for one in proxy.requests] == ["POST"] * 4
        assert len({one.headers["idempotency-key"] for one in proxy.requests}) == 1
        assert len({one.body for one in proxy.requests}) == 1

    async def test_p7_an_answer_is_regenerated_once(
        self, site: Deployment, client: JsClient, proxy: HostileProxy
    ) -> None:
        question = site.answers(*completion(*SHORT))
        asked = await (await client.ask(question)).done()
        proxy.cut_uploads(2)
        again = await (await client.read("regenerate", asked["messageId"])).done()
        await is_whole(site.server, again)
        found = await client.call("message", again["messageId"])
        assert found["versions"] == [asked["messageId"], again["messageId"]]

    async def test_p10_a_run_is_cancelled(
        self, site: Deployment, client: JsClient, proxy: HostileProxy
    ) -> None:
        question = site.answers(completion_chunk(content="Ha"), Wire.STALL)
        stream = await client.ask(question)
        await stream.events(2)
        proxy.cut_uploads(2)
        assert (await stream.do("cancel"))["value"]["run"]["outcome"] == "cancelled"
        assert (await stream.done())["answer"]["end"]["outcome"] == "cancelled"

    async def test_p10_a_run_is_cancelled_whose_name_is_not_known_yet(
        self, site: Deployment, client: JsClient, proxy: HostileProxy
    ) -> None:
        question = site.answers(completion_chunk(content="Ha"), Wire.STALL)
        proxy.cut_uploads(2)
        stream = await client.ask(question)
        assert (await stream.do("cancel"))["value"]["run"]["outcome"] == "cancelled"
        state = await stream.done()
        await is_whole(site.server, state)

    async def test_p10_is_not_cancelled_if_it_never_got_through(
        self, node: JsNode, proxy: HostileProxy
    ) -> None:
        proxy.refuse()
        client = await js_client(node, proxy.url, patienceMs=600)
        stream = await client.ask("Question?")
        assert (await stream.do("cancel"))["error"]["code"] == "run_unknown"
        assert (await stream.failed())["code"] == "server_unreachable"

    async def test_a_session_is_deleted(self, client: JsClient, proxy: HostileProxy) -> None:
        made = await client.call("createSession", {})
        proxy.cut_uploads(1)
        assert await client.call("deleteSession", made["id"]) is None

    async def test_a_session_is_not_created_twice(
        self, client: JsClient, proxy: HostileProxy
    ) -> None:
        proxy.cut_uploads(1)
        error = await client.refused("createSession", {"title": "Perhaps"})
        assert error["code"] == "server_unreachable"
        assert len(proxy.requests) == 1


class TestSilence:
    async def test_breaks_a_connection(
        self, node: JsNode, site: Deployment, proxy: HostileProxy
    ) -> None:
        client = await js_client(node, proxy.url, silenceMs=400)
        proxy.stall(1)
        question = site.answers(*completion(*SHORT))
        stream = await client.ask(question)
        await client.do("waited", times=1)
        await arrives(site, stream, question, *SHORT)
        assert (await client.fared())["waits"][0] == "it is silent"

    async def test_is_not_where_heartbeats_are(self, tmp_path: Path, node: JsNode) -> None:
        async with Deployment(tmp_path, stream={"heartbeat_s": 0.1}) as site:
            client = await js_client(node, site.server.url, silenceMs=4_000)
            gate = asyncio.Event()
            stream = await client.ask(site.answers(gate, *completion(*SHORT)))
            await stream.events(1)
            await asyncio.sleep(6)  # the time itself is what is tested
            gate.set()
            await is_whole(site.server, await stream.done())
            assert (await client.fared())["waits"] == []


class TestSleepingPages:
    async def test_waking_skips_the_wait(
        self, node: JsNode, site: Deployment, proxy: HostileProxy
    ) -> None:
        client = await js_client(node, proxy.url, patienceMs=10**9)
        proxy.refuse(1, 503, retry_after_s=10_000)
        question = site.answers(*completion(*SHORT))
        stream = await client.ask(question)
        await client.do("waited", times=1)
        await client.do("wake")
        await arrives(site, stream, question, *SHORT)

    async def test_waking_leaves_a_connection_that_has_been_silent(
        self, site: Deployment, client: JsClient, proxy: HostileProxy
    ) -> None:
        proxy.stall(1)
        question = site.answers(*completion(*SHORT))
        stream = await client.ask(question)
        await proxy.came(1)
        await client.do("wake")
        assert (await client.fared())["waits"] == []  # just now it was not silent yet
        await client.do("sleep", ms=3_600_000)
        await client.do("wake")
        await arrives(site, stream, question, *SHORT)

    async def test_time_asleep_does_not_use_up_the_patience(
        self, node: JsNode, site: Deployment, proxy: HostileProxy
    ) -> None:
        client = await js_client(node, proxy.url, silenceMs=500, patienceMs=60_000)
        proxy.stall(2)
        question = site.answers(*completion(*SHORT))
        stream = await client.ask(question)
        await proxy.came(1)
        await client.do("sleep", ms=8 * 3_600_000)
        await arrives(site, stream, question, *SHORT)
        assert len(proxy.requests) >= 3

    async def test_aborting_ends_a_wait(
        self, node: JsNode, site: Deployment, proxy: HostileProxy
    ) -> None:
        client = await js_client(node, proxy.url, patienceMs=10**9)
        proxy.refuse(1, 503, retry_after_s=10_000)
        stream = await client.ask("Question?")
        await client.do("waited", times=1)
        await stream.do("abort")
        assert (await stream.failed())["name"] == "AbortError"
        assert (await client.fared())["connected"] == 1
        assert len(proxy.requests) == 1


async def test_p5_follows_two_runs_over_a_bad_network(
    site: Deployment, client: JsClient, proxy: HostileProxy
) -> None:
    first = await (await client.ask(site.answers(*completion(*LONG)))).done()
    gate = asyncio.Event()
    question = site.answers(completion_chunk(content="Ha"), gate, *completion("lf."))
    second = await client.ask(question, session=first["sessionId"])
    await second.events(2)
    proxy.cut_after(1_000)
    after = first["events"][5]["cursor"]
    stream = await client.read("follow", first["sessionId"], after=after)
    await stream.events(len(first["events"]) - 6 + 2)
    gate.set()
    state = await stream.done()
    assert state["events"] == [*first["events"][6:], *(await second.done())["events"]]
    assert state["answer"]["text"] == "Half."
    assert proxy.cuts > 3


class TestTheDeathOfTheServer:
    """SIGKILL in the middle of an answer, and a new process at the same address."""

    @pytest.mark.parametrize("through_proxy", [False, True])
    async def test_p2_p5_what_was_seen_stays_and_the_end_is_told(
        self, tmp_path: Path, node: JsNode, through_proxy: bool
    ) -> None:
        async with AsyncExitStack() as stack:
            site = await stack.enter_async_context(Deployment(tmp_path))
            url = site.server.url
            if through_proxy:
                proxy = HostileProxy(site.server.port)
                url = (await stack.enter_async_context(proxy)).url
            client = await js_client(node, url)
            question = site.answers(completion_chunk(content="Ha"), Wire.STALL)
            stream = await client.ask(question)
            await stream.events(2)
            site.server.signal(signal.SIGKILL)
            await site.server.exit()
            await client.do("waited", times=3)
            await site.restart()
            state = await stream.done()
            await is_whole(site.server, state)
            assert state["answer"]["text"] == "Ha"
            assert state["answer"]["end"]["reason"] == "server_crash"
            assert len(site.requests_for(question)) == 1
            assert (await client.fared())["connected"] == 1

    async def test_p7_before_it_could_answer_the_question_is_asked_when_it_is_back(
        self, tmp_path: Path, node: JsNode
    ) -> None:
        async with Deployment(tmp_path) as site:
            client = await js_client(node, site.server.url)
            site.server.signal(signal.SIGKILL)
            await site.server.exit()
            question = site.answers(*completion(*SHORT))
            stream = await client.ask(question)
            await client.do("waited", times=2)
            await site.restart()
            await arrives(site, stream, question, *SHORT)


async def test_tells_once_when_the_last_of_many_is_connected_again(
    site: Deployment, client: JsClient, proxy: HostileProxy
) -> None:
    questions = [site.answers(*completion(*SHORT)) for _ in range(3)]
    proxy.refuse()
    streams = [await client.ask(question) for question in questions]
    await client.do("waited", times=9)
    proxy.calm()
    for stream in streams:
        await stream.done()
    assert (await client.fared())["connected"] == 1


async def test_leaving_the_loop_closes_the_connection(
    site: Deployment, client: JsClient, proxy: HostileProxy
) -> None:
    question = site.answers(completion_chunk(content="Ha"), Wire.STALL)
    stream = await client.read("ask", question, leave_after=2)
    state = await stream.done()

    async def nobody_is_connected() -> bool | None:
        return proxy.open == 0 or None

    await eventually(nobody_is_connected)
    await site.server.post(f"/api/v1/runs/{state['runId']}/cancel")
