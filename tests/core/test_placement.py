"""Which node takes a model in, and why one does not."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herd.core.fleet import Loaded
from herd.core.placement import DISK_FLOOR, best_room, no_room, obstacle, place
from herd.wire import LLAMACPP_ENDPOINTS
from tests.core.builders import GIB, fleet, node

PULL, DELETE = "/api/pull", "/api/delete"


def roomy(node_id="a", disk=100, **changes):
    """A machine with so many GiB free on its disk."""
    return node(node_id, **{"disk_free": disk * GIB, **changes})


def test_a_pull_goes_where_the_largest_model_would_fit():
    """Memory and disk both count; the smaller of the two is what a node has room for."""
    small = roomy("a", memory_available=8 * GIB)
    full = roomy("b", disk=9, memory_total=512 * GIB, memory_available=400 * GIB)
    large = roomy("c", disk=60, memory_total=192 * GIB, memory_available=150 * GIB)
    assert place(fleet(small, full, large), PULL, "new:8b").node_id == "c"
    assert place(fleet(small, full), PULL, "new:8b").node_id == "a"


def test_memory_that_other_models_hold_counts_as_room():
    """The engine unloads them: a node that works is not full."""
    idle = roomy("a", memory_available=20 * GIB)
    busy = roomy("b", memory_available=10 * GIB, loaded={"llama:8b": 8192}, holds={"llama:8b": 30.0})
    assert best_room(fleet(idle, busy)).node_id == "b"


def test_what_pulls_under_way_will_write_is_no_longer_free():
    """Two models that fit one by one would fill the disk together."""
    nodes = fleet(roomy("a", disk=40), roomy("b", disk=30))
    assert best_room(nodes).node_id == "a"
    assert best_room(nodes, {"a": 20 * GIB}).node_id == "b"
    assert best_room(nodes, {"a": 40 * GIB, "b": 30 * GIB}) is None


def test_equal_room_goes_to_the_smaller_node_id():
    """The same fleet gives the same answer, whatever order the nodes joined in."""
    assert best_room(fleet(roomy("b"), roomy("a"), roomy("c"))).node_id == "a"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"status": "degraded"}, "it is degraded"),
        ({"status": "offline"}, "it is offline"),
        ({"engine_reachable": False}, "its engine does not pull models"),
        ({"endpoints": frozenset(LLAMACPP_ENDPOINTS)}, "its engine does not pull models"),
        ({"draining": True}, "it is draining"),
        ({"pressure": "critical"}, "critical memory pressure"),
        ({"disk_free": DISK_FLOOR}, "its disk has less than 5.0 GiB free"),
        ({"disk_free": 0}, "its disk has less than 5.0 GiB free"),
    ],
)
def test_a_node_that_should_take_nothing_says_why(changes, words):
    """The client is told in these words why its model does not come."""
    unfit = replace(roomy(), **changes)
    assert obstacle(unfit) == words
    assert best_room(fleet(unfit)) is None


def test_a_node_without_fault_has_no_obstacle():
    """Otherwise nothing would ever be pulled."""
    assert obstacle(roomy()) is None
    assert obstacle(roomy(pressure="warn")) is None


def test_a_model_larger_than_the_disks_room_is_refused_with_the_figures():
    """A disk that is filled to its end takes the whole machine down."""
    said = no_room(roomy(disk=20), 16 * GIB)
    assert said == "its 16.0 GiB do not fit the disk of a, which has 20.0 GiB free, of which 5.0 GiB are spoken for"
    assert no_room(roomy(disk=20), 15 * GIB) is None
    assert "10.0 GiB are spoken for" in no_room(roomy(disk=20), 15 * GIB, expected=5 * GIB)


def test_what_is_there_of_a_model_needs_no_room_again():
    """A pull that was broken off goes on where it was."""
    assert no_room(roomy(disk=20), 30 * GIB, completed=16 * GIB) is None


def test_a_model_larger_than_memory_is_refused_although_the_disk_would_take_it():
    """It would come for an hour and then never load."""
    host = roomy(disk=500, memory_available=20 * GIB, vram_total=24 * GIB, vram_free=4 * GIB)
    loaded = replace(host, loaded={"x": Loaded("x", 20 * GIB)})
    assert no_room(host, 23 * GIB) == "its 23.0 GiB do not fit the memory of a, where models can have 24.0 GiB"
    assert no_room(loaded, 40 * GIB) is None
    assert no_room(replace(host, memory_total=0), 400 * GIB) is None, "nothing is known of its memory"


def test_an_operators_pull_goes_somewhere_even_where_no_node_has_room_for_sure():
    """Its engine says what is wrong; an agent that does not see the disk must not make `ollama pull` impossible."""
    unknown = fleet(node("a"), node("b", memory_total=128 * GIB))
    assert place(unknown, PULL, "new:8b").node_id == "b"
    assert place(fleet(node("a", draining=True)), PULL, "new:8b") is None


def test_a_deletion_goes_to_a_node_that_holds_the_model_a_loaded_one_first():
    """Elsewhere it would be an error."""
    held = fleet(node("a"), node("b", loaded={"llama:8b": 8192}), roomy("c", holds={}))
    assert place(held, DELETE, "llama:8b").node_id == "b"
    assert place(fleet(node("a", status="offline"), node("b")), DELETE, "llama:8b").node_id == "b"
    assert place(held, DELETE, "other:8b") is None


def test_a_create_goes_where_its_source_is_and_else_where_its_blobs_went():
    """Ollama would fetch a source that it does not have from the internet; blobs are sent before their create."""
    nodes = fleet(node("a"), node("b", holds={}, memory_total=512 * GIB))
    assert place(nodes, "/api/create", "mine", "llama:8b").node_id == "a"
    assert place(nodes, "/api/create", "mine").node_id == place(nodes, "/api/blobs", None).node_id == "b"


@given(
    st.lists(
        st.builds(
            lambda disk, total, share, pressure, draining: {
                "disk_free": disk * GIB, "memory_total": total * GIB, "memory_available": int(total * share) * GIB,
                "pressure": pressure, "draining": draining,
            },
            st.integers(0, 200), st.integers(0, 256), st.floats(0, 1), st.sampled_from(["normal", "critical"]),
            st.booleans(),
        ),
        max_size=5,
    ),
    st.integers(1, 300),
)  # fmt: skip
def test_where_the_best_node_has_no_room_for_a_model_no_other_has(machines, size):
    """A refusal must be true of the whole fleet, not of the one node that was looked at."""
    nodes = [node(f"n{number}", holds={}, **machine) for number, machine in enumerate(machines)]
    best = best_room(fleet(*nodes))
    fits = [each.node_id for each in nodes if obstacle(each) is None and no_room(each, size * GIB) is None]
    if best is None:
        assert not any(obstacle(each) is None for each in nodes)
    else:
        assert (best.node_id in fits) == bool(fits)
