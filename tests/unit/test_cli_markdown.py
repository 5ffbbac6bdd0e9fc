"""Markdown on a terminal: however it comes in, the same text is left on the screen."""

import io
import re
from collections.abc import Iterable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from holdfast.cli import markdown
from holdfast.cli.markdown import MarkdownWriter
from tests.support.screen import farthest_up, lines_on

TEXT = """\
# Kelp

A *holdfast* anchors **kelp** [1], see `kelp.md` and <b>this</b>.

- one item that is long enough to be wrapped on a narrow screen
- 第二项：海带用固着器牢牢地抓住岩石，因此能在急流中生长。
  - nested

| Name | 名称 |
|---|---|
| Kelp | 海带 |

```python
def hold(rock):

    return "fast"  # 注释
```

> Quoted [2].

See [the site](https://kelp.example/a) ![picture](https://kelp.example/p.png).
"""
SHOWN = """\
Kelp

A holdfast anchors kelp [1], see kelp.md
and <b>this</b>.

 • one item that is long enough to be
   wrapped on a narrow screen
 • 第二项：海带用固着器牢牢地抓住岩石，
   因此能在急流中生长。
    • nested

 Name  名称
 ──────────
 Kelp  海带

def hold(rock):

    return "fast"  # 注释

▌ Quoted [2].

See the site (https://kelp.example/a)
!picture (https://kelp.example/p.png).
""".splitlines()


def written(
    pieces: Iterable[str], columns: int = 40, rows: int = 12, environ: dict[str, str] | None = None
) -> bytes:
    file = io.StringIO()
    console = Console(
        file=file, force_terminal=True, width=columns, height=rows, _environ=environ or {}
    )
    writer = MarkdownWriter(console)
    for piece in pieces:
        writer.write(piece)
        writer.draw()  # as often as it can be
    writer.close()
    return file.getvalue().encode()


def in_pieces(text: str, sizes: Sequence[int]) -> list[str]:
    pieces, at = [], 0
    for size in sizes:
        pieces.append(text[at : at + size])
        at += size
    return [*pieces, text[at:]]


def test_is_shown_as_what_it_means() -> None:
    assert lines_on(written([TEXT]), 40, 12) == SHOWN


@settings(max_examples=20)
@given(st.lists(st.integers(1, 60), max_size=40))
def test_is_the_same_in_any_pieces(sizes: list[int]) -> None:
    assert lines_on(written(in_pieces(TEXT, sizes)), 40, 12) == SHOWN


@pytest.mark.parametrize(("columns", "rows"), [(8, 3), (20, 2), (33, 10), (80, 5), (200, 50)])
def test_fits_on_any_screen(columns: int, rows: int) -> None:
    data = written(in_pieces(TEXT, [11] * 50), columns, rows)
    assert lines_on(data, columns, rows) == lines_on(written([TEXT], columns, 100), columns, 100)
    assert farthest_up(data) <= rows


def test_what_is_finished_is_not_drawn_again() -> None:
    text = "".join(f"Paragraph {n} has some words.\n\n" for n in range(60))
    data = written(in_pieces(text, [5] * 1000), 40, 24)
    assert farthest_up(data) <= 4
    after = data.partition(b"Paragraph 3 ")[2]
    assert b"Paragraph 0 " not in after


def test_of_a_long_block_the_end_is_shown_while_it_is_written() -> None:
    code = "```\n" + "".join(f"line {n}\n" for n in range(2_000))
    file = io.StringIO()
    writer = MarkdownWriter(Console(file=file, force_terminal=True, width=40, height=10))
    writer.write(code)
    writer.draw()
    seen = lines_on(file.getvalue().encode(), 40, 10)
    assert seen[-1] == "line 1999"
    assert len(seen) <= 9
    writer.close()
    all_lines = [f"line {n}" for n in range(2_000)]
    assert lines_on(file.getvalue().encode(), 40, 10) == all_lines


def test_a_long_block_costs_no_look_at_all_of_it_for_each_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked = 0
    look = markdown._finished_blocks

    def counted(text: str) -> list[int]:
        nonlocal looked
        looked += len(text)
        return look(text)

    monkeypatch.setattr(markdown, "_finished_blocks", counted)
    lines = [f"line {n}\n" for n in range(3_000)]
    console = Console(file=io.StringIO(), force_terminal=True)
    writer = MarkdownWriter(console)
    for line in ["```\n", *lines]:
        writer.write(line)
    writer.close()
    assert looked < 8 * sum(map(len, lines))


def test_a_pause_loses_nothing() -> None:
    file = io.StringIO()
    writer = MarkdownWriter(Console(file=file, force_terminal=True, width=40, height=12))
    for number, piece in enumerate(in_pieces(TEXT, [7] * 80)):
        writer.write(piece)
        if number % 5 == 0:
            writer.pause()
    writer.close()
    assert lines_on(file.getvalue().encode(), 40, 12) == SHOWN


def test_a_rewriting_changes_what_is_not_printed_yet() -> None:
    file = io.StringIO()
    writer = MarkdownWriter(Console(file=file, force_terminal=True, width=40, height=12))
    writer.write("One.\n\nTwo")
    assert writer.rewrite("One.\n\nTwo [1].")
    assert not writer.rewrite("Other.")
    writer.close()
    assert lines_on(file.getvalue().encode(), 40, 12) == ["One.", "", "Two [1]."]


def test_what_comes_after_the_end_is_another_text() -> None:
    file = io.StringIO()
    writer = MarkdownWriter(Console(file=file, force_terminal=True, width=40, height=12))
    for text in ("One.", "Two."):
        writer.write(text)
        writer.close()
    writer.close()
    assert lines_on(file.getvalue().encode(), 40, 12) == ["One.", "Two."]


def test_nothing_is_nothing() -> None:
    for text in ("", "\n", " \n\n \n"):
        assert lines_on(written([text]), 40, 12) == []


def test_without_colour_there_is_none() -> None:
    coloured = re.compile(rb"\x1b\[[0-9;]*(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])[0-9;]*m")
    terminal = {"TERM": "xterm-256color"}
    assert coloured.search(written([TEXT], environ=terminal))
    assert not coloured.search(written([TEXT], environ={**terminal, "NO_COLOR": "1"}))


@pytest.mark.parametrize(
    "text",
    [
        "a\u2028b\n\nc\n",
        "[1]: https://x.example\n\n[1]\n",
        "***\n\n- - -\n\n# \n",
        "```\nno end\n\n# still code",
        "1. a\n\n   b\n\n2. c\n\n       code\n",
        "<script>alert(1)</script>\n\n<!-- a -->\n",
        "| a |\n|---|\n",
        "Title\n=====\n\ntext",
        "\\[x\\] $a_1$ **not closed",
        "👩‍👩‍👧 é 海" * 30,
    ],
)
def test_odd_text_is_shown_alike_in_pieces(text: str) -> None:
    whole = lines_on(written([text], 30), 30, 12)
    for size in (1, 2, 5):
        assert lines_on(written(in_pieces(text, [size] * len(text)), 30), 30, 12) == whole
