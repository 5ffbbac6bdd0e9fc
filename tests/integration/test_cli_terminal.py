"""`holdfast ask` and `holdfast show` on a terminal: what a person sees on the screen in the end."""

import asyncio
import fcntl
import os
import pty
import re
import struct
import termios
from pathlib import Path

import pytest

from holdfast.events import (
    Event,
    Notice,
    Outcome,
    Reason,
    ReasoningDelta,
    Reference,
    References,
    RunEnd,
    RunStart,
    Step,
    TextDelta,
)
from tests.support.command import Command
from tests.support.native_server import frames, in_turn, message_object, session_object
from tests.support.raw_client import eventually
from tests.support.screen import farthest_up, lines_on
from tests.support.upstream_server import ScriptedUpstream, Wire, stream, whole

TEXT = """\
# Kelp

A *holdfast* anchors **kelp** [1].

- 海带用固着器牢牢地抓住岩石，因此能在急流中生长。
- two

```
root  here
```

The end [2].
"""
SOURCES = (
    Reference(1, document_name="海带手册.md", text="海带用固着器抓住岩石。" * 3, score=0.873),
    Reference(2, document_name="b.md", url="https://kelp.example/b"),
)
EVENTS: list[Event] = [
    RunStart("r", "s", "m", "q", "docs"),
    ReasoningDelta("Let me "),
    ReasoningDelta("think."),
    Step("searching"),
    References(SOURCES),
    *[TextDelta(TEXT[at : at + 9]) for at in range(0, 72, 9)],
    Notice("local", "cloud is down"),
    *[TextDelta(TEXT[at : at + 9]) for at in range(72, len(TEXT), 9)],
    RunEnd(Outcome.INTERRUPTED, Reason.UPSTREAM_ERROR, error="boom"),
]
ANSWER = """\
Kelp

A holdfast anchors kelp [1].

 • 海带用固着器牢牢地抓住岩石，因此能在
   急流中生长。
 • two

root  here

The end [2].

References
[1] 海带手册.md
    海带用固着器抓住岩石。海带用固着器抓
    住岩石。海带用固着器抓住岩石。
    score 0.87
[2] b.md
    https://kelp.example/b
The answer is not complete
""".splitlines()
COLOUR = re.compile(rb"\x1b\[[0-9;]*(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])[0-9;]*m")


async def shown(folder: Path, *arguments: str, columns: int = 40, **environ: str) -> bytes:
    """Run a command on a terminal of its own; all that it wrote to it."""
    controller, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 12, columns, 0, 0))
    environ = {"TERM": "xterm-256color", **environ}
    reading = asyncio.create_task(asyncio.to_thread(_read_all, controller))
    with os.fdopen(terminal, "wb") as tty:
        command = Command(*arguments, folder=folder, environ=environ, out=tty, err=tty)
        async with command as running:
            await running.done()
    data = await reading
    os.close(controller)
    return data


def _read_all(controller: int) -> bytes:
    data = b""
    try:
        while piece := os.read(controller, 65536):
            data += piece
    except OSError:  # the other side is closed
        pass
    return data


def scripted() -> ScriptedUpstream:
    return ScriptedUpstream(stream(*frames("r", EVENTS)))


async def _exists(path: Path) -> bool | None:
    return path.exists() or None  # noqa: ASYNC240


async def test_the_answer_is_read_as_it_is_meant(tmp_path: Path) -> None:
    async with scripted() as server:
        data = await shown(tmp_path, "ask", "What?", "--url", server.base_url)
    lines = lines_on(data, 40, 12)
    assert lines[:2] == ["Let me think.", "searching"]
    notice = lines.index("cloud is down")
    before, after = lines[2:notice], lines[notice + 1 :]
    while after and not after[0] and before[-1:] != [""]:
        before.append(after.pop(0))
    text = [*before, *after]
    at = text.index("The answer is not complete (upstream_err")
    assert text[:at] == ANSWER[:-1]
    assert text[at + 1] == "or: boom)."
    assert farthest_up(data) < 12
    assert COLOUR.search(data)
    assert b"\x1b[?25h" in data.rpartition(b"\x1b[?25l")[2], "the cursor is hidden in the end"


async def test_without_colour_there_is_none(tmp_path: Path) -> None:
    async with scripted() as server:
        data = await shown(tmp_path, "ask", "What?", "--url", server.base_url, NO_COLOR="1")
    assert not COLOUR.search(data)
    assert "Kelp" in lines_on(data, 40, 12)


async def test_a_terminal_that_can_do_nothing_gets_plain_text(tmp_path: Path) -> None:
    async with scripted() as server:
        data = await shown(tmp_path, "ask", "What?", "--url", server.base_url, TERM="dumb")
    assert b"\x1b" not in data
    assert b"# Kelp\r\n\r\nA *holdfast* anchors **kelp** [1].\r\n" in data


@pytest.mark.parametrize("columns", [12, 25])
async def test_a_narrow_one_loses_nothing(columns: int, tmp_path: Path) -> None:
    async with scripted() as server:
        data = await shown(tmp_path, "ask", "What?", "--url", server.base_url, columns=columns)
    letters = re.sub(r"\W", "", "".join(lines_on(data, columns, 12)))
    for words in ("holdfastanchorskelp", "海带用固着器牢牢地抓住岩石因此能在急流中生长"):
        assert words in letters
    assert letters.index("two") < letters.index("roothere") < letters.index("Theend2")


async def test_ctrl_c_shows_what_there_is_and_gives_the_terminal_back(tmp_path: Path) -> None:
    hanging = stream(*frames("r", [EVENTS[0], TextDelta("One.\n\nTwo is")]), end=[Wire.STALL])
    controller, terminal = pty.openpty()
    async with ScriptedUpstream(hanging) as server:
        reading = asyncio.create_task(asyncio.to_thread(_read_all, controller))
        arguments = ("ask", "What?", "--url", server.base_url)
        with os.fdopen(terminal, "wb") as tty:
            environ = {"TERM": "xterm"}
            command = Command(*arguments, folder=tmp_path, environ=environ, out=tty, err=tty)
            async with command as asking:
                await eventually(lambda: _exists(tmp_path / "state" / "holdfast" / "last.json"))
                asking.process.send_signal(2)
                done = await asking.done()
    data = await reading
    os.close(controller)
    assert done.code == 130
    assert b"\x1b[?25h" in data.rpartition(b"\x1b[?25l")[2] or b"\x1b[?25l" not in data
    assert b"holdfast ask --resume r" in data


async def test_a_session_is_shown_alike(tmp_path: Path) -> None:
    references = [{"ordinal": 2, "document_name": "b.md", "url": "https://kelp.example/b"}]
    answer = {"role": "assistant", "upstream": "docs", "content": TEXT, "references": references}
    page = {"items": [message_object(), message_object(**answer, outcome="completed")]}
    scripts = whole(session_object(title="Kelp")), whole({**page, "next": None})
    async with ScriptedUpstream(in_turn(*scripts)) as server:
        data = await shown(tmp_path, "show", "s", "--url", server.base_url)
    lines = lines_on(data, 40, 12)
    assert lines[:5] == ["Kelp", "", "Question, T1", "What?", ""]
    assert lines[5:18] == ["Answer (docs), T1", *ANSWER[:12]]
    assert lines[18:] == ["References", "[2] b.md", "    https://kelp.example/b"]
