"""The HTTP client's connections: which are closed, and which are used again."""

import asyncio

import pytest

from holdfast.errors import LocalProtocolError
from holdfast.upstreams.wire.transport import Transport
from tests.support.loop import until
from tests.support.upstream_server import (
    LAST_CHUNK,
    Script,
    ScriptedUpstream,
    Wire,
    chunk,
    head,
    stream,
    whole,
)


async def test_leaving_early_closes_the_socket(transport: Transport) -> None:
    async with ScriptedUpstream([head(), chunk(b"one"), Wire.STALL]) as server:
        async with transport.stream("GET", server.base_url, {}) as response:
            await response.read()
        await server.client_left()


@pytest.mark.parametrize("script", [[Wire.STALL], [head(), Wire.STALL]], ids=["head", "body"])
async def test_cancelling_closes_the_socket(transport: Transport, script: Script) -> None:
    async with ScriptedUpstream(script) as server:

        async def read() -> None:
            async with transport.stream("GET", server.base_url, {}) as response:
                await response.read()

        task = asyncio.create_task(read())
        await server.asked()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.client_left()


async def test_a_connection_that_was_read_to_its_end_is_used_again(transport: Transport) -> None:
    async with ScriptedUpstream(stream(b"one", b"two")) as server:
        for _ in range(3):
            await transport.fetch("GET", server.base_url, {})
        assert server.connections == 1


@pytest.mark.parametrize(
    "script",
    [
        whole("ok", Connection="close"),
        [head(length=2) + b"ok" + b"HTTP/1.1 200 OK\r\n"],
        [head(length=2) + b"ok" + head(length=3) + b"bad"],
        [head(length=-1) + b"ok", Wire.CLOSE],
    ],
    ids=[
        "it says so",
        "half a second answer came",
        "a second answer came",
        "its end is the answer's",
    ],
)
async def test_a_connection_that_cannot_go_on_is_not_used_again(
    transport: Transport, script: Script
) -> None:
    async with ScriptedUpstream(script) as server:
        for _ in range(2):
            assert (await transport.fetch("GET", server.base_url, {})).body == b"ok"
        assert server.connections == 2


async def test_a_connection_that_the_server_closed_is_not_used_again(
    transport: Transport,
) -> None:
    async with ScriptedUpstream([*whole("ok"), Wire.CLOSE]) as server:
        await transport.fetch("GET", server.base_url, {})
        await until(lambda: not transport._pool._all)
        await transport.fetch("GET", server.base_url, {})
        assert server.connections == 2


async def test_a_connection_that_speaks_unasked_is_not_used_again(transport: Transport) -> None:
    go = asyncio.Event()
    script: Script = [*whole("ok"), go, head(length=3) + b"bad", Wire.STALL]
    async with ScriptedUpstream(script) as server:
        assert (await transport.fetch("GET", server.base_url, {})).body == b"ok"
        go.set()
        await until(lambda: not transport._pool._all)
        assert (await transport.fetch("GET", server.base_url, {})).body == b"ok"
        assert server.connections == 2


async def test_an_idle_connection_is_closed_after_a_while(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.upstreams.wire.http1.KEEP_ALIVE_S", 0.01)
    async with ScriptedUpstream(whole("ok")) as server:
        await transport.fetch("GET", server.base_url, {})
        await until(lambda: not transport._pool._all)


async def test_a_connection_that_was_left_early_is_not_used_again(transport: Transport) -> None:
    async with ScriptedUpstream([head(), chunk(b"one"), Wire.STALL]) as server:
        for _ in range(2):
            async with transport.stream("GET", server.base_url, {}) as response:
                await response.read()
        assert server.connections == 2


async def test_a_settled_connection_is_used_again_once_it_ended(transport: Transport) -> None:
    go = asyncio.Event()
    script: Script = [head(), chunk(b"done"), go, LAST_CHUNK]
    async with ScriptedUpstream(script) as server:
        async with transport.stream("GET", server.base_url, {}) as response:
            await response.read()
            response.settle()
        go.set()
        await until(lambda: not transport._settling)
        await transport.fetch("GET", server.base_url, {})
        assert server.connections == 1
        assert server.closed_early == 0


async def test_a_settled_connection_that_does_not_end_is_closed(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.upstreams.wire.transport.SETTLE_S", 0.01)
    async with ScriptedUpstream([head(), chunk(b"done"), Wire.STALL]) as server:
        async with transport.stream("GET", server.base_url, {}) as response:
            await response.read()
            response.settle()
        await server.client_left()
    assert not transport._settling


async def test_closing_the_transport_closes_what_settles() -> None:
    transport = Transport()
    await transport.open()
    async with ScriptedUpstream([head(), chunk(b"done"), Wire.STALL]) as server:
        async with transport.stream("GET", server.base_url, {}) as response:
            await response.read()
            response.settle()
        await transport.close()
        await server.client_left()


async def test_the_last_of_several_users_closes_it() -> None:
    transport = Transport()
    await transport.open()
    await transport.open()
    await transport.close()
    async with ScriptedUpstream(whole("ok")) as server:
        assert (await transport.fetch("GET", server.base_url, {})).body == b"ok"
        await transport.close()
        await transport.close()
        with pytest.raises(LocalProtocolError):
            await transport.fetch("GET", server.base_url, {})
