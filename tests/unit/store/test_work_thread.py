"""One thread that does one thing at a time."""

import asyncio
import threading

import pytest

from holdfast.store.sqlite.work_thread import WorkThread
from tests.support.loop import turns
from tests.support.stage import GIVE_UP_S


async def test_work_is_done_in_order_in_one_thread_that_is_not_ours() -> None:
    thread = WorkThread("t")
    done: list[tuple[int, int]] = []

    def work(number: int) -> int:
        done.append((number, threading.get_ident()))
        return number * 2

    assert await asyncio.gather(*[thread.run(work, n) for n in range(50)]) == list(range(0, 100, 2))
    assert [number for number, _ in done] == list(range(50))
    assert len({ident for _, ident in done} | {threading.get_ident()}) == 2
    thread.close()


async def test_what_goes_wrong_is_raised_where_it_is_waited_for() -> None:
    thread = WorkThread("t")

    def fail() -> None:
        raise ZeroDivisionError("scripted")

    with pytest.raises(ZeroDivisionError):
        await thread.run(fail)
    assert await thread.run(lambda: 1) == 1
    thread.close()


async def test_work_that_nobody_waits_for_any_more_is_done_all_the_same() -> None:
    thread = WorkThread("t")
    gate, done = threading.Event(), list[int]()

    def work() -> None:
        gate.wait()
        done.append(1)

    waiting = asyncio.ensure_future(thread.run(work))
    await turns()
    waiting.cancel()
    gate.set()
    assert await thread.run(lambda: len(done)) == 1
    thread.close()


async def test_what_was_asked_before_the_end_is_done() -> None:
    thread = WorkThread("t")
    asked = [thread.run(lambda n=n: n) for n in range(10)]
    thread.close()
    assert thread.closed
    assert await asyncio.gather(*asked) == list(range(10))


async def test_after_the_end_nobody_is_kept_waiting() -> None:
    thread = WorkThread("t")
    thread.close()
    with pytest.raises(RuntimeError):
        await asyncio.wait_for(thread.run(lambda: 1), GIVE_UP_S)


def test_a_loop_that_has_gone_does_not_stop_the_thread() -> None:
    thread = WorkThread("t")
    gate = threading.Event()

    async def leave() -> None:
        thread.run(gate.wait)

    asyncio.run(leave())
    gate.set()

    async def come() -> int:
        number: int = await thread.run(lambda: 7)
        return number

    assert asyncio.run(come()) == 7
    thread.close()
