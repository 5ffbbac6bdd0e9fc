from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.engine.fold import fold
from holdfast.engine.run import UpstreamEnd
from holdfast.events import ReasoningDelta, Reference, References, TextDelta, Usage
from holdfast.upstreams.base import Item
from holdfast.upstreams.pacing import EVENTS_PER_S, pace_out, split_text

REFERENCES = References((Reference(1, text="Every 18 months."),))
ANSWER: list[Item] = [
    ReasoningDelta("Let me look."),
    TextDelta("The valve has to be serviced every 18 months [1], says the manual.", ((45, 48, 1),)),
    REFERENCES,
    Usage(3, 4),
    UpstreamEnd(),
]


class Clock:
    """A clock that only moves when somebody sleeps, or is late."""

    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.time += seconds


async def paced(
    items: Sequence[Item], pace: float, late: float = 0.0
) -> list[tuple[float, list[Item]]]:
    """The batches with their times; the reader of each is `late` seconds slow."""
    clock = Clock()
    given: list[tuple[float, list[Item]]] = []
    async for batch in pace_out(items, pace, sleep=clock.sleep, now=clock.now):
        given.append((clock.time - 100.0, list(batch)))
        clock.time += late
    return given


async def test_nothing_is_lost_and_references_come_first() -> None:
    given = [item for _, batch in await paced(ANSWER, 50) for item in batch]
    assert given[0] == REFERENCES
    assert given[-2:] == [Usage(3, 4), UpstreamEnd()]
    events = [item for item in given if not isinstance(item, UpstreamEnd)]
    whole = [item for item in ANSWER if not isinstance(item, UpstreamEnd)]
    assert fold(events) == fold(whole)
    assert len(given) > 10


async def test_each_piece_comes_at_its_own_time() -> None:
    text = "word " * 40
    given = await paced([TextDelta(text)], 50)
    sent = 0
    for time, (item,) in given:
        assert isinstance(item, TextDelta)
        assert time == pytest.approx(sent / 50)
        sent += len(item.text)
    assert sent == 200
    assert len(given) <= EVENTS_PER_S * 4


async def test_waits_do_not_add_up() -> None:
    in_time = await paced([TextDelta("word " * 40)], 50)
    late = await paced([TextDelta("word " * 40)], 50, late=0.01)
    assert late[-1][0] == pytest.approx(in_time[-1][0], abs=0.02)


async def test_thoughts_are_paced_too() -> None:
    given = await paced([ReasoningDelta("one two three four")], 25)
    assert [item for _, (item,) in given] == [
        ReasoningDelta("one"),
        ReasoningDelta(" two"),
        ReasoningDelta(" three"),
        ReasoningDelta(" four"),
    ]


@given(
    st.lists(st.text(max_size=9) | st.sampled_from(["中文。", " \n ", "x" * 90]), max_size=8),
    st.floats(0.1, 50),
)
def test_joined_pieces_are_the_text_with_its_marks(texts: list[str], size: float) -> None:
    text, marks = "", []
    for place, part in enumerate(texts, 1):
        mark = f"[{place}]"
        marks.append((len(text) + len(part), len(text) + len(part) + len(mark), place))
        text += part + mark
    pieces = list(split_text(text, marks, size))
    answer = fold(pieces)
    assert (answer.text, answer.marks) == (text, tuple(marks))
    for piece in pieces:
        for start, end, ordinal in piece.marks:
            assert piece.text[start:end] == f"[{ordinal}]"
        assert len(piece.text) < size + 45 + piece.text.count(" ") + piece.text.count("\n")
