"""Asking, sessions and their names, versions, deleting."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import (
    BadRequest,
    ConfigError,
    Conflict,
    IdempotencyMismatch,
    NotFound,
    RunActive,
    StoreUnavailable,
)
from holdfast.events import Outcome, Reference, References, TextDelta
from holdfast.store.port import CreateRun, CreateSession, DeleteSession, RunCreated
from tests.support.harness import TABLES, SqliteHarness
from tests.support.loop import turns
from tests.support.records import OWNER, STRANGER, a_session, commit, outcome_of
from tests.support.scripted import DONE, ScriptedUpstream, texts
from tests.support.stage import GIVE_UP_S, Stage, on_stage


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with on_stage(tmp_path) as stage:
        yield stage


async def _answered(stage: Stage, text: str = "a", **values: Any) -> Any:
    asked = await stage.ask(**values)
    await stage.finish(asked, *texts(text), DONE)
    return asked


# ------------------------------------------------------------------------------ asking


async def test_a_question_without_a_session_begins_one_with_a_title(stage: Stage) -> None:
    asked = await _answered(stage, message="What is kelp?\nTell me all.")
    session = await stage.supervisor.get_session(OWNER, asked.run.session_id)
    assert (session.title, session.dialect, session.key) == ("What is kelp?", "native", None)


async def test_a_question_goes_on_in_its_session_with_the_turns_before(stage: Stage) -> None:
    first = await _answered(stage, "kelp is a weed", message="What is kelp?")
    second = await _answered(
        stage, "the root", message="What holds it?", session_id=first.run.session_id
    )
    assert [(m.role, m.content) for m in second.call.ask.history] == [
        ("user", "What is kelp?"),
        ("assistant", "kelp is a weed"),
    ]
    messages = await stage.supervisor.list_messages(first.run.session_id, 10, None)
    assert [m.answer.text for m in messages] == [
        "What is kelp?",
        "kelp is a weed",
        "What holds it?",
        "the root",
    ]


@pytest.mark.parametrize(
    ("runs", "history"),
    [
        ({"history_messages": 2}, ["q1", "a1"]),
        ({"history_chars": 5}, ["q1", "a1"]),
        ({"history_messages": 0}, []),
        ({"history_chars": 0}, []),
    ],
)
async def test_the_history_is_bounded(
    tmp_path: Path, runs: dict[str, int], history: list[str]
) -> None:
    async with on_stage(tmp_path, runs=runs) as stage:
        session_id = None
        for number in range(2):
            asked = await _answered(
                stage, f"a{number}", message=f"q{number}", session_id=session_id
            )
            session_id = asked.run.session_id
        asked = await _answered(stage, session_id=session_id)
        assert [m.content for m in asked.call.ask.history] == history


@pytest.mark.parametrize("session_id", ["no-such-session", "", "x" * 1_000])
async def test_an_unknown_session_is_not_found(stage: Stage, session_id: str) -> None:
    with pytest.raises(NotFound):
        await stage.supervisor.ask(stage.question(session_id=session_id))
    assert stage.upstream.calls == []
    assert stage.supervisor.live_runs == 0


async def test_p8_the_session_of_another_owner_is_not_found(stage: Stage) -> None:
    asked = await _answered(stage)
    run = asked.run
    with pytest.raises(NotFound):
        await stage.supervisor.ask(stage.question(owner=STRANGER, session_id=run.session_id))
    for call in (
        stage.supervisor.get_session(STRANGER, run.session_id),
        stage.supervisor.get_run(STRANGER, run.id),
        stage.supervisor.get_message(STRANGER, run.message_id),
        stage.supervisor.delete_session(STRANGER, run.session_id),
        stage.supervisor.regenerate(stage.question(owner=STRANGER), run.message_id),
    ):
        with pytest.raises(NotFound):
            await call
    assert (await asked.message()).answer.text == "a"


async def test_an_unknown_upstream_is_refused_before_anything_is_stored(stage: Stage) -> None:
    with pytest.raises(BadRequest, match="nope"):
        await stage.supervisor.ask(stage.question(upstream="nope"))
    assert stage.store.applied == []


async def test_an_upstream_of_the_applications_own_may_answer(stage: Stage) -> None:
    own = ScriptedUpstream("own", [*texts("mine"), DONE])
    created = await stage.supervisor.ask(stage.question(), own)
    assert outcome_of(await stage.read(created.run.id)) is Outcome.COMPLETED
    assert (created.run.upstream, created.run.route_reason) == ("own", "given by the application")


async def test_a_caller_who_goes_away_leaves_a_run_that_is_executed(stage: Stage) -> None:
    stage.store.gate.clear()
    asking = asyncio.create_task(stage.supervisor.ask(stage.question()))
    await stage.store.until(lambda store: store.begun == 1)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    stage.store.gate.set()
    call = await asyncio.wait_for(stage.upstream.called(), GIVE_UP_S)
    run_id = call.ask.run_id
    call.push(*texts("a"), DONE)
    assert outcome_of(await stage.read(run_id)) is Outcome.COMPLETED


# ------------------------------------------------------------------------------ idempotency

KEYED = {"idempotency_key": "k", "fingerprint": "f"}


async def test_p7_the_same_key_at_the_same_time_is_one_run_and_one_call(stage: Stage) -> None:
    question = stage.question(**KEYED)
    results = await asyncio.gather(*[stage.supervisor.ask(question) for _ in range(5)])
    assert len({created.run.id for created in results}) == 1
    assert sorted(created.replayed for created in results) == [False] + [True] * 4
    call = await stage.upstream.called()
    call.push(*texts("a"), DONE)
    logs = await asyncio.gather(*[stage.read(created.run.id) for created in results])
    assert all(log == logs[0] for log in logs)
    assert len(stage.upstream.calls) == 1


@pytest.mark.parametrize("ended", [True, False])
async def test_p7_asking_again_with_the_key_gives_the_run_as_it_is(
    stage: Stage, ended: bool
) -> None:
    asked = await stage.ask(**KEYED)
    if ended:
        await stage.finish(asked, *texts("a"), DONE)
    created = await stage.supervisor.ask(stage.question(**KEYED))
    assert created == RunCreated(await asked.record(), replayed=True)
    assert len(stage.upstream.calls) == 1
    if not ended:
        await stage.finish(asked, *texts("a"), DONE)
    assert len(await stage.read(created.run.id)) == 3


async def test_p7_the_key_with_another_request_is_refused(stage: Stage) -> None:
    asked = await _answered(stage, **KEYED)
    with pytest.raises(IdempotencyMismatch):
        await stage.supervisor.ask(stage.question("Other?", idempotency_key="k", fingerprint="g"))
    created = await stage.supervisor.ask(
        stage.question(owner=STRANGER, idempotency_key="k", fingerprint="g")
    )
    assert created.run.id != asked.run.id
    await stage.supervisor.cancel(STRANGER, created.run.id)


# ------------------------------------------------------------------------------ names


async def test_a_callers_own_name_makes_its_session_once(stage: Stage) -> None:
    first = await _answered(stage, session_key="chat-1", dialect="v1")
    second = await _answered(stage, session_key="chat-1", dialect="v1")
    other = await _answered(stage, session_key="chat-1", dialect="messages")
    theirs = await _answered(stage, session_key="chat-1", dialect="v1", owner=STRANGER)
    assert first.run.session_id == second.run.session_id
    assert len({a.run.session_id for a in (first, other, theirs)}) == 3
    assert len(second.call.ask.history) == 2
    session = await stage.supervisor.get_session(OWNER, first.run.session_id)
    assert (session.key, session.dialect) == ("chat-1", "v1")


async def test_the_id_of_a_session_is_a_name_for_it(stage: Stage) -> None:
    first = await _answered(stage)
    second = await _answered(stage, session_key=first.run.session_id, dialect="v1")
    assert second.run.session_id == first.run.session_id


async def test_p8_the_id_of_somebody_elses_session_is_just_a_name(stage: Stage) -> None:
    theirs = await _answered(stage, owner=STRANGER)
    mine = await _answered(stage, session_key=theirs.run.session_id, dialect="v1")
    assert mine.run.session_id != theirs.run.session_id
    assert mine.call.ask.history == ()


async def test_two_first_questions_with_one_name_meet_in_one_session(stage: Stage) -> None:
    question = stage.question(session_key="chat-1", dialect="v1")
    stage.store.gate.clear()
    asking = [asyncio.create_task(stage.supervisor.ask(question)) for _ in range(2)]
    await turns()
    stage.store.gate.set()
    results = await asyncio.gather(*asking, return_exceptions=True)
    created = [r for r in results if isinstance(r, RunCreated)]
    refused = [r for r in results if isinstance(r, RunActive)]
    assert (len(created), len(refused)) == (1, 1)
    run = created[0].run
    assert refused[0].extra == {"session_id": run.session_id, "run_id": run.id}
    assert len(await stage.store.list_sessions(OWNER, 10)) == 1


async def test_the_second_of_two_first_questions_keeps_the_reason_of_its_route(
    stage: Stage,
) -> None:
    question = stage.question(session_key="chat-1", dialect="v1", on_busy="cancel")
    stage.store.gate.clear()
    asking = [asyncio.create_task(stage.supervisor.ask(question)) for _ in range(2)]
    await turns()
    stage.store.gate.set()
    created = await asyncio.gather(*asking)
    assert [one.run.route_reason for one in created] == ["the only upstream"] * 2


# ------------------------------------------------------------------------------ versions


async def test_an_answer_can_be_written_again_with_the_history_before_its_question(
    stage: Stage,
) -> None:
    first = await _answered(stage, "a0", message="q0")
    second = await _answered(stage, "a1", message="q1", session_id=first.run.session_id)
    created = await stage.supervisor.regenerate(
        stage.question(message="", model="other"), first.run.message_id
    )
    call = await stage.upstream.called(3)
    assert (call.ask.message, call.ask.model, call.ask.history) == ("q0", "other", [])
    call.push(*texts("again"), DONE)
    await stage.read(created.run.id)
    messages = await stage.supervisor.list_messages(first.run.session_id, 10, None)
    assert [m.answer.text for m in messages] == ["q0", "again", "q1", "a1"]
    old = await stage.supervisor.get_message(OWNER, first.run.message_id)
    assert (old.answer.text, old.active) == ("a0", False)
    assert old.versions == (first.run.message_id, created.run.message_id)
    assert (await second.message()).active


async def test_an_old_version_can_be_the_one_to_write_again_from(stage: Stage) -> None:
    first = await _answered(stage, "a0")
    for times in (2, 3):
        created = await stage.supervisor.regenerate(stage.question(""), first.run.message_id)
        (await stage.upstream.called(times)).push(DONE)
        await stage.read(created.run.id)
    message = await stage.supervisor.get_message(OWNER, first.run.message_id)
    assert len(message.versions) == 3


async def test_only_an_answer_can_be_written_again(stage: Stage) -> None:
    asked = await _answered(stage)
    with pytest.raises(Conflict):
        await stage.supervisor.regenerate(stage.question(""), asked.run.question_id)
    with pytest.raises(NotFound):
        await stage.supervisor.regenerate(stage.question(""), "no-such-message")


async def test_an_answer_that_is_still_written_is_busy(stage: Stage) -> None:
    asked = await stage.ask()
    with pytest.raises(RunActive):
        await stage.supervisor.regenerate(stage.question(""), asked.run.message_id)
    created = await stage.supervisor.regenerate(
        stage.question("", on_busy="cancel"), asked.run.message_id
    )
    assert (await asked.record()).outcome == "cancelled"
    (await stage.upstream.called(2)).push(*texts("b"), DONE)
    await stage.read(created.run.id)


# ------------------------------------------------------------------------------ deleting


async def test_deleting_a_session_stops_its_run_and_leaves_nothing(
    stage: Stage, tmp_path: Path
) -> None:
    asked = await stage.ask()
    await asked.call.give(TextDelta("a"), References((Reference(1, text="why"),)))
    reading = asyncio.create_task(stage.read(asked.run.id))
    await turns()
    await stage.supervisor.delete_session(OWNER, asked.run.session_id)
    assert asked.call.closed.is_set()
    assert outcome_of(await reading) is Outcome.CANCELLED
    assert await SqliteHarness(tmp_path).counts() == dict.fromkeys(TABLES, 0)
    with pytest.raises(NotFound):
        await asked.record()
    with pytest.raises(NotFound):
        await stage.supervisor.delete_session(OWNER, asked.run.session_id)


async def test_a_question_that_comes_while_its_session_is_deleted_leaves_nothing_either(
    stage: Stage, tmp_path: Path
) -> None:
    """The question is stored between the look at the session and its deletion."""
    session = a_session()
    await commit(stage.store.inner, CreateSession(session))
    stage.store.gate.clear()
    deleting = asyncio.create_task(stage.supervisor.delete_session(OWNER, session.id))
    await asyncio.wait_for(stage.store.until(lambda store: store.begun > 0), GIVE_UP_S)
    asking = asyncio.create_task(stage.supervisor.ask(stage.question(session_id=session.id)))
    await turns()
    stage.store.gate.set()
    await deleting
    with pytest.raises(NotFound):
        await asking
    assert await SqliteHarness(tmp_path).counts() == dict.fromkeys(TABLES, 0)


async def test_a_session_deleted_under_a_live_run_takes_the_run_with_it(
    stage: Stage, tmp_path: Path
) -> None:
    """As another node would: nobody told this process to stop first."""
    asked = await stage.ask()
    await asked.call.give(*texts("a"))
    await asked.saved(2)
    await commit(stage.store.inner, DeleteSession(OWNER, asked.run.session_id))
    asked.call.push(*texts("b"), DONE)
    await asked.over()
    await turns()
    async with asyncio.timeout(GIVE_UP_S):
        while stage.supervisor._rescues:
            await asyncio.wait(stage.supervisor._rescues)
    assert asked.call.closed.is_set()
    assert stage.supervisor.live_runs == 0
    assert await SqliteHarness(tmp_path).counts() == dict.fromkeys(TABLES, 0)


# ------------------------------------------------------------------------------ starting


async def test_a_router_that_names_an_unknown_upstream_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        Stage(tmp_path, router={"default": "nope"})


async def test_upstreams_are_opened_and_closed_once(tmp_path: Path) -> None:
    async with on_stage(tmp_path) as stage:
        assert (stage.upstream.opened, stage.upstream.closed) == (1, 0)
        assert (await stage.supervisor.healths())["script"].ok
    assert (stage.upstream.opened, stage.upstream.closed) == (1, 1)


async def test_an_upstream_that_cannot_be_opened_stops_the_start_and_frees_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = Stage(tmp_path)

    async def refuse() -> None:
        raise ConfigError("no such folder")

    monkeypatch.setattr(failed.upstream, "open", refuse)
    with pytest.raises(ConfigError):
        await failed.supervisor.start()
    async with on_stage(tmp_path):
        pass


async def test_a_store_that_cannot_be_opened_stops_the_start_and_frees_the_file(
    tmp_path: Path,
) -> None:
    path = tmp_path / "chat.db"
    await asyncio.to_thread(path.write_bytes, b"no database" * 1_000)
    failed = Stage(tmp_path)
    with pytest.raises(ConfigError):
        await failed.supervisor.start()
    await asyncio.to_thread(path.unlink)
    async with on_stage(tmp_path):
        pass


async def test_the_whole_turn_of_a_first_question_is_one_write(stage: Stage) -> None:
    await _answered(stage)
    first = stage.store.applied[0]
    assert isinstance(first, CreateRun)
    assert first.session is not None
    assert first.question == "What is kelp?"


async def test_a_full_store_is_told_as_unavailable(stage: Stage) -> None:
    stage.store.down = True
    with pytest.raises(StoreUnavailable):
        await stage.supervisor.delete_session(OWNER, (await _stored_session(stage)))
    stage.store.down = False


async def _stored_session(stage: Stage) -> str:
    session = a_session()
    await commit(stage.store.inner, CreateSession(session))
    return session.id
