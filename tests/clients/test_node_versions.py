"""The clients from npm are those that the tests say they are."""

import json
import re

import pytest

from tests.support.node import CLIENTS

PINNED: dict[str, str] = json.loads((CLIENTS / "package.json").read_text())["dependencies"]


@pytest.mark.parametrize(("name", "pinned"), PINNED.items())
def test_are_pinned_and_installed_exactly(name: str, pinned: str) -> None:
    version = pinned.rpartition("@")[2]
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    installed = json.loads((CLIENTS / "node_modules" / name / "package.json").read_text())
    assert installed["version"] == version


def test_have_no_lock_file_that_records_addresses() -> None:
    assert not [*CLIENTS.glob("*lock*"), *CLIENTS.glob("npm-shrinkwrap.json")]
