"""The programs in docs/howto/python.md, and that in README, run as they are."""

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.raw_client import GIVE_UP_S
from tests.support.server import Deployment

PROJECT = Path(__file__).parents[2]
PAGE = PROJECT / "docs" / "howto" / "python.md"
PYTHON = re.compile(r"```python\n(.*?)```", re.DOTALL)
PROGRAMS = [
    *PYTHON.findall(PAGE.read_text(encoding="utf-8")),
    *(
        program
        for program in PYTHON.findall((PROJECT / "README.md").read_text(encoding="utf-8"))
        if "holdfast.client" in program
    ),
]


async def output(program: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-c", program),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    async with asyncio.timeout(2 * GIVE_UP_S):
        out, err = await process.communicate()
    assert (process.returncode, err) == (0, b"")
    return out.decode()


async def test_the_programs_run(tmp_path: Path) -> None:
    assert len(PROGRAMS) >= 5
    async with Deployment(tmp_path) as site:
        for program in PROGRAMS:
            assert "http://127.0.0.1:8484" in program
            shown = await output(program.replace("http://127.0.0.1:8484", site.server.url))
            assert "Kelp holds fast." in shown or "print" not in program or "event" in program


def test_the_table_of_waits_says_the_defaults() -> None:
    from inspect import signature

    from holdfast.client import AsyncClient

    defaults = signature(AsyncClient).parameters
    text = PAGE.read_text(encoding="utf-8")
    for name in ("patience_s", "silence_s"):
        assert f"`{name}` ({defaults[name].default:.0f})" in text


@pytest.mark.parametrize("name", ["patience_s", "silence_s", "wait_for_server", "on_wait"])
def test_every_setting_is_described(name: str) -> None:
    assert f"`{name}" in PAGE.read_text(encoding="utf-8")
