"""The contract of every store: sessions, owners, and what deleting leaves."""

from typing import Any

import pytest

from holdfast.errors import NotFound, StoreError
from holdfast.events import Reference, References, TextDelta
from holdfast.store.port import (
    CreateSession,
    DeleteSession,
    Remember,
    SessionRecord,
    SetFeedback,
    Store,
    UpdateSession,
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

SECRET = "the-secret-passage"


async def _session(store: Store, session_id: str, owner: str = OWNER) -> SessionRecord:
    session = await store.get_session(owner, session_id)
    assert session is not None
    return session


# ------------------------------------------------------------------------------ one session


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"title": "海带 \0 'x'", "metadata": {"海": [1, None], "": {"b": True}}},
        {"dialect": "v1", "key": "their own name/ 海", "hidden": True},
        {"preset": "careful 海", "title": ""},
    ],
)
async def test_a_session_comes_back_as_it_was_written(
    store: Store, harness: StoreHarness, values: dict[str, Any]
) -> None:
    session = a_session(**values)
    await commit(store, CreateSession(session))
    store = await harness.reopen(store)
    assert await store.get_session(OWNER, session.id) == session


async def test_a_session_that_begins_with_a_question_keeps_its_preset(store: Store) -> None:
    told = await tell(store, Told(a_session(preset="careful")), TextDelta("a"))
    await begin(store, told.next_turn())
    assert (await _session(store, told.run.session_id)).preset == "careful"
    assert [s.preset for s in await store.list_sessions(OWNER, 5)] == ["careful"]


async def test_a_session_names_its_live_run(store: Store) -> None:
    told = await begin(store, Told())
    assert (await _session(store, told.run.session_id)).live_run_id == told.run.id
    assert [s.live_run_id for s in await store.list_sessions(OWNER, 5)] == [told.run.id]
    await commit(store, told.finish())
    assert (await _session(store, told.run.session_id)).live_run_id is None
    assert [s.live_run_id for s in await store.list_sessions(OWNER, 5)] == [None]


async def test_a_question_moves_its_session_to_the_front(store: Store) -> None:
    session = a_session(at=10)
    await commit(store, CreateSession(session))
    await begin(store, Told(session_id=session.id, created_at=20))
    assert changed(await _session(store, session.id), live_run_id=None) == changed(
        session, updated_at=20
    )


async def test_the_first_question_gives_a_nameless_session_its_title(store: Store) -> None:
    session = a_session()
    await commit(store, CreateSession(session))
    told = Told(session_id=session.id)
    await commit(store, told.create(title="What is kelp?"))
    await commit(store, told.finish())
    assert (await _session(store, session.id)).title == "What is kelp?"
    await commit(store, told.next_turn().create(title="And what else?"))
    assert (await _session(store, session.id)).title == "What is kelp?"


async def test_renaming_keeps_the_metadata_and_the_other_way_round(store: Store) -> None:
    session = a_session(title="old", metadata={"a": 1})
    await commit(store, CreateSession(session))
    await commit(store, UpdateSession(OWNER, session.id, 50, title="new"))
    assert await _session(store, session.id) == changed(session, title="new", updated_at=50)
    await commit(store, UpdateSession(OWNER, session.id, 60, metadata={"b": 2}))
    assert await _session(store, session.id) == changed(
        session, title="new", metadata={"b": 2}, updated_at=60
    )


async def test_metadata_can_be_replaced_by_nothing(store: Store) -> None:
    session = a_session(metadata={"a": 1})
    await commit(store, CreateSession(session))
    await commit(store, UpdateSession(OWNER, session.id, tick(), metadata={}))
    assert not (await _session(store, session.id)).metadata


async def test_a_session_is_found_by_its_callers_own_name(store: Store) -> None:
    session = a_session(dialect="v1", key="chat 海")
    await commit(store, CreateSession(session))
    assert await store.find_session(OWNER, "v1", "chat 海") == session
    for owner, dialect, key in (
        (OWNER, "v1", "chat"),
        (OWNER, "native", "chat 海"),
        (STRANGER, "v1", "chat 海"),
        (OWNER, "v1", ""),
    ):
        assert await store.find_session(owner, dialect, key) is None


async def test_a_callers_name_is_unique_per_owner_and_dialect(store: Store) -> None:
    await commit(
        store,
        CreateSession(a_session(dialect="v1", key="k")),
        CreateSession(a_session(dialect="messages", key="k")),
        CreateSession(a_session(owner=STRANGER, dialect="v1", key="k")),
        CreateSession(a_session(dialect="v1")),
        CreateSession(a_session(dialect="v1")),
    )
    (refusal,) = await store.commit([CreateSession(a_session(dialect="v1", key="k"))])
    assert isinstance(refusal, StoreError)


# ------------------------------------------------------------------------------ pages


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 7, 8])
async def test_sessions_come_in_pages_that_fit_together_at_equal_times(
    store: Store, limit: int
) -> None:
    sessions = [a_session(at=at) for at in (30, 10, 20, 20, 20, 10, 40)]
    await commit(store, *[CreateSession(session) for session in sessions])
    newest_first = sorted(sessions, key=lambda s: (s.updated_at, s.id), reverse=True)
    seen: list[SessionRecord] = []
    before: tuple[int, str] | None = None
    while page := await store.list_sessions(OWNER, limit, before):
        assert len(page) <= limit
        seen += page
        assert len(seen) <= len(sessions), "the pages go round in circles"
        before = (page[-1].updated_at, page[-1].id)
    assert seen == newest_first


async def test_hidden_sessions_are_not_listed_but_can_be_had(store: Store) -> None:
    hidden, shown = a_session(hidden=True), a_session()
    await commit(store, CreateSession(hidden), CreateSession(shown))
    assert await store.list_sessions(OWNER, 10) == [shown]
    assert await store.get_session(OWNER, hidden.id) == hidden


# ------------------------------------------------------------------------------ owners


async def test_p8_what_belongs_to_another_owner_does_not_exist(store: Store) -> None:
    told = await tell(store, Told(a_session(dialect="v1", key="k")), TextDelta("a"))
    live = await begin(store, told.next_turn())
    run, session = told.run, told.run.session_id
    assert await store.get_run(STRANGER, run.id) is None
    assert await store.get_run(STRANGER, live.run.id) is None
    assert await store.get_session(STRANGER, session) is None
    assert await store.find_session(STRANGER, "v1", "k") is None
    assert await store.list_sessions(STRANGER, 10) == []
    assert await store.get_message(STRANGER, run.message_id) is None
    assert await store.get_message(STRANGER, run.question_id) is None
    assert await store.get_run(OWNER, run.id) is not None
    assert await store.get_message(OWNER, run.question_id) is not None


async def test_p8_nobody_can_change_what_belongs_to_another_owner(
    store: Store, harness: StoreHarness
) -> None:
    told = await tell(store, Told(a_session(title="mine")), TextDelta("a"))
    before = await harness.text()
    session = told.run.session_id
    results = await store.commit(
        [
            UpdateSession(STRANGER, session, tick(), title="theirs", metadata={"x": 1}),
            DeleteSession(STRANGER, session),
            Told(owner=STRANGER, session_id=session).create(),
            Told(owner=STRANGER, session_id=session, question_id=told.run.question_id).create(),
        ]
    )
    assert [type(result) for result in results] == [NotFound] * 4
    assert await harness.text() == before


@pytest.mark.parametrize("owner", ["", "ADA", "ada ", "ada\0", "ad", "%", "ad_"])
async def test_p8_an_owner_is_exactly_its_name(store: Store, owner: str) -> None:
    told = await tell(store, Told(), TextDelta("a"))
    assert await store.get_run(owner, told.run.id) is None
    assert await store.list_sessions(owner, 10) == []
    assert await store.get_message(owner, told.run.message_id) is None


# ------------------------------------------------------------------------------ deleting


async def _secrets(store: Store, told: Told) -> Told:
    """A session that holds the secret in every place that can hold one."""
    await commit(store, told.create(metadata={"m": SECRET}))
    await commit(store, Remember(told.run.session_id, "upstream", SECRET))
    await commit(store, told.say(References((Reference(1, text=SECRET),)), TextDelta(SECRET)))
    await commit(store, told.finish(request={"r": SECRET}, response=SECRET))
    await commit(store, SetFeedback(OWNER, told.run.message_id, {"comment": SECRET}))
    return told


async def test_deleting_a_session_erases_all_of_it(store: Store, harness: StoreHarness) -> None:
    told = await _secrets(store, Told(a_session(title=SECRET), question=SECRET))
    await _secrets(store, told.again())
    await commit(store, DeleteSession(OWNER, told.run.session_id))
    assert await harness.counts() == dict.fromkeys(TABLES, 0)
    assert await store.get_session(OWNER, told.run.session_id) is None
    assert await store.get_run(OWNER, told.run.id) is None
    assert await store.get_message(OWNER, told.run.message_id) is None
    assert await store.read_log(told.run.id, 0) is None
    assert await store.get_raw(told.run.id) == (None, None)
    assert await store.get_conversation(told.run.session_id, "upstream") is None


async def test_deleting_erases_the_journal_of_ended_runs_too_while_others_write(
    store: Store, harness: StoreHarness
) -> None:
    other = await begin(store, Told(), TextDelta("stays"))
    told = await _secrets(store, Told(a_session(title=SECRET), question=SECRET))
    await commit(store, other.say(TextDelta("more")))
    await commit(store, DeleteSession(OWNER, told.run.session_id))
    assert SECRET not in await harness.text()
    assert {row["run_id"] for row in await harness.rows("journal")} == {other.run.id}
    assert await read_all(store, other.run.id) == other.entries
    await commit(store, other.finish())
    assert await read_all(store, other.run.id) == other.entries


async def test_deleting_erases_the_journal_of_a_live_run(
    store: Store, harness: StoreHarness
) -> None:
    told = await begin(store, Told(), TextDelta(SECRET))
    other = await begin(store, Told())
    await commit(store, DeleteSession(OWNER, told.run.session_id), other.say(TextDelta("a")))
    assert SECRET not in await harness.text()
    assert await store.read_log(told.run.id, 0) is None
    assert [run.id for run, _ in await store.live_runs()] == [other.run.id]


async def test_deleting_erases_what_an_earlier_process_had_written(
    store: Store, harness: StoreHarness
) -> None:
    other = await begin(store, Told())
    ended = await _secrets(store, Told(question=SECRET))
    live = await begin(store, Told(question=SECRET), TextDelta(SECRET))
    store = await harness.reopen(store)
    await commit(store, DeleteSession(OWNER, ended.run.session_id))
    await commit(store, DeleteSession(OWNER, live.run.session_id))
    assert SECRET not in await harness.text()
    assert await read_all(store, other.run.id) == other.entries


async def test_a_run_that_ends_after_its_session_was_deleted_writes_nothing(
    store: Store, harness: StoreHarness
) -> None:
    told = await begin(store, Told(), TextDelta("a"))
    await commit(store, DeleteSession(OWNER, told.run.session_id))
    assert await commit(store, told.finish(References((Reference(1, text=SECRET),)))) == [False]
    assert await harness.counts() == dict.fromkeys(TABLES, 0)
    assert await store.read_log(told.run.id, 0) is None


@pytest.mark.parametrize("together", [True, False])
async def test_what_a_run_still_says_after_its_session_was_deleted_does_not_stay(
    store: Store, harness: StoreHarness, together: bool
) -> None:
    """An append may be on its way when the session goes; it must not stay in the journal."""
    told = await begin(store, Told())
    delete = DeleteSession(OWNER, told.run.session_id)
    if together:
        await store.commit([delete, told.say(TextDelta(SECRET))])
    else:
        await store.commit([delete])
        await store.commit([told.say(TextDelta(SECRET))])
    assert await commit(store, told.finish()) == [False]
    assert SECRET not in await harness.text()
    assert await harness.counts() == dict.fromkeys(TABLES, 0)
    assert await store.read_log(told.run.id, 0) is None


async def test_deleting_one_session_leaves_the_others_whole(store: Store) -> None:
    gone, kept = await _secrets(store, Told()), await _secrets(store, Told())
    await commit(store, DeleteSession(OWNER, gone.run.session_id))
    assert await read_all(store, kept.run.id) == kept.entries
    assert [m.answer.text for m in await store.list_messages(kept.run.session_id, 5)] == [
        "What is kelp?",
        SECRET,
    ]
    assert await store.get_raw(kept.run.id) == ({"r": SECRET}, SECRET)


async def test_deleting_twice_is_not_found(store: Store) -> None:
    told = await tell(store, Told())
    delete = DeleteSession(OWNER, told.run.session_id)
    first, second = await store.commit([delete, delete])
    assert first is None
    assert isinstance(second, NotFound)
