"""Which of the passages found are the best, and in which order."""

from collections.abc import Sequence
from typing import Final

import msgspec

from holdfast.upstreams.library.passages import Passage, join
from holdfast.upstreams.library.query import Query

SHARE_NEEDED: Final = 0.2
MOST_NEEDED: Final = 3.0
"""A passage must hold this share of the question's weight, though no more than the weight of
three words: of ten words one is an accident, of a whole pasted page nobody has a fifth."""
LEAD: Final = 0.1
"""What the first passage of a document has ahead of a later one that fits as well: documents
begin with what they are about."""
FLOOR: Final = 0.4
"""A passage that is worth less than this share of the best one is left out."""


class Candidate(msgspec.Struct, frozen=True):
    """A passage that holds at least one term of the question."""

    document: str
    """The document's path in its folder."""
    title: str
    number: int
    """Its place among the passages of the document."""
    passage: Passage
    relevance: float
    """By bm25; larger is better."""
    terms: frozenset[str]
    """All terms of the passage, of its section and of the document's title."""


class Hit(msgspec.Struct, frozen=True):
    """A passage worth quoting, with a score from 0 to 1."""

    document: str
    title: str
    number: int
    last_number: int
    passage: Passage
    score: float


def rank(candidates: Sequence[Candidate], query: Query, count: int, max_bytes: int) -> list[Hit]:
    """The best passages, best first; neighbours in one section are joined.

    Args:
        candidates: What the index found.
        query: The question.
        count: How many passages to take.
        max_bytes: Neighbours are not joined to more than this.
    """
    best = max((candidate.relevance for candidate in candidates), default=0.0)
    total = query.total
    needed = min(MOST_NEEDED, SHARE_NEEDED * total)
    hits: dict[str, Hit] = {}
    for candidate in candidates:
        held = sum(query.weights[term] for term in candidate.terms & query.weights.keys())
        # A small allowance for weights such as 0.1, which binary fractions only come near.
        if held + 1e-9 < needed:
            continue
        relevance = candidate.relevance / best if best > 0 else 0.0
        lead = LEAD / (1 + candidate.number)
        score = (relevance + held / total + lead) / (2 + LEAD)
        known = hits.get(candidate.passage.text)
        if known is None or score > known.score:
            hits[candidate.passage.text] = _hit(candidate, score)
    chosen = sorted(hits.values(), key=_best_first)[:count]
    return _joined([hit for hit in chosen if hit.score >= FLOOR * chosen[0].score], max_bytes)


def _best_first(hit: Hit) -> tuple[float, str, int]:
    return -hit.score, hit.document, hit.number


def _hit(candidate: Candidate, score: float) -> Hit:
    return Hit(
        document=candidate.document,
        title=candidate.title,
        number=candidate.number,
        last_number=candidate.number,
        passage=candidate.passage,
        score=round(score, 4),
    )


def _joined(hits: list[Hit], max_bytes: int) -> list[Hit]:
    """The hits with neighbours made one."""
    joined: list[Hit] = []
    for hit in sorted(hits, key=lambda hit: (hit.document, hit.number)):
        pair = _pair(joined[-1], hit) if joined else None
        if pair and len(pair.passage.text.encode()) <= max_bytes:
            joined[-1] = pair
        else:
            joined.append(hit)
    return sorted(joined, key=_best_first)


def _pair(first: Hit, second: Hit) -> Hit | None:
    """Two hits as one, if the second follows the first in the same section."""
    if (
        first.document != second.document
        or first.last_number + 1 != second.number
        or first.passage.section != second.passage.section
    ):
        return None
    return Hit(
        document=first.document,
        title=first.title,
        number=first.number,
        last_number=second.last_number,
        passage=join(first.passage, second.passage),
        score=max(first.score, second.score),
    )
