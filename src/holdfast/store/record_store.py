"""The reads of the port that are the same for every database: they only run in another place."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection

from holdfast.engine.policy import Turn
from holdfast.store import reads
from holdfast.store.port import KeyRecord, MessageRecord, RunRecord, SessionRecord, Store

P = ParamSpec("P")
R = TypeVar("R")


class RecordStore(Store):
    """A store that can run the functions of `reads`."""

    @abstractmethod
    async def _read(
        self, read: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs
    ) -> R:
        """The result of `read`, called with a connection.

        Raises:
            StoreUnavailable: The database does not answer.
        """

    async def live_runs(self) -> list[tuple[RunRecord, bool]]:
        """See `Store.live_runs`."""
        return await self._read(reads.live_runs)

    async def get_run(self, owner: str, run_id: str) -> RunRecord | None:
        """See `Store.get_run`."""
        return await self._read(reads.get_run, owner, run_id)

    async def get_raw(self, run_id: str) -> tuple[Any, Any]:
        """See `Store.get_raw`."""
        return await self._read(reads.get_raw, run_id)

    async def get_session(self, owner: str, session_id: str) -> SessionRecord | None:
        """See `Store.get_session`."""
        return await self._read(reads.get_session, owner, session_id)

    async def find_session(self, owner: str, dialect: str, key: str) -> SessionRecord | None:
        """See `Store.find_session`."""
        return await self._read(reads.find_session, owner, dialect, key)

    async def find_run(self, owner: str, idempotency_key: str) -> RunRecord | None:
        """See `Store.find_run`."""
        return await self._read(reads.find_run, owner, idempotency_key)

    async def get_conversation(self, session_id: str, upstream: str) -> str | None:
        """See `Store.get_conversation`."""
        return await self._read(reads.get_conversation, session_id, upstream)

    async def list_keys(self) -> list[KeyRecord]:
        """See `Store.list_keys`."""
        return await self._read(reads.list_keys)

    async def list_sessions(
        self,
        owner: str,
        limit: int,
        before: tuple[int, str] | None = None,
        query: str | None = None,
    ) -> list[SessionRecord]:
        """See `Store.list_sessions`."""
        return await self._read(reads.list_sessions, owner, limit, before, query)

    async def get_message(self, owner: str, message_id: str) -> MessageRecord | None:
        """See `Store.get_message`."""
        return await self._read(reads.get_message, owner, message_id)

    async def list_messages(
        self, session_id: str, limit: int, after: tuple[str, str] | None = None
    ) -> list[MessageRecord]:
        """See `Store.list_messages`."""
        return await self._read(reads.list_messages, session_id, limit, after)

    async def list_turns(self, session_id: str, before: str, limit: int) -> list[Turn]:
        """See `Store.list_turns`."""
        return await self._read(reads.list_turns, session_id, before, limit)
