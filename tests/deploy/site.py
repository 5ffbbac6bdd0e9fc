"""Two nodes on one PostgreSQL behind nginx, with the settings of `deploy/`."""

import asyncio
import contextlib
import os
import random
import shutil
import signal
import subprocess
import tomllib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final

import pytest

from tests.faults.rounds import free_port
from tests.support.raw_client import GIVE_UP_S, POLL_S, Client
from tests.support.server import Deployment, Server

DEPLOY: Final = Path(__file__).parent.parent.parent / "deploy"
EXAMPLE_PORTS: Final = ("8484", "8485")

_AROUND: Final = """
daemon off;
{user}
pid {folder}/nginx.pid;
error_log {folder}/error.log;
worker_processes 2;
events {{ worker_connections 256; }}
http {{
    log_format served '$request_method $uri $status $upstream_addr';
    access_log {folder}/access.log served;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/upstream.conf;
    include {folder}/holdfast.conf;
}}
"""


def find_nginx() -> str:
    """The program; the tests of the example need it."""
    program = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin:/usr/local/sbin")
    if program is None:
        pytest.fail("nginx is not installed; on Debian: apt-get install nginx", pytrace=False)
    return program


class Nginx(Client):
    """Debian's nginx with the example's files; only the ports are others."""

    def __init__(self, folder: Path, port: int, node_ports: tuple[int, int]) -> None:
        """Write the settings."""
        self.url = f"http://127.0.0.1:{port}"
        self._folder = folder
        user = "user root;" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(_AROUND.format(folder=folder, user=user))
        self._copy("holdfast.conf", {"listen 80;": f"listen 127.0.0.1:{port};"})
        ports = dict(zip(EXAMPLE_PORTS, map(str, node_ports), strict=True))
        self._copy("upstream.conf", {f":{old} ": f":{new} " for old, new in ports.items()})

    def _copy(self, name: str, replaced: dict[str, str]) -> None:
        text = (DEPLOY / "nginx" / name).read_text()
        for old, new in replaced.items():
            assert text.count(old) == 1, (name, old)
            text = text.replace(old, new)
        (self._folder / name).write_text(text)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run it for the time of the block."""
        command = [find_nginx(), "-p", str(self._folder), "-c", str(self._folder / "nginx.conf")]
        with (self._folder / "output").open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)  # at once, with its children
            process.wait(GIVE_UP_S)

    async def ready(self) -> None:
        """Wait until it takes connections."""
        async with asyncio.timeout(GIVE_UP_S):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.transport.abort()
                    return
                await asyncio.sleep(POLL_S)

    def served(self, method: str, path: str) -> list[tuple[int, list[int]]]:
        """Status and the ports of the nodes that were tried, for each such request that ended."""
        lines = (self._folder / "access.log").read_text().splitlines()
        asked = (line.split(" ", 3) for line in lines)
        return [
            (int(status), [int(node.rpartition(":")[2]) for node in nodes.split(", ")])
            for found_method, found_path, status, nodes in asked
            if (found_method, found_path) == (method, path)
        ]


class Site:
    """The nodes share an upstream, whose scripts the first one has.

    Attributes:
        nodes: Each with its server; a restart is on the same port.
        nginx: What clients talk to.
    """

    def __init__(self, folder: Path, url: str, **sections: Any) -> None:
        """Prepare two nodes on the database `url`."""
        choose = random.Random(str(folder))
        ports = (free_port(choose), free_port(choose))
        self.nodes = [self._node(folder / str(port), port, url, sections) for port in ports]
        self.nodes[1].upstream = self.nodes[0].upstream
        (folder / "nginx").mkdir()
        self.nginx = Nginx(folder / "nginx", free_port(choose), ports)

    def _node(self, folder: Path, port: int, url: str, sections: dict[str, Any]) -> Deployment:
        folder.mkdir()
        example = tomllib.loads((DEPLOY / "holdfast.toml").read_text())["server"]
        server = {**example, "port": port}
        node = {"heartbeat_s": 0.5, "lease_s": 30, **sections.get("node", {})}
        return Deployment(folder, server=server, node=node, storage={"url": url})

    @property
    def scripts(self) -> Deployment:
        """Where answers are scripted."""
        return self.nodes[0]

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Site"]:
        """Run everything for the time of the block."""
        first, second = self.nodes
        async with first:
            second.server = second.make_server()
            await second.server.__aenter__()
            try:
                with self.nginx.running():
                    await self.nginx.ready()
                    yield self
            finally:
                await second.server.__aexit__(None, None, None)

    async def owner_of(self, run_id: str) -> Deployment:
        """The node that executes a run, which is the only one that is live."""
        for node in self.nodes:
            if (await node.server.get("/healthz")).json["live_runs"]:
                return node
        raise AssertionError(f"nobody executes {run_id}")

    def other(self, node: Deployment) -> Deployment:
        """The other node."""
        return self.nodes[1 - self.nodes.index(node)]


def port_of(node: Deployment) -> int:
    """Where a node listens."""
    return node.server.port


async def kill(server: Server) -> None:
    """End a node at once."""
    server.signal(signal.SIGKILL)
    await server.exit()
