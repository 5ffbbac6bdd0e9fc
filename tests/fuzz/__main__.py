"""Fuzz decoders, encoders and their parts with hostile answers that are made of good ones.

    python -m tests.fuzz --minutes 5 --decoder ragflow --seed 1

Without `--decoder` everything is fuzzed, one after the other, each for so many minutes. An input
that breaks a law is made small and kept; `--replay` tries a kept one again. Exit code 1: a law
was broken.
"""

import argparse
import hashlib
import sys
import time
from pathlib import Path

import msgspec

from tests.fuzz.hunt import Finding, Hunt
from tests.fuzz.targets import TARGETS
from tests.fuzz.trial import Trial

HEAD = f"{'what':<20} {'seed':>10} {'minutes':>8} {'inputs':>9} {'per second':>11} {'found':>6}"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--decoder", action="append", choices=sorted(TARGETS), dest="names")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--evidence", type=Path, default=Path("artifacts/fuzz"))
    parser.add_argument("--replay", type=Path, help="a kept input; takes one --decoder")
    options = parser.parse_args()
    names = options.names or list(TARGETS)
    if options.replay is not None:
        return _replay(names[0], options.replay)
    print(HEAD)
    found = [_fuzz(name, options) for name in names]
    return 1 if any(found) else 0


def _fuzz(name: str, options: argparse.Namespace) -> bool:
    first_seed = options.seed if options.seed is not None else time.time_ns() % 10**9
    start = time.monotonic()
    hunt = Hunt(TARGETS[name], first_seed)
    hunt.run_for(options.minutes * 60)
    took = time.monotonic() - start
    print(
        f"{name:<20} {first_seed:>10} {took / 60:>8.1f} {hunt.tried:>9} "
        f"{hunt.tried / took:>11.0f} {len(hunt.findings):>6}",
        flush=True,
    )
    for finding in hunt.findings.values():
        _keep(name, finding, options.evidence)
    return bool(hunt.findings)


def _keep(name: str, finding: Finding, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    kept = msgspec.json.encode(finding.trial)
    file = folder / f"{name}-{hashlib.sha256(finding.signature.encode()).hexdigest()[:8]}.json"
    file.write_bytes(kept)
    print(f"    {finding.signature}\n    {_shown(finding.trial)}\n    kept as {file}")
    print("".join(f"        {line}\n" for line in finding.story.splitlines()[-12:]), end="")


def _shown(trial: Trial) -> str:
    start = msgspec.structs.replace(trial, data=trial.data[:500])
    return f"{len(trial.data)} bytes: {start}"


def _replay(name: str, file: Path) -> int:
    TARGETS[name].check(msgspec.json.decode(file.read_bytes(), type=Trial))
    print("no law is broken")
    return 0


if __name__ == "__main__":
    sys.exit(main())
