"""Hostile input, made of good input: what servers, proxies and attackers may do to an answer.

An input begins as a file of the corpus. Some changes are made to its bytes, some to its frames,
some to the JSON in them, for which names and values are taken from all files of the same decoder.
"""

import json
from collections.abc import Callable, Iterator, Sequence
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
COUNTS: Final = (2, 9, 100, 3_000, 60_000)


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


Mutator: TypeAlias = Callable[[st.DrawFn, Pool, bytes], bytes]


@st.composite
def trials(draw: st.DrawFn, pool: Pool, variants: int) -> Trial:
    """A good input with some changes, and how it comes."""
    data = draw(st.sampled_from(pool.seeds))
    for mutate in draw(st.lists(st.sampled_from(_MUTATORS), max_size=5)):
        data = mutate(draw, pool, data)[:MAX_BYTES]
    return Trial(
        data,
        variant=draw(st.integers(0, variants - 1)),
        size=draw(st.sampled_from((0, 1, 2, 3, 17))),
        places=tuple(draw(st.lists(st.floats(0, 1), max_size=6))),
        at=draw(st.floats(0, 1)),
        tail=draw(st.sampled_from(TAILS)),
    )


# ---------------------------------------------------------------------- bytes


def _flip(draw: st.DrawFn, pool: Pool, data: bytes) -> bytes:
    at = _place(draw, data)
    return data[:at] + bytes([draw(st.integers(0, 255))]) + data[at + 1 :]


def _insert(draw: st.DrawFn, pool: Pool, data: bytes) -> bytes:
    at = _place(draw, data)
    return data[:at] + draw(st.sampled_from(BYTES)) + data[at:]


def _remove(draw: st.DrawFn, pool: Pool, data: bytes) -> bytes:
    start, end = sorted((_place(draw, data), _place(draw, data)))
    return data[:start] + data[end:]


def _repeat(draw: st.DrawFn, pool: Pool, data: bytes) -> bytes:
    """The same piece again and again: a long line, or many frames."""
    at = _place(draw, data)
    end = at + draw(st.integers(0, 300))
    piece = data[at:end] if draw(st.booleans()) else draw(st.sampled_from(REPEATED))
    count = min(draw(st.sampled_from(COUNTS)), 400_000 // (len(piece) or 1))
    return data[:at] + piece * count + data[at:]


def _splice(draw: st.DrawFn, pool: Pool, data: bytes) -> bytes:
    other = draw(st.sampled_from(pool.seeds))
    return data[: _place(draw, data)] + other[_place(draw, other) :]


def _line_ends(draw: st.DrawFn, pool: Pool, data: bytes) -> bytes:
    start, end = sorted((_place(draw, data), _place(draw, data)))
    ended = draw(st.sampled_from((b"\r\n", b"\r", b"\n\n", b"\n\r", b"", b"\ndata: ")))
    return data[:start] + data[start:end].replace(b"\n", ended) + data[end:]


def _mark(draw: st.DrawFn, pool: Pool, data: bytes) -> bytes:
    return b"\xef\xbb\xbf" * draw(st.integers(1, 2)) + data


# ---------------------------------------------------------------------- frames


def _reorder(draw: st.DrawFn, pool: Pool, data: bytes) -> bytes:
    frames = _frames(data)
    one, other = (draw(st.integers(0, len(frames) - 1)) for _ in range(2))
    frames[one], frames[other] = frames[other], frames[one]
    return b"\n\n".join(frames)


def _drop(draw: st.DrawFn, pool: Pool, data: bytes) -> bytes:
    frames = _frames(data)
    frames.pop(draw(st.integers(0, len(frames) - 1)))
    return b"\n\n".join(frames)


def _double(draw: st.DrawFn, pool: Pool, data: bytes) -> bytes:
    frames = _frames(data)
    at = draw(st.integers(0, len(frames) - 1))
    times = draw(st.sampled_from((2, 3, 20, 500)))
    frames[at:at] = frames[at : at + 1] * min(times, 400_000 // (len(frames[at]) or 1))
    return b"\n\n".join(frames)


def _take(draw: st.DrawFn, pool: Pool, data: bytes) -> bytes:
    """A frame of another file."""
    frames, others = _frames(data), _frames(draw(st.sampled_from(pool.seeds)))
    at = draw(st.integers(0, len(frames) - 1))
    frames.insert(at, draw(st.sampled_from(others)))
    return b"\n\n".join(frames)


# ---------------------------------------------------------------------- JSON


def _change_json(draw: st.DrawFn, pool: Pool, data: bytes) -> bytes:
    """Change one value somewhere in the JSON."""
    lines = data.split(b"\n")
    places = [place for place, line in enumerate(lines) if b"{" in line]
    if not places:
        return _insert(draw, pool, data)
    place = draw(st.sampled_from(places))
    head, value = _parsed(lines[place])
    nodes = list(_nodes(value))
    if not nodes:
        return _insert(draw, pool, data)
    container, key = draw(st.sampled_from(nodes))
    draw(st.sampled_from(_CHANGES))(draw, pool, container, key)
    try:
        lines[place] = head + _written(value, ascii_only=draw(st.booleans()))
    except RecursionError:
        return data  # it is as deep already as Python can write it
    return b"\n".join(lines)


def _replace(draw: st.DrawFn, pool: Pool, container: Any, key: Any) -> None:
    container[key] = draw(_values(pool, key))


def _delete(draw: st.DrawFn, pool: Pool, container: Any, key: Any) -> None:
    del container[key]


def _add(draw: st.DrawFn, pool: Pool, container: Any, key: Any) -> None:
    if isinstance(container, dict) and pool.names:
        name = draw(st.sampled_from(pool.names))
        container[name] = draw(_values(pool, name))
    else:
        _replace(draw, pool, container, key)


def _wrap(draw: st.DrawFn, pool: Pool, container: Any, key: Any) -> None:
    value = container[key]
    count = min(draw(st.sampled_from((1, 2, 150, 60_000))), 300_000 // (len(str(value)) + 2))
    container[key] = draw(st.sampled_from(([value] * count, {"0": value}, {"error": value})))


def _edit(draw: st.DrawFn, pool: Pool, container: Any, key: Any) -> None:
    """Write something into a string, perhaps so often that it shows what costs too much."""
    text = str(container[key])
    at = draw(st.integers(0, len(text)))
    begun, piece = (draw(st.sampled_from(TEXTS) | st.text(max_size=5)) for _ in range(2))
    count = min(draw(st.sampled_from((0, 1, 1, *COUNTS))), 300_000 // (len(piece) or 1))
    container[key] = text[:at] + begun + piece * count + text[at:]


_CHANGES: Final = (_replace, _delete, _add, _wrap, _edit, _edit)
_MUTATORS: Final[tuple[Mutator, ...]] = (
    *(_change_json, _change_json, _change_json, _take, _reorder, _drop, _double),
    *(_flip, _insert, _remove, _repeat, _splice, _line_ends, _mark),
)


def _values(pool: Pool, name: Any) -> st.SearchStrategy[Any]:
    known = pool.values.get(name) or [""]
    return st.one_of(
        st.sampled_from(VALUES),
        st.sampled_from(known),
        st.sampled_from(TEXTS),
        st.integers(0, len(RAW) - 1).map(_raw),
    )


# ---------------------------------------------------------------------- tools


def _place(draw: st.DrawFn, data: bytes) -> int:
    return draw(st.integers(0, len(data)))


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


def _raw(place: int) -> str:
    return f"\ue000{place}\ue000"


def _written(value: Any, *, ascii_only: bool) -> bytes:
    """JSON in which the placeholders of `RAW` are replaced."""
    text = json.dumps(value, ensure_ascii=ascii_only).replace(r"\ue000", "\ue000")
    data = text.encode("utf-8", "surrogatepass")
    if "\ue000" in text:
        for place, raw in enumerate(RAW):
            data = data.replace(f'"{_raw(place)}"'.encode(), raw)
    return data
