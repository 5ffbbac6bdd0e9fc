"""Markdown on a terminal while it is written.

Finished blocks are printed once and stay as they are. Only the block that is still being written
is drawn anew, some times a second, and never higher than the screen.
"""

import threading
from typing import ClassVar

from markdown_it import MarkdownIt
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.markdown import CodeBlock, Heading, Markdown, MarkdownElement
from rich.segment import Segment
from rich.syntax import Syntax
from rich.text import Text

DRAW_EVERY_S = 0.08
OPEN_BLOCK_CHARS = 8_000
"""Of a longer open block only the end is drawn, as plain text: parsing it again and again costs."""

# HTML is text like any other, and a picture is a link: nothing that was written is left out.
_PARSER = (
    MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"]).disable("image")
)


class _PlainHeading(Heading):
    """A heading at the left, which ends up in scroll-back and pipes as a line of text."""

    LEVEL_ALIGN: ClassVar = dict.fromkeys(Heading.LEVEL_ALIGN, "left")


class _PlainCode(CodeBlock):
    """Code on the terminal's own background; what is copied has no margin in it."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """See `CodeBlock`."""
        code = str(self.text).rstrip()
        yield Syntax(
            code, self.lexer_name, theme="ansi_dark", word_wrap=True, background_color="default"
        )


class _Block(Markdown):
    """Some Markdown of an answer; what it links to is shown."""

    elements: ClassVar[dict[str, type[MarkdownElement]]] = {
        **Markdown.elements,
        "heading_open": _PlainHeading,
        "fence": _PlainCode,
        "code_block": _PlainCode,
    }

    def __init__(self, text: str) -> None:
        super().__init__("", hyperlinks=False)
        self.parsed = _PARSER.parse(text)


class MarkdownWriter:
    """Writes a text that grows."""

    def __init__(self, console: Console) -> None:
        """Write to `console`, which must be a terminal."""
        self._console = console
        self._lock = threading.RLock()
        self._live: Live | None = None
        self._timer: threading.Timer | None = None
        self._printed = ""
        self._open = ""
        self._next_look = 0

    def write(self, text: str) -> None:
        """Write more of the text."""
        with self._lock:
            self._open += text
            if "\n" in text and len(self._open) >= self._next_look:
                self._print(_finished_blocks(self._open))
                # Not at every line of a long block: each look parses all of it.
                self._next_look = len(self._open) * 5 // 4
            if self._open.strip():
                self._draw_soon()

    def rewrite(self, text: str) -> bool:
        """Put `text` in the place of all that was written; False if too much of it is printed."""
        with self._lock:
            if not text.startswith(self._printed):
                return False
            self._open = ""
            self.write(text[len(self._printed) :])
            return True

    def pause(self) -> None:
        """Take away what is not printed yet, so that something else can be; `write` shows it."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._live is not None:
                self._live.stop()
                self._live = None

    def close(self) -> None:
        """Print what is left; what is written then is another text."""
        with self._lock:
            self.pause()
            self._print([*_finished_blocks(self._open), len(self._open)])
            self._printed = ""
            self._next_look = 0

    def draw(self) -> None:
        """Show what is open as it is now."""
        with self._lock:
            self._timer = None
            if self._live is not None:
                self._live.refresh()

    def _draw_soon(self) -> None:
        if self._live is None:
            # Without its own refreshing: that draws while something else is printed.
            self._live = Live(
                _Open(self),
                console=self._console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start(refresh=True)
        elif self._timer is None:
            self._timer = threading.Timer(DRAW_EVERY_S, self.draw)
            self._timer.daemon = True
            self._timer.start()

    def open_lines(self, options: ConsoleOptions) -> list[list[Segment]]:
        """The block that is still being written, as far as it fits on the screen."""
        text, others = self._open, self._printed
        large = len(text) > OPEN_BLOCK_CHARS
        shown = Text(text[-OPEN_BLOCK_CHARS:]) if large else _Block(text)
        lines = _lines(shown, self._console, options)
        gap: list[list[Segment]] = [[]] if others.strip() and lines else []
        return (gap + lines)[-max(1, options.max_height - 1) :]

    def _print(self, ends: list[int]) -> None:
        """Print the blocks that end at these places of what is open."""
        text, start = self._open, 0
        for end in ends:
            block, self._open = text[start:end], text[end:]
            if block.strip():
                gap = "\n" if self._printed.strip() else ""
                self._console.print(gap, _Closed(block), sep="", end="")
            self._printed += block
            start = end


class _Closed:
    """A block that is finished."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in _lines(_Block(self._text), console, options):
            yield from line
            yield Segment.line()


class _Open:
    """What a writer has not printed yet, each time as it is then."""

    def __init__(self, writer: MarkdownWriter) -> None:
        self._writer = writer

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for line in self._writer.open_lines(options):
            yield from line
            yield Segment.line()


def _lines(block: RenderableType, console: Console, options: ConsoleOptions) -> list[list[Segment]]:
    """The lines of a block, without blank ones around them."""
    lines = console.render_lines(block, options.update(height=None), pad=False)
    while lines and _is_blank(lines[0]):
        del lines[0]
    while lines and _is_blank(lines[-1]):
        del lines[-1]
    return lines


def _is_blank(line: list[Segment]) -> bool:
    return not any(segment.text.strip() for segment in line)


def _finished_blocks(text: str) -> list[int]:
    """Where blocks end after which another one has begun: they cannot change any more."""
    tokens = [token for token in _PARSER.parse(text) if token.level == 0]
    starts = {token.map[0] for token in tokens if token.map is not None}
    ends, at = [], 0
    for number, line in enumerate(text.split("\n")):
        if number in starts:
            ends.append(at)
        at += len(line) + 1
    return ends[1:]
