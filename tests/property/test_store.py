"""A store against a model of itself, through any order of writes, purges and crashes."""

import asyncio
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from holdfast.engine.fold import fold
from holdfast.engine.run import UpstreamEnd
from holdfast.errors import NotFound, RunActive, StoreError
from holdfast.events import Event, Reason, TextDelta
from holdfast.store.port import DeleteSession, Probe, Store, Write
from holdfast.store.postgres import PostgresStore
from holdfast.store.sqlite import writer as sqlite_writer
from tests.support.harness import PostgresHarness, SqliteHarness, StoreHarness
from tests.support.postgres import PostgresServer
from tests.support.records import OWNER, Told, commit, events_of, read_all
from tests.support.strategies import contents

T = TypeVar("T")

said = st.lists(contents, min_size=1, max_size=3)
causes = st.builds(UpstreamEnd, reason=st.none() | st.sampled_from(Reason))
some = st.data()


class StoreMachine(RuleBasedStateMachine):
    """What `Told` remembers is what the store must say, whatever happened in between."""

    def __init__(self, harness: StoreHarness) -> None:
        super().__init__()
        self.harness = harness
        self._loop = asyncio.Runner()
        self.live: list[Told] = []
        self.ended: list[Told] = []
        self.gone: list[Told] = []

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run(work)

    @initialize()
    def open(self) -> None:
        self.store: Store = self._do(self.harness.open())

    def teardown(self) -> None:
        self._do(self.harness.close())
        self._loop.close()

    # ------------------------------------------------------------------ writes

    @rule()
    def ask(self) -> None:
        told = Told()
        self._do(commit(self.store, told.create()))
        self.live.append(told)

    @precondition(lambda self: self.ended)
    @rule(data=some, again=st.booleans())
    def ask_on(self, data: st.DataObject, again: bool) -> None:
        before = data.draw(st.sampled_from(self.ended))
        busy = before.run.session_id in {told.run.session_id for told in self.live}
        told = before.again() if again else before.next_turn()
        (result,) = self._do(self.store.commit([told.create()]))
        if busy:
            assert isinstance(result, RunActive)
        else:
            assert not isinstance(result, Exception)
            self.live.append(told)

    @precondition(lambda self: self.live)
    @rule(data=some, probe=st.booleans())
    def write_together(self, data: st.DataObject, probe: bool) -> None:
        """One commit of many runs: some go on, some end, some begin, some can never be stored."""
        chosen = data.draw(st.lists(st.sampled_from(self.live), unique=True, min_size=1))
        writes: list[Write] = []
        ending: list[Told] = []
        for told in chosen:
            events: list[Event] = data.draw(said)
            if data.draw(st.booleans()):
                writes.append(told.finish(*events, end=data.draw(causes)))
                ending.append(told)
            else:
                writes.append(told.say(*events))
        new = [Told() for _ in range(data.draw(st.integers(0, 2)))]
        writes += [told.create() for told in new]
        poison = data.draw(st.none() | st.integers(0, len(writes)))
        if poison is not None:
            writes.insert(poison, Told(question="half a pair: \ud83d").create())
        if probe:
            writes.append(Probe(1))
        results = self._do(self.store.commit(writes))
        if poison is not None:
            assert isinstance(results.pop(poison), StoreError)
        assert not [result for result in results if isinstance(result, Exception)]
        self.live = [told for told in self.live if told not in ending] + new
        self.ended += ending

    @precondition(lambda self: self.live or self.ended)
    @rule(data=some)
    def delete(self, data: st.DataObject) -> None:
        session = data.draw(st.sampled_from([*self.live, *self.ended])).run.session_id
        delete = DeleteSession(OWNER, session)
        done, again = self._do(self.store.commit([delete, delete]))
        assert done is None
        assert isinstance(again, NotFound)
        self.gone += [t for t in (*self.live, *self.ended) if t.run.session_id == session]
        self.live = [told for told in self.live if told.run.session_id != session]
        self.ended = [told for told in self.ended if told.run.session_id != session]

    @rule()
    def crash(self) -> None:
        self.store = self._do(self.harness.reopen(self.store))
        self.recover()

    def recover(self) -> None:
        """What must be done after a crash before runs go on."""

    # ------------------------------------------------------------------ what must hold

    @precondition(lambda self: self.live or self.ended)
    @rule(data=some, limit=st.integers(1, 5))
    def read(self, data: st.DataObject, limit: int) -> None:
        told = data.draw(st.sampled_from([*self.live, *self.ended]))
        after = data.draw(st.integers(0, len(told.entries) + 2))
        assert self._do(read_all(self.store, told.run.id, after, limit)) == told.entries[after:]
        page = self._do(self.store.read_log(told.run.id, after))
        assert page is not None
        assert (page.ended, page.last_seq) == (told in self.ended, len(told.entries))

    @invariant()
    def every_log_is_whole(self) -> None:
        for told in (*self.live, *self.ended):
            assert self._do(read_all(self.store, told.run.id)) == told.entries

    @invariant()
    def every_message_is_the_fold_of_its_log(self) -> None:
        for told in self.ended:
            message = self._do(self.store.get_message(OWNER, told.run.message_id))
            assert message is not None
            folded = fold(events_of(told.entries))
            assert message.answer.text == folded.text
            assert message.answer.marks == folded.marks
            assert message.answer.reasoning == folded.reasoning
            assert message.status == folded.status

    @invariant()
    def live_runs_are_live(self) -> None:
        live = [run.id for run, _ in self._do(self.store.live_runs())]
        assert live == [told.run.id for told in sorted(self.live, key=lambda t: t.run.id)]

    @invariant()
    def nothing_is_left_of_what_was_deleted(self) -> None:
        for told in self.gone:
            assert self._do(self.store.read_log(told.run.id, 0)) is None
        rows = {row["run_id"] for row in self._do(self.harness.rows("journal"))}
        assert not rows & {told.run.id for told in self.gone}


class SqliteMachine(StoreMachine):
    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._dead_rows, sqlite_writer.DEAD_ROWS = sqlite_writer.DEAD_ROWS, 6
        super().__init__(SqliteHarness(Path(self._folder.name)))

    def teardown(self) -> None:
        super().teardown()
        self._folder.cleanup()
        sqlite_writer.DEAD_ROWS = self._dead_rows

    @invariant()
    def rows_of_ended_runs_are_bounded(self) -> None:
        live = {told.run.id for told in self.live}
        rows = self._do(self.harness.rows("journal"))
        dead = [row for row in rows if row["run_id"] not in live]
        assert len({row["id"] for row in rows}) == len(rows)
        # What one commit ends may come on top of the bound once.
        assert len(dead) < sqlite_writer.DEAD_ROWS + 200


class PostgresMachine(StoreMachine):
    def __init__(self, server: PostgresServer, template: str) -> None:
        self._server = server
        self._url = server.create_database(template)
        super().__init__(PostgresHarness(self._url))

    def teardown(self) -> None:
        super().teardown()
        self._server.drop_database(self._url)

    def recover(self) -> None:
        """Whoever comes next may end the runs of a dead node, and do nothing else to them."""
        assert isinstance(self.store, PostgresStore)
        assert [run.id for run, _ in self._do(self.store.orphans())] == [
            told.run.id for told in sorted(self.live, key=lambda told: told.run.id)
        ]
        for told in self.live:
            assert self._do(self.store.commit([told.rival().say(TextDelta("x"))])) == [False]
            self._do(commit(self.store, told.finish(end=UpstreamEnd(Reason.SERVER_CRASH))))
        self.ended += self.live
        self.live = []

    @invariant()
    def rows_of_ended_runs_are_gone(self) -> None:
        rows = {row["run_id"] for row in self._do(self.harness.rows("journal"))}
        assert rows == {told.run.id for told in self.live}


# Not shrunk: with a database per example that takes minutes, and the examples are always the same.
SETTINGS = settings(
    max_examples=20,
    stateful_step_count=20,
    phases=[Phase.explicit, Phase.generate],
    report_multiple_bugs=False,
)


def test_sqlite() -> None:
    run_state_machine_as_test(SqliteMachine, settings=SETTINGS)


def test_postgresql(postgres: PostgresServer, postgres_template: str) -> None:
    class Machine(PostgresMachine):
        def __init__(self) -> None:
            super().__init__(postgres, postgres_template)

    run_state_machine_as_test(Machine, settings=settings(SETTINGS, max_examples=5))
