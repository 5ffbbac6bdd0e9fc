"""Servers that break a promise on purpose: each must be found out by the checks.

A mutant is installed in the process of the server under test, and nowhere else.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Self
from unittest.mock import patch

from msgspec.structs import replace

from holdfast.live.run_log import RunLog
from holdfast.runner import recovery
from holdfast.runner.supervisor import Supervisor
from holdfast.store.group_commit import GroupCommit
from holdfast.store.port import CreateRun, FinishRun, RunCreated, Store, Write
from holdfast.store.sqlite import SqliteStore

HEAD_START_S = 0.015
"""What a mutant does too early gets so long to show before the kill."""


class Mutant(NamedTuple):
    promise: str
    """What it breaks; a violation of it must be reported."""
    point: str | None
    """Where to kill it, so that the break shows; None: anywhere."""
    install: Callable[[], None]


def release_before_commit(kind: type[Store], head_start_s: float) -> None:
    """Stores of this kind commit only after readers have been shown what is to be committed."""
    commit, take = kind.commit, RunLog.take
    taken: list[RunLog] = []

    def taking(log: RunLog) -> Any:
        taken.append(log)
        return take(log)

    async def committing(store: Store, writes: Sequence[Write]) -> list[Any]:
        for log in taken:
            log.saved()
        taken.clear()
        await asyncio.sleep(head_start_s)
        return await commit(store, writes)

    patch.object(RunLog, "take", taking).start()
    patch.object(kind, "commit", committing).start()


def _ask_before_commit() -> None:
    submit, commit = GroupCommit.submit, SqliteStore.commit
    tasks: set[asyncio.Task[Any]] = set()

    async def submitting(commits: GroupCommit, write: Write, *on_result: Any) -> Any:
        if not isinstance(write, CreateRun):
            return await submit(commits, write, *on_result)
        created = RunCreated(write.run, replayed=False)
        for tell in on_result:
            tell(created)
        task = asyncio.create_task(submit(commits, write))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        return created

    async def committing(store: SqliteStore, writes: Sequence[Write]) -> list[Any]:
        if any(isinstance(write, CreateRun) for write in writes):
            await asyncio.sleep(HEAD_START_S)
        return await commit(store, writes)

    patch.object(GroupCommit, "submit", submitting).start()
    patch.object(SqliteStore, "commit", committing).start()


class _SplitCursor(sqlite3.Cursor):
    def execute(self, sql: str, *parameters: Any) -> Self:
        if sql.startswith("UPDATE messages SET status"):
            super().execute("COMMIT")
            super().execute("BEGIN IMMEDIATE")
        return super().execute(sql, *parameters)


class _SplitConnection(sqlite3.Connection):
    def cursor(self, *arguments: Any) -> Any:
        return super().cursor(_SplitCursor)


def _two_transactions() -> None:
    connect = sqlite3.dbapi2.connect

    def connecting(*arguments: Any, **options: Any) -> sqlite3.Connection:
        return connect(*arguments, **options, factory=_SplitConnection)

    patch.object(sqlite3.dbapi2, "connect", connecting).start()


def _change_writes(change: Callable[[Write], Write]) -> None:
    commit = SqliteStore.commit

    async def committing(store: SqliteStore, writes: Sequence[Write]) -> list[Any]:
        return await commit(store, [change(write) for write in writes])

    patch.object(SqliteStore, "commit", committing).start()


def _references_by_position() -> None:
    def change(write: Write) -> Write:
        if not isinstance(write, FinishRun):
            return write
        shifted = [replace(one, ordinal=one.ordinal - 1) for one in write.answer.references]
        return replace(write, answer=replace(write.answer, references=tuple(shifted)))

    _change_writes(change)


def _forget_keys() -> None:
    def change(write: Write) -> Write:
        if not isinstance(write, CreateRun):
            return write
        return replace(write, run=replace(write.run, idempotency_key=None))

    _change_writes(change)


def _cursor_off_by_one() -> None:
    read = Supervisor.read

    def reading(supervisor: Supervisor, run_id: str, after: int = 0) -> Any:
        return read(supervisor, run_id, after + 1 if after else 0)

    patch.object(Supervisor, "read", reading).start()


def _no_recovery() -> None:
    async def recovering(*arguments: Any) -> int:
        return 0

    patch.object(recovery, "recover", recovering).start()


MUTANTS: dict[str, Mutant] = {
    "release-before-commit": Mutant(
        "P2", "commit", partial(release_before_commit, SqliteStore, HEAD_START_S)
    ),
    "ask-before-commit": Mutant("P1", "ask-run", _ask_before_commit),
    "two-transactions": Mutant("P3", "finish-references", _two_transactions),
    "no-recovery": Mutant("P3", None, _no_recovery),
    "references-by-position": Mutant("P4", None, _references_by_position),
    "cursor-off-by-one": Mutant("P5", None, _cursor_off_by_one),
    "forget-keys": Mutant("P7", None, _forget_keys),
}
