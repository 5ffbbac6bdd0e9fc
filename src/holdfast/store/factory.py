"""From `storage.url` to a store."""

from holdfast.errors import ConfigError
from holdfast.settings import StorageSettings
from holdfast.store.port import Store
from holdfast.store.sqlite import SqliteStore


def make_store(settings: StorageSettings) -> Store:
    """The store that the URL names; it is not opened yet.

    Raises:
        ConfigError: There is no store of this kind.
    """
    kind = settings.url.split(":", 1)[0]
    if kind == "sqlite":
        return SqliteStore(settings.url, synchronous=settings.synchronous)
    raise ConfigError(f"storage.url: this release knows sqlite:///…, not {kind}:…")


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
