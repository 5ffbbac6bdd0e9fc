"""The layers of ARCHITECTURE.md, as `[tool.importlinter]` in pyproject.toml states them."""

import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).parent.parent


def test_every_contract_between_the_layers_is_kept() -> None:
    # In a process of its own: it configures logging, which would take it away from other tests.
    lint = Path(sys.executable).with_name("lint-imports")
    found = subprocess.run(
        [lint, "--no-cache", "--no-logo"],
        cwd=PROJECT,
        env={"PYTHONPATH": "src", "PYTHONUTF8": "1"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert "0 broken" in found.stdout
