"""An answer that came in one piece, streamed out at the pace of a reader."""

import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Final

import anyio

from holdfast.events import Mark, ReasoningDelta, References, TextDelta
from holdfast.upstreams.base import Item

EVENTS_PER_S: Final = 25
"""Text is cut so that no more events than these are needed to keep the pace."""

_UNSPACED: Final = "\u2e80-\u9fff\uac00-\ud7ff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff"
"""Chinese, Japanese and Korean, which may be cut anywhere, as the inside of a class."""
_TOKEN: Final = re.compile(f"\\s*(?:[{_UNSPACED}]|[^\\s{_UNSPACED}]{{1,40}})|\\s+")


async def pace_out(
    items: Sequence[Item],
    pace: float,
    *,
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    now: Callable[[], float] = anyio.current_time,
) -> AsyncGenerator[Sequence[Item], None]:
    """Give the items of an answer in batches, its texts as a reader reads them.

    References come first, so that whoever stops reading has the sources of what he has read.

    Args:
        items: The answer, in its order.
        pace: Characters per second, more than 0.
        sleep: Waits some seconds.
        now: The time in seconds by the clock that `sleep` goes by.
    """
    # Each piece has its own time after the start, so that waits do not add up.
    start, sent = now(), 0
    for item in sorted(items, key=lambda item: not isinstance(item, References)):
        for piece in _pieces(item, pace / EVENTS_PER_S):
            wait = start + sent / pace - now()
            if wait > 0:
                await sleep(wait)
            yield [piece]
            if isinstance(piece, TextDelta | ReasoningDelta):
                sent += len(piece.text)


def _pieces(item: Item, size: float) -> Iterable[Item]:
    match item:
        case TextDelta():
            return split_text(item.text, item.marks, size)
        case ReasoningDelta():
            return (ReasoningDelta(piece.text) for piece in split_text(item.text, (), size))
        case _:
            return (item,)


def split_text(text: str, marks: Sequence[Mark], size: float) -> Iterator[TextDelta]:
    """Cut a text into deltas of about `size` characters, at words and never in a mark.

    Joined they are the text, and each mark is in the delta that holds its characters.
    """
    piece, inside = "", []
    for token, ordinal in _tokens(text, marks):
        if ordinal:
            inside.append((len(piece), len(piece) + len(token), ordinal))
        piece += token
        if len(piece) >= size:
            yield TextDelta(piece, tuple(inside))
            piece, inside = "", []
    if piece:
        yield TextDelta(piece, tuple(inside))


def _tokens(text: str, marks: Sequence[Mark]) -> Iterator[tuple[str, int]]:
    """The words of a text, each with 0, and its marks with their ordinals."""
    at = 0
    for start, end, ordinal in (*marks, (len(text), len(text), 0)):
        for word in _TOKEN.finditer(text, at, start):
            yield word[0], 0
        if ordinal:
            yield text[start:end], ordinal
        at = end
