"""A node: where it is, how it is started and ended, and how it is asked."""

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from tests.cluster.clients import HOST, request
from tests.faults.processes import Child, Stuck, wait_until
from tests.faults.wire import Response, read_responses
from tests.support.pg_proxy import PgProxy

HEARTBEAT_S: Final = 0.4
MARGIN_S: Final = 15.0
"""What a busy machine may take on top of any time that is promised."""
START_S: Final = 40.0
GRACE_S: Final = 40
ANSWER_S: Final = 20.0
FOLDER_BYTES: Final = "256k"
CONTROL: Final = "holdfast control "


class Temper(NamedTuple):
    """How long nodes wait for each other and for the database."""

    lease_s: float
    patience_s: float


IMPATIENT: Final = Temper(2.0, 5.0)
"""What is gone is noticed soon."""
PATIENT: Final = Temper(5.0, 30.0)
"""The database may be away for longer than a lease."""
CALM: Final = Temper(15.0, 30.0)
"""No pause of a busy machine is taken for a fault."""

_CONFIG: Final = """
[server]
port = {port}
shutdown_grace_s = {grace}

[storage]
url = {url}
store_patience_s = {patience}

[node]
heartbeat_s = {heartbeat}
lease_s = {lease}

[stream]
heartbeat_s = 0.5

[upstreams.scripted]
kind = "openai"
base_url = {upstream}
api_key = "x"
model = "m"
"""


class Node:
    """A place in the cluster: an address, a folder and a proxy; processes come and go."""

    def __init__(self, name: str, port: int, proxy: PgProxy, folder: Path, *, skew_s: int) -> None:
        self.name = name
        self.port = port
        self.proxy = proxy
        self.folder = folder
        self.logs: list[Path] = []
        self.exit_codes: list[int] = []
        """Of the processes that were asked to go."""
        self._child: Child | None = None
        self._mounted = False
        self._skew_s = skew_s

    def prepare(
        self, upstream: str, temper: Temper, mutant: str | None, *, small_disk: bool
    ) -> None:
        """Make the folder and the configuration."""
        self.folder.mkdir()
        if small_disk:
            self._mounted = mount(self.folder)
        config = self.folder / "holdfast.toml"
        config.write_text(
            _CONFIG.format(
                port=self.port,
                grace=GRACE_S,
                url=json.dumps(self.proxy.url),
                patience=temper.patience_s,
                heartbeat=HEARTBEAT_S,
                lease=temper.lease_s,
                upstream=json.dumps(upstream),
            )
        )
        self._command = [
            *("env", "-C", str(self.folder), f"TMPDIR={self.folder}"),
            *(sys.executable, "-m", "tests.cluster.process", str(config), str(self._skew_s)),
            *([mutant] if mutant else []),
        ]

    def start(self) -> None:
        """Start a process; `wait_ready` says when it takes questions."""
        assert self._child is None
        self.proxy.names.clear()
        log = self.folder / f"{len(self.logs) + 1}.log"
        self.logs.append(log)
        self._child = Child(self._command, log)

    @property
    def child(self) -> Child:
        assert self._child is not None
        return self._child

    @property
    def node_id(self) -> str:
        """The id of the process, from the name of its control connection."""
        return next(
            name.removeprefix(CONTROL)
            for name in reversed(self.proxy.names)
            if name.startswith(CONTROL)
        )

    def ready(self) -> bool:
        try:
            return ask(self.port, request("GET", "/readyz")).status == 200
        except OSError:
            return False

    def wait_ready(self) -> None:
        def ready() -> bool:
            if not self.child.running:
                raise Stuck(f"node {self.name} ended by itself, see {self.child.log}")
            return self.ready()

        wait_until(ready, START_S, f"node {self.name}")

    def kill(self) -> None:
        """End the process at once."""
        self.child.close()
        self._child = None

    def terminate(self) -> None:
        """Let the process go in good order."""
        self.child.send(signal.SIGTERM)
        self.exit_codes.append(self.child.wait(GRACE_S + MARGIN_S))
        self.kill()

    @property
    def running(self) -> bool:
        return self._child is not None

    def fill_disk(self) -> None:
        """Leave no room in its folder; on a file system of its own if that can be had."""
        if self._mounted:
            with contextlib.suppress(OSError), (self.folder / "ballast").open("wb") as file:
                while True:
                    file.write(bytes(4096))
                    file.flush()
        else:
            self._limit_files("0")

    def free_disk(self) -> None:
        """Make room again."""
        if self._mounted:
            (self.folder / "ballast").unlink()
        else:
            self._limit_files("unlimited")

    def _limit_files(self, size: str) -> None:
        command = ["prlimit", "--pid", str(self.child.pid), f"--fsize={size}:unlimited"]
        subprocess.run(command, check=True)

    def close(self) -> None:
        if self._child is not None:
            self.kill()
        if self._mounted:
            logs = [(log, log.read_bytes()) for log in self.logs if log.exists()]
            unmount(self.folder)
            for log, text in logs:
                log.write_bytes(text)


def mount(folder: Path) -> bool:
    """Give a folder a small file system of its own; whether that could be done."""
    if shutil.which("mount") is None:
        return False
    command = ["mount", "-t", "tmpfs", "-o", f"size={FOLDER_BYTES}", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def unmount(folder: Path) -> None:
    """Take it away again."""
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def ask(port: int, data: bytes) -> Response:
    """The answer to a request.

    Raises:
        OSError: There is none, or it does not come to its end in time.
    """
    raw = b"".join(_receive(port, data))
    return (read_responses(raw) or [Response(0, {}, b"", whole=False)])[0]


def _receive(port: int, data: bytes) -> Iterator[bytes]:
    give_up = time.monotonic() + ANSWER_S
    with socket.create_connection((HOST, port), timeout=ANSWER_S) as link:
        link.sendall(data)
        while part := link.recv(262_144):
            yield part
            if time.monotonic() > give_up:
                raise TimeoutError("its end does not come")
