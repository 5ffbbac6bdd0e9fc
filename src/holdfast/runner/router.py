"""Choosing the upstream that answers."""

from collections.abc import Mapping
from typing import NamedTuple

from holdfast.errors import BadRequest, ConfigError
from holdfast.settings import RouterSettings
from holdfast.upstreams.base import Upstream


class Route(NamedTuple):
    """An upstream and why it was chosen, in words for people."""

    upstream: Upstream
    reason: str


class Router:
    """Knows the upstreams by name."""

    def __init__(self, settings: RouterSettings, upstreams: Mapping[str, Upstream]) -> None:
        """Check that the names in `settings` exist.

        Raises:
            ConfigError: One does not.
        """
        self._upstreams = upstreams
        self._settings = settings
        for key in ("default", "local", "cloud"):
            name = getattr(settings, key)
            if name not in (None, "auto") and name not in upstreams:
                raise ConfigError(f"router.{key} names {name!r}; {_known(upstreams)}")

    def route(self, name: str | None = None) -> Route:
        """The upstream for a question that names `name`, or none.

        Raises:
            BadRequest: There is no upstream of that name, or none at all.
        """
        if name not in (None, "auto"):
            upstream = self._upstreams.get(name or "")
            if upstream is None:
                raise BadRequest(f"there is no upstream {name!r}; {_known(self._upstreams)}")
            return Route(upstream, "asked for by name")
        if not self._upstreams:
            raise BadRequest("no upstream is configured")
        settings = self._settings
        if settings.default != "auto":
            return Route(self._upstreams[settings.default], "the default")
        for chosen, why in ((settings.cloud, "router.cloud"), (settings.local, "router.local")):
            if chosen is not None and chosen != "auto":
                return Route(self._upstreams[chosen], why)
        first = next(iter(self._upstreams.values()))
        only = len(self._upstreams) == 1
        return Route(first, "the only upstream" if only else "the first upstream configured")


def _known(upstreams: Mapping[str, Upstream]) -> str:
    if not upstreams:
        return "no upstream is configured"
    return "there is " + ", ".join(sorted(upstreams))
