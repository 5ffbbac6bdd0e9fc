"""Steady streams are read together, and nothing of them is lost, whatever happens to them."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from holdfast.errors import UpstreamError
from holdfast.events import Reason
from holdfast.upstreams.wire import http1
from holdfast.upstreams.wire.intake import Intake
from holdfast.upstreams.wire.transport import Response, Transport
from tests.support.loop import until
from tests.support.upstream_server import (
    LAST_CHUNK,
    Script,
    ScriptedUpstream,
    Wire,
    chunk,
    head,
)

PIECES = [b"%d;" % number for number in range(4 * http1.STEADY_PIECES)]


class Steps:
    """A script that sends each piece only once the one before was taken."""

    def __init__(self, *end: bytes | Wire, first: bytes | None = None, raw: bool = False) -> None:
        self._taken = [asyncio.Event() for _ in PIECES]
        self._body = b""
        self.script: Script = [first or head()]
        for piece, taken in zip(PIECES, self._taken, strict=True):
            self.script = [*self.script, piece if raw else chunk(piece), taken]
        self.script = [*self.script, *end]

    @property
    def body(self) -> bytes:
        return self._body

    def take(self, data: bytes) -> bool:
        self._body += data
        for number in range(self._body.count(b";")):
            self._taken[number].set()
        return False


async def pump(transport: Transport, server: ScriptedUpstream, steps: Steps) -> None:
    async with transport.stream("GET", server.base_url, {}) as response:
        await response.pump(steps.take)


async def test_a_steady_stream_arrives_whole_and_its_connection_is_used_again(
    transport: Transport,
) -> None:
    scripts: list[Steps] = []

    def script(request: object) -> Script:
        scripts.append(Steps(LAST_CHUNK))
        return scripts[-1].script

    joined = 0
    async with ScriptedUpstream(script) as server:
        for number in range(3):
            async with transport.stream("GET", server.base_url, {}) as response:

                def take(
                    data: bytes, steps: Steps = scripts[number], response: Response = response
                ) -> bool:
                    nonlocal joined
                    joined += response.connection.joined
                    return steps.take(data)

                await response.pump(take)
            assert scripts[number].body == b"".join(PIECES)
        assert server.connections == 1
    assert joined == 3 * (len(PIECES) - http1.STEADY_PIECES + 1)


@pytest.mark.parametrize("end", [Wire.CLOSE, Wire.RESET], ids=["closed", "reset"])
async def test_a_steady_stream_that_breaks_off_is_truncated_after_its_last_byte(
    transport: Transport, end: Wire
) -> None:
    steps = Steps(end)
    async with ScriptedUpstream(steps.script) as server:
        with pytest.raises(UpstreamError) as caught:
            await pump(transport, server, steps)
    assert caught.value.reason is Reason.UPSTREAM_TRUNCATED
    assert steps.body == b"".join(PIECES)


async def test_a_steady_body_without_length_ends_with_its_connection(transport: Transport) -> None:
    start = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
    steps = Steps(Wire.CLOSE, first=start, raw=True)
    async with ScriptedUpstream(steps.script) as server:
        await pump(transport, server, steps)
    assert steps.body == b"".join(PIECES)


async def test_leaving_a_steady_stream_closes_its_socket_at_once(transport: Transport) -> None:
    steps = Steps(Wire.STALL)
    async with ScriptedUpstream(steps.script) as server:
        task = asyncio.create_task(pump(transport, server, steps))
        await until(lambda: steps.body == b"".join(PIECES))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await server.client_left()


async def test_a_paused_steady_stream_is_not_read_and_goes_on_where_it_was(
    transport: Transport,
) -> None:
    steps = Steps(LAST_CHUNK)
    pauses = 0

    async with (
        ScriptedUpstream(steps.script) as server,
        transport.stream("GET", server.base_url, {}) as response,
    ):

        def take(data: bytes) -> bool:
            steps.take(data)
            response.pause()
            return True

        while not response.connection.complete:
            pauses += 1
            await response.pump(take)
    assert steps.body == b"".join(PIECES)
    assert pauses >= len(PIECES)


async def test_an_error_of_the_taker_ends_a_steady_stream(transport: Transport) -> None:
    steps = Steps(Wire.STALL)

    def take(data: bytes) -> bool:
        steps.take(data)
        if steps.body.count(b";") == len(PIECES) - 1:
            raise ZeroDivisionError
        return False

    async def answer(response: Response) -> None:
        await response.pump(take)

    async with ScriptedUpstream(steps.script) as server:
        with pytest.raises(ZeroDivisionError):
            async with transport.stream("GET", server.base_url, {}) as response:
                await answer(response)
        await server.client_left()


# ---------------------------------------------------------------------- the intake by itself


class Taker:
    """A source that keeps what it is given."""

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        self.data: list[bytes] = []
        self.errors: list[OSError] = []
        self._then = then

    def on_read(self, data: bytes) -> None:
        self.data.append(data)
        self._then()

    def on_read_error(self, error: OSError) -> None:
        self.errors.append(error)


class Pairs:
    """Connected sockets whose one side an intake reads."""

    def __init__(self, intake: Intake, count: int, stack: ExitStack) -> None:
        self.near: list[socket.socket] = []
        self.far: list[socket.socket] = []
        self.takers: list[Taker] = []
        for _ in range(count):
            near, far = (stack.enter_context(end) for end in socket.socketpair())
            near.setblocking(False)
            self.near.append(near)
            self.far.append(far)
            self.takers.append(Taker())
            intake.add(near.fileno(), self.takers[-1])


async def test_sockets_are_read_together_while_much_comes() -> None:
    intake = Intake()
    turns = 0
    rounds, count = 200, 20
    with ExitStack() as stack:
        stack.callback(intake.close)
        pairs = Pairs(intake, count, stack)

        def counted() -> None:
            nonlocal turns
            turns += 1

        pairs.takers[0]._then = counted
        for _ in range(rounds):
            for far in pairs.far:
                far.send(b"x")
            await asyncio.sleep(0)
        await until(lambda: all(sum(map(len, t.data)) == rounds for t in pairs.takers))
        assert turns < rounds / 2  # several chunks of a socket came in one read


async def test_the_end_of_a_stream_and_its_break_are_told() -> None:
    intake = Intake()
    with ExitStack() as stack:
        stack.callback(intake.close)
        pairs = Pairs(intake, 1, stack)
        pairs.takers[0]._then = lambda: intake.remove(pairs.near[0].fileno(), pairs.takers[0])
        pairs.far[0].close()
        await until(lambda: pairs.takers[0].data == [b""])

        server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        near = stack.enter_context(socket.create_connection(server.getsockname()))
        far, _ = server.accept()
        near.setblocking(False)
        taker = Taker()
        intake.add(near.fileno(), taker)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        far.close()
        await until(lambda: bool(taker.errors))
        intake.remove(near.fileno(), taker)
    assert isinstance(taker.errors[0], ConnectionResetError)


async def test_a_source_that_was_removed_in_the_same_turn_is_not_read() -> None:
    intake = Intake()
    with ExitStack() as stack:
        stack.callback(intake.close)
        pairs = Pairs(intake, 2, stack)
        for this, other in ((0, 1), (1, 0)):
            fd, taker = pairs.near[other].fileno(), pairs.takers[other]
            pairs.takers[this]._then = lambda fd=fd, taker=taker: intake.remove(fd, taker)  # type: ignore[misc]
        for far in pairs.far:
            far.send(b"x")
        await until(lambda: any(taker.data for taker in pairs.takers))
        assert sorted(map(len, (taker.data for taker in pairs.takers))) == [0, 1]


async def test_removing_an_earlier_owner_of_a_number_leaves_the_present_one() -> None:
    intake = Intake()
    with ExitStack() as stack:
        stack.callback(intake.close)
        pairs = Pairs(intake, 1, stack)
        intake.remove(pairs.near[0].fileno(), Taker())
        pairs.far[0].send(b"x")
        await until(lambda: pairs.takers[0].data == [b"x"])
