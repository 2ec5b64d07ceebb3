"""The requests under way: who is stuck, who is retrying, which is the oldest, and how they end when herd stops."""

import asyncio

from herd.core import errors
from herd.core.clock import Clock
from herd.core.dialects import ENDPOINTS
from herd.core.routing import Policy
from herd.dataplane.client import Client
from herd.dataplane.flights import LAST_WORDS_S, REAP_AFTER_S, STOPPED, STOPPING, Flight, Flights, stopped
from herd.dataplane.phases import Received
from herd.dataplane.trace_ids import new_ids
from tests.dataplane.plane import CHAT, HELLO, Plane, chat, until


def flight(request_id="r", at=1000.0):
    caller = chat()
    received = Received(request_id, new_ids(), ENDPOINTS[CHAT], "", Policy(), Clock(), at)
    return Flight(Client(caller.scope, caller.receive, caller.send), received)


def now():
    return asyncio.get_running_loop().time()


def waiting(flights, *made):
    """Tasks that wait for ever, each ended only from outside; gives what ends them."""

    async def wait(each):
        flights.add(each)
        try:
            with each.client.endable():
                await asyncio.Event().wait()
        except errors.HerdError as error:
            return error
        finally:
            flights.remove(each)

    return [asyncio.create_task(wait(each)) for each in made]


async def test_the_oldest_of_those_under_way_is_known_and_none_where_there_is_none():
    """A gauge of it shows a request that hangs long before anybody complains."""
    flights, old, new = Flights(), flight(at=5.0), flight(at=9.0)
    assert (flights.oldest(), len(flights), list(flights)) == (None, 0, [])
    flights.add(new)
    flights.add(old)
    assert (flights.oldest(), len(flights)) == (5.0, 2)
    flights.remove(old)
    assert (flights.oldest(), list(flights)) == (9.0, [new])


async def test_those_that_are_tried_again_are_counted():
    """The budget of retries is made of this."""
    flights, made = Flights(), [flight() for _ in range(3)]
    for each in made:
        flights.add(each)
    assert flights.retrying() == 0
    made[0].retrying = made[2].retrying = True
    assert flights.retrying() == 2
    flights.remove(made[0])
    assert flights.retrying() == 1


async def test_only_what_is_over_its_own_limit_is_ended_and_it_is_told_why():
    """Who waits within a limit is not stuck, and what has none is seen to by something else."""
    flights, late, in_time, unlimited = Flights(), flight("late"), flight("in time"), flight("unlimited")
    tasks = waiting(flights, late, in_time, unlimited)
    await until(lambda: len(flights) == 3)
    late.due_at, in_time.due_at = now(), now() + 0.1
    assert flights.reap(now() + REAP_AFTER_S) == []
    assert [each.request_id for each in flights.reap(now() + REAP_AFTER_S + 0.05)] == ["late"]
    assert isinstance(await tasks[0], errors.Stuck)
    assert len(flights) == 2
    for task in tasks[1:]:
        task.cancel()
    await asyncio.gather(*tasks[1:], return_exceptions=True)


async def test_a_request_is_ended_once():
    """The event that counts it is told once."""
    flights, stuck = Flights(), flight()
    (task,) = waiting(flights, stuck)
    await until(lambda: len(flights) == 1)
    stuck.due_at = now()
    assert [len(flights.reap(now() + 60)) for _ in range(2)] == [1, 0]
    assert isinstance(await task, errors.Stuck)


async def test_a_drain_of_an_idle_router_is_over_at_once():
    """A restart of an idle router takes no grace."""
    flights, began = Flights(), now()
    await flights.drain(30.0)
    flights.add(only := flight())
    flights.remove(only)
    await flights.drain(30.0)
    assert now() == began


async def test_a_drain_is_over_with_the_last_request_and_not_with_the_first():
    """Each of them has the whole grace."""
    flights, first, last, began = Flights(), flight(), flight(), now()
    flights.add(first)
    flights.add(last)
    asyncio.get_running_loop().call_later(5, flights.remove, first)
    asyncio.get_running_loop().call_later(9, flights.remove, last)
    await flights.drain(30.0)
    assert now() - began == 9


async def test_what_is_left_after_the_grace_is_ended_and_has_a_second_for_it():
    """A stop that was asked for comes."""
    flights, began = Flights(), now()
    tasks = waiting(flights, flight("1"), flight("2"))
    flights.add(dead := flight("that cannot be ended"))
    await until(lambda: len(flights) == 3)
    await flights.drain(10.0)
    assert now() - began == 10.0 + LAST_WORDS_S
    ended = await asyncio.gather(*tasks)
    assert [(type(each), each.message, each.retry_after_s) for each in ended] == [(errors.NoNode, STOPPING, 5)] * 2
    assert list(flights) == [dead]


async def test_a_stop_is_a_failure_only_for_what_a_node_has_had():
    """A refusal may be sent elsewhere without a thought; half done work may not."""
    gate = asyncio.Event()
    plane = Plane(a=[[gate, *HELLO]])
    async with plane.asking():
        await until(lambda: plane.upstream.open == 1)
        (under_way,) = plane.serving.flights
        had, had_not = stopped(under_way.phase), stopped(flight().phase)
        gate.set()
    assert (type(had), had.message) == (errors.Internal, STOPPED)
    assert (type(had_not), had_not.message, had_not.retry_after_s) == (errors.NoNode, STOPPING, 5)
