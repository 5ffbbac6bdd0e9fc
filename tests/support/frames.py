"""What a dialect's bytes say, for tests of encoders and of the surfaces that use them."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

from holdfast.events import Entry, Event, encode

Path: TypeAlias = tuple[str | int, ...]
"""Where a frame has its piece of text, such as `("content",)`."""


class Message(NamedTuple):
    """One SSE message: its fields but `data`, and its data; JSON is decoded."""

    fields: tuple[str, ...]
    data: Any


def entries_of(*events: Event, first: int = 1) -> list[Entry]:
    """The events as entries of a log."""
    return [Entry(seq, event, encode(event)) for seq, event in enumerate(events, first)]


def frames_of(body: bytes) -> list[bytes]:
    """The frames of a body as they are, comments too; it must not end within one."""
    assert not body or body.endswith(b"\n\n"), body[-100:]
    return [frame + b"\n\n" for frame in body.split(b"\n\n")[:-1]]


def messages_of(body: bytes) -> list[Message]:
    """The SSE messages of a body, without its comments."""
    return [_message(frame) for frame in frames_of(body) if not frame.startswith(b":")]


def datas_of(body: bytes) -> list[Any]:
    """The data of the messages of a body."""
    return [message.data for message in messages_of(body)]


def _message(frame: bytes) -> Message:
    lines = frame.decode().strip("\n").split("\n")
    texts = [line.removeprefix("data:") for line in lines if line.startswith("data:")]
    assert len(texts) == 1, frame
    text = texts[0].removeprefix(" ")
    data = json.loads(text) if text.startswith(("{", "[", '"')) and text != "[DONE]" else text
    return Message(tuple(line for line in lines if not line.startswith("data:")), data)


def merged(messages: Iterable[Message], paths: Sequence[Path]) -> list[Message]:
    """The messages with the text of neighbours that say nothing else in one message.

    Args:
        messages: What was sent.
        paths: Where a dialect has text that may come in pieces of any size.
    """
    found: list[Message] = []
    for message in messages:
        before = found[-1] if found else None
        whole = before and next(
            filter(None, (_joined(before, message, path) for path in paths)), None
        )
        if whole:
            found[-1] = whole
        else:
            found.append(message)
    return found


def _joined(before: Message, message: Message, path: Path) -> Message | None:
    """One message for both, if the second adds nothing but text."""
    first, more = _text_at(before.data, path), _text_at(message.data, path)
    if first is None or more is None or before.fields != message.fields:
        return None
    rest = _with_text(before.data, path, "")
    if {**rest, **_with_text(message.data, path, "")} != rest:
        return None
    return Message(before.fields, _with_text(before.data, path, first + more))


def _text_at(data: Any, path: Path) -> str | None:
    for step in path:
        try:
            data = data[step]
        except (LookupError, TypeError):
            return None
    return data if isinstance(data, str) else None


def _with_text(data: Any, path: Path, text: str) -> Any:
    if not path:
        return text
    copy = data.copy()
    copy[path[0]] = _with_text(data[path[0]], path[1:], text)
    return copy
