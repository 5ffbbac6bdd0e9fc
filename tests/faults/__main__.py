"""The crash proof: kill a real server at every point of a write, restart it, look at everything.

    python -m tests.faults --rounds 20 --seed 1
    python -m tests.faults --store postgresql

Prints a row per round and leaves the evidence of a round that failed. Exit code 1: a promise did
not hold, a phase was not hit, or a server that breaks a promise on purpose was not found out.
"""

import argparse
import shutil
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from tests.faults.mutants import MUTANTS
from tests.faults.points import Phase
from tests.faults.rounds import Plan, Result, mutant_plan, play
from tests.support.postgres import PostgresServer, postgres_server

SHAPES: Sequence[tuple[str | None, tuple[str, ...], int]] = (
    ("append", (), 1),
    ("commit", (), 1),
    ("release", (), 1),
    ("finish-release", (), 1),
    ("hint", (), 1),
    (None, ("recovery-begin",), 1),
    (None, (), 1),
    ("append", (), 1),
    ("finish-log", (), 1),
    ("release", (), 1),
    ("finish-message", (), 1),
    ("commit", ("recovery-message",), 1),
    ("ask-start", (), 1),
    ("finish-references", (), 1),
    ("hint", (), 1),
    (None, ("recovery-references", "recovery-commit"), 1),
    ("finish-reference", (), 1),
    ("ask-release", (), 1),
    ("finish-end", (), 1),
    (None, ("recovery-release",), 3),
)
"""Point, points of the recoveries after it, scale; with more rounds they come again."""
NORMAL_EVERY = 4
ON_POSTGRESQL = [
    (point, (), scale)
    for point, recovery, scale in SHAPES
    if not recovery and point not in ("commit", "finish-reference")
]
"""There journal rows alone, and all references of an answer, are one statement each; and who ends
the runs of a dead node takes questions at the same time, so no step belongs to recovery alone."""

HEAD = (
    f"{'#':>2}  {'seed':<6} {'sync':<6} {'phase of the kill':<28} {'last step before it':<54} "
    f"{'in flight':>9} {'ahead':>5} {'unsaved':>7} {'clients':>7} {'events':>6} {'resumed':>7} "
    f"{'recovered':>9}  result"
)
LEGEND = """\
ahead: runs of which the upstream had sent more than was committed; unsaved: runs with decoded
events in memory that were not committed (unknown for a kill from outside); events: what clients
saw before the kill; recovered: when no message was `streaming` any more after the restart."""


def plan_rounds(rounds: int, seed: int, store: str = "sqlite") -> list[Plan]:
    """The plans of a run; the same for the same seed."""
    plans = []
    shapes = SHAPES if store == "sqlite" else ON_POSTGRESQL
    for number in range(rounds):
        point, recovery, scale = shapes[number % len(shapes)]
        synchronous = "normal" if number % NORMAL_EVERY == NORMAL_EVERY - 1 else "full"
        plans.append(Plan(f"{seed}-{number + 1}", point, recovery, synchronous, scale=scale))
    return plans


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--store", choices=["sqlite", "postgresql"], default="sqlite")
    parser.add_argument("--mutants", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--evidence", type=Path, default=Path("artifacts/faults"))
    options = parser.parse_args()
    start = time.monotonic()
    plans = plan_rounds(options.rounds, options.seed, options.store)
    with postgres_server() if options.store == "postgresql" else nullcontext() as server:
        good = _rounds(plans, options.evidence, server)
    if options.mutants and options.store == "sqlite":
        good = _mutants(options.seed, options.evidence) and good
    print(f"\n{'everything held' if good else 'FAILED'} in {time.monotonic() - start:.0f} s")
    return 0 if good else 1


def _rounds(plans: Sequence[Plan], evidence: Path, server: PostgresServer | None) -> bool:
    print(HEAD)
    failed = 0
    hit: Counter[Phase] = Counter()
    for number, plan in enumerate(plans, 1):
        folder = _fresh(evidence / f"round-{number:02}")
        result = play(plan, folder, server)
        print(row(number, result), flush=True)
        failed += bool(result.violations)
        hit.update(result.phases)
        _keep_or_clear(folder, bool(result.violations))
    print(LEGEND)
    planned = {phase for plan in plans for phase in plan.phases}
    print("phases hit: " + ", ".join(f"{phase} {hit[phase]}" for phase in Phase))
    missed = planned - hit.keys()
    return not failed and not missed


def row(number: int, result: Result) -> str:
    """A round as lines of the table."""
    plan = result.plan
    unsaved = "-" if result.unsaved is None else result.unsaved
    recovered = "-" if result.recovered_s is None else f"{result.recovered_s * 1000:.0f} ms"
    lines = [
        f"{number:>2}  {plan.seed:<6} {plan.synchronous:<6} {plan.phases[0]:<28} "
        f"{(result.places or ['-'])[0]:<54} {result.in_flight:>9} {result.ahead:>5} {unsaved:>7} "
        f"{result.clients:>7} {result.events:>6} {result.resumed:>7} {recovered:>9}  "
        f"{'VIOLATED' if result.violations else 'ok'}"
    ]
    lines += [
        f"{'':<19}{phase:<28} {place}"
        for phase, place in zip(plan.phases[1:], result.places[1:], strict=False)
    ]
    lines += [f"      {str(violation)[:400]}" for violation in result.violations[:10]]
    return "\n".join(lines)


def _mutants(seed: int, evidence: Path) -> bool:
    """Each mutant must be found out."""
    print("\nservers that break a promise on purpose")
    missed = 0
    for name, mutant in MUTANTS.items():
        folder = _fresh(evidence / f"mutant-{name}")
        result = play(mutant_plan(name, f"{seed}-{name}"), folder)
        found = [one for one in result.violations if one.promise == mutant.promise]
        missed += not found
        said = str(found[0])[:120] if found else "NOT FOUND OUT"
        print(f"    {name:<24} {mutant.promise}  {said}", flush=True)
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
