"""What every test gets: one asyncio backend, and a loop that nothing may block."""

from collections.abc import Iterator
from typing import Any

import pytest
from blockbuster import BlockBuster, blockbuster_ctx
from hypothesis import settings

pytest.register_assert_rewrite("tests.support")

# The same examples on every machine and in every run; a failure here is a failure everywhere.
settings.register_profile("holdfast", derandomize=True, deadline=None, database=None)
settings.load_profile("holdfast")

ALLOWED = {
    # A store that closes waits for its own threads, at the end of a process. Nobody streams then.
    "threading.Lock.acquire": ("holdfast/store/sqlite.py", {"close"}),
    # A relative file name is made absolute when the store is made; that asks the kernel only.
    "os.getcwd": ("holdfast/store/sqlite.py", {"__init__"}),
}
"""Calls that may block the loop, each with the one place that may make them."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--record-corpus",
        action="store_true",
        help="write what the corpus (tests/corpus) expects anew instead of comparing with it",
    )


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A recording that has seen no case is a mistake of whoever asked for it."""
    compared = any("compared" in getattr(item, "fixturenames", ()) for item in session.items)
    if session.config.getoption("record_corpus") and not compared:
        session.config.get_terminal_writer().line("--record-corpus: no case was run", red=True)
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Plain asyncio: its debug output and its frames are readable, those of uvloop are not."""
    return "asyncio", {"use_uvloop": False}


@pytest.fixture(autouse=True)
def loop_guard() -> Iterator[BlockBuster]:
    """Make any blocking call of Holdfast on an event loop raise (SQLite, files, locks, sleep).

    Only calls that come from Holdfast's own code count: tests may prepare files where they are.
    """
    with blockbuster_ctx("holdfast") as guard:
        for function, (file, names) in ALLOWED.items():
            guard.functions[function].can_block_in(file, names)
        yield guard
