"""Stores that do what a test says."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from holdfast.engine.policy import Turn
from holdfast.errors import StoreUnavailable
from holdfast.store.port import (
    Append,
    KeyRecord,
    LogPage,
    MessageRecord,
    RunRecord,
    SessionRecord,
    Store,
    Write,
)

Answer: TypeAlias = Callable[[Sequence[Write]], list[Any]]
"""What a commit does: give results, or raise."""


def accept(writes: Sequence[Write]) -> list[Any]:
    """Everything is stored."""
    return [None] * len(writes)


def fail(writes: Sequence[Write]) -> list[Any]:
    """The store is down."""
    raise StoreUnavailable("scripted: down")


class ScriptedStore(Store):
    """Answers commits as it is told to, and keeps no data.

    `script` holds the answers to the next commits; when it is empty, `otherwise` counts. While
    `gate` is not set, commits have begun but do not return.
    """

    def __init__(self) -> None:
        self.batches: list[list[Write]] = []
        self.script: deque[Answer] = deque()
        self.otherwise: Answer = accept
        self.gate = asyncio.Event()
        self.gate.set()
        self._begun = asyncio.Condition()

    async def commit(self, writes: Sequence[Write]) -> list[Any]:
        async with self._begun:
            self.batches.append(list(writes))
            self._begun.notify_all()
        await self.gate.wait()
        answer = self.script.popleft() if self.script else self.otherwise
        return answer(writes)

    async def begun(self, commits: int) -> None:
        """Wait until so many commits have begun."""
        async with self._begun:
            await self._begun.wait_for(lambda: len(self.batches) >= commits)

    async def open(self) -> None:
        """Nothing to open."""

    async def close(self) -> None:
        """Nothing to close."""

    async def _unasked(self, *_: Any, **__: Any) -> Any:
        raise NotImplementedError("this test reads nothing")

    read_log = live_runs = get_run = get_raw = get_session = find_session = _unasked
    list_sessions = get_message = list_messages = list_turns = _unasked
    find_run = get_conversation = list_keys = _unasked


class ScriptedSource:
    """A source of the group commit that notes everything that happens to it."""

    def __init__(self, name: str, mark: Callable[["ScriptedSource"], None]) -> None:
        self.name = name
        self.settled: list[tuple[Write, Any]] = []
        """Each write with what came of it."""
        self.stalls = 0
        self.rules_broken: list[str] = []
        self._mark = mark
        self._marked = False
        self._said = 0
        self._unsaved: list[bytes] = []
        self._taken: Write | None = None
        self._changed = asyncio.Event()

    def say(self, count: int = 1) -> None:
        """Have more to save."""
        for _ in range(count):
            self._said += 1
            self._unsaved.append(b"%d\n" % self._said)
        if not self._marked:
            self._marked = True
            self._mark(self)

    def pending(self) -> Write | None:
        """See `Source.take`."""
        if self._taken is not None:
            self.rules_broken.append("taken again before it was settled")
        self._marked = False
        if not self._unsaved:
            return None
        payload, self._unsaved = b"".join(self._unsaved), []
        last = int(payload.split()[-1])
        self._taken = Append(self.name, int(payload.split()[0]), last, payload)
        return self._taken

    def settle(self, result: Any) -> None:
        """See `Source.settle`."""
        if self._taken is None:
            self.rules_broken.append("settled without being taken")
        else:
            self.settled.append((self._taken, result))
        self._taken = None
        self._changed.set()

    def stall(self) -> None:
        """See `Source.stall`."""
        self.stalls += 1
        self._changed.set()

    async def until(self, holds: Callable[["ScriptedSource"], bool]) -> None:
        """Wait until something that was done to this source makes `holds` true."""
        while not holds(self):
            self._changed.clear()
            await self._changed.wait()

    @property
    def saved(self) -> list[int]:
        """The numbers that were stored, in the order in which they were."""
        good = [write for write, result in self.settled if not isinstance(result, Exception)]
        return [
            int(n) for write in good if isinstance(write, Append) for n in write.payload.split()
        ]


class FaultyStore(Store):
    """A real store whose commits and reads a test can hold back, fail or refuse."""

    def __init__(self, inner: Store) -> None:
        self.inner = inner
        self.gate = asyncio.Event()
        """Commits wait for it, before anything is written."""
        self.gate.set()
        self.read_gate = asyncio.Event()
        """Reads wait for it."""
        self.read_gate.set()
        self.down = False
        """Commits raise StoreUnavailable, as those of a full disk do; reads go on."""
        self.refuse: Callable[[Write], Exception | None] = lambda write: None
        """The exception that a write is refused with, if any."""
        self.applied: list[Write] = []
        """The writes that were given to the real store, in order."""
        self.begun = 0
        self.reads = 0
        self._changed = asyncio.Condition()

    async def commit(self, writes: Sequence[Write]) -> list[Any]:
        self.begun += 1
        await self._notify()
        await self.gate.wait()
        if self.down:
            raise StoreUnavailable("scripted: down")
        refusals = [self.refuse(write) for write in writes]
        good = [w for w, refusal in zip(writes, refusals, strict=True) if refusal is None]
        results = iter(await self.inner.commit(good) if good else [])
        self.applied += good
        await self._notify()
        return [next(results) if refusal is None else refusal for refusal in refusals]

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def until(self, holds: Callable[["FaultyStore"], bool]) -> None:
        """Wait until the commits begun or applied make `holds` true."""
        async with self._changed:
            await self._changed.wait_for(lambda: holds(self))

    async def until_applied(self, kind: type[Any], run_id: str | None = None) -> None:
        """Wait until a write of this kind (of this run) is stored."""
        await self.until(
            lambda store: any(
                isinstance(write, kind) and run_id in (None, getattr(write, "run_id", None))
                for write in store.applied
            )
        )

    async def open(self) -> None:
        await self.inner.open()

    async def close(self) -> None:
        await self.inner.close()

    async def _reading(self) -> Store:
        """The real store, when it may be read."""
        self.reads += 1
        await self.read_gate.wait()
        return self.inner

    async def read_log(self, run_id: str, after: int, limit: int = 1000) -> LogPage | None:
        return await (await self._reading()).read_log(run_id, after, limit)

    async def live_runs(self) -> list[tuple[RunRecord, bool]]:
        return await (await self._reading()).live_runs()

    async def get_run(self, owner: str, run_id: str) -> RunRecord | None:
        return await (await self._reading()).get_run(owner, run_id)

    async def get_raw(self, run_id: str) -> tuple[Any, Any]:
        return await (await self._reading()).get_raw(run_id)

    async def get_session(self, owner: str, session_id: str) -> SessionRecord | None:
        return await (await self._reading()).get_session(owner, session_id)

    async def find_session(self, owner: str, dialect: str, key: str) -> SessionRecord | None:
        return await (await self._reading()).find_session(owner, dialect, key)

    async def find_run(self, owner: str, idempotency_key: str) -> RunRecord | None:
        return await (await self._reading()).find_run(owner, idempotency_key)

    async def get_conversation(self, session_id: str, upstream: str) -> str | None:
        return await (await self._reading()).get_conversation(session_id, upstream)

    async def list_keys(self) -> list[KeyRecord]:
        return await (await self._reading()).list_keys()

    async def list_sessions(
        self,
        owner: str,
        limit: int,
        before: tuple[int, str] | None = None,
        query: str | None = None,
    ) -> list[SessionRecord]:
        return await (await self._reading()).list_sessions(owner, limit, before, query)

    async def get_message(self, owner: str, message_id: str) -> MessageRecord | None:
        return await (await self._reading()).get_message(owner, message_id)

    async def list_messages(
        self, session_id: str, limit: int, after: tuple[str, str] | None = None
    ) -> list[MessageRecord]:
        return await (await self._reading()).list_messages(session_id, limit, after)

    async def list_turns(self, session_id: str, before: str, limit: int) -> list[Turn]:
        return await (await self._reading()).list_turns(session_id, before, limit)
