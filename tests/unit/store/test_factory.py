"""From a URL to a store."""

from pathlib import Path

import pytest

from holdfast.errors import ConfigError, StoreLocked
from holdfast.settings import StorageSettings
from holdfast.store.factory import make_store, migrate
from holdfast.store.sqlite import SqliteStore
from tests.support.harness import SqliteHarness
from tests.support.records import Told, tell


def test_a_sqlite_url_gives_a_store_on_that_file(tmp_path: Path) -> None:
    store = make_store(StorageSettings(url=f"sqlite:///{tmp_path}/chat.db"))
    assert isinstance(store, SqliteStore)
    assert store.path == tmp_path / "chat.db"
    assert not store.path.exists()


@pytest.mark.parametrize("url", ["mysql://u:secret@h/d", "chat.db", "", "redis:///1"])
def test_another_kind_is_a_configuration_error_that_keeps_secrets(url: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        make_store(StorageSettings(url=url))
    assert "storage.url" in refusal.value.message
    assert "secret" not in refusal.value.message


async def test_migrating_opens_the_file_once_and_lets_it_go(tmp_path: Path) -> None:
    settings = StorageSettings(url=f"sqlite:///{tmp_path}/chat.db")
    await migrate(settings)
    await migrate(settings)
    harness = SqliteHarness(tmp_path)
    await tell(await harness.open(), Told())
    with pytest.raises(StoreLocked):
        await migrate(settings)
    await harness.close()
