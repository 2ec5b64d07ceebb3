"""What holds of `decide` for every fleet, not only for the ones somebody thought of."""

from dataclasses import replace
from itertools import pairwise
from math import isfinite

import pytest
from hypothesis import given
from hypothesis import strategies as st

from herd.core.fleet import Fleet, Traffic
from herd.core.prediction import Pace
from herd.core.routing import TIE_S, RejectionReason, decide, ready, rejection
from herd.core.signals import SIGNALS, Case
from herd.core.work import Job, Work
from tests.core.builders import GIB, about, fleet, node, request

MODELS = ("m:a", "m:b", "m:c")
OF_THE_WHOLE_NODE = {
    RejectionReason.OFFLINE,
    RejectionReason.ENGINE_DOWN,
    RejectionReason.DRAINING,
    RejectionReason.CRITICAL_PRESSURE,
}
seconds = st.floats(0, 600)
traffic = st.builds(
    Traffic,
    slots=st.none() | st.integers(1, 16),
    pace=st.none() | st.builds(Pace, seconds, seconds, seconds, st.floats(0, 1), st.floats(0, 1), st.floats(0, 2),
                               st.floats(0, 2), st.booleans()),
    unloaded_at=st.none() | st.floats(0, 1000),
    breaker_open=st.booleans(),
)  # fmt: skip
jobs = st.builds(
    Job,
    ticket=st.integers(),
    model=st.sampled_from(MODELS),
    prefill_s=seconds,
    answer_s=seconds,
    load_s=st.just(0.0) | seconds,
    victims=st.lists(st.sampled_from(MODELS), max_size=2, unique=True).map(tuple),
    answered=st.booleans(),
    waits=st.booleans(),
)
works = st.builds(Work, st.floats(900, 1000), st.lists(jobs, max_size=8).map(tuple), st.floats(0, 2), st.floats(0, 2))


@st.composite
def nodes(draw, node_id):
    held = draw(st.dictionaries(st.sampled_from(MODELS), st.floats(0, 200), max_size=3))
    loaded = {name: draw(st.integers(1, 200_000)) for name in held if draw(st.booleans())}
    return node(
        node_id,
        holds=held,
        loaded=loaded,
        status=draw(st.sampled_from(["online", "degraded", "offline"])),
        engine_reachable=draw(st.booleans()),
        draining=draw(st.booleans()),
        throttled=draw(st.booleans()),
        pressure=draw(st.sampled_from(["normal", "warn", "critical"])),
        memory_total=draw(st.integers(0, 512)) * GIB,
        memory_available=draw(st.integers(0, 512)) * GIB,
        vram_total=draw(st.sampled_from([0, 24 * GIB])),
        vram_free=draw(st.integers(0, 24)) * GIB,
        uptime=draw(st.floats(0, 1)),
        losses=draw(st.integers(0, 50)),
    )


@st.composite
def fleets(draw) -> Fleet:
    names = draw(st.lists(st.sampled_from(list("abcdefg")), unique=True, max_size=6))
    seen = {name: draw(st.dictionaries(st.sampled_from(MODELS), traffic, max_size=3)) for name in names}
    return fleet(
        *(draw(nodes(name)) for name in names),
        traffic=seen,
        work={name: draw(works) for name in names if draw(st.booleans())},
        cached=draw(st.dictionaries(st.sampled_from(list("abc")), st.integers(0, 300_000))),
        answer_tokens=draw(st.dictionaries(st.sampled_from(MODELS), st.floats(1, 10_000))),
        demand=draw(st.dictionaries(st.sampled_from(MODELS), st.floats(0, 10))),
    )


requests = st.builds(
    request,
    model=st.sampled_from(MODELS),
    fallback_models=st.lists(st.sampled_from(MODELS), max_size=2).map(tuple),
    prompt_tokens=st.integers(0, 300_000),
    max_tokens=st.none() | st.integers(1, 100_000),
    num_ctx=st.none() | st.integers(1, 300_000),
)


@given(requests, fleets(), st.randoms())
def test_the_order_in_which_nodes_joined_changes_nothing(asked, known, random):
    """Two routers that heard the same heartbeats decide the same."""
    shuffled = list(known.nodes)
    random.shuffle(shuffled)
    assert decide(asked, replace(known, nodes=tuple(shuffled))) == decide(asked, known)


@given(requests, fleets())
def test_a_total_is_the_sum_of_its_seven_signals_and_only_affinity_saves(asked, known):
    """The row's score must add up for whoever reads it, and a time cannot be negative."""
    for candidate in decide(asked, known).plan:
        assert list(candidate.signals) == list(SIGNALS)
        assert candidate.total == pytest.approx(sum(candidate.signals.values()), abs=1e-4)
        for name, seconds in candidate.signals.items():
            assert isfinite(seconds)
            assert seconds >= 0 or name == "role_affinity"


@given(requests, fleets())
def test_an_unfit_node_is_never_in_a_plan(asked, known):
    """Whatever its points, a node that cannot answer must not be asked."""
    by_id = {found.node_id: found for found in known.nodes}
    for candidate in decide(asked, known).plan:
        found = by_id[candidate.node_id]
        assert found.status != "offline"
        assert found.engine_reachable
        assert not found.draining
        assert found.pressure != "critical"
        assert found.holds(candidate.model)


@given(requests, fleets())
def test_a_node_is_ready_exactly_where_it_is_not_left_out_for_what_ails_all_of_it(asked, known):
    """The alert about a fleet that takes nothing goes by `ready`, and must judge as the routing does."""
    for one in known.nodes:
        if one.holds(asked.model):
            reason = rejection(Case.of(asked, asked.model, one, known), heed_breakers=False)
            assert ready(one) == (reason not in OF_THE_WHOLE_NODE)


@given(requests, fleets())
def test_every_node_is_either_in_the_plan_or_rejected_for_each_model(asked, known):
    """An explanation that leaves a node out explains nothing."""
    decision = decide(asked, known)
    told = [(entry.node_id, entry.model) for entry in (*decision.plan, *decision.rejected)]
    assert sorted(told) == sorted((found.node_id, model) for found in known.nodes for model in asked.models)


@given(requests, fleets())
def test_a_plan_is_ranked_within_each_model(asked, known):
    """Retry takes the next entry, so the next must be the next best."""
    plan = decide(asked, known).plan
    for model in asked.models:
        totals = [candidate.total for candidate in plan if candidate.model == model]
        assert all(before <= after + TIE_S + 1e-9 for before, after in pairwise(totals))


@given(requests, fleets())
def test_what_is_stored_of_a_fleet_is_enough_to_decide_again(asked, known):
    """The replay works from the models that were asked about, and no more."""
    assert decide(asked, about(known, asked.models)) == decide(asked, known)


@given(requests, fleets())
def test_only_models_that_the_client_named_are_in_a_plan(asked, known):
    """Never a silent other model."""
    assert {candidate.model for candidate in decide(asked, known).plan} <= set(asked.models)
