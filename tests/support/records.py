"""Sessions, runs and writes with sensible values; a test names only what it is about."""

import hashlib
import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from holdfast.engine.fold import Answer, Fold, fold
from holdfast.engine.run import UpstreamEnd, decide
from holdfast.events import Entry, Event, Outcome, RunEnd, RunStart, encode, join_log
from holdfast.ids import new_id
from holdfast.store.port import (
    Append,
    CreateRun,
    FinishRun,
    KeyRecord,
    RunCreated,
    RunRecord,
    SessionRecord,
    Store,
    Write,
)

OWNER = "ada"
STRANGER = "mallory"
COMPLETED = UpstreamEnd()

_clock = itertools.count(1_700_000_000_000, 1_000)


def tick() -> int:
    """A time that is a second later at every call."""
    return next(_clock)


def a_session(owner: str = OWNER, **values: Any) -> SessionRecord:
    """A session record with ids and times of its own."""
    at = values.pop("at", None) or tick()
    return SessionRecord(
        **{
            "id": new_id(),
            "owner": owner,
            "title": None,
            "created_at": at,
            "updated_at": at,
            **values,
        }
    )


def a_key(owner: str = OWNER, **values: Any) -> KeyRecord:
    """A key record with an id and a digest of its own."""
    key_id = new_id()
    return KeyRecord(
        **{
            "id": key_id,
            "owner": owner,
            "name": "a key",
            "digest": hashlib.sha256(key_id.encode()).hexdigest(),
            "scopes": ("chat",),
            "created_at": tick(),
            **values,
        }
    )


class Told:
    """One run as a test tells it: its writes, and what they must amount to."""

    def __init__(
        self,
        session: SessionRecord | None = None,
        *,
        owner: str = OWNER,
        session_id: str | None = None,
        question_id: str | None = None,
        question: str | None = "What is kelp?",
        **values: Any,
    ) -> None:
        """Begin a run in a new session, in `session` (created with the run), or in `session_id`."""
        if session_id is None:
            session = session or a_session(owner)
            session_id = session.id
        self.question = None if question_id else question
        self.session = session
        self.run = RunRecord(
            **{
                "id": new_id(),
                "owner": owner,
                "session_id": session_id,
                "question_id": question_id or new_id(),
                "message_id": new_id(),
                "status": "accepted",
                "upstream": "script",
                "created_at": tick(),
                **values,
            }
        )
        start = RunStart(
            run_id=self.run.id,
            session_id=session_id,
            message_id=self.run.message_id,
            question_id=self.run.question_id,
            upstream=self.run.upstream,
            model=self.run.model,
        )
        self.entries = [Entry(1, start, encode(start))]
        self.stored = 1
        """How many entries are in writes already."""
        self._fold = Fold()
        self._fold.add(start)

    def __repr__(self) -> str:
        return f"<run {self.run.id[-4:]} of {len(self.entries)} events>"

    @property
    def answer(self) -> Answer:
        """What the entries so far amount to."""
        return self._fold.answer()

    def create(self, **values: Any) -> CreateRun:
        """The write that begins the run."""
        return CreateRun(
            **{
                "run": self.run,
                "start": self.entries[0].data,
                "session": self.session,
                "question": self.question,
                **values,
            }
        )

    def say(self, *events: Event) -> Append:
        """The write for more events."""
        for event in events:
            self.entries.append(Entry(len(self.entries) + 1, event, encode(event)))
            self._fold.add(event)
        fresh = self.entries[self.stored :]
        self.stored = len(self.entries)
        return Append(self.run.id, fresh[0].seq, fresh[-1].seq, join_log(fresh))

    def finish(
        self, *events: Event, end: UpstreamEnd | RunEnd = COMPLETED, **values: Any
    ) -> FinishRun:
        """The write that says `events` and ends the run."""
        for event in events:
            self._fold.add(event)
        if not isinstance(end, RunEnd):
            end = decide(end, self._fold.arrived)
        for event in events:
            self.entries.append(Entry(len(self.entries) + 1, event, encode(event)))
        append = self.say(end)
        return FinishRun(
            **{
                "run_id": self.run.id,
                "message_id": self.run.message_id,
                "append": append,
                "answer": self.answer,
                "ended_at": tick(),
                **values,
            }
        )

    def rival(self) -> "Told":
        """Another teller of the same run, who knows what is in writes so far."""
        other = Told()
        other.run, other.session, other.question = self.run, self.session, self.question
        other.entries, other.stored = self.entries[: self.stored], self.stored
        other._fold = Fold(fold(events_of(other.entries)))
        return other

    def next_turn(self, **values: Any) -> "Told":
        """The next question of the same session."""
        return Told(owner=self.run.owner, session_id=self.run.session_id, **values)

    def again(self, **values: Any) -> "Told":
        """Another answer to the same question."""
        return self.next_turn(question_id=self.run.question_id, **values)


async def commit(store: Store, *writes: Write) -> list[Any]:
    """Commit `writes`; none of them may be refused."""
    results = await store.commit(writes)
    for result in results:
        if isinstance(result, Exception):
            raise result
    return results


async def begin(store: Store, told: Told, *events: Event) -> Told:
    """Commit the beginning of a run, and then `events` if there are any."""
    (created,) = await commit(store, told.create())
    assert created == RunCreated(told.run, replayed=False)
    if events:
        await commit(store, told.say(*events))
    return told


async def tell(store: Store, told: Told, *events: Event, **values: Any) -> Told:
    """Commit a whole run."""
    await begin(store, told)
    assert await commit(store, told.finish(*events, **values)) == [True]
    return told


async def read_all(store: Store, run_id: str, after: int = 0, limit: int = 1000) -> list[Entry]:
    """A run's entries after `after`, page by page, as far as they go."""
    entries: list[Entry] = []
    while True:
        page = await store.read_log(run_id, after, limit)
        assert page is not None, "there is no such run"
        if not page.entries:
            return entries
        assert [entry.seq for entry in page.entries] == list(
            range(after + 1, after + 1 + len(page.entries))
        )
        entries += page.entries
        after = entries[-1].seq


def events_of(entries: Iterable[Entry]) -> list[Event]:
    """The events without their places."""
    return [entry.event for entry in entries]


def outcome_of(entries: Sequence[Entry]) -> Outcome | None:
    """How a log ended; None if it has not."""
    last = entries[-1].event
    return last.outcome if isinstance(last, RunEnd) else None


def changed(record: Any, **values: Any) -> Any:
    """A copy of a record with other values."""
    return msgspec.structs.replace(record, **values)
