"""The contract of every store: API keys."""

from typing import Any

import pytest

from holdfast.errors import NotFound, StoreError
from holdfast.store.port import CreateKey, DeleteSession, RevokeKey, Store
from tests.support.harness import StoreHarness
from tests.support.records import OWNER, STRANGER, Told, a_key, changed, commit, tell, tick


async def test_a_store_begins_without_keys(store: Store) -> None:
    assert await store.list_keys() == []


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"owner": "海 '%", "name": "手机", "scopes": ("chat", "admin", "debug")},
        {"scopes": (), "concurrent_runs": 0, "asks_per_minute": 2**31 - 1},
        {"revoked_at": 5},
    ],
)
async def test_a_key_comes_back_as_it_was_written(
    store: Store, harness: StoreHarness, values: dict[str, Any]
) -> None:
    key = a_key(**values)
    assert await store.commit([CreateKey(key)]) == [None]
    store = await harness.reopen(store)
    assert await store.list_keys() == [key]


async def test_keys_of_all_owners_are_listed_oldest_first(store: Store) -> None:
    at = tick()
    keys = [a_key(id=key_id, created_at=at) for key_id in ("b", "c", "a")]
    oldest, newest = a_key(STRANGER, created_at=at - 1), a_key(created_at=at + 1)
    await commit(store, *[CreateKey(key) for key in (newest, *keys, oldest)])
    assert await store.list_keys() == [oldest, keys[2], keys[0], keys[1], newest]


async def test_a_revoked_key_stays_and_says_when(store: Store, harness: StoreHarness) -> None:
    revoked, kept = a_key(), a_key()
    await commit(store, CreateKey(revoked), CreateKey(kept))
    assert await store.commit([RevokeKey(revoked.id, 77)]) == [None]
    store = await harness.reopen(store)
    assert await store.list_keys() == [changed(revoked, revoked_at=77), kept]


@pytest.mark.parametrize("together", [True, False])
async def test_revoking_twice_is_no_error_and_the_first_time_counts(
    store: Store, together: bool
) -> None:
    key = a_key()
    await commit(store, CreateKey(key))
    revokes = [RevokeKey(key.id, 77), RevokeKey(key.id, 88)]
    for batch in [revokes] if together else [[revoke] for revoke in revokes]:
        await commit(store, *batch)
    assert await store.list_keys() == [changed(key, revoked_at=77)]


async def test_a_key_may_be_revoked_in_the_batch_that_creates_it(store: Store) -> None:
    key = a_key()
    early, _, late = await store.commit(
        [RevokeKey(key.id, 1), CreateKey(key), RevokeKey(key.id, 2)]
    )
    assert (type(early), late) == (NotFound, None)
    assert await store.list_keys() == [changed(key, revoked_at=2)]


async def test_a_key_that_does_not_exist_cannot_be_revoked(store: Store) -> None:
    key = a_key()
    await commit(store, CreateKey(key))
    (refusal,) = await store.commit([RevokeKey("no-such-key", 1)])
    assert isinstance(refusal, NotFound)
    assert await store.list_keys() == [key]


@pytest.mark.parametrize("same", ["id", "digest"])
async def test_a_second_key_of_one_id_or_one_digest_is_refused_alone(
    store: Store, same: str
) -> None:
    """Two keys with one digest would be one key with two owners."""
    first, third = a_key(), a_key()
    second = a_key(STRANGER, **{same: getattr(first, same)})
    results = await store.commit([CreateKey(first), CreateKey(second), CreateKey(third)])
    assert [type(result) for result in results] == [type(None), StoreError, type(None)]
    assert await store.list_keys() == [first, third]


async def test_keys_do_not_go_with_a_session(store: Store) -> None:
    key = a_key()
    told = await tell(store, Told())
    await commit(store, CreateKey(key), DeleteSession(OWNER, told.run.session_id))
    assert await store.list_keys() == [key]
