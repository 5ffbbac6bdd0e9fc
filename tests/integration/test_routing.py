"""Routing, falling through, presets and the library's writer, with real servers and sockets."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.server import Deployment, script_of
from tests.support.upstream_server import (
    Script,
    ScriptedUpstream,
    Wire,
    chunk,
    completion,
    completion_chunk,
    head,
    stream,
    whole,
)

BUSY: Script = whole({"error": {"message": "too many"}}, 429)
NOWHERE = "http://127.0.0.1:1/v1"
SOURCES = [{"id": "c1", "document_name": "kelp.md", "content": "A root."}]
FAR: Script = stream(*completion("From ", "afar."))


@asynccontextmanager
async def routed(folder: Path, cloud: str = NOWHERE, **router: Any) -> AsyncIterator[Deployment]:
    """A deployment whose `script` is the local model; short questions go there."""
    table = {"kind": "openai", "base_url": cloud, "model": "big"}
    async with Deployment(
        folder,
        upstreams={"cloud": table},
        router={"local": "script", "cloud": "cloud", **router},
    ) as site:
        yield site


class Pair:
    """The two of them: `site.upstream` is near, `cloud` is far."""

    def __init__(self, site: Deployment, cloud: ScriptedUpstream) -> None:
        self.site = site
        self.cloud = cloud


@pytest.fixture(scope="module")
async def pair(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Pair]:
    async with (
        ScriptedUpstream(lambda _: FAR) as cloud,
        routed(
            tmp_path_factory.mktemp("pair"),
            f"{cloud.base_url}/v1",
            breaker_failures=1_000,
            fall_through_after_s=2.0,
            cloud_patterns=[r"\btranslate\b"],
            local_patterns=["salary"],
        ) as site,
    ):
        yield Pair(site, cloud)


async def raw_of(site: Deployment, run: Any) -> Any:
    return (await site.server.get(f"/api/v1/runs/{run['id']}/raw")).json


def with_references(content: str = "") -> bytes:
    return completion_chunk(content=content, reference={"chunks": SOURCES})


@pytest.mark.parametrize(
    ("script", "what"),
    [
        (BUSY, "takes no more questions"),
        (whole("<h1>no</h1>", 502, "text/html"), "failed"),
        (whole("<h1>login</h1>", 200, "text/html"), "failed"),
        (whole({"error": {"message": "who?"}}, 401), "refuses its key"),
        ([Wire.CLOSE], "is down"),
        ([Wire.RESET], "is down"),
        (script_of(*completion()), "said nothing"),
        (script_of(completion_chunk(content=""), Wire.CLOSE), "broke off"),
        (script_of(with_references(), Wire.RESET), "broke off"),
        ([Wire.STALL], "does not answer"),
        ([head(), chunk(b": waiting\n\n"), Wire.STALL], "does not answer"),
    ],
    ids=range(11),
)
async def test_whatever_goes_wrong_before_the_first_word_the_cloud_answers(
    pair: Pair, script: Script, what: str
) -> None:
    site = pair.site
    async with site.ask(site.question(script)) as found:
        frames = await found.rest()
        run_id, message_id = found.run_id, found.message_id
    assert found.text == "From afar."
    start, notice = frames[0].data, next(one for one in frames if one.event == "notice").data
    assert (start["upstream"], start["route"]) == ("script", "local_small")
    assert start["route_reason"] == "a short question"
    assert (notice["code"], notice["upstream"]) == ("fallback", "cloud")
    assert (notice["model"], notice["route"]) == ("big", "cloud_large")
    assert notice["message"] == f"the local model {what}, answering from the cloud"
    run = (await site.server.run(run_id))["run"]
    assert (run["upstream"], run["model"], run["outcome"]) == ("cloud", "big", "completed")
    message = (await site.server.get(f"/api/v1/messages/{message_id}")).json
    assert (message["upstream"], message["model"]) == ("cloud", "big")
    assert (message["references"], message["status"]) == ([], "complete")
    assert (await raw_of(site, run))["raw_request"]["model"] == "big"
    assert await site.server.log_of(run_id) == found.log


async def test_one_that_hangs_is_hung_up_on(pair: Pair) -> None:
    before = pair.site.upstream.closed_early
    answer = await pair.site.asked(pair.site.question([Wire.STALL]))
    assert answer["message"]["content"] == "From afar."
    await pair.site.upstream.client_left(before + 1)


async def test_after_the_first_word_nobody_else_is_asked(pair: Pair) -> None:
    site, before = pair.site, len(pair.cloud.requests)
    question = site.answers(completion_chunk(content="Well, "), Wire.RESET)
    answer = await site.asked(question)
    assert answer["message"]["content"] == "Well, "
    assert (answer["run"]["outcome"], answer["run"]["upstream"]) == ("interrupted", "script")
    assert len(pair.cloud.requests) == before


@pytest.mark.parametrize("name", ["script", "local_small"])
async def test_who_is_asked_for_answers_or_nobody(pair: Pair, name: str) -> None:
    site, before = pair.site, len(pair.cloud.requests)
    answer = await site.asked(site.question(BUSY), upstream=name)
    assert (answer["run"]["outcome"], answer["run"]["reason"]) == ("failed", "upstream_error")
    assert len(pair.cloud.requests) == before


@pytest.mark.parametrize(
    ("message", "route"),
    [
        ("Translate: kelp", "cloud_large"),
        ("What is my salary?", "local_small"),
        ("Translate my salary", "local_small"),
        ("```py\nprint(1)\n```", "cloud_large"),
        ("Hm?", "local_small"),
        ("Why? " * 400, "cloud_large"),
    ],
)
async def test_rules_send_questions_where_they_belong(pair: Pair, message: str, route: str) -> None:
    pair.site.choose = lambda _: stream(*completion("Near."))
    async with pair.site.ask(message) as found:
        start = (await found.rest())[0].data
    assert start["route"] == route
    assert found.text == {"cloud_large": "From afar.", "local_small": "Near."}[route]


async def test_a_route_that_does_not_exist_is_refused(site: Deployment) -> None:
    body = {"message": "Why?", "upstream": "local_small"}
    error = (await site.server.post("/api/v1/runs", body)).refused(400, "bad_request")
    assert "router.local is not set" in error["message"]


async def test_p3_what_falls_through_survives_the_servers_death_as_what_it_is(
    tmp_path: Path,
) -> None:
    slow: Script = [head(), chunk(completion_chunk(content="From ")), Wire.STALL]
    async with (
        ScriptedUpstream(slow) as cloud,
        routed(tmp_path, f"{cloud.base_url}/v1") as site,
    ):
        async with site.ask(site.answers(with_references(), Wire.RESET)) as found:
            await found.read_text("From ")
            run_id = found.run_id
            site.server.signal(signal.SIGKILL)
            seen = [frame.event for frame in await found.broken()]
        await site.restart()
        shown = await site.server.run(run_id)
        assert (shown["run"]["upstream"], shown["run"]["model"]) == ("cloud", "big")
        assert (shown["message"]["upstream"], shown["message"]["content"]) == ("cloud", "From ")
        assert shown["message"]["references"] == []
        assert (shown["run"]["outcome"], shown["run"]["reason"]) == ("interrupted", "server_crash")
        assert "run-end" not in seen


async def test_one_that_is_down_is_told_and_left_alone(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "breaker_failures": 2,
        "breaker_open_s": 600,
        "long_question_chars": 20,
    }
    async with routed(tmp_path, **settings) as site:
        site.choose = lambda _: stream(*completion("Here."))
        long = "What is a holdfast, and why?"
        for _ in range(2):
            answer = await site.asked(long)
            assert answer["run"]["route_reason"] == "the question is long"
            assert answer["run"]["upstream"] == "script"
        answer = await site.asked(long)
        assert answer["run"]["route_reason"] == (
            "the question is long; the cloud is down, answering locally"
        )
        async with site.ask(long) as found:
            assert [frame.event for frame in await found.rest()].count("notice") == 0
        listed = (await site.server.get("/api/v1/upstreams")).json["items"]
        assert {one["name"]: one["healthy"] for one in listed} == {"script": True, "cloud": False}
        # It is asked all the same by whoever insists.
        answer = await site.asked(long, upstream="cloud_large")
        assert answer["run"]["reason"] == "upstream_unreachable"


# ------------------------------------------------------------------------------ presets

PRESETS = {
    "careful": {"upstream": "script", "model": "m9", "system": "Be brief.", "temperature": 0.5},
    "plain": {},
}


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    async with Deployment(tmp_path_factory.mktemp("presets"), presets=PRESETS) as site:
        yield site


async def test_presets_are_listed_without_what_they_say(site: Deployment) -> None:
    reply = await site.server.get("/api/v1/presets")
    assert reply.json == {
        "items": [
            {"name": "careful", "upstream": "script", "model": "m9"},
            {"name": "plain", "upstream": None, "model": None},
        ],
        "next": None,
    }


async def test_a_session_is_created_with_a_preset(site: Deployment) -> None:
    session = (await site.server.post("/api/v1/sessions", {"preset": "careful"})).json
    assert session["preset"] == "careful"
    question = site.answers(*completion("Yes."))
    await site.asked(question, session_id=session["id"], temperature=0.0)
    (request,) = site.requests_for(question)
    assert request.json["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (request.json["model"], request.json["temperature"]) == ("m9", 0.0)
    found = (await site.server.get(f"/api/v1/sessions/{session['id']}")).json
    assert found["preset"] == "careful"


async def test_a_first_question_may_name_it(site: Deployment) -> None:
    answer = await site.asked(site.answers(*completion("Yes.")), preset="careful")
    session = (await site.server.get(f"/api/v1/sessions/{answer['run']['session_id']}")).json
    assert (session["preset"], answer["run"]["model"]) == ("careful", "m9")
    again = site.answers(*completion("Yes."))
    await site.asked(again, session_id=session["id"])
    assert site.requests_for(again)[0].json["model"] == "m9"


@pytest.mark.parametrize("path", ["/api/v1/runs", "/api/v1/sessions"])
async def test_an_unknown_preset_is_refused_by_name(site: Deployment, path: str) -> None:
    body = {"preset": "nope"} | ({"message": "Why?"} if path.endswith("runs") else {})
    error = (await site.server.post(path, body)).refused(400, "bad_request")
    assert "there is no preset 'nope'; there is careful, plain" in error["message"]


async def test_a_session_outlives_its_preset(tmp_path: Path) -> None:
    async with Deployment(tmp_path, presets=PRESETS) as site:
        question = site.answers(*completion("Yes."))
        first = await site.asked(question, preset="careful")
        await site.server.stop()
        site.server = site.make_server(port=site.server.port, presets={"plain": {}})
        await site.server.__aenter__()
        again = await site.asked(question, session_id=first["run"]["session_id"])
        assert again["run"]["model"] == "m1"
        assert "'careful'" in site.server.log_text


# ------------------------------------------------------------------------------ the library


@pytest.fixture(scope="module")
async def written(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    """A deployment whose `script` writes the answers of the library `docs`."""
    folder = tmp_path_factory.mktemp("library")
    (folder / "docs").mkdir()
    text = "# Tides\n\nThe tide comes twice a day."
    await asyncio.to_thread((folder / "docs" / "tides.md").write_text, text)
    docs = {"kind": "library", "path": str(folder / "docs"), "writer": "script", "pace": 0}
    async with Deployment(folder, upstreams={"docs": docs}, router={"default": "docs"}) as site:
        yield site


async def test_a_writers_answer_has_marks_that_point_to_the_passages(written: Deployment) -> None:
    written.choose = lambda _: stream(*completion("Twice [", "1", "]; not [2]."))
    async with written.ask("When do tides come?") as found:
        frames = await found.rest()
        message_id = found.message_id
    assert [frame.event for frame in frames[:4]] == ["run-start", "step", "references", "step"]
    message = (await written.server.get(f"/api/v1/messages/{message_id}")).json
    assert message["content"] == "Twice [1]; not [2]."
    assert message["marks"] == [[6, 9, 1]]
    assert [one["document_id"] for one in message["references"]] == ["tides.md"]
    assert message["upstream"] == "docs"
    request = written.upstream.requests[-1]
    assert "in the language of the question" in request.json["messages"][0]["content"]


async def test_the_conversation_and_its_instructions_go_along_to_the_writer(
    written: Deployment,
) -> None:
    written.choose = lambda _: stream(*completion("Twice [1]."))
    first = await written.asked("When do tides come?")
    session = first["run"]["session_id"]
    await written.asked("Why do tides come?", session_id=session, system="Be kind.")
    messages = written.upstream.requests[-1].json["messages"]
    assert messages[0]["content"].startswith("Be kind.\n\n")
    assert [one["content"] for one in messages[1:3]] == ["When do tides come?", "Twice [1]."]
    assert messages[3]["content"].endswith("Question: Why do tides come?")


async def test_a_writer_that_fails_leaves_the_quotations(written: Deployment) -> None:
    written.choose = lambda _: BUSY
    answer = await written.asked("When do tides come?")
    assert answer["run"]["outcome"] == "completed"
    assert "> The tide comes twice a day. [1]" in answer["message"]["content"]
    raw = await raw_of(written, answer["run"])
    assert raw["raw_request"]["writer"]["messages"][1]["role"] == "user"
    assert "sk-secret-key" not in str(raw)


async def test_p10_stopping_an_answer_hangs_up_on_the_writer(written: Deployment) -> None:
    script: Script = [head(), chunk(completion_chunk(content="Twice [1")), Wire.STALL]
    written.choose = lambda _: script
    before = written.upstream.closed_early
    async with written.ask("When do tides come?") as found:
        await found.read_text("Twice ")
        await written.server.post(f"/api/v1/runs/{found.run_id}/cancel")
        await found.rest()
    await written.upstream.client_left(before + 1)
    assert found.end["outcome"] == "cancelled"
    assert found.text == "Twice [1"
