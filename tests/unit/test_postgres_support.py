"""The PostgreSQL that tests get: which one, and that nothing of it is left."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import postgres_private
from tests.support.postgres import (
    VARIABLE,
    NoPostgres,
    PostgresServer,
    postgres_server,
    private_server,
    run_sql,
)

ROOT = Path(__file__).resolve().parents[2]
GIVE_UP_S = 60
HOLD = """
import sys
from tests.support.postgres import private_server
with private_server() as server:
    print(server.pid, server.run("SHOW data_directory")[0]["data_directory"], flush=True)
    sys.stdin.read()
"""


def test_a_database_is_empty_and_gone_afterwards(postgres: PostgresServer) -> None:
    with postgres.database() as template:
        assert run_sql(template, "SELECT * FROM pg_tables WHERE schemaname = 'public'") == []
        run_sql(template, "CREATE TABLE kelp AS SELECT 1 AS holds")
        with postgres.database(template) as url:
            assert run_sql(url, "SELECT * FROM kelp") == [{"holds": 1}]
        with pytest.raises(Exception, match="does not exist"):
            run_sql(url, "SELECT 1")


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_what_is_committed_survives_a_restart(mode: str) -> None:
    with private_server() as server:
        server.run("CREATE TABLE kelp AS SELECT 1 AS holds")
        pid = server.pid
        server.restart(mode)
        assert server.pid != pid
        assert server.run("SELECT * FROM kelp") == [{"holds": 1}]
        server.stop()
        with pytest.raises(ConnectionRefusedError):
            server.run("SELECT 1")


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_of_a_private_server_outlives_who_started_it(end: signal.Signals) -> None:
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}"}
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert holder.stderr is not None
    with holder:
        pid, data = holder.stdout.readline().decode().split()
        assert Path(data).exists()
        holder.send_signal(end)
        assert holder.wait(GIVE_UP_S) != 0
        holder.stderr.read()  # the keeper has it, too: it ends with the keeper
    assert not Path(data).parent.exists()
    assert not is_running(int(pid))


def is_running(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


# ------------------------------------------------------------------------------ which one


def test_a_server_that_is_named_but_does_not_answer_is_no_reason_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(VARIABLE, "postgresql://postgres@127.0.0.1:1/postgres")
    with pytest.raises(NoPostgres, match=rf"^{VARIABLE} names .*Connect"), postgres_server():
        pass


def test_the_server_that_is_named_is_used(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, postgres.url)
    with postgres_server() as server:
        assert server.url == postgres.url


def test_the_server_of_this_machine_is_used_if_it_lets_us_in(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = postgres.url.removeprefix("postgresql://").partition("/")[0]
    user, _, address = here.rpartition("@")
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("PGUSER", user.partition(":")[0])
    monkeypatch.setenv("PGPASSWORD", user.partition(":")[2])
    monkeypatch.setenv("PGHOST", address.partition(":")[0])
    monkeypatch.setenv("PGPORT", address.partition(":")[2])
    with postgres_server() as server:
        assert server.run("SELECT system_identifier FROM pg_control_system()") == postgres.run(
            "SELECT system_identifier FROM pg_control_system()"
        )


def test_a_server_where_no_database_may_be_made_is_of_no_use(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres.run("CREATE ROLE holdfast_test_reader LOGIN PASSWORD 'x'")
    try:
        address = postgres.url.rpartition("@")[2]
        monkeypatch.setenv(VARIABLE, f"postgresql://holdfast_test_reader:x@{address}")
        with pytest.raises(NoPostgres, match="may not create databases"), postgres_server():
            pass
    finally:
        postgres.run("DROP ROLE holdfast_test_reader")


def test_without_any_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv("PGHOST", "127.0.0.1")
    monkeypatch.setenv("PGPORT", "1")
    monkeypatch.setattr(postgres_private, "_installed", lambda: None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(NoPostgres) as told, postgres_server():
        pass
    assert "apt-get install postgresql" in str(told.value)
    assert VARIABLE in str(told.value)
    assert "\n" not in str(told.value)
