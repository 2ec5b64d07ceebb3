"""The keeper: waiting for a slot in a real event loop, with deadlines, clients that leave, nodes that come and go."""

import asyncio

import pytest

from herd.core.admission import Place
from herd.core.clock import moment
from herd.core.errors import NoNode, QueueFull, QueueTimeout
from herd.core.request import Dialect, Request
from herd.core.routing import Policy
from herd.fleet.cell import Cell, TwinHeard
from herd.fleet.keeper import Keeper
from herd.fleet.slots import Bid
from tests.fleet.test_cell import beat

A = Place("a", "llama:8b")


class Told(list):
    """A list of the events that were told."""

    @property
    def kinds(self):
        return [getattr(event, "kind", type(event).__name__) for event in self]


def keeper(limit=10, timeout_s=30.0, slots=1, told=None):
    made = Keeper(Cell(queue_limit=limit), told.append if told is not None else lambda _: None, timeout_s)
    made.heard(beat("a", slots=slots))
    return made


async def slot(made, client="x"):
    request = Request("/api/chat", Dialect.OLLAMA, "llama:8b", client=client)
    return await made.slot(Bid(request, Policy()), made.cell.decide(request, Policy(), moment()))


def wait(made, client="x"):
    return asyncio.create_task(slot(made, client))


async def parked(made, depth):
    async with asyncio.timeout(5):
        while made.cell.slots.depths().get("llama:8b", 0) != depth:  # noqa: ASYNC110 - a lane tells no event, and sleep(0) only yields
            await asyncio.sleep(0)


async def test_a_waiter_has_the_slot_as_soon_as_it_is_given_back():
    """No polling in between."""
    made = keeper()
    held = await slot(made)
    waiter = wait(made)
    await parked(made, 1)
    made.give_back(held)
    assert (held.place, (await waiter).place) == (A, A)
    assert made._awaited == {}, "nothing is kept of who was served"


async def test_a_full_lane_is_refused_with_a_retry_after_from_the_measured_service_time():
    """A client that knows when to come back does not hammer."""
    made, now = keeper(limit=1), moment()
    request = Request("/api/chat", Dialect.OLLAMA, "llama:8b")
    bid, choice = Bid(request, Policy()), made.cell.decide(request, Policy(), now)
    made.cell.ask(-1, bid, choice, now)
    made.cell.give_back(-1, A, now.after(8.0))
    await slot(made)
    waiter = wait(made)
    await parked(made, 1)
    with pytest.raises(QueueFull) as caught:
        await slot(made)
    assert caught.value.retry_after_s == 16
    waiter.cancel()


async def test_who_waited_too_long_is_refused_and_leaves_the_lane():
    """A slot must not be granted to someone who has gone."""
    made = keeper(timeout_s=0.01)
    await slot(made)
    with pytest.raises(QueueTimeout) as caught:
        await slot(made)
    assert 1 <= caught.value.retry_after_s <= 60
    assert made.cell.slots.depths() == {}


async def test_a_client_that_leaves_while_queued_frees_its_place():
    """Otherwise a slot leaks with every impatient client."""
    made = keeper()
    held = await slot(made)
    leaver, stayer = wait(made, "l"), wait(made, "s")
    await parked(made, 2)
    leaver.cancel()
    await asyncio.wait([leaver])
    made.give_back(held)
    made.give_back(await stayer)
    assert made.cell.slots.in_flight() == {}
    assert not made.cell.entries["a"].workload.work.jobs


async def test_a_client_that_leaves_in_the_moment_it_is_granted_gives_the_slot_on():
    """The narrowest of races, and the one that leaks."""
    made = keeper()
    held = await slot(made)
    first, second = wait(made, "1"), wait(made, "2")
    await parked(made, 2)
    made.give_back(held)
    first.cancel()
    made.give_back(await second)
    assert made.cell.slots.in_flight() == {}
    assert not made.cell.entries["a"].workload.work.jobs


async def test_a_node_that_joins_serves_those_who_wait_already():
    """Help that comes late is still help."""
    made = keeper()
    await slot(made)
    waiter = wait(made)
    await parked(made, 1)
    made.heard(beat("b", loaded=("llama:8b",)))
    assert (await waiter).place == Place("b", "llama:8b")


async def test_when_the_last_node_goes_those_who_wait_are_told():
    """Two minutes of silence would be the alternative."""
    made = keeper()
    await slot(made)
    waiter = wait(made)
    await parked(made, 1)
    made.heard(beat("a", leaving=True))
    with pytest.raises(NoNode, match="went offline"):
        await waiter
    assert made.cell.slots.depths() == {}


async def test_a_slot_for_one_place_is_had_at_once_or_not_at_all_and_given_back():
    """A model that is loaded ahead of demand must not queue before those who ask."""
    made = keeper()
    with made.only_at(A) as taken, made.only_at(A) as again:
        assert (taken, again) == (True, False)
    assert made.cell.slots.in_flight() == {}


async def test_every_change_is_told_and_a_new_node_is_kept_for_the_next_start():
    """Records and the next router's memory are made from these."""
    told, changes = Told(), []
    made = Keeper(Cell(), told.append, 30.0)
    made.on_change = lambda: changes.append(True)
    made.heard(beat("a"))
    made.heard(beat("a"))
    assert (told.kinds, len(changes)) == (["node_joined", "NodeKnown"], 1)


async def test_a_machine_under_anothers_name_is_told_once_a_minute_and_refused_each_time():
    """Its heartbeats come every few seconds; one line a minute is enough to find it."""
    told = Told()
    made = keeper(told=told)
    for _ in range(3):
        with pytest.raises(TwinHeard):
            made.heard(beat("a", url="http://127.0.0.2:11434"))
    assert told.kinds.count("twin_heard") == 1
