"""The mix never takes more memory than there is, whatever is asked for, and does not depend on any order."""

import random

from hypothesis import given
from hypothesis import strategies as st

from herd.insights.packing import COMPARABLE, READABLE, Wanted, pack

names = st.sampled_from("abcdef")
rooms = st.dictionaries(names, st.integers(0, 100), max_size=6)
speeds = st.dictionaries(names, st.floats(1, 100), max_size=6)
models = st.builds(
    Wanted, st.text("mnop", min_size=1, max_size=3), st.integers(1, 1000), st.integers(1, 80),
    st.frozensets(names, max_size=3), speeds,
)  # fmt: skip
wanted = st.lists(models, max_size=8, unique_by=lambda each: each.model)


@given(rooms, wanted)
def test_no_node_gets_more_than_it_has_room_for(rooms, wanted):
    """A model too many unloads another one at each request."""
    mix = pack(rooms, wanted)
    for node_id, room in rooms.items():
        taken = sum(each.needed for each in mix.placements if each.node_id == node_id)
        assert taken <= room
        assert mix.left[node_id] == room - taken


@given(rooms, wanted, st.randoms())
def test_the_order_of_nodes_and_models_changes_nothing(rooms, wanted, chance):
    """A page that tells something else after each reload is not believed."""
    mixed_rooms = dict(chance.sample(list(rooms.items()), len(rooms)))
    assert pack(rooms, wanted) == pack(mixed_rooms, chance.sample(wanted, len(wanted)))


@given(rooms, wanted)
def test_every_model_is_placed_or_named_as_left_out_and_never_twice_on_a_node(rooms, wanted):
    """What is asked for must not be forgotten in silence."""
    mix = pack(rooms, wanted)
    placed = [(each.model, each.node_id) for each in mix.placements]
    assert len(placed) == len(set(placed))
    assert {model for model, _ in placed} | {each.model for each in mix.unplaced} == {each.model for each in wanted}
    assert not {model for model, _ in placed} & {each.model for each in mix.unplaced}


@given(rooms, wanted)
def test_what_is_left_out_would_not_have_fitted_in_what_is_left(rooms, wanted):
    """Room that stays empty beside a model that is asked for is a mistake."""
    mix = pack(rooms, wanted)
    assert all(each.needed > room for each in mix.unplaced for room in mix.left.values())


@given(rooms, wanted)
def test_copies_go_only_where_they_are_fast_and_needed(rooms, wanted):
    """A copy on a slow machine would take requests away from a fast one."""
    asked = {each.model: each for each in wanted}
    share = sum(each.requests for each in wanted) / max(1, len(rooms))
    for copy in (each for each in pack(rooms, wanted).placements if each.copy > 1):
        assert asked[copy.model].fast_on(copy.node_id)
        assert asked[copy.model].requests / (copy.copy - 1) > share


def where(rooms, *wanted):
    return {(each.model, each.node_id) for each in pack(rooms, wanted).placements}


def test_the_most_requests_for_each_byte_come_first():
    """Memory is what is scarce."""
    assert where({"a": 10}, Wanted("large", 100, 10), Wanted("small", 90, 5)) == {("small", "a")}


def test_a_model_stays_where_it_is_on_disk():
    """Downloading forty gigabytes is a price."""
    first = pack({"a": 50, "b": 20}, [Wanted("m", 1, 10, frozenset({"a"}))]).placements[0]
    assert first.node_id == "a"


def test_a_node_that_is_too_slow_comes_last_even_if_it_has_the_model():
    """Nobody waits for three tokens a second while another node is free."""
    slow = Wanted("m", 1, 10, frozenset({"a"}), {"a": READABLE / 3, "b": READABLE * 3})
    assert where({"a": 50, "b": 50}, slow) == {("m", "b")}
    assert where({"a": 50}, slow) == {("m", "a")}, "though slowly is better than not at all"


@given(rooms, wanted)
def test_no_model_stays_where_it_is_slow_while_a_much_faster_node_has_room(rooms, wanted):
    """The mix is read as advice: a card that waits beside a processor that toils would be a bad one."""
    asked = {each.model: each for each in wanted}
    mix = pack(rooms, wanted)
    for placed in mix.placements:
        each = asked[placed.model]
        taken = {other.node_id for other in mix.placements if other.model == placed.model}
        faster = [node_id for node_id, room in mix.left.items() if room >= each.needed and node_id not in taken
                  and each.rank_on(node_id) == each.rank_on(placed.node_id)
                  and COMPARABLE * each.speed_on(node_id) > each.speed_on(placed.node_id)]  # fmt: skip
        assert not faster


def test_a_faster_node_with_room_is_preferred_though_a_slower_one_would_be_filled_better():
    """Ten tokens a second are readable; a hundred are free."""
    both = Wanted("m", 1, 10, frozenset("ab"), {"a": 12.0, "b": 100.0})
    alike = Wanted("m", 1, 10, frozenset("ab"), {"a": 85.0, "b": 100.0})
    assert pack({"a": 12, "b": 90}, [both]).placements[0].node_id == "b"
    assert pack({"a": 12, "b": 9}, [both]).placements[0].node_id == "a", "where there is no room it stays"
    assert pack({"a": 12, "b": 90}, [alike]).placements[0].node_id == "a", "speeds that near are the same"


def test_speed_never_costs_a_model_its_only_place():
    """The large one has one place; a small one is content with the second."""
    small = Wanted("s", 100, 15, speeds={"big": 100.0, "small": 20.0})
    large = Wanted("l", 10, 95)
    assert where({"big": 100, "small": 20}, small, large) == {("s", "small"), ("l", "big")}


def test_small_models_leave_the_large_node_to_large_ones():
    """The only place for the large one must not be filled by what fits anywhere."""
    assert where({"big": 100, "small": 20}, Wanted("s", 100, 15), Wanted("l", 10, 95)) == {("s", "small"), ("l", "big")}


def test_a_model_that_carries_most_of_the_traffic_is_on_several_nodes():
    """One node should not work while three rest."""
    busy, rare = Wanted("busy", 900, 10), Wanted("rare", 100, 10)
    found = where({"a": 30, "b": 30, "c": 30}, busy, rare)
    assert found >= {("busy", "a"), ("busy", "b"), ("busy", "c")}
    assert sum(model == "rare" for model, _ in found) == 1


def test_without_nodes_everything_is_left_out():
    """A router may be asked before its first node is there."""
    mix = pack({}, [Wanted("m", 3, 1)])
    assert (mix.placements, [each.model for each in mix.unplaced]) == ((), ["m"])
    assert pack({"a": random.Random(1).randrange(9)}, []).placements == ()
