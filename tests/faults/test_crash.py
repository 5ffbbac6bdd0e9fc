"""The crash proof in short: every phase once. `python -m tests.faults` is the long form."""

from pathlib import Path

import pytest

from tests.faults.mutants import MUTANTS
from tests.faults.points import Phase
from tests.faults.rounds import Plan, mutant_plan, play
from tests.support.postgres import PostgresServer

PLANS = [
    Plan("short-1", "append"),
    Plan("short-2", "commit", synchronous="normal"),
    Plan("short-3", "release"),
    Plan("short-4", "finish-references"),
    Plan("short-5", "hint", recovery=("recovery-message",)),
    Plan("short-6", "ask-start", recovery=("recovery-commit",), synchronous="normal"),
    Plan("short-7"),
]


ON_POSTGRESQL = [
    Plan("shared-1", "append"),
    Plan("shared-2", "finish-references"),
    Plan("shared-3"),
]
"""Where the last step before the kill matters to the database; the rest is the same code."""


def test_every_phase_has_a_round() -> None:
    assert {phase for plan in PLANS for phase in plan.phases} == set(Phase)


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: "-".join(plan.phases))
def test_a_kill_breaks_no_promise(plan: Plan, tmp_path: Path) -> None:
    result = play(plan, tmp_path / "round")
    assert result.violations == []
    assert result.phases == plan.phases
    assert result.resumed > 0


@pytest.mark.parametrize("plan", ON_POSTGRESQL, ids=lambda plan: "-".join(plan.phases))
def test_a_kill_breaks_no_promise_on_postgresql(
    plan: Plan, tmp_path: Path, postgres: PostgresServer
) -> None:
    result = play(plan, tmp_path / "round", postgres)
    assert result.violations == []
    assert result.phases == plan.phases
    assert result.resumed > 0


def test_a_server_that_shows_what_is_not_stored_is_found_out(tmp_path: Path) -> None:
    result = play(mutant_plan("release-before-commit", "short-mutant"), tmp_path / "round")
    assert MUTANTS["release-before-commit"].promise in {one.promise for one in result.violations}
