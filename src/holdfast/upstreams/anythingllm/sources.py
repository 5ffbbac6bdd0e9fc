"""AnythingLLM's sources: one item per passage in, one source per document out.

A document is known by its title and where it came from, as AnythingLLM's own page groups what it
cites; the ids of passages change whenever a document is embedded again. What is seen twice is
merged, in whatever frame it comes.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from holdfast.upstreams.decoding.references import Fields, http_url

FIELDS: Final[Fields] = {
    "document_id": ("document_id",),
    "document_name": ("title",),
    "chunk_id": ("chunk_id",),
    "text": ("text",),
    "url": ("url",),
    "score": ("score",),
}
"""The names in what `Sources.merge` gives."""

_HEADER_BEGINS: Final = "<document_metadata>"
_HEADER_ENDS: Final = "</document_metadata>"
_HEADER_NAME: Final = re.compile(r"\w+")
_REPLACED: Final = frozenset(
    {"id", "text", "url", "title", "score", "_distance", "chunkSource", "location"}
)
"""What is told in other words; `url` and `location` are often paths of the server's disk."""

MAX_PASSAGES: Final = 200
"""So many passages of a document are told from each other; further ones are left out."""


class Sources:
    """The sources of one answer so far."""

    def __init__(self, documents: int, text_bytes: int) -> None:
        """Begin with none.

        Args:
            documents: How many are kept; the first ones count.
            text_bytes: How much text of each is wanted; a passage beyond it is left out.
        """
        self._limit = documents
        self._text_bytes = text_bytes
        self._documents: dict[str, dict[str, Any]] = {}
        self._passages: dict[str, list[str]] = {}

    def merge(self, items: Iterable[Any]) -> dict[str, dict[str, Any]]:
        """Take the `sources` of a frame; give the documents that it changed, by their keys."""
        changed: dict[str, dict[str, Any]] = {}
        for item in items:
            if isinstance(item, dict) and item:
                source = _read(item)
                key = _key(source)
                if self._merge(key, source):
                    changed[key] = self._documents[key]
        return changed

    def _merge(self, key: str, source: dict[str, Any]) -> bool:
        """Whether the source says something new."""
        text = source["text"]
        known = self._documents.get(key)
        if known is None:
            if len(self._documents) >= self._limit:
                return False
            self._documents[key] = source
            self._passages[key] = [text]
            return True
        news = {
            name: value
            for name, value in source.items()
            if value is not None and known.get(name) is None
        }
        passages = self._passages[key]
        is_full = len(known["text"]) > self._text_bytes or len(passages) >= MAX_PASSAGES
        if not is_full and not any(text in passage for passage in passages):
            passages[:] = [*(passage for passage in passages if passage not in text), text]
            news["text"] = "\n\n".join(passages)
        if _is_higher(source["score"], known["score"]):
            news["score"] = source["score"]
        known.update(news)
        return bool(news)


def _read(item: Mapping[str, Any]) -> dict[str, Any]:
    """One item of `sources` in the words of `FIELDS`; what else it has keeps its name."""
    text = item.get("text")
    header, text = _without_header(text if isinstance(text, str) else "")
    origin = item.get("chunkSource")
    # What follows is how a data connector signs in where it reads.
    origin = origin.partition("?payload=")[0] if isinstance(origin, str) and origin else None
    # A passage has a score; what lacks one is a whole document, pinned or attached.
    is_passage = "score" in item or "_distance" in item
    linked = _first_url(
        origin.partition("://")[2] if origin else None, header.get("source"), item.get("url")
    )
    name = item.get("id") if isinstance(item.get("id"), str | int) else None
    return {
        **{name: value for name, value in item.items() if name not in _REPLACED},
        "published": item.get("published") or header.get("published"),
        "chunkSource": origin,
        "title": _text(item.get("title")) or header.get("sourceDocument"),
        "document_id": None if is_passage else name,
        "chunk_id": name if is_passage else None,
        "text": text,
        "url": linked,
        "score": _score(item),
    }


def _key(source: Mapping[str, Any]) -> str:
    title, origin = source["title"], source["chunkSource"]
    if title or origin:
        return f"{title}\n{origin or ''}"
    return f"\n\n{source['chunk_id'] or source['document_id'] or source['text']}"


def _without_header(text: str) -> tuple[dict[str, str], str]:
    """What the embedder wrote in front of a passage, and the passage."""
    begun = text.lstrip()
    head, closed, passage = begun.removeprefix(_HEADER_BEGINS).partition(_HEADER_ENDS)
    if not closed or not begun.startswith(_HEADER_BEGINS):
        return {}, text
    fields = {}
    for line in head.split("\n"):
        name, _, value = line.partition(":")
        if value.strip() and _HEADER_NAME.fullmatch(name):
            fields[name] = value.strip()
    return fields, passage.lstrip()


def _first_url(*values: Any) -> str | None:
    return next((url for url in map(http_url, values) if url is not None), None)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _score(item: Mapping[str, Any]) -> float | None:
    for name in ("score", "_distance"):
        value = item.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value if name == "score" else 1 - value
    return None


def _is_higher(one: float | None, other: float | None) -> bool:
    return one is not None and (other is None or one > other)
