"""Whether the upstreams answer."""

import asyncio
import time
from collections.abc import Callable

import pytest

from holdfast.runner import health
from holdfast.runner.health import FRESH_S, HealthBoard, check
from holdfast.runner.router import Router
from holdfast.settings import RouterSettings
from holdfast.upstreams.base import Health, Upstream
from tests.support.scripted import ScriptedUpstream


class Patient(ScriptedUpstream):
    """Says what it is told to say of its health, and counts how often it is asked."""

    def __init__(self, name: str, answer: Health | Exception | None) -> None:
        super().__init__(name)
        self.answer_with = answer
        self.checks = 0

    async def check(self) -> Health:
        self.checks += 1
        if self.answer_with is None:
            await asyncio.get_running_loop().create_future()
        if isinstance(self.answer_with, Exception):
            raise self.answer_with
        assert self.answer_with is not None
        return self.answer_with


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (Health(True), Health(True)),
        (Health(False, "401"), Health(False, "401")),
        (ConnectionRefusedError("no"), Health(False, "ConnectionRefusedError: no")),
        (None, Health(False, "no answer within 0.01 s")),
    ],
)
async def test_a_check_always_gives_an_answer(
    monkeypatch: pytest.MonkeyPatch, answer: Health | Exception | None, found: Health
) -> None:
    monkeypatch.setattr(health, "CHECK_TIMEOUT_S", 0.01)
    assert await check(Patient("p", answer)) == found


def board_of(now: Callable[[], float] = time.monotonic, **patients: Patient) -> HealthBoard:
    upstreams: dict[str, Upstream] = {**patients}
    return HealthBoard(upstreams, Router(RouterSettings(), upstreams, now))


async def test_one_upstream_that_hangs_does_not_hide_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(health, "CHECK_TIMEOUT_S", 0.01)
    board = board_of(a=Patient("a", None), b=Patient("b", Health(True)))
    found = await board.look()
    assert list(found) == ["a", "b"]
    assert [found["a"].ok, found["b"].ok] == [False, True]


async def test_findings_are_used_again_while_they_are_fresh(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1_000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    patient = Patient("p", Health(True))
    board = board_of(p=patient)
    await asyncio.gather(*[board.look() for _ in range(5)])
    now += FRESH_S - 1
    await board.look()
    assert patient.checks == 1
    patient.answer_with = Health(False, "gone")
    now += 1
    assert await board.look() == {"p": Health(False, "gone")}
    assert patient.checks == 2


async def test_a_board_without_upstreams_is_empty() -> None:
    assert await board_of().look() == {}


async def test_an_open_breaker_counts_at_once_and_only_while_it_is_open() -> None:
    now = 0.0
    upstreams: dict[str, Upstream] = {"p": Patient("p", Health(True, "fine"))}
    router = Router(RouterSettings(breaker_failures=2, breaker_open_s=5.0), upstreams, lambda: now)
    board = HealthBoard(upstreams, router)
    assert await board.look() == {"p": Health(True, "fine")}
    for _ in range(2):
        router.breakers["p"].failed(now)
    assert await board.look() == {"p": Health(False, "the last 2 questions failed")}
    now = 5.0
    assert await board.look() == {"p": Health(True, "fine")}


async def test_what_an_upstream_says_of_itself_beats_its_breaker() -> None:
    upstreams: dict[str, Upstream] = {"p": Patient("p", Health(False, "401"))}
    router = Router(RouterSettings(breaker_failures=1), upstreams)
    router.breakers["p"].failed(router.now())
    assert await HealthBoard(upstreams, router).look() == {"p": Health(False, "401")}
