"""Loads ahead of demand: when it is looked what to load, how a load goes, and what its failure leaves alone."""

import asyncio
import json
from contextlib import ExitStack

import pytest

from herd.core import errors
from herd.core.admission import Place
from herd.core.clock import moment
from herd.fleet.cell import Cell
from herd.fleet.keeper import Keeper
from herd.jobs.preloads import AVOID_S, HEARD_LOOKS, LOAD_WITHIN_S, LOOK_EVERY_S, MOST_MODELS, Preloads
from herd.store.queries import StoreUnreadable
from tests.dataplane.plane import M, node, settings, until
from tests.dataplane.scripted_upstream import JSON, SILENCE, Head, ScriptedUpstream

LOADED = [JSON, b'{"done":true,"done_reason":"load"}']
REFUSED = [Head(400, {"content-type": "application/json"}), b'{"error":"\\"e:1b\\" does not support generate"}']
INTERVAL_S = 120.0


class Demand:
    """The reader of a store that says what was asked for; None where it cannot be read."""

    def __init__(self, **models):
        self.models = {name.replace("_", ":"): weight for name, weight in models.items()}
        self.looks = []

    def demand(self, now):
        self.looks.append(asyncio.get_running_loop().time())
        if self.models is None:
            raise StoreUnreadable("the disk is gone")
        return self.models


class Preloading:
    """Preloads over scripted nodes that have the models on disk, unless `beats` say otherwise."""

    def __init__(self, demand, beats=None, with_settings=(), **scripts):
        self.events = []
        self.demand = demand
        self.upstream = ScriptedUpstream(**scripts)
        self.keeper = Keeper(Cell(), self.events.append, 30.0)
        for each in beats or [cold(name) for name in scripts]:
            self.keeper.heard(each)
        self.settings = settings(**{"preload": True, **dict(with_settings)})
        self.preloads = Preloads(self.settings, self.keeper, self.upstream, demand, self.events.append)

    def told(self):
        """The events of preloads: kind, node, model, reason."""
        found = [each for each in self.events if getattr(each, "kind", "").startswith("preload")]
        return [(each.kind, each.node_id, each.model, each.data.get("reason")) for each in found]

    def sent(self):
        """Where the nodes were asked, and for which model."""
        return [(call.url.partition(":11434")[2], json.loads(call.body)["model"]) for call in self.upstream.calls]


def cold(node_id="a", models=(M,), **changes):
    return node(node_id, **{"models": models, "loaded": (), "slots": 1, **changes})


def now():
    return asyncio.get_running_loop().time()


# When it looks


async def running(plane, seconds):
    """It runs for so long."""
    task, began = asyncio.create_task(plane.preloads.run()), now()
    await asyncio.sleep(seconds)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return [look - began for look in plane.demand.looks]


async def test_it_looks_once_in_each_interval_and_first_after_one():
    """A restarted router would otherwise load what is warm on nodes that it has not heard of yet."""
    plane = Preloading(Demand(), a=[LOADED])
    assert await running(plane, 3.5 * INTERVAL_S) == pytest.approx([INTERVAL_S, 2 * INTERVAL_S, 3 * INTERVAL_S], abs=2)


async def test_it_looks_only_where_the_setting_says_so_and_soon_after_it_does():
    """Whoever switches it on need not wait for an interval that has passed already."""
    plane = Preloading(Demand(), with_settings={"preload": False}, a=[LOADED])
    asyncio.get_running_loop().call_later(1000, plane.settings.change, {"preload": True})
    assert (await running(plane, 1010))[:1] == pytest.approx([1000], abs=2)
    assert len(plane.demand.looks) == 1


async def test_a_store_that_cannot_be_read_is_asked_again_after_the_next_interval():
    """It tells of its own troubles; the job must outlive them."""
    demand = Demand()
    demand.models = None
    assert len(await running(Preloading(demand, a=[LOADED]), 2.5 * INTERVAL_S)) == 2


# Loads


async def test_what_is_asked_for_and_not_loaded_is_loaded_and_told():
    """The next request finds it warm."""
    plane = Preloading(Demand(llama_8b=10.04), a=[[7.0, *LOADED]])
    await plane.preloads.look()
    (call,) = plane.upstream.calls
    assert (call.method, call.url, call.headers) == (
        "POST", "http://a:11434/api/generate", ((b"content-type", b"application/json"),),
    )  # fmt: skip
    assert json.loads(call.body) == {"model": M, "keep_alive": "1h", "stream": False}
    assert plane.told() == [("preload", "a", M, None)]
    assert plane.events[-1].data == {"demand": 10.0, "seconds": 7.0}


async def test_what_is_not_asked_for_is_not_loaded():
    """Memory is for what is used."""
    for demand in (Demand(), Demand(llama_8b=1.0), Demand(other_1b=50.0)):
        plane = Preloading(demand, a=[LOADED])
        await plane.preloads.look()
        assert (plane.upstream.calls, plane.told()) == ([], [])


async def test_of_many_models_the_most_wanted_are_looked_at():
    """A fleet that has seen a thousand models is not asked about a thousand."""
    names = [f"m{number}:1b" for number in range(MOST_MODELS + 1)]
    demand = Demand()
    demand.models = {name: 10.0 + number for number, name in enumerate(names)}
    beats = [cold("a", (names[0],)), cold("b", (names[1],))]
    plane = Preloading(demand, beats, a=[LOADED], b=[LOADED])
    await plane.preloads.look()
    assert plane.sent() == [("/api/generate", names[1])]


async def test_a_load_holds_a_slot_so_that_requests_for_the_model_wait_for_it():
    """Otherwise they would load it elsewhere meanwhile."""
    gate = asyncio.Event()
    plane = Preloading(Demand(llama_8b=10.0), a=[[gate, *LOADED]])
    task = asyncio.create_task(plane.preloads.look())
    await until(lambda: plane.upstream.open == 1)
    assert plane.keeper.cell.slots.in_flight() == {"a": {M: 1}}
    gate.set()
    await task
    assert plane.keeper.cell.slots.in_flight() == {}


async def test_a_node_without_a_free_slot_is_left_to_those_who_wait_for_it():
    """A model that is loaded ahead of demand must not push demand back."""
    plane = Preloading(Demand(llama_8b=10.0), a=[LOADED])
    with plane.keeper.only_at(Place("a", M)):
        await plane.preloads.look()
    assert (plane.upstream.calls, plane.told()) == ([], [])


async def test_a_request_that_takes_the_slot_in_the_same_moment_comes_first():
    """It will load the model itself."""
    plane, blocks = Preloading(Demand(llama_8b=10.0), a=[LOADED]), ExitStack()
    read = plane.demand.demand

    def demand(now):
        asyncio.get_running_loop().call_soon(blocks.enter_context, plane.keeper.only_at(Place("a", M)))
        return read(now)

    plane.demand.demand = demand
    await plane.preloads.look()
    assert (plane.upstream.calls, plane.keeper.cell.slots.in_flight()) == ([], {"a": {M: 1}})
    blocks.close()


async def test_a_model_that_was_unloaded_since_is_loaded_again():
    """Only failures are left alone."""
    plane = Preloading(Demand(llama_8b=10.0), a=[LOADED])
    for _ in range(2):
        await plane.preloads.look()
    assert [kind for kind, *_ in plane.told()] == ["preload", "preload"]


@pytest.mark.parametrize(("slots", "named_after_s", "held_s"), [(2, 3.0, 3.0), (2, None, 15.0), (1, 3.0, 0.0)])
async def test_the_slot_is_held_until_the_node_names_the_model_where_others_could_pass(slots, named_after_s, held_s):
    """Until its heartbeat, a request would take another node for a better one, and load the model there."""
    plane, began = Preloading(Demand(llama_8b=10.0), [cold(slots=slots)], a=[LOADED]), now()
    if named_after_s:
        asyncio.get_running_loop().call_later(named_after_s, plane.keeper.heard, cold(slots=slots, loaded=(M,)))
    await plane.preloads.look()
    assert now() - began == pytest.approx(held_s, abs=2 * LOOK_EVERY_S)
    assert pytest.approx(15.0) == HEARD_LOOKS * LOOK_EVERY_S
    assert plane.keeper.cell.slots.in_flight() == {}


async def test_a_node_that_is_forgotten_meanwhile_is_not_waited_for():
    """There will be no heartbeat."""
    gate = asyncio.Event()
    plane = Preloading(Demand(llama_8b=10.0), [cold(slots=2)], a=[[gate, *LOADED]])
    task, began = asyncio.create_task(plane.preloads.look()), now()
    await until(lambda: plane.upstream.open == 1)
    plane.keeper.heard(cold(slots=2, leaving=True))
    plane.keeper.forget("a")
    gate.set()
    await task
    assert now() == began


async def test_several_nodes_load_at_the_same_time():
    """The last one of ten must not be warm after an hour."""
    beats = [cold("a", ("x:1b",)), cold("b", ("y:1b",))]
    plane, began = Preloading(Demand(x_1b=10.0, y_1b=9.0), beats, a=[[30.0, *LOADED]], b=[[30.0, *LOADED]]), now()
    await plane.preloads.look()
    assert (sorted(model for _, model in plane.sent()), now() - began) == (["x:1b", "y:1b"], 30.0)


async def test_a_model_that_generates_nothing_is_loaded_as_what_it_is():
    """Embedding models are asked for as often as others."""
    plane = Preloading(Demand(e_1b=10.0), [cold(models=("e:1b",))], a=[REFUSED, LOADED])
    await plane.preloads.look()
    assert plane.sent() == [("/api/generate", "e:1b"), ("/api/embed", "e:1b")]
    assert json.loads(plane.upstream.calls[1].body) == {"model": "e:1b", "keep_alive": "1h", "input": []}
    assert plane.told() == [("preload", "a", "e:1b", None)]


# Failures


@pytest.mark.parametrize(
    ("script", "reason", "seconds"),
    [
        ([errors.ConnectFailed("no route")], "no route", 0.0),
        ([Head(500), b'{"error":"out of memory"}'], "out of memory", 0.0),
        ([Head(400), b'{"error":"bad name"}'], "bad name", 0.0),
        ([SILENCE], "the node sent no content in time", LOAD_WITHIN_S),
        ([JSON, 100.0, SILENCE], "the node sent no content in time", LOAD_WITHIN_S),
    ],
)
async def test_a_load_that_fails_says_why_and_leaves_that_pair_alone_for_a_while(script, reason, seconds):
    """A model that does not load would otherwise be tried every two minutes, and evict what is of use."""
    plane = Preloading(Demand(llama_8b=10.0), a=[script])
    await plane.preloads.look()
    assert plane.told() == [("preload_failed", "a", M, reason)]
    assert plane.events[-1].data["seconds"] == pytest.approx(seconds, abs=0.01)
    await asyncio.sleep(AVOID_S - 1)
    await plane.preloads.look()
    assert len(plane.upstream.calls) == 1
    await asyncio.sleep(2)
    await plane.preloads.look()
    assert len(plane.upstream.calls) == 2


async def test_what_failed_on_one_node_is_loaded_on_another():
    """The pair is left alone, not the model."""
    plane = Preloading(Demand(llama_8b=10.0), a=[[errors.ConnectFailed("no route")]], b=[LOADED])
    await plane.preloads.look()
    await plane.preloads.look()
    assert [(kind, node_id) for kind, node_id, _, _ in plane.told()] == [("preload_failed", "a"), ("preload", "b")]


async def test_a_failed_load_is_not_waited_for():
    """Nothing will be named."""
    plane, began = Preloading(Demand(llama_8b=10.0), [cold(slots=4)], a=[[errors.ConnectFailed("no")]]), now()
    await plane.preloads.look()
    assert (now(), plane.keeper.cell.slots.in_flight()) == (began, {})


async def test_a_load_that_the_routers_stop_cuts_is_told_as_that():
    """An operator who sees a load begin sees it end."""
    plane = Preloading(Demand(llama_8b=10.0), a=[[SILENCE]])
    task = asyncio.create_task(plane.preloads.look())
    await until(lambda: plane.upstream.open == 1)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await until(lambda: plane.upstream.open == 0)
    assert plane.told() == [("preload_failed", "a", M, "the router stopped")]
    assert plane.keeper.cell.slots.in_flight() == {}


# What is kept


def expiring(in_s):
    """A node that would unload the model in so many seconds."""
    beat = cold(loaded=(M,))
    loaded = [each.model_copy(update={"expires_at": moment().at + in_s}) for each in beat.engine.loaded]
    return beat.model_copy(update={"engine": beat.engine.model_copy(update={"loaded": loaded})})


@pytest.mark.parametrize(("in_s", "asked"), [(1.9 * INTERVAL_S, 1), (2.2 * INTERVAL_S, 0)])
async def test_what_is_wanted_and_about_to_be_unloaded_is_kept_without_a_word(in_s, asked):
    """Two looks before its end is early enough, and no event: nothing changes."""
    plane = Preloading(Demand(llama_8b=10.0), [expiring(in_s)], a=[LOADED])
    await plane.preloads.look()
    assert (plane.sent(), plane.told()) == ([("/api/generate", M)] * asked, [])


async def test_a_model_that_cannot_be_kept_is_nobodys_failure():
    """The engine unloads it then, and the next look loads it where it can."""
    plane = Preloading(Demand(llama_8b=10.0), [expiring(10.0)], a=[[errors.ConnectFailed("no")]])
    await plane.preloads.look()
    assert (len(plane.upstream.calls), plane.told()) == (1, [])
