"""`holdfast-client.js`, unmodified, and servers that send what a good one never would."""

import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from tests.support.js_client import JsNode, js_client
from tests.support.server import script_of
from tests.support.upstream_server import Request, Script, ScriptedUpstream, Wire, chunk, head

START = '{"type":"run-start","run_id":"%s","session_id":"s","message_id":"m","question_id":"q"}'


@pytest.fixture(scope="module")
async def node() -> AsyncIterator[JsNode]:
    async with JsNode() as node:
        yield node


def frame(seq: int, data: str, run: str = "r") -> bytes:
    return f"id: {run}.{seq}\ndata: {data}\n\n".encode()


def log(run: str = "r") -> list[bytes]:
    """A whole run: `abc`."""
    texts = [f'{{"type":"text-delta","text":"{letter}"}}' for letter in "abc"]
    datas = [START % run, *texts, '{"type":"run-end","outcome":"completed"}']
    return [frame(seq, data, run) for seq, data in enumerate(datas, 1)]


class Server(ScriptedUpstream):
    """Plays one script after the other."""

    def __init__(self, *scripts: Script) -> None:
        self._scripts = list(scripts)
        super().__init__(lambda _: self._scripts.pop(0))

    @property
    def told(self) -> list[tuple[str, str, str | None]]:
        """Method, path and cursor of each request."""
        return [_told(request) for request in self.requests]


def _told(request: Request) -> tuple[str, str, str | None]:
    return request.method, request.path, request.headers.get("last-event-id")


async def read(node: JsNode, server: Server) -> Any:
    client = await js_client(node, server.base_url)
    return await (await client.ask("Q?")).done()


def seqs(state: Any) -> list[tuple[str, int]]:
    return [(event["runId"], event["seq"]) for event in state["events"]]


WHOLE = [("r", seq) for seq in range(1, 6)]


@pytest.mark.parametrize(
    "first",
    [
        [*log()[:2], *log()[3:]],  # a gap
        [*log()[:2]],  # a clean end
        [*log()[:2], log()[2][:-1]],  # half a frame
        [*log()[:2], *log()[:2]],  # the same again
        [*log()[:2], b"id: r.2\ndata: not even JSON\n\n"],
    ],
)
async def test_p5_what_is_missing_is_asked_for(node: JsNode, first: Sequence[bytes]) -> None:
    async with Server(script_of(*first), script_of(*log()[2:])) as server:
        state = await read(node, server)
        assert (seqs(state), state["answer"]["text"]) == (WHOLE, "abc")
        assert server.told[1:] == [("GET", "/api/v1/runs/r/events", "r.2")]


async def test_p5_what_was_seen_is_not_given_again(node: JsNode) -> None:
    async with Server(script_of(*log()[:3], Wire.RESET), script_of(*log())) as server:
        state = await read(node, server)
        assert (seqs(state), state["answer"]["text"]) == (WHOLE, "abc")


async def test_the_run_s_end_is_enough_though_the_response_goes_on(node: JsNode) -> None:
    async with Server(script_of(*log(), Wire.STALL)) as server:
        assert seqs(await read(node, server)) == WHOLE
        await server.client_left()


async def test_p7_a_run_with_a_name_and_no_event_is_not_asked_for_again(node: JsNode) -> None:
    named: Script = [head(X_Holdfast_Run="r"), b"5\r\n: ok\n\r\n", Wire.RESET]
    async with Server(named, script_of(*log())) as server:
        assert seqs(await read(node, server)) == WHOLE
        assert server.told[1:] == [("GET", "/api/v1/runs/r/events", None)]


async def test_the_stream_says_how_long_to_wait(node: JsNode) -> None:
    async with Server(script_of(b"retry: 1000\n\n", *log()[:2]), script_of(*log())) as server:
        start = time.monotonic()
        assert seqs(await read(node, server)) == WHOLE
        assert time.monotonic() - start >= 0.7


async def test_follows_runs_that_no_header_names(node: JsNode) -> None:
    both = [*log("r")[3:], *log("t")]
    async with Server(script_of(*both[:4], Wire.RESET), script_of(*both[4:])) as server:
        client = await js_client(node, server.base_url)
        state = await (await client.read("follow", "s", after="r.3")).done()
        assert seqs(state) == [("r", 4), ("r", 5), *[("t", seq) for seq in range(1, 6)]]
        assert state["answer"]["text"] == "abc"
        path = "/api/v1/sessions/s/events"
        assert server.told == [("GET", path, "r.3"), ("GET", path, "t.2")]


@pytest.mark.parametrize("seen", [0, 1, 2, 4])
async def test_follows_two_runs_of_which_the_first_is_cut(node: JsNode, seen: int) -> None:
    both = [*log("r")[3:], *log("t")]
    first: Script = [head(X_Holdfast_Run="t"), *[chunk(one) for one in both[:seen]], Wire.RESET]
    scripts = [script_of(*log("t")[max(0, seen - 2) :])]
    if seen < 2:  # the rest of the first run is asked for by its name
        scripts.insert(0, script_of(*both[seen:2]))
    async with Server(first, *scripts) as server:
        client = await js_client(node, server.base_url)
        state = await (await client.read("follow", "s", after="r.3")).done()
        assert seqs(state) == [("r", 4), ("r", 5), *[("t", seq) for seq in range(1, 6)]]
        assert state["answer"]["text"] == "abc"
        assert server.told[-1][1] == "/api/v1/runs/t/events"


async def test_takes_unknown_events_and_fields_as_they_are(node: JsNode) -> None:
    strange = frame(2, '{"type":"later","cursor":"x","deep":{"a":[1,null]}}')
    end = frame(3, '{"type":"run-end","outcome":"completed"}')
    async with Server(script_of(log()[0], strange, end)) as server:
        state = await read(node, server)
        assert state["events"][1]["deep"] == {"a": [1, None]}
        assert state["events"][1]["cursor"] == "r.2"
