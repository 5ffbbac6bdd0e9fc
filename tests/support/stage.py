"""A supervisor on a real store with a scripted upstream: the whole engine, without a server."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from holdfast.events import Entry, RunEnd
from holdfast.runner.execution import Execution
from holdfast.runner.supervisor import Question, Supervisor
from holdfast.settings import Settings
from holdfast.store.port import MessageRecord, RunRecord
from holdfast.store.sqlite import SqliteStore
from tests.support.records import OWNER
from tests.support.scripted import Call, ScriptedUpstream, Step
from tests.support.stores import FaultyStore

GIVE_UP_S = 5.0
"""Far more than anything takes: only a test that fails waits for it."""


def make_settings(folder: Path, **sections: dict[str, Any]) -> Settings:
    """Settings for tests: a file in `folder`, no disk flush per commit."""
    storage = {
        "url": f"sqlite:///{folder}/chat.db",
        "synchronous": "normal",
        **sections.pop("storage", {}),
    }
    return Settings(storage=storage, **sections)  # type: ignore[arg-type]


class Asked:
    """A question that was asked: its run, and the hand of the test on its answer."""

    def __init__(self, stage: "Stage", run: RunRecord, execution: Execution, call: Call) -> None:
        self.stage = stage
        self.run = run
        self.execution = execution
        self.call = call

    async def over(self) -> None:
        """Wait until the run's end is committed or given up."""
        await asyncio.wait_for(self.execution.over.wait(), GIVE_UP_S)

    async def saved(self, seq: int) -> None:
        """Wait until so many events are committed."""
        async with asyncio.timeout(GIVE_UP_S):
            changed = asyncio.Event()
            self.execution.log.listen(changed.set)
            while self.execution.log.saved_seq < seq:
                changed.clear()
                await changed.wait()
            self.execution.log.unlisten(changed.set)

    async def ended_in_store(self) -> None:
        """Wait until the run is stored as ended; one that was refused is ended a little later."""

        async def is_ended() -> bool:
            return (await self.record()).status == "ended"

        await until(is_ended)

    async def ending(self) -> RunEnd:
        """Wait for the end and give it as the log has it."""
        await self.over()
        event = (await self.stage.read(self.run.id))[-1].event
        assert isinstance(event, RunEnd)
        return event

    async def message(self) -> MessageRecord:
        """The message as it is shown."""
        return await self.stage.supervisor.get_message(self.run.owner, self.run.message_id)

    async def record(self) -> RunRecord:
        """The run as it is stored."""
        return await self.stage.supervisor.get_run(self.run.owner, self.run.id)


class Stage:
    """One process of Holdfast."""

    def __init__(self, folder: Path, *steps: Step, **sections: dict[str, Any]) -> None:
        """Set up in `folder`; the upstream has `steps` ready for every question.

        `others` among the sections are further upstreams by name.
        """
        others: Mapping[str, Any] = sections.pop("others", {})
        self.settings = make_settings(folder, **sections)
        self.store = FaultyStore(
            SqliteStore(self.settings.storage.url, synchronous=self.settings.storage.synchronous)
        )
        self.upstream = ScriptedUpstream("script", *steps)
        self.supervisor = Supervisor(self.settings, self.store, {"script": self.upstream, **others})

    async def ask(self, message: str = "What is kelp?", **values: Any) -> Asked:
        """Ask, and wait until the upstream was called."""
        times = len(self.upstream.calls) + 1
        created = await self.supervisor.ask(self.question(message, **values))
        assert not created.replayed
        execution = self.supervisor.live(created.run.id)
        assert execution is not None
        call = await asyncio.wait_for(self.upstream.called(times), GIVE_UP_S)
        return Asked(self, created.run, execution, call)

    def question(self, message: str = "What is kelp?", **values: Any) -> Question:
        """A question of the usual owner."""
        return Question(**{"owner": OWNER, "message": message, **values})

    async def read(self, run_id: str, after: int = 0) -> list[Entry]:
        """What a reader gets from `after` to the end."""
        entries: list[Entry] = []
        reader = self.supervisor.read(run_id, after)
        try:
            async with asyncio.timeout(GIVE_UP_S):
                while (more := await reader.next()) is not None:
                    entries += more
        finally:
            reader.close()
        return entries

    async def finish(self, asked: Asked, *items: Any) -> None:
        """Give `items`, the last of them the end, and wait until all is stored."""
        asked.call.push(*items)
        await asked.over()


@asynccontextmanager
async def on_stage(folder: Path, *steps: Step, **sections: dict[str, Any]) -> AsyncIterator[Stage]:
    """A stage that is started, and stopped in the end whatever happened on it."""
    stage = Stage(folder, *steps, **sections)
    await stage.supervisor.start()
    try:
        yield stage
    finally:
        stage.store.gate.set()
        stage.store.read_gate.set()
        stage.store.down = False
        for call in stage.upstream.calls:
            call.close_gate.set()
        async with asyncio.timeout(GIVE_UP_S):
            await stage.supervisor.stop()


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait for something that nobody rings for, such as what is in the store."""
    async with asyncio.timeout(GIVE_UP_S):
        while not await holds():  # noqa: ASYNC110
            await asyncio.sleep(0)
