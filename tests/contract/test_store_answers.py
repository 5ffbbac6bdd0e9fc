"""The contract of every store: what people do with an answer when it is there."""

from typing import Any

import pytest

from holdfast.engine.policy import Turn
from holdfast.engine.run import UpstreamEnd
from holdfast.errors import Conflict, NotFound, StoreError
from holdfast.events import (
    Event,
    Reason,
    ReasoningDelta,
    Reference,
    References,
    TextDelta,
)
from holdfast.store.port import (
    CompleteMessage,
    DeleteSession,
    MessageRecord,
    SetFeedback,
    Store,
)
from tests.support.harness import TABLES, StoreHarness
from tests.support.records import (
    OWNER,
    STRANGER,
    Told,
    a_session,
    begin,
    changed,
    commit,
    read_all,
    tell,
    tick,
)

CUT = UpstreamEnd(Reason.UPSTREAM_TRUNCATED, error="the connection broke")
EARLY = {"partial": True, "reason": "upstream_truncated"}
KELP = Reference(1, document_name="海带.md", text="kelp", score=0.5, extra={"页": [1, None]})
SAND = Reference(2, text="sand", positions=[[1, 2.5]])


async def _message(store: Store, told: Told) -> MessageRecord:
    message = await store.get_message(OWNER, told.run.message_id)
    assert message is not None
    return message


async def _partial(store: Store, text: str = "Kelp is", *more: Event, **values: Any) -> Told:
    """A run that was cut off after `text`."""
    return await tell(
        store, Told(), TextDelta(text), *more, end=CUT, **{"metadata": EARLY, **values}
    )


def _completion(told: Told, text: str, **values: Any) -> CompleteMessage:
    return CompleteMessage(
        **{
            "owner": OWNER,
            "session_id": told.run.session_id,
            "message_id": told.run.message_id,
            "text": text,
            "references": None,
            "completed_at": tick(),
            **values,
        }
    )


# ------------------------------------------------------------------------------ feedback


@pytest.mark.parametrize(
    "feedback", [{}, {"rating": "up"}, {"rating": -1, "评论": ["好 \0", None, {"a": 0.5}]}]
)
async def test_feedback_comes_back_as_it_was_given(
    store: Store, harness: StoreHarness, feedback: dict[str, Any]
) -> None:
    told = await tell(store, Told(), TextDelta("a"))
    before = await _message(store, told)
    assert await store.commit([SetFeedback(OWNER, told.run.message_id, feedback)]) == [None]
    store = await harness.reopen(store)
    assert await _message(store, told) == changed(before, feedback=feedback)
    listed = await store.list_messages(told.run.session_id, 10)
    assert [message.feedback for message in listed] == [None, feedback]


async def test_later_feedback_replaces_the_earlier_and_none_takes_it_back(store: Store) -> None:
    told = await tell(store, Told(), TextDelta("a"))
    message_id = told.run.message_id
    await commit(
        store,
        SetFeedback(OWNER, message_id, {"rating": "up", "comment": "good"}),
        SetFeedback(OWNER, message_id, {"rating": "down"}),
    )
    assert (await _message(store, told)).feedback == {"rating": "down"}
    await commit(store, SetFeedback(OWNER, message_id, None))
    assert (await _message(store, told)).feedback is None


async def test_each_version_of_an_answer_has_its_own_feedback(store: Store) -> None:
    first = await tell(store, Told(), TextDelta("a"))
    second = await tell(store, first.again(), TextDelta("b"))
    await commit(store, SetFeedback(OWNER, first.run.message_id, {"rating": "down"}))
    assert (await _message(store, first)).feedback == {"rating": "down"}
    assert (await _message(store, second)).feedback is None


async def test_feedback_given_while_an_answer_streams_outlives_its_end(store: Store) -> None:
    told = await begin(store, Told(), TextDelta("a"))
    await commit(store, SetFeedback(OWNER, told.run.message_id, {"rating": "up"}))
    await commit(store, told.finish(TextDelta("b")))
    message = await _message(store, told)
    assert (message.feedback, message.answer.text) == ({"rating": "up"}, "ab")


async def test_a_question_takes_no_feedback(store: Store, harness: StoreHarness) -> None:
    told = await tell(store, Told(), TextDelta("a"))
    before = await harness.text()
    (refusal,) = await store.commit([SetFeedback(OWNER, told.run.question_id, {"a": 1})])
    assert type(refusal) is Conflict
    assert await harness.text() == before


async def test_p8_feedback_is_for_ones_own_answers(store: Store, harness: StoreHarness) -> None:
    told = await tell(store, Told(), TextDelta("a"))
    before = await harness.text()
    results = await store.commit(
        [
            SetFeedback(STRANGER, told.run.message_id, {"a": 1}),
            SetFeedback(STRANGER, told.run.question_id, {"a": 1}),
            SetFeedback(OWNER, "no-such-message", {"a": 1}),
        ]
    )
    assert [type(result) for result in results] == [NotFound] * 3
    assert await harness.text() == before


async def test_feedback_and_the_end_of_its_session_in_one_batch_take_their_order(
    store: Store, harness: StoreHarness
) -> None:
    told = await tell(store, Told(), TextDelta("a"))
    feedback = SetFeedback(OWNER, told.run.message_id, {"rating": "up"})
    early, deleted, late = await store.commit(
        [feedback, DeleteSession(OWNER, told.run.session_id), feedback]
    )
    assert (early, deleted, type(late)) == (None, None, NotFound)
    assert await harness.counts() == dict.fromkeys(TABLES, 0)


async def test_feedback_that_can_never_be_stored_leaves_the_earlier(store: Store) -> None:
    told = await tell(store, Told(), TextDelta("a"))
    message_id = told.run.message_id
    results = await store.commit(
        [
            SetFeedback(OWNER, message_id, {"rating": "up"}),
            SetFeedback(OWNER, message_id, {"half a pair": "\ud83d"}),
        ]
    )
    assert [type(result) for result in results] == [type(None), StoreError]
    assert (await _message(store, told)).feedback == {"rating": "up"}


# ------------------------------------------------------------------------------ completing


@pytest.mark.parametrize(
    ("stored", "text"),
    [
        ("Kelp is", "Kelp is brown."),
        ("Kelp is", "Kelp is"),
        ("海带", "海带是褐藻。😀"),
        ("a\0", "a\0b"),
        ("", "All of it."),
        ("", ""),
    ],
)
async def test_a_partial_answer_is_completed_and_its_log_stays(
    store: Store, harness: StoreHarness, stored: str, text: str
) -> None:
    told = await _partial(store, stored, ReasoningDelta("Hm."), References((KELP,)))
    before = await _message(store, told)
    assert before.status == "partial"
    assert await store.commit([_completion(told, text, completed_at=99)]) == [None]
    store = await harness.reopen(store)
    after = await _message(store, told)
    assert after == changed(
        before,
        status="complete",
        answer=changed(before.answer, text=text),
        metadata={"completed_by": "client"},
        completed_at=99,
    )
    assert (after.outcome, after.reason) == ("interrupted", "upstream_truncated")
    assert after.answer.references == (KELP,)
    assert await read_all(store, told.run.id) == told.entries
    run = await store.get_run(OWNER, told.run.id)
    assert run is not None
    assert (run.outcome, run.reason) == ("interrupted", "upstream_truncated")


async def test_marks_stay_where_they_are_in_the_stored_beginning(store: Store) -> None:
    marks = ((5, 8, 1),)
    told = await tell(
        store, Told(), References((KELP,)), TextDelta("Kelp [1]", marks=marks), end=CUT
    )
    await commit(store, _completion(told, "Kelp [1] and sand [2]", references=(KELP, SAND)))
    assert (await _message(store, told)).answer.marks == marks


@pytest.mark.parametrize("references", [(), (SAND,), (SAND, KELP), (KELP, KELP)])
async def test_p4_given_references_replace_the_stored_ones_in_their_order(
    store: Store, harness: StoreHarness, references: tuple[Reference, ...]
) -> None:
    told = await _partial(store, "Kelp", References((KELP, Reference(7, text="gone"))))
    other = await _partial(store, "Kelp", References((KELP,)))
    await commit(store, _completion(told, "Kelp.", references=references))
    store = await harness.reopen(store)
    assert (await _message(store, told)).answer.references == references
    assert (await _message(store, other)).answer.references == (KELP,)
    assert "gone" not in repr(await harness.rows("message_references"))


async def test_what_completes_an_answer_is_what_the_next_question_is_asked_with(
    store: Store,
) -> None:
    told = await _partial(store, "Kelp is")
    await commit(store, _completion(told, "Kelp is brown."))
    before = told.next_turn().run.question_id
    assert await store.list_turns(told.run.session_id, before, 10) == [
        Turn("What is kelp?", "Kelp is brown.")
    ]


async def test_answers_cut_off_by_a_cancel_can_be_completed_too(store: Store) -> None:
    cancelled = UpstreamEnd(Reason.CLIENT_CANCELLED)
    told = await tell(store, Told(), TextDelta("Kelp is"), end=cancelled)
    await commit(store, _completion(told, "Kelp is brown."))
    message = await _message(store, told)
    assert (message.status, message.outcome) == ("complete", "cancelled")
    assert message.metadata == {"completed_by": "client"}


async def test_an_earlier_version_can_be_completed_and_stays_inactive(store: Store) -> None:
    first = await _partial(store, "Kelp is")
    second = await tell(store, first.again(), TextDelta("new"))
    await commit(store, _completion(first, "Kelp is brown."))
    message = await _message(store, first)
    assert (message.status, message.active) == ("complete", False)
    assert (await _message(store, second)).answer.text == "new"


# ------------------------------------------------------------------------------ again


@pytest.mark.parametrize("given", [None, (KELP, SAND)])
@pytest.mark.parametrize("together", [True, False])
async def test_the_same_content_twice_is_fine_and_changes_nothing(
    store: Store,
    harness: StoreHarness,
    given: tuple[Reference, ...] | None,
    together: bool,
) -> None:
    told = await _partial(store, "Kelp is", References((KELP, SAND)))
    first = _completion(told, "Kelp is brown.", references=(KELP, SAND), completed_at=1)
    again = changed(first, references=given, completed_at=2)
    if together:
        assert await store.commit([first, again]) == [None, None]
        assert (await _message(store, told)).completed_at == 1
        return
    await commit(store, first)
    before = await harness.text()
    assert await store.commit([again]) == [None]
    assert await harness.text() == before


async def test_references_in_another_order_of_their_keys_are_the_same(store: Store) -> None:
    told = await _partial(store, "Kelp is")
    for extra in ({"a": 1, "b": [2]}, {"b": [2], "a": 1}):
        references = (Reference(1, text="kelp", extra=extra),)
        assert await store.commit([_completion(told, "Kelp is.", references=references)]) == [None]


@pytest.mark.parametrize(
    "values",
    [
        {"text": "Kelp is brown. And long."},
        {"text": "Kelp is"},
        {"text": "Kelp is green."},
        {"references": ()},
        {"references": (KELP,)},
        {"references": (SAND, KELP)},
        {"references": (KELP, SAND, SAND)},
        {"references": (KELP, changed(SAND, text="dust"))},
    ],
)
@pytest.mark.parametrize("together", [True, False])
async def test_what_was_completed_cannot_be_completed_otherwise(
    store: Store, harness: StoreHarness, values: dict[str, Any], together: bool
) -> None:
    told = await _partial(store, "Kelp is")
    first = _completion(told, "Kelp is brown.", references=(KELP, SAND))
    other = changed(first, **values)
    if together:
        done, refusal = await store.commit([first, other])
    else:
        (done,) = await store.commit([first])
        before = await harness.text()
        (refusal,) = await store.commit([other])
        assert await harness.text() == before
    assert (done, type(refusal)) == (None, Conflict)
    message = await _message(store, told)
    assert (message.answer.text, message.answer.references) == ("Kelp is brown.", (KELP, SAND))


# ------------------------------------------------------------------------------ refusals


async def _streaming(store: Store) -> Told:
    return await begin(store, Told(), TextDelta("Kelp is"))


async def _complete(store: Store) -> Told:
    return await tell(store, Told(), TextDelta("Kelp is"))


async def _failed(store: Store) -> Told:
    return await tell(store, Told(), end=CUT, metadata={"partial": False})


@pytest.mark.parametrize("references", [None, (SAND,)])
@pytest.mark.parametrize("text", ["Kelp is", "Kelp is brown.", ""])
@pytest.mark.parametrize("make", [_streaming, _complete, _failed])
async def test_only_an_ended_partial_answer_can_be_completed(
    store: Store,
    harness: StoreHarness,
    make: Any,
    text: str,
    references: tuple[Reference, ...] | None,
) -> None:
    told = await make(store)
    before = await harness.text()
    (refusal,) = await store.commit([_completion(told, text, references=references)])
    is_the_same = make is _complete and text == "Kelp is"  # the client has what the upstream said
    assert refusal is None if is_the_same else type(refusal) is Conflict
    assert await harness.text() == before


@pytest.mark.parametrize(
    "text", ["", "Kelp i", "kelp is brown", " Kelp is", "Sand", "Kelp\u200b is brown"]
)
async def test_a_text_that_does_not_begin_with_what_is_stored_is_refused(
    store: Store, harness: StoreHarness, text: str
) -> None:
    told = await _partial(store, "Kelp is")
    before = await harness.text()
    (refusal,) = await store.commit([_completion(told, text, references=(SAND,))])
    assert type(refusal) is Conflict
    assert await harness.text() == before


@pytest.mark.parametrize("text", ["What is kelp?", "What is kelp? Really?"])
async def test_a_question_cannot_be_completed_whatever_its_metadata_say(
    store: Store, harness: StoreHarness, text: str
) -> None:
    told = Told(question="What is kelp?")
    await commit(store, told.create(metadata={"completed_by": "client"}))
    await commit(store, told.finish(TextDelta("Kelp is"), end=CUT))
    before = await harness.text()
    completion = _completion(told, text, message_id=told.run.question_id)
    (refusal,) = await store.commit([completion])
    assert type(refusal) is Conflict
    assert await harness.text() == before


async def test_p8_only_the_owner_completes_and_only_in_its_session(
    store: Store, harness: StoreHarness
) -> None:
    told, other = await _partial(store), await _partial(store)
    before = await harness.text()
    results = await store.commit(
        [
            _completion(told, "Kelp is.", owner=STRANGER),
            _completion(told, "Kelp is.", session_id=other.run.session_id),
            _completion(told, "Kelp is.", session_id="no-such-session"),
            _completion(told, "Kelp is.", session_id=""),
            _completion(told, "Kelp is.", message_id="no-such-message"),
        ]
    )
    assert [type(result) for result in results] == [NotFound] * 5
    assert await harness.text() == before


async def test_a_completion_takes_its_place_in_a_batch(store: Store) -> None:
    """It is checked against what the writes before it have made of the answer."""
    told = await begin(store, Told())
    completion = _completion(told, "Kelp is brown.")
    early, appended, ended, late, deleted, gone = await store.commit(
        [
            completion,
            told.say(TextDelta("Kelp is")),
            told.finish(end=CUT),
            completion,
            DeleteSession(OWNER, told.run.session_id),
            completion,
        ]
    )
    assert (type(early), appended, ended, late) == (Conflict, None, True, None)
    assert (deleted, type(gone)) == (None, NotFound)


@pytest.mark.parametrize(
    "values",
    [
        {"text": "Kelp is \ud83d"},
        {"references": (KELP, Reference(3, text="\ud83d"))},
        {"references": (Reference(3, extra={"\ud83d": 1}),)},
    ],
)
async def test_a_completion_that_can_never_be_stored_leaves_all_as_it_was(
    store: Store, values: dict[str, Any]
) -> None:
    told, neighbour = await _partial(store, "Kelp is", References((SAND,))), await _partial(store)
    before = await _message(store, told)
    completion = changed(_completion(told, "Kelp is."), **values)
    results = await store.commit([completion, _completion(neighbour, "Kelp is long.")])
    assert [type(result) for result in results] == [StoreError, type(None)]
    assert await _message(store, told) == before
    assert (await _message(store, neighbour)).answer.text == "Kelp is long."


# ------------------------------------------------------------------------------ metadata


async def test_metadata_of_a_run_that_ended_early_come_back(
    store: Store, harness: StoreHarness
) -> None:
    metadata = {"partial": True, "reason": "upstream_error", "error": "海 'x' \0"}
    told = await _partial(store, metadata=metadata)
    store = await harness.reopen(store)
    assert (await _message(store, told)).metadata == metadata


async def test_an_end_without_metadata_leaves_those_of_the_question(store: Store) -> None:
    told = Told(a_session(metadata={"s": 1}))
    await commit(store, told.create(metadata={"q": 1}))
    await commit(store, told.finish(TextDelta("a")))
    question, answer = await store.list_messages(told.run.session_id, 10)
    assert (question.metadata, answer.metadata) == ({"q": 1}, None)
    session = await store.get_session(OWNER, told.run.session_id)
    assert session is not None
    assert session.metadata == {"s": 1}


# ------------------------------------------------------------------------------ raw data


async def test_what_was_sent_to_the_upstream_is_kept_with_the_first_events(
    store: Store, harness: StoreHarness
) -> None:
    told = await begin(store, Told())
    sent = {"messages": [{"role": "user", "content": "海带 \0"}]}
    append = changed(told.say(TextDelta("a")), request=sent)
    await commit(store, append)
    store = await harness.reopen(store)  # as after a crash
    assert await store.get_raw(told.run.id) == (sent, None)
    await commit(store, told.say(TextDelta("b")), told.finish())
    assert await store.get_raw(told.run.id) == (sent, None)


async def test_the_end_of_a_run_may_tell_what_was_sent_last(store: Store) -> None:
    told = await begin(store, Told())
    await commit(store, changed(told.say(TextDelta("a")), request={"first": 1}))
    await commit(store, changed(told.finish(), request={"second": 2}, response="said"))
    assert await store.get_raw(told.run.id) == ({"second": 2}, "said")
