"""Where requests go, as sentences an operator could check."""

from dataclasses import replace

import pytest

from herd.core.fleet import Traffic
from herd.core.prediction import Pace
from herd.core.routing import Policy, Reason, RejectionReason, decide, open_to
from herd.core.work import Work
from tests.core.builders import GIB, busy, fleet, node, request

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
    known = fleet(node("cold"), node("warm", loaded={M: 8192}), work={"warm": busy(4)})
    assert order(decide(request(), known))[0] == "warm"


def test_of_two_warm_nodes_the_less_busy_one_is_first():
    """Otherwise one machine works while its twin idles."""
    warm = node("a", loaded={M: 8192}), node("b", loaded={M: 8192})
    decision = decide(request(), fleet(*warm, work={"a": busy(3)}))
    assert order(decision) == ["b", "a"]
    assert decision.reason is Reason.LEAST_LOADED


def test_a_conversation_returns_to_the_node_that_holds_its_cache():
    """A cached prefix saves its whole prefill."""
    warm = node("a", loaded={M: 8192}), node("b", loaded={M: 8192})
    decision = decide(request(prompt_tokens=4000), fleet(*warm, cached={"b": 3900}))
    assert order(decision) == ["b", "a"]
    assert decision.reason is Reason.AFFINITY


def test_ties_go_to_the_smaller_node_id():
    """The same fleet gives the same answer, whatever order the nodes joined in."""
    assert order(decide(request(), fleet(node("b"), node("c"), node("a")))) == ["a", "b", "c"]


def test_a_small_model_leaves_the_machine_that_works_on_a_large_one_alone():
    """A 3B model beside a long prompt of the 70B is what makes the 70B's client wait."""
    sizes = {"big": 40.0, "small": 2.0}
    fast, slow = {"small": Traffic(pace=Pace(prompt_s=0.001))}, {"small": Traffic(pace=Pace(prompt_s=0.0013))}
    known = fleet(
        node("studio", holds=sizes, loaded={"big": 8192, "small": 8192}, memory_total=192 * GIB),
        node("mini", holds={"small": 2.0}, loaded={"small": 8192}),
        traffic={"studio": fast, "mini": slow},
    )
    asked = request("small", prompt_tokens=1000, stream=True)
    assert order(decide(asked, known))[0] == "studio"
    prompt = busy(1, "big", prefill_s=30.0, answered=False)
    assert order(decide(asked, replace(known, work={"studio": prompt})))[0] == "mini"


def test_a_load_that_puts_out_a_model_in_demand_goes_elsewhere():
    """Whoever asks for that model next would pay for it."""
    sizes = {M: 5.0, "qwen:14b": 9.0, "rare:14b": 9.0}
    tight = {"memory_available": 1 * GIB}
    known = fleet(
        node("a", holds=sizes, loaded={"qwen:14b": 8192}, **tight),
        node("b", holds=sizes, loaded={"rare:14b": 8192}, **tight),
        demand={"qwen:14b": 0.2, "rare:14b": 0.0001},
    )
    decision = decide(request(), known)
    assert order(decision) == ["b", "a"]
    assert [candidate.evicts for candidate in decision.plan] == [("rare:14b",), ("qwen:14b",)]


def test_an_answer_that_does_not_stream_counts_to_its_end():
    """Its client sees nothing before that, so a machine that is slow to answer is slow."""
    quick_start = Traffic(pace=Pace(prompt_s=0.0001, token_s=0.1))
    quick_end = Traffic(pace=Pace(prompt_s=0.001, token_s=0.01))
    warm = node("a", loaded={M: 8192}), node("b", loaded={M: 8192})
    known = fleet(*warm, traffic={"a": {M: quick_start}, "b": {M: quick_end}})
    assert order(decide(request(prompt_tokens=1000, stream=True), known)) == ["a", "b"]
    assert order(decide(request(prompt_tokens=1000), known)) == ["b", "a"]


def test_a_node_that_was_lost_an_hour_ago_and_again_costs_its_risk():
    """An answer that is lost on the way has to be made again."""
    warm = node("a", loaded={M: 8192}, losses=20, uptime=0.4), node("b", loaded={M: 8192})
    decision = decide(request(), fleet(*warm))
    assert order(decision) == ["b", "a"]
    assert decision.plan[1].signals["availability_trend"] > 0 == decision.plan[0].signals["availability_trend"]


def test_routers_that_know_the_same_spread_ties_by_their_salt():
    """A second router that sends its requests to the same node in the same moment would double the queue there."""
    known = fleet(*(node(name, loaded={M: 8192}) for name in "abcd"))
    taken = {order(decide(request(), known, Policy(salt=salt)))[0] for salt in range(1, 30)}
    assert taken == set("abcd")
    assert order(decide(request(), replace(known, work={"a": busy(4)}), Policy(salt=3)))[-1] == "a"


def test_a_loaded_context_too_small_for_the_request_costs_a_reload():
    """That is what a cold node has to do, too."""
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


def opened(*nodes, **known):
    return open_to(decide(request(), fleet(*nodes, **known)).plan).node_id


def test_a_cold_node_is_not_asked_to_load_while_a_warm_one_answers_sooner():
    """A load for a request that a warm node would answer in a second costs everyone memory and time."""
    assert opened(node("cold"), node("warm", loaded={M: 8192}), work={"warm": busy(4)}) == "warm"


def test_a_cold_node_loads_once_the_warm_one_cannot_keep_up():
    """Nothing waits long behind a busy node while another is free."""
    swamped = Work(1000.0, (*busy(4, answer_s=20.0).jobs, *busy(8, answer_s=20.0, answered=False, waits=True).jobs))
    assert opened(node("cold"), node("warm", loaded={M: 8192}), work={"warm": swamped}) == "cold"


def test_many_requests_for_a_cold_model_wait_for_the_one_load_that_is_under_way():
    """Each of them loading it somewhere else would evict what others use."""
    loading = busy(1, load_s=3.0, answered=False)
    assert opened(node("a"), node("b"), work={"b": loading}) == "b"


def test_with_no_warm_node_the_one_that_loads_soonest_is_open():
    """Someone has to load it, and one is enough."""
    slow, fast = {M: Traffic(pace=Pace(load_s=9.0))}, {M: Traffic(pace=Pace(load_s=4.0))}
    assert opened(node("a"), node("b"), traffic={"a": slow, "b": fast}) == "b"


def test_after_the_warm_node_failed_the_cold_one_is_open():
    """A retry must have somewhere to go."""
    plan = decide(request(), fleet(node("cold"), node("warm", loaded={M: 8192}))).plan
    assert open_to(plan, frozenset({"warm"})).node_id == "cold"
