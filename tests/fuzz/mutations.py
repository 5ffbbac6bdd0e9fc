"""Hostile input, made of good input: what servers, proxies and attackers may do to an answer.

An input begins as a file of the corpus. Some changes are made to its bytes, some to its frames,
most to the JSON in them, for which names and values are taken from all files of the same decoder.
Hypothesis chooses what is done how often; where it is done, one number decides.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any, Final, TypeAlias

from hypothesis import strategies as st

from tests.fuzz.trial import Trial

MAX_BYTES: Final = 1_500_000
"""No input becomes larger; it is more than one event may have."""

TEXTS: Final = (
    *("[ID:0]", "[ID:", "[ID: 12]", "(ID: 3)", "【ID：3】", "##7$$", "##", "[1]", "【2】", "[٣]"),
    *("<think>", "</think>", "<thi", "`<think>", "<retrieving>", "</retrieving>", "<br/>"),
    *("**ERROR**: ", "\n**ERROR**: x", "**ERR", "x**ERROR**: TIMEOUT - it", "**ERROR**: <think>"),
    *("\0", "\r", "\r\n", "\n", "\n\n", "\u2028", "\u0085", "\ufeff", "\uffff", "😀", "e\u0301"),
    *("data: ", "data: [DONE]", '"', "\\", "}", "[DONE]", "javascript:x", "https://a.example/b"),
    *("http://[", "http://a\n.example", "<document_metadata>", "\nsource: ", " ", "\t"),
    *("</document_metadata>", "The agent model failed to respond: ", "multiple values for "),
    *("Error encountered while running: ", "", "0", "true", "null", "text-delta", "\x1b[0m"),
)
TAILS: Final = (
    *("", "[ID", "[ID:1", "【", "##1$", "(ID: 1", "[1", "#", "[", "<", "<thi", "</thi", "`<"),
    *("<retr", "*", "**ERROR*", "**ERROR**:", "x**ERROR**: ABC", "\n", " "),
)
"""What may be the beginning of a mark, a tag or an error; the answer breaks off behind it."""

RAW: Final = (
    *(b"NaN", b"-Infinity", b"1e999", b"-1e999", b"1e-999", b"-0", b"0.1e1", b"01", b"+1"),
    *(b"9" * 19, b"9" * 20, b"-" + b"9" * 40, b"9" * 400, b"9" * 4_300, b"9" * 5_000),
    *(rb'"\ud83d"', rb'"a\udc00\ud800b"', rb'"\ud83d\ude00"', rb'"\u0000"', rb'"\x"', b'"\xff"'),
    *(b'"\xed\xa0\x80"', b'"a\x00b"', b'"\xf0\x9f\x98"', b'"a\tb"', b"'a'", b"tru", b"", b"//"),
    *(b"[" * 40 + b"]" * 40, b"[" * 900 + b"]" * 900, b"[" * 9_000, b'{"a":' * 2_000 + b"1"),
    *(b'{"a":' * 60 + b"1" + b"}" * 60, b'{"a":1,"a":"b"}', b'{"":{"":""}}', b"[null,null]"),
)
"""What is written in the place of a value, be it JSON or not."""
VALUES: Final[tuple[Any, ...]] = (
    *(None, True, False, 0, 1, -1, 7, 200, 500, 2**31 - 1, 2**31, 2**53, 2**63, 2**64, 10**30),
    *(0.0, -0.5, 1e308, 5e-324, "", "x", [], {}, [None], [[]], {"": ""}, [{}], [True, 1, "1"]),
    *({"text": "x"}, [{"text": "x"}], {"0": {"content": "x"}}, {"message": "x", "code": 7}),
    *({"chunks": [{"id": "a"}]}, {"chunks": {"7": {"id": "a"}}}, {"url": "https://a.example"}),
)
BYTES: Final = (
    *(b"\n", b"\n\n", b"\r", b"\r\n", b"\r\n\r\n", b":", b": hi\n\n", b"data:", b"data: ", b"data"),
    *(b"\0", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf5", b"\xef\xbb\xbf", b"\xef\xbb", b'"', b"\\"),
    *(b"event: error\n", b"event: ping\n\n", b"id: \0\n", b"retry: 9\n", b"data: [DONE]\n\n"),
    *(b"data: {}\n\n", b"data: null\n\n", b"data: []\n\n", b"[DONE]", b"data: \n\n", b"\0" * 9),
    *(b"data: {\ndata: }\n\n", b"<html>", b'{"error":"x"}', b'data: {"error":{"message":"x"}}\n\n'),
)
REPEATED: Final = (*(text.encode() for text in TEXTS if text), b"x", b"a ", b"[" * 3, b"{", b"\\n")
"""What long lines are made of."""


class Pool:
    """The good input of one target, and the words in it."""

    def __init__(self, seeds: Sequence[bytes]) -> None:
        """Read the seeds, of which the small ones come first: failures shrink to them."""
        self.seeds = sorted(
            {seed for seed in seeds if seed} or {b"x"}, key=lambda one: (len(one), one)
        )
        self.values: dict[str, list[Any]] = {}
        for seed in self.seeds:
            for line in seed.split(b"\n"):
                for container, key in _nodes(_parsed(line)[1]):
                    if isinstance(key, str):
                        known = self.values.setdefault(key, [])
                        if len(known) < 20 and container[key] not in known:
                            known.append(container[key])
        self.names = sorted(self.values)


Mutator: TypeAlias = Callable[[Random, Pool, bytes], bytes]


@st.composite
def trials(draw: st.DrawFn, pool: Pool, variants: int) -> Trial:
    """A good input with some changes, and how it comes."""
    mutators = draw(st.lists(st.sampled_from(_MUTATORS), max_size=5))
    chance = Random(draw(st.integers(0, 2**32)))
    data = chance.choice(pool.seeds)
    for mutate in mutators:
        data = mutate(chance, pool, data)[:MAX_BYTES]
    return Trial(
        data,
        variant=chance.randrange(variants),
        size=draw(st.sampled_from((0, 1, 2, 3, 17))),
        places=tuple(draw(st.lists(st.floats(0, 1), max_size=6))),
        at=chance.random(),
        tail=chance.choice(TAILS),
    )


# ---------------------------------------------------------------------- bytes


def _flip(chance: Random, pool: Pool, data: bytes) -> bytes:
    at = _place(chance, data)
    return data[:at] + chance.randbytes(1) + data[at + 1 :]


def _insert(chance: Random, pool: Pool, data: bytes) -> bytes:
    at = _place(chance, data)
    return data[:at] + chance.choice(BYTES) + data[at:]


def _remove(chance: Random, pool: Pool, data: bytes) -> bytes:
    start = _place(chance, data)
    return data[:start] + data[start + chance.choice((1, 2, 20, 500)) :]


def _repeat(chance: Random, pool: Pool, data: bytes) -> bytes:
    """The same piece again and again: a long line, or many frames."""
    at = _place(chance, data)
    piece = chance.choice((data[at : at + chance.randrange(300)], chance.choice(REPEATED)))
    return data[:at] + piece * _times(chance, piece) + data[at:]


def _splice(chance: Random, pool: Pool, data: bytes) -> bytes:
    other = chance.choice(pool.seeds)
    return data[: _place(chance, data)] + other[_place(chance, other) :]


def _line_ends(chance: Random, pool: Pool, data: bytes) -> bytes:
    start, end = sorted((_place(chance, data), _place(chance, data)))
    if chance.random() < 0.5:
        start, end = 0, len(data)
    ended = chance.choice((b"\r\n", b"\r\n", b"\r", b"\r", b"\n\n", b"\n\r", b"", b"\ndata: "))
    return data[:start] + data[start:end].replace(b"\n", ended) + data[end:]


def _mark(chance: Random, pool: Pool, data: bytes) -> bytes:
    return b"\xef\xbb\xbf" * chance.choice((1, 1, 2)) + data


# ---------------------------------------------------------------------- frames


def _reorder(chance: Random, pool: Pool, data: bytes) -> bytes:
    frames = _frames(data)
    one, other = (chance.randrange(len(frames)) for _ in range(2))
    frames[one], frames[other] = frames[other], frames[one]
    return b"\n\n".join(frames)


def _drop(chance: Random, pool: Pool, data: bytes) -> bytes:
    frames = _frames(data)
    frames.pop(chance.randrange(len(frames)))
    return b"\n\n".join(frames)


def _double(chance: Random, pool: Pool, data: bytes) -> bytes:
    frames = _frames(data)
    at = chance.randrange(len(frames))
    times = min(chance.choice((1, 1, 2, 20, 500)), 400_000 // (len(frames[at]) or 1))
    frames[at:at] = frames[at : at + 1] * times
    return b"\n\n".join(frames)


def _take(chance: Random, pool: Pool, data: bytes) -> bytes:
    """Some frames of another file."""
    frames, others = _frames(data), _frames(chance.choice(pool.seeds))
    at, start = chance.randrange(len(frames)), chance.randrange(len(others))
    frames[at:at] = others[start : start + chance.choice((1, 1, 2, 5))]
    return b"\n\n".join(frames)


# ---------------------------------------------------------------------- JSON


def _change_json(chance: Random, pool: Pool, data: bytes) -> bytes:
    """Change one value somewhere in the JSON."""
    lines = data.split(b"\n")
    places = [place for place, line in enumerate(lines) if b"{" in line]
    if not places:
        return _insert(chance, pool, data)
    place = chance.choice(places)
    head, value = _parsed(lines[place])
    nodes = list(_nodes(value))
    if not nodes:
        return _insert(chance, pool, data)
    container, key = chance.choice(nodes)
    chance.choice(_CHANGES)(chance, pool, container, key)
    try:
        lines[place] = head + _written(value, ascii_only=chance.random() < 0.5)
    except RecursionError:
        return data  # it is as deep already as Python can write it
    return b"\n".join(lines)


def _write_text(chance: Random, pool: Pool, data: bytes) -> bytes:
    """Write something into one of the longest strings, which mostly are text."""
    lines = data.split(b"\n")
    places = [place for place, line in enumerate(lines) if b"{" in line]
    for place in chance.sample(places, min(len(places), 4)):
        head, value = _parsed(lines[place])
        strings = [node for node in _nodes(value) if isinstance(node[0][node[1]], str)]
        strings.sort(key=lambda node: -len(node[0][node[1]]))
        if strings:
            container, key = chance.choice(strings[:4])
            _edit(chance, pool, container, key)
            lines[place] = head + _written(value, ascii_only=chance.random() < 0.5)
    return b"\n".join(lines)


def _replace(chance: Random, pool: Pool, container: Any, key: Any) -> None:
    container[key] = _value(chance, pool, key)


def _delete(chance: Random, pool: Pool, container: Any, key: Any) -> None:
    del container[key]


def _add(chance: Random, pool: Pool, container: Any, key: Any) -> None:
    if isinstance(container, dict) and pool.names:
        name = chance.choice(pool.names)
        container[name] = _value(chance, pool, name)
    else:
        _replace(chance, pool, container, key)


def _wrap(chance: Random, pool: Pool, container: Any, key: Any) -> None:
    value = container[key]
    count = min(chance.choice((1, 2, 150, 60_000)), 300_000 // (len(str(value)) + 2))
    container[key] = chance.choice(([value] * count, {"0": value}, {"error": value}))


def _edit(chance: Random, pool: Pool, container: Any, key: Any) -> None:
    """Write something into a string, perhaps so often that it shows what costs too much."""
    text = str(container[key])
    at = chance.choice((0, len(text), chance.randint(0, len(text))))
    begun, piece = chance.choice(TEXTS), chance.choice(TEXTS)
    rest = chance.choice((text[at:], "", chance.choice(TEXTS)))
    container[key] = text[:at] + begun + piece * _times(chance, piece.encode()) + rest


_CHANGES: Final = (_replace, _delete, _add, _add, _wrap, _edit)
_MUTATORS: Final[tuple[Mutator, ...]] = (
    *(_change_json, _change_json, _change_json, _change_json, _change_json, _change_json),
    *(_write_text, _write_text, _write_text, _write_text, _take, _take, _reorder, _drop, _double),
    *(_flip, _insert, _remove, _repeat, _splice, _line_ends, _mark),
)


def _value(chance: Random, pool: Pool, name: Any) -> Any:
    known = pool.values.get(name) or [""]
    raw = f"\ue000{chance.randrange(len(RAW))}\ue000"
    kinds = (chance.choice(VALUES), chance.choice(known), chance.choice(TEXTS), raw)
    return chance.choice((*kinds, chance.choice(known)))


# ---------------------------------------------------------------------- tools


def _place(chance: Random, data: bytes) -> int:
    return chance.randint(0, len(data))


def _times(chance: Random, piece: bytes) -> int:
    """How often a piece is repeated: mostly once, sometimes very often."""
    count = chance.choice((1, 1, 1, 1, 1, 1, 1, 0, 2, 9, 100, 300, 3_000, 60_000))
    return min(count, 300_000 // (len(piece) or 1))


def _frames(data: bytes) -> list[bytes]:
    return data.split(b"\n\n")


def _parsed(line: bytes) -> tuple[bytes, Any]:
    """A line's JSON, and what stands before it."""
    start = line.find(b"{")
    try:
        return line[:start], json.loads(line[start:])
    except (ValueError, RecursionError):
        return b"", None


def _nodes(value: Any) -> Iterator[tuple[Any, Any]]:
    """The places of all values in a value: their containers and keys."""
    waiting = [value]
    while waiting:
        container = waiting.pop()
        keys: Any = ()
        if isinstance(container, dict):
            keys = list(container)
        elif isinstance(container, list):
            keys = range(len(container))
        for key in keys:
            yield container, key
            waiting.append(container[key])


def _written(value: Any, *, ascii_only: bool) -> bytes:
    """JSON in which the placeholders of `RAW` are replaced."""
    text = json.dumps(value, ensure_ascii=ascii_only).replace(r"\ue000", "\ue000")
    data = text.encode("utf-8", "surrogatepass")
    if "\ue000" in text:
        for place, raw in enumerate(RAW):
            data = data.replace(f'"\ue000{place}\ue000"'.encode(), raw)
    return data
