"""`Client`: the same client, waited for. It must not hang, leak or lose anything by that."""

import asyncio
import gc
import inspect
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from blockbuster import BlockBuster

from holdfast import errors
from holdfast.client import AnswerStream, AsyncAnswerStream, AsyncClient, Client, ServerUnreachable
from holdfast.events import Event, Outcome, RunEnd, RunStart, TextDelta
from tests.support.native_server import frames, in_turn
from tests.support.raw_client import GIVE_UP_S
from tests.support.server import Deployment
from tests.support.upstream_server import (
    Script,
    ScriptedUpstream,
    Wire,
    completion,
    completion_chunk,
    stream,
)

RUN = "0192-run"
EVENTS: list[Event] = [
    RunStart(RUN, "0192-session", "0192-message", "0192-question", "docs"),
    TextDelta("Kelp."),
    RunEnd(Outcome.COMPLETED),
]
FRAMES = frames(RUN, EVENTS)
STALLED = stream(FRAMES[0], end=[Wire.STALL])


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    async with Deployment(tmp_path_factory.mktemp("site")) as site:
        yield site


def scripted(*scripts: Script) -> ScriptedUpstream:
    return ScriptedUpstream(in_turn(*scripts))


async def elsewhere(work: Callable[..., Any], *given: Any) -> Any:
    """Do `work` in a thread that has no event loop."""
    async with asyncio.timeout(GIVE_UP_S):
        return await asyncio.to_thread(work, *given)


def client_threads() -> int:
    return sum(thread.name == "holdfast-client" for thread in threading.enumerate())


def methods_of(kind: type) -> dict[str, Callable[..., Any]]:
    return {
        name: method
        for name, method in vars(kind).items()
        if callable(method) and not name.startswith("_")
    }


class TestShape:
    @pytest.mark.parametrize(
        ("one", "other"), [(Client, AsyncClient), (AnswerStream, AsyncAnswerStream)]
    )
    def test_both_have_the_same_methods(self, one: type, other: type) -> None:
        assert methods_of(one).keys() == methods_of(other).keys()
        for name, method in methods_of(one).items():
            like = methods_of(other)[name]
            assert inspect.signature(method).parameters == inspect.signature(like).parameters
            assert inspect.getdoc(method)
            assert not inspect.iscoroutinefunction(method)

    def test_both_are_made_alike(self) -> None:
        one, other = (inspect.signature(kind).parameters for kind in (Client, AsyncClient))
        assert one == other


class TestAsking:
    async def test_gives_typed_events_and_the_whole_answer(self) -> None:
        def work(url: str) -> None:
            with Client(url) as client, client.ask("?") as answer:
                assert next(answer) == EVENTS[0]
                assert answer.cursor == f"{RUN}.1"
                assert [entry.seq for entry in answer.entries()] == [2, 3]
                assert list(answer) == []
                assert answer.answer().text == "Kelp."
                ids = answer.run_id, answer.session_id, answer.message_id
                assert ids == (RUN, "0192-session", "0192-message")

        async with scripted(stream(*FRAMES)) as server:
            await elsewhere(work, server.base_url)

    async def test_a_whole_conversation(self, site: Deployment) -> None:
        questions = [site.answers(*completion(text)) for text in ("One.", "Two.", "Better.")]

        def work() -> None:
            with Client(site.server.url) as client:
                one = client.ask(questions[0]).answer()
                two = client.ask(questions[1], session=one.session_id).answer()
                client.edit(two.question_id, questions[2]).answer()
                texts = [message.content for message in client.messages(one.session_id)]
                assert texts == [questions[0], "One.", questions[2], "Better."]
                assert client.session(one.session_id).title == questions[0]
                assert one.session_id in [session.id for session in client.sessions()]
                assert client.feedback(one.message_id, "down").feedback is not None
                client.delete_session(one.session_id)
                with pytest.raises(errors.NotFound):
                    client.session(one.session_id)
                assert [upstream.name for upstream in client.upstreams()] == ["script"]

        await elsewhere(work)

    async def test_errors_are_raised_where_they_are_waited_for(self) -> None:
        async with scripted() as server:
            url = server.base_url

        def work() -> None:
            with Client(url) as client:
                with pytest.raises(ServerUnreachable):
                    client.ask("?").answer()
                with pytest.raises(ServerUnreachable):
                    next(client.sessions())
                with pytest.raises(TypeError):
                    client.ask("?", sesion="s")  # type: ignore[call-arg]

        await elsewhere(work)


class TestThreads:
    async def test_may_share_one_client(self, site: Deployment) -> None:
        questions = [site.answers(*completion(f"Answer {n}.")) for n in range(12)]

        def work() -> list[str]:
            with Client(site.server.url) as client, ThreadPoolExecutor(6) as pool:
                return list(pool.map(lambda text: client.ask(text).answer().text, questions))

        assert await elsewhere(work) == [f"Answer {n}." for n in range(12)]

    async def test_may_stop_what_another_one_reads(self, site: Deployment) -> None:
        question = site.answers(completion_chunk(content="Ha"), Wire.STALL)

        def work() -> None:
            with Client(site.server.url) as client, ThreadPoolExecutor() as pool:
                answer = client.ask(question)
                answer.start()
                reading = pool.submit(answer.answer)
                answer.cancel()
                assert reading.result().outcome == "cancelled"

        await elsewhere(work)

    async def test_that_wait_are_told_when_it_is_closed(self) -> None:
        def work(url: str) -> None:
            with ThreadPoolExecutor() as pool:
                client = Client(url)
                answer = client.ask("?")
                next(answer)
                reading = pool.submit(next, answer)
                client.close()
                with pytest.raises(RuntimeError, match="the client is closed"):
                    reading.result()

        async with scripted(STALLED) as server:
            await elsewhere(work, server.base_url)
            await server.client_left()

    async def test_of_its_own_cannot_wait_for_it(self) -> None:
        """A mistake, in `on_wait`: it must be told, and not hang."""

        def work(url: str) -> None:
            def on_wait(cause: str) -> None:
                client.upstreams()

            client = Client(url, on_wait=on_wait)
            with client, pytest.raises(RuntimeError, match="own thread"):
                client.ask("?").answer()

        async with scripted([Wire.CLOSE]) as server:
            await elsewhere(work, server.base_url)


class TestEventLoops:
    async def test_may_run_where_it_is_used(
        self, site: Deployment, loop_guard: BlockBuster
    ) -> None:
        """As in a notebook. It holds up that loop, which is what waiting means."""
        question = site.answers(*completion("Yes."))

        async def look() -> str:
            with Client(site.server.url) as client:
                return client.ask(question).answer().text

        loop_guard.deactivate()
        try:
            # Not on this loop: the server's upstream lives on it.
            assert await asyncio.to_thread(asyncio.run, look()) == "Yes."
        finally:
            loop_guard.activate()


class TestLeaving:
    async def test_closing_ends_its_thread_and_its_connections(self) -> None:
        def work(url: str) -> None:
            before = client_threads()
            client = Client(url)
            assert client_threads() == before
            answer = client.ask("?")
            next(answer)
            assert client_threads() == before + 1
            client.close()
            assert client_threads() == before
            client.close()
            with pytest.raises(RuntimeError, match="the client is closed"):
                next(answer)
            with pytest.raises(RuntimeError, match="the client is closed"):
                client.upstreams()

        async with scripted(STALLED) as server:
            await elsewhere(work, server.base_url)
            await server.client_left()

    async def test_closing_what_was_never_used_is_no_error(self) -> None:
        await elsewhere(Client().close)

    async def test_a_loop_that_is_left_ends_its_connection(self) -> None:
        left = threading.Event()

        def work(url: str) -> None:
            with Client(url) as client:
                for event in client.ask("?"):
                    assert event == EVENTS[0]
                    break
                gc.collect()
                assert left.wait(GIVE_UP_S)

        async with scripted(STALLED) as server:
            working = asyncio.create_task(elsewhere(work, server.base_url))
            await server.client_left()
            left.set()
            await working

    async def test_a_stream_outlives_a_block_around_it(self) -> None:
        def work(url: str) -> list[Event]:
            with Client(url) as client:
                answer = client.ask("?")
                with answer:
                    next(answer)
                return list(answer)

        async with scripted(STALLED, stream(*FRAMES[1:])) as server:
            assert await elsewhere(work, server.base_url) == EVENTS[1:]


FORGETFUL = """
import sys
from holdfast.client import Client
answer = Client(sys.argv[1]).ask("?")
print(type(next(answer)).__name__, flush=True)
"""
INTERRUPTED = """
import sys
from holdfast.client import Client
with Client(sys.argv[1]) as client:
    answer = client.ask("?")
    try:
        print(type(next(answer)).__name__, flush=True)
        next(answer)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    print([type(event).__name__ for event in answer])
"""


class TestProcesses:
    async def test_that_forget_to_close_it_end(self) -> None:
        async with scripted(STALLED) as server:
            process = await self.start(FORGETFUL, server.base_url)
            async with asyncio.timeout(GIVE_UP_S):
                out, err = await process.communicate()
        assert (process.returncode, out, err) == (0, b"RunStart\n", b"")

    async def test_ctrl_c_ends_the_waiting_and_loses_nothing(self) -> None:
        gate = asyncio.Event()
        script: Script = [*STALLED[:-1], gate, *stream(*FRAMES[1:])[1:]]
        async with scripted(script) as server:
            process = await self.start(INTERRUPTED, server.base_url)
            assert process.stdout is not None
            assert await process.stdout.readline() == b"RunStart\n"
            process.send_signal(signal.SIGINT)
            async with asyncio.timeout(GIVE_UP_S):
                assert await process.stdout.readline() == b"interrupted\n"
                gate.set()
                out, err = await process.communicate()
        assert (process.returncode, out) == (0, b"['TextDelta', 'RunEnd']\n")
        assert err == b""
        assert len(server.requests) == 1

    async def start(self, program: str, url: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-W", "error", "-c", program, url),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
