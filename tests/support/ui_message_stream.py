"""A reader of UI message streams that is as strict as the strictest client.

The table of chunks is `uiMessageChunkSchema` of `ai` 6.0.0 (src/ui-message-stream/
ui-message-chunks.ts), where a field more is an error; the state is what its
process-ui-message-stream.ts keeps. On top of it the reader wants what those clients let pass
in silence: parts that are ended, and exactly one ending, last.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

TEXT = (str,)
ANY = (str, int, float, bool, list, dict, type(None))
MAP = (dict,)
FLAG = (bool,)

SCHEMA: dict[str, tuple[dict[str, tuple[type, ...]], dict[str, tuple[type, ...]]]] = {
    "start": ({}, {"messageId": TEXT, "messageMetadata": ANY}),
    "start-step": ({}, {}),
    "finish-step": ({}, {}),
    "finish": ({}, {"finishReason": TEXT, "messageMetadata": ANY}),
    "message-metadata": ({"messageMetadata": ANY}, {}),
    "abort": ({}, {}),
    "error": ({"errorText": TEXT}, {}),
    "text-start": ({"id": TEXT}, {"providerMetadata": MAP}),
    "text-delta": ({"id": TEXT, "delta": TEXT}, {"providerMetadata": MAP}),
    "text-end": ({"id": TEXT}, {"providerMetadata": MAP}),
    "reasoning-start": ({"id": TEXT}, {"providerMetadata": MAP}),
    "reasoning-delta": ({"id": TEXT, "delta": TEXT}, {"providerMetadata": MAP}),
    "reasoning-end": ({"id": TEXT}, {"providerMetadata": MAP}),
    "source-url": ({"sourceId": TEXT, "url": TEXT}, {"title": TEXT, "providerMetadata": MAP}),
    "source-document": (
        {"sourceId": TEXT, "mediaType": TEXT, "title": TEXT},
        {"filename": TEXT, "providerMetadata": MAP},
    ),
    "tool-input-start": (
        {"toolCallId": TEXT, "toolName": TEXT},
        {"providerExecuted": FLAG, "dynamic": FLAG, "title": TEXT},
    ),
    "tool-input-delta": ({"toolCallId": TEXT, "inputTextDelta": TEXT}, {}),
    "tool-input-available": (
        {"toolCallId": TEXT, "toolName": TEXT, "input": ANY},
        {"providerExecuted": FLAG, "providerMetadata": MAP, "dynamic": FLAG, "title": TEXT},
    ),
    "tool-input-error": (
        {"toolCallId": TEXT, "toolName": TEXT, "input": ANY, "errorText": TEXT},
        {"providerExecuted": FLAG, "providerMetadata": MAP, "dynamic": FLAG, "title": TEXT},
    ),
}
DATA: tuple[dict[str, tuple[type, ...]], dict[str, tuple[type, ...]]] = (
    {"data": ANY},
    {"id": TEXT, "transient": FLAG},
)
FINISH_REASONS = {"stop", "length", "content-filter", "tool-calls", "error", "other"}
ENDINGS = ("finish", "abort", "error")


@dataclass
class Seen:
    """What a client has of a message."""

    id: str | None = None
    parts: list[dict[str, Any]] = field(default_factory=list)
    transient: list[dict[str, Any]] = field(default_factory=list)
    chunks: list[dict[str, Any]] = field(default_factory=list)
    ending: dict[str, Any] | None = None
    done: bool = False

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The parts of a type."""
        return [part for part in self.parts if part["type"] == kind]

    def data(self, name: str) -> Any:
        """What a data part says."""
        (part,) = self.of(f"data-{name}")
        return part["data"]

    @property
    def text(self) -> str:
        """The text of the text parts."""
        return "".join(part["text"] for part in self.of("text"))

    @property
    def reasoning(self) -> str:
        """The text of the reasoning parts."""
        return "".join(part["text"] for part in self.of("reasoning"))


def read(body: bytes, *, whole: bool = True) -> Seen:
    """What a client makes of a stream; an AssertionError where one would take offence.

    Args:
        body: The body of the response.
        whole: Whether it must come to an end of its own.
    """
    seen = Seen()
    open_parts: dict[tuple[str, str], dict[str, Any]] = {}
    calls: dict[str, dict[str, Any]] = {}
    for payload in _payloads(body):
        assert not seen.done, f"something after [DONE]: {payload!r}"
        if payload == "[DONE]":
            seen.done = True
            continue
        chunk = json.loads(payload)
        _check(chunk)
        assert seen.ending is None, f"something after the ending: {chunk}"
        assert (chunk["type"] == "start") == (not seen.chunks), "start comes first, and once"
        seen.chunks.append(chunk)
        _take(chunk, seen, open_parts, calls)
    assert not whole or (seen.ending is not None and seen.done), "the stream has no end"
    return seen


def _payloads(body: bytes) -> Iterator[str]:
    """The data of each SSE message, of which each has one line; comments are passed over."""
    assert body.endswith(b"\n\n") or not body
    for frame in body.decode().split("\n\n")[:-1]:
        if frame.startswith(":"):
            continue
        assert frame.startswith("data: "), frame
        assert "\n" not in frame, frame
        assert "\r" not in frame, frame
        yield frame.removeprefix("data: ")


def _check(chunk: dict[str, Any]) -> None:
    kind = chunk["type"]
    required, optional = DATA if kind.startswith("data-") else SCHEMA[kind]
    missing = required.keys() - chunk.keys()
    unknown = chunk.keys() - required.keys() - optional.keys() - {"type"}
    assert not missing, f"{missing} missing in {chunk}"
    assert not unknown, f"{unknown} unknown in {chunk}"
    for name, value in chunk.items():
        if name != "type":
            assert isinstance(value, {**required, **optional}[name]), chunk
    metadata = chunk.get("providerMetadata", {})
    assert all(isinstance(value, dict) for value in metadata.values()), chunk
    assert chunk.get("finishReason", "stop") in FINISH_REASONS, chunk


def _take(
    chunk: dict[str, Any],
    seen: Seen,
    open_parts: dict[tuple[str, str], dict[str, Any]],
    calls: dict[str, dict[str, Any]],
) -> None:
    kind, _, what = chunk["type"].partition("-")
    if chunk["type"] in ENDINGS:
        assert not open_parts, f"open at the end: {open_parts}"
        assert all(call["state"] != "input-streaming" for call in calls.values()), calls
        seen.ending = chunk
    elif chunk["type"] == "start":
        seen.id = chunk["messageId"]
    elif chunk["type"] == "start-step":
        seen.parts.append({"type": "step-start"})
    elif kind in ("text", "reasoning"):
        _take_piece(kind, what, chunk, seen, open_parts)
    elif kind == "tool":
        _take_call(chunk, seen, calls)
    elif kind == "source":
        seen.parts.append(chunk)
    elif kind == "data":
        _take_data(chunk, seen)


def _take_piece(
    kind: str,
    what: str,
    chunk: dict[str, Any],
    seen: Seen,
    open_parts: dict[tuple[str, str], dict[str, Any]],
) -> None:
    key = kind, chunk["id"]
    if what == "start":
        assert not open_parts, f"{chunk} begins in {open_parts}"
        open_parts[key] = {"type": kind, "text": "", "state": "streaming"}
        seen.parts.append(open_parts[key])
    elif what == "delta":
        assert chunk["delta"], "an empty delta"
        open_parts[key]["text"] += chunk["delta"]
    else:
        open_parts.pop(key)["state"] = "done"


def _take_call(chunk: dict[str, Any], seen: Seen, calls: dict[str, dict[str, Any]]) -> None:
    identity, what = chunk["toolCallId"], chunk["type"].removeprefix("tool-input-")
    if what == "start":
        part = {"type": f"tool-{chunk['toolName']}", "toolCallId": identity}
        calls[identity] = {**part, "state": "input-streaming", "raw": ""}
        seen.parts.append(calls[identity])
        return
    call = calls[identity]
    if what == "delta":
        call["raw"] += chunk["inputTextDelta"]
        return
    assert call["type"] == f"tool-{chunk['toolName']}", (call, chunk)
    if what == "available":
        call.update(state="input-available", input=chunk["input"])
    else:
        call.update(state="output-error", rawInput=chunk["input"], errorText=chunk["errorText"])


def _take_data(chunk: dict[str, Any], seen: Seen) -> None:
    if chunk.get("transient"):
        seen.transient.append(chunk)
        return
    key = chunk["type"], chunk.get("id")
    for part in seen.parts:
        if (part["type"], part.get("id")) == key and key[1] is not None:
            part["data"] = chunk["data"]
            return
    seen.parts.append(chunk)
