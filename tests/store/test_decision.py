"""What is stored of a decision is enough to decide again, and nothing of it is bent on the way."""

import json
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from herd.core.fleet import Fleet, Loaded, Model, Node, Traffic
from herd.core.prediction import Pace
from herd.core.request import Dialect, Request
from herd.core.routing import DEFAULT_POLICY, Policy, decide
from herd.core.work import Job, Work
from herd.store.decision import StoredDecision, agrees, decode, encode, replay
from herd.wire import OLLAMA_ENDPOINTS
from tests.core.builders import about
from tests.store import builders

# Any text, lone surrogates included. A high one before a low one cannot be: JSON reads the two as one character, and so
# has whatever parser a name came through.
TEXT = st.text(st.characters(exclude_categories=()), max_size=8).filter(
    lambda text: text == json.loads(json.dumps(text))
)
SECONDS = st.floats(0, 1e9)
SHARE = st.floats(0, 2)
MAYBE_SECONDS = st.none() | SECONDS
BYTES = st.integers(0, 2**60)
COUNT = st.integers(0, 40)
MAYBE_TOKENS = st.none() | st.integers(1, 2**31)
ENDPOINTS = st.sampled_from(OLLAMA_ENDPOINTS)


@st.composite
def nodes(draw, names):
    """A node in any state, which may hold any of those models and others."""
    models = draw(st.lists(st.sampled_from(names) | TEXT, unique=True, max_size=4))
    loaded = draw(st.lists(st.sampled_from(names) | TEXT, unique=True, max_size=3))
    return draw(
        st.builds(
            Node,
            node_id=TEXT,
            url=TEXT,
            status=st.sampled_from(["online", "degraded", "offline"]),
            engine=st.sampled_from(["ollama", "llamacpp"]),
            engine_reachable=st.booleans(),
            endpoints=st.frozensets(ENDPOINTS),
            slots=COUNT,
            draining=st.booleans(),
            throttled=st.booleans(),
            pressure=st.sampled_from(["normal", "warn", "critical"]),
            memory_total=BYTES,
            memory_available=BYTES,
            vram_total=BYTES,
            vram_free=BYTES,
            disk_free=BYTES,
            models=st.fixed_dictionaries(
                {name: st.builds(Model, st.just(name), BYTES, MAYBE_TOKENS) for name in models}
            ),
            loaded=st.fixed_dictionaries(
                {name: st.builds(Loaded, st.just(name), BYTES, BYTES, MAYBE_TOKENS, MAYBE_SECONDS) for name in loaded}
            ),
            same_as=st.dictionaries(st.sampled_from(names), st.sampled_from(loaded)) if loaded else st.just({}),
            uptime=st.floats(0, 1),
            losses=COUNT,
        )
    )


@st.composite
def situations(draw):
    """A finished request: what was asked, what the fleet was, the policy, and what came of it."""
    names = draw(st.lists(TEXT, min_size=1, max_size=3, unique=True))
    request = draw(
        st.builds(
            Request,
            endpoint=ENDPOINTS,
            dialect=st.sampled_from(Dialect),
            model=st.just(names[0]),
            stream=st.booleans(),
            fallback_models=st.lists(st.sampled_from(names), max_size=3).map(tuple),
            tags=st.lists(TEXT, max_size=2).map(tuple),
            prompt_tokens=COUNT,
            max_tokens=MAYBE_TOKENS,
            num_ctx=MAYBE_TOKENS,
            client=TEXT,
        )
    )
    there = tuple(draw(st.lists(nodes(names), max_size=4)))
    pace = st.builds(Pace, SECONDS, SECONDS, SECONDS, SHARE, SHARE, SHARE, SHARE, st.booleans())
    seen = st.builds(Traffic, st.none() | COUNT, st.none() | pace, MAYBE_SECONDS, st.booleans())
    job = st.builds(Job, TEXT, st.sampled_from(names), SECONDS, SECONDS, st.just(0.0) | SECONDS,
                    st.lists(st.sampled_from(names), max_size=2).map(tuple), st.booleans(), st.booleans(),
                    st.booleans())  # fmt: skip
    work = st.builds(Work, SECONDS, st.lists(job, max_size=5).map(tuple), SHARE, SHARE)
    traffic = {node.node_id: draw(st.dictionaries(st.sampled_from(names), seen)) for node in there}
    ids = st.sampled_from([node.node_id for node in there] or [""])
    fleet = Fleet(
        draw(SECONDS), there, traffic, draw(st.dictionaries(ids, work)), draw(st.dictionaries(ids, COUNT)),
        draw(st.dictionaries(st.sampled_from(names), SHARE)), draw(st.dictionaries(st.sampled_from(names), SHARE)),
    )  # fmt: skip
    policy = draw(st.builds(Policy, st.booleans(), COUNT))
    failed = frozenset(draw(st.sets(st.sampled_from([node.node_id for node in there] or [""]))))
    decision = decide(request, fleet, policy, failed)
    return replace(builders.refused(), request=request, fleet=fleet, policy=policy, decision=decision)


@settings(max_examples=40, deadline=None)
@given(situations())
def test_what_was_stored_comes_back_as_it_was(event):
    """Whoever explains a request years later must see its numbers, not their neighbours."""
    text = encode(event)
    kept = about(event.fleet, event.request.models)
    assert text.isascii()
    assert decode(text) == StoredDecision(event.request, kept, event.policy, event.decision)


@settings(max_examples=40, deadline=None)
@given(situations())
def test_a_replay_gives_the_same_plan(event):
    """This is the proof that herd offers for any request ever served, retried ones included."""
    stored = decode(encode(event))
    assert replay(stored) == event.decision
    assert agrees(stored)


@settings(max_examples=40, deadline=None)
@given(situations())
def test_other_models_listings_do_not_matter_to_a_decision(event):
    """They are left out of what is stored; a decision that read them could not be replayed."""
    request = event.request
    assert decide(request, event.fleet) == decide(request, about(event.fleet, request.models))


def test_a_decision_that_was_tampered_with_does_not_agree():
    """A replay that could not disagree would prove nothing."""
    stored = decode(encode(builders.finished()))
    first = replace(stored.decision.plan[0], total=stored.decision.plan[0].total + 0.01)
    assert not agrees(replace(stored, decision=replace(stored.decision, plan=(first, *stored.decision.plan[1:]))))


def test_values_that_are_left_out_are_those_that_fields_have_when_nothing_is_said():
    """The text's own table of omissions must say of today's fields what today's dataclasses say."""
    plain = Node("a", "u", slots=3, memory_total=1, memory_available=2)
    request = Request("/api/chat", Dialect.OLLAMA, "m:latest")
    fleet = Fleet(1.0, (plain,))
    event = replace(builders.refused(), request=request, fleet=fleet, decision=decide(request, fleet))
    written = json.loads(encode(event))["fleet"]["nodes"][0]
    assert set(written) == {"node_id", "url", "endpoints", "slots", "memory_total", "memory_available"}
    assert decode(encode(event)).fleet.nodes == (plain,)


def test_every_field_of_a_node_reaches_the_text():
    """A field that decides and is not stored would make replays lie."""
    loud = Node("a", "u", "offline", "llamacpp", False, frozenset({"/api/chat"}), 9, True, True, "warn", 1, 2, 3, 4, 5,
                {"m": Model("m", 1, 2)}, {"m": Loaded("m", 1, 2, 3, 4.0)}, {"m": "n"}, 0.5, 6)  # fmt: skip
    event = builders.finished(model="m", seen=Fleet(1.0, (loud,)), asked=builders.request("m"))
    assert set(json.loads(encode(event))["fleet"]["nodes"][0]) == {field.name for field in fields(Node)}


def test_nodes_of_one_kind_share_their_list_of_endpoints():
    """Ten nodes with sixteen paths each would be most of a row."""
    seen = builders.fleet(*(builders.node(f"n{number}") for number in range(10)))
    text = encode(builders.finished(seen=seen))
    assert text.count("/v1/messages") == 1


def test_a_request_that_ended_before_anything_was_decided_stores_no_decision():
    """There is nothing to explain about a body that was no JSON."""
    assert encode(builders.refused()) is None


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"version": 3}', '{"version": 1}', '{"version": 1, "request": {}, "fleet": 3}', "null", "17"],
)
def test_a_text_that_is_not_a_stored_decision_is_refused_with_a_reason(text):
    """A row may be from a newer herd, or edited by hand: that is to be said, not guessed at."""
    with pytest.raises(ValueError, match=r"stored decision|Expecting value"):
        decode(text)


def test_a_request_without_a_policy_is_replayed_with_the_default_one():
    """The policy is stored whole, so that a later default does not change old decisions."""
    stored = decode(encode(replace(builders.finished(), policy=None)))
    assert stored.policy == DEFAULT_POLICY
    assert json.loads(encode(builders.finished()))["policy"] == {"loaded_fallback": True}


POINTS = json.dumps({
    "version": 1,
    "request": {"endpoint": "/api/chat", "dialect": "ollama", "model": "m:1b", "prompt_tokens": 20},
    "fleet": {
        "at": 1000.0, "prefix_node": "ada", "endpoint_sets": [["/api/chat"]],
        "nodes": [{"node_id": "ada", "url": "http://ada", "endpoints": 0, "slots": 4, "memory_total": 1,
                   "memory_available": 1, "models": {"m:1b": {"name": "m:1b", "size_bytes": 5}}}],
        "traffic": {"ada": {"m:1b": {"in_flight": 1, "ttft_s": 0.25}}},
    },
    "policy": {"loaded_fallback": True},
    "decision": {
        "plan": [{"node_id": "ada", "model": "m:1b", "signals": {"thermal": 50.0, "wait_time": -5.0}, "total": 45.0,
                  "loaded": True, "predicted_ttft_s": 0.25, "warm": True}],
        "rejected": [], "reason": "only_candidate", "fallback_reason": None,
    },
})  # fmt: skip


def test_a_decision_in_points_is_shown_for_what_it_is_and_not_decided_again():
    """Rows are kept for a month: those from before signals were seconds must still be explained."""
    stored = decode(POINTS)
    assert (stored.version, stored.unit) == (1, "points")
    assert stored.decision.plan[0].signals == {"thermal": 50.0, "wait_time": -5.0}
    assert stored.decision.plan[0].predicted is None
    assert agrees(stored)
    assert decode(encode(builders.finished())).unit == "seconds"


def test_a_row_that_knew_how_busy_a_node_usually_was_is_read_without_it():
    """Nothing was decided by it, and rows are kept for a month."""
    event = builders.finished()
    told = json.loads(encode(event))
    told["fleet"]["nodes"][0]["busy_usually"] = 0.25
    assert decode(json.dumps(told)) == decode(encode(event))
