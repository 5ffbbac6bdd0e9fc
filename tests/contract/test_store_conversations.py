"""The contract of every store: the names that upstreams have for a session's conversation."""

import pytest

from holdfast.events import TextDelta
from holdfast.store.port import CreateSession, DeleteSession, Remember, Store
from tests.support.harness import TABLES, StoreHarness
from tests.support.records import OWNER, Told, a_session, begin, commit


async def _a_session(store: Store) -> str:
    session = a_session()
    await commit(store, CreateSession(session))
    return session.id


@pytest.mark.parametrize("conversation", ["c-1", "", " ", "线程/ 海'%", "x" * 10_000])
async def test_what_is_remembered_outlives_the_process(
    store: Store, harness: StoreHarness, conversation: str
) -> None:
    session_id = await _a_session(store)
    assert await store.commit([Remember(session_id, "kb", conversation)]) == [None]
    store = await harness.reopen(store)
    assert await store.get_conversation(session_id, "kb") == conversation


async def test_what_nobody_noted_is_none(store: Store) -> None:
    session_id = await _a_session(store)
    assert await store.get_conversation(session_id, "kb") is None
    assert await store.get_conversation("no-such-session", "kb") is None


async def test_each_session_and_each_upstream_has_a_conversation_of_its_own(
    store: Store,
) -> None:
    one, other = await _a_session(store), await _a_session(store)
    await commit(
        store,
        Remember(one, "kb", "1"),
        Remember(one, "notes", "2"),
        Remember(other, "kb", "3"),
    )
    asked = [(one, "kb"), (one, "notes"), (other, "kb"), (other, "notes"), (one, "k")]
    found = [await store.get_conversation(*names) for names in asked]
    assert found == ["1", "2", "3", None, None]


@pytest.mark.parametrize("together", [True, False])
async def test_the_later_note_counts(store: Store, harness: StoreHarness, together: bool) -> None:
    session_id = await _a_session(store)
    notes = [Remember(session_id, "kb", name) for name in ("1", "2", "3")]
    for batch in [notes] if together else [[note] for note in notes]:
        await commit(store, *batch)
    assert await store.get_conversation(session_id, "kb") == "3"
    assert (await harness.counts())["conversations"] == 1


async def test_a_note_in_the_batch_that_creates_its_session_is_kept(store: Store) -> None:
    told = Told()
    await commit(store, told.create(), Remember(told.run.session_id, "script", "c"))
    assert await store.get_conversation(told.run.session_id, "script") == "c"


@pytest.mark.parametrize("together", [True, False])
async def test_a_note_for_a_session_that_was_deleted_is_no_error_and_leaves_nothing(
    store: Store, harness: StoreHarness, together: bool
) -> None:
    told = await begin(store, Told(), TextDelta("a"))
    session_id = told.run.session_id
    await commit(store, Remember(session_id, "script", "before"))
    delete, note = DeleteSession(OWNER, session_id), Remember(session_id, "script", "after")
    if together:
        assert await store.commit([delete, note]) == [None, None]
    else:
        assert await store.commit([delete]) == [None]
        assert await store.commit([note]) == [None]
    assert await store.get_conversation(session_id, "script") is None
    assert await harness.counts() == dict.fromkeys(TABLES, 0)


async def test_deleting_a_session_leaves_the_conversations_of_the_others(store: Store) -> None:
    gone, kept = await _a_session(store), await _a_session(store)
    await commit(store, Remember(gone, "kb", "gone"), Remember(kept, "kb", "kept"))
    await commit(store, DeleteSession(OWNER, gone))
    assert await store.get_conversation(gone, "kb") is None
    assert await store.get_conversation(kept, "kb") == "kept"
