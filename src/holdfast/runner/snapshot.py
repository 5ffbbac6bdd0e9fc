"""Showing a run before it has ended: the fold of what is committed so far."""

import msgspec

from holdfast.engine.fold import Answer, Fold
from holdfast.live.run_log import RunLog
from holdfast.store.port import MessageRecord, Store


async def answer_so_far(store: Store, run_id: str, log: RunLog | None) -> tuple[Answer, int]:
    """What the committed events of a run amount to, and the seq of the last one.

    Raises:
        StoreUnavailable: The store cannot be read.
    """
    fold, seq = Fold(), 0
    entries = log.after(0) if log is not None else None
    in_memory = entries is not None
    while True:
        if entries is None:
            page = await store.read_log(run_id, seq)
            entries = page.entries if page is not None else []
        for entry in entries:
            fold.add(entry.event)
            seq = entry.seq
        if in_memory or not entries:
            return fold.answer(), seq
        entries = None


def with_answer(message: MessageRecord, answer: Answer) -> MessageRecord:
    """A message that is still being written, as it is so far."""
    end = answer.end
    return msgspec.structs.replace(
        message,
        answer=answer,
        status=answer.status.value,
        outcome=end.outcome.value if end else None,
        reason=end.reason.value if end and end.reason else None,
        error=end.error if end else None,
    )
