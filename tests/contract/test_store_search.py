"""The contract of every store: searching sessions."""

from typing import Any

import pytest

from holdfast.engine.run import UpstreamEnd
from holdfast.events import (
    Reason,
    ReasoningDelta,
    Reference,
    References,
    TextDelta,
    TextReplace,
)
from holdfast.store.port import (
    CompleteMessage,
    CreateSession,
    DeleteSession,
    SessionRecord,
    Store,
    UpdateSession,
)
from tests.support.harness import StoreHarness
from tests.support.records import OWNER, STRANGER, Told, a_session, commit, tell, tick


async def _titled(store: Store, title: str | None, **values: Any) -> str:
    session = a_session(title=title, **values)
    await commit(store, CreateSession(session))
    return session.id


async def _told(store: Store, question: str, answer: str) -> str:
    told = await tell(store, Told(question=question), TextDelta(answer))
    return told.run.session_id


async def _found(store: Store, query: str, owner: str = OWNER) -> list[str]:
    return [session.id for session in await store.list_sessions(owner, 100, query=query)]


# ------------------------------------------------------------------------------ where


async def test_titles_questions_and_answers_are_searched(
    store: Store, harness: StoreHarness
) -> None:
    title = await _titled(store, "All about kelp forests")
    question = await _told(store, "Where does kelp grow?", "In cold water.")
    answer = await _told(store, "What is brown and long?", "It is kelp")
    await _told(store, "What is the time?", "Noon.")
    await _titled(store, None)
    store = await harness.reopen(store)
    assert await _found(store, "kelp") == [answer, question, title]


async def test_a_session_is_found_once_however_often_it_matches(store: Store) -> None:
    told = Told(a_session(title="kelp"), question="kelp")
    await tell(store, told, TextDelta("kelp"))
    for _ in range(3):
        told = await tell(store, told.next_turn(question="kelp"), TextDelta("kelp"))
    assert await _found(store, "kelp") == [told.run.session_id]


async def test_a_match_in_a_late_turn_finds_the_session(store: Store) -> None:
    told = await tell(store, Told(question="one"), TextDelta("two"))
    await tell(store, told.next_turn(question="three"), TextDelta("kelp"))
    assert await _found(store, "kelp") == [told.run.session_id]


async def test_only_the_active_version_of_an_answer_is_searched(store: Store) -> None:
    told = await tell(store, Told(question="What?"), TextDelta("old words"))
    await tell(store, told.again(), TextDelta("new words"))
    assert await _found(store, "old") == []
    assert await _found(store, "new") == [told.run.session_id]


async def test_a_rewritten_answer_is_searched_as_it_was_rewritten(store: Store) -> None:
    told = await tell(store, Told(), TextDelta("draft"), TextReplace("final"))
    assert await _found(store, "draft") == []
    assert await _found(store, "final") == [told.run.session_id]


async def test_reasoning_and_passages_are_not_what_was_said(store: Store) -> None:
    passages = References((Reference(1, text="passage"),))
    await tell(store, Told(), ReasoningDelta("reasoning"), passages, TextDelta("answer"))
    assert [await _found(store, query) for query in ("reasoning", "passage")] == [[], []]


async def test_a_partial_answer_and_what_completes_it_are_found(store: Store) -> None:
    cut = UpstreamEnd(Reason.UPSTREAM_TRUNCATED)
    told = await tell(store, Told(), TextDelta("half of"), end=cut)
    session_id = told.run.session_id
    assert await _found(store, "half of") == [session_id]
    text = "half of the kelp"
    await commit(
        store,
        CompleteMessage(OWNER, session_id, told.run.message_id, text, None, tick()),
    )
    assert await _found(store, text) == [session_id]


async def test_renaming_and_deleting_are_seen(store: Store) -> None:
    session_id = await _titled(store, "before")
    await commit(store, UpdateSession(OWNER, session_id, tick(), title="after"))
    assert (await _found(store, "before"), await _found(store, "after")) == ([], [session_id])
    await commit(store, DeleteSession(OWNER, session_id))
    assert await _found(store, "after") == []


# ------------------------------------------------------------------------------ whose


async def test_p8_a_search_finds_what_is_the_owners(store: Store) -> None:
    mine = await _told(store, "kelp", "kelp")
    theirs = await tell(store, Told(owner=STRANGER, question="kelp"), TextDelta("kelp"))
    assert await _found(store, "kelp") == [mine]
    assert await _found(store, "kelp", STRANGER) == [theirs.run.session_id]
    assert await _found(store, "kelp", "") == []


async def test_hidden_sessions_are_never_found(store: Store) -> None:
    await _titled(store, "kelp", hidden=True)
    await tell(store, Told(a_session(hidden=True), question="kelp"), TextDelta("kelp"))
    shown = await _titled(store, "kelp")
    assert await _found(store, "kelp") == [shown]


# ------------------------------------------------------------------------------ what


@pytest.mark.parametrize("query", ["HOLDFAST", "holdfast", "HoldFast", "holdfasT is"])
async def test_letters_of_either_case_are_the_same(store: Store, query: str) -> None:
    title = await _titled(store, "What a HOLDFAST IS")
    answer = await _told(store, "?", "A holdfast is a root")
    assert await _found(store, query) == [answer, title]


@pytest.mark.parametrize("query", ["海带", "带", "是一种海带", "😀", "é", "ß", "\u200d"])
async def test_any_script_is_found(store: Store, query: str) -> None:
    title = await _titled(store, f"关于{query}的问题")
    answer = await _told(store, "?", f"这{query}。")
    await _told(store, "石头", "海 和 带")
    assert {title, answer} <= set(await _found(store, query))
    assert await _found(store, query + "龙") == []


@pytest.mark.parametrize(
    "query",
    ["%", "_", "\\", "%%", "100%", "a_b", "\\%", "'", '"', "[a]", "*", "?", "'; --", "\\\\", "^a"],
)
async def test_no_character_is_special(store: Store, query: str) -> None:
    found = [
        await _titled(store, f"x{query}y"),
        await _told(store, f"x {query}", "z"),
        await _told(store, "z", f"{query} y"),
    ]
    await _titled(store, "1000 aXb abc a")
    await _told(store, "xy 100 a", "1000 b")
    assert await _found(store, query) == found[::-1]


@pytest.mark.parametrize("query", ["", " ", "\t\n ", "\u3000", "\u00a0\u2003"])
async def test_only_space_is_no_query(store: Store, query: str) -> None:
    kelp, other = await _titled(store, "kelp"), await _titled(store, None)
    await _titled(store, "hidden", hidden=True)
    assert await _found(store, query) == [other, kelp]


async def test_space_around_a_query_does_not_count_and_space_within_does(store: Store) -> None:
    together, apart = await _titled(store, "a b"), await _titled(store, "a  b")
    assert await _found(store, " a b\n") == [together]
    assert await _found(store, "\u3000a  b") == [apart]


async def test_a_query_is_text_and_not_words(store: Store) -> None:
    session_id = await _titled(store, "seaweeds\nand kelp")
    assert await _found(store, "aweed") == [session_id]
    assert await _found(store, "weeds\nand") == [session_id]
    assert await _found(store, "kelp and seaweeds") == []


async def test_a_long_query_is_found_too(store: Store) -> None:
    """People paste whole questions; some databases limit the patterns that they compare with."""
    text = "海带 and kelp, " * 10_000
    session_id = await _told(store, text, "a")
    assert await _found(store, text) == [session_id]
    assert await _found(store, text + "!") == []


@pytest.mark.parametrize("query", ["b", "a\0b", "\0"])
async def test_a_nul_ends_neither_a_text_nor_a_query(store: Store, query: str) -> None:
    session_id = await _told(store, "?", "a\0b")
    await _told(store, "?", "a")
    assert await _found(store, query) == [session_id]


# ------------------------------------------------------------------------------ pages


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5])
async def test_what_is_found_comes_in_pages_that_fit_together(store: Store, limit: int) -> None:
    wanted = []
    for number in range(4):
        at = 20 if number in (1, 2) else 10 + 10 * number  # two of the same time
        session = a_session(title=f"kelp {number}", at=at)
        await commit(store, CreateSession(session))
        wanted.append(session)
        await _titled(store, "sand", at=at)
    seen: list[SessionRecord] = []
    before: tuple[int, str] | None = None
    while page := await store.list_sessions(OWNER, limit, before, query="kelp"):
        assert len(page) <= limit
        seen += page
        assert len(seen) <= len(wanted), "the pages go round in circles"
        before = (page[-1].updated_at, page[-1].id)
    assert seen == sorted(wanted, key=lambda s: (s.updated_at, s.id), reverse=True)


async def test_what_is_found_names_its_live_run(store: Store) -> None:
    told = await tell(store, Told(question="kelp"), TextDelta("a"))
    live = told.next_turn()
    await commit(store, live.create())
    (session,) = await store.list_sessions(OWNER, 10, query="kelp")
    assert session == await store.get_session(OWNER, told.run.session_id)
    assert session.live_run_id == live.run.id
