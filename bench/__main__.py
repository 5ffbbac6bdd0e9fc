"""`python -m bench`: what a relayed chunk costs. See README.md beside this file."""

import argparse
import contextlib
import json
import os
import platform
import random
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import TypeVar

from bench import cluster
from bench.cluster_report import tables
from bench.loads import LOADS, Load
from bench.measure import Result, Tools, measure
from bench.postgres import Database, start_database
from bench.process import BenchError
from bench.report import commits_against_tokens, table
from bench.scenes import ROWS, Idle, Outcome
from bench.targets import TARGETS, Target

OPEN_FILES = 8192

_Named = TypeVar("_Named", Load, Target)


@dataclass
class Scenes:
    """What the rows with several nodes gave."""

    outcomes: list[Outcome] = field(default_factory=list)
    idle: list[Idle] = field(default_factory=list)


def main() -> int:
    """Runs the rounds, prints the tables; 0 if every answer of every target arrived whole."""
    options = _parse_options()
    if not sys.platform.startswith("linux"):
        return _refuse("needs Linux: it reads costs from /proc and uses epoll")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    _allow_open_files()
    results: list[Result] = []
    scenes = Scenes()
    failed = False
    try:
        with contextlib.ExitStack() as stack:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-tools-"))
            tools = Tools.build(os.environ.get("CC", "cc"), Path(directory))
            database = _start_database(options, stack)
            failed = _run_rounds(options, tools, database, results)
            failed |= not _play(options, tools, database, scenes)
    except BenchError as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        failed = True
        _tell("stopped; so far:")
    _print_report(options, results, scenes)
    whole = all(r.complete for r in results) and all(o.complete for o in scenes.outcomes)
    return 1 if failed or not whole else 0


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    names = [*(load.name for load in LOADS), *ROWS]
    parser.add_argument("--rows", help=f"comma-separated, of {','.join(names)}")
    parser.add_argument(
        "--targets", help=f"comma-separated, of {','.join(target.name for target in TARGETS)}"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--json", type=Path, help="write every result there")
    options = parser.parse_args()
    rows = options.rows.split(",") if options.rows else names
    # Who chooses targets only has no interest in the rows that have none.
    some = options.rows or not options.targets
    options.cluster_rows = [row for row in ROWS if row in rows and some]
    options.rows = _choose(parser, [row for row in rows if row not in ROWS], LOADS)
    chosen = options.targets.split(",") if options.targets else [t.name for t in TARGETS]
    options.targets = _choose(parser, chosen, TARGETS)
    if options.quick:
        options.rounds = 1
    return options


def _choose(
    parser: argparse.ArgumentParser, chosen: Sequence[str], entries: Sequence[_Named]
) -> list[_Named]:
    known = {entry.name: entry for entry in entries}
    for name in chosen:
        if name not in known:
            parser.error(f"no {name!r}; there are {', '.join(known)}")
    return [entry for entry in entries if entry.name in chosen]


def _start_database(options: argparse.Namespace, stack: contextlib.ExitStack) -> Database | None:
    """A PostgreSQL if anything that was chosen needs one, and there is one."""
    targets = [target for target in options.targets if target.database == "postgres"]
    loads = {name for target in targets for name in target.loads}
    if not options.cluster_rows and not any(load.name in loads for load in options.rows):
        return None
    try:
        return stack.enter_context(start_database())
    except BenchError as error:
        _tell(f"all that needs PostgreSQL is left out: {error}")
        return None


def _play(
    options: argparse.Namespace, tools: Tools, database: Database | None, scenes: Scenes
) -> bool:
    """The rows with several nodes, once: what they compare lies side by side."""
    if not options.cluster_rows or database is None:
        return True
    try:
        outcomes, idle, failed = cluster.play(options.cluster_rows, tools, database, _tell)
    except BenchError as error:
        _tell(f"cluster FAILED: {error}")
        return False
    scenes.outcomes += outcomes
    scenes.idle += idle
    return not failed


def _refuse(reason: str) -> int:
    print(f"bench: {reason}", file=sys.stderr)
    return 2


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _allow_open_files() -> None:
    """A thousand streams are two thousand sockets in a target."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < OPEN_FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(OPEN_FILES, hard), hard))


def _run_rounds(
    options: argparse.Namespace, tools: Tools, database: Database | None, results: list[Result]
) -> bool:
    """Target after target inside each load of each round, so that drift hits all alike."""
    failed = False
    present = []
    for target in options.targets:
        if missing := target.missing():
            _tell(f"{target.name}: left out, {missing} is not installed")
        elif target.database != "postgres" or database is not None:
            present.append(target)
    for number in range(1, options.rounds + 1):
        for load in options.rows:
            for target in random.sample(present, len(present)):
                if target.takes_part(load.name, load.measure):
                    failed |= not _measure_and_tell(number, load, target, tools, database, results)
    return failed


def _measure_and_tell(
    number: int,
    load: Load,
    target: Target,
    tools: Tools,
    database: Database | None,
    results: list[Result],
) -> bool:
    where = f"round {number}  {load.name:10} {target.name:16}"
    try:
        result = measure(number, load, target, tools, database)
    except BenchError as error:
        _tell(f"{where} FAILED: {error}")
        return False
    results.append(result)
    cost = ""
    if result.stream_kib is not None:
        cost = f"{result.stream_kib:7.1f} KiB/stream"
    elif result.cpu_us is not None:
        cost = f"{result.cpu_us / max(result.chunks, 1):7.1f} us/chunk"
    note = "" if result.complete else f"  {result.whole}/{result.answers} whole: {result.fault}"
    _tell(f"{where} {result.wall_s:6.1f} s {cost}{note}")
    return True


def _print_report(options: argparse.Namespace, results: list[Result], scenes: Scenes) -> None:
    print(f"\n{_environment()}\n")
    for load in options.rows:
        if any(result.load == load.name for result in results):
            print(table(load, results), end="\n\n")
    for line in commits_against_tokens(results):
        print(line)
    if scenes.outcomes or scenes.idle:
        print(tables(options.cluster_rows, scenes.outcomes, scenes.idle), end="\n\n")
    for outcome in scenes.outcomes:
        if not outcome.complete:
            print(f"NOT WHOLE: {outcome.scene.row}: {outcome.fault}")
    for result in results:
        if not result.complete:
            print(
                f"NOT WHOLE: {result.target} under {result.load}, round {result.round}: "
                f"{result.answers - result.whole} of {result.answers} answers; {result.fault}"
            )
    if options.json:
        document = {"environment": _environment(), "results": [asdict(r) for r in results]}
        document |= {"scenes": [asdict(o) for o in scenes.outcomes]}
        document |= {"idle": [asdict(i) for i in scenes.idle]}
        options.json.write_text(json.dumps(document, indent=1) + "\n")


def _environment() -> str:
    return (
        f"{os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}; "
        f"one 8 kB write made durable where the data lies: {_sync_ms():.2f} ms (median)"
    )


def _sync_ms() -> float:
    times = []
    with tempfile.TemporaryFile() as file:
        for _ in range(50):
            start = time.perf_counter()
            file.write(bytes(8192))
            file.flush()
            os.fdatasync(file.fileno())
            times.append(time.perf_counter() - start)
    return median(times) * 1000


if __name__ == "__main__":
    sys.exit(main())
