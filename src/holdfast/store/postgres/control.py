"""The connection by which a node keeps its lease, and gives and gets hints.

It is apart from the one that commits: a NOTIFY within a commit would make the commits of all
nodes wait for each other, and a heartbeat must not wait for a large commit. What it writes is
worth nothing after a crash of the database, so it does not wait for the disk.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import asyncpg

from holdfast.errors import Fenced, HoldfastError, StoreUnavailable
from holdfast.store.postgres import statements as sql
from holdfast.store.postgres.link import FAILURES, Link, deadline
from holdfast.store.shared import HINT_BYTES, OnGap, OnHint

logger = logging.getLogger(__name__)

R = TypeVar("R")

DURABLY = "SET LOCAL synchronous_commit = on"
NOTIFY = "SELECT pg_notify(channel, hint) FROM unnest($1::text[], $2::text[]) AS h(channel, hint)"
WAITING_HINTS = 1_000
"""So many hints may wait to be sent; more are dropped, as any hint may be."""


def channel_of(node_id: str) -> str:
    """Where a node listens."""
    return f"holdfast_{node_id}"


class Control:
    """One connection, made anew by the next heartbeat whenever it breaks."""

    def __init__(self, link: Link, node_id: str, lease_ms: int) -> None:
        """Do nothing yet.

        Args:
            link: The database.
            node_id: Who listens.
            lease_ms: How long the claim lasts without a heartbeat. Half as long anything may
                take before the connection counts as broken.
        """
        self._link = link
        self._node_id = node_id
        self._lease_ms = lease_ms
        self._timeout_s = max(lease_ms / 2000, 0.5)
        # So far apart heartbeats may be for this node to have been there all the time: then
        # the others, who beat at other moments, could have kept their lease as well.
        self._series_ms = lease_ms * 5 // 8
        self._beat_at = self._since = 0
        self._generation = 0
        self._connection: asyncpg.Connection | None = None
        self._busy = asyncio.Lock()
        self._on_hint: OnHint = _ignore
        self._on_gap: OnGap = _nothing
        self._hints: list[tuple[str, str]] = []
        self._sending: asyncio.Task[None] | None = None
        self._closed = False

    def listen(self, on_hint: OnHint, on_gap: OnGap) -> None:
        """See `SharedStore.listen`."""
        self._on_hint, self._on_gap = on_hint, on_gap

    def tell_gap(self) -> None:
        """Something may have been missed."""
        self._on_gap()

    async def begin(self) -> tuple[int, int]:
        """Join: give the generation and the database's time."""

        async def join(connection: asyncpg.Connection) -> tuple[int, int]:
            # The claim must not be lost with a crash of the database, unlike a heartbeat.
            async with connection.transaction():
                await connection.execute(DURABLY)
                generation = await connection.fetchval(sql.JOIN, self._node_id, self._generation)
                values = (self._node_id, generation, self._lease_ms)
                return generation, await connection.fetchval(sql.BEGIN_LEASE, *values)

        self._generation, now = await self._do(join)
        self._note(now)
        return self._generation, now

    async def beat(self, generation: int) -> int:
        """See `SharedStore.beat`."""
        now = await self._fetchval(sql.BEAT, self._node_id, generation)
        if now is None:
            raise Fenced("this node's lease ran out")
        self._note(now)
        beat_at: int = now
        return beat_at

    def _note(self, now: int) -> None:
        """This node could speak: now, and without a break since when?"""
        if self._beat_at and now - self._beat_at > self._series_ms:
            self._since = now
        self._beat_at = now

    async def end(self, generation: int) -> None:
        """Give the lease back."""
        await self._fetchval(sql.END_LEASE, self._node_id, generation)
        await self._fetchval(sql.DROP_NODE, self._node_id, generation)

    async def reap(self) -> int:
        """See `SharedStore.reap`."""

        async def take(connection: asyncpg.Connection) -> int:
            async with connection.transaction():
                await connection.execute(DURABLY)
                judge = (self._node_id, self._since, self._series_ms)
                expired = [row[0] for row in await connection.fetch(sql.EXPIRE, *judge)]
                if expired:
                    await connection.execute(sql.HANG_UP, expired)
                    await connection.execute(sql.RAISE, expired)
            if expired:
                await connection.execute(sql.FORGET_NODES)
            return len(expired)

        return await self._do(take)

    async def _fetchval(self, statement: str, *values: Any) -> Any:
        return await self._do(lambda connection: connection.fetchval(statement, *values))

    # ------------------------------------------------------------------ the connection

    async def _do(self, work: Callable[[asyncpg.Connection], Awaitable[R]]) -> R:
        """Use the connection; what takes too long breaks it."""
        async with self._busy:
            until = asyncio.get_running_loop().time() + self._timeout_s
            try:
                connection = await self._connected(until)
                with deadline(connection, until):
                    return await work(connection)
            except FAILURES as error:
                raise self._broken(error) from error

    async def _connected(self, until: float) -> asyncpg.Connection:
        if self._closed:
            raise StoreUnavailable("the store is closed")
        if self._connection is None or self._connection.is_closed():
            async with asyncio.timeout_at(until):
                purpose = f"control {self._node_id}"
                connection = await self._link.connect(purpose, synchronous_commit="off")
            try:
                with deadline(connection, until):
                    await connection.add_listener(channel_of(self._node_id), self._heard)
            except BaseException:
                connection.terminate()
                raise
            self._connection = connection
            self.tell_gap()
        return self._connection

    def _broken(self, error: BaseException) -> Exception:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
        return self._link.translate(error)

    def _heard(self, connection: Any, process: int, channel: str, hint: object) -> None:
        try:
            self._on_hint(str(hint))
        except Exception:
            logger.exception("a hint was not understood")

    # ------------------------------------------------------------------ hints

    def send(self, node_id: str, hint: str) -> None:
        """See `SharedStore.send_hint`."""
        if len(hint) > HINT_BYTES or len(self._hints) >= WAITING_HINTS or self._connection is None:
            return
        self._hints.append((channel_of(node_id), hint))
        if self._sending is None:
            self._sending = asyncio.create_task(self._send(), name="hints")

    async def _send(self) -> None:
        try:
            while self._hints and self._connection is not None:
                await self._do(self._notify)
        except HoldfastError as error:
            logger.warning("hints are lost: %s", error)
        finally:
            self._sending = None

    async def _notify(self, connection: asyncpg.Connection) -> None:
        hints, self._hints = self._hints, []
        channels, texts = zip(*hints, strict=True)
        await connection.execute(NOTIFY, channels, texts)

    async def close(self) -> None:
        """Hang up."""
        self._closed = True
        self._hints.clear()
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait([self._sending])
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


def _ignore(hint: str) -> None:
    pass


def _nothing() -> None:
    pass
