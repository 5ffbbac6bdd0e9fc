"""A document's lines to blocks: headings, paragraphs, lists, tables, code.

This is no Markdown parser. It finds out where a text may be cut, keeps line numbers, and joins
the lines of a paragraph that was wrapped at some width.
"""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

from holdfast.upstreams.library.words import is_unspaced

WRAPPED_WIDTH: Final = 40
"""A line narrower than this was ended on purpose and stays a line; wide characters count 2."""

_FENCE: Final = re.compile(r" {0,3}(```+(?=[^`]*$)|~~~+)")
MAX_FENCE: Final = 40
_HASHES: Final = re.compile(r" {0,3}(#{1,6})(?=[ \t]|$)")
_SETEXT: Final = {"=": 1, "-": 2}
_RULE: Final = re.compile(r"([=\-~^\"'#*+.:_`])\1{2,}[ \t]*")
_OWN_LINE: Final = re.compile(r"[ \t]*([-*+•][ \t]|\d{1,3}[.)][ \t]|\||>|#)| {4}|\t")
_FRONT_TITLE: Final = re.compile(r"title:[ \t]*(.+)")
_LINK: Final = re.compile(r"!?\[([^\[\]]*)\]\([^()\s]*(?:[ \t]+\"[^\"]*\")?\)")


class Line(NamedTuple):
    """A line with its number, counted from 1."""

    number: int
    text: str


class Block(msgspec.Struct, frozen=True):
    """Lines that belong together; `starts` says where in `text` each source line begins."""

    text: str
    starts: tuple[tuple[int, int], ...]
    """(offset in `text`, line number), ascending."""
    fence: str = ""
    """The line that opens a block of code; neither it nor its counterpart is in `text`."""


class Heading(msgspec.Struct, frozen=True):
    """A heading, level 1 for the document's title."""

    level: int
    text: str


def read_blocks(text: str, suffix: str) -> Iterator[Heading | Block]:
    """Cut a document into headings and blocks.

    Args:
        text: The whole document.
        suffix: The file name's ending in lower case: `.md`, `.markdown`, `.rst` or `.txt`.
    """
    plain = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = [Line(number, line) for number, line in enumerate(plain.split("\n"), 1)]
    if suffix == ".txt":
        yield from _paragraphs(lines)
    elif suffix == ".rst":
        yield from _read_rst(lines)
    else:
        yield from _read_markdown(lines)


def _read_markdown(lines: list[Line]) -> Iterator[Heading | Block]:
    waiting: list[Line] = []
    front = _front_matter_end(lines)
    for line in lines[:front]:
        if match := _FRONT_TITLE.fullmatch(line.text):
            yield Heading(1, match[1].strip(" \t\"'"))
    at = front
    while at < len(lines):
        line = lines[at]
        if fence := _FENCE.match(line.text):
            yield from _paragraphs(waiting)
            end = _fence_end(lines, at, fence[1])
            if code := lines[at + 1 : end]:
                yield _verbatim(code, line.text.strip()[:MAX_FENCE])
            waiting, at = [], end + 1
            continue
        # Twice, for a picture that is a link. What a link leads to is not here.
        line = Line(line.number, _LINK.sub(r"\1", _LINK.sub(r"\1", line.text)))
        heading = _markdown_heading(line, waiting)
        if heading:
            underlined = not line.text.lstrip().startswith("#")
            yield from _paragraphs(waiting[:-1] if underlined else waiting)
            yield heading
            waiting = []
        else:
            waiting.append(Line(line.number, "") if _RULE.fullmatch(line.text) else line)
        at += 1
    yield from _paragraphs(waiting)


def _front_matter_end(lines: list[Line]) -> int:
    """How many lines a block of metadata between two `---` takes at the very top."""
    if lines[0].text.rstrip() == "---":
        for line in lines[1:50]:
            if line.text.rstrip() in ("---", "..."):
                return line.number
    return 0


def _fence_end(lines: list[Line], at: int, fence: str) -> int:
    """The index of the line that closes the code block which begins at `at`."""
    for index in range(at + 1, len(lines)):
        text = lines[index].text.strip()
        if text.startswith(fence) and not text.strip(fence[0]):
            return index
    return len(lines)


def fenced(code: str, opening: str) -> str:
    """Code between its fences."""
    marks = opening[: len(opening) - len(opening.lstrip(opening[0]))]
    return f"{opening}\n{code}\n{marks}"


def _markdown_heading(line: Line, before: list[Line]) -> Heading | None:
    if match := _HASHES.match(line.text):
        title = line.text[match.end() :].strip()
        bare = title.rstrip("#")
        return Heading(len(match[1]), bare.rstrip() if bare[-1:] in ("", " ", "\t") else title)
    level = _SETEXT.get(line.text[:1])
    above = before[-1].text.strip() if before else ""
    # Only a single line under a blank one: "---" also ends tables and paragraphs.
    alone = len(before) == 1 or (len(before) > 1 and not before[-2].text.strip())
    if level and _RULE.fullmatch(line.text) and above and alone and not _OWN_LINE.match(above):
        return Heading(level, above)
    return None


def _read_rst(lines: list[Line]) -> Iterator[Heading | Block]:
    waiting: list[Line] = []
    levels: dict[str, int] = {}
    for line in lines:
        above = waiting[-1].text.rstrip() if waiting else ""
        is_rule = _RULE.fullmatch(line.text) and len(line.text.rstrip()) >= len(above) > 0
        if is_rule and not _RULE.fullmatch(above) and not above[0].isspace():
            over = len(waiting) > 1 and _RULE.fullmatch(waiting[-2].text)
            yield from _paragraphs(waiting[: -2 if over else -1])
            yield Heading(levels.setdefault(line.text[0], len(levels) + 1), above)
            waiting = []
        else:
            waiting.append(line)
    yield from _paragraphs(waiting)


def _paragraphs(lines: list[Line]) -> Iterator[Block]:
    """Blocks of what blank lines separate."""
    part: list[Line] = []
    for line in [*lines, Line(0, "")]:
        if line.text.strip():
            part.append(line)
        elif part:
            yield _verbatim(part) if all(_is_indented(line) for line in part) else _unwrap(part)
            part = []


def _is_indented(line: Line) -> bool:
    return line.text.startswith(("    ", "\t"))


def _verbatim(lines: list[Line], fence: str = "") -> Block:
    starts, at = [], 0
    for line in lines:
        starts.append((at, line.number))
        at += len(line.text) + 1
    return Block("\n".join(line.text for line in lines), tuple(starts), fence)


def _unwrap(lines: list[Line]) -> Block:
    """Join what was one line before it was wrapped."""
    parts: list[str] = []
    starts, length, above = [], 0, ""
    for line in lines:
        stripped = line.text.strip()
        between = _between(above, line.text) if parts else ""
        text = line.text.rstrip() if between == "\n" or not parts else stripped
        parts += [between, text]
        length += len(between)
        starts.append((length, line.number))
        length += len(text)
        above = line.text
    return Block("".join(parts), tuple(starts))


def _between(above: str, below: str) -> str:
    """What stands between two lines of a paragraph when they are joined."""
    hard_break = above.endswith(("  ", "\\")) or above.lstrip().startswith(("|", ">"))
    above = above.rstrip()
    if hard_break or _OWN_LINE.match(below) or _width(above) < WRAPPED_WIDTH:
        return "\n"
    joins = _is_wide(above[-1]) and (_is_wide(below.lstrip()[0]) or not above[-1].isalnum())
    return "" if joins else " "


def _width(line: str) -> int:
    return len(line) + sum(map(_is_wide, line))


def _is_wide(character: str) -> bool:
    """Chinese, Japanese and full-width characters; Korean puts spaces between its words."""
    return (
        "\u3000" <= character <= "\u9fff"
        or "\uff00" <= character <= "\uffef"
        or (character > "\U00020000" and is_unspaced(character))
    )
