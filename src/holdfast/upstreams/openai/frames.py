"""The frames of `/chat/completions`: what is read of them, and which tool call a piece is of.

Members that servers fill with anything are `Any`; a frame that does not fit is told as an error.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from holdfast.events import ToolCall


class Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: Any = None


class ToolCallPiece(msgspec.Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: Function | None = None


class Delta(msgspec.Struct, gc=False):
    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    refusal: Any = None
    tool_calls: list[ToolCallPiece] | None = None
    function_call: Function | None = None
    reference: Any = None
    references: Any = None
    annotations: Any = None
    final_content: Any = None


class Choice(msgspec.Struct, gc=False):
    index: int | None = 0
    delta: Delta | None = None
    message: Delta | None = None
    finish_reason: Any = None
    error: Any = None


class Frame(msgspec.Struct, gc=False):
    choices: list[Choice] | None = None
    usage: Any = None
    error: Any = None
    citations: Any = None
    search_results: Any = None


decode_frame: Final = msgspec.json.Decoder(Frame).decode

MAX_MISSES: Final = 100
"""An answer whose frames differ so often is not worth looking at for what repeats."""

_decode_string: Final = msgspec.json.Decoder(str).decode
_CONTENT: Final = re.compile(rb'"content"\s*:\s*("(?:[^"\\]|\\.)*")')
_NO_FRAME: Final = b"\0"
"""What no frame begins with."""
_OTHER_MEMBERS: Final = [name for name in Delta.__struct_fields__ if name != "content"]


class Repetition:
    """Reads frames that say the same as one before but for the content of the delta.

    Most frames of an answer are such, byte for byte. Where the bytes around the content's JSON
    string are the same and what lies between them is one JSON string, the frame is the same frame
    with another content, so only that is decoded. Everything else is left to the full decoder.
    """

    def __init__(self) -> None:
        """Nothing was read yet."""
        self._before = self._after = _NO_FRAME
        self._misses = 0

    def content(self, data: bytes) -> str | None:
        """The content of a frame that repeats; None for any other."""
        before, after = self._before, self._after
        if not data.startswith(before) or not data.endswith(after):
            return None
        try:
            # Both ends have their quotation mark.
            return _decode_string(data[len(before) - 1 : len(data) - len(after) + 1])
        except ValueError:
            return None

    def learn(self, data: bytes, frame: Frame) -> None:
        """Take note of a frame that did not repeat, if others may repeat it."""
        if self._misses > MAX_MISSES or not _is_plain(frame):
            return
        self._misses += 1
        found = _CONTENT.search(data)
        if found is None or _CONTENT.search(data, found.end()):
            return
        before, after = data[: found.start(1) + 1], data[found.end(1) - 1 :]
        try:
            probe = decode_frame(before + b"?" + after)
        except ValueError:
            return
        if _is_plain(probe) and _content(probe) == "?":
            self._before, self._after = before, after


def _is_plain(frame: Frame) -> bool:
    """Whether a frame says nothing but the content of its one delta."""
    if frame.usage or frame.error or frame.citations or frame.search_results:
        return False
    if frame.choices is None or len(frame.choices) != 1:
        return False
    choice = frame.choices[0]
    if choice.index or choice.finish_reason or choice.error or choice.message is not None:
        return False
    delta = choice.delta
    if delta is None or not isinstance(delta.content, str):
        return False
    return not any(getattr(delta, name) for name in _OTHER_MEMBERS)


def _content(frame: Frame) -> Any:
    assert frame.choices is not None
    delta = frame.choices[0].delta
    assert delta is not None
    return delta.content


class ToolCalls:
    """Tells apart the calls of one answer.

    Ollama and gateways to Gemini give each of several parallel calls the index 0; then a piece
    that has a name and an id of its own begins another call.
    """

    def __init__(self) -> None:
        self._calls: dict[int, tuple[int, str | None]] = {}
        """The upstream's index -> ours, and the id, of the call that this index means now."""
        self._count = 0

    def take(self, delta: Delta) -> Iterator[ToolCall]:
        """The pieces of calls in a delta."""
        calls = list(delta.tool_calls or ())
        if delta.function_call is not None:
            calls.append(ToolCallPiece(function=delta.function_call))
        for place, call in enumerate(calls):
            function = call.function or Function()
            arguments = function.arguments
            if arguments is not None and not isinstance(arguments, str):
                arguments = msgspec.json.encode(arguments).decode()
            yield ToolCall(
                index=self._index(place if call.index is None else call.index, call),
                id=call.id,
                name=function.name,
                arguments_delta=arguments or "",
            )

    def _index(self, index: int, call: ToolCallPiece) -> int:
        ours, known = self._calls.get(index, (None, None))
        begins = bool(call.id and call.function and call.function.name)
        if ours is None or (begins and known is not None and call.id != known):
            ours, known = self._count, None
            self._count += 1
        self._calls[index] = (ours, known or call.id)
        return ours
