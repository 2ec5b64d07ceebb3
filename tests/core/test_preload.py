"""Which models are loaded before anybody asks, and which are kept; mostly: which are not."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herd.core.fleet import Loaded
from herd.core.preload import HEADROOM, LEAST_DEMAND, MOST_LOADED, to_keep, to_load
from herd.wire import LLAMACPP_ENDPOINTS
from tests.core.builders import GIB, busy, fleet, node

M, N = "llama:8b", "qwen:8b"
WANTED = {M: 10.0}
NOW = 1000.0


def told(loads):
    return [(load.node.node_id, load.model) for load in loads]


def holding(node_id, expires_at, **changes):
    """A node that has the model loaded until then."""
    return replace(node(node_id, **changes), loaded={M: Loaded(M, 5 * GIB, 0, 8192, expires_at)})


def test_a_model_that_is_asked_for_is_loaded_where_a_request_for_it_would_go():
    """The best node for the load is the best one for the requests that it is made for."""
    weak = node("a", throttled=True)
    (load,) = to_load(fleet(weak, node("b")), WANTED)
    assert (load.node.node_id, load.model, load.demand) == ("b", M, 10.0)


def test_a_model_that_hardly_anybody_asks_for_is_not_loaded():
    """One look at a model must not keep gigabytes."""
    assert to_load(fleet(node()), {M: LEAST_DEMAND - 0.01}) == ()
    assert to_load(fleet(node()), {}) == ()


def test_a_model_that_no_node_has_is_not_loaded():
    """Demand counts also what was refused."""
    assert to_load(fleet(node()), {"absent:1b": 100.0}) == ()


def test_a_model_that_is_warm_somewhere_is_not_loaded_a_second_time():
    """One warm node answers at once; the second comes when there is work for it."""
    assert to_load(fleet(node("a", loaded={M: 8192}), node("b")), WANTED) == ()
    loading = {"a": busy(1, load_s=3.0, answered=False)}
    assert to_load(fleet(node("a"), node("b"), work=loading), WANTED) == ()


def test_warm_on_a_node_that_takes_no_requests_is_not_warm():
    """Before a restart its work moves elsewhere."""
    leaving = node("a", loaded={M: 8192}, draining=True)
    assert told(to_load(fleet(leaving, node("b")), WANTED)) == [("b", M)]


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "degraded"},
        {"status": "offline"},
        {"engine_reachable": False},
        {"draining": True},
        {"pressure": "warn"},
        {"endpoints": frozenset(LLAMACPP_ENDPOINTS)},
        {"holds": {M: 0.0}},
        {"memory_available": 14 * GIB},
        {"memory_total": 48 * GIB, "memory_available": 40 * GIB, "vram_total": 12 * GIB, "vram_free": 9 * GIB},
        {"holds": {M: 5.0, "x": 1.0, "y": 1.0, "z": 1.0}, "loaded": {"x": 1, "y": 1, "z": 1}},
    ],
    ids=["degraded", "offline", "no engine", "draining", "pressure", "llama.cpp", "unknown size", "little memory",
         "little VRAM", "as many as stay loaded"],
)  # fmt: skip
def test_a_model_is_not_loaded_where_it_would_be_in_the_way(changes):
    """What nobody has asked for yet must cost nobody anything."""
    assert told(to_load(fleet(node("a", **changes)), WANTED)) == []
    assert told(to_load(fleet(node("a", **changes), node("b")), WANTED)) == [("b", M)]


def test_a_model_that_lately_failed_to_load_on_a_node_is_left_alone_there():
    """It would fail every two minutes."""
    assert to_load(fleet(node("a")), WANTED, frozenset({("a", M)})) == ()
    assert told(to_load(fleet(node("a"), node("b")), WANTED, frozenset({("a", M)}))) == [("b", M)]


def test_a_node_loads_one_model_at_a_time_the_most_wanted_first():
    """What the first takes is known only once it is loaded."""
    both = node("a", holds={M: 5.0, N: 5.0}, throttled=True)
    assert told(to_load(fleet(both), {M: 5.0, N: 50.0})) == [("a", N)]
    better = node("b", holds={M: 5.0})
    assert told(to_load(fleet(both, better), {M: 5.0, N: 50.0})) == [("a", N), ("b", M)]
    loading = {"a": busy(1, N, load_s=3.0, answered=False)}
    assert to_load(fleet(both, work=loading), {M: 5.0}) == ()


def test_a_wanted_model_is_kept_before_its_engine_unloads_it():
    """To unload and load it again would leave a gap in which requests wait for the disk."""
    assert told(to_keep(fleet(holding("a", NOW + 100)), WANTED, 120)) == [("a", M)]
    assert to_keep(fleet(holding("a", NOW + 130)), WANTED, 120) == ()
    assert to_keep(fleet(holding("a", None)), WANTED, 120) == (), "it stays anyway"


def test_of_two_nodes_with_a_model_one_keeps_it_and_the_other_may_let_go():
    """The second was loaded for a rush that is over."""
    assert told(to_keep(fleet(holding("a", NOW + 10), holding("b", NOW + 100)), WANTED, 120)) == [("b", M)]
    assert to_keep(fleet(holding("a", NOW + 10), holding("b", NOW + 1000)), WANTED, 120) == ()


def test_a_model_is_not_kept_that_nobody_wants_or_where_memory_is_short():
    """Whoever needs the memory more has it."""
    assert to_keep(fleet(holding("a", NOW + 10)), {M: LEAST_DEMAND / 2, N: 50.0}, 120) == ()
    assert to_keep(fleet(holding("a", NOW + 10, pressure="warn")), WANTED, 120) == ()
    assert to_keep(fleet(holding("a", NOW + 10, draining=True)), WANTED, 120) == ()


machines = st.builds(
    lambda total, free, vram, pressure, warm: {
        "memory_total": total * GIB, "memory_available": int(total * free) * GIB, "vram_total": vram * GIB,
        "vram_free": int(vram * free) * GIB, "pressure": pressure, "loaded": {M: 8192} if warm else {},
    },
    st.integers(0, 256), st.floats(0, 1), st.sampled_from([0, 24]), st.sampled_from(["normal", "warn"]), st.booleans(),
)  # fmt: skip


@given(st.lists(machines, max_size=5), st.floats(0.5, 120), st.floats(0, 100))
def test_no_load_takes_the_last_of_a_memory_or_unloads_another(described, size, weight):
    """A machine that swaps is slower than one that loads when asked."""
    nodes = [node(f"n{number}", holds={M: 5.0, N: size}, **machine) for number, machine in enumerate(described)]
    loads = to_load(fleet(*nodes), {M: weight, N: weight})
    assert len({load.node.node_id for load in loads}) == len(loads)
    for load in loads:
        left = load.node.free - load.node.size_of(load.model)
        assert left >= HEADROOM * load.node.capacity
        assert len(load.node.loaded) < MOST_LOADED
        assert load.model not in load.node.loaded
