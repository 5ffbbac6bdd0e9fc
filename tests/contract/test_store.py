"""The contract of every store: batches, beginnings, idempotency."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from holdfast.errors import (
    HoldfastError,
    IdempotencyMismatch,
    NotFound,
    RunActive,
    StoreError,
    StoreUnavailable,
)
from holdfast.events import TextDelta
from holdfast.store.port import (
    Append,
    CreateRun,
    CreateSession,
    DeleteSession,
    Probe,
    RequestCancel,
    RunCreated,
    Store,
    UpdateSession,
    Write,
)
from tests.support.harness import StoreHarness
from tests.support.records import (
    OWNER,
    STRANGER,
    Told,
    a_session,
    begin,
    changed,
    commit,
    events_of,
    read_all,
    tell,
    tick,
)

# ------------------------------------------------------------------------------ batches


async def test_an_empty_batch_is_nothing(store: Store) -> None:
    assert await store.commit([]) == []


async def test_every_write_has_the_result_that_its_class_promises(store: Store) -> None:
    first, second = Told(), Told()
    assert first.session is not None
    session = a_session()
    assert await store.commit([first.create(), CreateSession(session), second.create()]) == [
        RunCreated(first.run, replayed=False),
        None,
        RunCreated(second.run, replayed=False),
    ]
    assert await store.commit(
        [
            first.say(TextDelta("a")),
            RequestCancel(first.run.id),
            UpdateSession(OWNER, session.id, tick(), title="new"),
            second.finish(),
            Probe(tick()),
            DeleteSession(OWNER, session.id),
        ]
    ) == [None, None, None, True, None, None]


async def test_p1_the_question_is_stored_with_its_run(store: Store, harness: StoreHarness) -> None:
    told = await begin(store, Told(question="What is kelp?"), TextDelta("A"))
    store = await harness.reopen(store)
    question, answer = await store.list_messages(told.run.session_id, 10)
    assert (question.id, question.role, question.answer.text, question.status) == (
        told.run.question_id,
        "user",
        "What is kelp?",
        "complete",
    )
    assert (answer.id, answer.role, answer.status, answer.run_id) == (
        told.run.message_id,
        "assistant",
        "streaming",
        told.run.id,
    )


async def test_writes_of_a_batch_take_effect_in_their_order(store: Store) -> None:
    """A batch that tells a whole run, and the next one of the session, holds together."""
    session = a_session()
    first = Told(session_id=session.id)
    second = first.next_turn()
    results = await store.commit(
        [
            CreateSession(session),
            first.create(),
            first.say(TextDelta("a"), TextDelta("b")),
            first.finish(TextDelta("c")),
            second.create(),
            second.say(TextDelta("d")),
        ]
    )
    assert [result for result in results if isinstance(result, Exception)] == []
    assert await read_all(store, first.run.id) == first.entries
    assert await read_all(store, second.run.id) == second.entries
    message = await store.get_message(OWNER, first.run.message_id)
    assert message is not None
    assert message.answer.text == "abc"


async def test_an_append_and_the_end_of_its_run_in_one_batch_keep_every_event(
    store: Store,
) -> None:
    told = await begin(store, Told())
    await commit(store, told.say(TextDelta("a")), told.finish(TextDelta("b")))
    assert await read_all(store, told.run.id) == told.entries


async def test_a_refused_write_does_not_harm_its_neighbours(store: Store) -> None:
    good, later = await begin(store, Told()), Told()
    lost = Told(session_id="no-such-session")
    results = await store.commit(
        [
            good.say(TextDelta("a")),
            lost.create(),
            DeleteSession(OWNER, "no-such-session"),
            later.create(),
            UpdateSession(OWNER, "no-such-session", tick(), title="x"),
        ]
    )
    assert [type(result) for result in results] == [
        type(None),
        NotFound,
        NotFound,
        RunCreated,
        NotFound,
    ]
    assert await read_all(store, good.run.id) == good.entries
    assert await read_all(store, later.run.id) == later.entries


async def _poisoned_question(store: Store) -> Write:
    return Told(question="half a pair: \ud83d").create()


async def _poisoned_append(store: Store) -> Write:
    told = await begin(store, Told())
    return Append(told.run.id, 2**70, 2**70, b"{}\n")


async def _poisoned_session(store: Store) -> Write:
    session = a_session()
    await commit(store, CreateSession(session))
    return CreateSession(session)


async def _poisoned_key(store: Store) -> Write:
    await commit(store, CreateSession(a_session(key="chat-1")))
    return Told(a_session(key="chat-1")).create()


POISONS = [_poisoned_question, _poisoned_append, _poisoned_session, _poisoned_key]


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("poison", POISONS)
async def test_a_write_that_can_never_be_stored_does_not_harm_its_neighbours(
    store: Store, poison: Callable[[Store], Awaitable[Write]], place: int
) -> None:
    poisoned = await poison(store)
    ending, beginning = await begin(store, Told()), Told()
    batch: list[Write] = [ending.finish(TextDelta("a")), beginning.create()]
    batch.insert(place, poisoned)
    results = await store.commit(batch)
    refusal = results.pop(place)
    assert isinstance(refusal, StoreError)
    assert results == [True, RunCreated(beginning.run, replayed=False)]
    assert await read_all(store, ending.run.id) == ending.entries
    assert await read_all(store, beginning.run.id) == beginning.entries


@pytest.mark.parametrize("poison", POISONS)
async def test_a_write_that_can_never_be_stored_leaves_nothing_behind(
    store: Store, harness: StoreHarness, poison: Callable[[Store], Awaitable[Write]]
) -> None:
    poisoned = await poison(store)
    before = await harness.counts()
    (refusal,) = await store.commit([poisoned])
    assert isinstance(refusal, StoreError)
    assert not isinstance(refusal, StoreUnavailable)
    assert await harness.counts() == before


async def test_one_refused_and_one_poisoned_write_in_a_batch(store: Store) -> None:
    told = await begin(store, Told())
    results = await store.commit(
        [
            Told(session_id="no-such-session").create(),
            await _poisoned_append(store),
            told.say(TextDelta("a")),
        ]
    )
    assert [type(result) for result in results] == [NotFound, StoreError, type(None)]
    assert await read_all(store, told.run.id) == told.entries


async def test_a_poisoned_run_can_still_be_ended_with_what_is_stored(store: Store) -> None:
    told = await begin(store, Told(), TextDelta("a"))
    (refusal,) = await store.commit([Append(told.run.id, 2**70, 2**70, b"{}\n")])
    assert isinstance(refusal, StoreError)
    assert await commit(store, told.finish()) == [True]
    assert await read_all(store, told.run.id) == told.entries


@pytest.mark.parametrize("runs", [1, 3, 4, 5, 16, 21, 64, 85, 149])
async def test_a_batch_may_append_to_any_number_of_runs(store: Store, runs: int) -> None:
    told = [Told() for _ in range(runs)]
    await commit(store, *[one.create() for one in told])
    for text in "ab":
        await commit(store, *[one.say(TextDelta(f"{text}{n}")) for n, one in enumerate(told)])
    for one in told:
        assert await read_all(store, one.run.id) == one.entries


async def test_a_probe_leaves_nothing_behind(store: Store, harness: StoreHarness) -> None:
    told = await begin(store, Told(), TextDelta("a"))
    before = await harness.counts()
    await commit(store, Probe(1), told.say(TextDelta("b")), Probe(2))
    assert await harness.counts() == {**before, "journal": before["journal"] + 1}
    assert await read_all(store, told.run.id) == told.entries
    assert [run.id for run, _ in await store.live_runs()] == [told.run.id]


# ------------------------------------------------------------------------------ idempotency


def _keyed(key: str = "k", fingerprint: str = "f", **values: Any) -> Told:
    return Told(idempotency_key=key, fingerprint=fingerprint, **values)


async def test_p7_the_same_key_is_the_same_run(store: Store, harness: StoreHarness) -> None:
    first = await begin(store, _keyed(), TextDelta("a"))
    before = await harness.counts()
    assert await commit(store, _keyed().create()) == [RunCreated(first.run, replayed=True)]
    assert await harness.counts() == before


async def test_p7_the_same_key_twice_in_one_batch_is_one_run(
    store: Store, harness: StoreHarness
) -> None:
    first, second, third = _keyed(), _keyed(), _keyed()
    assert await commit(store, first.create(), second.create(), third.create()) == [
        RunCreated(first.run, replayed=False),
        RunCreated(first.run, replayed=True),
        RunCreated(first.run, replayed=True),
    ]
    counts = await harness.counts()
    assert (counts["sessions"], counts["runs"], counts["messages"]) == (1, 1, 2)


async def test_p7_a_replay_of_an_ended_run_tells_its_end(
    store: Store, harness: StoreHarness
) -> None:
    first = await tell(store, _keyed(), TextDelta("a"))
    store = await harness.reopen(store)
    (created,) = await commit(store, _keyed().create())
    assert created.replayed
    assert created.run == await store.get_run(OWNER, first.run.id)
    assert (created.run.status, created.run.outcome) == ("ended", "completed")


@pytest.mark.parametrize("together", [True, False])
async def test_p7_the_same_key_with_another_request_is_refused(
    store: Store, harness: StoreHarness, together: bool
) -> None:
    first, other = _keyed(), _keyed(fingerprint="g")
    if together:
        created, refused = await store.commit([first.create(), other.create()])
        assert created == RunCreated(first.run, replayed=False)
    else:
        await begin(store, first)
        (refused,) = await store.commit([other.create()])
    assert isinstance(refused, IdempotencyMismatch)
    counts = await harness.counts()
    assert (counts["sessions"], counts["runs"], counts["messages"]) == (1, 1, 2)


async def test_p7_p8_a_key_belongs_to_its_owner(store: Store) -> None:
    mine, theirs = _keyed(), _keyed(owner=STRANGER)
    assert await commit(store, mine.create(), theirs.create()) == [
        RunCreated(mine.run, replayed=False),
        RunCreated(theirs.run, replayed=False),
    ]


async def test_p7_a_replay_comes_before_every_other_refusal(store: Store) -> None:
    """A client that asks again because it lost the answer must not be told that it is busy."""
    session = a_session()
    first = Told(session, idempotency_key="k", fingerprint="f")
    await begin(store, first)
    again = first.next_turn(idempotency_key="k", fingerprint="f")
    assert await commit(store, again.create()) == [RunCreated(first.run, replayed=True)]
    lost = Told(session_id="no-such-session", idempotency_key="k", fingerprint="f")
    assert await commit(store, lost.create()) == [RunCreated(first.run, replayed=True)]


async def test_p7_a_key_lives_as_long_as_its_run(store: Store) -> None:
    first = await tell(store, _keyed())
    await commit(store, DeleteSession(OWNER, first.run.session_id))
    second = _keyed(fingerprint="g")
    assert await commit(store, second.create()) == [RunCreated(second.run, replayed=False)]


async def test_p7_a_refused_question_does_not_use_its_key_up(store: Store) -> None:
    busy = await begin(store, Told())
    refused = busy.next_turn(idempotency_key="k", fingerprint="f")
    (refusal,) = await store.commit([refused.create()])
    assert isinstance(refusal, RunActive)
    await commit(store, busy.finish())
    assert await commit(store, refused.create()) == [RunCreated(refused.run, replayed=False)]


async def test_runs_without_a_key_are_never_the_same(store: Store) -> None:
    first, second = Told(), Told()
    results = await commit(store, first.create(), second.create())
    assert [created.replayed for created in results] == [False, False]


async def test_p7_a_run_is_found_by_its_key_while_it_exists(
    store: Store, harness: StoreHarness
) -> None:
    told = await begin(store, _keyed("海 '%", model="m", route_reason="because"))
    assert await store.find_run(OWNER, "海 '%") == told.run
    await commit(store, told.finish(TextDelta("a")))
    store = await harness.reopen(store)
    assert await store.find_run(OWNER, "海 '%") == await store.get_run(OWNER, told.run.id)
    await commit(store, DeleteSession(OWNER, told.run.session_id))
    assert await store.find_run(OWNER, "海 '%") is None


async def test_p7_p8_a_key_finds_a_run_of_its_owner_and_exactly_that(store: Store) -> None:
    mine, theirs = _keyed("k"), _keyed("k", owner=STRANGER)
    await commit(store, mine.create(), theirs.create(), Told().create())
    assert await store.find_run(OWNER, "k") == mine.run
    assert await store.find_run(STRANGER, "k") == theirs.run
    for owner, key in (("", "k"), (OWNER, ""), (OWNER, "K"), (OWNER, "k "), (OWNER, "%")):
        assert await store.find_run(owner, key) is None


# ------------------------------------------------------------------------------ one live run


@pytest.mark.parametrize("together", [True, False])
async def test_a_session_has_at_most_one_live_run(
    store: Store, harness: StoreHarness, together: bool
) -> None:
    first = Told()
    second = first.next_turn()
    if together:
        _, refusal = await store.commit([first.create(), second.create()])
    else:
        await begin(store, first)
        (refusal,) = await store.commit([second.create()])
    assert isinstance(refusal, RunActive)
    assert refusal.extra == {"session_id": first.run.session_id, "run_id": first.run.id}
    counts = await harness.counts()
    assert (counts["runs"], counts["messages"], counts["journal"]) == (1, 2, 1)


async def test_the_next_question_may_come_in_the_batch_that_ends_the_last(store: Store) -> None:
    first = await begin(store, Told())
    second = first.next_turn()
    assert await commit(store, first.finish(TextDelta("a")), second.create()) == [
        True,
        RunCreated(second.run, replayed=False),
    ]
    assert await read_all(store, first.run.id) == first.entries
    assert await read_all(store, second.run.id) == second.entries


async def test_sessions_do_not_make_each_other_busy(store: Store) -> None:
    told = [Told() for _ in range(3)]
    await commit(store, *[one.create() for one in told])
    assert {run.id for run, _ in await store.live_runs()} == {one.run.id for one in told}


# ------------------------------------------------------------------------------ refusals


async def _unknown_session(store: Store) -> CreateRun:
    return Told(session_id="no-such-session").create()


async def _session_of_another(store: Store) -> CreateRun:
    theirs = await tell(store, Told(owner=STRANGER))
    return Told(session_id=theirs.run.session_id).create()


async def _unknown_question(store: Store) -> CreateRun:
    mine = await tell(store, Told())
    return mine.next_turn(question_id="no-such-question").create()


async def _unknown_question_in_a_new_session(store: Store) -> CreateRun:
    return Told(a_session(), question_id="no-such-question").create()


async def _question_of_another_session(store: Store) -> CreateRun:
    mine, other = await tell(store, Told()), await tell(store, Told())
    return mine.next_turn(question_id=other.run.question_id).create()


async def _an_answer_as_question(store: Store) -> CreateRun:
    mine = await tell(store, Told())
    return mine.next_turn(question_id=mine.run.message_id).create()


@pytest.mark.parametrize(
    "refused",
    [
        _unknown_session,
        _session_of_another,
        _unknown_question,
        _unknown_question_in_a_new_session,
        _question_of_another_session,
        _an_answer_as_question,
    ],
)
async def test_a_refused_question_leaves_nothing_behind(
    store: Store, harness: StoreHarness, refused: Callable[[Store], Awaitable[CreateRun]]
) -> None:
    write = await refused(store)
    before = [await harness.rows(table) for table in ("sessions", "messages", "runs")]
    journal = len(await harness.rows("journal"))
    (refusal,) = await store.commit([write])
    assert isinstance(refusal, NotFound)
    assert [await harness.rows(table) for table in ("sessions", "messages", "runs")] == before
    assert len(await harness.rows("journal")) == journal


async def test_refusals_are_errors_that_callers_can_be_told(store: Store) -> None:
    (refusal,) = await store.commit([await _session_of_another(store)])
    assert isinstance(refusal, HoldfastError)
    assert refusal.status == 404
    assert STRANGER not in refusal.message


async def test_a_stored_run_is_what_was_written(store: Store) -> None:
    told = Told(
        model="some-model",
        route_reason="the default",
        on_disconnect="cancel",
        idempotency_key="k" * 255,
        fingerprint="f",
    )
    await begin(store, told, TextDelta("a"))
    assert await store.get_run(OWNER, told.run.id) == told.run
    await commit(store, told.finish(ended_at=5))
    assert await store.get_run(OWNER, told.run.id) == changed(
        told.run, status="ended", outcome="completed", last_seq=3, ended_at=5
    )
    assert events_of(await read_all(store, told.run.id))[1] == TextDelta("a")
