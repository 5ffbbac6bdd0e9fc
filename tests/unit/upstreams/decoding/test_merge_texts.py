"""Many small texts of one read become fewer events, and say the same."""

from hypothesis import given
from hypothesis import strategies as st

from holdfast.engine.fold import fold
from holdfast.engine.run import UpstreamEnd
from holdfast.events import Event, ReasoningDelta, Step, TextDelta
from holdfast.upstreams.base import Item
from holdfast.upstreams.decoding.decoder import MERGED_FROM, merge_texts

SIZE = 12

texts = st.text(max_size=2 * SIZE).flatmap(
    lambda text: st.sampled_from(
        [TextDelta(text), TextDelta(text, ((0, len(text), 1),)) if text else TextDelta("")]
    )
)
items = st.lists(st.one_of(texts, texts, texts, st.just(ReasoningDelta("r")), st.just(Step("s"))))


def events(given: list[Item]) -> list[Event]:
    return [item for item in given if not isinstance(item, UpstreamEnd)]


@given(items, st.booleans())
def test_merged_texts_say_the_same(said: list[Item], ends: bool) -> None:
    whole = [*said, UpstreamEnd()] if ends else said
    merged = merge_texts(whole, SIZE)
    assert fold(events(merged)) == fold(events(whole))
    assert merged[len(merged) - ends :] == whole[len(whole) - ends :]
    others = [item for item in whole if not isinstance(item, TextDelta)]
    assert [item for item in merged if not isinstance(item, TextDelta)] == others
    for item in merged:
        assert not isinstance(item, TextDelta) or len(item.text) <= SIZE or item in whole


def test_only_many_texts_are_merged_and_only_up_to_the_size() -> None:
    few: list[Item] = [TextDelta("a")] * (MERGED_FROM - 1)
    assert merge_texts(few, SIZE) == few
    assert merge_texts([*few, TextDelta("b")], 5) == [TextDelta("aaaaa"), TextDelta("aab")]
