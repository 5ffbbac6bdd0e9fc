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
    instead: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Key -> another key, and its variable, that will do where the first has none."""

    def table(self, environ: Mapping[str, str]) -> dict[str, Any] | None:
        """The upstream's table, or None if nothing points at it; a model alone does not."""
        variables = dict(self.variables)
        for key, (other, name) in self.instead.items():
            if variables[key] not in environ and name in environ:
                del variables[key]
                variables[other] = name
        given = {key: environ[name] for key, name in variables.items() if name in environ}
        if given.keys() <= {"model"}:
            return None
        table: dict[str, Any] = {"kind": self.kind, **self.defaults}
        for key, variable in variables.items():
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
    WellKnown(
        "anythingllm",
        "anythingllm",
        {
            "base_url": "ANYTHINGLLM_BASE_URL",
            "api_key": "ANYTHINGLLM_API_KEY",
            "workspace": "ANYTHINGLLM_WORKSPACE_SLUG",
        },
    ),
    WellKnown(
        "ragflow",
        "ragflow",
        {
            "base_url": "RAGFLOW_BASE_URL",
            "api_key": "RAGFLOW_API_KEY",
            "chat_id": "RAGFLOW_CHAT_ID",
        },
        instead={"chat_id": ("agent_id", "RAGFLOW_AGENT_ID")},
    ),
    WellKnown(
        "dify",
        "dify",
        {"base_url": "DIFY_BASE_URL", "api_key": "DIFY_API_KEY"},
        defaults={"base_url": "https://api.dify.ai/v1"},
    ),
)


def well_known_upstreams(
    configured: Mapping[str, Any], environ: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """The upstreams that variables describe and nobody configured.

    A kind that is configured by hand is left alone. An upstream that lacks a variable is worth
    an error only where there is nothing else to ask: what there is may be for another program.
    """
    found = _described(configured, environ)
    complete = {name: table for name, table in found.items() if not _unset(table)}
    return complete if configured or complete else found


def unset_variables(
    configured: Mapping[str, Any], environ: Mapping[str, str]
) -> dict[str, tuple[str, ...]]:
    """What the upstreams that variables describe only in part still need.

    Args:
        configured: The upstreams' tables, as they are used.
        environ: The variables.

    Returns:
        By the name that the upstream would have, the variables that are not set.
    """
    found = _described(configured, environ)
    return {name: unset for name, table in found.items() if (unset := _unset(table))}


def _described(
    configured: Mapping[str, Any], environ: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """The upstreams that variables point at, of kinds that nobody configured."""
    kinds = {table.get("kind") for table in configured.values() if isinstance(table, Mapping)}
    tables = {known.name: known.table(environ) for known in WELL_KNOWN if known.kind not in kinds}
    return {name: table for name, table in tables.items() if table is not None}


def _unset(table: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(value.variable for value in table.values() if isinstance(value, Unset))
