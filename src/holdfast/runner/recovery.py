"""Ending runs whose owner cannot: after a crash, or when the store refused their last events.

The stored events are all that any reader can have seen, so the same fold over them gives the
message that people were looking at.
"""

import logging
from collections.abc import Callable, Sequence

import msgspec

from holdfast.engine.fold import Fold
from holdfast.engine.run import UpstreamEnd, decide
from holdfast.events import Entry, Reason, encode, join_log
from holdfast.store.port import Append, FinishRun, RunRecord, Store

logger = logging.getLogger(__name__)

BATCH = 50
"""Runs ended in one transaction."""

CRASHED = UpstreamEnd(
    Reason.SERVER_CRASH, error="the server stopped while this answer was being written"
)
CANCELLED = UpstreamEnd(Reason.CLIENT_CANCELLED)


async def recover(
    store: Store, runs: Sequence[tuple[RunRecord, bool]], now: Callable[[], int]
) -> int:
    """End runs that nobody executes; returns how many.

    Args:
        store: Where they are.
        runs: The runs, each with whether it was cancelled.
        now: The wall clock, in milliseconds since the epoch.

    Raises:
        StoreUnavailable: The store does not answer.
    """
    for start in range(0, len(runs), BATCH):
        batch = runs[start : start + BATCH]
        writes = [
            await ending(store, run, CANCELLED if cancelled else CRASHED, now())
            for run, cancelled in batch
        ]
        for write, result in zip(writes, await store.commit(writes), strict=True):
            if isinstance(result, Exception):
                logger.error("run %s could not be recovered: %s", write.run_id, result)
    return len(runs)


async def ending(store: Store, run: RunRecord, end: UpstreamEnd, at: int) -> FinishRun:
    """The write that ends `run` with what is stored of it.

    Raises:
        StoreUnavailable: The store does not answer.
    """
    fold = Fold()
    log: list[Entry] = []
    while entries := await _next_page(store, run.id, len(log)):
        for entry in entries:
            fold.add(entry.event)
        log += entries
    run_end = decide(end, fold.arrived)
    fold.add(run_end)
    last = Entry(len(log) + 1, run_end, encode(run_end))
    answer = fold.answer()
    return FinishRun(
        run.id,
        run.message_id,
        append=Append(run.id, last.seq, last.seq, join_log([last])),
        answer=answer,
        ended_at=at,
        metadata=answer.early_end,
        log=join_log([*log, last]),
    )


async def _next_page(store: Store, run_id: str, after: int) -> list[Entry]:
    """The next entries; of a damaged journal those before the damage."""
    for limit in (1000, 1):
        try:
            page = await store.read_log(run_id, after, limit)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            damage = error
            continue
        return page.entries if page is not None else []
    logger.error("the journal of run %s is damaged after event %d: %s", run_id, after, damage)
    return []
