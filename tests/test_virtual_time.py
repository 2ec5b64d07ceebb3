"""The loop in virtual time: timers in their order, at their time, and no waiting for them."""

import asyncio
import threading

import pytest

from tests.virtual_time import START, NothingMoves, VirtualLoop


@pytest.fixture
def loop():
    made = VirtualLoop()
    yield made
    made.close()


def test_a_day_passes_at_once_and_to_the_second(loop):
    """A limit of an hour is tested by waiting for it."""
    loop.run_until_complete(asyncio.sleep(86_400))
    assert loop.time() == START + 86_400


def test_timers_ring_in_the_order_of_their_times(loop):
    """What is shorter is over first, whoever began first."""

    async def after(seconds):
        await asyncio.sleep(seconds)
        rung.append((seconds, loop.time() - START))

    async def all_of_them():
        await asyncio.gather(*map(after, (30, 0.5, 600)))

    rung = []
    loop.run_until_complete(all_of_them())
    assert rung == [(0.5, 0.5), (30, 30.0), (600, 600.0)]


def test_time_stands_still_while_there_is_something_to_do(loop):
    """Work takes none of the time that limits are measured by."""

    async def busy():
        async with asyncio.timeout(0.001):
            for _ in range(1000):
                await asyncio.sleep(0)

    loop.run_until_complete(busy())
    assert loop.time() == START


def test_a_timeout_ends_what_would_wait_for_ever(loop):
    """The usual tools work as they are."""

    async def wait():
        async with asyncio.timeout(300):
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        loop.run_until_complete(wait())
    assert loop.time() == START + 300


def test_what_is_given_to_a_thread_is_done_before_time_moves_on(loop):
    """A question to the store must not be overtaken by the timer beside it."""

    async def ask():
        async with asyncio.timeout(0.001):
            return await asyncio.to_thread(threading.get_ident)

    assert loop.run_until_complete(ask()) == threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        loop.run_until_complete(asyncio.to_thread(lambda: 1 // 0))


def test_a_loop_in_which_nothing_can_happen_any_more_says_so(loop):
    """A test that hangs should fail at once, and not at its time limit."""
    loop.patience_s = 0.01
    forever = loop.create_task(asyncio.Event().wait())
    with pytest.raises(NothingMoves):
        loop.run_until_complete(forever)
    forever.cancel()
    with pytest.raises(asyncio.CancelledError):
        loop.run_until_complete(forever)
