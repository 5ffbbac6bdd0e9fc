"""The contract of every store: every text comes back as it was given, in whatever field.

PostgreSQL takes no NUL, so something is written for it there; that must never show.
"""

from typing import Final

import pytest

from holdfast.engine.policy import Turn
from holdfast.engine.run import UpstreamEnd
from holdfast.events import (
    Outcome,
    Reason,
    ReasoningDelta,
    Reference,
    References,
    RunEnd,
    TextDelta,
)
from holdfast.store.port import (
    CompleteMessage,
    CreateKey,
    CreateSession,
    Remember,
    SetFeedback,
    Store,
    UpdateSession,
)
from tests.support.records import (
    OWNER,
    Told,
    a_key,
    a_session,
    begin,
    changed,
    commit,
    read_all,
    tell,
    tick,
)

TEXTS: Final = (
    "\0",
    "a\0b\uffff0",
    "\uffff",
    "\0\uffff1\0\uffff\uffff",
    "\\0 \\x00 \\u0000 $1 %s :name ?",
    "\U0010ffff\ufeff\u2028\x7f\x1b\r\n",
)
texts = pytest.mark.parametrize("text", TEXTS, ids=ascii)


@texts
async def test_a_session_keeps_every_text(store: Store, text: str) -> None:
    values = {"owner": text, "title": text, "dialect": f"d{text}", "key": text, "preset": text}
    session = a_session(**values, metadata={text: [text, {"in": text}]})
    await commit(store, CreateSession(session), Remember(session.id, text, text + "!"))
    assert await store.get_session(text, session.id) == session
    assert await store.find_session(text, f"d{text}", text) == session
    assert await store.list_sessions(text, 9) == [session]
    assert await store.get_conversation(session.id, text) == text + "!"
    for other in TEXTS:
        if other != text:
            assert await store.list_sessions(other, 9) == []
            assert await store.find_session(text, f"d{text}", other) is None
            assert await store.get_conversation(session.id, other) is None
    renamed = UpdateSession(text, session.id, tick(), title=f"new {text}", metadata={"new": text})
    await commit(store, renamed)
    found = await store.get_session(text, session.id)
    assert found is not None
    assert (found.title, found.metadata) == (f"new {text}", {"new": text})


@texts
async def test_a_run_keeps_every_text(store: Store, text: str) -> None:
    told = Told(
        upstream=text,
        model=text,
        route_reason=text,
        idempotency_key=text,
        fingerprint=text,
        on_disconnect=text,
    )
    await begin(store, told)
    assert await store.get_run(OWNER, told.run.id) == told.run
    assert await store.find_run(OWNER, text) == told.run
    assert await store.live_runs() == [(told.run, False)]
    wire = {"said": {text: [text]}}
    append = changed(told.say(TextDelta(text)), request=wire)
    await commit(store, append)
    end = RunEnd(outcome=Outcome.INTERRUPTED, reason=Reason.UPSTREAM_ERROR, error=text)
    await commit(store, told.finish(end=end, response=[text]))
    ended = await store.get_run(OWNER, told.run.id)
    assert ended is not None
    assert (ended.error, ended.upstream, ended.model) == (text, text, text)
    assert await store.get_raw(told.run.id) == (wire, [text])
    assert await read_all(store, told.run.id) == told.entries


@texts
async def test_a_message_keeps_every_text(store: Store, text: str) -> None:
    reference = Reference(
        ordinal=1,
        document_id=text,
        document_name=text,
        chunk_id=text,
        text=text,
        url=text,
        positions=[text],
        extra={text: text},
    )
    told = Told(question=text)
    await commit(store, told.create(metadata={text: text}))
    events = (ReasoningDelta(text), References(references=(reference,)), TextDelta(text))
    cut = UpstreamEnd(Reason.UPSTREAM_TIMEOUT)
    await commit(store, told.finish(*events, end=cut, metadata={"of": text}))
    question, answer = await store.list_messages(told.run.session_id, 9)
    assert (question.answer.text, question.metadata) == (text, {text: text})
    assert answer.answer == told.answer
    assert answer.answer.references == (reference,)
    assert answer.metadata == {"of": text}
    next_one = await tell(store, told.next_turn(question="And?"))
    turns = await store.list_turns(told.run.session_id, next_one.run.question_id, 9)
    assert turns == [Turn(text, text)]


@texts
async def test_what_people_say_of_an_answer_keeps_every_text(store: Store, text: str) -> None:
    cut = UpstreamEnd(Reason.UPSTREAM_TIMEOUT)
    told = await tell(store, Told(), TextDelta("Half"), end=cut)
    run, longer = told.run, "Half" + text
    reference = (Reference(ordinal=1, text=text),)
    await commit(
        store,
        SetFeedback(OWNER, run.message_id, {"comment": text}),
        CompleteMessage(OWNER, run.session_id, run.message_id, longer, reference, tick()),
    )
    message = await store.get_message(OWNER, run.message_id)
    assert message is not None
    assert (message.answer.text, message.answer.references) == (longer, reference)
    assert message.feedback == {"comment": text}
    again = CompleteMessage(OWNER, run.session_id, run.message_id, longer, None, tick())
    assert await commit(store, again) == [None]


@texts
async def test_a_key_keeps_every_text(store: Store, text: str) -> None:
    key = a_key(text, name=text, digest=text, scopes=(text, "chat"))
    await commit(store, CreateKey(key))
    assert await store.list_keys() == [key]


@texts
async def test_every_text_is_found_and_nothing_else(store: Store, text: str) -> None:
    named = a_session(title=f"to {text} and back")
    await commit(store, CreateSession(named), CreateSession(a_session(title="nothing of it")))
    asked = await tell(store, Told(question=f"What is {text}?"), TextDelta("nothing"))
    answered = await tell(store, Told(question="What?"), TextDelta(f"It is {text}."))
    found = await store.list_sessions(OWNER, 9, query=f" {text}") if text.strip() else []
    expected = {named.id, asked.run.session_id, answered.run.session_id} if text.strip() else set()
    assert {session.id for session in found} == expected
    assert await store.list_sessions(OWNER, 9, query=f"{text}0{text}") == []
