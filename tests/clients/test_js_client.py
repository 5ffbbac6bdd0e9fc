"""`holdfast-client.js`, unmodified, on a server that behaves."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.js_client import JsClient, JsNode, frames, is_whole, js_client
from tests.support.keyed import ALICE, keyed
from tests.support.server import Deployment, script_of
from tests.support.upstream_server import (
    ScriptedUpstream,
    Wire,
    completion,
    completion_chunk,
    event,
    whole,
)

PROJECT = Path(__file__).parents[2]
GUIDE = (PROJECT / "docs" / "howto" / "javascript.md").read_text(encoding="utf-8")
MODULE = PROJECT / "src" / "holdfast" / "console" / "holdfast-client.js"


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    async with Deployment(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture(scope="module")
async def node() -> AsyncIterator[JsNode]:
    async with JsNode() as node:
        yield node


@pytest.fixture
async def client(site: Deployment, node: JsNode) -> JsClient:
    return await js_client(node, site.server.url)


def half(site: Deployment) -> tuple[asyncio.Event, str]:
    """A question whose answer goes on from `Ha` to `Half.` when the gate is opened."""
    gate = asyncio.Event()
    return gate, site.answers(completion_chunk(content="Ha"), gate, *completion("lf."))


class TestAsking:
    async def test_gives_every_event_and_the_answer(
        self, client: JsClient, site: Deployment
    ) -> None:
        stream = await client.ask(site.answers(*completion("Kelp ", "holds 海带 🌿.")))
        state = await stream.done()
        await is_whole(site.server, state)
        assert state["answer"]["text"] == "Kelp holds 海带 🌿."
        assert (await stream.do("result"))["value"] == state["answer"]
        found = (await site.server.run(state["runId"]))["run"]
        ids = (found["session_id"], found["message_id"], found["question_id"], found["cursor"])
        names = ("sessionId", "messageId", "questionId", "cursor")
        assert ids == tuple(state[name] for name in names)

    async def test_asks_when_somebody_reads(self, client: JsClient, site: Deployment) -> None:
        stream = await client.read("ask", site.answers(*completion("A.")), leave_after=0)
        assert (await client.fared())["requests"] == []
        assert (await stream.do("cancel"))["error"]["code"] == "run_unknown"
        assert (await stream.do("result"))["value"]["text"] == "A."
        assert len((await client.fared())["requests"]) == 1

    async def test_sends_all_options_under_their_names_on_the_wire(
        self, client: JsClient, site: Deployment
    ) -> None:
        session = await client.call("createSession", {"title": "S"})
        question = site.answers(*completion("A."))
        options = {"upstream": "script", "model": "m9", "temperature": 0.5, "maxTokens": 9}
        more = {"onDisconnect": "continue", "onBusy": "cancel", "metadata": {"a": 1}}
        stream = await client.ask(
            question, session=session["id"], system="Be brief.", **options, **more
        )
        state = await stream.done()
        assert state["sessionId"] == session["id"]
        (sent,) = site.requests_for(question)
        assert (sent.json["model"], sent.json["temperature"]) == ("m9", 0.5)
        assert sent.json["max_tokens"] == 9
        assert sent.json["messages"][0] == {"role": "system", "content": "Be brief."}
        asked = await client.call("message", state["questionId"])
        assert asked["metadata"] == {"a": 1}

    async def test_refuses_options_that_it_does_not_know(
        self, client: JsClient, site: Deployment
    ) -> None:
        with pytest.raises(AssertionError, match="there is no option sesion"):
            await client.ask("Question?", sesion="a typo")

    async def test_p7_with_the_same_key_is_the_same_run(
        self, client: JsClient, site: Deployment
    ) -> None:
        question = site.answers(*completion("Once."))
        first = await (await client.ask(question)).done()
        again = await (await client.ask(question, idempotencyKey=first["idempotencyKey"])).done()
        assert again["events"] == first["events"]
        other = await (await client.ask(question)).done()
        assert other["runId"] != first["runId"]

    async def test_result_waits_for_whoever_reads(self, client: JsClient, site: Deployment) -> None:
        gate, question = half(site)
        stream = await client.ask(question)
        await stream.events(2)
        error = (await stream.do("read_again"))["error"]
        assert error["code"] == "already_read"
        gate.set()
        assert (await stream.do("result"))["value"]["text"] == "Half."
        await is_whole(site.server, await stream.done())

    async def test_goes_on_after_the_loop_was_left(
        self, client: JsClient, site: Deployment
    ) -> None:
        stream = await client.ask(site.answers(*completion("a", "b", "c", "d")), leave_after=3)
        left = await stream.done()
        assert (len(left["events"]), left["answer"]["text"]) == (3, "ab")
        assert left["cursor"] == left["events"][-1]["cursor"]
        await stream.do("go_on")
        state = await stream.done()
        await is_whole(site.server, state)
        assert (await stream.do("result"))["value"]["text"] == "abcd"
        asked = (await client.fared())["requests"]
        assert [one["method"] for one in asked] == ["POST", "GET"]
        assert asked[1]["headers"]["last-event-id"] == left["cursor"]

    async def test_regenerates(self, client: JsClient, site: Deployment) -> None:
        question = site.question(*[script_of(*completion(text)) for text in ("One.", "Two.")])
        first = await (await client.ask(question)).done()
        second = await (await client.read("regenerate", first["messageId"])).done()
        assert second["answer"]["text"] == "Two."
        await is_whole(site.server, second)
        found = await client.call("message", second["messageId"])
        assert found["versions"] == [first["messageId"], second["messageId"]]

    async def test_edits_a_question(self, client: JsClient, site: Deployment) -> None:
        first = await (await client.ask(site.answers(*completion("Old.")))).done()
        other = site.answers(*completion("New."))
        second = await (await client.read("edit", first["questionId"], other)).done()
        assert second["answer"]["text"] == "New."
        await is_whole(site.server, second)
        messages = await client.do("all_messages", session=first["sessionId"])
        assert [one["content"] for one in messages] == [other, "New."]


class TestResuming:
    async def test_p5_gives_exactly_what_comes_after_a_cursor(
        self, client: JsClient, site: Deployment
    ) -> None:
        state = await (await client.ask(site.answers(*completion("a", "b", "c")))).done()
        for place in range(len(state["events"])):
            cursor = state["events"][place]["cursor"]
            rest = await (await client.read("resume", cursor)).done()
            assert rest["events"] == state["events"][place + 1 :]
            assert (rest["sessionId"], rest["messageId"]) == (
                state["sessionId"],
                state["messageId"],
            )

    async def test_p5_gives_a_run_from_its_start(self, client: JsClient, site: Deployment) -> None:
        gate, question = half(site)
        asked = await (await client.ask(question)).events(2)
        stream = await client.read("resume", asked["runId"])
        await stream.events(2)
        gate.set()
        state = await stream.done()
        assert state["answer"]["text"] == "Half."
        await is_whole(site.server, state)

    async def test_folds_onto_what_was_there(self, client: JsClient, site: Deployment) -> None:
        gate, question = half(site)
        asked = await (await client.ask(question)).events(2)
        found = await client.call("run", asked["runId"])
        start = await client.do("answer_of", message=found["message"])
        stream = await client.read("resume", found["run"]["cursor"], answer=start)
        gate.set()
        assert (await stream.done())["answer"]["text"] == "Half."

    async def test_follows_a_session_without_a_live_run_to_nowhere(
        self, client: JsClient, site: Deployment
    ) -> None:
        asked = await (await client.ask(site.answers(*completion("a")))).done()
        session = asked["sessionId"]
        for options in ({}, {"after": asked["cursor"]}):
            state = await (await client.read("follow", session, **options)).done()
            assert state["events"] == []

    async def test_follows_the_rest_of_a_run_and_then_the_live_one(
        self, client: JsClient, site: Deployment
    ) -> None:
        first = await (await client.ask(site.answers(*completion("a")))).done()
        gate, question = half(site)
        second = await client.ask(question, session=first["sessionId"])
        await second.events(2)
        after = first["events"][0]["cursor"]
        stream = await client.read("follow", first["sessionId"], after=after)
        await stream.events(len(first["events"]) + 1)
        gate.set()
        state = await stream.done()
        assert state["events"] == [*first["events"][1:], *(await second.done())["events"]]
        assert state["answer"]["text"] == "Half."

    async def test_of_what_is_no_cursor_is_an_error(self, client: JsClient) -> None:
        for text in ("", "a.b", "a.1.2", "a b", "../../x"):
            with pytest.raises(AssertionError, match="is neither a cursor nor a run"):
                await client.read("resume", text)


class TestStopping:
    async def test_p10_keeps_what_had_arrived(self, client: JsClient, site: Deployment) -> None:
        question = site.answers(completion_chunk(content="Ha"), Wire.STALL)
        stream = await client.ask(question)
        await stream.events(2)
        told = (await stream.do("cancel"))["value"]
        state = await stream.done()
        assert (told["run"]["outcome"], told["message"]["content"]) == ("cancelled", "Ha")
        assert state["answer"]["end"]["reason"] == "client_cancelled"
        assert (state["answer"]["status"], state["answer"]["text"]) == ("partial", "Ha")
        await is_whole(site.server, state)

    async def test_of_an_answer_that_nobody_reads_is_an_error(
        self, client: JsClient, site: Deployment
    ) -> None:
        stream = await client.read("ask", 5)
        assert (await stream.failed())["code"] == "bad_request"
        assert (await stream.do("cancel"))["error"]["code"] == "run_unknown"

    async def test_aborting_ends_the_reading_and_not_the_run(
        self, client: JsClient, site: Deployment
    ) -> None:
        gate, question = half(site)
        stream = await client.ask(question)
        before = await stream.events(2)
        await stream.do("abort")
        assert (await stream.failed())["name"] == "AbortError"
        assert (await stream.do("result"))["error"]["name"] == "AbortError"
        gate.set()
        found = await site.server.ended(before["runId"])
        assert found["message"]["content"] == "Half."
        rest = await (await client.read("resume", before["cursor"])).done()
        assert frames([*before["events"], *rest["events"]]) == await site.server.log_of(
            before["runId"]
        )


class TestWhatIsStored:
    async def test_sessions(self, client: JsClient, site: Deployment) -> None:
        made = await client.call("createSession", {"title": "Tides", "metadata": {"a": 1}})
        assert await client.call("session", made["id"]) == made
        await (await client.ask(site.answers(*completion("a")), session=made["id"])).done()
        renamed = await client.call("renameSession", made["id"], "Ebb 100% 海")
        assert renamed["title"] == "Ebb 100% 海"
        (found,) = (await client.call("sessions", {"query": "Ebb 100% 海"}))["items"]
        assert found["id"] == made["id"]
        await client.call("createSession")
        page = await client.call("sessions", {"limit": 1})
        after = await client.call("sessions", {"limit": 1, "before": page["next"]})
        assert page["items"] != after["items"]
        assert await client.call("deleteSession", made["id"]) is None
        assert (await client.refused("session", made["id"]))["code"] == "not_found"

    async def test_messages(self, client: JsClient, site: Deployment) -> None:
        first = await (await client.ask(site.answers(*completion("a")))).done()
        session = first["sessionId"]
        for _ in range(26):
            await (await client.ask(site.answers(*completion("b")), session=session)).done()
        everything = await client.do("all_messages", session=session)
        assert len(everything) == 54
        page = await client.call("messages", session, {"limit": 3})
        assert page["items"] == everything[:3]
        more = await client.call("messages", session, {"limit": 3, "after": page["next"]})
        assert more["items"] == everything[3:6]
        assert await client.call("message", first["messageId"]) == everything[1]

    async def test_feedback(self, client: JsClient, site: Deployment) -> None:
        asked = await (await client.ask(site.answers(*completion("a")))).done()
        up = {"rating": "up", "comment": "exactly"}
        told = await client.call("feedback", asked["messageId"], up)
        assert up.items() <= told["feedback"].items()
        assert (await client.call("feedback", asked["messageId"], None))["feedback"] is None

    async def test_upstreams_and_presets(self, client: JsClient) -> None:
        (upstream,) = await client.call("upstreams")
        assert (upstream["name"], upstream["kind"]) == ("script", "openai")
        assert await client.call("presets") == []


class TestErrors:
    async def test_have_the_code_the_status_and_what_else_was_said(
        self, client: JsClient, site: Deployment
    ) -> None:
        question = site.answers(completion_chunk(content="Ha"), Wire.STALL)
        live = await (await client.ask(question)).events(2)
        busy = await (await client.ask("More?", session=live["sessionId"])).failed()
        assert (busy["name"], busy["code"], busy["status"]) == ("HoldfastError", "run_active", 409)
        assert busy["extra"]["run_id"] == live["runId"]
        assert busy["requestId"]
        assert busy["message"]
        await client.call("cancel", live["runId"])

    async def test_p5_of_a_cursor_beyond_the_end_has_the_message(
        self, client: JsClient, site: Deployment
    ) -> None:
        asked = await (await client.ask(site.answers(*completion("a")))).done()
        error = await (await client.read("resume", f"{asked['runId']}.99")).failed()
        assert (error["code"], error["status"]) == ("cursor_ahead", 410)
        assert error["extra"]["answer"]["content"] == "a"
        assert error["extra"]["last_seq"] == asked["events"][-1]["seq"]

    @pytest.mark.parametrize(
        ("method", "args", "code", "status"),
        [
            ("ask", ["Q?", {"session": "nope"}], "not_found", 404),
            ("ask", [""], "bad_request", 400),
            ("ask", ["Q?", {"upstream": "nobody"}], "bad_request", 400),
            ("resume", ["nope"], "not_found", 404),
            ("follow", ["nope"], "not_found", 404),
            ("regenerate", ["nope"], "not_found", 404),
            ("ask", ["x" * 3_000_000], "too_large", 413),
        ],
    )
    async def test_come_at_once(
        self, client: JsClient, method: str, args: list[Any], code: str, status: int
    ) -> None:
        options = args[1] if len(args) > 1 else {}
        error = await (await client.read(method, args[0], **options)).failed()
        assert (error["code"], error["status"]) == (code, status)
        assert len((await client.fared())["requests"]) == 1

    async def test_p7_of_a_key_that_was_used_for_something_else(
        self, client: JsClient, site: Deployment
    ) -> None:
        asked = await (await client.ask(site.answers(*completion("a")))).done()
        error = await (await client.ask("B?", idempotencyKey=asked["idempotencyKey"])).failed()
        assert (error["code"], error["status"]) == ("idempotency_mismatch", 422)

    async def test_p8_of_a_server_with_keys_are_mended_by_a_key(
        self, tmp_path: Path, node: JsNode
    ) -> None:
        async with keyed(tmp_path) as site:
            client = await js_client(node, site.server.url)
            stream = await client.ask(site.answers(*completion("a")))
            error = await stream.failed()
            assert (error["code"], error["status"]) == ("unauthorized", 401)
            await client.do("key", key="a key with 海 in it")
            assert (await client.refused("sessions"))["code"] == "unauthorized"
            await client.do("key", key=ALICE)
            await stream.do("go_on")
            assert (await stream.done())["answer"]["text"] == "a"
            assert len((await client.call("sessions"))["items"]) == 1

    @pytest.mark.parametrize("script", [whole("<html>", 200, "text/html"), whole({"a": 1}, 418)])
    async def test_something_else_at_the_address_is_told(
        self, node: JsNode, script: list[Any]
    ) -> None:
        async with ScriptedUpstream(script) as other:
            client = await js_client(node, other.base_url)
            assert (await (await client.ask("Q?")).failed())["code"] == "not_holdfast"
            assert (await client.refused("sessions"))["code"] == "not_holdfast"
            assert len(other.requests) == 2

    @pytest.mark.parametrize(
        "frame",
        [
            event("no json"),
            event({"type": "text-delta", "text": "a"}),
            b'id: r.1\ndata: {"type":\n\n',
            b"id: r.1\ndata: null\n\n",
            b"id: r.1\ndata: [1]\n\n",
            b'id: r\ndata: {"type":"step"}\n\n',
        ],
    )
    async def test_a_stream_of_something_else_is_told(
        self, node: JsNode, site: Deployment, frame: bytes
    ) -> None:
        async with ScriptedUpstream(script_of(frame)) as other:
            client = await js_client(node, other.base_url)
            assert (await (await client.ask("Q?")).failed())["code"] == "not_holdfast"


async def test_the_guide_s_first_example_runs(site: Deployment, tmp_path: Path) -> None:
    (example,) = re.findall(r"```js\n(import.*?show\(event.text\).*?)```", GUIDE, re.DOTALL)
    program = example.replace("./holdfast-client.js", MODULE.as_uri())
    program = program.replace("http://127.0.0.1:8484", site.server.url)
    (tmp_path / "example.mjs").write_text(f"const show = (t) => process.stdout.write(t);{program}")
    process = await asyncio.create_subprocess_exec(
        "node", tmp_path / "example.mjs", stdout=asyncio.subprocess.PIPE
    )
    told, _ = await process.communicate()
    assert told.decode() == "Kelp holds fast."
