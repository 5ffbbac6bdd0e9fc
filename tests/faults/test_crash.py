"""The crash proof in short: every phase once. `python -m tests.faults` is the long form."""

from pathlib import Path

import pytest

from tests.faults.mutants import MUTANTS
from tests.faults.points import Phase
from tests.faults.rounds import Plan, mutant_plan, play

PLANS = [
    Plan("short-1", "append"),
    Plan("short-2", "commit", synchronous="normal"),
    Plan("short-3", "release"),
    Plan("short-4", "finish-references"),
    Plan("short-5", "hint", recovery=("recovery-message",)),
    Plan("short-6", "ask-start", recovery=("recovery-commit",), synchronous="normal"),
    Plan("short-7"),
]


def test_every_phase_has_a_round() -> None:
    assert {phase for plan in PLANS for phase in plan.phases} == set(Phase)


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: "-".join(plan.phases))
def test_a_kill_breaks_no_promise(plan: Plan, tmp_path: Path) -> None:
    result = play(plan, tmp_path / "round")
    assert result.violations == []
    assert result.phases == plan.phases
    assert result.resumed > 0


@pytest.mark.parametrize("name", ["release-before-commit", "two-transactions"])
def test_a_server_that_breaks_a_promise_is_found_out(name: str, tmp_path: Path) -> None:
    result = play(mutant_plan(name, f"short-{name}"), tmp_path / "round")
    assert MUTANTS[name].promise in {violation.promise for violation in result.violations}
