"""The event loop's lag, on a real event loop."""

import asyncio
import time

from herd.telemetry.canary import EventLoopCanary
from tests.telemetry.exposition import sink_with, value


def hold_up(seconds):
    """Keep the thread, and with it the event loop, as a slow handler would."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        sum(range(1000))


async def until(condition):
    """Yield to the loop until a condition holds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the canary tells no event, and must not for a test's sake
            await asyncio.sleep(0.001)


async def test_a_loop_that_is_held_up_is_seen_as_a_stall():
    """One blocking call in one handler delays every stream; nothing else shows it."""
    sink = sink_with()
    canary = EventLoopCanary(sink.observe_lag)
    canary.start()
    await until(lambda: value(sink, "herd_event_loop_lag_seconds_count"))
    before = value(sink, "herd_event_loop_stalls_total")
    hold_up(0.3)
    await until(lambda: value(sink, "herd_event_loop_stalls_total") > before)
    await canary.stop()


async def test_it_measures_until_it_is_stopped_and_no_longer():
    """A task that outlives the router would keep its loop from closing."""
    seen: list[float] = []
    canary = EventLoopCanary(seen.append)
    canary.start()
    canary.start()
    await until(lambda: len(seen) >= 3)
    assert all(lag >= 0 for lag in seen)
    await canary.stop()
    await canary.stop()
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "event-loop-canary"]
