"""The limits of keys: live runs, and questions within a minute."""

from typing import Any

import pytest

from holdfast.errors import TooManyRequests
from holdfast.runner.quota import Claim, Quota
from holdfast.settings import LimitSettings
from tests.support.records import a_key


def quota(**limits: int) -> Quota:
    defaults = {"concurrent_runs_per_key": 0, "asks_per_minute_per_key": 0}
    return Quota(LimitSettings(**{**defaults, **limits}))


def wait_s(quota: Quota, key: Any, at: float, replaced: str | None = None) -> int:
    """When a question that is refused may be asked again."""
    with pytest.raises(TooManyRequests) as caught:
        quota.claim(key, at, replaced)
    assert caught.value.extra == {"retry_after_s": caught.value.retry_after_s}
    return caught.value.retry_after_s


class TestRuns:
    def test_as_many_as_allowed_are_live_at_once(self) -> None:
        held, key = quota(concurrent_runs_per_key=2), a_key()
        for run in ("1", "2"):
            held.begin(held.claim(key, 0.0), run)
        assert wait_s(held, key, 0.0) == 5
        held.end("1")
        held.begin(held.claim(key, 0.0), "3")
        assert wait_s(held, key, 1e9) == 5

    def test_count_from_the_question_on(self) -> None:
        held, key = quota(concurrent_runs_per_key=1), a_key()
        held.claim(key, 0.0)
        wait_s(held, key, 0.0)

    def test_each_key_has_its_own(self) -> None:
        held = quota(concurrent_runs_per_key=1)
        one, other = a_key(), a_key()
        assert one.owner == other.owner
        held.claim(one, 0.0)
        held.claim(other, 0.0)
        wait_s(held, one, 0.0)

    @pytest.mark.parametrize(("own", "allowed"), [(1, 1), (3, 3), (None, 2), (0, 50)])
    def test_a_keys_own_limit_beats_the_settings(self, own: int | None, allowed: int) -> None:
        held, key = quota(concurrent_runs_per_key=2), a_key(concurrent_runs=own)
        for _ in range(allowed):
            held.claim(key, 0.0)
        if own != 0:
            wait_s(held, key, 0.0)

    def test_one_that_ends_for_the_question_does_not_count_against_it(self) -> None:
        held, key = quota(concurrent_runs_per_key=1), a_key()
        held.begin(held.claim(key, 0.0), "1")
        wait_s(held, key, 0.0)
        wait_s(held, key, 0.0, "another")
        claim = held.claim(key, 0.0, "1")
        held.end("1")
        held.begin(claim, "2")
        wait_s(held, key, 0.0)

    def test_one_of_another_key_that_ends_for_it_makes_no_room(self) -> None:
        held, key, other = quota(concurrent_runs_per_key=1), a_key(), a_key()
        held.begin(held.claim(other, 0.0), "1")
        held.begin(held.claim(key, 0.0), "2")
        wait_s(held, key, 0.0, "1")

    def test_ends_of_runs_that_nobody_claimed_do_not_matter(self) -> None:
        held = quota()
        held.end("unheard-of")
        held.end("unheard-of")


class TestAsks:
    def test_slide_with_the_window(self) -> None:
        held, key = quota(asks_per_minute_per_key=3), a_key()
        for at in (10.0, 20.5, 30.0):
            self.ask(held, key, at)
        assert wait_s(held, key, 40.0) == 30
        assert wait_s(held, key, 69.2) == 1
        self.ask(held, key, 70.0)
        assert wait_s(held, key, 70.0) == 11

    def test_refused_questions_do_not_count(self) -> None:
        held, key = quota(asks_per_minute_per_key=1), a_key()
        self.ask(held, key, 0.0)
        for second in range(1, 60):
            wait_s(held, key, float(second))
        self.ask(held, key, 60.0)

    def test_never_more_than_allowed_in_any_minute(self) -> None:
        held, key = quota(asks_per_minute_per_key=5), a_key()
        taken: list[float] = []
        for tenth in range(3_000):
            at = tenth / 10
            try:
                self.ask(held, key, at)
            except TooManyRequests:
                continue
            taken.append(at)
        assert len(taken) == 25
        assert all(later - early >= 60 for early, later in zip(taken, taken[5:], strict=False))

    @pytest.mark.parametrize(("own", "allowed"), [(1, 1), (3, 3), (None, 2), (0, 50)])
    def test_a_keys_own_limit_beats_the_settings(self, own: int | None, allowed: int) -> None:
        held, key = quota(asks_per_minute_per_key=2), a_key(asks_per_minute=own)
        for _ in range(allowed):
            self.ask(held, key, 0.0)
        if own != 0:
            wait_s(held, key, 0.0)

    def test_nothing_is_kept_where_nobody_counts(self) -> None:
        held, key = quota(), a_key()
        claims = [held.claim(key, 0.0) for _ in range(100)]
        assert len(claims[0].use.asked) == 0

    @staticmethod
    def ask(held: Quota, key: Any, at: float) -> None:
        run = str(at)
        held.begin(held.claim(key, at), run)
        held.end(run)


class TestClaims:
    """With room for one run and one question."""

    def setup_method(self) -> None:
        self.key = a_key()
        self.held = quota(concurrent_runs_per_key=1, asks_per_minute_per_key=1)

    def claim(self) -> Claim:
        return self.held.claim(self.key, 0.0)

    def test_of_a_question_without_run_is_given_back(self) -> None:
        self.claim().settle()
        self.claim().settle()

    def test_of_a_question_with_a_run_stays(self) -> None:
        claim = self.claim()
        self.held.begin(claim, "1")
        claim.settle()
        wait_s(self.held, self.key, 0.0)
        self.held.end("1")
        claim.settle()
        assert wait_s(self.held, self.key, 59.5) == 1

    def test_counts_if_the_run_comes_after_its_caller_has_gone(self) -> None:
        claim = self.claim()
        claim.settle()
        self.held.begin(claim, "1")
        wait_s(self.held, self.key, 0.0)
        self.held.end("1")
        wait_s(self.held, self.key, 59.0)
        self.held.claim(self.key, 60.0)

    def test_settled_twice_gives_back_once(self) -> None:
        first = self.claim()
        first.settle()
        self.claim()
        first.settle()
        wait_s(self.held, self.key, 0.0)
