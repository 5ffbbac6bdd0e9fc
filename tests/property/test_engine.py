"""Laws of the pure core."""

import contextlib

from hypothesis import given
from hypothesis import strategies as st

from holdfast.engine.cursor import Cursor, parse_cursor, parse_position
from holdfast.engine.fold import Answer, Fold, fold
from holdfast.engine.policy import TITLE_LENGTH, Turn, select_history, title_of
from holdfast.engine.run import RunMachine, Signal, Status, UpstreamEnd, decide
from holdfast.errors import BadRequest
from holdfast.events import (
    Entry,
    Event,
    Finish,
    Outcome,
    Reason,
    RunEnd,
    decode,
    encode,
    join_log,
    split_log,
)
from tests.support.strategies import contents, events, texts

logs = st.lists(events, max_size=12)
upstream_ends = st.builds(
    UpstreamEnd,
    reason=st.none() | st.sampled_from(Reason),
    finish=st.none() | st.sampled_from(Finish),
    error=st.none() | texts,
)


@given(events)
def test_every_event_comes_back_from_its_json(event: Event) -> None:
    data = encode(event)
    assert decode(data) == event
    assert b"\n" not in data


@given(logs, st.integers(1, 10**12))
def test_splitting_undoes_joining(log: list[Event], first_seq: int) -> None:
    entries = [Entry(seq, event, encode(event)) for seq, event in enumerate(log, first_seq)]
    assert split_log(join_log(entries), first_seq) == entries


@given(logs)
def test_folding_in_two_parts_is_folding_at_once_at_every_split(log: list[Event]) -> None:
    whole = fold(log)
    for cut in range(len(log) + 1):
        assert fold(log[cut:], fold(log[:cut])) == whole


@given(logs)
def test_folding_step_by_step_shows_what_folding_each_prefix_shows(log: list[Event]) -> None:
    folding = Fold()
    for place, event in enumerate(log, 1):
        folding.add(event)
        assert folding.answer() == fold(log[:place])


@given(logs)
def test_an_empty_log_changes_nothing(log: list[Event]) -> None:
    answer = fold(log)
    assert fold([], answer) == answer
    assert fold(log, Answer()) == answer


@given(logs)
def test_marks_always_lie_in_the_text(log: list[Event]) -> None:
    answer = fold(log)
    assert all(0 <= start <= end <= len(answer.text) for start, end, _ in answer.marks)


@given(logs)
def test_the_fold_of_stored_bytes_is_the_fold_of_the_events(log: list[Event]) -> None:
    """What recovery does (bytes) and what a live run does (objects) can never differ."""
    stored = split_log(join_log([Entry(1, event, encode(event)) for event in log]), 1)
    assert fold(entry.event for entry in stored) == fold(log)


@given(st.lists(contents, max_size=8), upstream_ends)
def test_p3_the_machine_the_fold_and_the_table_agree_on_every_ending(
    said: list[Event], end: UpstreamEnd
) -> None:
    machine, folding = RunMachine(), Fold()
    machine.signal(Signal.CONNECT)
    for event in said:
        machine.see(event)
        folding.add(event)
    assert machine.arrived == folding.arrived
    run_end = machine.end(end)
    assert run_end == decide(end, folding.arrived)
    folding.add(run_end)
    status = folding.answer().status
    if run_end.outcome is Outcome.COMPLETED:
        assert (status, end.reason) == (Status.COMPLETE, None)
    else:
        assert run_end.reason is not None
        assert status is (Status.PARTIAL if folding.arrived else Status.FAILED)


@given(st.booleans(), upstream_ends)
def test_p9_only_a_terminal_marker_after_something_is_a_success(
    arrived: bool, end: UpstreamEnd
) -> None:
    run_end: RunEnd = decide(end, arrived)
    completed = run_end.outcome is Outcome.COMPLETED
    assert completed == (end.reason is None and arrived)
    assert (run_end.reason is None) == completed


# ------------------------------------------------------------------------------ policies

turns = st.lists(st.builds(Turn, question=texts, answer=texts), max_size=8)


@given(turns, st.integers(0, 20), st.integers(0, 120))
def test_history_fits_alternates_and_is_the_newest_part(
    given_turns: list[Turn], messages: int, chars: int
) -> None:
    history = select_history(given_turns, messages, chars)
    assert len(history) <= messages
    assert sum(len(message.content) for message in history) <= chars
    assert [message.role for message in history] == ["user", "assistant"] * (len(history) // 2)
    answered = [turn for turn in given_turns if turn.answer]
    newest = answered[len(answered) - len(history) // 2 :]
    flat = [text for turn in newest for text in (turn.question, turn.answer)]
    assert [message.content for message in history] == flat


@given(turns, st.integers(0, 20), st.integers(0, 120))
def test_history_stops_only_where_one_more_turn_would_not_fit(
    given_turns: list[Turn], messages: int, chars: int
) -> None:
    history = select_history(given_turns, messages, chars)
    answered = [turn for turn in given_turns if turn.answer]
    left = answered[: len(answered) - len(history) // 2]
    if left:
        size = sum(len(message.content) for message in history)
        more = len(left[-1].question) + len(left[-1].answer)
        assert size + more > chars or len(history) + 2 > messages


@given(st.text(max_size=200))
def test_a_title_is_one_short_line_out_of_the_question(question: str) -> None:
    title = title_of(question)
    assert len(title) <= TITLE_LENGTH + 1
    assert "\n" not in title
    assert title.removesuffix("…") in question
    assert bool(title) == bool(question.strip())


# ------------------------------------------------------------------------------ cursors

run_ids = st.from_regex(r"[0-9A-Za-z-]{1,64}", fullmatch=True)


@given(run_ids, st.integers(0, 10**15 - 1))
def test_p5_a_cursor_comes_back_from_its_text(run_id: str, seq: int) -> None:
    cursor = Cursor(run_id, seq)
    assert parse_cursor(str(cursor)) == cursor
    assert parse_position(str(cursor), "other") == cursor
    assert parse_position(str(seq), run_id) == cursor


@given(st.text())
def test_p5_any_text_is_a_cursor_or_a_bad_request(text: str) -> None:
    with contextlib.suppress(BadRequest):
        assert str(parse_cursor(text).run_id) in text
    with contextlib.suppress(BadRequest):
        assert parse_position(text, "r").seq >= 0
