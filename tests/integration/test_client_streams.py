"""What a client gives for an answer: events, positions, the whole of it; stopping and leaving."""

import asyncio
import gc
from collections.abc import AsyncIterator

import pytest

from holdfast import errors
from holdfast.client import Answer, AsyncClient, _reading
from holdfast.events import (
    Event,
    Finish,
    Outcome,
    Reason,
    ReasoningDelta,
    Reference,
    References,
    RunEnd,
    RunStart,
    TextDelta,
    TextReplace,
)
from tests.support.native_server import frames, in_turn
from tests.support.server import Deployment, script_of
from tests.support.upstream_server import (
    LAST_CHUNK,
    Script,
    ScriptedUpstream,
    Wire,
    chunk,
    completion,
    completion_chunk,
    head,
    stream,
)

RUN = "0192-run"
START = RunStart(RUN, "0192-session", "0192-message", "0192-question", "docs", model="m1")
SOURCE = Reference(1, document_name="kelp.md", score=0.5)
EVENTS: list[Event] = [
    START,
    ReasoningDelta("Hm."),
    TextDelta("Kelp"),
    References((SOURCE,)),
    TextReplace("Kelp [1].", marks=((5, 8, 1),)),
    RunEnd(Outcome.INTERRUPTED, Reason.UPSTREAM_ERROR, Finish.LENGTH, "boom"),
]
FRAMES = frames(RUN, EVENTS)
ANSWER = Answer(
    text="Kelp [1].",
    marks=((5, 8, 1),),
    reasoning="Hm.",
    references=(SOURCE,),
    upstream="docs",
    model="m1",
    arrived=True,
    end=EVENTS[-1],  # type: ignore[arg-type]
    run_id=RUN,
    session_id="0192-session",
    message_id="0192-message",
    question_id="0192-question",
)
IDS = {"X_Holdfast_Run": RUN, "X_Holdfast_Session": "s", "X_Holdfast_Message": "m"}
NOTHING: Script = [head(204, None, length=-1)]


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_reading, "FIRST_WAIT_S", 0.0)


def scripted(*scripts: Script) -> ScriptedUpstream:
    return ScriptedUpstream(in_turn(*scripts))


def with_ids(*pieces: bytes) -> Script:
    return [
        head(200, "text/event-stream", length=None, **IDS),
        *[chunk(piece) for piece in pieces],
        LAST_CHUNK,
    ]


class TestEvents:
    async def test_are_typed_and_in_order(self) -> None:
        async with scripted(stream(*FRAMES)) as server, AsyncClient(server.base_url) as client:
            assert [event async for event in client.ask("?")] == EVENTS

    async def test_move_the_cursor_as_they_are_given(self) -> None:
        async with scripted(stream(*FRAMES)) as server, AsyncClient(server.base_url) as client:
            answer = client.ask("?")
            assert (answer.cursor, answer.run_id) == (None, None)
            seen = [answer.cursor async for _ in answer]
        assert seen == [f"{RUN}.{seq}" for seq in range(1, len(EVENTS) + 1)]
        assert answer.run_id == RUN
        assert (answer.session_id, answer.message_id) == ("0192-session", "0192-message")

    async def test_of_a_later_version_are_passed_over(self) -> None:
        strange = f'id: {RUN}.3\nevent: x\ndata: {{"type":"from-the-future","n":1}}\n\n'.encode()
        async with (
            scripted(stream(*FRAMES[:2], strange, *FRAMES[3:])) as server,
            AsyncClient(server.base_url) as client,
        ):
            answer = client.ask("?")
            entries = [entry async for entry in answer.entries()]
        assert [entry.seq for entry in entries] == [1, 2, 4, 5, 6]
        assert len(server.requests) == 1

    async def test_are_each_given_once_however_they_are_asked_for(self) -> None:
        async with scripted(stream(*FRAMES)) as server, AsyncClient(server.base_url) as client:
            answer = client.ask("?")
            assert await anext(answer) == START
            async for event in answer:
                assert event == EVENTS[1]
                break
            assert [entry.seq async for entry in answer.entries()] == [3, 4, 5, 6]
            assert [event async for event in answer] == []
        assert len(server.requests) == 1

    async def test_are_not_lost_when_waiting_for_one_is_cancelled(self) -> None:
        gate = asyncio.Event()
        script: Script = [head(), chunk(FRAMES[0]), gate, *map(chunk, FRAMES[1:]), LAST_CHUNK]
        async with scripted(script) as server, AsyncClient(server.base_url) as client:
            answer = client.ask("?")
            await anext(answer)
            for _ in range(3):
                waiting = asyncio.ensure_future(anext(answer))
                await asyncio.sleep(0)
                waiting.cancel()
                await asyncio.wait([waiting])
            gate.set()
            assert [event async for event in answer] == EVENTS[1:]
        assert len(server.requests) == 1

    async def test_are_not_lost_when_connecting_is_cancelled(self) -> None:
        scripts: list[Script] = [[Wire.STALL], stream(*FRAMES)]
        async with scripted(*scripts) as server, AsyncClient(server.base_url) as client:
            answer = client.ask("?")
            waiting = asyncio.ensure_future(anext(answer))
            await server.asked()
            waiting.cancel()
            await asyncio.wait([waiting])
            assert [event async for event in answer] == EVENTS
        first, second = (request.headers["idempotency-key"] for request in server.requests)
        assert first == second

    async def test_are_shared_by_readers_at_the_same_time(self) -> None:
        async with scripted(stream(*FRAMES)) as server, AsyncClient(server.base_url) as client:
            answer = client.ask("?")
            found = await asyncio.gather(*(anext(answer, None) for _ in range(8)))
        assert found == [*EVENTS, None, None]


class TestAnswer:
    async def test_is_what_the_events_amount_to(self) -> None:
        async with scripted(stream(*FRAMES)) as server, AsyncClient(server.base_url) as client:
            answer = await client.ask("?").answer()
        assert answer == ANSWER
        assert (answer.status, answer.outcome, answer.reason) == (
            *("partial", "interrupted", "upstream_error"),
        )
        assert answer.error == "boom"

    async def test_has_what_was_given_before(self) -> None:
        async with scripted(stream(*FRAMES)) as server, AsyncClient(server.base_url) as client:
            stream_ = client.ask("?")
            await anext(stream_)
            await anext(stream_)
            assert await stream_.answer() == ANSWER
            assert await stream_.answer() == ANSWER

    async def test_is_whole_when_reading_began_in_the_middle(self) -> None:
        scripts = stream(*FRAMES[3:]), stream(*FRAMES)
        async with scripted(*scripts) as server, AsyncClient(server.base_url) as client:
            assert await client.resume(f"{RUN}.3").answer() == ANSWER
        assert [request.headers.get("last-event-id") for request in server.requests] == [
            *(f"{RUN}.3", None)
        ]

    async def test_is_whole_at_the_end_of_a_run(self) -> None:
        scripts: list[Script] = [NOTHING, stream(*FRAMES)]
        async with scripted(*scripts) as server, AsyncClient(server.base_url) as client:
            assert await client.resume(f"{RUN}.6").answer() == ANSWER

    async def test_of_nothing_is_not_there(self) -> None:
        async with (
            scripted(NOTHING, NOTHING, NOTHING) as server,
            AsyncClient(server.base_url) as client,
        ):
            assert [event async for event in client.follow("s")] == []
            with pytest.raises(errors.NotFound):
                await client.follow("s").answer()
            with pytest.raises(errors.NotFound):
                await client.follow("s").cancel()
        assert server.requests[0].path == "/api/v1/sessions/s/events"


class TestStarting:
    async def test_gives_the_ids_and_no_event(self) -> None:
        async with scripted(with_ids(*FRAMES)) as server, AsyncClient(server.base_url) as client:
            answer = client.ask("?")
            await answer.start()
            assert (answer.run_id, answer.session_id, answer.message_id) == (RUN, "s", "m")
            assert answer.cursor == f"{RUN}.0"
            assert [event async for event in answer] == EVENTS
        assert len(server.requests) == 1

    async def test_a_run_that_is_known_is_read_and_not_asked_for_again(self) -> None:
        scripts = with_ids(), stream(*FRAMES)
        async with scripted(*scripts) as server, AsyncClient(server.base_url) as client:
            assert [event async for event in client.ask("?")] == EVENTS
        assert [request.method for request in server.requests] == ["POST", "GET"]
        assert "last-event-id" not in server.requests[1].headers


class TestOptions:
    async def test_are_sent(self) -> None:
        async with scripted(stream(*FRAMES)) as server, AsyncClient(server.base_url) as client:
            await client.ask(
                "?",
                session="s",
                preset="careful",
                upstream="gpt",
                model="m",
                on_disconnect="cancel",
                on_busy="reject",
                metadata={"a": 1},
                temperature=0.5,
                max_tokens=9,
                system="Short.",
            ).answer()
        assert server.requests[0].json == {
            "message": "?",
            "session_id": "s",
            "preset": "careful",
            "upstream": "gpt",
            "model": "m",
            "on_disconnect": "cancel",
            "on_busy": "reject",
            "metadata": {"a": 1},
            "temperature": 0.5,
            "max_tokens": 9,
            "system": "Short.",
        }

    async def test_that_are_none_are_told_before_anything_is_asked(self) -> None:
        async with AsyncClient() as client:
            with pytest.raises(TypeError, match="there is no option sesion"):
                client.ask("?", sesion="s")  # type: ignore[call-arg]

    async def test_of_regenerating_and_editing_are_the_same(self) -> None:
        scripts = stream(*FRAMES), stream(*FRAMES)
        async with scripted(*scripts) as server, AsyncClient(server.base_url) as client:
            await client.regenerate("a", model="m", idempotency_key="k1").answer()
            await client.edit("q", "Better?", model="m", idempotency_key="k2").answer()
        asked = [
            (one.method, one.path, one.json, one.headers["idempotency-key"])
            for one in server.requests
        ]
        assert asked == [
            ("POST", "/api/v1/messages/a/regenerate", {"model": "m"}, "k1"),
            ("POST", "/api/v1/messages/q/edit", {"message": "Better?", "model": "m"}, "k2"),
        ]

    @pytest.mark.parametrize("cursor", ["a.b", ".1", "run.", "a b.1", "r.1.2"])
    async def test_a_cursor_that_is_none_is_told(self, cursor: str) -> None:
        async with AsyncClient() as client:
            with pytest.raises(errors.BadRequest):
                client.resume(cursor)


class TestWaits:
    @pytest.mark.parametrize("told", [b"retry: 90000\n\n", b"retry: 90000\n" + FRAMES[0]])
    async def test_are_as_long_as_the_stream_asks(self, told: bytes) -> None:
        """Longer than there is patience, so that nothing has to be waited for here."""
        async with (
            scripted(stream(told)) as server,
            AsyncClient(server.base_url, patience_s=60, on_wait=pytest.fail) as client,
        ):
            with pytest.raises(errors.HoldfastError, match="the connection was closed"):
                await client.ask("?").answer()
        assert len(server.requests) == 1

    async def test_an_event_larger_than_any_is_no_reason_to_wait(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_reading, "MAX_EVENT", 1000)
        large = stream(b"data: " + b"x" * 2000, end=[Wire.STALL])
        async with scripted(large) as server, AsyncClient(server.base_url) as client:
            with pytest.raises(errors.HoldfastError, match="no Holdfast server"):
                await client.ask("?").answer()


class TestLeaving:
    async def test_the_block_ends_the_connection(self) -> None:
        script: Script = [*stream(FRAMES[0], end=[Wire.STALL])]
        async with scripted(script) as server, AsyncClient(server.base_url) as client:
            async with client.ask("?") as answer:
                await anext(answer)
            await server.client_left()

    async def test_a_stream_that_nobody_has_ends_its_connection(self) -> None:
        script: Script = [*stream(FRAMES[0], end=[Wire.STALL])]
        async with scripted(script) as server, AsyncClient(server.base_url) as client:
            async for event in client.ask("?"):
                assert event == START
                break
            gc.collect()
            await server.client_left()

    async def test_reading_on_goes_on(self) -> None:
        """The second event had come by then, but nobody was given it."""
        scripts = stream(*FRAMES[:2], end=[Wire.STALL]), stream(*FRAMES[1:])
        async with scripted(*scripts) as server, AsyncClient(server.base_url) as client:
            answer = client.ask("?")
            await anext(answer)
            await answer.close()
            assert [event async for event in answer] == EVENTS[1:]
        assert server.requests[1].headers["last-event-id"] == f"{RUN}.1"


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    async with Deployment(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture
async def client(site: Deployment) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(site.server.url) as client:
        yield client


class TestWithARealServer:
    async def test_a_conversation(self, site: Deployment, client: AsyncClient) -> None:
        first, second = (site.answers(*completion(text)) for text in ("One.", "Two."))
        one = await client.ask(first, metadata={"a": 1}).answer()
        two = await client.ask(second, session=one.session_id).answer()
        assert (one.text, one.status, one.outcome) == ("One.", "complete", "completed")
        messages = [message async for message in client.messages(one.session_id)]
        assert [message.content for message in messages] == [first, "One.", second, "Two."]
        assert messages[0].metadata == {"a": 1}
        assert messages[3].id == two.message_id
        assert (await client.run(two.run_id)).message.content == "Two."
        assert (await client.message(two.message_id)).content == "Two."

    async def test_stopping_from_elsewhere_while_it_is_read(
        self, site: Deployment, client: AsyncClient
    ) -> None:
        answer = client.ask(site.answers(completion_chunk(content="Ha"), Wire.STALL))
        async for event in answer:
            if isinstance(event, TextDelta):
                stopped = await answer.cancel()
        assert (stopped.run.outcome, stopped.message.content) == ("cancelled", "Ha")
        found = await answer.answer()
        assert (found.text, found.status, found.reason) == ("Ha", "partial", "client_cancelled")
        assert answer.run_id is not None
        assert (await client.cancel(answer.run_id)).run.outcome == "cancelled"

    async def test_stopping_what_was_not_read_asks_it_first(
        self, site: Deployment, client: AsyncClient
    ) -> None:
        question = site.answers(completion_chunk(content="Ha"), Wire.STALL)
        answer = client.ask(question)
        await answer.cancel()
        assert (await answer.answer()).outcome == "cancelled"

    async def test_following_a_session(self, site: Deployment, client: AsyncClient) -> None:
        gate = asyncio.Event()
        question = site.answers(completion_chunk(content="Ha"), gate, *completion("lf."))
        asked = client.ask(question)
        await asked.start()
        assert asked.session_id is not None
        following = client.follow(asked.session_id)
        await following.start()
        gate.set()
        assert await following.answer() == await asked.answer()
        assert [event async for event in client.follow(asked.session_id)] == []

    async def test_editing_and_regenerating(self, site: Deployment, client: AsyncClient) -> None:
        question = site.question(script_of(*completion("Old.")), script_of(*completion("New.")))
        old = await client.ask(question).answer()
        new = await client.regenerate(old.message_id).answer()
        assert (new.text, new.question_id) == ("New.", old.question_id)
        better = site.answers(*completion("Better."))
        edited = await client.edit(new.question_id, better).answer()
        assert (edited.text, edited.session_id) == ("Better.", old.session_id)
        messages = [message async for message in client.messages(old.session_id)]
        assert [message.content for message in messages] == [better, "Better."]

    async def test_sessions(self, client: AsyncClient) -> None:
        made = await client.create_session(title="Zostera", metadata={"a": 1})
        assert (await client.session(made.id)).title == "Zostera"
        assert (await client.rename_session(made.id, "Zostera marina")).metadata == {"a": 1}
        assert [one.id async for one in client.sessions("marina")] == [made.id]
        assert made.id in [one.id async for one in client.sessions()]
        await client.delete_session(made.id)
        assert [one async for one in client.sessions("marina")] == []
        with pytest.raises(errors.NotFound):
            await client.session(made.id)

    async def test_feedback(self, client: AsyncClient) -> None:
        answer = await client.ask("Why?").answer()
        said = await client.feedback(answer.message_id, "up", "Just so.")
        assert said.feedback is not None
        assert (said.feedback["rating"], said.feedback["comment"]) == ("up", "Just so.")
        assert (await client.feedback(answer.message_id, None)).feedback is None
        with pytest.raises(errors.Conflict):
            await client.feedback(answer.question_id, "up")

    async def test_upstreams_and_presets(self, client: AsyncClient) -> None:
        assert [one.name for one in await client.upstreams()] == ["script"]
        assert await client.presets() == []

    async def test_a_busy_session(self, site: Deployment, client: AsyncClient) -> None:
        answer = client.ask(site.answers(completion_chunk(content="Ha"), Wire.STALL))
        await answer.start()
        with pytest.raises(errors.RunActive) as caught:
            await client.ask("And?", session=answer.session_id).answer()
        assert caught.value.extra["run_id"] == answer.run_id
        other = client.ask("And?", session=answer.session_id, on_busy="cancel")
        assert (await other.answer()).status == "complete"
        assert (await answer.answer()).outcome == "cancelled"

    async def test_a_cursor_beyond_the_end(self, client: AsyncClient) -> None:
        answer = await client.ask("Why?").answer()
        with pytest.raises(errors.CursorAhead) as caught:
            await client.resume(f"{answer.run_id}.99").answer()
        assert caught.value.answer["content"] == "Kelp holds fast."
        with pytest.raises(errors.NotFound):
            await client.resume("nope").answer()

    async def test_a_key_of_the_callers_own(self, client: AsyncClient) -> None:
        first = await client.ask("A?", idempotency_key="k").answer()
        assert await client.ask("A?", idempotency_key="k").answer() == first
        with pytest.raises(errors.IdempotencyMismatch):
            await client.ask("B?", idempotency_key="k").answer()
