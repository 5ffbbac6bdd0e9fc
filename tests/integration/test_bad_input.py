"""Bad input from clients and from upstreams: a clear error, nothing lost, memory bounded."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.raw_client import Broken
from tests.support.server import Deployment
from tests.support.upstream_server import completion, completion_chunk, event, whole

NEST = 100_000


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    async with Deployment(tmp_path_factory.mktemp("site")) as site:
        yield site


NO_JSON = [
    *(b"", b" ", b"hello", b"{", b'{"message": "Hi"', b'{"message": "Hi"}}', b"{'message': 'Hi'}"),
    *(b'{"message": "Hi",}', b'{"message": "Hi" "stream": true}', b"\xef\xbb\xbf{}", b"\x00"),
    *(b'{"message": "\xff"}', b'{"message": "\xed\xa0\x80"}', b'{"message": "\xf0\x9f"}'),
    *(b'{"message": "\\ud800"}', b'{"message": "a\\udc00b"}', b'{"message": "\\u12"}'),
    *(b'{"message": "a\nb"}', b'{"message": NaN}', b'{"metadata": {"a": Infinity}}', b"\xff\xfe{"),
]
WRONG_SHAPES: list[Any] = [
    *(None, True, 1, "Hi", [], ["Hi"], {}),
    *({"message": None}, {"message": 1}, {"message": ["Hi"]}, {"message": {"text": "Hi"}}),
    *({"message": ""}, {"message": " \n\t\u3000"}, {"stream": False}),
]
WRONG_OPTIONS: list[dict[str, Any]] = [
    *({"stream": "yes"}, {"stream": 1}, {"stream": None}),
    *({"session_id": 1}, {"session_id": ["a"]}, {"upstream": 1}, {"upstream": ""}, {"model": {}}),
    *({"on_disconnect": "explode"}, {"on_busy": "wait"}, {"on_busy": 1}),
    *({"temperature": "hot"}, {"temperature": -1}, {"temperature": 11}, {"temperature": True}),
    *({"max_tokens": 0}, {"max_tokens": -1}, {"max_tokens": 1.5}, {"max_tokens": 10**30}),
    *({"metadata": "x"}, {"metadata": [1]}, {"metadata": {"a": "x" * 20_000}}, {"system": 5}),
    *({"mesage": "Hi"}, {"Message": "Hi"}, {"idempotency_key": "x"}, {"": 1}),
]


class TestBodies:
    @pytest.mark.parametrize("body", NO_JSON, ids=repr)
    async def test_that_are_no_json_are_400(self, body: bytes, site: Deployment) -> None:
        asked = len(site.upstream.requests)
        for path in ("/api/v1/runs", "/api/v1/sessions"):
            (await site.server.post(path, body)).refused(400, "bad_request")
        assert len(site.upstream.requests) == asked

    @pytest.mark.parametrize("body", WRONG_SHAPES, ids=repr)
    async def test_without_a_message_are_400(self, body: Any, site: Deployment) -> None:
        data = json.dumps(body).encode()
        (await site.server.post("/api/v1/runs", data)).refused(400, "bad_request")

    @pytest.mark.parametrize("options", WRONG_OPTIONS, ids=lambda found: repr(found)[:60])
    async def test_with_a_wrong_or_unknown_option_are_400_and_say_which(
        self, options: dict[str, Any], site: Deployment
    ) -> None:
        asked = len(site.upstream.requests)
        reply = await site.server.post("/api/v1/runs", {"message": "Hi", **options})
        (name,) = options
        assert name in reply.refused(400, "bad_request")["message"]
        assert len(site.upstream.requests) == asked

    @pytest.mark.parametrize("levels", [5_000, NEST])
    async def test_that_are_nested_deeply_are_400(self, levels: int, site: Deployment) -> None:
        deep = b'"metadata": {"a": ' + b"[" * levels + b"]" * levels + b"}"
        for path, start in (("/api/v1/runs", b'"message": "Hi", '), ("/api/v1/sessions", b"")):
            reply = await site.server.post(path, b"{" + start + deep + b"}")
            reply.refused(400, "bad_request")

    @pytest.mark.parametrize("number", ["1e400", "1" * 400, "-" + "9" * 25, "1.5e-400", "1e308"])
    async def test_with_numbers_of_any_size_are_answered(
        self, number: str, site: Deployment
    ) -> None:
        body = f'{{"metadata": {{"n": {number}}}}}'.encode()
        reply = await site.server.post("/api/v1/sessions", body)
        assert reply.status in (201, 400), reply
        if reply.status == 201:
            path = f"/api/v1/sessions/{reply.json['id']}"
            assert (await site.server.get(path)).json == reply.json
            assert (await site.server.get("/api/v1/sessions")).status == 200

    @pytest.mark.parametrize(
        "text",
        ["\0", "a\0b", "a\u2028b\u2029", "\ufeff海带", "\U0001f30a" * 50, "\x7f\x1b[31m", "\ufffe"],
    )
    async def test_with_odd_characters_are_kept_as_they_are(
        self, text: str, site: Deployment
    ) -> None:
        found = await site.asked(text, metadata={text: text})
        path = f"/api/v1/messages/{found['run']['question_id']}"
        question = (await site.server.get(path)).json
        assert question["content"] == text
        assert question["metadata"] == {text: text}
        assert len(site.requests_for(text)) == 1
        async with site.server.stream("GET", f"/api/v1/runs/{found['run']['id']}/events") as stream:
            await stream.rest()
        assert stream.end["outcome"] == "completed"

    async def test_of_other_routes_are_checked_alike(self, site: Deployment) -> None:
        run = (await site.asked("Why?"))["run"]
        session, message = run["session_id"], run["message_id"]
        for method, path, body in (
            ("POST", "/api/v1/sessions", {"title": 1}),
            ("POST", "/api/v1/sessions", {"title": "x" * 501}),
            ("POST", "/api/v1/sessions", {"name": "x"}),
            ("POST", "/api/v1/sessions", {"metadata": {"a": "x" * 20_000}}),
            ("PATCH", f"/api/v1/sessions/{session}", {"title": []}),
            ("PATCH", f"/api/v1/sessions/{session}", {"id": "other"}),
            ("POST", f"/api/v1/messages/{message}/regenerate", {"message": "Other?"}),
            ("POST", f"/api/v1/messages/{message}/regenerate", {"stream": "no"}),
        ):
            reply = await site.server.call(method, path, body)
            reply.refused(400, "bad_request")


class TestSize:
    async def test_a_question_over_its_limit_is_413(self, site: Deployment) -> None:
        asked = len(site.upstream.requests)
        largest, larger = "x" * 200_000, "海" * 66_667
        assert (await site.asked(largest))["run"]["outcome"] == "completed"
        reply = await site.server.post("/api/v1/runs", {"message": larger})
        reply.refused(413, "too_large")
        assert len(site.upstream.requests) == asked + 1

    async def test_a_body_of_10_mb_is_413_before_it_is_all_there(self, site: Deployment) -> None:
        before = site.server.reset_peak_memory()
        body = b'{"message": "' + b"x" * 10_000_000
        top = site.server.request(
            "POST",
            "/api/v1/runs",
            None,
            {"Content-Type": "application/json", "Content-Length": str(len(body) + 2)},
        )
        async with site.server.connect() as connection:
            await connection.send(top + body[:2_000_000])
            (await connection.reply()).refused(413, "too_large")
        for _ in range(3):
            reply = await site.server.post("/api/v1/runs", body + b'"}')
            reply.refused(413, "too_large")
        assert site.server.peak_memory - before < 8_000_000

    async def test_a_chunked_body_without_end_is_413(self, site: Deployment) -> None:
        headers = {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}
        piece = b"%x\r\n%b\r\n" % (100_000, b" " * 100_000)
        async with site.server.connect() as connection:
            await connection.send(site.server.request("POST", "/api/v1/runs", None, headers))
            for _ in range(11):
                await connection.send(piece)
            (await connection.reply()).refused(413, "too_large")

    async def test_the_connection_is_not_confused_by_what_follows_a_refusal(
        self, site: Deployment
    ) -> None:
        body = b"x" * 1_500_000
        async with site.server.connect() as connection:
            await connection.send(site.server.request("POST", "/api/v1/runs", body))
            (await connection.reply()).refused(413, "too_large")
            try:
                await connection.send(site.server.request("GET", "/readyz"))
                assert (await connection.reply()).json == {"status": "ready"}
            except (Broken, ConnectionError):
                pass  # closing the connection is as good

    @pytest.mark.parametrize(
        "start",
        [b"GET /healthz?%b HTTP/1.1\r\nHost: localhost\r\n", b"GET /healthz HTTP/1.1\r\nX: %b"],
        ids=["url", "one header"],
    )
    async def test_a_head_without_end_costs_no_memory(self, start: bytes, site: Deployment) -> None:
        await self._bomb(site, start.replace(b"%b", b"x"), b"x" * 100_000)

    async def test_headers_without_end_cost_no_memory(self, site: Deployment) -> None:
        start = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
        await self._bomb(site, start, b"".join(b"X-%d: y\r\n" % n for n in range(10_000)))

    async def _bomb(self, site: Deployment, start: bytes, piece: bytes) -> None:
        before = site.server.reset_peak_memory()
        async with site.server.connect() as connection:
            try:
                await connection.send(start)
                for _ in range(40_000_000 // len(piece)):
                    await connection.send(piece)
            except ConnectionError:
                pass  # refused in the middle: very well
        assert (await site.server.get("/healthz")).status == 200
        assert site.server.peak_memory - before < 20_000_000


class TestNotHttp:
    @pytest.mark.parametrize(
        "data",
        [
            *(b"\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"G" * 1000 + b"\r\n\r\n"),
            *(b"GET / HTTP/9.9\r\n\r\n", b"GET / HTTP/1.1\r\nHost localhost\r\n\r\n"),
            b"POST /api/v1/runs HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
            b"POST /api/v1/runs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        ],
    )
    async def test_is_refused_and_harms_nobody(self, data: bytes, site: Deployment) -> None:
        async with site.server.connect() as connection:
            await connection.send(data)
            await connection.send(b"\r\n\r\n")
            connection.end()
            answer = await connection.closed()
        assert not answer or answer.startswith(b"HTTP/1.1 400"), answer
        assert (await site.server.get("/healthz")).status == 200

    @pytest.mark.parametrize(
        "path", ["%00", "%FF", "%ED%A0%80", "a%2Fb", "x" * 6000, "%E6%B5%B7", "'; DROP TABLE runs"]
    )
    async def test_an_odd_id_is_404(self, path: str, site: Deployment) -> None:
        path = path.replace(" ", "%20")
        for kind in ("runs/{}", "sessions/{}", "messages/{}", "sessions/{}/messages"):
            reply = await site.server.get("/api/v1/" + kind.format(path))
            assert reply.status == 404, reply


class TestUpstream:
    async def test_invalid_utf_8_is_repaired_and_the_rest_is_kept(self, site: Deployment) -> None:
        broken = completion_chunk(content="Ke?lp").replace(b"?", b"\xff\xe6\xb5")
        async with site.ask(site.answers(broken, *completion(" holds."))) as stream:
            await stream.rest()
        assert stream.end["outcome"] == "completed"
        assert stream.text.startswith("Ke\ufffd")
        assert stream.text.endswith("lp holds.")
        assert (await site.server.run(stream.run_id))["message"]["content"] == stream.text

    async def test_lone_surrogates_and_nuls_do_not_end_an_answer(self, site: Deployment) -> None:
        pieces = [
            event('{"choices":[{"delta":{"content":"a\\ud83d"}}]}'),
            event('{"choices":[{"delta":{"content":"\\ude00b\\u0000c"}}]}'),
        ]
        async with site.ask(site.answers(*pieces, *completion(" d"))) as stream:
            await stream.rest()
        assert stream.end["outcome"] == "completed"
        assert stream.text.startswith("a")
        assert stream.text.endswith("b\0c d")
        assert stream.log == await site.server.log_of(stream.run_id)
        assert (await site.server.run(stream.run_id))["message"]["content"] == stream.text

    @pytest.mark.parametrize(
        "garbage",
        [
            *(b"data: hello\n\n", b"data: {\n\n", b"data: []\n\n", b'data: {"choices": 5}\n\n'),
            *(b'data: {"choices":[{"delta":' + b"[" * NEST + b"\n\n", b"data: null\n\n"),
            event({"choices": [{"delta": {"content": {"a": 1}}}]}),
        ],
        ids=lambda found: repr(found)[:40],
    )
    async def test_p9_garbage_keeps_what_came_before(
        self, garbage: bytes, site: Deployment
    ) -> None:
        question = site.answers(completion_chunk(content="Ke"), garbage, *completion("lp."))
        async with site.ask(question) as stream:
            await stream.rest()
        assert stream.end["outcome"] in ("completed", "interrupted")
        assert stream.text == ("Kelp." if stream.end["outcome"] == "completed" else "Ke")
        message = (await site.server.run(stream.run_id))["message"]
        assert message["content"] == stream.text

    @pytest.mark.parametrize("status", [200, 400, 500])
    async def test_p9_an_answer_that_is_no_stream_is_an_error(
        self, status: int, site: Deployment
    ) -> None:
        question = site.question(whole("<html>Sign in</html>", status, "text/html"))
        found = await site.asked(question)
        assert (found["run"]["outcome"], found["run"]["reason"]) == ("failed", "upstream_error")

    async def test_p6_100_000_tiny_events_are_all_kept_in_bounded_memory(
        self, site: Deployment
    ) -> None:
        before = site.server.reset_peak_memory()
        tiny = [b"".join(completion_chunk(content=f"{n % 10}") for n in range(1_000))] * 100
        async with site.ask(site.answers(*tiny, *completion())) as stream:
            log = await stream.rest_as_bytes()
        async with site.server.stream("GET", f"/api/v1/runs/{stream.run_id}/events") as again:
            assert await again.rest_as_bytes() == log
        seqs = [int(seq) for seq in re.findall(rb"^id: .*\.(\d+)$", log, re.MULTILINE)]
        assert seqs == list(range(1, len(seqs) + 1))
        found = await site.server.run(stream.run_id)
        assert found["run"]["outcome"] == "completed"
        assert found["message"]["content"] == "0123456789" * 10_000
        assert site.server.peak_memory - before < 100_000_000

    async def test_one_event_of_5_mb_ends_the_run_by_its_limit_and_keeps_the_rest(
        self, site: Deployment
    ) -> None:
        before = site.server.reset_peak_memory()
        huge = completion_chunk(content="x" * 5_000_000)
        pieces = [huge[at : at + 50_000] for at in range(0, len(huge), 50_000)]
        question = site.answers(completion_chunk(content="Kept."), *pieces, *completion("Lost."))
        async with site.ask(question) as stream:
            await stream.rest()
        assert (stream.end["outcome"], stream.end["reason"]) == ("interrupted", "limit")
        assert stream.text == "Kept."
        message = (await site.server.run(stream.run_id))["message"]
        assert (message["content"], message["status"]) == ("Kept.", "partial")
        assert (message["reason"], message["error"]) == ("limit", stream.end["error"])
        assert site.server.peak_memory - before < 20_000_000

    async def test_an_answer_over_its_limit_keeps_what_fits(self, site: Deployment) -> None:
        piece = completion_chunk(content="x" * 100_000)
        left = site.upstream.closed_early
        question = site.answers(*[piece] * 25, asyncio.Event())
        async with site.ask(question) as stream:
            await stream.rest()
        await site.upstream.client_left(left + 1)
        assert (stream.end["outcome"], stream.end["reason"]) == ("interrupted", "limit")
        assert len(stream.text) == 2_000_000
        assert (await site.server.run(stream.run_id))["message"]["content"] == stream.text

    async def test_thousands_of_references_are_cut_to_their_limit(self, site: Deployment) -> None:
        chunks = [{"id": f"c{n}", "document_name": f"{n}.md", "content": "x"} for n in range(3_000)]
        piece = completion_chunk(content="Kelp.", reference={"chunks": chunks})
        found = await site.asked(site.answers(piece, *completion()))
        assert found["run"]["outcome"] == "completed"
        assert len(found["message"]["references"]) == 100
