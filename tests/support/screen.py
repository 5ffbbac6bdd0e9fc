"""A terminal of some size: what a person sees of the bytes that a program writes to it."""

import re
from collections.abc import Iterable

import pyte

_UP = re.compile(rb"(?:\x1b\[1A(?:\x1b\[2K)?)+")


def lines_on(data: bytes, columns: int, rows: int) -> list[str]:
    """All lines that were scrolled away and those on the screen, without what ends a line blank."""
    screen = pyte.HistoryScreen(columns, rows, history=10_000, ratio=0.1)
    stream = pyte.ByteStream(screen)
    stream.feed(data.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
    gone = ["".join(line[x].data for x in range(columns)) for line in screen.history.top]
    return _without_blank_end(line.rstrip() for line in (*gone, *screen.display))


def farthest_up(data: bytes) -> int:
    """How many lines a program went up at once, at most: nothing above is ever drawn anew."""
    return max((run.count(b"\x1b[1A") for run in _UP.findall(data)), default=0)


def _without_blank_end(lines: Iterable[str]) -> list[str]:
    found = list(lines)
    while found and not found[-1]:
        del found[-1]
    return found
