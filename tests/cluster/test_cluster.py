"""The fault suite in short. `python -m tests.cluster` is the long form."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import faults
from tests.cluster.mutants import MUTANTS
from tests.cluster.plans import AT_A_NODE, EVERYWHERE, SHAPES, Plan, plan_rounds
from tests.cluster.rounds import play
from tests.support.postgres import PrivateServer, private_server

PLANS = [
    Plan("short-1", ((faults.Stop, faults.HintsLost), (faults.Kill, faults.DatabaseImmediate))),
    Plan("short-2", ((faults.Rolling,),)),
]
MUTANT = "release-before-commit"

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateServer]:
    with private_server() as server:
        yield server


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_faults_break_no_promise(plan: Plan, server: PrivateServer, tmp_path: Path) -> None:
    result = play(plan, tmp_path / "round", server)
    assert result.violations == []


def test_nodes_that_show_what_is_not_stored_are_found_out(
    server: PrivateServer, tmp_path: Path
) -> None:
    mutant = MUTANTS[MUTANT]
    result = play(Plan("short-mutant", mutant.acts, MUTANT), tmp_path / "round", server)
    assert mutant.promises & {one.promise for one in result.violations}


def test_the_long_form_has_every_fault_and_the_same_rounds_each_time() -> None:
    plans = plan_rounds(36, 1)
    assert list(map(str, plans)) == list(map(str, plan_rounds(36, 1)))
    played = {kind for plan in plans for act in plan.acts for kind in act}
    assert {*AT_A_NODE, *EVERYWHERE} <= played
    assert len(plans) > len(SHAPES)
