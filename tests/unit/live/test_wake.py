"""The bell: no ring is lost, and several before a wait are one."""

import asyncio

import pytest

from holdfast.live.wake import Wake


async def _step() -> None:
    """Let every task that is ready run until it waits again."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_a_ring_before_the_wait_is_remembered() -> None:
    wake = Wake()
    wake.ring()
    await wake.wait()


async def test_rings_before_the_wait_count_as_one() -> None:
    wake = Wake()
    wake.ring()
    wake.ring()
    await wake.wait()
    waiter = asyncio.create_task(wake.wait())
    await _step()
    assert not waiter.done()
    wake.ring()
    await waiter


async def test_a_ring_wakes_the_waiter() -> None:
    wake = Wake()
    waiter = asyncio.create_task(wake.wait())
    await _step()
    assert not waiter.done()
    wake.ring()
    wake.ring()
    await waiter


async def test_two_rings_for_one_waiter_leave_none_over() -> None:
    wake = Wake()
    waiter = asyncio.create_task(wake.wait())
    await _step()
    wake.ring()
    wake.ring()
    await waiter
    late = asyncio.create_task(wake.wait())
    await _step()
    assert not late.done()
    late.cancel()


async def test_a_ring_between_the_wake_up_and_the_next_wait_is_kept() -> None:
    wake = Wake()
    seen = 0

    async def count() -> None:
        nonlocal seen
        while seen < 3:
            await wake.wait()
            seen += 1
            if seen < 3:
                wake.ring()

    task = asyncio.create_task(count())
    await _step()
    wake.ring()
    await task
    assert seen == 3


async def test_a_cancelled_wait_loses_no_ring() -> None:
    wake = Wake()
    waiter = asyncio.create_task(wake.wait())
    await _step()
    wake.ring()
    waiter.cancel()  # both in the same turn of the loop
    with pytest.raises(asyncio.CancelledError):
        await waiter
    await wake.wait()


async def test_a_bell_can_be_waited_for_again_after_a_cancel() -> None:
    wake = Wake()
    waiter = asyncio.create_task(wake.wait())
    await _step()
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    again = asyncio.create_task(wake.wait())
    await _step()
    wake.ring()
    await again
