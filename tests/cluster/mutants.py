"""Nodes that break a promise on purpose: each must be found out by the checks.

A mutant is installed in the processes of the nodes under test, and nowhere else.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple
from unittest.mock import patch

from msgspec.structs import replace

from holdfast.errors import Fenced
from holdfast.events import Entry
from holdfast.live.tail import Tail
from holdfast.runner import followers
from holdfast.runner.node import Node
from holdfast.runner.supervisor import Supervisor
from holdfast.store.port import CreateRun, Write
from holdfast.store.postgres import PostgresStore, statements
from holdfast.store.postgres.control import Control
from tests.cluster import faults
from tests.cluster.faults import Fault
from tests.faults.mutants import release_before_commit

HEAD_START_S = 0.05
"""What a mutant does too early gets so long to show before it is true."""


class Mutant(NamedTuple):
    promises: frozenset[str]
    """What it breaks; a violation of one of them must be reported."""
    acts: tuple[tuple[type[Fault], ...], ...]
    """What must go wrong so that the break shows."""
    install: Callable[[], None]


def _no_fencing() -> None:
    """A node does not learn that its claim is over, and the database does not mind."""
    beat = Control.beat

    async def beating(control: Control, generation: int) -> int:
        try:
            return await beat(control, generation)
        except Fenced:
            return time.time_ns() // 1_000_000

    patch.object(Control, "beat", beating).start()
    condition = "WHERE id = $1 AND generation = $2 FOR SHARE"
    for name in ("CLAIM", "APPEND", "APPEND_WITH_REQUESTS"):
        sql: str = getattr(statements, name)
        assert condition in sql
        sql = sql.replace(condition, "WHERE id = $1 AND $2::bigint IS NOT NULL")
        patch.object(statements, name, sql).start()


def _keep_generation() -> None:
    """The reaper takes the lease and does not raise the generation."""
    sql = "UPDATE nodes SET generation = generation WHERE id = ANY($1::text[])"
    patch.object(statements, "RAISE", sql).start()


def _no_reaper() -> None:
    async def reaping(node: Node) -> None:
        pass

    patch.object(Node, "_reap", reaping).start()


def _skip_entries() -> None:
    """A follower loses an entry now and then."""
    show = Tail.show

    def showing(tail: Tail, entries: Sequence[Entry], size: int, ended: bool = False) -> None:
        if type(tail) is Tail and len(entries) > 1:
            entries = [*entries[:-2], entries[-1]]
        show(tail, entries, size, ended)

    patch.object(Tail, "show", showing).start()


def _no_polling() -> None:
    patch.object(followers, "POLL_S", 100_000.0).start()


def _cancel_only_here() -> None:
    async def cancelling(*arguments: Any) -> None:
        pass

    patch.object(Supervisor, "_cancel_elsewhere", cancelling).start()


def _keep_lost_runs() -> None:
    """A node that has lost its claim goes on with its runs."""
    patch.object(Supervisor, "abandon", lambda supervisor: None).start()
    patch.object(Supervisor, "adopt", lambda supervisor, runs: None).start()


def _forget_keys() -> None:
    commit = PostgresStore.commit

    async def committing(store: PostgresStore, writes: Sequence[Write]) -> list[Any]:
        return await commit(store, [_without_key(write) for write in writes])

    patch.object(PostgresStore, "commit", committing).start()


def _without_key(write: Write) -> Write:
    if not isinstance(write, CreateRun):
        return write
    return replace(write, run=replace(write.run, idempotency_key=None))


def _of(*promises: str) -> frozenset[str]:
    return frozenset(promises)


MUTANTS: dict[str, Mutant] = {
    "release-before-commit": Mutant(
        _of("P2"), ((faults.Kill,),), partial(release_before_commit, PostgresStore, HEAD_START_S)
    ),
    "no-fencing": Mutant(_of("P3", "fencing"), ((faults.Stop,),), _no_fencing),
    "keep-generation": Mutant(_of("P3", "fencing"), ((faults.Stop,),), _keep_generation),
    "no-reaper": Mutant(_of("P3"), ((faults.Kill,),), _no_reaper),
    "skip-entries": Mutant(_of("P2", "P5"), ((faults.Flicker,),), _skip_entries),
    "no-polling": Mutant(_of("P5"), ((faults.HintsLost, faults.Kill),), _no_polling),
    "cancel-only-here": Mutant(_of("P10"), ((faults.Flicker,),), _cancel_only_here),
    "keep-lost-runs": Mutant(_of("P10", "fencing"), ((faults.Cut,),), _keep_lost_runs),
    "forget-keys": Mutant(_of("P7"), ((faults.Flicker,),), _forget_keys),
}
