"""The ring of keys: what opens, what does not any more, and when that is known."""

import asyncio
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import BadRequest, Conflict, NotFound, StoreUnavailable
from holdfast.runner.keys import KeyRing, NewKey
from holdfast.settings.api_keys import GivenKey, digest_of, parse_api_keys
from holdfast.store.port import KeyRecord, Write
from tests.support.loop import turns
from tests.support.records import a_key
from tests.support.stage import on_stage, until
from tests.support.stores import ScriptedStore

GIVEN = parse_api_keys("carol:0123456789abcdef:chat+admin", "environment")


class KeyStore(ScriptedStore):
    """Holds keys; `reads` counts how often they were read."""

    def __init__(self, *keys: KeyRecord) -> None:
        super().__init__()
        self.keys = list(keys)
        self.reads = 0
        self.down = False
        self.reading = asyncio.Event()
        self.read_gate = asyncio.Event()
        self.read_gate.set()
        self.read = asyncio.Condition()

    async def list_keys(self) -> list[KeyRecord]:
        found = list(self.keys)
        self.reading.set()
        await self.read_gate.wait()
        async with self.read:
            self.reads += 1
            self.read.notify_all()
        if self.down:
            raise StoreUnavailable("down")
        return found

    async def was_read(self, times: int) -> None:
        async with asyncio.timeout(5), self.read:
            await self.read.wait_for(lambda: self.reads >= times)


def ring_on(store: KeyStore, given: Sequence[GivenKey] = (), **options: Any) -> KeyRing:
    async def submit(write: Write, on_result: Callable[[Any], None]) -> Any:
        (result,) = await store.commit([write])
        on_result(result)
        if isinstance(result, Exception):
            raise result
        return result

    return KeyRing(given, store, submit, lambda: 7, **options)


def with_key(key: str, **values: Any) -> KeyRecord:
    return a_key(digest=digest_of(key), **values)


class TestFinding:
    async def test_a_key_is_known_by_its_digest_alone(self) -> None:
        alice, bob = with_key("alice's key"), with_key("bob's key")
        ring = ring_on(KeyStore(alice, bob))
        await ring.start()
        assert ring.find("alice's key") == alice
        assert ring.find("bob's key") == bob
        for wrong in ("", "alice's ke", "alice's key ", "Alice's key", alice.digest, alice.id, "é"):
            assert ring.find(wrong) is None

    async def test_the_digests_are_compared_in_constant_time(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        compared: list[tuple[str, str]] = []

        def compare(a: str, b: str) -> bool:
            compared.append((a, b))
            return False

        ring = ring_on(KeyStore(with_key("k")))
        await ring.start()
        monkeypatch.setattr("hmac.compare_digest", compare)
        assert ring.find("k") is None
        assert compared == [(digest_of("k"), digest_of("k"))]

    async def test_a_revoked_key_opens_nothing(self) -> None:
        ring = ring_on(KeyStore(with_key("k", revoked_at=1)))
        await ring.start()
        assert ring.find("k") is None
        assert len(ring) == 0
        assert not ring.needed

    async def test_keys_of_the_environment_are_there_before_the_store_is(self) -> None:
        ring = ring_on(KeyStore(), GIVEN)
        found = ring.find("0123456789abcdef")
        assert found is not None
        assert (found.id, found.owner, found.scopes) == ("env-1", "carol", ("chat", "admin"))
        assert ring.needed

    async def test_the_environment_beats_the_store(self) -> None:
        ring = ring_on(KeyStore(with_key("0123456789abcdef", owner="mallory")), GIVEN)
        await ring.start()
        found = ring.find("0123456789abcdef")
        assert found is not None
        assert found.owner == "carol"

    async def test_finding_reads_nothing(self) -> None:
        store = KeyStore(with_key("k"))
        ring = ring_on(store)
        await ring.start()
        for _ in range(10):
            ring.find("k")
            ring.find("x")
        assert store.reads == 1


class TestManaging:
    async def test_a_new_key_counts_at_once_and_only_its_digest_is_stored(self) -> None:
        store = KeyStore()
        ring = ring_on(store)
        await ring.start()
        assert not ring.needed
        key, record = await ring.create(
            NewKey(owner="alice", name="phone", scopes=("chat", "debug"), concurrent_runs=3)
        )
        assert re.fullmatch(r"hf_[A-Za-z0-9_-]{43}", key)
        assert ring.find(key) == record
        assert ring.needed
        assert (record.owner, record.name, record.created_at) == ("alice", "phone", 7)
        assert (record.scopes, record.concurrent_runs) == (("chat", "debug"), 3)
        assert record.asks_per_minute is None
        assert record.digest == digest_of(key)
        assert key not in repr(store.batches)

    async def test_no_two_keys_are_the_same(self) -> None:
        ring = ring_on(KeyStore())
        made = [await ring.create(NewKey(owner="alice")) for _ in range(20)]
        assert len({key for key, _ in made}) == len({record.id for _, record in made}) == 20

    async def test_a_key_that_could_not_be_stored_opens_nothing(self) -> None:
        store = KeyStore()
        ring = ring_on(store)
        store.otherwise = lambda writes: [StoreUnavailable("down")]
        with pytest.raises(StoreUnavailable):
            await ring.create(NewKey(owner="alice"))
        assert len(ring) == 0
        assert not ring.needed

    @pytest.mark.parametrize(
        ("values", "told"),
        [
            ({"owner": ""}, "an owner has"),
            ({"owner": "a\n"}, "an owner has"),
            ({"name": "x" * 201}, "a name has"),
            ({"name": "a\x1b[2J"}, "a name has"),
            ({"scopes": ()}, "at least one of the scopes"),
            ({"scopes": ("root",)}, "at least one of the scopes"),
            ({"scopes": ("chat", "chat")}, "named twice"),
            ({"concurrent_runs": -1}, "concurrent_runs is a number"),
            ({"asks_per_minute": 1_000_001}, "asks_per_minute is a number"),
        ],
    )
    async def test_a_key_that_cannot_be_is_refused(self, values: dict[str, Any], told: str) -> None:
        store = KeyStore()
        with pytest.raises(BadRequest, match=told):
            await ring_on(store).create(NewKey(**{"owner": "alice", **values}))
        assert store.batches == []

    async def test_a_key_that_is_revoked_opens_nothing_from_then_on(self) -> None:
        store = KeyStore(with_key("one", id="1"), with_key("two", id="2"))
        ring = ring_on(store)
        await ring.start()
        await ring.revoke("1")
        assert ring.find("one") is None
        assert ring.find("two") is not None

    async def test_revoking_the_last_key_opens_the_server_to_nobody(self) -> None:
        ring = ring_on(KeyStore(with_key("one", id="1")))
        await ring.start()
        await ring.revoke("1")
        assert len(ring) == 0
        assert ring.needed

    async def test_a_key_whose_revocation_failed_still_opens(self) -> None:
        store = KeyStore(with_key("one", id="1"))
        ring = ring_on(store)
        await ring.start()
        store.otherwise = lambda writes: [NotFound("no such key")]
        with pytest.raises(NotFound):
            await ring.revoke("1")
        assert ring.find("one") is not None

    async def test_a_key_of_the_environment_cannot_be_revoked(self) -> None:
        store = KeyStore()
        ring = ring_on(store, GIVEN)
        with pytest.raises(Conflict, match="HOLDFAST_API_KEYS"):
            await ring.revoke("env-1")
        assert store.batches == []

    async def test_revoking_a_stored_twin_leaves_the_key_of_the_environment(self) -> None:
        ring = ring_on(KeyStore(with_key("0123456789abcdef", id="1")), GIVEN)
        await ring.start()
        await ring.revoke("1")
        assert ring.find("0123456789abcdef") is not None

    async def test_the_list_has_all_of_them(self) -> None:
        stored = [with_key("one"), with_key("two", revoked_at=3)]
        ring = ring_on(KeyStore(*stored), GIVEN)
        assert [key.id for key in await ring.list()] == ["env-1", *(key.id for key in stored)]


class TestReloading:
    async def test_keys_of_other_processes_come_and_go(self) -> None:
        store = KeyStore(with_key("one"))
        ring = ring_on(store, reload_s=0)
        await ring.start()
        store.keys = [with_key("two")]
        await store.was_read(store.reads + 2)
        assert ring.find("one") is None
        assert ring.find("two") is not None
        await ring.stop()
        reads = store.reads
        await asyncio.sleep(0)
        assert store.reads == reads

    async def test_a_store_of_one_process_is_read_once(self) -> None:
        store = KeyStore(with_key("one"))
        ring = ring_on(store)
        await ring.start()
        await turns()
        assert store.reads == 1
        await ring.stop()

    async def test_while_the_store_is_down_the_keys_stay_and_it_goes_on_after(self) -> None:
        store = KeyStore(with_key("one"))
        ring = ring_on(store, reload_s=0)
        await ring.start()
        store.down = True
        await store.was_read(store.reads + 3)
        assert ring.find("one") is not None
        store.down, store.keys = False, []
        await store.was_read(store.reads + 2)
        assert ring.find("one") is None
        await ring.stop()

    @pytest.mark.parametrize("revoked", [False, True])
    async def test_what_changed_while_it_was_read_is_not_undone(self, revoked: bool) -> None:
        store = KeyStore(with_key("one", id="1"))
        ring = ring_on(store)
        await ring.start()
        store.reading.clear()
        store.read_gate.clear()
        loading = asyncio.create_task(ring.load())
        await store.reading.wait()
        if revoked:
            await ring.revoke("1")
            store.keys = []
        else:
            key, record = await ring.create(NewKey(owner="alice"))
            store.keys.append(record)
        store.read_gate.set()
        await loading
        assert ring.find("one" if revoked else key) is (None if revoked else record)


class TestSupervisor:
    async def test_knows_the_stored_keys_after_its_start(self, tmp_path: Path) -> None:
        async with on_stage(tmp_path) as stage:
            key, _ = await stage.supervisor.keys.create(NewKey(owner="alice"))
            assert stage.supervisor.keys.needed
        async with on_stage(tmp_path) as stage:
            found = stage.supervisor.keys.find(key)
            assert found is not None
            assert found.owner == "alice"

    async def test_a_creation_whose_caller_has_gone_is_known_all_the_same(
        self, tmp_path: Path
    ) -> None:
        async with on_stage(tmp_path) as stage:
            stage.store.gate.clear()
            creating = asyncio.create_task(stage.supervisor.keys.create(NewKey(owner="alice")))
            await turns()
            creating.cancel()
            stage.store.gate.set()
            with pytest.raises(asyncio.CancelledError):
                await creating

            async def is_known() -> bool:
                return len(stage.supervisor.keys) == 1

            await until(is_known)
