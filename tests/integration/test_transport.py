"""The HTTP client against a scripted server: what arrives, what is told, what is closed."""

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from holdfast.errors import LocalProtocolError, UpstreamError
from holdfast.events import Reason
from holdfast.upstreams.transport import Response, Transport
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


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    transport = Transport()
    await transport.open()
    yield transport
    await transport.close()


async def read_all(response: Response) -> bytes:
    data = b""
    while piece := await response.read():
        data += piece
    return data


async def fails(transport: Transport, url: str) -> UpstreamError:
    with pytest.raises(UpstreamError) as caught:
        async with transport.stream("GET", url, {}) as response:
            await read_all(response)
    return caught.value


# ---------------------------------------------------------------------- what arrives


async def test_the_request_goes_out_as_given(transport: Transport) -> None:
    async with ScriptedUpstream(whole("ok")) as server:
        url = server.base_url + "/v1/x?a=1"
        async with transport.stream("POST", url, {"X-Test": "1"}, b'{"a":1}') as response:
            assert await read_all(response) == b"ok"
    request = server.requests[0]
    assert (request.method, request.path, request.body) == ("POST", "/v1/x?a=1", b'{"a":1}')
    assert request.headers["x-test"] == "1"
    assert request.headers["accept-encoding"] == "identity"
    assert "cookie" not in request.headers


async def test_the_head_of_the_answer_is_told(transport: Transport) -> None:
    script = whole("no", 418, "Text/HTML ; charset=utf-8", X_Test="yes")
    async with (
        ScriptedUpstream(script) as server,
        transport.stream("GET", server.base_url, {}) as response,
    ):
        assert response.status == 418
        assert response.content_type == "text/html"
        assert response.headers["x-test"] == "yes"


async def test_an_answer_without_a_content_type(transport: Transport) -> None:
    async with (
        ScriptedUpstream(whole("x", content_type=None)) as server,
        transport.stream("GET", server.base_url, {}) as response,
    ):
        assert response.content_type == ""


async def test_pieces_arrive_as_they_are_sent(transport: Transport) -> None:
    go = asyncio.Event()
    script: Script = [head(), chunk(b"one"), go, chunk(b"two"), LAST_CHUNK]
    async with (
        ScriptedUpstream(script) as server,
        transport.stream("GET", server.base_url, {}) as response,
    ):
        assert await response.read() == b"one"
        go.set()
        assert await read_all(response) == b"two"


async def test_a_body_until_eof_is_whole(transport: Transport) -> None:
    script: Script = [head(length=-1) + b"body", Wire.CLOSE]
    async with (
        ScriptedUpstream(script) as server,
        transport.stream("GET", server.base_url, {}) as response,
    ):
        assert await read_all(response) == b"body"


async def test_a_compressed_body_is_unpacked(transport: Transport) -> None:
    body = gzip.compress(b"body")
    script = [head(length=len(body), Content_Encoding="gzip") + body]
    async with (
        ScriptedUpstream(script) as server,
        transport.stream("GET", server.base_url, {}) as response,
    ):
        assert await read_all(response) == b"body"


async def test_redirects_are_not_followed(transport: Transport) -> None:
    script = whole("", 307, Location="/elsewhere")
    async with ScriptedUpstream(script) as server:
        async with transport.stream("POST", server.base_url, {}, b"x") as response:
            assert response.status == 307
        assert len(server.requests) == 1


async def test_cookies_are_not_kept(transport: Transport) -> None:
    async with ScriptedUpstream(whole("ok", Set_Cookie="a=1")) as server:
        for _ in range(2):
            await transport.fetch("GET", server.base_url, {})
    assert "cookie" not in server.requests[1].headers


async def test_a_small_answer_is_fetched_whole(transport: Transport) -> None:
    async with ScriptedUpstream(whole({"a": 1}, 404)) as server:
        fetched = await transport.fetch("GET", server.base_url, {})
    assert (fetched.status, fetched.content_type) == (404, "application/json")
    assert fetched.body == b'{"a": 1}'


async def test_a_large_answer_is_not_fetched(transport: Transport) -> None:
    async with ScriptedUpstream(stream(b"x" * 600, b"x" * 600)) as server:
        with pytest.raises(UpstreamError) as caught:
            await transport.fetch("GET", server.base_url, {}, limit=1000)
    assert caught.value.reason is Reason.LIMIT


@pytest.mark.parametrize("last", [LAST_CHUNK, Wire.RESET, Wire.CLOSE])
async def test_the_start_of_a_body_is_read_however_it_ends(
    transport: Transport, last: bytes | Wire
) -> None:
    async with (
        ScriptedUpstream([head(500), chunk(b"words"), last]) as server,
        transport.stream("GET", server.base_url, {}) as response,
    ):
        assert await response.read_start(1000) == b"words"


async def test_no_more_than_the_start_of_a_body_is_read(transport: Transport) -> None:
    async with (
        ScriptedUpstream([head(500), chunk(b"x" * 1000), Wire.STALL]) as server,
        transport.stream("GET", server.base_url, {}) as response,
    ):
        assert await response.read_start(100) == b"x" * 1000


# ---------------------------------------------------------------------- what is told


async def test_nobody_listens(transport: Transport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    error = await fails(transport, f"http://127.0.0.1:{port}/secret-path")
    assert error.reason is Reason.UPSTREAM_UNREACHABLE
    assert str(port) in error.message
    assert "refused" in error.message
    assert "secret-path" not in error.message


async def test_no_such_host(transport: Transport, monkeypatch: pytest.MonkeyPatch) -> None:
    def lookup(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    error = await fails(transport, "http://nowhere.invalid/")
    assert error.reason is Reason.UPSTREAM_UNREACHABLE
    assert "nowhere.invalid" in error.message
    assert "not known" in error.message


@pytest.mark.parametrize("url", ["http://", "http://127.0.0.1:99999/", "mailto:a@b"])
async def test_addresses_that_cannot_be(transport: Transport, url: str) -> None:
    assert (await fails(transport, url)).reason in (
        Reason.UPSTREAM_UNREACHABLE,
        Reason.UPSTREAM_ERROR,
    )


async def test_a_header_that_cannot_be(transport: Transport) -> None:
    with pytest.raises(UpstreamError) as caught:
        async with transport.stream("GET", "http://127.0.0.1:1/", {"X": "secret\r\nY: 1"}):
            pass
    assert "secret" not in caught.value.message


async def test_connecting_may_not_take_for_ever(transport: Transport) -> None:
    # A full backlog of a socket that never accepts leaves further connections waiting.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(address)
        with pytest.raises(UpstreamError) as caught:
            async with transport.stream(
                "GET", f"http://127.0.0.1:{address[1]}", {}, connect_timeout_s=0.2
            ):
                pass
        for client in waiting:
            client.close()
    assert caught.value.reason is Reason.UPSTREAM_UNREACHABLE


@pytest.mark.parametrize("last", [Wire.CLOSE, Wire.RESET])
@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 20", b"HTTP/1.1 200 OK\r\nContent-"])
async def test_no_answer_at_all(transport: Transport, start: bytes, last: Wire) -> None:
    async with ScriptedUpstream([start, last]) as server:
        error = await fails(transport, server.base_url)
    assert error.reason is Reason.UPSTREAM_ERROR


async def test_an_answer_that_is_not_http(transport: Transport) -> None:
    async with ScriptedUpstream([b"SSH-2.0-OpenSSH_9\r\n", Wire.CLOSE]) as server:
        error = await fails(transport, server.base_url)
    assert error.reason is Reason.UPSTREAM_ERROR


BROKEN: dict[str, Script] = {
    "closed between chunks": [head(), chunk(b"some"), Wire.CLOSE],
    "closed inside a chunk": [head(), b"ff\r\nsome", Wire.CLOSE],
    "reset": [head(), chunk(b"some"), Wire.RESET],
    "closed before the length": [head(length=100) + b"some", Wire.CLOSE],
    "a broken chunk": [head(), chunk(b"some") + b"zz\r\nxx\r\n", Wire.CLOSE],
    "garbage instead of compressed data": [
        head(length=9, Content_Encoding="gzip") + b"garbage!!",
    ],
}


@pytest.mark.parametrize("script", BROKEN.values(), ids=BROKEN.keys())
async def test_a_body_that_breaks_off(transport: Transport, script: Script) -> None:
    async with ScriptedUpstream(script) as server:
        error = await fails(transport, server.base_url)
    assert error.reason is Reason.UPSTREAM_TRUNCATED


@pytest.mark.parametrize("last", [Wire.CLOSE, Wire.RESET])
async def test_what_had_arrived_before_the_break_is_not_lost(
    transport: Transport, last: Wire
) -> None:
    go = asyncio.Event()
    async with ScriptedUpstream([head(), chunk(b"one"), go, chunk(b"two"), last]) as server:
        with pytest.raises(UpstreamError) as caught:
            async with transport.stream("GET", server.base_url, {}) as response:
                assert await response.read() == b"one"
                go.set()
                # Busy elsewhere while both the rest and the break arrive.
                await until(lambda: response.connection.error is not None)
                assert await response.read() == b"two"
                await response.read()
    assert caught.value.reason is Reason.UPSTREAM_TRUNCATED


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until something that nobody tells has happened."""
    while not condition():  # noqa: ASYNC110 - the HTTP client has no event for it
        await asyncio.sleep(0)


async def test_a_transport_that_is_not_open_is_our_bug() -> None:
    with pytest.raises(LocalProtocolError):
        async with Transport().stream("GET", "http://127.0.0.1:1/", {}):
            pass


# ---------------------------------------------------------------------- what is closed


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
    monkeypatch.setattr("holdfast.upstreams.transport.SETTLE_S", 0.01)
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
