"""The run's two tables, every cell of them."""

import itertools

import pytest

from holdfast.engine.run import (
    CANCELLATIONS,
    TRANSITIONS,
    RunMachine,
    Signal,
    State,
    Status,
    UpstreamEnd,
    decide,
    has_arrived,
    message_status,
)
from holdfast.errors import LocalProtocolError
from holdfast.events import (
    Event,
    Finish,
    Notice,
    Outcome,
    Reason,
    ReasoningDelta,
    Reference,
    References,
    RunEnd,
    RunStart,
    Step,
    TextDelta,
    TextReplace,
    ToolCall,
    Usage,
)

LEGAL = {
    ("accepted", "connect"): "connecting",
    ("accepted", "end"): "ended",
    ("connecting", "connect"): "connecting",
    ("connecting", "arrive"): "streaming",
    ("connecting", "end"): "ended",
    ("streaming", "connect"): "connecting",
    ("streaming", "arrive"): "streaming",
    ("streaming", "end"): "ended",
}
ALL_PAIRS = list(itertools.product(State, Signal))
ARRIVING: list[Event] = [
    TextDelta("a"),
    TextDelta(" "),
    TextReplace("a"),
    ReasoningDelta("a"),
    References((Reference(1),)),
    ToolCall(0),
]
SILENT: list[Event] = [
    RunStart("r", "s", "m", "q", "u"),
    TextDelta(""),
    TextReplace(""),
    ReasoningDelta(""),
    References(()),
    Step("searching"),
    Notice("c", "m"),
    Usage(input_tokens=1),
    RunEnd(Outcome.COMPLETED),
]


def _at(state: State) -> RunMachine:
    machine = RunMachine()
    machine.state = state
    return machine


@pytest.mark.parametrize(("state", "signal"), ALL_PAIRS)
def test_every_pair_of_the_table_leads_where_the_table_says(state: State, signal: Signal) -> None:
    machine = _at(state)
    goal = LEGAL.get((state.value, signal.value))
    if goal is None:
        with pytest.raises(LocalProtocolError, match=f"{state} cannot {signal}"):
            machine.signal(signal)
        assert machine.state is state
    else:
        machine.signal(signal)
        assert machine.state == goal


def test_the_table_has_no_other_rows() -> None:
    assert {(a.value, b.value): c.value for (a, b), c in TRANSITIONS.items()} == LEGAL


def test_nothing_leaves_the_last_state() -> None:
    assert all(state is not State.ENDED for state, _ in TRANSITIONS)


def test_only_asking_another_upstream_goes_backwards() -> None:
    order = list(State)
    back = [pair for pair, goal in TRANSITIONS.items() if order.index(goal) < order.index(pair[0])]
    assert back == [(State.STREAMING, Signal.CONNECT)]


def test_what_an_upstream_gave_that_another_one_replaces_has_not_arrived() -> None:
    machine = _at(State.CONNECTING)
    machine.see(References((Reference(1),)))
    assert (machine.state, machine.arrived) == (State.STREAMING, True)
    machine.signal(Signal.CONNECT)
    assert (machine.state, machine.arrived) == (State.CONNECTING, False)
    assert machine.end(UpstreamEnd(Reason.UPSTREAM_ERROR)).outcome is Outcome.FAILED


@pytest.mark.parametrize("event", ARRIVING, ids=repr)
def test_text_reasoning_references_and_tool_calls_count_as_arrived(event: Event) -> None:
    assert has_arrived(event)


@pytest.mark.parametrize("event", SILENT, ids=lambda event: type(event).__name__)
def test_nothing_else_counts_as_arrived(event: Event) -> None:
    assert not has_arrived(event)


# ------------------------------------------------------------------------------ decide


@pytest.mark.parametrize("finish", [None, *Finish])
def test_a_terminal_marker_after_something_is_completed(finish: Finish | None) -> None:
    assert decide(UpstreamEnd(finish=finish), arrived=True) == RunEnd(
        Outcome.COMPLETED, None, finish, None
    )


def test_p9_a_terminal_marker_after_nothing_is_failed_and_says_why() -> None:
    end = decide(UpstreamEnd(finish=Finish.STOP), arrived=False)
    assert (end.outcome, end.reason) == (Outcome.FAILED, Reason.UPSTREAM_EMPTY)
    assert end.error == "the upstream ended without an answer"


def test_an_empty_answer_keeps_the_words_of_the_upstream() -> None:
    end = decide(UpstreamEnd(error="no documents"), arrived=False)
    assert (end.reason, end.error) == (Reason.UPSTREAM_EMPTY, "no documents")


@pytest.mark.parametrize("arrived", [True, False])
@pytest.mark.parametrize("reason", [Reason.CLIENT_CANCELLED, Reason.CLIENT_DISCONNECTED])
def test_p10_a_stop_is_cancelled_whatever_had_arrived(reason: Reason, arrived: bool) -> None:
    assert decide(UpstreamEnd(reason), arrived) == RunEnd(Outcome.CANCELLED, reason)


@pytest.mark.parametrize(
    ("arrived", "outcome"), [(True, Outcome.INTERRUPTED), (False, Outcome.FAILED)]
)
@pytest.mark.parametrize(
    "reason",
    [
        Reason.UPSTREAM_ERROR,
        Reason.UPSTREAM_EMPTY,
        Reason.UPSTREAM_TIMEOUT,
        Reason.UPSTREAM_TRUNCATED,
        Reason.UPSTREAM_UNREACHABLE,
        Reason.LIMIT,
        Reason.STORAGE_ERROR,
        Reason.SERVER_SHUTDOWN,
        Reason.SERVER_CRASH,
    ],
)
def test_p9_every_other_reason_is_interrupted_or_failed(
    reason: Reason, arrived: bool, outcome: Outcome
) -> None:
    end = UpstreamEnd(reason, finish=Finish.LENGTH, error="words")
    assert decide(end, arrived) == RunEnd(outcome, reason, Finish.LENGTH, "words")


def test_the_tests_above_have_every_reason() -> None:
    assert set(Reason) - CANCELLATIONS == {
        reason for reason in Reason if not reason.value.startswith("client_")
    }


@pytest.mark.parametrize(
    ("outcome", "arrived", "status"),
    [
        (None, False, Status.STREAMING),
        (None, True, Status.STREAMING),
        (Outcome.COMPLETED, True, Status.COMPLETE),
        (Outcome.COMPLETED, False, Status.COMPLETE),
        (Outcome.CANCELLED, True, Status.PARTIAL),
        (Outcome.CANCELLED, False, Status.FAILED),
        (Outcome.INTERRUPTED, True, Status.PARTIAL),
        (Outcome.INTERRUPTED, False, Status.FAILED),
        (Outcome.FAILED, True, Status.PARTIAL),
        (Outcome.FAILED, False, Status.FAILED),
    ],
)
def test_the_status_is_the_outcome_in_the_words_of_people(
    outcome: Outcome | None, arrived: bool, status: Status
) -> None:
    assert message_status(outcome, arrived) is status


# ------------------------------------------------------------------------------ the machine


def test_a_run_begins_accepted_with_nothing_arrived() -> None:
    machine = RunMachine()
    assert (machine.state, machine.arrived) == (State.ACCEPTED, False)


@pytest.mark.parametrize("event", ARRIVING, ids=repr)
def test_the_first_event_that_counts_begins_the_streaming(event: Event) -> None:
    machine = _at(State.CONNECTING)
    machine.see(event)
    assert (machine.state, machine.arrived) == (State.STREAMING, True)


def test_steps_and_notices_leave_a_run_connecting() -> None:
    machine = _at(State.CONNECTING)
    for event in SILENT:
        machine.see(event)
    assert (machine.state, machine.arrived) == (State.CONNECTING, False)


@pytest.mark.parametrize("state", [State.ACCEPTED, State.ENDED])
def test_nothing_can_arrive_before_the_call_or_after_the_end(state: State) -> None:
    machine = _at(state)
    with pytest.raises(LocalProtocolError):
        machine.see(TextDelta("a"))


def test_p3_a_run_ends_once_and_the_first_cause_decides() -> None:
    machine = _at(State.CONNECTING)
    machine.see(TextDelta("a"))
    first = machine.end(UpstreamEnd(Reason.UPSTREAM_ERROR, error="boom"))
    assert first == RunEnd(Outcome.INTERRUPTED, Reason.UPSTREAM_ERROR, error="boom")
    with pytest.raises(LocalProtocolError):
        machine.end(UpstreamEnd())


def test_a_run_can_end_before_anybody_was_called() -> None:
    machine = RunMachine()
    assert machine.end(UpstreamEnd(Reason.CLIENT_CANCELLED)).outcome is Outcome.CANCELLED


def test_a_candidate_that_failed_silently_gives_way_to_the_next() -> None:
    machine = _at(State.CONNECTING)
    machine.see(Step("asking"))
    machine.signal(Signal.CONNECT)
    machine.see(TextDelta("a"))
    assert machine.end(UpstreamEnd()).outcome is Outcome.COMPLETED
