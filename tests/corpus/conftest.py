"""Comparing with the corpus, or recording it."""

from pathlib import Path

import pytest

from tests.support.corpus import Compared, compare


@pytest.fixture
def compared(pytestconfig: pytest.Config) -> Compared:
    """Compares what a test got with a file of the corpus; with `--record-corpus`, writes it."""

    def compare_or_record(path: Path, got: bytes) -> None:
        compare(path, got, record=pytestconfig.getoption("record_corpus"))

    return compare_or_record
