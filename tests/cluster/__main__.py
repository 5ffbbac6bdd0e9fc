"""The fault suite: three nodes on one PostgreSQL, and everything that can go wrong.

    python -m tests.cluster --rounds 36 --seed 1

Prints some lines per round and leaves the evidence of a round that failed. Exit code 1: a promise
did not hold, or nodes that break a promise on purpose were not found out.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from tests.cluster.mutants import MUTANTS
from tests.cluster.nodes import mount, unmount
from tests.cluster.plans import Plan, plan_rounds
from tests.cluster.rounds import Result, play
from tests.support.postgres import PrivateServer, private_server


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cluster", description=__doc__)
    parser.add_argument("--rounds", type=int, default=36)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, nargs="*", help="numbers of rounds to play")
    parser.add_argument("--mutants", nargs="*", choices=MUTANTS, default=list(MUTANTS))
    parser.add_argument("--evidence", type=Path, default=Path("artifacts/cluster"))
    options = parser.parse_args()
    start = time.monotonic()
    plans = dict(enumerate(plan_rounds(options.rounds, options.seed), 1))
    chosen = options.only if options.only is not None else plans
    with private_server() as server:
        good = _rounds({number: plans[number] for number in chosen}, server, options.evidence)
        good = _mutants(options.mutants, options.seed, server, options.evidence) and good
    print(f"\n{'everything held' if good else 'FAILED'} in {time.monotonic() - start:.0f} s")
    return 0 if good else 1


def _rounds(plans: dict[int, Plan], server: PrivateServer, evidence: Path) -> bool:
    failed = 0
    for number, plan in plans.items():
        folder = _fresh(evidence / f"round-{number:02}")
        start = time.monotonic()
        result = play(plan, folder, server)
        print(row(number, result, time.monotonic() - start), flush=True)
        failed += bool(result.violations)
        _keep_or_clear(folder, bool(result.violations))
    if not _can_mount(evidence):
        print("disk full: no file system can be mounted here; the size of files was limited")
    return not failed


def _can_mount(evidence: Path) -> bool:
    folder = _fresh(evidence / "mount")
    folder.mkdir(parents=True)
    mounted = mount(folder)
    if mounted:
        unmount(folder)
    folder.rmdir()
    return mounted


def row(number: int, result: Result, took_s: float) -> str:
    """A round as lines."""
    recovery = "-" if result.recovery_s is None else f"{result.recovery_s:.1f} s"
    endings = ", ".join(f"{count} {name}" for name, count in sorted(result.endings.items()))
    lines = [
        f"{number:>2}  seed {result.plan.seed}: {result.plan}",
        f"    {'VIOLATED' if result.violations else 'ok'} in {took_s:.0f} s; "
        f"{result.in_flight} in flight, {result.runs} runs ({endings}), {result.events} events "
        f"over {result.connections} connections, hints {result.passed} + {result.swallowed} lost, "
        f"recovered in {recovery}",
    ]
    lines += [f"    {str(violation)[:400]}" for violation in result.violations[:10]]
    return "\n".join(lines)


def _mutants(names: Iterable[str], seed: int, server: PrivateServer, evidence: Path) -> bool:
    """Each mutant must be found out."""
    missed = 0
    for name in names:
        mutant = MUTANTS[name]
        folder = _fresh(evidence / f"mutant-{name}")
        result = play(Plan(f"{seed}-{name}", mutant.acts, name), folder, server)
        found = [one for one in result.violations if one.promise in mutant.promises]
        missed += not found
        said = str(found[0])[:120] if found else f"NOT FOUND OUT {result.violations[:3]}"
        print(f"    mutant {name:<24} {said}", flush=True)
        _keep_or_clear(folder, not found)
    return not missed


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def _keep_or_clear(folder: Path, keep: bool) -> None:
    if keep:
        print(f"      the evidence is in {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
