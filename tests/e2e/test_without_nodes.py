"""No node, no model, no answer: the router says what to do, and takes up work by itself when it can."""

import httpx
import pytest

from herd.sim import SimConfig, SimModel
from tests.harness import until

HELLO = [{"role": "user", "content": "Hello"}]
SMALL = SimConfig("only", memory_gb=32, models=(SimModel("llama3.2:3b"),))


def chat(fleet, model="llama3.2:3b", path="/api/chat", **more):
    body = {"model": model, "messages": HELLO, "stream": False, **more}
    return httpx.post(fleet.url + path, json=body, timeout=20)


def test_without_any_node_the_answer_says_to_start_an_agent(lonely):
    """The first minute of every installation."""
    answer = chat(lonely)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
    assert "herd-node" in answer.json()["error"]
    assert "herd-node" in chat(lonely, path="/v1/chat/completions").json()["error"]["message"]
    row = lonely.router.row(answer.headers["x-request-id"])
    assert (row["status"], row["error_type"], row["node_id"]) == ("rejected", "no_node", None)


@pytest.mark.parametrize("path", ["/api/pull", "/api/show"])
def test_without_any_node_there_is_nobody_to_pull_a_model_or_show_it(lonely, path):
    """That a model was not found would be an odd answer to who wants to fetch it."""
    answer = httpx.post(lonely.url + path, json={"model": "llama3.2"})
    assert (answer.status_code, "herd-node" in answer.json()["error"]) == (503, True)


def test_where_no_engine_answers_the_answer_says_to_start_one(lonely):
    """An agent that never saw its engine knows no models; to call them unknown would send people off to pull them."""
    lonely.join(SMALL)
    state = lonely.nodes.nodes["only"]
    state.hardware.set(reachable=False)
    answer = until(lambda: (found := chat(lonely, "other:1b")).status_code == 503 and found, "the engine is away")
    assert "only: engine unreachable" in answer.json()["error"]
    assert "start Ollama" in answer.json()["error"]
    told = [lonely.router.metric(name, node="only") for name in ("herd_node_up", "herd_node_ready")]
    assert told == [1, 0], "an alert must be able to tell"


def test_without_any_node_lists_are_empty_and_not_errors(lonely):
    """Clients list models before they ask."""
    assert httpx.get(lonely.url + "/api/tags").json() == {"models": []}
    assert httpx.get(lonely.url + "/api/ps").json() == {"models": []}
    assert httpx.get(lonely.url + "/v1/models").json() == {"object": "list", "data": []}
    assert lonely.router.get("/dashboard/api/traces") == {"traces": [], "next_cursor": None, "searched_until": None}
    assert lonely.router.get("/fleet/status")["fleet"]["nodes_total"] == 0
    assert httpx.get(lonely.url + "/metrics").status_code == 200


def test_nodes_without_any_model_say_how_to_get_one(lonely):
    """A fresh Ollama has none."""
    lonely.join(SimConfig("empty", models=()))
    answer = chat(lonely)
    assert answer.status_code == 404
    assert "model 'llama3.2:3b' not found" in answer.json()["error"]
    assert "ollama pull llama3.2:3b" in answer.json()["error"]


def test_a_model_that_only_a_departed_node_had_is_unavailable_and_not_unknown(lonely):
    """404 would send a client off to pull what is on a disk already."""
    lonely.join(SMALL)
    assert chat(lonely).status_code == 200
    lonely.nodes.call(lonely.nodes.nodes["only"].stop())
    until(lambda: lonely.router.online() == 0, "the node has left")
    answer = chat(lonely)
    assert answer.status_code == 503
    assert "only: offline" in answer.json()["error"]


def test_a_node_whose_engine_died_is_reported_with_what_happened(lonely):
    """502 with the node's name tells where to look."""
    lonely.join(SMALL)
    lonely.nodes.call(lonely.nodes.nodes["only"].kill())
    answer = chat(lonely)
    assert answer.status_code == 502
    assert answer.headers["x-should-retry"] == "false"
    row = lonely.router.row(answer.headers["x-request-id"])
    assert (row["status"], row["error_type"], row["node_id"]) == ("failed", "connect", "only")
    assert row["error_message"]


def test_a_router_that_restarts_has_its_fleet_back_and_keeps_its_rows(lonely):
    """Heartbeats bring the fleet; the rows were on disk all the time."""
    lonely.join(SMALL)
    before = chat(lonely).headers["x-request-id"]
    lonely.router.row(before)
    assert lonely.router.stop() == 0
    lonely.router.start()
    until(lambda: lonely.router.online() == 1, "the fleet is back")
    assert chat(lonely).status_code == 200
    assert lonely.router.row(before)["status"] == "completed"


@pytest.mark.parametrize("drained", [True, False])
def test_a_drained_node_gets_no_request_until_its_drain_ends(lonely, drained):
    """That is how a machine is taken out for a repair."""
    lonely.join(SMALL)
    lonely.router.get("/fleet/status")
    httpx.post(f"{lonely.url}/fleet/nodes/only/drain").raise_for_status()
    if not drained:
        httpx.post(f"{lonely.url}/fleet/nodes/only/drain?draining=false").raise_for_status()
    answer = chat(lonely)
    assert answer.status_code == (503 if drained else 200)
    assert not drained or "only: draining" in answer.json()["error"]


def test_a_departed_node_can_be_forgotten_and_a_present_one_cannot(lonely):
    """Old machines must not stay on the list for ever, nor vanish by a slip."""
    lonely.join(SMALL)
    assert httpx.delete(f"{lonely.url}/fleet/nodes/only").status_code == 409
    lonely.nodes.call(lonely.nodes.nodes["only"].stop())
    until(lambda: lonely.router.online() == 0, "the node has left")
    assert httpx.delete(f"{lonely.url}/fleet/nodes/only").status_code == 200
    assert lonely.router.get("/fleet/status")["nodes"] == []
    assert httpx.delete(f"{lonely.url}/fleet/nodes/only").status_code == 404


def test_an_llamacpp_server_gets_the_requests_that_it_speaks_and_no_others(lonely):
    """It has no /api/* at all; sending those there would fail every one."""
    lonely.join(SimConfig("cpp", engine="llamacpp", models=(SimModel("tiny"),), preload=("tiny",)))
    assert chat(lonely, "tiny", "/v1/chat/completions").status_code == 200
    refused = chat(lonely, "tiny")
    assert refused.status_code == 501
    assert "does not support /api/chat" in refused.json()["error"]
