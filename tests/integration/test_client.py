"""The client against a server that does what the test wrote down."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import pytest

from holdfast import errors
from holdfast.client import AsyncClient, ServerUnreachable, _reading
from holdfast.client._reading import Patience
from holdfast.events import Entry, Event, Outcome, RunEnd, RunStart, TextDelta
from tests.support.native_server import (
    RestartedServer,
    frames,
    in_turn,
    message_object,
    session_object,
)
from tests.support.upstream_server import (
    LAST_CHUNK,
    Script,
    ScriptedUpstream,
    Step,
    Wire,
    chunk,
    head,
    stream,
    whole,
)

T = TypeVar("T")

RUN = "0192-run"
EVENTS: list[Event] = [
    RunStart(RUN, "0192-session", "0192-message", "0192-question", "docs"),
    TextDelta("Kelp "),
    TextDelta("holds – fast."),
    RunEnd(Outcome.COMPLETED),
]
FRAMES = frames(RUN, EVENTS)
WHOLE = b"".join(FRAMES)


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_reading, "FIRST_WAIT_S", 0.0)
    monkeypatch.setattr(_reading, "LONGEST_WAIT_S", 0.0)


async def collect(items: AsyncIterator[T]) -> list[T]:
    return [item async for item in items]


def scripted(*scripts: Script) -> ScriptedUpstream:
    return ScriptedUpstream(in_turn(*scripts))


def cut(*pieces: bytes) -> Script:
    """A stream whose connection is closed after these pieces."""
    return stream(*pieces, end=[Wire.CLOSE])


async def ask(*scripts: Script, **options: Any) -> tuple[list[Entry], ScriptedUpstream]:
    """Ask a server with these scripts; give what came and the server."""
    async with (
        scripted(*scripts) as server,
        AsyncClient(server.base_url, **options) as client,
    ):
        return await collect(client.ask("What holds?").entries()), server


async def address_of_nobody() -> str:
    async with scripted() as server:
        return server.base_url


def assert_whole(entries: list[Entry]) -> None:
    assert [entry.seq for entry in entries] == [1, 2, 3, 4]
    assert [entry.event for entry in entries] == EVENTS


class TestAsking:
    async def test_gives_every_entry_to_the_end(self) -> None:
        entries, _ = await ask(stream(WHOLE))
        assert_whole(entries)
        assert entries[1].data == b'{"type":"text-delta","text":"Kelp "}'

    async def test_sends_the_question_with_a_key(self) -> None:
        async with (
            scripted(stream(WHOLE)) as server,
            AsyncClient(server.base_url) as client,
        ):
            await collect(client.ask("What?", session="s", upstream="docs", idempotency_key="k"))
        (request,) = server.requests
        assert (request.method, request.path) == ("POST", "/api/v1/runs")
        assert json.loads(request.body) == {
            "message": "What?",
            "session_id": "s",
            "upstream": "docs",
        }
        assert request.headers["idempotency-key"] == "k"
        assert request.headers["content-type"] == "application/json"

    async def test_each_question_has_a_key_of_its_own(self) -> None:
        scripts = stream(WHOLE), stream(WHOLE)
        async with scripted(*scripts) as server, AsyncClient(server.base_url) as client:
            await collect(client.ask("A").entries())
            await collect(client.ask("A").entries())
        first, second = (request.headers["idempotency-key"] for request in server.requests)
        assert first != second

    async def test_leaves_out_what_is_not_given(self) -> None:
        _, server = await ask(stream(WHOLE))
        assert json.loads(server.requests[0].body) == {"message": "What holds?"}

    async def test_does_not_wait_for_a_server_that_keeps_the_stream_open(self) -> None:
        entries, _ = await ask(stream(WHOLE, end=[Wire.STALL]))
        assert_whole(entries)


@pytest.mark.usefixtures("no_waits")
class TestResuming:
    async def test_a_stream_cut_after_any_byte_is_given_whole(self) -> None:
        ends = [sum(map(len, FRAMES[:count])) for count in range(len(FRAMES) + 1)]
        for at in range(len(WHOLE)):
            seen = sum(end <= at for end in ends) - 1
            rest = b"".join(FRAMES[seen:])
            entries, server = await ask(cut(WHOLE[:at]), stream(rest))
            assert_whole(entries)
            assert_resumed(server, seen)

    @pytest.mark.parametrize("end", [LAST_CHUNK, Wire.RESET])
    async def test_any_other_end_is_resumed_too(self, end: Step) -> None:
        entries, server = await ask([head(), end], stream(WHOLE))
        assert_whole(entries)
        assert_resumed(server, 0)

    async def test_a_silent_stream_counts_as_broken(self) -> None:
        hanging = stream(*FRAMES[:2], end=[Wire.STALL])
        entries, server = await ask(hanging, stream(*FRAMES[2:]), silence_s=0.1)
        assert_whole(entries)
        assert_resumed(server, 2)

    async def test_entries_seen_before_are_given_once(self) -> None:
        entries, _ = await ask(cut(*FRAMES[:3]), stream(WHOLE))
        assert_whole(entries)

    async def test_a_missing_entry_is_asked_for(self) -> None:
        incomplete = stream(FRAMES[0], FRAMES[2], end=[Wire.STALL])
        async with asyncio.timeout(10):
            entries, server = await ask(incomplete, stream(*FRAMES[1:]))
        assert_whole(entries)
        assert_resumed(server, 1)

    async def test_a_server_that_is_not_ready_is_waited_for(self) -> None:
        entries, server = await ask(
            cut(FRAMES[0]),
            whole({}, 503),
            whole("<html>", 502, "text/html"),
            stream(*FRAMES[1:]),
        )
        assert_whole(entries)
        assert len(server.requests) == 4

    async def test_a_server_that_dies_before_it_answers_is_waited_for(self) -> None:
        entries, server = await ask([Wire.CLOSE], whole({}, 503), stream(WHOLE))
        assert_whole(entries)
        assert len({request.headers["idempotency-key"] for request in server.requests}) == 1

    async def test_a_server_that_was_restarted_is_found_again(self) -> None:
        waits: list[str] = []
        waited = asyncio.Event()

        def on_wait(cause: str) -> None:
            waits.append(cause)
            if len(waits) > 1:  # the first is the broken stream, the others find nobody
                waited.set()

        async with AsyncExitStack() as life:
            server = await life.enter_async_context(scripted(stream(*FRAMES[:2], end=[Wire.STALL])))
            restarted = RestartedServer(server, stream(*FRAMES[2:]))
            async with AsyncClient(server.base_url, on_wait=on_wait) as client:
                entries = client.ask("What holds?").entries()
                seen = [await anext(entries), await anext(entries)]
                rest = asyncio.create_task(collect(entries))
                await life.aclose()
                await waited.wait()
                async with restarted as again:
                    assert_whole([*seen, *await rest])
        assert again.requests[0].headers["last-event-id"] == f"{RUN}.2"

    async def test_the_end_of_a_run_is_not_waited_for(self) -> None:
        async with (
            scripted([head(204, None, length=-1)]) as server,
            AsyncClient(server.base_url) as client,
        ):
            assert await collect(client.resume(f"{RUN}.4").entries()) == []

    async def test_a_run_is_read_from_its_beginning(self) -> None:
        async with scripted(stream(WHOLE)) as server, AsyncClient(server.base_url) as client:
            assert_whole(await collect(client.resume(RUN).entries()))
        (request,) = server.requests
        assert (request.method, request.path) == ("GET", f"/api/v1/runs/{RUN}/events")
        assert "last-event-id" not in request.headers


def assert_resumed(server: ScriptedUpstream, seen: int) -> None:
    """The second request goes on after `seen` entries, and asks nothing anew."""
    first, second = server.requests
    if seen:
        assert (second.method, second.path) == ("GET", f"/api/v1/runs/{RUN}/events")
        assert second.headers["last-event-id"] == f"{RUN}.{seen}"
    else:
        assert (second.method, second.path, second.body) == ("POST", "/api/v1/runs", first.body)
        assert second.headers["idempotency-key"] == first.headers["idempotency-key"]


class TestFirstTry:
    async def test_nobody_there_is_told_at_once(self) -> None:
        url = await address_of_nobody()
        async with AsyncClient(url, on_wait=pytest.fail) as client:
            with pytest.raises(ServerUnreachable, match=f"no answer from {url}: ") as caught:
                await collect(client.ask("?").entries())
        assert not caught.value.reached

    async def test_nobody_there_is_waited_for_if_asked_to(self, no_waits: None) -> None:
        async with scripted() as nobody:
            url, restarted = nobody.base_url, RestartedServer(nobody, stream(WHOLE))
        waited = asyncio.Event()

        def on_wait(cause: str) -> None:
            waited.set()

        async with AsyncClient(url, wait_for_server=True, on_wait=on_wait) as client:
            asking = asyncio.create_task(collect(client.ask("?").entries()))
            await waited.wait()
            async with restarted:
                assert_whole(await asking)

    async def test_nor_is_that_waited_for_for_ever(self) -> None:
        async with AsyncClient(
            await address_of_nobody(), wait_for_server=True, patience_s=0
        ) as client:
            with pytest.raises(ServerUnreachable) as caught:
                await collect(client.ask("?").entries())
        assert not caught.value.reached

    @pytest.mark.parametrize("status", [502, 503, 504])
    async def test_a_server_that_restarts_is_waited_for(self, status: int, no_waits: None) -> None:
        away = whole({"error": {"code": "draining", "message": "Soon."}}, status)
        entries, server = await ask(away, whole("<html>", status, "text/html"), stream(WHOLE))
        assert_whole(entries)
        assert len({request.headers["idempotency-key"] for request in server.requests}) == 1

    async def test_what_it_said_last_is_the_error_when_patience_ends(self) -> None:
        told = whole({"error": {"code": "store_unavailable", "message": "It is full."}}, 503)
        with pytest.raises(errors.StoreUnavailable, match="It is full"):
            await ask(told, patience_s=0)

    async def test_a_limit_is_told_at_once(self) -> None:
        told = whole({"error": {"code": "too_many_requests", "message": "No."}}, 429)
        with pytest.raises(errors.TooManyRequests):
            await ask(told, on_wait=pytest.fail)


class TestPatience:
    async def test_it_ends(self, no_waits: None) -> None:
        with pytest.raises(ServerUnreachable, match=r"the connection was closed$") as caught:
            await ask(*[cut()] * 4, patience_s=0.0)
        assert caught.value.reached

    async def test_it_does_not_outlast_a_long_retry_after(self) -> None:
        with pytest.raises(ServerUnreachable, match="HTTP 503"):
            await ask(cut(FRAMES[0]), whole({}, 503, Retry_After="3600"), patience_s=5)

    async def test_every_entry_renews_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        renewals: list[None] = []

        class Watched(Patience):
            def renew(self) -> None:
                super().renew()
                renewals.append(None)

        monkeypatch.setattr(_reading, "Patience", Watched)
        await ask(stream(WHOLE))
        assert len(renewals) == 1 + len(EVENTS)

    def test_begins_with_the_first_failure_after_an_entry(self) -> None:
        now = 0.0
        patience = Patience(10, lambda: now)
        now = 100.0
        assert patience.next_wait_s() is not None
        now = 109.0
        assert patience.next_wait_s() is not None
        now = 110.0
        assert patience.next_wait_s() is None
        patience.renew()
        assert patience.next_wait_s() is not None

    def test_waits_grow_to_a_bound_and_begin_anew(self) -> None:
        patience = Patience(1000)
        waits = [patience.next_wait_s() or 0 for _ in range(12)]
        assert waits[0] < waits[2] < waits[4]
        assert max(waits) <= 1.25 * _reading.LONGEST_WAIT_S
        patience.renew()
        assert (patience.next_wait_s() or 0) < waits[2]

    def test_a_wait_is_as_long_as_the_server_asks(self) -> None:
        patience = Patience(1000)
        assert patience.next_wait_s(50) == 50
        patience.at_least_s = 20
        assert patience.next_wait_s() == 20
        patience.renew()
        assert patience.next_wait_s() == 20


class TestErrors:
    @pytest.mark.parametrize(
        ("status", "code", "kind"),
        [
            (404, "not_found", errors.NotFound),
            (409, "run_active", errors.RunActive),
            (410, "cursor_ahead", errors.CursorAhead),
            (413, "too_large", errors.TooLarge),
            (418, "teapot", errors.HoldfastError),
        ],
    )
    async def test_an_answer_becomes_the_error_it_stands_for(
        self, status: int, code: str, kind: type[errors.HoldfastError]
    ) -> None:
        body = {"error": {"code": code, "message": "so it is", "run_id": "r"}, "message": {}}
        with pytest.raises(errors.HoldfastError) as caught:
            await ask(whole(body, status))
        assert type(caught.value) is kind
        assert caught.value.message == "so it is"
        assert caught.value.extra["run_id"] == "r"

    async def test_an_error_of_somebody_else_names_server_and_status(self) -> None:
        with pytest.raises(
            errors.HoldfastError, match=r"http://127\.0\.0\.1:\d+ answered HTTP 404"
        ):
            await ask(whole("<html>", 404, "text/html"))

    @pytest.mark.parametrize(
        "script",
        [
            [head(200, "text/html"), chunk(WHOLE), LAST_CHUNK],
            stream(b"id: 1\ndata: hello\n\n"),
            stream(b'id: r.1\ndata: {"type":"text-delta"}\n\n'),
            stream(b"id: r.1\ndata: [1]\n\n"),
            stream(b'id: 1\ndata: {"type":"step","label":"x"}\n\n'),
        ],
    )
    async def test_what_is_no_holdfast_is_told(self, script: Script) -> None:
        with pytest.raises(errors.HoldfastError, match="no Holdfast server"):
            await ask(script)

    @pytest.mark.parametrize("url", ["ftp://host", "http://", "host:port", "", "http://h:99999"])
    async def test_what_is_no_address_is_told(self, url: str) -> None:
        with pytest.raises(errors.ConfigError, match="is not the address of a server"):
            AsyncClient(url)

    async def test_an_address_needs_no_scheme_and_may_have_a_path(self) -> None:
        async with (
            scripted(whole(session_object())) as server,
            AsyncClient(f"{server.base_url.removeprefix('http://')}/holdfast/") as client,
        ):
            await client.session("s")
        assert server.requests[0].path == "/holdfast/api/v1/sessions/s"

    async def test_an_id_is_one_segment_of_the_path_whatever_is_in_it(self) -> None:
        async with (
            scripted(whole(session_object())) as server,
            AsyncClient(server.base_url) as client,
        ):
            await client.session("a/b?c=%2F 海")
        assert server.requests[0].path == "/api/v1/sessions/a%2Fb%3Fc%3D%252F%20%E6%B5%B7"


class TestReading:
    async def test_messages_come_over_all_pages(self) -> None:
        first = [message_object(id="1"), message_object(id="2", role="assistant")]
        pages = [
            whole({"items": first, "next": "a b"}),
            whole({"items": [message_object(id="3")], "next": None}),
        ]
        async with scripted(*pages) as server, AsyncClient(server.base_url) as client:
            messages = await collect(client.messages("s"))
        assert [(message.id, message.role) for message in messages] == [
            *(("1", "user"), ("2", "assistant"), ("3", "user"))
        ]
        assert [request.path for request in server.requests] == [
            "/api/v1/sessions/s/messages",
            "/api/v1/sessions/s/messages?after=a+b",
        ]

    async def test_sessions_come_over_all_pages_of_a_search(self) -> None:
        pages = [
            whole({"items": [session_object(id="2")], "next": "9.2"}),
            whole({"items": [session_object(id="1")], "next": None}),
        ]
        async with scripted(*pages) as server, AsyncClient(server.base_url) as client:
            sessions = await collect(client.sessions("a & b"))
        assert [session.id for session in sessions] == ["2", "1"]
        assert [request.path for request in server.requests] == [
            "/api/v1/sessions?q=a+%26+b",
            "/api/v1/sessions?q=a+%26+b&before=9.2",
        ]

    async def test_what_a_later_server_adds_is_passed_over(self) -> None:
        async with (
            scripted(whole(session_object(id="s", colour="green"))) as server,
            AsyncClient(server.base_url) as client,
        ):
            assert (await client.session("s")).id == "s"

    @pytest.mark.parametrize("body", ["[]", "{}", "<html>", ""])
    async def test_what_is_no_session_is_told(self, body: str) -> None:
        async with scripted(whole(body)) as server, AsyncClient(server.base_url) as client:
            with pytest.raises(errors.HoldfastError, match="no Holdfast server"):
                await client.session("s")

    async def test_nobody_there_is_told(self) -> None:
        async with AsyncClient(await address_of_nobody()) as client:
            with pytest.raises(ServerUnreachable):
                await client.session("s")

    async def test_what_is_closed_is_told(self) -> None:
        client = AsyncClient()
        await client.close()
        with pytest.raises(RuntimeError, match="the client is closed"):
            await client.session("s")
