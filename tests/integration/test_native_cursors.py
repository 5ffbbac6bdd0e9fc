"""Where readers begin: cursors of every kind, joining a session, asking again with a cursor."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.server import Deployment
from tests.support.upstream_server import Wire, completion, completion_chunk

LETTERS = [completion_chunk(content=letter) for letter in "abcde"]
"""As events: run-start is 1, `a` 2 … `e` 6; with the end of the answer, run-end is 7."""
WHOLE = [*LETTERS, *completion()]


@pytest.fixture(scope="module")
async def site(
    tmp_path_factory: pytest.TempPathFactory, storage: dict[str, Any]
) -> AsyncIterator[Deployment]:
    async with Deployment(tmp_path_factory.mktemp("site"), storage=storage) as site:
        yield site


@pytest.fixture
async def ended(site: Deployment) -> "Ended":
    """A run of seven events that has ended."""
    async with site.ask(site.answers(*WHOLE)) as stream:
        await stream.rest()
    return Ended(stream.run_id, stream.session_id, [frame.raw for frame in stream.frames])


class Ended:
    def __init__(self, run_id: str, session_id: str, frames: list[bytes]) -> None:
        self.run_id = run_id
        self.session_id = session_id
        self.frames = frames
        self.events = f"/api/v1/runs/{run_id}/events"
        self.session_events = f"/api/v1/sessions/{session_id}/events"


async def events(site: Deployment, path: str, **headers: str) -> list[bytes]:
    async with site.server.stream("GET", path, **headers) as stream:
        await stream.rest()
    return [frame.raw for frame in stream.frames]


class TestEventsOfARun:
    async def test_begin_at_the_first_without_a_cursor(
        self, site: Deployment, ended: Ended
    ) -> None:
        assert await events(site, ended.events) == ended.frames

    @pytest.mark.parametrize("seq", range(7))
    async def test_p5_go_on_after_the_cursor_however_it_is_given(
        self, seq: int, site: Deployment, ended: Ended
    ) -> None:
        cursor = f"{ended.run_id}.{seq}"
        rest = ended.frames[seq:]
        assert await events(site, ended.events, Last_Event_ID=cursor) == rest
        assert await events(site, ended.events, Last_Event_ID=str(seq)) == rest
        assert await events(site, f"{ended.events}?after={cursor}") == rest
        assert await events(site, f"{ended.events}?after={seq}") == rest

    async def test_the_header_beats_the_parameter(self, site: Deployment, ended: Ended) -> None:
        path = f"{ended.events}?after={ended.run_id}.2"
        got = await events(site, path, Last_Event_ID=f"{ended.run_id}.5")
        assert got == ended.frames[5:]

    async def test_carry_the_ids_of_the_run(self, site: Deployment, ended: Ended) -> None:
        async with site.server.stream("GET", ended.events) as stream:
            start = (await stream.until("run-start")).data
        assert stream.run_id == ended.run_id
        assert stream.session_id == ended.session_id
        assert stream.message_id == start["message_id"]

    async def test_at_the_end_of_an_ended_run_are_204(self, site: Deployment, ended: Ended) -> None:
        for path, header in ((f"{ended.events}?after=7", ""), (ended.events, f"{ended.run_id}.7")):
            reply = await site.server.get(path, Last_Event_ID=header)
            assert (reply.status, reply.body) == (204, b"")
            assert reply.headers["x-holdfast-run"] == ended.run_id

    async def test_at_the_head_of_a_live_run_wait_for_more(self, site: Deployment) -> None:
        gate = asyncio.Event()
        async with site.ask(site.answers(*LETTERS, gate, *completion())) as first:
            await first.read_text("abcde")
            path = f"/api/v1/runs/{first.run_id}/events?after=6"
            async with site.server.stream("GET", path) as second:
                assert (await second.next()).is_comment  # type: ignore[union-attr]
                gate.set()
                assert [frame.event for frame in await second.rest()] == ["run-end"]
                assert second.frames[0].id == f"{first.run_id}.7"

    @pytest.mark.parametrize("ahead", [8, 10**15 - 1])
    async def test_ahead_of_the_log_are_410_with_the_message(
        self, ahead: int, site: Deployment, ended: Ended
    ) -> None:
        cursor = f"{ended.run_id}.{ahead}"
        reply = await site.server.get(ended.events, Last_Event_ID=cursor)
        assert reply.refused(410, "cursor_ahead")["last_seq"] == 7
        assert reply.json["message"]["content"] == "abcde"
        assert reply.json["message"]["run_id"] == ended.run_id

    async def test_ahead_of_a_live_run_are_410_with_the_message_so_far(
        self, site: Deployment
    ) -> None:
        async with site.ask(site.answers(*LETTERS, Wire.STALL)) as stream:
            await stream.read_text("abcde")
            reply = await site.server.get(f"/api/v1/runs/{stream.run_id}/events?after=7")
            await site.server.post(f"/api/v1/runs/{stream.run_id}/cancel")
        reply.refused(410, "cursor_ahead")
        assert reply.json["message"]["content"] == "abcde"
        assert reply.json["message"]["status"] == "streaming"

    @pytest.mark.parametrize(
        "cursor",
        [
            *("x", "-1", "1.5.2", ".5", "5.", "{run}", "{run}.", "{run}.x", "{run}.-1", "{run}.+1"),
            *("{run}.1.2", "{run}.1e3", "{run} .1", "{run}.1;", "{run}.٣", "{run}." + "9" * 16),
            *("a" * 5000 + ".1", "1" * 5000, "../{run}.1", "{run}.1,{run}.2"),
        ],
    )
    async def test_a_malformed_cursor_is_400(
        self, cursor: str, site: Deployment, ended: Ended
    ) -> None:
        cursor = cursor.replace("{run}", ended.run_id)
        reply = await site.server.get(ended.events, Last_Event_ID=cursor)
        reply.refused(400, "bad_request")

    async def test_an_empty_parameter_is_400(self, site: Deployment, ended: Ended) -> None:
        (await site.server.get(f"{ended.events}?after=")).refused(400, "bad_request")

    async def test_the_cursor_of_another_run_is_404(self, site: Deployment, ended: Ended) -> None:
        other = (await site.asked("Why?"))["run"]["id"]
        for cursor in (f"{other}.2", f"{other}.0", f"{other}.99", "unknown.1"):
            reply = await site.server.get(ended.events, Last_Event_ID=cursor)
            reply.refused(404, "not_found")

    async def test_of_a_deleted_run_are_404(self, site: Deployment, ended: Ended) -> None:
        await site.server.call("DELETE", f"/api/v1/sessions/{ended.session_id}")
        for cursor in ("", f"{ended.run_id}.2", f"{ended.run_id}.7"):
            reply = await site.server.get(ended.events, Last_Event_ID=cursor)
            reply.refused(404, "not_found")

    async def test_of_a_run_that_is_deleted_while_it_is_read_come_to_their_end(
        self, site: Deployment
    ) -> None:
        async with site.ask(site.answers(*LETTERS, Wire.STALL)) as stream:
            await stream.read_text("abcde")
            path = f"/api/v1/sessions/{stream.session_id}"
            assert (await site.server.call("DELETE", path)).status == 204
            await stream.rest()
        assert stream.end["outcome"] == "cancelled"
        (await site.server.get(f"/api/v1/runs/{stream.run_id}")).refused(404, "not_found")
        (await site.server.get(path)).refused(404, "not_found")
        (await site.server.get(f"{path}/messages")).refused(404, "not_found")


class TestAskingWithACursor:
    async def test_p7_reads_on_and_never_asks(self, site: Deployment, ended: Ended) -> None:
        asked = len(site.upstream.requests)
        cursor = {"Last-Event-ID": f"{ended.run_id}.3"}
        async with site.ask("Why?", headers=cursor) as stream:
            await stream.rest()
        assert [frame.raw for frame in stream.frames] == ended.frames[3:]
        assert stream.run_id == ended.run_id
        assert len(site.upstream.requests) == asked

    async def test_p7_works_whatever_the_body_is(self, site: Deployment, ended: Ended) -> None:
        for body in (b"", b"not JSON", b'{"message": ""}'):
            request = site.server.request(
                "POST", "/api/v1/runs", body, {"Last-Event-ID": f"{ended.run_id}.7"}
            )
            async with site.server.connect() as connection:
                await connection.send(request)
                assert (await connection.reply()).status == 204

    @pytest.mark.parametrize(
        ("cursor", "status", "code"),
        [
            ("5", 400, "bad_request"),
            ("nonsense", 400, "bad_request"),
            ("unknown.5", 404, "not_found"),
            ("{run}.99", 410, "cursor_ahead"),
        ],
    )
    async def test_p7_a_bad_cursor_is_refused_and_asks_nothing(
        self, cursor: str, status: int, code: str, site: Deployment, ended: Ended
    ) -> None:
        asked = len(site.upstream.requests)
        header = cursor.replace("{run}", ended.run_id)
        for path in ("/api/v1/runs", f"/api/v1/messages/{ended.run_id}/regenerate"):
            reply = await site.server.post(path, {"message": "Why?"}, Last_Event_ID=header)
            reply.refused(status, code)
        assert len(site.upstream.requests) == asked

    async def test_p7_an_empty_cursor_asks_nothing(self, site: Deployment) -> None:
        asked = len(site.upstream.requests)
        request = site.server.request("POST", "/api/v1/runs", {"message": "Why?"}, {"X-Last": "y"})
        async with site.server.connect() as connection:
            await connection.send(request.replace(b"X-Last: y", b"Last-Event-ID:"))
            (await connection.reply()).refused(400, "bad_request")
        assert len(site.upstream.requests) == asked

    async def test_joins_a_live_run(self, site: Deployment) -> None:
        gate = asyncio.Event()
        question = site.answers(*LETTERS, gate, *completion("f"))
        async with site.ask(question) as first:
            await first.read_text("abcde")
        cursor = {"Last-Event-ID": first.frames[-1].id}
        async with site.ask(question, headers=cursor) as second:
            assert (await second.next()).is_comment  # type: ignore[union-attr]
            gate.set()
            await second.rest()
        assert second.text == "f"
        assert first.log + second.log == await site.server.log_of(first.run_id)
        assert len(site.requests_for(question)) == 1


class TestEventsOfASession:
    async def test_join_the_live_run_from_its_first_event(self, site: Deployment) -> None:
        gate = asyncio.Event()
        async with site.ask(site.answers(*LETTERS, gate, *completion())) as first:
            await first.read_text("abcde")
            path = f"/api/v1/sessions/{first.session_id}/events"
            async with site.server.stream("GET", path) as joined:
                await joined.read_text("abcde")
                gate.set()
                await joined.rest()
            await first.rest()
        assert joined.log == first.log
        assert joined.run_id == first.run_id

    async def test_without_a_live_run_are_204(self, site: Deployment, ended: Ended) -> None:
        for path in (ended.session_events, f"{ended.session_events}?after=0"):
            reply = await site.server.get(path)
            assert (reply.status, reply.body) == (204, b"")
        empty = (await site.server.post("/api/v1/sessions")).json
        assert (await site.server.get(f"/api/v1/sessions/{empty['id']}/events")).status == 204

    async def test_of_an_unknown_session_are_404(self, site: Deployment) -> None:
        (await site.server.get("/api/v1/sessions/nope/events")).refused(404, "not_found")

    async def test_give_the_rest_of_the_cursors_run_when_nothing_is_live(
        self, site: Deployment, ended: Ended
    ) -> None:
        cursor = f"{ended.run_id}.4"
        assert await events(site, ended.session_events, Last_Event_ID=cursor) == ended.frames[4:]
        at_end = await site.server.get(ended.session_events, Last_Event_ID=f"{ended.run_id}.7")
        assert at_end.status == 204

    @pytest.mark.parametrize("seq", [0, 4, 7])
    async def test_p5_the_rest_of_the_cursors_run_comes_before_the_live_one(
        self, seq: int, site: Deployment, ended: Ended
    ) -> None:
        gate = asyncio.Event()
        question = site.answers(*LETTERS, gate, *completion())
        async with site.ask(question, session_id=ended.session_id) as live:
            await live.read_text("abcde")
            cursor = f"{ended.run_id}.{seq}"
            path = ended.session_events
            async with site.server.stream("GET", path, Last_Event_ID=cursor) as joined:
                await joined.until(lambda frame: frame.id == f"{live.run_id}.6")
                gate.set()
                await joined.rest()
            await live.rest()
        assert joined.log == b"".join(ended.frames[seq:]) + live.log
        assert joined.run_id == live.run_id

    async def test_a_cursor_in_the_live_run_goes_on_there(
        self, site: Deployment, ended: Ended
    ) -> None:
        gate = asyncio.Event()
        question = site.answers(*LETTERS, gate, *completion())
        async with site.ask(question, session_id=ended.session_id) as live:
            await live.read_text("abcde")
            cursor = live.frames[3].id
            path = f"{ended.session_events}?after="
            async with (
                site.server.stream("GET", path + cursor) as joined,
                site.server.stream("GET", path + "4") as bare,
            ):
                gate.set()
                await joined.rest()
                await bare.rest()
            await live.rest()
        assert joined.log == bare.log == b"".join(frame.raw for frame in live.frames[4:])

    async def test_bad_cursors_are_told(self, site: Deployment, ended: Ended) -> None:
        other = (await site.asked("Why?"))["run"]["id"]
        for cursor, status, code in (
            ("nonsense", 400, "bad_request"),
            (f"{other}.2", 404, "not_found"),
            ("unknown.2", 404, "not_found"),
            (f"{ended.run_id}.99", 410, "cursor_ahead"),
        ):
            reply = await site.server.get(ended.session_events, Last_Event_ID=cursor)
            reply.refused(status, code)

    async def test_the_cursor_of_a_deleted_session_is_404(
        self, site: Deployment, ended: Ended
    ) -> None:
        await site.server.call("DELETE", f"/api/v1/sessions/{ended.session_id}")
        reply = await site.server.get(ended.session_events, Last_Event_ID=f"{ended.run_id}.2")
        reply.refused(404, "not_found")
