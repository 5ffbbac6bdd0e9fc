"""What is measured: one table of command lines. A new target is one more entry."""

import random
import shutil
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.process import BenchError, Process

HERE = Path(__file__).parent
READY_S = 30

_HOLDFAST_CONFIG = """
[server]
port = {port}

[storage]
url = "{database_url}"
synchronous = "SYNCHRONOUS"

[router]
default = "bench"

[upstreams.bench]
kind = "openai"
base_url = "http://127.0.0.1:{upstream_port}/v1"
api_key = "bench"
model = "bench"
"""


@dataclass(frozen=True)
class Target:
    """A server between the generator and the upstream.

    `command` and `config` are templates with `{python}`, `{bench}` (this folder), `{bin}` (that of
    the Python running), `{port}`, `{upstream_port}`, `{directory}` (data, thrown away after) and
    `{database_url}`.
    """

    name: str
    command: tuple[str, ...]
    """Empty: no server, the generator talks to the upstream itself."""
    config: str = ""
    """Written to `{directory}/holdfast.toml`."""
    wire: Literal["openai", "native"] = "openai"
    has_goal: bool = False
    database: Literal["none", "sqlite", "postgres"] = "none"
    loads: tuple[str, ...] = ()
    """The loads that it takes part in; empty: all."""

    @property
    def path(self) -> str:
        return "/api/v1/runs" if self.wire == "native" else "/v1/chat/completions"

    def takes_part(self, load: str, measure: str) -> bool:
        """Whether it can be put under this load."""
        if measure == "memory" and not self.command:
            return False
        return not self.loads or load in self.loads

    def missing(self) -> str | None:
        """The program that is not there, if one is not."""
        program = self.command[0].format(**self._values(0, 0, Path(), "")) if self.command else ""
        return program if program and shutil.which(program) is None else None

    def start(
        self, upstream_port: int, directory: Path, database_url: str | None = None
    ) -> tuple[Process, int]:
        """The server as it starts, and its port; without a URL its data are in a file."""
        port = free_port()
        database_url = database_url or f"sqlite:///{directory}/holdfast.db"
        values = self._values(port, upstream_port, directory, database_url)
        if self.config:
            (directory / "holdfast.toml").write_text(self.config.format(**values))
        command = [part.format(**values) for part in self.command]
        return Process(command, directory, "target"), port

    def _values(
        self, port: int, upstream_port: int, directory: Path, database_url: str
    ) -> dict[str, object]:
        return {
            "python": sys.executable,
            "bench": HERE,
            "bin": Path(sys.executable).parent,
            "port": port,
            "upstream_port": upstream_port,
            "directory": directory,
            "database_url": database_url,
        }


_HOLDFAST_COMMAND = ("{bin}/holdfast", "serve", "--config", "{directory}/holdfast.toml")

DIRECT = Target("direct", ())
RELAY = Target("relay", ("{python}", "{bench}/relay.py", "{port}", "{upstream_port}"))
POSTGRES = Target(
    "holdfast pg",
    _HOLDFAST_COMMAND,
    config=_HOLDFAST_CONFIG.replace("SYNCHRONOUS", "full"),
    wire="native",
    database="postgres",
    loads=("paced64", "flood", "short", "ttft", "paced64x4"),
)
TARGETS = (
    DIRECT,
    RELAY,
    Target("fastapi+httpx", ("{python}", "{bench}/fastapi_httpx.py", "{port}", "{upstream_port}")),
    Target(
        "holdfast",
        _HOLDFAST_COMMAND,
        config=_HOLDFAST_CONFIG.replace("SYNCHRONOUS", "full"),
        wire="native",
        has_goal=True,
        database="sqlite",
    ),
    Target(
        "holdfast normal",
        _HOLDFAST_COMMAND,
        config=_HOLDFAST_CONFIG.replace("SYNCHRONOUS", "normal"),
        wire="native",
        has_goal=True,
        database="sqlite",
    ),
    POSTGRES,
)


def free_port() -> int:
    """A port nobody listens on, outside the range the kernel gives to outgoing connections.

    Inside it the benchmark's own sockets could take the port before the target does.
    """
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    choices = [port for port in range(10_000, 65_000) if not low <= port <= high]
    for port in random.sample(choices or range(low, high), 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise BenchError("no free port on 127.0.0.1")


def wait_ready(server: Process, port: int) -> None:
    """Returns when the server accepts connections."""
    end = time.monotonic() + READY_S
    while time.monotonic() < end and not server.ended():
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise BenchError(f"does not listen\n{server.log_tail()}")
