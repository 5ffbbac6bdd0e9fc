"""What can be read of sessions, messages and runs, those included that are being written."""

from abc import ABC, abstractmethod
from typing import Any

from holdfast.engine.run import Status
from holdfast.errors import NotFound
from holdfast.runner.execution import Execution
from holdfast.runner.snapshot import answer_so_far, with_answer
from holdfast.store.port import MessageRecord, RunRecord, SessionRecord, Store


class Archive(ABC):
    """The store, and what is live here.

    Attributes:
        store: Where everything is.
    """

    def __init__(self, store: Store) -> None:
        """Read from `store`."""
        self.store = store

    @abstractmethod
    def live(self, run_id: str) -> Execution | None:
        """The execution of a run that is live in this process."""

    async def get_run(self, owner: str, run_id: str) -> RunRecord:
        """A run of this owner.

        Raises:
            NotFound: No such run.
        """
        run = await self.store.get_run(owner, run_id)
        if run is None:
            raise NotFound("there is no such run")
        return run

    async def extent(self, run: RunRecord) -> tuple[int, bool]:
        """The seq of the last committed event of a run, and whether more may follow.

        Raises:
            StoreUnavailable: The store cannot be read.
        """
        execution = self.live(run.id)
        if execution is not None:
            return execution.log.saved_seq, True
        if run.last_seq is not None:
            return run.last_seq, False
        page = await self.store.read_log(run.id, 0, 1)
        return (0, False) if page is None else (page.last_seq, not page.ended)

    async def get_session(self, owner: str, session_id: str) -> SessionRecord:
        """A session of this owner.

        Raises:
            NotFound: No such session.
        """
        session = await self.store.get_session(owner, session_id)
        if session is None:
            raise NotFound("there is no such session")
        return session

    async def get_message(self, owner: str, message_id: str) -> MessageRecord:
        """A message of this owner; while it streams, with what is committed so far.

        Raises:
            NotFound: No such message.
        """
        message = await self.store.get_message(owner, message_id)
        if message is None:
            raise NotFound("there is no such message")
        return (await self._shown(message))[0]

    async def list_messages(
        self, session_id: str, limit: int, after: tuple[str, str] | None
    ) -> list[MessageRecord]:
        """The session's messages, oldest first; the caller must own the session."""
        messages = await self.store.list_messages(session_id, limit, after)
        return [(await self._shown(message))[0] for message in messages]

    async def get_raw(self, owner: str, run_id: str) -> tuple[Any, Any]:
        """What was said on the wire in an ended run: request and response.

        Raises:
            NotFound: No such run.
        """
        await self.get_run(owner, run_id)
        return await self.store.get_raw(run_id)

    async def snapshot(self, owner: str, run_id: str) -> tuple[RunRecord, MessageRecord, int]:
        """A run with its message as far as it is committed, and the seq of that picture.

        Raises:
            NotFound: No such run.
        """
        run = await self.get_run(owner, run_id)
        message = await self.store.get_message(owner, run.message_id)
        if message is None:
            raise NotFound("there is no such run")
        message, seq = await self._shown(message)
        if message.outcome is not None and run.status != "ended":
            run = await self.get_run(owner, run_id)  # it ended between the two reads
        return run, message, run.last_seq or seq

    async def _shown(self, message: MessageRecord) -> tuple[MessageRecord, int]:
        if message.status != Status.STREAMING or message.run_id is None:
            return message, 0
        execution = self.live(message.run_id)
        log = execution.log if execution is not None else None
        answer, seq = await answer_so_far(self.store, message.run_id, log)
        return with_answer(message, answer), seq
