"""From `storage.url` to a store."""

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from holdfast.errors import ConfigError
from holdfast.settings import NodeSettings, StorageSettings
from holdfast.store.port import Store
from holdfast.store.shared import SharedStore
from holdfast.store.sqlite import SqliteStore


def make_store(settings: StorageSettings, node: NodeSettings | None = None) -> Store:
    """The store that the URL names; it is not opened yet.

    Args:
        settings: Where it is.
        node: How long this process may be silent, on a store that several share.

    Raises:
        ConfigError: There is no store of this kind.
    """
    kind = re.split(r"[:+]", settings.url, maxsplit=1)[0]
    if kind == "sqlite":
        return SqliteStore(settings.url, synchronous=settings.synchronous)
    if kind in ("postgresql", "postgres"):
        return _postgres(settings, node or NodeSettings())
    raise ConfigError(f"storage.url: Holdfast knows sqlite:///… and postgresql://…, not {kind}:…")


def _postgres(settings: StorageSettings, node: NodeSettings) -> Store:
    try:
        from holdfast.store.postgres import PostgresStore
    except ImportError as error:
        raise ConfigError(
            f"PostgreSQL needs the driver {error.name}: pip install 'holdfast[postgres]'"
        ) from None
    return PostgresStore(
        settings.url, lease_s=node.lease_s, read_connections=settings.read_connections
    )


@asynccontextmanager
async def opened(settings: StorageSettings) -> AsyncGenerator[Store, None]:
    """A store for a few writes, without a server around it.

    Raises:
        HoldfastError: What `Store.open` raises.
    """
    store = make_store(settings)
    try:
        await store.open()
        if isinstance(store, SharedStore):
            await store.join()
        yield store
        if isinstance(store, SharedStore):
            await store.leave()
    finally:
        await store.close()


async def migrate(settings: StorageSettings) -> None:
    """Bring the database's schema up to date.

    Raises:
        HoldfastError: What `Store.open` raises.
    """
    store = make_store(settings)
    try:
        await store.open()
    finally:
        await store.close()
