"""The upstream or the client goes away at every possible place: what came is kept, no more."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

import pytest

from tests.support.server import Deployment
from tests.support.upstream_server import LAST_CHUNK, Script, Wire, chunk, completion, head

PIECE = 97
"""Bytes in a chunk of HTTP: not where events begin or end."""
WORKERS = 400


def recorded() -> bytes:
    """An answer as OpenAI's API streams it, the marker of its end and the usage included."""
    envelope = {
        "id": "chatcmpl-C9x2",
        "object": "chat.completion.chunk",
        "created": 1_757_000_000,
        "model": "gpt-4o-mini",
    }
    texts = ["", "海带", " holds", " fast", " 🌊", ": its", ' "root"', "\n\nis", " a holdfast."]
    deltas: list[dict[str, Any]] = [{"content": text} for text in texts]
    choices: list[list[dict[str, Any]]] = [
        [{"index": 0, "delta": delta, "finish_reason": None}] for delta in deltas
    ]
    choices.append([{"index": 0, "delta": {}, "finish_reason": "stop"}])
    frames: list[dict[str, Any]] = [{**envelope, "choices": one} for one in choices]
    usage = {"prompt_tokens": 12, "completion_tokens": 9, "total_tokens": 21}
    frames.append({**envelope, "choices": [], "usage": usage})
    lines = [json.dumps(frame, ensure_ascii=False, separators=(",", ":")) for frame in frames]
    return "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"]).encode()


BODY = recorded()
HEAD = head()
PIECES = [BODY[at : at + PIECE] for at in range(0, len(BODY), PIECE)]
WIRE = HEAD + b"".join(map(chunk, PIECES)) + LAST_CHUNK


class Delivered(NamedTuple):
    """What an upstream had said in whole events."""

    text: str
    complete: bool


def delivered(wire: bytes) -> Delivered:
    """Read the first bytes of the response by the letter of HTTP and SSE."""
    rest, body = wire[len(HEAD) :], b""
    while b"\r\n" in rest:
        size, _, rest = rest.partition(b"\r\n")
        body += rest[: int(size, 16)]
        rest = rest[int(size, 16) + 2 :]
    text, complete = "", False
    for event in body.split(b"\n\n")[:-1]:
        data = event.removeprefix(b"data: ")
        if data == b"[DONE]":
            complete = True
            continue
        for choice in json.loads(data)["choices"]:
            text += choice["delta"].get("content", "")
            complete = complete or choice["finish_reason"] is not None
    return Delivered(text, complete)


class Ending(NamedTuple):
    """How a run ended, as its message is stored."""

    text: str
    status: str
    outcome: str
    reason: str | None


def expected(at: int, reason: str) -> Ending:
    found = delivered(WIRE[:at])
    if found.complete:
        return Ending(found.text, "complete", "completed", None)
    if found.text:
        return Ending(found.text, "partial", "interrupted", reason)
    return Ending("", "failed", "failed", reason)


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Deployment]:
    runs = {"idle_timeout_s": 4.0, "first_byte_timeout_s": 4.0}
    async with Deployment(tmp_path_factory.mktemp("site"), runs=runs) as site:
        yield site


async def endings(site: Deployment, wire: Wire, places: Sequence[int]) -> dict[int, Ending]:
    """How the runs end whose upstream does `wire` after so many bytes."""
    found: dict[int, Ending] = {}
    waiting = list(places)

    def script(question: str) -> Script:
        return [WIRE[: int(question)], wire]

    async def work() -> None:
        async with site.server.connect() as connection:
            while waiting:
                at = waiting.pop()
                body = {"message": str(at), "stream": False}
                await connection.send(site.server.request("POST", "/api/v1/runs", body))
                reply = await connection.reply()
                assert reply.status == 200, reply
                message = reply.json["message"]
                found[at] = Ending(
                    *(message[name] for name in ("content", "status", "outcome", "reason"))
                )

    site.choose = script
    workers = WORKERS if wire is Wire.STALL else 24
    async with asyncio.TaskGroup() as group:
        for _ in range(workers):
            group.create_task(work())
    return found


def differences(found: dict[int, Ending], reason: str) -> dict[int, tuple[Ending, Ending]]:
    return {
        at: (ending, expected(at, reason))
        for at, ending in sorted(found.items())
        if ending != expected(at, reason)
    }


def test_the_recorded_answer_is_about_2_kb_and_whole() -> None:
    assert 1_800 < len(BODY) < 2_600
    assert delivered(WIRE).complete
    assert delivered(WIRE).text == '海带 holds fast 🌊: its "root"\n\nis a holdfast.'
    texts = {delivered(WIRE[:at]).text for at in range(len(HEAD), len(WIRE))}
    assert len(texts) == 9


@pytest.mark.parametrize(
    ("wire", "reason"),
    [
        (Wire.CLOSE, "upstream_truncated"),
        (Wire.RESET, "upstream_truncated"),
        (Wire.STALL, "upstream_timeout"),
    ],
)
async def test_p3_p9_an_upstream_that_ends_after_any_byte_leaves_what_came_in_whole_events(
    wire: Wire, reason: str, site: Deployment
) -> None:
    places = range(0 if wire is Wire.STALL else len(HEAD), len(WIRE) + 1)
    assert differences(await endings(site, wire, places), reason) == {}


@pytest.mark.parametrize("wire", [Wire.CLOSE, Wire.RESET])
async def test_p3_p9_an_upstream_that_ends_within_the_head_of_its_response_has_failed(
    wire: Wire, site: Deployment
) -> None:
    for ending in (await endings(site, wire, range(len(HEAD)))).values():
        assert ending[:3] == ("", "failed", "failed")
        assert ending.reason in ("upstream_unreachable", "upstream_truncated")


async def test_p6_a_client_that_leaves_after_any_event_changes_nothing(site: Deployment) -> None:
    letters = "abcdefghijklmnopqrstuvwxyzäöü海带"
    pieces = completion(*letters)
    for seen in range(1, len(letters) + 2):
        gate = asyncio.Event()
        question = site.answers(*pieces[: seen - 1], gate, *pieces[seen - 1 :])
        async with site.ask(question) as stream:
            while len(stream.frames) < seen:
                await stream.event()
        gate.set()
        found = await site.server.ended(stream.run_id)
        assert (found["run"]["outcome"], found["message"]["status"]) == ("completed", "complete")
        assert found["message"]["content"] == letters
        log = await site.server.log_of(stream.run_id)
        assert log.startswith(stream.log)
        assert log.count(b"\nevent: text-delta\n") == len(letters)
