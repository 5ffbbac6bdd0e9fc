"""The real server as a process that kills itself at a chosen point.

    python -m tests.faults.server PLAN

The product has no code for this. What SQLite executes is seen through the trace of its connections,
what PostgreSQL is asked to by standing before the connection that commits; the commit's return, the
hint and the recovery by wrapping the functions that stand for them. PLAN
is a JSON object: folder, database, port, upstream, synchronous, control; `point` and `occurrence`
say where to die once the driver has armed the control page; `mutant` breaks a promise on purpose.

It loads what it needs, waits for a line on its standard input, starts, and prints its URL once it
takes questions. Before it kills itself it writes `killed.json`.
"""

import asyncio
import json
import logging
import os
import signal
import sqlite3
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

from holdfast.http.server import serve
from holdfast.live.run_log import RunLog
from holdfast.runner import recovery
from holdfast.runner.supervisor import Supervisor
from holdfast.settings import NodeSettings, ServerSettings, Settings, StorageSettings
from holdfast.store.port import Append, CreateRun, FinishRun, Store, Write
from holdfast.store.postgres import PostgresStore
from holdfast.store.sqlite import SqliteStore
from tests.faults.control import ControlPage
from tests.faults.lifeline import die_with_parent
from tests.faults.mutants import MUTANTS
from tests.faults.points import COMMIT, HINT, POINTS, RELEASE, Gap, step
from tests.faults.postgres_trace import trace_postgres

IDLE = "idle"
HEARTBEAT_S, LEASE_S = 0.5, 3.0
"""Short, as the next server has to wait for the end of the lease; long for a machine at work."""


class Faults:
    """Watches the steps of every write and kills the process at one of them."""

    def __init__(self, plan: dict[str, Any]) -> None:
        point = plan.get("point")
        self._point = POINTS[point] if point else None
        self._left: int = plan.get("occurrence", 1)
        self._page = ControlPage(Path(plan["control"]))
        self._record = Path(plan["folder"], "killed.json")
        self._writes: Sequence[Write] = ()
        self._done: frozenset[str] = frozenset()
        self._created: list[str] = []
        self._recovering = False
        self.supervisor: Supervisor | None = None

    def install(self) -> None:
        patch.object(sqlite3.dbapi2, "connect", self._traced(sqlite3.dbapi2.connect)).start()
        patch.object(SqliteStore, "commit", self._committing(SqliteStore.commit)).start()
        trace_postgres(self._tracer)
        patch.object(PostgresStore, "commit", self._committing(PostgresStore.commit)).start()
        patch.object(RunLog, "ring", self._ringing(RunLog.ring)).start()
        patch.object(recovery, "recover", self._recovery(recovery.recover)).start()

    # ------------------------------------------------------------------ steps

    def _traced(self, connect: Callable[..., sqlite3.Connection]) -> Callable[..., Any]:
        def traced(*arguments: Any, **options: Any) -> sqlite3.Connection:
            connection = connect(*arguments, **options)
            connection.set_trace_callback(self._tracer())
            return connection

        return traced

    def _tracer(self) -> Callable[[str], None]:
        before: str | None = None
        done: set[str] = set()

        def trace(sql: str) -> None:
            nonlocal before
            if before is None:
                if not sql.startswith("BEGIN"):
                    return  # a read
                before = IDLE
                done.clear()
            now = step(sql)
            self._pass(Gap(before, now, frozenset(done), self._recovering))
            done.add(now)
            self._done = frozenset(done)
            before = None if now in (COMMIT, "ROLLBACK") else now

        return trace

    def _committing(self, commit: Callable[..., Any]) -> Callable[..., Any]:
        async def committing(store: Store, writes: Sequence[Write]) -> list[Any]:
            self._writes = writes
            results: list[Any] = await commit(store, writes)
            self._created += [write.run.id for write in writes if isinstance(write, CreateRun)]
            self._pass(Gap(COMMIT, RELEASE, self._done, self._recovering))
            # What follows up to the hints happens in this turn of the loop.
            asyncio.get_running_loop().call_soon(self._rest)
            return results

        return committing

    def _ringing(self, ring: Callable[[RunLog], None]) -> Callable[[RunLog], None]:
        def ringing(log: RunLog) -> None:
            self._pass(Gap(RELEASE, HINT, self._done), {"run_id": log.run_id, "seq": log.saved_seq})
            ring(log)

        return ringing

    def _recovery(self, recover: Callable[..., Any]) -> Callable[..., Any]:
        async def recovering(*arguments: Any) -> int:
            self._recovering = True
            recovered: int = await recover(*arguments)
            self._recovering = False
            return recovered

        return recovering

    # ------------------------------------------------------------------ the kill

    def _rest(self) -> None:
        self._page.place = IDLE

    def _pass(self, gap: Gap, hint: dict[str, Any] | None = None) -> None:
        self._page.place = str(gap)
        point = self._point
        if point is None or not self._page.armed or not point.matches(gap):
            return
        self._left -= 1
        if self._left == 0:
            self._write_record(gap, hint)
            os.kill(os.getpid(), signal.SIGKILL)

    def _write_record(self, gap: Gap, hint: dict[str, Any] | None) -> None:
        supervisor = self.supervisor
        live = [supervisor.live(run_id) for run_id in self._created] if supervisor else []
        record = {
            "gap": str(gap),
            "hint": hint,
            "writes": [_shape(write) for write in self._writes],
            "unsaved": sum(1 for one in live if one is not None and one.log.unsaved_bytes),
        }
        self._record.write_text(json.dumps(record))


def _shape(write: Write) -> dict[str, Any]:
    """What a write would store: a run's id and its last seq."""
    match write:
        case CreateRun(run=run):
            return {"kind": "create", "run_id": run.id, "seq": 1, "key": run.idempotency_key}
        case Append(run_id=run_id, last_seq=seq):
            return {"kind": "append", "run_id": run_id, "seq": seq}
        case FinishRun(run_id=run_id, append=append):
            return {"kind": "finish", "run_id": run_id, "seq": append.last_seq}
    return {"kind": type(write).__name__}


def main() -> None:
    if not os.read(0, 1):
        return  # the driver has gone
    die_with_parent()
    plan = json.loads(sys.argv[1])
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    settings = Settings(
        server=ServerSettings(port=plan["port"]),
        storage=StorageSettings(url=plan["database"], synchronous=plan["synchronous"]),
        node=NodeSettings(heartbeat_s=HEARTBEAT_S, lease_s=LEASE_S),
        upstreams={
            "scripted": {
                "kind": "openai",
                "base_url": plan["upstream"],
                "api_key": "x",
                "model": "m",
            }
        },
    )
    if plan.get("mutant"):
        MUTANTS[plan["mutant"]].install()
    faults = Faults(plan)
    faults.install()

    def ready(url: str, supervisor: Supervisor) -> None:
        faults.supervisor = supervisor
        print(url, flush=True)

    serve(settings, ready)


if __name__ == "__main__":
    main()
