"""The flag that records the corpus anew."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.corpus import compare

HERE = Path(__file__)


def test_a_difference_is_a_failure_until_it_is_recorded(tmp_path: Path) -> None:
    file = tmp_path / "case.jsonl"
    with pytest.raises(AssertionError, match="--record-corpus"):
        compare(file, b"a\n", record=False)
    assert not file.exists()
    compare(file, b"a\n", record=True)
    compare(file, b"a\n", record=False)
    for other in (b"b\n", b"a\r\n", b"a\na\n", b"a", b""):
        with pytest.raises(AssertionError):
            compare(file, other, record=False)
    assert file.read_bytes() == b"a\n"


def test_recording_leaves_alone_what_is_as_recorded(tmp_path: Path) -> None:
    file = tmp_path / "case.jsonl"
    file.write_bytes(b"a\n")
    file.chmod(0o400)
    before = file.stat()
    compare(file, b"a\n", record=True)
    assert file.stat() == before


def test_a_recording_that_has_seen_no_case_fails() -> None:
    plugins = ["-p", "pytest_timeout", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *plugins, "-q", "--record-corpus", str(HERE)]
    run = subprocess.run(
        [*command, "-k", "leaves"],
        cwd=HERE.parents[2],
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == pytest.ExitCode.NO_TESTS_COLLECTED
    assert "1 passed" in run.stdout
    assert "no case was run" in run.stdout
