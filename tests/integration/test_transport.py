"""The HTTP client against a scripted server: what arrives, and what is told."""

import asyncio
import gzip
import socket

import pytest

from holdfast.errors import LocalProtocolError, UpstreamError
from holdfast.events import Reason
from holdfast.upstreams.wire.transport import Response, Transport
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


async def read_all(response: Response) -> bytes:
    pieces = []
    while piece := await response.read():
        pieces.append(piece)
    return b"".join(pieces)


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


async def test_each_piece_is_handed_on_in_the_turn_in_which_it_comes(
    transport: Transport,
) -> None:
    pieces: list[bytes] = []
    async with (
        ScriptedUpstream(stream(b"one", b"two", b"end")) as server,
        transport.stream("GET", server.base_url, {}) as response,
    ):

        def take(piece: bytes) -> bool:
            pieces.append(piece)
            return b"".join(pieces).endswith(b"one")

        await response.pump(take)
        await response.pump(take)
    assert b"".join(pieces) == b"onetwoend"


async def test_what_a_taker_raises_comes_out_of_the_pump(transport: Transport) -> None:
    def take(piece: bytes) -> bool:
        raise RuntimeError(piece.decode())

    async with ScriptedUpstream([head(), chunk(b"one"), Wire.STALL]) as server:
        async with transport.stream("GET", server.base_url, {}) as response:
            with pytest.raises(RuntimeError, match="one"):
                await response.pump(take)
        await server.client_left()


async def test_a_body_that_nobody_reads_stays_at_the_server(transport: Transport) -> None:
    size = 64 * 1024
    script: Script = [head(), *[chunk(b"x" * size)] * 300, LAST_CHUNK]
    async with (
        ScriptedUpstream(script) as server,
        transport.stream("GET", server.base_url, {}) as response,
    ):
        await until(lambda: response.connection._paused)
        kept = sum(map(len, response.connection._parts))
        assert kept < 1_000_000
        assert server.played == 0
        assert len(await read_all(response)) == 300 * size


async def test_interim_answers_are_passed_over(transport: Transport) -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Type: text/x\r\n\r\n"
    async with (
        ScriptedUpstream([interim, *whole("ok", 201)]) as server,
        transport.stream("GET", server.base_url, {}) as response,
    ):
        assert (response.status, response.content_type) == (201, "application/json")
        assert "link" not in response.headers
        assert await read_all(response) == b"ok"


async def test_a_head_byte_by_byte(transport: Transport) -> None:
    bare = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: 1\r\nX-A: 2\r\n\r\nok"
    script = [bytes([byte]) for byte in bare]
    async with (
        ScriptedUpstream(script) as server,
        transport.stream("GET", server.base_url, {}) as response,
    ):
        assert response.headers["x-a"] == "1, 2"
        assert await read_all(response) == b"ok"


async def test_an_endless_head_is_refused(transport: Transport) -> None:
    script: Script = [b"HTTP/1.1 200 OK\r\n", *[b"X-A: " + b"a" * 10_000 + b"\r\n"] * 100]
    async with ScriptedUpstream(script) as server:
        error = await fails(transport, server.base_url)
    assert error.reason is Reason.UPSTREAM_ERROR


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
    assert error.reason is Reason.UPSTREAM_UNREACHABLE


async def test_an_answer_that_is_not_http(transport: Transport) -> None:
    async with ScriptedUpstream([b"SSH-2.0-OpenSSH_9\r\n", Wire.CLOSE]) as server:
        error = await fails(transport, server.base_url)
    assert error.reason is Reason.UPSTREAM_ERROR


BROKEN: dict[str, Script] = {
    "closed between chunks": [head(), chunk(b"some"), Wire.CLOSE],
    "closed inside a chunk": [head(), b"ff\r\nsome", Wire.CLOSE],
    "reset": [head(), chunk(b"some"), Wire.RESET],
    "closed before the length": [head(length=100) + b"some", Wire.CLOSE],
    "reset in a body until EOF": [head(length=-1) + b"some", Wire.RESET],
    "a broken chunk": [head(), chunk(b"some") + b"zz\r\nxx\r\n", Wire.CLOSE],
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
    async with (
        ScriptedUpstream([head(), chunk(b"one"), go, chunk(b"two"), last]) as server,
        transport.stream("GET", server.base_url, {}) as response,
    ):
        assert await response.read() == b"one"
        go.set()
        # Busy elsewhere while both the rest and the break arrive.
        await until(lambda: response.connection.error is not None)
        assert await response.read() == b"two"
        with pytest.raises(UpstreamError) as caught:
            await response.read()
    assert caught.value.reason is Reason.UPSTREAM_TRUNCATED


@pytest.mark.parametrize(
    ("coding", "reason"),
    [
        ("gzip", Reason.UPSTREAM_TRUNCATED),
        ("deflate", Reason.UPSTREAM_TRUNCATED),
        ("br", Reason.UPSTREAM_ERROR),
    ],
)
async def test_an_encoding_that_cannot_be_read(
    transport: Transport, coding: str, reason: Reason
) -> None:
    async with ScriptedUpstream([head(length=9, Content_Encoding=coding) + b"garbage!!"]) as server:
        error = await fails(transport, server.base_url)
    assert error.reason is reason


async def test_what_unpacks_to_too_much_is_refused(transport: Transport) -> None:
    bomb = gzip.compress(b"x" * 50_000_000)
    script: Script = [head(length=len(bomb), Content_Encoding="gzip") + bomb]
    async with ScriptedUpstream(script) as server:
        error = await fails(transport, server.base_url)
    assert error.reason is Reason.LIMIT


async def test_a_transport_that_is_not_open_is_our_bug() -> None:
    with pytest.raises(LocalProtocolError):
        async with Transport().stream("GET", "http://127.0.0.1:1/", {}):
            pass
