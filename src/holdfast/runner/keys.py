"""The ring: every key that opens this server, in memory.

A request must not cost a read of the store, so whoever checks a key asks the ring. It knows of
keys that this process makes or revokes at once, and of those of other processes, where there can
be any, within `RELOAD_S`.
"""

import asyncio
import hmac
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final, Protocol

import msgspec

from holdfast import ids
from holdfast.errors import BadRequest, Conflict, StoreUnavailable
from holdfast.settings.api_keys import (
    API_KEYS,
    DEFAULT_SCOPES,
    OWNER_BYTES,
    SCOPES,
    GivenKey,
    digest_of,
    is_owner,
)
from holdfast.store.port import CreateKey, KeyRecord, RevokeKey, Store, Write

logger = logging.getLogger(__name__)

RELOAD_S: Final = 5.0
PREFIX: Final = "hf_"
"""What made keys begin with, so that people and scanners for leaked secrets know them."""
RANDOM_BYTES: Final = 32
NAME_CHARS: Final = 200
GIVEN: Final = "env-"
"""What the ids of keys from the environment begin with."""


class NewKey(msgspec.Struct, frozen=True, kw_only=True):
    """What a key is to be."""

    owner: str
    name: str = ""
    scopes: tuple[str, ...] = DEFAULT_SCOPES
    concurrent_runs: int | None = None
    asks_per_minute: int | None = None


class Submit(Protocol):
    """Commits a write, as `GroupCommit.submit` does."""

    def __call__(self, write: Write, on_result: Callable[[Any], None], /) -> Awaitable[Any]:
        """Commit `write`, call `on_result` with its result and give it."""


class KeyRing:
    """See the module."""

    def __init__(
        self,
        given: Iterable[GivenKey],
        store: Store,
        submit: Submit,
        now: Callable[[], int],
        reload_s: float | None = None,
    ) -> None:
        """Hold the keys of the environment; those of the store come with `load`.

        Args:
            given: Keys from the environment.
            store: Where the others are.
            submit: Writes to the store.
            now: The wall clock, in milliseconds since the epoch.
            reload_s: How long a key of another process may stay unknown; None: there is no other.
        """
        self._given = [
            KeyRecord(f"{GIVEN}{place}", key.owner, API_KEYS, key.digest, key.scopes, created_at=0)
            for place, key in enumerate(given, 1)
        ]
        self._store = store
        self._submit = submit
        self._now = now
        self._reload_s = reload_s
        self._changes = 0
        self._keys: dict[str, KeyRecord] = {}
        self._task: asyncio.Task[None] | None = None
        self.needed = False
        """Whether requests need a key: there is one, or was one since the start.

        Revoking the last key must not open a server to everybody.
        """
        self._hold(())

    def __len__(self) -> int:
        """How many keys are valid."""
        return len(self._keys)

    def _hold(self, stored: Iterable[KeyRecord]) -> None:
        keys = [*(key for key in stored if key.revoked_at is None), *self._given]
        self._keys = {key.digest: key for key in keys}
        self.needed = self.needed or bool(keys)

    # ------------------------------------------------------------------ life

    async def start(self) -> None:
        """Load the keys, and go on doing so if another process may change them.

        Raises:
            StoreUnavailable: They cannot be read.
        """
        await self.load()
        if self._reload_s is not None:
            self._task = asyncio.create_task(self._reload(self._reload_s), name="keys")

    async def stop(self) -> None:
        """Load no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def load(self) -> None:
        """Take the keys as they are in the store.

        Raises:
            StoreUnavailable: They cannot be read.
        """
        while True:
            changes = self._changes
            stored = await self._store.list_keys()
            if changes == self._changes:
                break  # else what was read may be older than what is known
        self._hold(stored)

    async def _reload(self, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            try:
                await self.load()
            except StoreUnavailable as error:
                logger.warning("the keys cannot be read: %s", error)
            except Exception:
                logger.exception("the keys cannot be read")

    # ------------------------------------------------------------------ checking

    def find(self, key: str) -> KeyRecord | None:
        """What is known of a key, if it is valid.

        It is looked up by its digest: how long that takes says nothing about the key.
        """
        digest = digest_of(key)
        found = self._keys.get(digest)
        if found is None or not hmac.compare_digest(found.digest, digest):
            return None
        return found

    # ------------------------------------------------------------------ managing

    async def list(self) -> Sequence[KeyRecord]:
        """Every key: those of the environment, then those of the store, revoked ones too.

        Raises:
            StoreUnavailable: They cannot be read.
        """
        return [*self._given, *await self._store.list_keys()]

    async def create(self, wanted: NewKey) -> tuple[str, KeyRecord]:
        """Make a key; it is given back this once, and nowhere kept.

        Raises:
            BadRequest: There can be no such key.
            StoreUnavailable: It cannot be stored.
        """
        check(wanted)
        key = PREFIX + secrets.token_urlsafe(RANDOM_BYTES)
        at = self._now()
        record = KeyRecord(
            id=ids.new_id(at),
            owner=wanted.owner,
            name=wanted.name,
            digest=digest_of(key),
            scopes=wanted.scopes,
            created_at=at,
            concurrent_runs=wanted.concurrent_runs,
            asks_per_minute=wanted.asks_per_minute,
        )

        def keep(result: Any) -> None:
            # Not after the await: whoever waits for it may have gone.
            if not isinstance(result, Exception):
                self._changes += 1
                self._keys[record.digest] = record
                self.needed = True
                logger.info("key %s of %s was made", record.id, record.owner)

        await self._submit(CreateKey(record), keep)
        return key, record

    async def revoke(self, key_id: str) -> None:
        """Make a key useless, at once; twice is no error.

        Raises:
            NotFound: There is no such key.
            Conflict: It is one of the environment.
            StoreUnavailable: That cannot be stored.
        """
        if any(key.id == key_id for key in self._given):
            raise Conflict(f"this key comes from {API_KEYS}; take it out there and start again")

        def drop(result: Any) -> None:
            if not isinstance(result, Exception):
                self._changes += 1
                given = {key.digest for key in self._given}
                for digest, key in tuple(self._keys.items()):
                    if key.id == key_id and digest not in given:
                        del self._keys[digest]
                logger.info("key %s was revoked", key_id)

        await self._submit(RevokeKey(key_id, self._now()), drop)


def check(wanted: NewKey) -> None:
    """Pass for a key that can be.

    Raises:
        BadRequest: Why it cannot.
    """
    if not is_owner(wanted.owner):
        raise BadRequest(
            f"an owner has 1 to {OWNER_BYTES} bytes, no control characters and no space around it"
        )
    if len(wanted.name) > NAME_CHARS or not (wanted.name.isprintable() or not wanted.name):
        raise BadRequest(f"a name has at most {NAME_CHARS} characters, and none for control")
    if not wanted.scopes or not set(wanted.scopes) <= set(SCOPES):
        raise BadRequest(f"a key has at least one of the scopes {', '.join(SCOPES)}")
    if len(set(wanted.scopes)) < len(wanted.scopes):
        raise BadRequest("a scope is named twice")
    for name in ("concurrent_runs", "asks_per_minute"):
        bound = getattr(wanted, name)
        if bound is not None and not 0 <= bound <= 1_000_000:
            raise BadRequest(f"{name} is a number from 0 (no limit) to 1000000")
