"""The circuit breaker: its table, and laws that hold whatever happens."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.engine.run import UpstreamEnd
from holdfast.events import Reason
from holdfast.runner.breaker import Breaker, BreakerState, is_failure

LIMIT, OPEN_S = 3, 10.0
REFUSED = UpstreamEnd(Reason.UPSTREAM_UNREACHABLE)


def in_state(state: BreakerState) -> Breaker:
    """A breaker that is in this state at 100."""
    breaker = Breaker(LIMIT, OPEN_S)
    at = 100.0 if state is BreakerState.OPEN else 100.0 - OPEN_S
    for _ in range(0 if state is BreakerState.CLOSED else LIMIT):
        breaker.failed(at)
    assert breaker.state(100.0) is state
    return breaker


CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN


@pytest.mark.parametrize(
    ("state", "admitted", "asked", "answered", "failed"),
    [
        (CLOSED, True, CLOSED, CLOSED, CLOSED),
        (OPEN, False, OPEN, CLOSED, OPEN),
        (HALF_OPEN, True, OPEN, CLOSED, OPEN),
    ],
)
def test_every_row_of_the_table(
    state: BreakerState,
    admitted: bool,
    asked: BreakerState,
    answered: BreakerState,
    failed: BreakerState,
) -> None:
    assert in_state(state).admits(100.0) is admitted
    breaker = in_state(state)
    assert breaker.begin(100.0) is admitted
    assert breaker.state(100.0) is asked
    breaker = in_state(state)
    breaker.answered()
    assert breaker.state(100.0) is answered
    breaker = in_state(state)
    breaker.failed(100.0)
    assert breaker.state(100.0) is failed


def test_it_opens_at_the_last_of_so_many_failures_in_a_row() -> None:
    breaker = Breaker(LIMIT, OPEN_S)
    for _ in range(LIMIT - 1):
        breaker.failed(0.0)
    breaker.answered()
    for _ in range(LIMIT - 1):
        breaker.failed(0.0)
    assert breaker.state(0.0) is CLOSED
    breaker.failed(5.0)
    assert [breaker.admits(at) for at in (5.0, 14.9, 15.0)] == [False, False, True]


def test_only_one_question_tries_it_and_the_next_one_a_while_later() -> None:
    breaker = in_state(HALF_OPEN)
    assert [breaker.begin(100.0) for _ in range(3)] == [True, False, False]
    assert [breaker.begin(at) for at in (109.9, 110.0, 110.0)] == [False, True, False]


def test_a_trial_that_fails_late_keeps_it_open_from_then_on() -> None:
    breaker = in_state(HALF_OPEN)
    breaker.begin(100.0)
    breaker.failed(107.0)
    assert [breaker.admits(at) for at in (110.0, 116.9, 117.0)] == [False, False, True]


@pytest.mark.parametrize(
    ("end", "is_one"),
    [
        (UpstreamEnd(Reason.UPSTREAM_UNREACHABLE), True),
        (UpstreamEnd(Reason.UPSTREAM_TIMEOUT), True),
        *[(UpstreamEnd(Reason.UPSTREAM_ERROR, status=status), True) for status in (401, 403, 429)],
        *[(UpstreamEnd(Reason.UPSTREAM_ERROR, status=status), True) for status in (500, 503, 599)],
        *[(UpstreamEnd(Reason.UPSTREAM_ERROR, status=status), False) for status in (400, 404, 422)],
        (UpstreamEnd(Reason.UPSTREAM_ERROR), False),
        (UpstreamEnd(Reason.UPSTREAM_EMPTY), False),
        (UpstreamEnd(Reason.UPSTREAM_TRUNCATED), True),
        (UpstreamEnd(Reason.CLIENT_CANCELLED), False),
        (UpstreamEnd(Reason.CLIENT_DISCONNECTED), False),
        (UpstreamEnd(Reason.LIMIT), False),
        (UpstreamEnd(Reason.STORAGE_ERROR), False),
        (UpstreamEnd(Reason.SERVER_SHUTDOWN), False),
        (UpstreamEnd(), False),
    ],
)
def test_what_counts_as_a_failure(end: UpstreamEnd, is_one: bool) -> None:
    assert is_failure(end) is is_one
    breaker = Breaker(1, OPEN_S)
    breaker.judge(end, 0.0)
    assert breaker.admits(0.0) is not is_one


@pytest.mark.parametrize(
    ("end", "closes"),
    [
        (UpstreamEnd(), True),
        (UpstreamEnd(Reason.UPSTREAM_ERROR, status=400), False),
        (UpstreamEnd(Reason.CLIENT_CANCELLED), False),
    ],
)
def test_what_is_no_verdict_leaves_it_as_it_is(end: UpstreamEnd, closes: bool) -> None:
    breaker = in_state(OPEN)
    breaker.judge(end, 100.0)
    assert breaker.admits(100.0) is closes


Happening = tuple[str, float]
HAPPENINGS = st.lists(
    st.tuples(st.sampled_from(["begin", "answered", "failed", "left"]), st.floats(0.0, 2 * OPEN_S)),
    max_size=40,
)


def play(breaker: Breaker, happenings: Sequence[Happening]) -> list[tuple[float, str, bool]]:
    """Let things happen, each so long after the one before; what, when, and whether admitted."""
    now, seen = 0.0, []
    for what, after in happenings:
        now += after
        admitted = True
        if what == "begin":
            admitted = breaker.begin(now)
        elif what == "answered":
            breaker.answered()
        elif what == "failed":
            breaker.failed(now)
        seen.append((now, what, admitted))
    return seen


@given(HAPPENINGS)
def test_whatever_happens_it_admits_again_after_its_time(happenings: list[Happening]) -> None:
    breaker = Breaker(LIMIT, OPEN_S)
    seen = play(breaker, happenings)
    assert breaker.admits((seen[-1][0] if seen else 0.0) + OPEN_S)


@given(HAPPENINGS)
def test_it_refuses_only_after_enough_failures_in_a_row_and_an_answer_always_closes_it(
    happenings: list[Happening],
) -> None:
    in_a_row = 0
    for _, what, admitted in play(Breaker(LIMIT, OPEN_S), happenings):
        assert admitted or in_a_row >= LIMIT
        if what == "answered":
            in_a_row = 0
        elif what == "failed":
            in_a_row += 1


@given(HAPPENINGS)
def test_between_two_questions_that_try_it_its_whole_time_passes(
    happenings: list[Happening],
) -> None:
    in_a_row, tried = 0, float("-inf")
    for now, what, admitted in play(Breaker(LIMIT, OPEN_S), happenings):
        if what == "begin" and admitted and in_a_row >= LIMIT:
            assert now >= tried + OPEN_S
            tried = now
        elif what == "answered":
            in_a_row, tried = 0, float("-inf")
        elif what == "failed":
            in_a_row += 1
            if in_a_row >= LIMIT:
                tried = now
