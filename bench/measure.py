"""One measurement: a fresh upstream and target, a warm-up, a load, and what it cost."""

import json
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.loads import WARM_UP, Load
from bench.postgres import Database, DatabaseReading
from bench.process import BenchError, Process
from bench.targets import HERE, Target, wait_ready

# What a target still does after its last byte belongs to the answers, too.
SETTLE_S = 0.3


@dataclass(frozen=True)
class Result:
    """What one load on one target gave; None where it has no meaning."""

    round: int
    load: str
    target: str
    chunks: int
    answers: int
    whole: int
    """Answers that arrived complete, in order and with their ending."""
    fault: str
    """What was wrong with the first answer that was not whole."""
    latency_ms: tuple[float, float]
    """From written by the upstream to read by the generator, p50 and p99."""
    first_ms: tuple[float, float]
    """From the question to the first chunk, p50 and p99."""
    wall_s: float
    tools_cpu_us: float
    """Generator and upstream together."""
    cpu_us: float | None = None
    peak_mib: float | None = None
    commits: int | None = None
    stream_kib: float | None = None
    database_cpu_us: float | None = None
    """PostgreSQL's own."""
    wal_bytes: int | None = None

    @property
    def complete(self) -> bool:
        return self.whole == self.answers


@dataclass(frozen=True)
class Tools:
    """The compiled upstream and load generator."""

    upstream: Path
    load: Path

    @classmethod
    def build(cls, compiler: str, directory: Path) -> "Tools":
        if shutil.which(compiler) is None:
            raise BenchError(f"needs a C compiler for its load generator; no `{compiler}` found")
        tools = cls(directory / "upstream", directory / "load")
        for program in (tools.upstream, tools.load):
            source = HERE / "c" / f"{program.name}.c"
            command = [compiler, "-O2", "-o", str(program), str(source)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=120)
            if done.returncode:
                raise BenchError(f"cannot build {source.name}\n{done.stderr[-2000:]}")
        return tools

    def ask(self, load: Load, target: Target, port: int, directory: Path) -> Process:
        """Starts the generator."""
        return self.generate(load, target, directory, {"port": port})

    def generate(
        self, load: Load, target: Target, directory: Path, more: Mapping[str, object]
    ) -> Process:
        """Starts the generator with these options besides those of the load."""
        options = {
            "wire": target.wire,
            "path": target.path,
            "body": _body(load, target),
            "streams": load.streams,
            "concurrency": load.concurrency or load.streams,
            "chunks": load.chunks,
            "ramp-ms": load.ramp_ms,
            "deadline-s": load.deadline_s,
            **more,
        }
        command = [str(self.load), *(f"--{name}={value}" for name, value in options.items())]
        if load.measure == "memory":
            command.append("--hold")
        return Process(command, directory, "load", talks=True)


def measure(
    round_number: int, load: Load, target: Target, tools: Tools, database: Database | None
) -> Result:
    """Runs one load against one target. Everything it starts has ended when it returns."""
    if target.database != "postgres":
        database = None
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        upstream = stack.enter_context(
            Process([str(tools.upstream)], directory, "upstream", talks=True)
        )
        port = upstream_port = int(upstream.read_line(5).split()[1])
        server = None
        if target.command:
            url = stack.enter_context(database.fresh()) if database else None
            server, port = target.start(upstream_port, directory, url)
            stack.enter_context(server)
            wait_ready(server, port)
        _warm_up(tools, target, port, directory)
        upstream_before = upstream.cpu_us()
        before = _read(server, directory)
        database_before = database.read_before() if database else None
        with tools.ask(load, target, port, directory) as generator:
            opened_kib = _wait_open(generator, server, load)
            said = json.loads(generator.read_line(load.deadline_s + 10))
        time.sleep(SETTLE_S)
        after = _read(server, directory)
        told = _since(database, database_before)
        tools_cpu_us = said["cpu_us"] + upstream.cpu_us() - upstream_before
    stream_kib = (opened_kib - before.rss_kib) / load.streams if opened_kib else None
    return Result(
        round=round_number,
        load=load.name,
        target=target.name,
        tools_cpu_us=tools_cpu_us,
        cpu_us=after.cpu_us - before.cpu_us if server else None,
        peak_mib=after.peak_kib / 1024 if server else None,
        commits=told.transactions if told else _difference(after.commits, before.commits),
        stream_kib=stream_kib,
        database_cpu_us=told.cpu_us if told else None,
        wal_bytes=told.wal_bytes if told else None,
        **_generator_figures(said),
    )


def _body(load: Load, target: Target) -> str:
    if target.wire == "native":
        return json.dumps({"message": "Count.", "model": load.model, "upstream": "bench"})
    message = {"role": "user", "content": "Count."}
    return json.dumps({"model": load.model, "messages": [message], "stream": True})


def _warm_up(tools: Tools, target: Target, port: int, directory: Path) -> None:
    with tools.ask(WARM_UP, target, port, directory) as generator:
        said = json.loads(generator.read_line(WARM_UP.deadline_s + 10))
    if said["whole"] != WARM_UP.streams:
        log = directory / "target.log"
        tail = log.read_text(errors="replace")[-1500:] if log.exists() else ""
        raise BenchError(f"does not answer: {said['fault']}\n{tail}".rstrip())


def _wait_open(generator: Process, server: Process | None, load: Load) -> int | None:
    """For the memory load: waits until all streams are open, and reads the memory then."""
    if load.measure != "memory":
        return None
    line = generator.read_line(load.deadline_s + 10)
    if line != "open\n":
        raise BenchError(f"not all streams opened: {json.loads(line)['fault']}")
    time.sleep(1)
    resident = server.memory_kib("VmRSS") if server else None
    generator.terminate()
    return resident


@dataclass(frozen=True)
class _Reading:
    """A target's counters at one moment."""

    cpu_us: float = 0
    rss_kib: int = 0
    peak_kib: int = 0
    commits: int | None = None


def _read(server: Process | None, directory: Path) -> _Reading:
    if server is None:
        return _Reading()
    if server.ended():
        raise BenchError(f"ended by itself\n{server.log_tail()}")
    return _Reading(
        cpu_us=server.cpu_us(),
        rss_kib=server.memory_kib("VmRSS"),
        peak_kib=server.memory_kib("VmHWM"),
        commits=count_transactions(directory / "holdfast.db"),
    )


def count_transactions(database: Path) -> int | None:
    """Write transactions SQLite committed so far: the third word of its WAL index.

    SQLite's own count is a witness that does not depend on what the server says of itself.
    """
    try:
        with database.with_name(f"{database.name}-shm").open("rb") as index:
            header = index.read(12)
    except FileNotFoundError:
        return None
    counter: int = struct.unpack("=III", header)[2]
    return counter


def _since(database: Database | None, before: DatabaseReading | None) -> DatabaseReading | None:
    return database.read_after().since(before) if database and before else None


def _difference(after: int | None, before: int | None) -> int | None:
    return None if after is None or before is None else after - before


def _generator_figures(said: dict[str, Any]) -> dict[str, Any]:
    return {
        "chunks": said["chunks"],
        "answers": said["asked"],
        "whole": said["whole"],
        "fault": said["fault"],
        "latency_ms": (said["latency_p50_us"] / 1000, said["latency_p99_us"] / 1000),
        "first_ms": (said["first_p50_us"] / 1000, said["first_p99_us"] / 1000),
        "wall_s": said["wall_us"] / 1e6,
    }
