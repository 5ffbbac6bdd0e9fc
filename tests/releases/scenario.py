"""A story that makes a store do everything it can: what it says to its database is recorded.

It uses nothing but the port, so that it runs with the code of any release. One thing happens after
the other, so its statements come in the same order each time.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from holdfast.engine.run import UpstreamEnd
from holdfast.events import Reason, ReasoningDelta, Reference, References, TextDelta, join_log
from holdfast.store.port import (
    CompleteMessage,
    CreateKey,
    CreateSession,
    DeleteSession,
    Probe,
    Remember,
    RequestCancel,
    RevokeKey,
    SetFeedback,
    Store,
    UpdateSession,
)
from tests.support.records import (
    OWNER,
    STRANGER,
    Told,
    a_key,
    a_session,
    begin,
    commit,
    read_all,
    tell,
    tick,
)

SHEETS = References(
    references=(
        Reference(ordinal=1, text="海带 holds", document_name="kelp.md", score=0.5),
        Reference(ordinal=2, text="fast", url="https://kelp.example/2", chunk_id="c2"),
    )
)


class Story:
    """What was told so far."""

    def __init__(self, store: Store, mark: Callable[[], None]) -> None:
        """Tell it to `store`; `mark` is called where another release may take over."""
        self.store = store
        self._mark = mark
        self._runs: list[Told] = []

    async def tell(self) -> None:
        """All of it."""
        chapters: list[Callable[[], Awaitable[None]]] = [
            self._keys,
            self._sessions,
            self._whole_answers,
            self._versions,
            self._many_at_once,
            self._endings,
            self._deletion,
        ]
        if hasattr(self.store, "join"):
            chapters.append(self._nodes)
        for chapter in chapters:
            await chapter()
            self._mark()
            await self._look_around()

    async def _keys(self) -> None:
        kept, lost = a_key(concurrent_runs=2), a_key(STRANGER, asks_per_minute=3)
        await commit(self.store, CreateKey(kept), CreateKey(lost), RevokeKey(lost.id, tick()))

    async def _sessions(self) -> None:
        named = a_session(dialect="anythingllm", key="thread-1", metadata={"a": ["海", None]})
        hidden = a_session(hidden=True, preset="p")
        await commit(self.store, CreateSession(named), CreateSession(hidden), Probe(tick()))
        await commit(
            self.store,
            UpdateSession(OWNER, named.id, tick(), title="Kelp 100%", metadata={"b": 1}),
            Remember(named.id, "script", "theirs-1"),
            Remember(named.id, "script", "theirs-2"),
        )
        await self.store.find_session(OWNER, "anythingllm", "thread-1")
        await self.store.get_session(OWNER, named.id)
        await self.store.get_conversation(named.id, "script")

    async def _whole_answers(self) -> None:
        first = Told(idempotency_key="once", fingerprint="f", model="m1", route_reason="default")
        await begin(self.store, first, ReasoningDelta("hm"), SHEETS)
        await commit(self.store, first.create())  # the same key: the same run
        await self.store.commit([first.next_turn().create()])  # refused: busy
        wire = {"said": "on the wire"}
        await commit(
            self.store, msgspec.structs.replace(first.say(TextDelta("Kelp ")), request=wire)
        )
        ending = first.finish(TextDelta("holds."), metadata={"m": 1}, response={"heard": 1})
        await commit(self.store, ending)
        await self.store.commit([first.rival().finish()])  # too late
        second = await tell(self.store, first.next_turn(question="百分之 100%_?"), TextDelta("海"))
        third = first.next_turn()
        await commit(self.store, third.create(title="Named by its first question"))
        ending = third.finish(TextDelta("Ends."))
        await commit(self.store, msgspec.structs.replace(ending, log=join_log(third.entries)))
        self._runs += [first, second, third]
        await self.store.find_run(OWNER, "once")
        await self.store.list_turns(first.run.session_id, third.run.question_id, 2)
        for query in ("100%_", "kelp", "  ", "nowhere"):
            await self.store.list_sessions(OWNER, 10, query=query)

    async def _versions(self) -> None:
        first = self._runs[-1]
        partial = await tell(
            self.store, first.again(), TextDelta("Half"), end=UpstreamEnd(Reason.UPSTREAM_TIMEOUT)
        )
        run = partial.run
        await commit(
            self.store,
            SetFeedback(OWNER, first.run.message_id, {"rating": 1}),
            CompleteMessage(
                OWNER, run.session_id, run.message_id, "Half and half", SHEETS.references, tick()
            ),
        )
        await self.store.commit([SetFeedback(STRANGER, run.message_id, None)])  # not found
        self._runs.append(partial)

    async def _many_at_once(self) -> None:
        live = await begin(self.store, Told())
        others = [await begin(self.store, Told()) for _ in range(3)]
        await commit(self.store, *[live.say(TextDelta(f"{n} ")) for n in range(85)])
        await commit(self.store, *[one.say(TextDelta("all")) for one in (live, *others)])
        await commit(self.store, *[one.finish(TextDelta(".")) for one in others])
        self._runs += [live, *others]

    async def _endings(self) -> None:
        live = self._runs[-4]
        await commit(self.store, RequestCancel(live.run.id))
        await self.store.live_runs()
        await commit(self.store, live.finish(end=UpstreamEnd(Reason.SERVER_CRASH)))

    async def _deletion(self) -> None:
        gone = await begin(self.store, Told(), SHEETS)
        await commit(self.store, DeleteSession(OWNER, gone.run.session_id))
        await self.store.commit([DeleteSession(OWNER, gone.run.session_id)])  # not found

    async def _nodes(self) -> None:
        """What only a store has that several nodes share."""
        store: Any = self.store
        live = await begin(store, Told(), TextDelta("Kelp"))
        self._runs.append(live)
        await store.node_of(live.run.id)
        await store.own_runs()
        await store.read_news({live.run.id: 1, "none": 0})
        await store.beat()
        await store.reap()
        await store.leave()
        await store.orphans()
        await store.join()
        await commit(store, live.finish(end=UpstreamEnd(Reason.SERVER_CRASH)))

    async def _look_around(self) -> None:
        """Read a little of everything that was told."""
        await self.store.live_runs()
        for told in self._runs[-2:]:
            await self._see(told)
            await self.store.read_log(told.run.id, 1, 2)
            messages = await self.store.list_messages(told.run.session_id, 100)
            after = (messages[0].turn_id, messages[0].id)
            await self.store.list_messages(told.run.session_id, 1, after)

    async def view(self) -> list[Any]:
        """What people can see of it, as plain values."""
        sessions = await self.store.list_sessions(OWNER, 100)
        await self.store.list_sessions(OWNER, 2, (sessions[0].updated_at, sessions[0].id))
        plain: list[Any] = _plain(
            [
                await self.store.list_keys(),
                sessions,
                [await self.store.list_messages(session.id, 100) for session in sessions],
                [await self._see(told) for told in self._runs],
            ]
        )
        return plain

    async def _see(self, told: Told) -> list[Any]:
        return await see(self.store, told.run.id, told.run.message_id)


def _plain(value: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value))


async def see(store: Store, run_id: str, message_id: str) -> list[Any]:
    """What is kept of a run."""
    return [
        await store.get_message(OWNER, message_id),
        await store.get_run(OWNER, run_id),
        await store.get_raw(run_id),
        [entry.data.decode() for entry in await read_all(store, run_id)],
    ]


async def view_again(store: Store, recorded: Sequence[Any]) -> list[Any]:
    """What `Story.view` gave, read with the code of now."""
    _, sessions, _, runs = recorded
    plain: list[Any] = _plain(
        [
            await store.list_keys(),
            await store.list_sessions(OWNER, 100),
            [await store.list_messages(session["id"], 100) for session in sessions],
            [await see(store, run["id"], message["id"]) for message, run, _, _ in runs],
        ]
    )
    return plain
