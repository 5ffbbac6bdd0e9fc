"""The kinds of upstreams, and how the configuration becomes upstreams.

A new kind is one file in this folder and one line in `KINDS`.
"""

from collections.abc import Mapping
from typing import Any, Final

from holdfast.errors import ConfigError
from holdfast.settings import LimitSettings, Settings, check_table
from holdfast.upstreams.base import Upstream
from holdfast.upstreams.library import Library
from holdfast.upstreams.openai import OpenAI
from holdfast.upstreams.transport import Transport

KINDS: Final[Mapping[str, type[Upstream]]] = {"library": Library, "openai": OpenAI}


def make_upstreams(settings: Settings) -> dict[str, Upstream]:
    """The configured upstreams by name; they are not opened yet.

    Raises:
        ConfigError: A table that cannot work; the message names it.
    """
    transport = Transport()
    return {
        name: make_upstream(name, table, settings.limits, transport)
        for name, table in settings.upstreams.items()
    }


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
