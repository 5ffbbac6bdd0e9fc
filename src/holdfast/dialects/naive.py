"""What the encoders share whose clients parse each network read by itself.

Such a client keeps nothing between two reads: a frame that lies across them is lost, or ends the
client. No server can rule that out, but it can make it rare: JSON in ASCII, the text of one wake-up
in one frame, frames that fit into one packet. Only the closing frame may be larger, because it
carries the references; it is bounded, too, and the history has them whole.

Reasoning, steps, notices, usage and tool calls are no part of these dialects.
"""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

from holdfast.dialects.base import About, AnswerEncoder, ascii_json, json_size, split_text
from holdfast.engine.fold import Answer
from holdfast.events import Mark, Notice, Outcome, Reference, RunEnd, RunStart, encode

FRAME_BYTES: Final = 1_000
"""The largest frame with text. One with an error may be some bytes larger; 1,024 is the bound."""
CLOSING_BYTES: Final = 32_000
PACKET_BYTES: Final = 1_200
"""What goes over any network in one piece, with the heads of the protocols around it."""
MIN_ROOM: Final = 64
"""What is left for text in a frame, however long the names in it are."""

PASSAGE_BYTES: Final = 100
"""A passage that must be cut shorter than this tells nobody anything, and is left out."""
NAME_BYTES: Final = 120
"""How long names may always be that have URLs beside them: the last URLs are left out before."""
LEAST_NAME_BYTES: Final = 60
"""As `NAME_BYTES`, before the last references are left out."""
LEAST_BYTES: Final = {"document_id": 32, "chunk_id": 32, "url": 80}
"""How long an id or a URL may be where nothing else helps: half of one would be a wrong one."""


class NaiveEncoder(AnswerEncoder):
    """Writes small frames, each of which can be read without those before it."""

    def __init__(self, about: About) -> None:
        """Begin before the first event."""
        super().__init__(about)
        self.message_id = ""
        self.model_used = ""
        """The route if the router chose one, else the name of the upstream."""

    # ------------------------------------------------------------------ a dialect's words

    @abstractmethod
    def chunk(self, content: str) -> bytes:
        """A frame with a piece of the text."""

    @abstractmethod
    def failure(self, error: str) -> bytes:
        """A frame that tells why the answer ended early."""

    @abstractmethod
    def closing(self, answer: Answer) -> bytes:
        """What comes last, with the terminal marker."""

    @abstractmethod
    def overhead(self) -> int:
        """How many bytes `chunk` adds to a piece of text."""

    # ------------------------------------------------------------------ what they have in common

    def start(self, event: RunStart) -> bytes:
        """Note what later frames say."""
        self.message_id = event.message_id
        self.model_used = event.route or event.upstream
        return b""

    def notice(self, event: Notice) -> bytes:
        """Note that another upstream answers from here on."""
        if event.upstream is not None:
            self.model_used = event.route or event.upstream
        return b""

    def text(self, text: str, marks: tuple[Mark, ...]) -> bytes:
        """As few frames as their size allows."""
        return b"".join([self.chunk(piece) for piece in split_text(text, self._room())])

    def end(self, event: RunEnd, answer: Answer) -> bytes:
        """The error if there is one, and the end."""
        if event.outcome in (Outcome.COMPLETED, Outcome.CANCELLED):
            return self.closing(answer)
        error = event.error or f"the answer ended early: {event.reason}"
        return self.failure(cut(error, self._room())) + self.closing(answer)

    def packets(self, body: bytes) -> Iterable[bytes]:
        """Whole frames: what is written at once is mostly read at once, if it fits a packet."""
        if len(body) <= PACKET_BYTES:
            return (body,)
        packets = [b""]
        for frame in body.split(b"\n\n")[:-1]:
            if packets[-1] and len(packets[-1]) + len(frame) + 2 > PACKET_BYTES:
                packets.append(b"")
            packets[-1] += frame + b"\n\n"
        return packets

    def _room(self) -> int:
        return max(FRAME_BYTES - self.overhead(), MIN_ROOM)


def data(value: Any) -> bytes:
    """One SSE message. The space after the colon is there for clients that count on it."""
    return b"data: %b\n\n" % ascii_json(value)


def cut(text: str, size: int) -> str:
    """The text, shortened to `size` bytes of ASCII JSON (at least 18) with an ellipsis."""
    if json_size(text) <= size:
        return text
    return next(split_text(text, size - json_size("…"))) + "…"


def fitted(references: Sequence[Reference], size: int) -> list[dict[str, Any]]:
    """The references as JSON of at most `size` bytes.

    Where they are too large, passages are shortened, the longest first; where that is not enough,
    the upstream's own fields are left out, then the passages. If they are still too large, names
    are shortened, the longest first, then URLs left out, the last first; at last all but names and
    ids that are short, and references from the end.
    """
    items = [msgspec.json.decode(encode(reference)) for reference in references]
    if _size(items) <= size:
        return items
    plain = [_without(item, "extra", "positions") for item in items]
    for tried in (items, plain):
        shortened = _with_shorter(tried, "text", size, PASSAGE_BYTES)
        if shortened is not None:
            return shortened
    bare = [_without(item, "text") for item in plain]
    named = _with_shorter(_with_fewer_urls(bare, size), "document_name", size, NAME_BYTES)
    bare = [_least(item) for item in bare]
    while named is None:
        named = _with_shorter(bare, "document_name", size, LEAST_NAME_BYTES)
        bare = bare[: len(bare) * 9 // 10]
    return named


def _size(items: Sequence[dict[str, Any]]) -> int:
    return len(ascii_json(items))


def _without(item: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in item.items() if name not in names}


def _with_shorter(
    items: list[dict[str, Any]], name: str, size: int, least: int
) -> list[dict[str, Any]] | None:
    """The references with texts in `name` that fill the room that the rest leaves.

    Args:
        items: The references.
        name: The member that is shortened, the longest first.
        size: How large they may be together, in bytes.
        least: To how few bytes a text may be shortened.

    Returns:
        The references; None if they cannot be made to fit in this way.
    """
    sizes = sorted(json_size(item[name]) for item in items if name in item)
    left = size - _size(items) + sum(sizes)
    share = 0
    for place, needed in enumerate(sizes):
        share = left // (len(sizes) - place)
        if needed > share:
            break
        left -= needed
    else:
        return items if left >= 0 else None
    if share < least:
        return None
    return [{**item, name: cut(item[name], share)} if name in item else item for item in items]


def _with_fewer_urls(items: list[dict[str, Any]], size: int) -> list[dict[str, Any]]:
    """The references without the last URLs, as many as must go for names of `NAME_BYTES`."""
    names = [json_size(item["document_name"]) for item in items if "document_name" in item]
    needed = _size(items) - sum(max(name - NAME_BYTES, 0) for name in names)
    kept = list(items)
    for place in range(len(items) - 1, -1, -1):
        if needed <= size:
            break
        if "url" in items[place]:
            needed -= len(ascii_json({"url": items[place]["url"]})) - 1  # a comma for the braces
            kept[place] = _without(items[place], "url")
    return kept


def _least(item: dict[str, Any]) -> dict[str, Any]:
    """What tells references apart, without what is too long to be kept whole."""
    least = {"ordinal": item["ordinal"]}
    for name, size in LEAST_BYTES.items():
        value = item.get(name)
        if value is not None and json_size(value) <= size:
            least[name] = value
    if item.get("document_name") is not None:
        least["document_name"] = item["document_name"]
    return least
