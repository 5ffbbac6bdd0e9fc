"""The clock over an upstream and the count of readers, with time made by hand."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from holdfast.engine.run import UpstreamEnd
from holdfast.events import Reason
from holdfast.runner import watch
from holdfast.runner.watch import Audience, SilenceWatch
from holdfast.settings import RunSettings


class ManualLoop:
    """A clock that moves only when it is told to, with timers in their order."""

    def __init__(self) -> None:
        self.now = 0.0
        self._timers: list[tuple[float, Callable[[], object]]] = []

    def time(self) -> float:
        return self.now

    def call_later(self, delay: float, call: Callable[..., object], *args: Any) -> Any:
        timer = (self.now + delay, lambda: call(*args))
        self._timers.append(timer)
        return SimpleNamespace(cancel=lambda: self._drop(timer))

    def _drop(self, timer: tuple[float, Callable[[], object]]) -> None:
        self._timers = [other for other in self._timers if other is not timer]

    def move(self, to: float) -> None:
        """Let time pass, and everything happen that is due on the way."""
        while due := [timer for timer in self._timers if timer[0] <= to]:
            timer = min(due, key=lambda timer: timer[0])
            self._drop(timer)
            self.now = max(self.now, timer[0])
            timer[1]()
        self.now = to

    @property
    def timers(self) -> int:
        return len(self._timers)


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> ManualLoop:
    loop = ManualLoop()
    monkeypatch.setattr(watch, "asyncio", SimpleNamespace(get_running_loop=lambda: loop))
    return loop


class Watched:
    """A silence watch, when it ended the run, and whether the upstream is excused."""

    def __init__(self, loop: ManualLoop, first: float, idle: float, total: float) -> None:
        self.ends: list[tuple[float, UpstreamEnd]] = []
        self.excused = False
        self.watch = SilenceWatch(
            RunSettings(first_byte_timeout_s=first, idle_timeout_s=idle, total_timeout_s=total),
            lambda end: self.ends.append((loop.now, end)),
            lambda: self.excused,
        )


@pytest.mark.parametrize(("first", "idle"), [(5, 100), (100, 7), (3, 3)])
def test_silence_before_the_first_byte_has_its_own_time_out(
    loop: ManualLoop, first: float, idle: float
) -> None:
    watched = Watched(loop, first, idle, 1_000)
    loop.move(first - 0.5)
    assert watched.ends == []
    loop.move(first + 0.5)
    ((at, end),) = watched.ends
    assert (at, end.reason) == (first, Reason.UPSTREAM_TIMEOUT)
    assert f"silent for {first:g} s" in (end.error or "")


def test_every_sign_of_life_begins_the_idle_time_again(loop: ManualLoop) -> None:
    watched = Watched(loop, 5, 10, 1_000)
    for at in range(4, 100, 9):
        loop.move(at)
        watched.watch.touch()
    assert watched.ends == []
    last = loop.now
    loop.move(500.0)
    assert [at for at, _ in watched.ends] == [last + 10]


def test_the_total_time_counts_whatever_comes(loop: ManualLoop) -> None:
    watched = Watched(loop, 5, 10, 42)
    for second in range(1, 42):
        loop.move(second)
        watched.watch.touch()
    assert watched.ends == []
    loop.move(43)
    ((at, end),) = watched.ends
    assert at == 42
    assert "longer than 42 s" in (end.error or "")


def test_the_total_time_counts_for_a_silent_upstream_too(loop: ManualLoop) -> None:
    watched = Watched(loop, 100, 100, 42)
    loop.move(200)
    assert [at for at, _ in watched.ends] == [42]


def test_an_upstream_that_is_not_read_is_not_silent(loop: ManualLoop) -> None:
    watched = Watched(loop, 5, 10, 1_000)
    watched.watch.touch()
    watched.excused = True
    loop.move(200)
    assert watched.ends == []
    watched.excused = False
    loop.move(300)
    ((at, _),) = watched.ends
    assert 200 <= at <= 210


@pytest.mark.parametrize(("first", "idle"), [(5, 100), (100, 7)])
def test_who_is_asked_next_has_the_time_to_its_first_byte(
    loop: ManualLoop, first: float, idle: float
) -> None:
    watched = Watched(loop, first, idle, 1_000)
    loop.move(3)
    watched.watch.touch()
    loop.move(6)
    watched.watch.begin_anew()
    loop.move(500)
    assert [at for at, _ in watched.ends] == [6 + first]


def test_a_watch_that_is_cancelled_ends_nothing(loop: ManualLoop) -> None:
    watched = Watched(loop, 5, 10, 20)
    watched.watch.cancel()
    loop.move(1_000)
    assert watched.ends == []
    assert loop.timers == 0


def test_activity_never_adds_a_timer(loop: ManualLoop) -> None:
    watched = Watched(loop, 5, 10, 1_000)
    for _ in range(100):
        watched.watch.touch()
    assert loop.timers == 1


# ------------------------------------------------------------------------------ readers


class Listened:
    """An audience and when it ended the run."""

    def __init__(self, loop: ManualLoop, grace_s: float, cancels: bool = True) -> None:
        self.ends: list[tuple[float, UpstreamEnd]] = []
        self.audience = Audience(cancels, grace_s, lambda end: self.ends.append((loop.now, end)))


@pytest.mark.parametrize(("grace", "first"), [(0, 1), (0.2, 1), (30, 30)])
def test_the_first_reader_has_at_least_a_second_to_come(
    loop: ManualLoop, grace: float, first: float
) -> None:
    listened = Listened(loop, grace)
    loop.move(first - 0.1)
    assert listened.ends == []
    loop.move(first)
    assert listened.ends == [(first, UpstreamEnd(Reason.CLIENT_DISCONNECTED))]


def test_the_grace_time_begins_when_the_last_reader_leaves(loop: ManualLoop) -> None:
    listened = Listened(loop, 10)
    listened.audience.came()
    listened.audience.came()
    loop.move(50)
    listened.audience.left()
    loop.move(100)
    assert listened.ends == []
    listened.audience.left()
    loop.move(109)
    assert listened.ends == []
    loop.move(111)
    assert [at for at, _ in listened.ends] == [110]


def test_a_reader_that_comes_back_stops_the_clock_and_the_next_starts_it_anew(
    loop: ManualLoop,
) -> None:
    listened = Listened(loop, 10)
    for at in (5, 14, 23, 32):
        loop.move(at)
        listened.audience.came()
        listened.audience.left()
    loop.move(41)
    assert listened.ends == []
    loop.move(43)
    assert [at for at, _ in listened.ends] == [42]


def test_without_the_wish_nobody_is_waited_for(loop: ManualLoop) -> None:
    listened = Listened(loop, 0, cancels=False)
    listened.audience.came()
    listened.audience.left()
    loop.move(1_000)
    assert listened.ends == []
    assert loop.timers == 0


def test_a_run_that_is_over_is_not_watched_any_more(loop: ManualLoop) -> None:
    listened = Listened(loop, 10)
    listened.audience.came()
    listened.audience.close()
    listened.audience.left()
    loop.move(1_000)
    assert listened.ends == []
