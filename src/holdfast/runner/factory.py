"""From settings to a supervisor with its store and upstreams."""

from collections.abc import Mapping

from holdfast.runner.supervisor import Supervisor
from holdfast.settings import Settings
from holdfast.store.factory import make_store
from holdfast.upstreams.base import Upstream
from holdfast.upstreams.registry import connect, make_upstreams


def make_supervisor(
    settings: Settings, upstreams: Mapping[str, Upstream] | None = None
) -> Supervisor:
    """The supervisor that `settings` describe; nothing is opened yet.

    Args:
        settings: All settings.
        upstreams: Upstreams to use instead of the configured ones.

    Raises:
        ConfigError: The settings cannot work.
    """
    if upstreams is None:
        upstreams = make_upstreams(settings)
    else:
        connect(upstreams)
    return Supervisor(settings, make_store(settings.storage, settings.node), upstreams)
