"""A document to passages: the pieces that are found, quoted and cited.

A passage never reaches over a heading, and is cut between sentences where there are any.
"""

import math
import re
from bisect import bisect_right
from collections.abc import Iterator
from typing import Final

import msgspec

from holdfast.upstreams.library.blocks import Block, Heading, fenced, read_blocks

KINDS: Final = frozenset({".md", ".markdown", ".rst", ".txt"})
"""The endings of the file names that are read, in lower case."""

PIECE: Final = 600
"""No part of a block is longer (characters)."""
ENOUGH: Final = 300
"""A passage shorter than this takes the next block in, whatever its size."""
FULL: Final = 700
"""A passage that is long enough takes no block in that would make it longer than this."""
REST: Final = 120
"""What is left over at the end of a section goes to the passage before it if it is shorter."""

MAX_TITLE: Final = 200

_SENTENCE_END: Final = re.compile(
    # Wide punctuation ends a sentence anywhere, a full stop only before a space and no small
    # letter.
    r"[。！？…]+[」』”’）)\"'*_]*"
    # "J. Smith" and "1. Item" go on; the second look behind keeps rows of dots cheap.
    r"|(?<!\b[0-9A-Z])(?<![.!?])[.!?]++[\"'”’)\]*_`]*+(?=\s+[^\sa-z])"
    r"|\n"
)


class Passage(msgspec.Struct, frozen=True):
    """A piece of a document, with the lines it was taken from (both included)."""

    section: str
    """The headings above it, without the document's title: `Tides › Springs and neaps`."""
    text: str
    first_line: int
    last_line: int


class Document(msgspec.Struct, frozen=True):
    """A document as it is indexed."""

    title: str | None
    passages: tuple[Passage, ...]


def split_document(text: str, suffix: str) -> Document:
    """Cut a document into passages; `suffix` is its file name's ending, one of `KINDS`."""
    title: str | None = None
    headings: dict[int, str] = {}
    section: list[Passage] = []
    passages: list[Passage] = []
    for item in read_blocks(text, suffix):
        if isinstance(item, Heading):
            passages += _packed(section)
            section = []
            name = item.text[:MAX_TITLE]
            if title is None and not passages:
                title = name
            else:
                headings = {level: old for level, old in headings.items() if level < item.level}
                headings[item.level] = name
        elif not (item.text.startswith("<!--") and item.text.endswith("-->")):
            path = " › ".join(headings.values())
            section += [Passage(path, *piece) for piece in _pieces(item)]
    return Document(title or None, (*passages, *_packed(section)))


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, trimmed; a new line ends one, too."""
    return [part for start, end in _sentence_spans(text) if (part := text[start:end].strip())]


def _sentence_spans(text: str) -> Iterator[tuple[int, int]]:
    at = 0
    for match in _SENTENCE_END.finditer(text):
        yield at, match.end()
        at = match.end()
    if at < len(text):
        yield at, len(text)


def _pieces(block: Block) -> Iterator[tuple[str, int, int]]:
    """The block's text in parts of bearable size, each with its first and last line."""
    if len(block.text) <= PIECE:
        spans = [(0, len(block.text))]
    elif block.fence:
        spans = _spans(block.text, [start for start, _ in block.starts])
    else:
        spans = _spans(block.text, [start for start, _ in _sentence_spans(block.text)])
    offsets = [start for start, _ in block.starts]
    for start, end in spans:
        text = block.text[start:end]
        if text.strip():
            begin = start + len(text) - len(text.lstrip())
            first = block.starts[bisect_right(offsets, begin) - 1][1]
            last = block.starts[bisect_right(offsets, start + len(text.rstrip()) - 1) - 1][1]
            yield (
                fenced(text.strip("\n"), block.fence) if block.fence else text.strip(),
                first,
                last,
            )


def _spans(text: str, starts: list[int]) -> list[tuple[int, int]]:
    """Cut a long text at some of `starts` into parts of about the same size."""
    aim = math.ceil(len(text) / math.ceil(len(text) / PIECE))
    spans, begin = [], 0
    for start, end in zip(starts, [*starts[1:], len(text)], strict=True):
        # A sentence that makes the part too long goes to the next one.
        if end - begin > PIECE or start - begin >= aim:
            if start > begin:
                spans.append((begin, start))
            begin = start
        while end - begin > PIECE:
            cut = _word_cut(text, begin)
            spans.append((begin, cut))
            begin = cut
    if begin < len(text):
        spans.append((begin, len(text)))
    return spans


def _word_cut(text: str, begin: int) -> int:
    """Where to cut a sentence without an end: after a space or a comma, else anywhere."""
    window = text[begin : begin + PIECE]
    cut = max(window.rfind(mark) for mark in " ,，、\n") + 1
    return begin + (cut if cut > PIECE // 2 else PIECE)


def _packed(pieces: list[Passage]) -> list[Passage]:
    """Join the pieces of a section to passages of a good size."""
    packed: list[Passage] = []
    for index, piece in enumerate(pieces):
        above = packed[-1] if packed else None
        joined = len(above.text) + len(piece.text) if above else 0
        is_rest = index == len(pieces) - 1 and len(piece.text) < REST
        if above and (joined <= FULL or len(above.text) < ENOUGH or is_rest):
            packed[-1] = join(above, piece)
        else:
            packed.append(piece)
    return packed


def join(above: Passage, below: Passage) -> Passage:
    """Two passages of one section that follow each other, as one."""
    return Passage(
        above.section, f"{above.text}\n\n{below.text}", above.first_line, below.last_line
    )
