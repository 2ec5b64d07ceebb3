"""A change of a fleet, foretold from its rows: held against the changed fleet itself, which here can be asked."""

import pytest

from herd.core.learning import Machine as OnPaper
from herd.planning.figures import errors, simulated
from herd.planning.fleets import fleet
from herd.planning.live import Herd, Options
from herd.planning.plan import Change, NewModel, NewNode, changed_arrivals, changed_site, plan
from herd.planning.recorded import site
from herd.planning.replay import replay
from herd.planning.simulate import Simulation
from tests.planning.lived import beat, lived, on_paper, traffic

FIVE = fleet(5)
COUNT = 400


@pytest.fixture(scope="module")
def four():
    """Rows of four machines, without the largest."""
    machines = [each for each in FIVE if not each.node_id.startswith("m3")]
    past = lived(machines, 0.4, COUNT)
    return past, site(past, map(beat, machines), on_paper)


def truth(machines, rate=0.4, count=COUNT):
    result = Simulation(machines, Herd).run(traffic(rate, count))
    return simulated(result.served, result.refused)


def without(prefix):
    return [each for each in FIVE if not each.node_id.startswith((prefix, "m3"))]


def test_the_back_test_of_a_fleet_that_is_known_well_is_off_by_little(four):
    """Who cannot tell what was must not tell what will be."""
    found = plan(*four, Change())
    assert found.all.errors["ttft_p50_s"] < 0.35
    assert 0.7 < found.bias["ttft_p95_s"] < 1.4
    assert found.all.before.requests == COUNT


def test_a_node_less_is_foretold_within_the_error_or_a_third(four):
    """The fleet that is asked was simulated with its true speeds."""
    gone = next(each.node_id for each in FIVE if each.node_id.startswith("rtx-4090"))
    found = plan(*four, Change(remove_nodes=(gone,))).all
    real = truth(without("rtx-4090"))
    assert found.after.ttft_p95_s == pytest.approx(real.ttft_p95_s, rel=max(0.35, found.errors["ttft_p95_s"]))
    assert found.after.answer_p50_s == pytest.approx(real.answer_p50_s, rel=0.35)
    assert found.after.answer_p50_s > found.before.answer_p50_s


def test_a_node_more_is_used_and_makes_answers_sooner(four):
    """What is not known of it comes from its data sheet and from how the others compare with theirs."""
    new = NewNode("rtx-4090", 23.0, OnPaper(1008e9, "nvidia"))
    found = plan(*four, Change(add_nodes=(new,), times=3.0))
    busier = plan(*four, Change(times=3.0))
    assert found.busy["rtx-4090"][0] is None  # the first of that name is there, so this is the next
    assert found.busy["rtx-4090"][1] > 0.05
    assert found.all.after.ttft_p95_s < busier.all.after.ttft_p95_s
    assert any("Not measured yet" in note for note in found.notes)


def test_more_traffic_takes_longer_and_a_full_queue_refuses(four):
    """Refusals are part of the answer."""
    found = plan(*four, Change(times=8.0), Options(queue_limit=2, queue_timeout_s=30.0))
    assert found.all.after.requests == pytest.approx(8 * COUNT, rel=0.02)
    assert found.all.after.refused > 0
    assert found.all.before.refused == 0


def test_a_model_more_takes_its_share_and_its_memory(four):
    """Nobody measured it, so nothing is said of its error."""
    found = plan(*four, Change(add_models=(NewModel("new:8b", 5_000_000_000, 0.25),)))
    told = found.models["new:8b"]
    assert told.after.requests == pytest.approx(COUNT / 4, rel=0.25)
    assert (told.before.requests, told.errors) == (0, {})
    assert told.after.loads > 0


def test_a_model_that_no_node_would_hold_is_refused_and_said(four):
    """An operator that takes its last holder away must read it here."""
    past, there = four
    only = [machine.node_id for machine in there.machines if "qwen3:32b" in machine.models]
    found = plan(past, there, Change(remove_nodes=tuple(only)))
    assert found.models["qwen3:32b"].after.refused == found.models["qwen3:32b"].after.requests > 0
    assert any("No node would hold qwen3:32b" in note for note in found.notes)


@pytest.mark.parametrize("change", [Change(remove_nodes=("nope",)), Change(slots={"nope": 8})])
def test_a_node_that_is_not_there_cannot_be_changed(four, change):
    """A typing error would plan something else."""
    with pytest.raises(ValueError, match="no node nope"):
        changed_site(four[1], change)


def test_slots_are_those_of_every_node_or_of_the_named_one(four):
    """As the engines' settings are."""
    there = four[1]
    first = there.machines[0].node_id
    assert {each.slots for each in changed_site(there, Change(slots={None: 8})).machines} == {8}
    assert [each.slots for each in changed_site(there, Change(slots={first: 8})).machines][:2] == [8, 4]


def test_traffic_is_multiplied_the_same_way_each_time_and_stays_in_order():
    """Two runs of one plan must not differ."""
    arrivals = traffic(1.0, 200)
    more = changed_arrivals(arrivals, Change(times=2.5))
    assert more == changed_arrivals(arrivals, Change(times=2.5))
    assert len(more) == pytest.approx(500, rel=0.1)
    assert list(more) == sorted(more, key=lambda each: each.at)
    assert len(changed_arrivals(arrivals, Change(times=0.5))) == pytest.approx(100, rel=0.3)


def test_a_replay_under_the_policy_that_served_moves_few_and_gains_nothing(four):
    """The same rules, the same machines: what moves is what was learned meanwhile."""
    found = replay(*four)
    assert sum(found.moved.values()) < COUNT / 2
    assert found.after.ttft_p95_s < 1.5 * found.before.ttft_p95_s


def test_a_replay_under_a_simple_policy_shows_what_it_would_have_cost(four):
    """With the loads that it would have caused."""
    found = replay(*four, policy="round robin")
    assert found.after.ttft_p95_s > 2 * found.before.ttft_p95_s
    assert found.after.loads > 5 * found.before.loads
    assert sum(found.moved.values()) > COUNT / 4
    assert sum(moved for _, _, moved in found.models.values()) == sum(found.moved.values())


def test_too_few_requests_have_no_error(four):
    """A back-test of one slice is none."""
    past, _ = four
    result = Simulation(without("nothing"), Herd).run(traffic(0.4, COUNT))
    assert errors(past.requests[:30], result) == {}
