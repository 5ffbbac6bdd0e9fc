"""The kinds of upstreams, and how the configuration becomes upstreams.

A new kind is one file in this folder and one line in `KINDS`.
"""

from collections.abc import Mapping
from typing import Any, Final

from holdfast.errors import ConfigError
from holdfast.settings import LimitSettings, Settings, check_table
from holdfast.upstreams.anythingllm.upstream import AnythingLLM
from holdfast.upstreams.base import Upstream
from holdfast.upstreams.dify.upstream import Dify
from holdfast.upstreams.library import Library
from holdfast.upstreams.openai.upstream import OpenAI
from holdfast.upstreams.ragflow.upstream import Ragflow
from holdfast.upstreams.remote import RemoteUpstream
from holdfast.upstreams.wire.transport import Transport

KINDS: Final[Mapping[str, type[Upstream]]] = {
    "anythingllm": AnythingLLM,
    "dify": Dify,
    "library": Library,
    "openai": OpenAI,
    "ragflow": Ragflow,
}


def make_upstreams(settings: Settings) -> dict[str, Upstream]:
    """The configured upstreams by name; they are not opened yet.

    Raises:
        ConfigError: A table that cannot work; the message names it.
    """
    transport = Transport()
    upstreams = {
        name: make_upstream(name, table, settings.limits, transport)
        for name, table in settings.upstreams.items()
    }
    connect(upstreams)
    remote = [upstream for upstream in upstreams.values() if isinstance(upstream, RemoteUpstream)]
    secrets = {secret for upstream in remote for secret in upstream.secrets}
    for upstream in remote:
        upstream.hide(secrets)
    return upstreams


def connect(upstreams: Mapping[str, Upstream]) -> None:
    """Give each upstream the others that it asks.

    Raises:
        ConfigError: One asks an upstream that is not there, or itself, be it through others.
    """
    for name, upstream in upstreams.items():
        for key, asked in upstream.asks.items():
            if asked not in upstreams:
                there = ", ".join(sorted(upstreams))
                raise ConfigError(f"upstreams.{name}.{key} names {asked!r}; there is {there}")
            if name in _asked_with(asked, upstreams):
                raise ConfigError(f"upstreams.{name}.{key} leads back to {name!r}")
    for upstream in upstreams.values():
        upstream.connect({key: upstreams[asked] for key, asked in upstream.asks.items()})


def _asked_with(name: str, upstreams: Mapping[str, Upstream]) -> set[str]:
    """Who is asked when this one is asked: itself, and all that it asks."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        name = waiting.pop()
        if name not in found and name in upstreams:
            found.add(name)
            waiting += upstreams[name].asks.values()
    return found


def make_upstream(
    name: str, table: Mapping[str, Any], limits: LimitSettings, transport: Transport
) -> Upstream:
    """One upstream from its table.

    Raises:
        ConfigError: The table cannot work.
    """
    kind = KINDS.get(str(table.get("kind", "")))
    if kind is None:
        raise ConfigError(
            f"upstreams.{name}.kind must be one of {', '.join(sorted(KINDS))}, "
            f"not {table.get('kind')!r}"
        )
    checked = check_table(kind.Settings, table, f"upstreams.{name}")
    return kind.make(name, checked, limits, transport)
