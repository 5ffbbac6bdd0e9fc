"""The parts of `holdfast-client.js` that need no server: the parser, the fold, the types."""

import asyncio
import base64
import json
import random
import re
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any

import msgspec
import pytest

from holdfast.engine.fold import Answer, fold
from holdfast.events import Event, RunStart, decode
from tests.support.corpus import CORPUS
from tests.support.js_client import JsNode
from tests.support.node import CLIENTS
from tests.support.sse_rules import parse

MODULE = CLIENTS.parents[2] / "src" / "holdfast" / "console" / "holdfast-client.js"
LOGS = sorted(CORPUS.glob("*/*.native.txt"))

STREAMS = [
    b"data: a\n\n",
    b"\xef\xbb\xbfdata: a\n\n",
    b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: b\n\n",
    b"data: a\r\rdata: b\r\n\r\ndata: c\n\r\ndata: d\r\n\n",
    b"data: a\r\n\r\n\r\n\r\ndata\r\n\r\n",
    b"data: a\ndata:b\ndata:  c\ndata\n\n",
    b"data:\n\nevent: e\n\ndata: after\n\n",
    b": comment\n:\ndata: a\n:data: b\n\n",
    b"id: 1\ndata: a\n\ndata: b\n\nid\ndata: c\n\n",
    b"id: 1\nid: 2\0\ndata: a\n\nid:\0\ndata: b\n\n",
    b"event: x\nevent:\ndata: a\n\nevent: y\ndata: b\n\ndata: c\n\n",
    b"Data: no\n data: no\ndata : no\nnonsense\ndata: yes\n\n",
    b"data: \xe6\xb5\xb7\xe5\xb8\xa6 \xf0\x9f\x8c\xbf\xe2\x80\xa8\xc2\x85\x0b\x0c\n\n",
    b"data: \xff\xe6\xb5\n\ndata: \xf0\x9f\n\n",
    b"data: whole\n\ndata: cut off\n",
    b"data: whole\n\ndata: cut off",
    b"retry: 500\nretry: -1\nretry: 1.5\nretry: x\nretry:\ndata: a\n\n",
]
"""Everything that the standard says something about."""


@pytest.fixture(scope="module")
async def node() -> AsyncIterator[JsNode]:
    async with JsNode() as node:
        yield node


def chunkings(stream: bytes) -> Iterable[Sequence[bytes]]:
    """The stream whole, byte by byte, and cut in two at each place."""
    yield [stream]
    yield [stream[place : place + 1] for place in range(len(stream))]
    yield from ([stream[:place], b"", stream[place:]] for place in range(len(stream)))


async def parsed(node: JsNode, streams: Iterable[Sequence[bytes]]) -> list[Any]:
    encoded = [[base64.b64encode(chunk).decode() for chunk in chunks] for chunks in streams]
    found: list[Any] = await node.do("parse", streams=encoded)
    return found


def rules(stream: bytes) -> list[dict[str, str]]:
    """What the standard makes of a stream."""
    return [
        {"id": one.id, "event": one.event, "data": one.data.decode("utf-8", "replace")}
        for one in parse(stream)
    ]


class TestParser:
    @pytest.mark.parametrize("stream", STREAMS)
    async def test_keeps_to_the_standard_in_any_chunks(self, node: JsNode, stream: bytes) -> None:
        for found in await parsed(node, chunkings(stream)):
            assert found["messages"] == rules(stream)

    async def test_keeps_to_the_standard_whatever_comes(self, node: JsNode) -> None:
        dice = random.Random(7)
        tokens = [b"data", b"event", b"id", b"retry", b":", b" ", b"\n", b"\r", b"\r\n", b"\0"]
        tokens += [b"1", b"a", b"\xe6\xb5\xb7", b"\xef\xbb\xbf", b"\n\n", b"data: x\n", b"\xe6"]
        streams = [b"".join(dice.choices(tokens, k=dice.randint(1, 40))) for _ in range(2_000)]
        cuts = [sorted(dice.choices(range(len(one) + 1), k=3)) for one in streams]
        chunks = [
            [one[start:end] for start, end in zip([0, *at], [*at, len(one)], strict=True)]
            for one, at in zip(streams, cuts, strict=True)
        ]
        for stream, found in zip(streams, await parsed(node, chunks), strict=True):
            assert found["messages"] == rules(stream), stream

    async def test_takes_the_reconnection_time(self, node: JsNode) -> None:
        (found,) = await parsed(node, [[STREAMS[-1]]])
        assert found["retry"] == 500

    async def test_of_a_large_event_in_small_pieces_is_whole(self, node: JsNode) -> None:
        stream = b"data: " + b"x" * 1_000_000 + b"\n\n"
        pieces = [stream[at : at + 1_000] for at in range(0, len(stream), 1_000)]
        (found,) = await parsed(node, [pieces])
        assert [len(one["data"]) for one in found["messages"]] == [1_000_000]


def logs() -> Iterable[list[Event]]:
    """The events of every answer of the corpus."""
    for path in LOGS:
        yield [decode(one.data) for one in parse(path.read_bytes())]


def prefixes(log: list[Event]) -> Iterable[list[Event]]:
    """A log at some of its places, the whole one included."""
    yield from (log[:size] for size in range(1, len(log) + 1, 1 + len(log) // 8))
    yield log


def plain(events: Iterable[Event]) -> Any:
    return [msgspec.to_builtins(event) for event in events]


def of_server(answer: Answer, start: RunStart | None) -> dict[str, Any]:
    """The answer as the module has it."""
    told = json.loads(msgspec.json.encode(answer))
    usage, end = answer.usage, answer.end
    return {
        "text": told["text"],
        "length": len(answer.text),
        "marks": told["marks"],
        "reasoning": told["reasoning"],
        "references": told["references"],
        "toolCalls": told["tool_calls"],
        "usage": usage and msgspec.structs.asdict(usage),
        "upstream": told["upstream"],
        "model": told["model"],
        "routeReason": start.route_reason if start else None,
        "arrived": told["arrived"],
        "status": answer.status.value,
        "end": end and {**msgspec.structs.asdict(end), "outcome": end.outcome.value},
    }


BESIDE = ("notices", "steps", "route")
"""What the server's fold does not hold."""


def without(answer: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name not in names}


class TestFold:
    async def test_is_the_server_s_for_every_answer_of_the_corpus(self, node: JsNode) -> None:
        given = [part for log in logs() for part in prefixes(log)]
        found = await node.do("fold", logs=[plain(part) for part in given])
        for events, answer in zip(given, found, strict=True):
            start = events[0]
            assert isinstance(start, RunStart)
            assert without(answer, *BESIDE) == of_server(fold(events), start)

    async def test_keeps_steps_and_notices_in_order(self, node: JsNode) -> None:
        events = [
            {"type": "step", "label": "a", "detail": "b"},
            {"type": "notice", "code": "c", "message": "d"},
            {"type": "step", "label": "e"},
        ]
        (answer,) = await node.do("fold", logs=[events])
        assert answer["steps"] == [{"label": "a", "detail": "b"}, {"label": "e", "detail": None}]
        assert answer["notices"] == [{"code": "c", "message": "d"}]

    async def test_takes_back_what_another_upstream_did_not_give(self, node: JsNode) -> None:
        log = [
            {"type": "usage", "input_tokens": 1},
            {"type": "notice", "code": "c", "message": "d", "upstream": "other"},
        ]
        (answer,) = await node.do("fold", logs=[log])
        expected = fold([decode(json.dumps(one)) for one in log])
        assert without(answer, *BESIDE) == of_server(expected, None)

    async def test_passes_over_events_that_it_does_not_know(self, node: JsNode) -> None:
        strange = [{"type": name} for name in ("new-thing", "toString", "__proto__")]
        with_them, nothing = await node.do("fold", logs=[strange, []])
        assert with_them == nothing

    async def test_goes_on_from_a_stored_message(self, node: JsNode) -> None:
        for log in list(logs())[::3]:
            half = len(log) // 2
            message = _message(fold(log[:half]))
            found = await node.do("answer_of", message=message, events=plain(log[half:]))
            expected = of_server(fold(log), None)
            names = (*BESIDE, "routeReason", "upstream", "model")
            assert without(found, *names) == without(expected, *names)


def _message(answer: Answer) -> dict[str, Any]:
    told = of_server(answer, None)
    return {
        **{name: told[name] for name in ("marks", "reasoning", "references", "usage", "status")},
        "content": answer.text,
        "tool_calls": told["toolCalls"],
        "upstream": answer.upstream,
        "model": answer.model,
        "outcome": None,
        "reason": None,
        "error": None,
    }


class TestTypes:
    async def test_are_taken_by_the_compiler(self) -> None:
        options = ["--noEmit", "--strict", "--module", "nodenext", "--target", "es2022"]
        process = await asyncio.create_subprocess_exec(
            *("node_modules/.bin/tsc", *options, "--lib", "es2022,dom,dom.asynciterable"),
            *("--types", "", "holdfast_client_types.ts"),
            cwd=CLIENTS,
            stdout=asyncio.subprocess.PIPE,
        )
        told, _ = await process.communicate()
        assert process.returncode == 0, told.decode()

    def test_name_what_the_module_has(self) -> None:
        pattern = r"^export (?:async )?(?:const|function|class) (\w+)"
        names = re.findall(pattern, MODULE.read_text(), re.MULTILINE)
        types = MODULE.with_suffix(".d.ts").read_text()
        assert sorted(names) == sorted(re.findall(pattern, types, re.MULTILINE))


def test_the_module_is_one_file_that_needs_nothing_else() -> None:
    text = MODULE.read_text()
    assert not re.search(r"\bimport\b|\brequire\(|\bwindow\b|\bdocument\b|\bprocess\b", text)
