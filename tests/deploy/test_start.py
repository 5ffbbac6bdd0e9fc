"""A node starts with the example's settings, and not without keys where others can reach it."""

import asyncio
import os
import sys
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from tests.deploy.site import DEPLOY
from tests.support.raw_client import POLL_S, Client
from tests.support.server import START_S

pytestmark = pytest.mark.timeout(180)

KEY = "k" * 16


def environment(url: str, **more: str) -> dict[str, str]:
    """That of a node in the Compose file, with another database and any port."""
    services = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())["services"]
    given = dict.fromkeys(services["node-a"]["environment"], "")
    known = {
        "HOLDFAST_SERVER__HOST": services["node-a"]["environment"]["HOLDFAST_SERVER__HOST"],
        "HOLDFAST_DATABASE_URL": url,
        "HOLDFAST_API_KEYS": f"alice:{KEY}",
        "OPENAI_API_KEY": "sk",
    }
    assert set(known) == set(given)
    return {"PATH": os.environ["PATH"], "HOLDFAST_SERVER__PORT": "0", **known, **more}


async def start(folder: Path, variables: dict[str, str]) -> tuple[asyncio.subprocess.Process, Path]:
    log = folder / "log"
    command = [sys.executable, "-m", "holdfast.cli", "serve"]
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command, "--config", str(DEPLOY / "holdfast.toml"),
            cwd=folder, env=variables, stdout=output, stderr=output,
        )  # fmt: skip
    return process, log


class Node(Client):
    """A node on any port."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"


async def test_it_takes_questions_of_those_who_have_a_key(
    tmp_path: Path, postgres_url: str
) -> None:
    process, log = await start(tmp_path, environment(postgres_url))
    try:
        async with asyncio.timeout(START_S):
            while "Holdfast at " not in (text := log.read_text()) or "\n" not in text:
                assert process.returncode is None, text
                await asyncio.sleep(POLL_S)
        address = text.partition("Holdfast at ")[2].partition(",")[0]
        node = Node(int(address.rpartition(":")[2]))
        assert address.startswith("http://0.0.0.0:")
        assert (await node.get("/readyz")).status == 200
        assert (await node.get("/api/v1/sessions")).status == 401
        assert (await node.get("/api/v1/sessions", Authorization=f"Bearer {KEY}")).json == {
            "items": [],
            "next": None,
        }
        process.terminate()
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_it_does_not_start_without_keys(tmp_path: Path, postgres_url: str) -> None:
    process, log = await start(tmp_path, environment(postgres_url, HOLDFAST_API_KEYS=""))
    try:
        async with asyncio.timeout(START_S):
            assert await process.wait() != 0
        assert "there is no key" in log.read_text()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
