"""The laws of encoders, for any log that a decoder can make."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from holdfast.dialects.base import About, Encoder
from holdfast.dialects.messages import LegacyMessagesEncoder, with_ids
from holdfast.dialects.naive import CLOSING_BYTES
from holdfast.dialects.openai import TEXT_CHARS, OpenAIEncoder
from holdfast.engine.fold import Answer, fold
from holdfast.events import Entry, TextReplace, decode
from holdfast.http.dialects import DIALECTS
from tests.support import ui_message_stream
from tests.support.corpus import ABOUT, write_each
from tests.support.frames import Message, frames_of, messages_of

ENCODERS: Final[Mapping[str, Callable[[About], Encoder]]] = {
    **DIALECTS,
    "messages, legacy": LegacyMessagesEncoder,
    "openai, with usage": lambda about: OpenAIEncoder(about, include_usage=True),
}
TEXT_FRAME_BYTES: Final = 1_024
"""Naive clients read a frame of this size at once."""
CLOSING_FRAME_BYTES: Final = 32 * 1024


def check(log: Sequence[Entry], at: float) -> None:
    """Check every dialect.

    Args:
        log: A log from its start to its end.
        at: Where its reader comes back, relative to its length.
    """
    answer = fold(entry.event for entry in log)
    rewritten = any(isinstance(entry.event, TextReplace) for entry in log)
    for name, make in ENCODERS.items():
        written = write_each(make(ABOUT), log)
        body = b"".join(written)
        _check_frames(name, body)
        _check_resumed(make, log, int(at * len(log)), written)
        at_once = make(ABOUT).encode(log)
        for each in (body, at_once):
            _READERS[name.partition(",")[0]](each, answer, rewritten, log)


def _check_frames(name: str, body: bytes) -> None:
    """Whole frames of whole lines."""
    for frame in frames_of(body):
        assert not frame.startswith(b"\n"), "a frame of nothing"
        lines = frame.removesuffix(b"\n\n").split(b"\n")
        assert all(line.startswith((b"data:", b"event: ", b"id: ")) for line in lines), frame
        assert lines[-1].startswith(b"data:")
        assert b"\r" not in frame
        if name.startswith("openai"):
            assert len(frame.decode().splitlines()) == len(lines) + 1, "a line end to Python"


def _check_resumed(
    make: Callable[[About], Encoder], log: Sequence[Entry], place: int, written: Sequence[bytes]
) -> None:
    """Resumed at n it writes what it would have written from n on, byte for byte."""
    encoder = make(ABOUT)
    if encoder.needs_history:
        encoder.encode(log[:place])
    assert write_each(encoder, log[place:]) == written[place:]


# ---------------------------------------------------------------------- what readers get


def _read_native(body: bytes, answer: Answer, rewritten: bool, log: Sequence[Entry]) -> None:
    messages = messages_of(body)
    told = [(f"id: run-1.{entry.seq}", entry.event) for entry in log]
    assert [(one.fields[0], decode(msgspec.json.encode(one.data))) for one in messages] == told


def _read_naive(body: bytes, answer: Answer, rewritten: bool, log: Sequence[Entry]) -> None:
    assert body.isascii()
    for frame in frames_of(body):
        is_closing = b'"references":' in frame or frame.startswith(b"event: final_end")
        assert len(frame) <= (CLOSING_FRAME_BYTES if is_closing else TEXT_FRAME_BYTES), len(frame)
    assert len(frames_of(body)[-1]) <= CLOSING_BYTES
    _check_text(_texts(messages_of(body), "content"), answer, rewritten)


def _read_messages(body: bytes, answer: Answer, rewritten: bool, log: Sequence[Entry]) -> None:
    *_, last, end = (one.data for one in messages_of(body))
    assert end == {"code": 0, "message": "", "data": True}
    assert last["data"]["final"] is True
    assert last["data"]["answer"] == with_ids(answer.text, answer.marks)
    assert last["data"]["reference"]["total"] == len(answer.references)


def _read_openai(body: bytes, answer: Answer, rewritten: bool, log: Sequence[Entry]) -> None:
    *chunks, end = messages_of(body)
    assert end.data == "[DONE]"
    deltas = [choice["delta"] for one in chunks for choice in one.data.get("choices", ())]
    content = [delta.get("content", "") for delta in deltas]
    assert all(len(text) <= TEXT_CHARS for text in content)
    _check_text("".join(content), answer, rewritten)
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == answer.reasoning
    told = [one for delta in deltas for one in delta.get("references", ())]
    assert [one["ordinal"] for one in told] == [one.ordinal for one in answer.references]
    assert [one["index"] for one in told] == list(range(len(told)))
    calls: dict[int, str] = {}
    for delta in deltas:
        for call in delta.get("tool_calls", ()):
            arguments = call["function"]["arguments"]
            calls[call["index"]] = calls.get(call["index"], "") + arguments
    assert [*calls.items()] == [*enumerate(call.arguments for call in answer.tool_calls)]


def _read_ai_sdk(body: bytes, answer: Answer, rewritten: bool, log: Sequence[Entry]) -> None:
    seen = ui_message_stream.read(body)
    _check_text(seen.text, answer, rewritten)
    assert seen.reasoning == answer.reasoning
    sources = {one["sourceId"] for one in seen.parts if one["type"].startswith("source-")}
    assert sources >= {f"{seen.id}-{reference.ordinal}" for reference in answer.references}


def _texts(messages: Sequence[Message], name: str) -> str:
    return "".join(one.data.get(name, "") for one in messages if isinstance(one.data, dict))


def _check_text(text: str, answer: Answer, rewritten: bool) -> None:
    """Readers have what is stored; who cannot replace text may have what was there before."""
    assert rewritten or text == answer.text, "the reader has another text"


Reader: TypeAlias = Callable[[bytes, Answer, bool, Sequence[Entry]], Any]

_READERS: Final[Mapping[str, Reader]] = {
    "ai-sdk": _read_ai_sdk,
    "messages": _read_messages,
    "native": _read_native,
    "openai": _read_openai,
    "plain": _read_naive,
    "stream-ask": _read_naive,
    "v1": _read_naive,
}
