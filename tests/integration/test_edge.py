"""The server's edge: who may ask, how streams are kept open, and who is dropped."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from tests.support.raw_client import POLL_S, EventStream, StuckReader, eventually
from tests.support.server import Deployment
from tests.support.upstream_server import Wire, completion, completion_chunk

APP = "https://app.example"
PAGES = ["/", "/index.html", "/app/main.js", "/icon.svg"]


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    async with Deployment(
        tmp_path_factory.mktemp("site"),
        server={"cors_origins": [APP], "allowed_hosts": ["localhost", "127.0.0.1", "kelp.example"]},
        stream={"heartbeat_s": 0.05, "send_timeout_s": 0.5},
        limits={"answer_bytes": 20_000_000},
    ) as site:
        yield site


class TestHost:
    @pytest.mark.parametrize(
        "host", ["127.0.0.1", "127.0.0.1:{port}", "localhost:1", "LocalHost", "kelp.example:8443"]
    )
    async def test_that_is_allowed_is_served(self, host: str, site: Deployment) -> None:
        host = host.replace("{port}", str(site.server.port))
        assert (await site.server.get("/healthz", Host=host)).status == 200

    @pytest.mark.parametrize(
        "host",
        [
            *("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "evil:127"),
            *("127.0.0.1@evil.example", "[::1]", "0.0.0.0", "127.0.0.1:80:80", "x" * 3000),
        ],
    )
    @pytest.mark.parametrize(
        "path", ["/", "/api/v1/sessions", "/healthz", "/openapi.json", "/api/v1/runs/x/events"]
    )
    async def test_that_is_foreign_is_refused_on_every_route(
        self, host: str, path: str, site: Deployment
    ) -> None:
        (await site.server.get(path, Host=host)).refused(400, "bad_request")

    async def test_that_is_missing_is_refused(self, site: Deployment) -> None:
        (await site.server.get("/", Host="")).refused(400, "bad_request")


class TestForeignPages:
    @pytest.mark.parametrize(
        "origin",
        [
            *("https://evil.example", "null", "http://127.0.0.1", "http://127.0.0.1:1", "x"),
            *("http://localhost:{port}", "http://127.0.0.1:{port}.evil.example", "http://[::1"),
        ],
    )
    async def test_cannot_write(self, origin: str, site: Deployment) -> None:
        asked = len(site.upstream.requests)
        session = (await site.server.post("/api/v1/sessions", {"title": "Mine"})).json
        path = f"/api/v1/sessions/{session['id']}"
        header = {"Origin": origin.replace("{port}", str(site.server.port))}
        for method, target, body in (
            ("POST", "/api/v1/runs", {"message": "Hi"}),
            ("POST", "/api/v1/runs/x/cancel", None),
            ("PATCH", path, {"title": "Theirs"}),
            ("DELETE", path, None),
        ):
            reply = await site.server.call(method, target, body, header)
            reply.refused(403, "forbidden")
        assert (await site.server.get(path)).json == session
        assert len(site.upstream.requests) == asked

    @pytest.mark.parametrize("fetch_site", ["cross-site", "same-site", "unheard-of"])
    async def test_cannot_write_without_an_origin_either(
        self, fetch_site: str, site: Deployment
    ) -> None:
        reply = await site.server.post("/api/v1/sessions", Sec_Fetch_Site=fetch_site)
        reply.refused(403, "forbidden")

    async def test_the_servers_own_page_and_plain_clients_write(self, site: Deployment) -> None:
        own = f"http://127.0.0.1:{site.server.port}"
        for headers in (
            {},
            {"Origin": own},
            {"Origin": own, "Sec-Fetch-Site": "same-origin"},
            {"Sec-Fetch-Site": "same-origin"},
            {"Sec-Fetch-Site": "none"},
        ):
            reply = await site.server.post("/api/v1/sessions", **headers)
            assert reply.status == 201, headers

    async def test_that_are_allowed_write_and_read_the_ids(self, site: Deployment) -> None:
        headers = {"Origin": APP, "Sec-Fetch-Site": "cross-site"}
        reply = await site.server.post("/api/v1/runs", {"message": "Why?", "stream": False})
        assert "access-control-allow-origin" not in reply.headers
        body = {"message": "Why?", "stream": False}
        reply = await site.server.post("/api/v1/runs", body, **headers)
        assert reply.status == 200
        assert reply.headers["access-control-allow-origin"] == APP
        exposed = reply.headers["access-control-expose-headers"].lower()
        for name in ("session", "message", "run", "error"):
            assert f"x-holdfast-{name}" in exposed
        for name in ("x-should-retry", "x-request-id", "retry-after"):
            assert name in exposed
        asked = {
            **headers,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type,idempotency-key,last-event-id",
        }
        preflight = await site.server.call("OPTIONS", "/api/v1/runs", None, asked)
        assert preflight.status in (200, 204)
        assert preflight.headers["access-control-allow-origin"] == APP
        allowed = preflight.headers["access-control-allow-headers"].lower()
        for name in ("content-type", "idempotency-key", "last-event-id"):
            assert name in allowed

    async def test_that_are_foreign_get_no_leave_to_read(self, site: Deployment) -> None:
        reply = await site.server.get("/api/v1/sessions", Origin="https://evil.example")
        assert "access-control-allow-origin" not in reply.headers


class TestContentType:
    @pytest.mark.parametrize(
        "kind",
        [
            *("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""),
            *("application/jsonp", "text/json", "application/json, text/plain"),
        ],
    )
    async def test_other_than_json_is_415(self, kind: str, site: Deployment) -> None:
        headers = {"Content-Type": kind}
        for method, path in (
            ("POST", "/api/v1/runs"),
            ("POST", "/api/v1/sessions"),
            ("PATCH", "/api/v1/sessions/x"),
            ("POST", "/api/v1/messages/x/regenerate"),
            ("POST", "/api/v1/messages/x/edit"),
        ):
            reply = await site.server.call(method, path, {"message": "Hi"}, headers)
            reply.refused(415, "unsupported_media_type")

    @pytest.mark.parametrize(
        "kind", ["application/json", "application/json; charset=utf-8", "Application/JSON"]
    )
    async def test_of_json_is_taken(self, kind: str, site: Deployment) -> None:
        assert (await site.server.post("/api/v1/sessions", Content_Type=kind)).status == 201


async def comments(stream: EventStream, count: int) -> None:
    """Read so many comments, with nothing in between."""
    for _ in range(count):
        frame = await stream.next()
        assert frame is not None
        assert frame.is_comment


class TestHeartbeats:
    async def test_the_first_comment_comes_before_the_upstream_has_answered(
        self, site: Deployment
    ) -> None:
        async with site.ask(site.question([Wire.STALL])) as stream:
            await comments(stream, 1)
            frame = await stream.next()
            assert frame is not None
            assert frame.event == "run-start"
            await comments(stream, 3)
            await site.server.post(f"/api/v1/runs/{stream.run_id}/cancel")

    async def test_a_silent_answer_is_kept_open_by_comments_only(self, site: Deployment) -> None:
        gate = asyncio.Event()
        question = site.answers(completion_chunk(content="Ke"), gate, *completion("lp."))
        async with site.ask(question) as stream:
            await stream.read_text("Ke")
            await comments(stream, 3)
            path = f"/api/v1/runs/{stream.run_id}/events"
            async with site.server.stream("GET", path, Last_Event_ID="2") as resumed:
                await comments(resumed, 3)
            gate.set()
            await stream.rest()
        assert stream.text == "Kelp."
        assert stream.log == await site.server.log_of(stream.run_id)


class TestFraming:
    async def test_head_of_a_live_stream_has_no_body(self, site: Deployment) -> None:
        gate = asyncio.Event()
        question = site.answers(completion_chunk(content="Ke"), gate, *completion("lp."))
        async with site.ask(question) as stream, site.server.connect() as other:
            await stream.read_text("Ke")
            path = f"/api/v1/runs/{stream.run_id}/events"
            await other.send(site.server.request("HEAD", path))
            status, _ = await other.head()
            gate.set()
            await stream.rest()
            await site.server.ended(stream.run_id)
            if status == 200:
                await other.send(site.server.request("GET", "/healthz"))
                assert (await other.head())[0] == 200
            else:
                assert status in (204, 405)
        assert bytes(other.log).count(b"HTTP/1.1 ") == (2 if status == 200 else 1)
        assert b"event: " not in other.log

    async def test_a_second_request_on_the_connection_waits_for_the_stream(
        self, site: Deployment
    ) -> None:
        gate = asyncio.Event()
        question = site.answers(completion_chunk(content="Ke"), gate, *completion("lp."))
        async with site.ask(question) as stream:
            await stream.read_text("Ke")
            await stream.connection.send(site.server.request("GET", "/readyz"))
            gate.set()
            await stream.rest()
            assert (await stream.connection.reply()).json == {"status": "ready"}
        assert stream.text == "Kelp."


def connected_ports(pid: int) -> set[int]:
    """The ports of the other sides of the process's connections that are up both ways."""
    established = "01"
    rows = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
    found = (row.split()[2:4] for row in rows)
    return {int(other.rpartition(":")[2], 16) for other, state in found if state == established}


async def all_dropped(site: Deployment, readers: Sequence[StuckReader]) -> None:
    """Wait until the server has closed its side of these connections."""

    async def look() -> bool | None:
        left = {reader.port for reader in readers} & connected_ports(site.server.pid)
        return None if left else True

    await eventually(look)


async def test_p6_readers_that_read_nothing_cost_no_memory_harm_nobody_and_are_dropped(
    site: Deployment,
) -> None:
    count, letters = 6_000, "x" * 1_000
    large = b"".join([completion_chunk(content=letters)] * 50)
    pieces = [large] * (count // 50)
    async with site.ask(site.answers(*pieces, *completion())) as alone:
        await alone.rest()
    before = site.server.reset_peak_memory()
    gate = asyncio.Event()
    question = site.answers(completion_chunk(content="A"), gate, *pieces, *completion())
    with contextlib.ExitStack() as stack:
        async with site.ask(question) as stream:
            await stream.read_text("A")
            path = f"/api/v1/runs/{stream.run_id}/events"
            stuck = [StuckReader(site.server, path) for _ in range(30)]
            for reader in stuck:
                stack.callback(reader.socket.close)
            gate.set()
            await stream.rest()
        assert stream.end["outcome"] == "completed"
        assert len(stream.text) == count * len(letters) + 1
        # Thirty queues would be 180 MB and more.
        assert site.server.peak_memory - before < 90_000_000
        await all_dropped(site, stuck)
        for reader in stuck:
            assert b"run-end" not in await reader.drain()
    message = (await site.server.run(stream.run_id))["message"]
    assert message["content"] == stream.text


async def test_p6_readers_that_miss_only_the_last_bytes_are_dropped_too(site: Deployment) -> None:
    taken = StuckReader.capacity()
    piece = b"".join([completion_chunk(content="x" * 1_000)] * 100)
    async with site.ask(site.answers(*[piece] * (taken // 100_000 + 5), *completion())) as stream:
        log = await stream.rest_as_bytes()
    path = f"/api/v1/runs/{stream.run_id}/events"
    # What does not go into the kernel's buffers is more than uvicorn keeps without waiting.
    missed = [200_000, 300_000, 400_000]
    ids = [
        (found.start(), int(found[1]))
        for found in re.finditer(rb"^id: .*\.(\d+)$", log, re.MULTILINE)
    ]
    starts = [
        max(seq for at, seq in ids if at <= len(log) - taken - bytes_left) - 1
        for bytes_left in missed
    ]
    with contextlib.ExitStack() as stack:
        stuck = [StuckReader(site.server, f"{path}?after={start}") for start in starts]
        for reader in stuck:
            stack.callback(reader.socket.close)
        await all_dropped(site, stuck)


async def test_a_slow_reader_that_reads_gets_everything(site: Deployment) -> None:
    pieces = [b"".join([completion_chunk(content="y" * 1_000)] * 50)] * 80
    async with site.ask(site.answers(*pieces, *completion())) as stream:
        await stream.rest()
    path = f"/api/v1/runs/{stream.run_id}/events"
    async with site.server.connect(limit=4096) as slow:
        await slow.send(site.server.request("GET", path))
        status, headers = await slow.head()
        reading = EventStream(slow, status, headers)
        while await reading.next() is not None:
            if len(reading.frames) % 1_000 == 0:
                await asyncio.sleep(POLL_S)  # slower than the server, never stuck
    assert reading.log == stream.log


class TestPage:
    @pytest.mark.parametrize("path", PAGES)
    async def test_is_served_under_a_strict_policy(self, path: str, site: Deployment) -> None:
        reply = await site.server.get(path)
        assert reply.status == 200
        policy = dict(
            part.strip().split(" ", 1)
            for part in reply.headers["content-security-policy"].split(";")
        )
        assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
        for kind in ("script-src", "style-src", "img-src", "connect-src"):
            assert policy[kind] == "'self'"
        assert policy["base-uri"] == "'none'"
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["referrer-policy"] == "no-referrer"

    async def test_has_nothing_inline(self, site: Deployment) -> None:
        html = (await site.server.get("/")).body.decode()
        assert "<html" in html
        for tag in re.findall(r"<script\b[^>]*>", html):
            assert " src=" in tag
        assert "<style" not in html
        assert not re.search(r"<[^>]+\s(on\w+|style)\s*=", html)
        assert "javascript:" not in html

    @pytest.mark.parametrize(
        "path",
        ["/../edge.py", "/%2e%2e/app.py", "/..%2f..%2fids.py", "//etc/passwd", "/__init__.py"],
    )
    async def test_leads_to_no_other_file(self, path: str, site: Deployment) -> None:
        reply = await site.server.get(path)
        assert reply.status in (400, 404)
        assert b"import" not in reply.body
        assert b"root:" not in reply.body
