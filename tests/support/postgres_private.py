"""A database cluster in a temporary folder, from installed binaries."""

import os
import pwd
import random
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

KEEPER: Final = Path(__file__).with_name("postgres_keeper.py")
SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "300",
    "shared_buffers": "64MB",
    "timezone": "UTC",
    "dynamic_shared_memory_type": "mmap",
}
FAST: Final = {"fsync": "off", "full_page_writes": "off"}
"""Enough for the death of processes: the kernel has what they wrote."""
HELP: Final = (
    "tests need PostgreSQL: on Debian apt-get install postgresql,"
    " or set HOLDFAST_TEST_POSTGRES_URL to a server where they may create databases"
)
ROOM: Final = 4 * 1024**3
ATTEMPTS: Final = 5
PATIENCE_S: Final = 60


class NoPostgres(Exception):
    """There is no PostgreSQL, and none can be had."""


class PrivateCluster:
    """A cluster that is gone, with its folder, when it is closed or when this process ends.

    A child process, the keeper, sees to the latter: it waits for the end of its standard input.

    Attributes:
        url: Its maintenance database.
        log: What the server says.
    """

    url: str
    log: Path

    def __init__(self, *, durable: bool) -> None:
        """Prepare; nothing is made yet."""
        self._durable = durable
        self._keeper: subprocess.Popen[bytes] | None = None
        self._account: dict[str, Any] = _account()

    @property
    def pid(self) -> int:
        """The process that all others come from, while it runs."""
        return int((self._data / "postmaster.pid").read_text().split("\n", 1)[0])

    def create(self) -> None:
        """Make the cluster and start it."""
        self._binaries = find_binaries()
        parent = None if self._durable else _memory()
        self._folder = Path(tempfile.mkdtemp(prefix="holdfast-postgres-", dir=parent))
        self._keeper = self._keep()
        self._data = self._folder / "data"
        self.log = self._folder / "log"
        if self._account:
            os.chown(self._folder, self._account["user"], self._account["group"])
        self._call("initdb", "--username=postgres", "--auth=trust", "--encoding=UTF8",
                   "--locale=C", "--no-sync", "-D", self._data)  # fmt: skip
        for attempt in range(1, ATTEMPTS + 1):
            self._configure(_free_port())
            try:
                return self.start()
            except NoPostgres:
                if attempt == ATTEMPTS:
                    raise

    def start(self) -> None:
        """Start the server; it takes connections when this returns."""
        self._control("start", "-l", self.log)

    def stop(self, mode: str) -> None:
        """Stop the server and wait for its end."""
        self._control("stop", "-m", mode)

    def close(self) -> None:
        """Stop the server if it runs, and delete everything; safe to call twice."""
        if self._keeper is not None:
            self._keeper.communicate()
            self._keeper = None

    def _keep(self) -> subprocess.Popen[bytes]:
        """Start the keeper; the signals of a terminal do not reach it."""
        pg_ctl = self._binaries / "pg_ctl"
        command = [sys.executable, "-S", "-E", str(KEEPER), str(self._folder), str(pg_ctl)]
        return subprocess.Popen(
            command, cwd="/", stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip

    def _configure(self, port: int) -> None:
        settings = {
            **SETTINGS,
            **({} if self._durable else FAST),
            "port": str(port),
            "unix_socket_directories": str(self._folder),
        }
        lines = [f"{name} = '{value}'\n" for name, value in settings.items()]
        with (self._data / "postgresql.auto.conf").open("w") as file:
            file.writelines(lines)
        self.url = f"postgresql://postgres@127.0.0.1:{port}/postgres"

    def _control(self, *words: str | Path) -> None:
        self._call("pg_ctl", *words, "-D", self._data, "-s", "-w", "-t", str(PATIENCE_S))

    def _call(self, program: str, *words: str | Path) -> None:
        """Run a program of PostgreSQL under an account that it accepts."""
        output = self._folder / "output"
        with output.open("wb") as file:
            done = subprocess.run(
                [self._binaries / program, *words], cwd=self._folder, check=False,
                stdin=subprocess.DEVNULL, stdout=file, stderr=file,
                start_new_session=True, **self._account,
            )  # fmt: skip
        if done.returncode:
            said = output.read_text(errors="replace") + self._log_end()
            raise NoPostgres(f"{program} {words[0]}: " + " ".join(said.split()))

    def _log_end(self) -> str:
        return self.log.read_text(errors="replace")[-500:] if self.log.exists() else ""


def find_binaries() -> Path:
    """The folder that has `initdb` and `postgres`; they are installed if need be.

    Raises:
        NoPostgres: There are none, and they cannot be installed.
    """
    found = _installed()
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        _install()
        found = _installed()
    if found is None:
        raise NoPostgres(HELP)
    return found


def _installed() -> Path | None:
    versions = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = sorted(versions, key=lambda file: float(file.parts[-3]), reverse=True)
    in_path = shutil.which("initdb")
    candidates = [file.parent for file in newest]
    if in_path:
        candidates.append(Path(in_path).resolve().parent)
    return next((folder for folder in candidates if (folder / "postgres").exists()), None)


def _install() -> None:
    """Install Debian's package; its own cluster is neither made nor started."""
    print("Installing PostgreSQL for tests ...", file=sys.stderr)
    setting = Path("/etc/postgresql-common/createcluster.d/holdfast-tests.conf")
    setting.parent.mkdir(parents=True, exist_ok=True)
    setting.write_text("create_main_cluster = false\n")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        for words in (["update"], ["install", "--yes", "--no-install-recommends", "postgresql"]):
            command = ["apt-get", "-qq", *words]
            done = subprocess.run(command, env=environment, capture_output=True, check=False)
            if done.returncode:
                said = done.stderr.decode(errors="replace").split()
                raise NoPostgres(f"{HELP} ({' '.join(command)}: {' '.join(said)[-300:]})")
    finally:
        setting.unlink()


def _account() -> dict[str, Any]:
    """Whom the server runs as: PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise NoPostgres("PostgreSQL does not run as root, and there is no other account for it")


def _memory() -> Path | None:
    """A file system in memory with room enough; there a new database costs a tenth."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK | os.X_OK) or shutil.disk_usage(memory).free < ROOM:
        return None
    return memory


def _free_port() -> int:
    """A port that is free, and that no outgoing connection takes while the server is down."""
    lowest = 32_768
    ports = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if ports.exists():
        lowest = int(ports.read_text().split()[0])
    choices = range(10_000, max(lowest, 12_000))
    for port in random.SystemRandom().sample(choices, 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise NoPostgres("no port of the loopback is free")
