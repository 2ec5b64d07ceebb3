"""Where requests go, as sentences an operator could check."""

import pytest

from herd.core.fleet import Traffic
from herd.core.routing import Reason, RejectionReason, decide, open_to
from tests.core.builders import GIB, fleet, node, request

M = "llama:8b"


def order(decision):
    return [candidate.node_id for candidate in decision.plan]


def reasons(decision):
    return {entry.node_id: entry.reason for entry in decision.rejected}


def test_a_node_with_the_model_loaded_beats_an_idle_cold_one():
    """A cold load costs tens of seconds, so warmth is worth more than idleness."""
    decision = decide(request(), fleet(node("cold"), node("warm", loaded={M: 8192})))
    assert order(decision) == ["warm", "cold"]
    assert decision.reason is Reason.MODEL_LOADED


def test_a_model_that_is_loaded_under_another_of_its_names_is_warm():
    """`m:latest` and `m:3b` are one model and one runner; a second load elsewhere would hold it twice."""
    holds = {M: 5.0, "llama:latest": 5.0}
    warm = node("warm", holds, loaded={"llama:latest": 8192}, same_as={M: "llama:latest"})
    decision = decide(request(), fleet(node("cold"), warm))
    assert order(decision) == ["warm", "cold"]
    assert decision.reason is Reason.MODEL_LOADED


def test_a_busy_warm_node_beats_an_idle_cold_one():
    """A full set of slots ends sooner than a load."""
    busy = {"warm": {M: Traffic(in_flight=4, in_flight_node=4, ttft_s=0.3)}}
    assert order(decide(request(), fleet(node("cold"), node("warm", loaded={M: 8192}), traffic=busy)))[0] == "warm"


def test_of_two_warm_nodes_the_less_busy_one_is_first():
    """Otherwise one machine works while its twin idles."""
    busy = {"a": {M: Traffic(in_flight=3, in_flight_node=3)}}
    decision = decide(request(), fleet(node("a", loaded={M: 8192}), node("b", loaded={M: 8192}), traffic=busy))
    assert order(decision) == ["b", "a"]
    assert decision.reason is Reason.LEAST_LOADED


def test_a_conversation_returns_to_the_node_that_holds_its_cache():
    """A cached prefix saves its whole prefill."""
    warm = node("a", loaded={M: 8192}), node("b", loaded={M: 8192})
    decision = decide(request(), fleet(*warm, prefix_node="b"))
    assert order(decision) == ["b", "a"]
    assert decision.reason is Reason.AFFINITY


def test_ties_go_to_the_smaller_node_id():
    """The same fleet gives the same answer, whatever order the nodes joined in."""
    assert order(decide(request(), fleet(node("b"), node("c"), node("a")))) == ["a", "b", "c"]


def test_a_large_model_prefers_the_large_machine_and_a_small_one_the_small():
    """A 3B model on the one machine that can hold the 70B is what makes the 70B wait."""
    sizes = {"big": 40.0, "small": 2.0}
    nodes = (
        node("studio", holds=sizes, memory_total=192 * GIB, memory_available=160 * GIB),
        node("mini", holds=sizes, memory_total=48 * GIB, memory_available=46 * GIB),
    )
    assert order(decide(request("big"), fleet(*nodes)))[0] == "studio"
    assert order(decide(request("small"), fleet(*nodes)))[0] == "mini"


def test_a_loaded_context_too_small_for_the_request_costs_points():
    """Such a node would have to reload the model, which is what a cold one has to do."""
    wide, narrow = node("wide", loaded={M: 32768}), node("narrow", loaded={M: 4096})
    assert order(decide(request(num_ctx=16384), fleet(narrow, wide)))[0] == "wide"
    assert order(decide(request(num_ctx=2048), fleet(narrow, wide)))[0] == "narrow"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"status": "offline"}, RejectionReason.OFFLINE),
        ({"engine_reachable": False}, RejectionReason.ENGINE_DOWN),
        ({"holds": {}}, RejectionReason.MODEL_ABSENT),
        ({"endpoints": frozenset({"/v1/chat/completions"})}, RejectionReason.ENDPOINT_UNSUPPORTED),
        ({"draining": True}, RejectionReason.DRAINING),
        ({"pressure": "critical"}, RejectionReason.CRITICAL_PRESSURE),
        ({"holds": {M: 90.0}}, RejectionReason.DOES_NOT_FIT),
    ],
)
def test_a_node_that_cannot_is_left_out_with_its_reason(changes, reason):
    """Every node left out is explained, or nobody can tell why a machine idles."""
    decision = decide(request(), fleet(node("able"), node("unfit", **changes)))
    assert order(decision) == ["able"]
    assert reasons(decision) == {"unfit": reason}
    assert decision.reason is Reason.ONLY_CANDIDATE


def test_a_node_that_failed_the_request_is_not_tried_again():
    """A retry on the machine that just failed is a wasted retry."""
    decision = decide(request(), fleet(node("a"), node("b")), excluded=frozenset({"a"}))
    assert order(decision) == ["b"]
    assert reasons(decision) == {"a": RejectionReason.EXCLUDED}


def test_an_open_breaker_keeps_requests_away_while_another_node_can():
    """A node that fails every request must not get every request."""
    open_at_a = {"a": {M: Traffic(breaker_open=True)}}
    assert order(decide(request(), fleet(node("a"), node("b"), traffic=open_at_a))) == ["b"]


def test_open_breakers_everywhere_do_not_refuse_a_request():
    """Passive signs may be stale; trying beats refusing."""
    everywhere = {name: {M: Traffic(breaker_open=True)} for name in "ab"}
    assert order(decide(request(), fleet(node("a"), node("b"), traffic=everywhere))) == ["a", "b"]


def test_a_model_of_unknown_size_is_not_refused():
    """Only the engine knows whether it fits, and it says so itself."""
    assert order(decide(request(), fleet(node("a", holds={M: 0.0}, memory_available=GIB)))) == ["a"]


def test_a_model_that_fits_once_others_are_unloaded_is_not_refused():
    """Engines evict idle models by themselves."""
    full = node("a", holds={M: 30.0, "other": 50.0}, loaded={"other": 4096}, memory_available=8 * GIB)
    assert order(decide(request(), fleet(full))) == ["a"]


def test_a_loaded_fallback_that_the_client_named_beats_a_cold_load():
    """That is what naming a fallback is for, and the reason says so."""
    warm_fallback = node("a", holds={M: 5.0, "tiny:1b": 1.0}, loaded={"tiny:1b": 4096})
    decision = decide(request(fallback_models=("tiny:1b",)), fleet(warm_fallback))
    assert [candidate.model for candidate in decision.plan] == ["tiny:1b", M]
    assert (decision.reason, decision.fallback_reason) == (Reason.FALLBACK, "loaded_alternative")


def test_a_fallback_answers_where_no_node_has_the_model():
    """The client said that it would rather have that answer than none."""
    decision = decide(request(fallback_models=("tiny:1b",)), fleet(node("a", holds={"tiny:1b": 1.0})))
    assert [candidate.model for candidate in decision.plan] == ["tiny:1b"]
    assert decision.fallback_reason == "model_unavailable"


def test_another_model_is_never_taken_unless_the_client_named_it():
    """A silent other model is a wrong answer."""
    decision = decide(request(), fleet(node("a", holds={M: 5.0, "tiny:1b": 1.0}, loaded={"tiny:1b": 4096})))
    assert [candidate.model for candidate in decision.plan] == [M]


def test_a_warm_model_is_not_left_for_a_warm_fallback():
    """The fallback is a second choice even when it is as ready."""
    both = node("a", holds={M: 5.0, "tiny:1b": 1.0}, loaded={M: 4096, "tiny:1b": 4096})
    assert decide(request(fallback_models=("tiny:1b",)), fleet(both)).plan[0].model == M


def test_an_empty_fleet_gives_an_empty_plan():
    """No node is a normal state on the first day."""
    decision = decide(request(), fleet())
    assert (decision.plan, decision.rejected, decision.reason) == ((), (), None)


def opened(*nodes, traffic=None):
    return [candidate.node_id for candidate in open_to(decide(request(), fleet(*nodes, traffic=traffic)).plan)]


def test_a_cold_node_is_not_asked_to_load_while_a_warm_one_answers_sooner():
    """A load for a request that a warm node would answer in a second costs everyone memory and time."""
    busy = {"warm": {M: Traffic(in_flight=4, in_flight_node=4, hold_s=2.0, ttft_s=0.2)}}
    assert opened(node("cold"), node("warm", loaded={M: 8192}), traffic=busy) == ["warm"]


def test_a_cold_node_loads_once_the_warm_one_cannot_keep_up():
    """Nothing waits long behind a busy node while another is free."""
    swamped = {"warm": {M: Traffic(in_flight=4, in_flight_node=4, waiting=40, hold_s=20.0)}}
    assert opened(node("cold"), node("warm", loaded={M: 8192}), traffic=swamped) == ["warm", "cold"]


def test_many_requests_for_a_cold_model_wait_for_the_one_load_that_is_under_way():
    """Each of them loading it somewhere else would evict what others use."""
    loading = {"a": {M: Traffic(in_flight=1, in_flight_node=1)}}
    assert opened(node("a"), node("b"), traffic=loading) == ["a"]


def test_with_no_warm_node_every_cold_one_is_open():
    """Someone has to load it."""
    assert opened(node("a"), node("b")) == ["a", "b"]


def test_after_the_warm_node_failed_the_cold_one_is_open():
    """A retry must have somewhere to go."""
    plan = decide(request(), fleet(node("cold"), node("warm", loaded={M: 8192}))).plan
    assert [candidate.node_id for candidate in open_to(plan, frozenset({"warm"}))] == ["cold"]
