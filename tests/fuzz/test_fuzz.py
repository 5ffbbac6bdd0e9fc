"""The short form of `make fuzz`: the same inputs each time, a fixed number of them."""

import pytest

from tests.fuzz.hunt import Hunt
from tests.fuzz.targets import TARGETS

INPUTS = 40
SEED = 1


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", sorted(TARGETS))
def test_no_law_is_broken_by_hostile_answers(name: str) -> None:
    hunt = Hunt(TARGETS[name], SEED)
    hunt.run(INPUTS)
    assert hunt.tried >= INPUTS
    assert [finding.story for finding in hunt.findings.values()] == []
