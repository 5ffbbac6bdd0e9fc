"""What every test gets: one asyncio backend, and a loop that nothing may block."""

import contextlib
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from blockbuster import BlockBuster, blockbuster_ctx
from hypothesis import settings

pytest.register_assert_rewrite("tests.support")

from holdfast.settings import StorageSettings  # noqa: E402
from holdfast.store.factory import migrate  # noqa: E402
from tests.support.postgres import NoPostgres, PostgresServer, postgres_server, run_apart  # noqa: E402

# The same examples on every machine and in every run; a failure here is a failure everywhere.
settings.register_profile("holdfast", derandomize=True, deadline=None, database=None)
settings.load_profile("holdfast")

ALLOWED = {
    # A store that closes waits for its own threads, at the end of a process. Nobody streams then.
    "threading.Lock.acquire": ("holdfast/store/sqlite/store.py", {"close"}),
    # A relative file name is made absolute when the store is made; that asks the kernel only.
    "os.getcwd": ("holdfast/store/sqlite/store.py", {"__init__"}),
}
"""Calls that may block the loop, each with the one place that may make them."""

MAY_BLOCK = {
    # The driver looks for ~/.pgpass and for certificates when it connects.
    "asyncpg/connect_utils.py": {"_parse_connect_dsn_and_args"},
    # The schema is brought up to date before anything is served.
    "holdfast/store/migrate.py": {"upgrade_shared"},
}
"""Places that may make any such call."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--record-corpus",
        action="store_true",
        help="write what the corpus (tests/corpus) expects anew instead of comparing with it",
    )


SLOW_FOLDERS = ("e2e", "cluster", "deploy", "clients")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take long begin first, so that all workers are done at about the same time."""
    items.sort(key=lambda item: item.path.parent.name not in SLOW_FOLDERS)


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Reports go from one process to another; half of a surrogate pair in a log would stop them."""
    report = yield
    return _sendable(report)


def _sendable(value: Any) -> Any:
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode()
        case dict():
            return {_sendable(key): _sendable(item) for key, item in value.items()}
        case list() | tuple():
            return type(value)(_sendable(item) for item in value)
        case _:
            return value


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
        for blocking in guard.functions.values():
            for file, names in MAY_BLOCK.items():
                blocking.can_block_in(file, names)
        yield guard


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL; without one there is nothing to test."""
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(postgres_server())
        except NoPostgres as problem:
            pytest.exit(str(problem), returncode=1)
        yield server


@pytest.fixture(scope="session")
def postgres_template(postgres: PostgresServer) -> Iterator[str]:
    """A database with the newest schema and nothing in it, to make others from."""
    with postgres.database() as url:
        run_apart(lambda: migrate(StorageSettings(url=url)))
        yield url


@pytest.fixture
def postgres_url(postgres: PostgresServer, postgres_template: str) -> Iterator[str]:
    """A database of the test's own, with the newest schema."""
    with postgres.database(postgres_template) as url:
        yield url


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def storage(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """A server's `storage` settings for each kind of database; a database for each module."""
    if request.param == "sqlite":
        yield {}
        return
    postgres: PostgresServer = request.getfixturevalue("postgres")
    with postgres.database(request.getfixturevalue("postgres_template")) as url:
        yield {"url": url}
