"""From settings to a supervisor."""

from pathlib import Path

import pytest

from holdfast.errors import ConfigError
from holdfast.runner.factory import make_supervisor
from holdfast.settings import Settings
from holdfast.store.sqlite import SqliteStore
from tests.support.scripted import ScriptedUpstream
from tests.support.stage import make_settings


def test_the_settings_name_the_store_and_the_upstreams(tmp_path: Path) -> None:
    docs = {"kind": "library", "path": str(tmp_path)}
    supervisor = make_supervisor(make_settings(tmp_path, upstreams={"docs": docs}))
    assert isinstance(supervisor.store, SqliteStore)
    assert supervisor.store.path == tmp_path / "chat.db"
    assert supervisor.router.route().first.upstream.name == "docs"
    assert not (tmp_path / "chat.db").exists()


def test_upstreams_of_the_application_take_the_place_of_the_configured_ones(
    tmp_path: Path,
) -> None:
    own = ScriptedUpstream("own")
    supervisor = make_supervisor(make_settings(tmp_path), {"own": own})
    assert supervisor.upstreams == {"own": own}


@pytest.mark.parametrize(
    ("sections", "names"),
    [
        ({"upstreams": {"x": {"kind": "nope"}}}, r"upstreams\.x\.kind"),
        ({"storage": {"url": "mysql://h/d"}}, r"storage\.url"),
        ({"router": {"default": "nope"}}, r"router\.default"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(
    sections: dict[str, dict[str, object]], names: str
) -> None:
    with pytest.raises(ConfigError, match=names):
        make_supervisor(Settings(**sections))  # type: ignore[arg-type]
