"""The contract of every store: messages, their references and their versions."""

from typing import Any

import pytest

from holdfast.engine.fold import ToolCallSoFar
from holdfast.engine.policy import Turn
from holdfast.engine.run import UpstreamEnd
from holdfast.events import (
    Event,
    Reason,
    ReasoningDelta,
    Reference,
    References,
    TextDelta,
    TextReplace,
    ToolCall,
    Usage,
)
from holdfast.store.port import MessageRecord, Store
from tests.support.harness import StoreHarness
from tests.support.records import OWNER, Told, begin, commit, tell

FULL = Reference(
    ordinal=1,
    document_id="d-1",
    document_name="海带 'und' \"Tang\".md",
    chunk_id="c-1",
    text="a passage\nwith lines, \0 and 😀",
    url="https://kelp.example/海带?q=1#f",
    score=0.1 + 0.2,
    positions=[[1, 2.5, None], "p", {"x": True}],
    extra={"页": 7, "deep": {"er": ["a", None]}},
)


async def _message(store: Store, message_id: str) -> MessageRecord:
    message = await store.get_message(OWNER, message_id)
    assert message is not None
    return message


# ------------------------------------------------------------------------------ round trips


async def test_p4_references_are_stored_with_their_message(
    store: Store, harness: StoreHarness
) -> None:
    references = (FULL, Reference(2), Reference(17, score=0.0, text="x" * 100_000))
    told = await tell(store, Told(), References(references), TextDelta("a"))
    store = await harness.reopen(store)
    assert (await _message(store, told.run.message_id)).answer.references == references


async def test_p4_references_belong_to_a_message_and_not_to_a_position(store: Store) -> None:
    told = await tell(store, Told(), References((Reference(1, text="first"),)))
    for text in ("second", "third"):
        told = await tell(
            store, told.next_turn(), References((Reference(1, text=text),)), TextDelta(text)
        )
    messages = await store.list_messages(told.run.session_id, 10)
    assert [[reference.text for reference in m.answer.references] for m in messages] == [
        [],
        ["first"],
        [],
        ["second"],
        [],
        ["third"],
    ]


async def test_references_come_back_in_the_order_of_the_log(store: Store) -> None:
    told = await tell(store, Told(), References((Reference(2), Reference(10), Reference(1))))
    message = await _message(store, told.run.message_id)
    assert [reference.ordinal for reference in message.answer.references] == [2, 10, 1]


@pytest.mark.parametrize(
    "reference",
    [
        Reference(1, positions=[]),
        Reference(1, extra={}),
        Reference(1, document_id="", document_name="", chunk_id="", url=""),
        Reference(0),
        Reference(-3),
    ],
    ids=repr,
)
async def test_p4_a_reference_with_odd_values_comes_back_as_it_was(
    store: Store, reference: Reference
) -> None:
    told = await tell(store, Told(), References((reference,)))
    assert (await _message(store, told.run.message_id)).answer.references == (reference,)


async def test_p3_two_references_with_one_ordinal_do_not_keep_a_run_from_ending(
    store: Store,
) -> None:
    """What an upstream numbers twice is stored in its journal; the end must not fail on it."""
    told = await begin(store, Told(), References((Reference(1, text="a"), Reference(1, text="b"))))
    assert await store.commit([told.finish(TextDelta("c"))]) == [True]


async def test_everything_an_answer_can_hold_comes_back(
    store: Store, harness: StoreHarness
) -> None:
    said: list[Event] = [
        ReasoningDelta("Hm 海\0"),
        TextDelta("海带 [1]", marks=((3, 6, 1),)),
        TextDelta("\0 and 😀 [2]", marks=((8, 11, 2),)),
        References((FULL,)),
        ToolCall(0, id="call", name="look", arguments_delta='{"q": "海'),
        ToolCall(0, arguments_delta='带"}'),
        Usage(3, 4, {"cached": 1}),
    ]
    told = await tell(store, Told(model="some-model"), *said)
    store = await harness.reopen(store)
    message = await _message(store, told.run.message_id)
    assert message.answer.tool_calls == (ToolCallSoFar(0, "call", "look", '{"q": "海带"}'),)
    assert message.answer == told.answer
    assert (message.upstream, message.model, message.run_id) == (
        "script",
        "some-model",
        told.run.id,
    )


async def test_a_rewritten_answer_is_stored_as_it_was_rewritten(store: Store) -> None:
    told = await tell(store, Told(), TextDelta("old"), TextReplace("new [1]", marks=((4, 7, 1),)))
    message = await _message(store, told.run.message_id)
    assert (message.answer.text, message.answer.marks) == ("new [1]", ((4, 7, 1),))


@pytest.mark.parametrize("text", ["", " ", "\0", "a\0b", "\x7f\u2028\ufeff", "😀" * 1_000])
async def test_texts_come_back_to_the_last_character(store: Store, text: str) -> None:
    told = await tell(store, Told(question=text), TextDelta("x"), TextDelta(text))
    question, answer = await store.list_messages(told.run.session_id, 10)
    assert question.answer.text == text
    assert answer.answer.text == "x" + text


async def test_a_question_of_a_megabyte_comes_back(store: Store) -> None:
    text = "海带 kelp \0" * 100_000
    told = await begin(store, Told(question=text))
    question, _ = await store.list_messages(told.run.session_id, 10)
    assert question.answer.text == text


@pytest.mark.parametrize(
    "metadata", [None, {"a": 1, "海": ["带", None, 0.1, True], "": {"\0": "\0"}}]
)
async def test_metadata_belongs_to_the_question_and_to_the_answer(
    store: Store, metadata: dict[str, Any] | None
) -> None:
    told = Told()
    await commit(store, told.create(metadata=metadata))
    await commit(store, told.finish(metadata={"by": "test"}))
    question, answer = await store.list_messages(told.run.session_id, 10)
    assert question.metadata == metadata
    assert answer.metadata == {"by": "test"}


async def test_a_message_that_streams_shows_no_answer_of_its_own(store: Store) -> None:
    told = await begin(store, Told(model="m"), TextDelta("a"))
    message = await _message(store, told.run.message_id)
    assert (message.status, message.outcome, message.completed_at) == ("streaming", None, None)
    assert (message.answer.text, message.answer.end) == ("", None)
    assert (message.version, message.active, message.versions) == (1, True, (message.id,))


async def test_the_answer_says_whether_something_had_arrived(store: Store) -> None:
    cancelled = UpstreamEnd(Reason.CLIENT_CANCELLED)
    kept = await tell(store, Told(), TextDelta("a"), end=cancelled)
    empty = await tell(store, Told(), end=cancelled)
    assert (await _message(store, kept.run.message_id)).answer.status == "partial"
    assert (await _message(store, empty.run.message_id)).answer.status == "failed"


async def test_a_message_that_does_not_exist_is_none(store: Store) -> None:
    assert await store.get_message(OWNER, "no-such-message") is None


# ------------------------------------------------------------------------------ versions


async def test_an_answer_can_be_written_again_and_the_old_one_is_kept(store: Store) -> None:
    first = await tell(store, Told(), References((Reference(1, text="old"),)), TextDelta("old"))
    second = await begin(store, first.again(), TextDelta("n"))
    assert [m.id for m in await store.list_messages(first.run.session_id, 10)] == [
        first.run.question_id,
        second.run.message_id,
    ]
    await commit(store, second.finish(TextDelta("ew")))
    third = await tell(store, first.again(), TextDelta("newest"))
    versions = tuple(told.run.message_id for told in (first, second, third))
    shown = [await _message(store, message_id) for message_id in versions]
    assert [(m.version, m.active, m.answer.text) for m in shown] == [
        (1, False, "old"),
        (2, False, "new"),
        (3, True, "newest"),
    ]
    assert {m.versions for m in shown} == {versions}
    assert {m.turn_id for m in shown} == {first.run.question_id}
    assert shown[0].answer.references == (Reference(1, text="old"),)
    assert shown[2].answer.references == ()


async def test_a_question_has_no_versions(store: Store) -> None:
    told = await tell(store, Told())
    question = await _message(store, told.run.question_id)
    assert (question.role, question.versions, question.turn_id) == ("user", (), question.id)


async def test_versions_of_one_turn_do_not_touch_another(store: Store) -> None:
    first = await tell(store, Told(), TextDelta("a"))
    second = await tell(store, first.next_turn(), TextDelta("b"))
    again = await tell(store, first.again(), TextDelta("c"))
    messages = await store.list_messages(first.run.session_id, 10)
    assert [(m.id, m.answer.text) for m in messages if m.role == "assistant"] == [
        (again.run.message_id, "c"),
        (second.run.message_id, "b"),
    ]
    assert (await _message(store, second.run.message_id)).versions == (second.run.message_id,)


# ------------------------------------------------------------------------------ pages


async def _conversation(store: Store, turns: int) -> Told:
    told = Told(question="q0")
    for number in range(turns):
        if number:
            told = told.next_turn(question=f"q{number}", created_at=1_700_000_000_000)
        await tell(store, told, TextDelta(f"a{number}"))
    return told


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 6, 7])
async def test_messages_come_in_pages_that_fit_together(store: Store, limit: int) -> None:
    told = await _conversation(store, 3)
    await tell(store, told.again(), TextDelta("again"))
    seen: list[MessageRecord] = []
    after: tuple[str, str] | None = None
    while page := await store.list_messages(told.run.session_id, limit, after):
        assert len(page) <= limit
        seen += page
        assert len(seen) <= 6, "the pages go round in circles"
        after = (page[-1].turn_id, page[-1].id)
    assert [m.answer.text for m in seen] == ["q0", "a0", "q1", "a1", "q2", "again"]


async def test_a_session_without_messages_has_an_empty_page(store: Store) -> None:
    assert await store.list_messages("no-such-session", 10) == []


async def test_references_are_on_every_page(store: Store) -> None:
    told = Told()
    for number in range(3):
        told = told.next_turn() if number else told
        await tell(store, told, References((Reference(1, text=str(number)),)))
    after: tuple[str, str] | None = None
    texts = []
    while page := await store.list_messages(told.run.session_id, 1, after):
        texts += [reference.text for reference in page[0].answer.references]
        after = (page[-1].turn_id, page[-1].id)
        assert len(texts) <= 3, "the pages go round in circles"
    assert texts == ["0", "1", "2"]


# ------------------------------------------------------------------------------ turns


@pytest.mark.parametrize("limit", [0, 1, 2, 3, 4])
async def test_the_last_turns_are_given_oldest_first(store: Store, limit: int) -> None:
    told = await _conversation(store, 4)
    before = told.next_turn().run.question_id
    wanted = [Turn(f"q{number}", f"a{number}") for number in range(4)]
    assert await store.list_turns(told.run.session_id, before, limit) == wanted[4 - limit :]


async def test_a_turn_does_not_see_itself_or_what_came_later(store: Store) -> None:
    first = await tell(store, Told(question="q0"), TextDelta("a0"))
    second = await tell(store, first.next_turn(question="q1"), TextDelta("a1"))
    await tell(store, first.next_turn(question="q2"), TextDelta("a2"))
    assert await store.list_turns(first.run.session_id, second.run.question_id, 10) == [
        Turn("q0", "a0")
    ]


async def test_turns_have_the_active_version_and_partial_answers_as_they_are(
    store: Store,
) -> None:
    first = await tell(store, Told(question="q0"), TextDelta("old"))
    await tell(store, first.again(), TextDelta("new"))
    cut = UpstreamEnd(Reason.UPSTREAM_TRUNCATED)
    second = await tell(store, first.next_turn(question="q1"), TextDelta("par"), end=cut)
    third = await tell(store, first.next_turn(question="q2"), end=cut)
    assert await store.list_turns(first.run.session_id, third.next_turn().run.question_id, 9) == [
        Turn("q0", "new"),
        Turn("q1", "par"),
        Turn("q2", ""),
    ]
    assert second.run.session_id == first.run.session_id


async def test_turns_are_those_of_one_session(store: Store) -> None:
    await tell(store, Told(), TextDelta("elsewhere"))
    mine = await tell(store, Told(question="q"), TextDelta("a"))
    before = mine.next_turn().run.question_id
    assert await store.list_turns(mine.run.session_id, before, 10) == [Turn("q", "a")]
