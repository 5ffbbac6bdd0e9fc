"""`python -m bench`: what a relayed chunk costs. See README.md beside this file."""

import argparse
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
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import TypeVar

from bench.loads import LOADS, Load
from bench.measure import Result, Tools, measure
from bench.process import BenchError
from bench.report import commits_against_tokens, table
from bench.targets import TARGETS, Target

OPEN_FILES = 8192

_Named = TypeVar("_Named", Load, Target)


def main() -> int:
    """Runs the rounds, prints the tables; 0 if every answer of every target arrived whole."""
    options = _parse_options()
    if not sys.platform.startswith("linux"):
        return _refuse("needs Linux: it reads costs from /proc and uses epoll")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    _allow_open_files()
    results: list[Result] = []
    failed = False
    try:
        with tempfile.TemporaryDirectory(prefix="bench-tools-") as directory:
            tools = Tools.build(os.environ.get("CC", "cc"), Path(directory))
            failed = _run_rounds(options, tools, results)
    except BenchError as error:
        return _refuse(str(error))
    except KeyboardInterrupt:
        failed = True
        _tell("stopped; so far:")
    _print_report(options, results)
    return 1 if failed or not all(result.complete for result in results) else 0


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    names = [load.name for load in LOADS]
    parser.add_argument("--rows", help=f"comma-separated, of {','.join(names)}")
    parser.add_argument(
        "--targets", help=f"comma-separated, of {','.join(target.name for target in TARGETS)}"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round")
    parser.add_argument("--json", type=Path, help="write every result there")
    options = parser.parse_args()
    options.rows = _choose(parser, options.rows, LOADS)
    options.targets = _choose(parser, options.targets, TARGETS)
    if options.quick:
        options.rounds = 1
    return options


def _choose(
    parser: argparse.ArgumentParser, names: str | None, entries: Sequence[_Named]
) -> list[_Named]:
    known = {entry.name: entry for entry in entries}
    chosen = names.split(",") if names else list(known)
    for name in chosen:
        if name not in known:
            parser.error(f"no {name!r}; there are {', '.join(known)}")
    return [entry for entry in entries if entry.name in chosen]


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


def _run_rounds(options: argparse.Namespace, tools: Tools, results: list[Result]) -> bool:
    """Target after target inside each load of each round, so that drift hits all alike."""
    failed = False
    present = []
    for target in options.targets:
        if missing := target.missing():
            _tell(f"{target.name}: left out, {missing} is not installed")
        else:
            present.append(target)
    for number in range(1, options.rounds + 1):
        for load in options.rows:
            for target in random.sample(present, len(present)):
                if load.measure == "memory" and not target.command:
                    continue
                failed |= not _measure_and_tell(number, load, target, tools, results)
    return failed


def _measure_and_tell(
    number: int, load: Load, target: Target, tools: Tools, results: list[Result]
) -> bool:
    where = f"round {number}  {load.name:10} {target.name:16}"
    try:
        result = measure(number, load, target, tools)
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


def _print_report(options: argparse.Namespace, results: list[Result]) -> None:
    print(f"\n{_environment()}\n")
    for load in options.rows:
        if any(result.load == load.name for result in results):
            print(table(load, results), end="\n\n")
    for line in commits_against_tokens(results):
        print(line)
    for result in results:
        if not result.complete:
            print(
                f"NOT WHOLE: {result.target} under {result.load}, round {result.round}: "
                f"{result.answers - result.whole} of {result.answers} answers; {result.fault}"
            )
    if options.json:
        document = {"environment": _environment(), "results": [asdict(r) for r in results]}
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
