"""Frames that repeat are read by a shorter way, which must say what the long one says."""

import json
from typing import Any
from unittest.mock import patch

from hypothesis import example, given
from hypothesis import strategies as st

from holdfast.upstreams.base import Item
from holdfast.upstreams.openai.decoder import OpenAIDecoder
from holdfast.upstreams.openai.frames import Repetition

contents = st.one_of(
    st.text(max_size=6),
    st.sampled_from(['","content":"', '"}', "\\", '\\"', "[ID:0]", "<think>", "", "\ud83c", "\0"]),
)
deltas = st.one_of(
    st.fixed_dictionaries({"content": contents}),
    st.fixed_dictionaries({"content": contents}),
    st.fixed_dictionaries({"role": st.just("assistant"), "content": contents}),
    st.fixed_dictionaries({"content": st.one_of(st.none(), st.just(["x"]), contents)}),
    st.fixed_dictionaries({"content": contents, "reasoning_content": contents}),
    st.fixed_dictionaries({"content": contents, "refusal": st.just("no")}),
)
frames = st.fixed_dictionaries(
    {"choices": deltas.map(lambda delta: [{"index": 0, "delta": delta}])},
    optional={
        "id": st.sampled_from(["a", '"content":"x"', "content"]),
        "content": contents,
        "created": st.integers(1, 2),
        "usage": st.sampled_from([None, {"prompt_tokens": 1}]),
        "error": st.sampled_from([None, None, None, "boom"]),
    },
)
lines = st.tuples(frames, st.booleans(), st.sampled_from([(",", ":"), (", ", ": ")])).map(
    lambda drawn: json.dumps(drawn[0], ensure_ascii=drawn[1], separators=drawn[2])
)


def encoded(line: str) -> bytes:
    return b"data: " + line.encode("utf-8", "surrogatepass") + b"\n\n"


def decoded(stream: list[bytes]) -> list[list[Item]]:
    decoder = OpenAIDecoder()
    return [decoder.feed(piece) for piece in stream] + [decoder.finish()]


def plain(content: Any, **more: Any) -> str:
    return json.dumps({**more, "choices": [{"index": 0, "delta": {"content": content}}]})


@given(st.lists(lines, max_size=12))
@example([plain("a"), plain('b","content":"c'), plain("d\\"), plain("")])
@example([plain("a", id="content"), plain("b", id="content"), plain("b", id="x")])
@example(
    ['{"choices":[{"delta":{"content":"a"}}]}', '{"choices":[{"delta":{"content":"b","x":"c"}}]}']
)
@example(['{"choices":[{"delta":{"content":"a"}}]}', '{"choices":[{"delta":{"content":"b\tc"}}]}'])
@example(
    [
        '{"choices":[{"delta":{"content":"a"}}]}',
        '{"choices":[{"delta":{"content":"b"},"finish_reason":"stop","x":{"content":"c"}}]}',
    ]
)
def test_the_short_way_says_what_the_long_one_says(said: list[str]) -> None:
    stream = [encoded(line) for line in said]
    with patch.object(Repetition, "content", return_value=None):
        long_way = decoded(stream)
    assert decoded(stream) == long_way


def test_the_short_way_is_taken() -> None:
    stream = [encoded(plain(f"{n} ")) for n in range(50)]
    read = Repetition.content
    taken: list[str | None] = []

    def counted(self: Repetition, data: bytes) -> str | None:
        taken.append(read(self, data))
        return taken[-1]

    with patch.object(Repetition, "content", counted):
        decoded(stream)
    assert taken == [None, *(f"{n} " for n in range(1, 50))]
