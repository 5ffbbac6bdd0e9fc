"""From what upstreams say about their sources to `Reference`s of bounded size."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

import msgspec

from holdfast.events import Reference

Fields: TypeAlias = Mapping[str, Sequence[str]]
"""For each field of `Reference`, the upstream's names for it, the preferred one first."""

CHUNK: Final[Fields] = {
    "document_id": ("document_id", "doc_id"),
    "document_name": ("document_name", "docnm_kwd"),
    "chunk_id": ("id", "chunk_id"),
    "text": ("content", "content_with_weight"),
    "url": ("url",),
    "score": ("similarity",),
    "positions": ("positions", "position_int"),
}
"""RAGFlow's chunks."""

URL_CITATION: Final[Fields] = {
    "document_name": ("title",),
    "text": ("content",),
    "url": ("url",),
}
"""The `url_citation` annotations of OpenAI and of search services that speak like it."""

OURS: Final[Fields] = {
    name: (name,)
    for name in ("document_id", "document_name", "chunk_id", "text", "url", "score", "positions")
}
"""The `references` of another Holdfast."""

SEARCH_RESULT: Final[Fields] = {
    "document_name": ("title",),
    "text": ("snippet", "content"),
    "url": ("url",),
}
"""The `search_results` of Perplexity and of services that speak like it."""

NAME_CHARS: Final = 500
URL_CHARS: Final = 2_000
EXTRA_BYTES: Final = 4_000
EXTRA_DEPTH: Final = 8


def read_reference(
    source: Mapping[str, Any], fields: Fields, *, ordinal: int, text_bytes: int
) -> Reference:
    """Make a reference of an upstream's source item.

    Args:
        source: The item, as it was decoded from JSON.
        fields: The upstream's names.
        ordinal: The reference's ordinal.
        text_bytes: How large its text may be; longer text is shortened.
    """
    found = {field: _first(source, names) for field, names in fields.items()}
    text = found.get("text")
    named = {name for names in fields.values() for name in names}
    return Reference(
        ordinal=ordinal,
        document_id=_name(found.get("document_id")),
        document_name=_name(found.get("document_name")),
        chunk_id=_name(found.get("chunk_id")),
        text=shorten(text, text_bytes) if isinstance(text, str) else "",
        url=http_url(found.get("url")),
        score=_score(found.get("score")),
        positions=_positions(found.get("positions")),
        extra=bounded_extra({name: source[name] for name in source if name not in named}),
    )


def shorten(text: str, size: int) -> str:
    """The text, cut to `size` bytes of UTF-8 with an ellipsis where it was cut."""
    if len(text) * 4 <= size:
        return text
    data = text.encode("utf-8", "replace")
    if len(data) <= size:
        return text
    return data[: max(0, size - 3)].decode("utf-8", "ignore") + "…"


def http_url(value: object) -> str | None:
    """The value if it is an http or https URL that may be shown as a link."""
    if not isinstance(value, str) or len(value) > URL_CHARS or not value.isprintable():
        return None
    try:
        parts = urlsplit(value)
    except ValueError:
        return None
    return value if parts.scheme in ("http", "https") and parts.hostname else None


def bounded_extra(fields: Mapping[str, Any]) -> dict[str, Any] | None:
    """The fields that say something, in their order, as far as they fit into `EXTRA_BYTES`."""
    kept: dict[str, Any] = {}
    left = EXTRA_BYTES
    for name, value in fields.items():
        if value is None or value in ("", [], {}):
            continue
        size = _size(name) + _size(value)
        if size <= left:
            kept[name] = value
            left -= size
    return kept or None


def _size(value: Any) -> int:
    """How much JSON the value is; more than fits if it is no sane JSON."""
    if not _is_shallow(value, EXTRA_DEPTH):
        return EXTRA_BYTES + 1
    return len(msgspec.json.encode(value))


def _is_shallow(value: Any, depth: int) -> bool:
    if isinstance(value, dict):
        return depth > 0 and all(_is_shallow(item, depth - 1) for item in value.values())
    if isinstance(value, list):
        return depth > 0 and all(_is_shallow(item, depth - 1) for item in value)
    return True


def _first(source: Mapping[str, Any], names: Sequence[str]) -> Any:
    for name in names:
        if source.get(name) not in (None, ""):
            return source[name]
    return None


def _name(value: object) -> str | None:
    if isinstance(value, str | int) and not isinstance(value, bool):
        return str(value)[:NAME_CHARS]
    return None


def _score(value: object) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    try:
        score = float(value)
    except OverflowError:
        return None
    return score if math.isfinite(score) else None


def _positions(value: object) -> list[Any] | None:
    if not isinstance(value, list):
        return None
    kept: list[Any] = []
    left = EXTRA_BYTES
    for position in value:
        left -= _size(position)
        if left < 0:
            break
        if position not in (None, "", []):
            kept.append(position)
    return kept or None
