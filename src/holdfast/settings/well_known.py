"""Upstreams that follow from variables which people have set for other programs, too.

To teach Holdfast another service's variables, add a line to `WELL_KNOWN`.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from holdfast.settings.messages import Unset


@dataclass(frozen=True)
class WellKnown:
    """An upstream and the variables that describe it."""

    name: str
    kind: str
    variables: Mapping[str, str]
    """Key of the upstream's table -> variable; all are needed unless `defaults` has the key."""
    defaults: Mapping[str, str] = field(default_factory=dict)
    optional: frozenset[str] = frozenset()
    rewrite: Mapping[str, Callable[[str], str]] = field(default_factory=dict)
    """Key -> how the variable's value becomes the table's."""

    def table(self, environ: Mapping[str, str]) -> dict[str, Any] | None:
        """The upstream's table, or None if nothing points at it; a model alone does not."""
        given = {key: environ[name] for key, name in self.variables.items() if name in environ}
        if given.keys() <= {"model"}:
            return None
        table: dict[str, Any] = {"kind": self.kind, **self.defaults}
        for key, variable in self.variables.items():
            if key in given:
                table[key] = self.rewrite.get(key, str)(given[key])
            elif key not in self.defaults and key not in self.optional:
                table[key] = Unset(variable)
        return table


def ollama_url(host: str) -> str:
    """The base URL behind OLLAMA_HOST, read as Ollama reads it: any part may be missing."""
    before, separator, rest = host.strip().rpartition("://")
    scheme = before or "http"
    address, slash, path = rest.partition("/")
    match = re.fullmatch(r"(\[.*\]|[^:]*)(?::(\d+))?", address)
    name, port = (match[1], match[2]) if match else (f"[{address}]", None)
    # A server told to listen everywhere is reached on this machine.
    name = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(name, name)
    if port is None and not separator:
        port = "11434"
    if port:
        name = f"{name}:{port}"
    return f"{scheme}://{name}{slash}{path}".rstrip("/") + "/v1"


WELL_KNOWN = (
    WellKnown(
        "openai",
        "openai",
        {"base_url": "OPENAI_BASE_URL", "api_key": "OPENAI_API_KEY", "model": "OPENAI_MODEL"},
        defaults={"base_url": "https://api.openai.com/v1"},
        optional=frozenset({"api_key"}),
    ),
    WellKnown(
        "ollama",
        "openai",
        {"base_url": "OLLAMA_HOST", "model": "OLLAMA_MODEL"},
        rewrite={"base_url": ollama_url},
    ),
)


def well_known_upstreams(
    configured: Mapping[str, Any], environ: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """The upstreams that variables describe and nobody configured.

    A kind that is configured by hand is left alone. An upstream that lacks a variable is worth
    an error only where there is nothing else to ask: what there is may be for another program.
    """
    kinds = {table.get("kind") for table in configured.values() if isinstance(table, Mapping)}
    found: dict[str, dict[str, Any]] = {}
    for known in WELL_KNOWN:
        table = known.table(environ)
        if table is not None and known.kind not in kinds:
            found[known.name] = table
    complete = {
        name: table
        for name, table in found.items()
        if not any(isinstance(value, Unset) for value in table.values())
    }
    return complete if configured or complete else found
