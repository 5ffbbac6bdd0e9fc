"""What the scripted upstream answers to a question, down to the byte.

A question names its kind and itself: "burst b03: ...". Its answer follows from these words alone,
so the checker knows what a stored answer must say without asking the server that stored it.
"""

import json
import random
from collections.abc import Iterator
from enum import StrEnum
from functools import lru_cache
from typing import Any, NamedTuple


class Kind(StrEnum):
    """How an answer comes and how it ends."""

    LONG = "long"
    """A word now and then, for longer than any round runs."""
    BURST = "burst"
    """Many words in one write, then a pause; as long as `long`."""
    SLOW = "slow"
    """Nothing at all for a long time."""
    SHORT = "short"
    STEADY = "steady"
    """A word now and then, for a while."""
    ERROR = "error"
    """An error in the middle of the stream."""
    CUT = "cut"
    """The connection closes without a terminal marker."""
    EMPTY = "empty"


HELD = (Kind.LONG, Kind.BURST, Kind.SLOW)
"""Kinds that are in flight until the server is killed."""
OUTCOMES = {
    Kind.ERROR: ("interrupted", "upstream_error"),
    Kind.CUT: ("interrupted", "upstream_truncated"),
    Kind.EMPTY: ("failed", "upstream_empty"),
}
"""How an answer of this kind ends if it may; the others are `completed` without a reason."""

_WORDS = ("海带", "根", "洋流", "kelp", "holds", "fast in", "的", "。", "root\n", "🌊", "— été")

_ERROR = '{"error": {"message": "the model fell over", "code": 500}}'
_FINISH = """{"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage":
 {"prompt_tokens": 7, "completion_tokens": 11, "total_tokens": 18}}""".replace("\n", "")


class Frame(NamedTuple):
    """One event of the upstream's stream."""

    delta: dict[str, Any] | None = None
    """What the event says of the answer; None: it says `body`."""
    text: str = ""
    """What it adds to the answer as readers see it."""
    pause_s: float = 0.0
    """How long the upstream waits after it."""
    body: str = ""

    @property
    def data(self) -> bytes:
        body = self.body
        if self.delta is not None:
            choice = {"index": 0, "delta": self.delta}
            chunk = {"id": "c", "model": "m", "choices": [choice]}
            body = json.dumps(chunk, ensure_ascii=False)
        return f"data: {body}\n\n".encode()


class Script(NamedTuple):
    """An answer."""

    kind: Kind
    frames: tuple[Frame, ...]
    references: tuple[int, ...]
    """How many references each `references` event has, in order."""

    @property
    def text(self) -> str:
        return "".join(frame.text for frame in self.frames)


def question(kind: Kind, name: str) -> str:
    """The question whose answer is of this kind."""
    return f"{kind} {name}: 海带 – what holds it?"


def name_of(text: str) -> str:
    """The name in a question."""
    return text.split(" ", 2)[1].rstrip(":")


@lru_cache(maxsize=512)
def script_of(text: str) -> Script:
    """The answer to a question."""
    kind = Kind(text.split(" ", 1)[0])
    choose = random.Random(text)
    match kind:
        case Kind.LONG:
            frames, sets = _words(choose, 3_000, batch=1, pause_s=0.008)
        case Kind.BURST:
            frames, sets = _words(choose, 8_000, batch=40, pause_s=0.12)
        case Kind.SLOW:
            frames, sets = _words(choose, 20, batch=20, pause_s=0.01)
            frames.insert(0, Frame(pause_s=60.0))
        case Kind.STEADY:
            frames, sets = _words(choose, 120, batch=1, pause_s=0.008)
        case Kind.EMPTY:
            frames, sets = [], ()
        case _:
            frames, sets = _words(choose, choose.randint(6, 20), batch=3, pause_s=0.01)
    return Script(kind, (*frames, *_ending(kind)), sets)


def _words(
    choose: random.Random, count: int, *, batch: int, pause_s: float
) -> tuple[list[Frame], tuple[int, ...]]:
    """Some words, with references that come early and once more, more of them, later."""
    frames: list[Frame] = []
    for place, word in enumerate(choose.choices(_WORDS, k=count)):
        pause = pause_s if (place + 1) % batch == 0 else 0.0
        if place in (2, count * 2 // 3):
            references = _references(choose, 2 if place == 2 else 4)
            frames.append(Frame({"reference": {"chunks": references}}))
        if place % 25 == 3:
            frames.append(Frame({"content": "[ID:1]"}, "[2]"))
        frames.append(Frame({"content": f"{word} "}, f"{word} ", pause))
    return frames, (2, 4)


def _references(choose: random.Random, count: int) -> list[dict[str, Any]]:
    return [
        {
            "id": f"chunk-{place}-{choose.randrange(10**6)}",
            "document_id": f"document-{place}",
            "document_name": f"海带 {place}.md",
            "content": " ".join(choose.choices(_WORDS, k=30)),
            "similarity": choose.random(),
            "url": f"https://kelp.example/{place}",
            "positions": [[place, 1, 2, 3, 4]],
            "vector_similarity": choose.random(),
        }
        for place in range(count)
    ]


def _ending(kind: Kind) -> Iterator[Frame]:
    match kind:
        case Kind.CUT:
            return
        case Kind.ERROR:
            yield Frame(body=_ERROR)
            return
        case Kind.EMPTY:
            pass
        case _:
            yield Frame(body=_FINISH)
    yield Frame(body="[DONE]")
