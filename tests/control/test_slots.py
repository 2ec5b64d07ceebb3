"""Waiting for a slot in a real event loop: deadlines, clients that leave, nodes that come and go."""

import asyncio

import pytest

from herd.core.admission import Place
from herd.dataplane.slots import Slots
from herd.errors import NoNode, QueueFull, QueueTimeout

A, B = Place("a", "m"), Place("b", "m")


def slots(limit=10, timeout_s=30.0, **sizes):
    made = Slots(limit, timeout_s)
    made.resize(sizes or {"a": 1})
    return made


def wait(made, *places, client="x", replan=None):
    return asyncio.create_task(made.acquire("m", client, places, replan or (lambda: places)))


async def parked(made, depth):
    async with asyncio.timeout(5):
        while made.depth("m") != depth:  # noqa: ASYNC110 - a lane tells no event, and sleep(0) only yields
            await asyncio.sleep(0)


async def test_a_waiter_has_the_slot_as_soon_as_it_is_released():
    """No polling in between."""
    made = slots()
    assert await made.acquire("m", "x", (A,), lambda: (A,)) == A
    waiter = wait(made, A)
    await parked(made, 1)
    made.release(A, 0.1)
    assert await waiter == A


async def test_a_full_lane_is_refused_with_a_retry_after_from_the_measured_service_time():
    """A client that knows when to come back does not hammer."""
    made = slots(limit=1)
    await made.acquire("m", "x", (A,), lambda: (A,))
    made.release(A, 8.0)
    await made.acquire("m", "x", (A,), lambda: (A,))
    waiter = wait(made, A)
    await parked(made, 1)
    with pytest.raises(QueueFull) as caught:
        await made.acquire("m", "x", (A,), lambda: (A,))
    assert caught.value.retry_after_s == 16
    waiter.cancel()


async def test_who_waited_too_long_is_refused_and_leaves_the_lane():
    """A slot must not be granted to someone who has gone."""
    made = slots(timeout_s=0.01)
    await made.acquire("m", "x", (A,), lambda: (A,))
    with pytest.raises(QueueTimeout) as caught:
        await made.acquire("m", "x", (A,), lambda: (A,))
    assert 1 <= caught.value.retry_after_s <= 60
    assert made.depth("m") == 0


async def test_a_client_that_leaves_while_queued_frees_its_place():
    """Otherwise a slot leaks with every impatient client."""
    made = slots()
    await made.acquire("m", "x", (A,), lambda: (A,))
    leaver, stayer = wait(made, A, client="l"), wait(made, A, client="s")
    await parked(made, 2)
    leaver.cancel()
    await asyncio.wait([leaver])
    made.release(A, 0.1)
    assert await stayer == A
    made.release(A, 0.1)
    assert made.in_flight() == {}


async def test_a_client_that_leaves_in_the_moment_it_is_granted_gives_the_slot_on():
    """The narrowest of races, and the one that leaks."""
    made = slots()
    await made.acquire("m", "x", (A,), lambda: (A,))
    first, second = wait(made, A, client="1"), wait(made, A, client="2")
    await parked(made, 2)
    made.release(A, 0.1)
    first.cancel()
    assert await second == A
    made.release(A, 0.1)
    assert made.in_flight() == {}


async def test_a_node_that_joins_serves_those_who_wait_already():
    """Help that comes late is still help."""
    made = slots()
    await made.acquire("m", "x", (A,), lambda: (A,))
    waiter = wait(made, A, replan=lambda: (A, B))
    await parked(made, 1)
    made.resize({"a": 1, "b": 1})
    made.replan()
    assert await waiter == B


async def test_when_the_last_node_goes_those_who_wait_are_told():
    """Two minutes of silence would be the alternative."""
    made = slots()
    await made.acquire("m", "x", (A,), lambda: (A,))
    waiter = wait(made, A, replan=lambda: ())
    await parked(made, 1)
    made.replan()
    with pytest.raises(NoNode, match="went away"):
        await waiter
    assert made.depth("m") == 0
