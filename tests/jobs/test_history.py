"""What the store remembers of the nodes, brought into the cell: at the start, and every five minutes."""

import asyncio

import pytest

from herd.core.clock import moment
from herd.core.events import NodeKnown
from herd.core.learning import Observation
from herd.core.request import Dialect, Request
from herd.fleet.cell import Cell
from herd.fleet.keeper import Keeper
from herd.jobs.history import EVERY_S, FIRST_S, History
from herd.store.queries import StoreUnreadable
from tests.dataplane.plane import M, node


class Memory:
    """The reader of a store that holds these; it cannot be read while `unreadable`."""

    def __init__(self, known=(), availability=(), answers=()):
        self.unreadable, self.reads = False, []
        self.values = {"known": list(known), "availability": dict(availability), "answers": dict(answers)}

    async def ask(self, question):
        return question()

    def known_nodes(self):
        return self.read("known")

    def availability(self, now):
        assert now == pytest.approx(moment().at, abs=60)
        return self.read("availability")

    def recent_answers(self, now):
        assert now == pytest.approx(moment().at, abs=60)
        return self.read("answers")

    def read(self, name):
        self.reads.append((name, asyncio.get_running_loop().time()))
        if self.unreadable:
            raise StoreUnreadable("the disk is gone")
        return self.values[name]

    def times(self, name):
        """When it was asked for this, since the first time that it was asked for anything."""
        return [at - self.reads[0][1] for asked, at in self.reads if asked == name]


def known(node_id, heartbeat=None):
    beat = node(node_id).model_dump() if heartbeat is None else heartbeat
    return NodeKnown(node_id, beat, last_seen=moment().at - 3)


def keeper():
    return Keeper(Cell(), lambda _: None, 30.0)


def facts(made, node_id):
    return made.cell.entries[node_id].node.uptime


SLOW, FAST = (Observation(prompt_tokens=100, prompt_s=seconds) for seconds in (10.0, 0.1))


def prompt_s(made, node_id):
    """What a prompt of a hundred tokens is expected to take there."""
    fleet = made.cell.snapshot(Request("/api/chat", Dialect.OLLAMA, M), moment())
    pace = fleet.traffic_of(node_id, M).pace
    return pace.prefill(100) if pace and pace.measured else None


# The start


async def test_a_restarted_router_knows_its_nodes_and_sends_nothing_there_yet():
    """Their names are in the page and the metrics at once; whether they live, a heartbeat tells."""
    made, changes = keeper(), []
    made.on_change = lambda: changes.append(True)
    await History(made, Memory([known("a"), known("b")])).restore()
    assert {name: entry.node.status for name, entry in made.cell.entries.items()} == {"a": "offline", "b": "offline"}
    assert (made.cell.knows(M), changes) == (True, [True])


async def test_a_node_that_cannot_be_read_holds_the_others_not_up(caplog):
    """A heartbeat of a version that nobody reads any more is one node less, not a router that does not start."""
    made = keeper()
    await History(made, Memory([known("old", {"v": 0}), known("a")])).restore()
    assert list(made.cell.entries) == ["a"]
    assert "old" in caplog.text


async def test_a_store_that_cannot_be_read_is_a_start_without_a_past(caplog):
    """Requests matter more than memories."""
    made, memory = keeper(), Memory([known("a")])
    memory.unreadable = True
    await History(made, memory).restore()
    assert (dict(made.cell.entries), "the disk is gone" in caplog.text) == ({}, True)


# Later


async def running(made, memory, seconds, *then):
    task = asyncio.create_task(History(made, memory).run())
    for after_s, do in then:
        asyncio.get_running_loop().call_later(after_s, do)
    await asyncio.sleep(seconds)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_it_learns_at_once_and_every_five_minutes():
    """Uptime moves slowly."""
    made, memory = keeper(), Memory(availability={"a": 0.5}, answers={("a", M): [SLOW] * 8})
    made.heard(node("a"))
    await running(made, memory, 2.5 * EVERY_S)
    assert (memory.times("availability"), memory.times("answers")) == ([0, EVERY_S, 2 * EVERY_S],) * 2
    assert (facts(made, "a"), prompt_s(made, "a")) == (0.5, pytest.approx(10.0, rel=0.2))


async def test_what_was_measured_since_the_start_is_not_overwritten_by_the_past():
    """The store's rows are for a router that has seen nothing yet."""
    made, memory = keeper(), Memory(answers={("a", M): [SLOW] * 8})
    made.heard(node("a"))
    made.cell.entries["a"].remember(M, FAST)
    await running(made, memory, 1.0)
    assert prompt_s(made, "a") < 1.0


async def test_nodes_that_the_fleet_does_not_have_are_nobodys_past():
    """A machine that was sold is in the store for thirty days."""
    made, memory = keeper(), Memory(availability={"sold": 0.1}, answers={("sold", M): [SLOW]})
    made.heard(node("a"))
    await running(made, memory, 1.0)
    assert (list(made.cell.entries), facts(made, "a"), prompt_s(made, "a")) == (["a"], 1.0, None)


async def test_without_a_node_there_is_nothing_to_learn_and_soon_after_the_first_there_is():
    """The first minutes of a new fleet are its most important ones."""
    made, memory = keeper(), Memory(availability={"a": 0.5})
    await running(made, memory, 61.0, (59.5, lambda: made.heard(node("a"))))
    assert [name for name, _ in memory.reads] == ["availability", "answers"]
    assert facts(made, "a") == 0.5
    assert FIRST_S <= 1.0


async def test_a_store_that_cannot_be_read_for_a_while_is_asked_again(caplog):
    """The job outlives a full disk."""
    made, memory = keeper(), Memory(availability={"a": 0.5})
    made.heard(node("a"))
    memory.unreadable = True
    await running(made, memory, 1.5 * EVERY_S, (EVERY_S - 1, lambda: setattr(memory, "unreadable", False)))
    assert (memory.times("availability"), facts(made, "a")) == ([0, EVERY_S], 0.5)
    assert caplog.text.count("the disk is gone") == 1
