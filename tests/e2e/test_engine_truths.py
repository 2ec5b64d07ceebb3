"""What real engines do and is easily mistaken; each was seen with a real one, see docs/real-engines.md."""

import json

import httpx
import pytest

from herd.sim import SimConfig, SimModel
from herd.wire import LLAMACPP_ENDPOINTS
from tests.e2e.conftest import started

TALK = [{"role": "user", "content": "Hello"}]
SMALL = SimModel("small:1b", size_gb=1.0)
OLLAMA = SimConfig("olla", models=(SMALL,), preload=("small:1b",))
LLAMACPP = SimConfig("cpp", engine="llamacpp", models=(SMALL,), preload=("small:1b",))
# The client's mistake, and the engine's 500 for it.
MISTAKES = [
    (OLLAMA, "/api/chat", {"messages": TALK, "options": {"num_predict": "x"}}, "must be of type integer"),
    (OLLAMA, "/api/chat", {"messages": TALK, "format": "yaml"}, "invalid format"),
    (LLAMACPP, "/v1/chat/completions", {"messages": [{"content": "x"}]}, "Missing 'role' in message"),
    (LLAMACPP, "/v1/messages", {"max_tokens": 3}, "'messages' is required"),
]


def post(url, path, **body):
    return httpx.post(url + path, json={"model": "small:1b", **body}, timeout=20)


def breaker(fleet, node_id):
    return next(node["breaker"] for node in fleet.router.get("/fleet/status")["nodes"] if node["node_id"] == node_id)


@pytest.mark.parametrize(("machine", "path", "body", "words"), MISTAKES, ids=range(len(MISTAKES)))
def test_a_clients_mistake_that_the_engine_calls_its_own_is_no_fault_of_the_node(lonely, machine, path, body, words):
    """One confused client must not close a node to all others, nor be sent from node to node."""
    lonely.join(machine)
    direct = post(lonely.nodes.nodes[machine.node_id].url, path, **body)
    answers = [post(lonely.url, path, **body) for _ in range(5)]
    assert {(answer.status_code, answer.content) for answer in answers} == {(direct.status_code, direct.content)}
    assert words in direct.text
    row = lonely.router.row(answers[0].headers["x-request-id"])
    assert (row["status"], row["error_type"], breaker(lonely, machine.node_id)) == ("failed", "upstream_4xx", "closed")


def test_a_server_that_was_not_started_for_embeddings_is_not_broken_for_that(lonely):
    """llama.cpp answers 501 to them; five of those must not keep chats away from it."""
    lonely.join(LLAMACPP)
    refused = [post(lonely.url, "/v1/embeddings", input="x") for _ in range(5)][-1]
    assert (refused.status_code, "--embeddings" in refused.text) == (501, True)
    assert breaker(lonely, "cpp") == "closed"


def test_a_stream_of_llamacpp_keeps_its_timings(lonely):
    """Asked for usage, it moves its timings to a chunk of their own: a client that did not ask would lose them."""
    frozen = SimConfig(**{**{name: getattr(LLAMACPP, name) for name in LLAMACPP.__slots__}, "frozen_time": True})
    lonely.join(frozen)
    ask = {"messages": TALK, "stream": True}
    direct = post(lonely.nodes.nodes["cpp"].url, "/v1/chat/completions", **ask).content
    answer = post(lonely.url, "/v1/chat/completions", **ask)
    assert b'"timings":' in direct
    assert answer.content == direct
    row = lonely.router.row(answer.headers["x-request-id"])
    assert (row["tokens_source"], row["completion_tokens"] > 0, row["prompt_tokens"] > 0) == ("reported", True, True)


def test_a_request_that_only_loads_a_model_has_no_first_token(lonely):
    """Warm-ups would draw a fine picture of the time to the first token."""
    lonely.join(OLLAMA)
    answer = post(lonely.url, "/api/generate")
    assert answer.json()["done_reason"] == "load"
    row = lonely.router.row(answer.headers["x-request-id"])
    assert (row["status"], row["time_to_first_token_ms"]) == ("completed", None)


@pytest.mark.parametrize("machines", [(OLLAMA, LLAMACPP), (LLAMACPP, OLLAMA)], ids=["ollama first", "llamacpp first"])
def test_the_fleets_list_has_ollamas_fields_whoever_joined_first(lonely, machines):
    """Digest and details come from Ollama alone, and clients show them."""
    for machine in machines:
        lonely.join(machine)
    listed = httpx.get(lonely.url + "/api/tags").json()["models"]
    running = httpx.get(lonely.url + "/api/ps").json()["models"]
    told = [(len(model["digest"]), sorted(model["nodes"])) for model in (*listed, *running)]
    assert told == [(64, ["cpp", "olla"])] * 2


def test_each_list_has_what_can_be_answered_in_its_dialect(lonely):
    """Open WebUI offers what `/api/tags` lists, and every chat with a model that only llama.cpp has would fail."""
    lonely.join(OLLAMA)
    entry = {"id": "only-cpp:1b", "object": "model", "created": 1, "owned_by": "llamacpp", "meta": {"n_params": 8}}
    model = {"name": "only-cpp:1b", "size_bytes": 9, "entry": entry}
    engine = {"kind": "llamacpp", "url": "http://127.0.0.1:9", "reachable": True, "models": [model], "loaded": [model]}
    engine["endpoints"] = list(LLAMACPP_ENDPOINTS)
    memory = {"total_bytes": 9, "used_bytes": 1, "available_bytes": 8}
    beat = {"node_id": "cpp", "sent_at": 1.0, "cpu": {"cores": 1}, "memory": memory, "engine": engine}
    lonely.router.beat(json.dumps(beat)).raise_for_status()
    for path in ("/api/tags", "/api/ps"):
        assert [model["name"] for model in lonely.router.get(path)["models"]] == ["small:1b"]
    listed = {model["id"]: model for model in lonely.router.get("/v1/models/")["data"]}
    assert set(listed) == {"small:1b", "only-cpp:1b"}
    assert listed["only-cpp:1b"]["meta"] == {"n_params": 8}
    assert lonely.router.get("/v1/models/only-cpp:1b")["meta"] == {"n_params": 8}


def test_a_model_is_derived_where_the_model_is_that_it_is_derived_from(lonely):
    """Elsewhere Ollama would go and pull it from the internet."""
    lonely.join(OLLAMA, SimConfig("larger", memory_gb=512, models=()))
    answer = httpx.post(lonely.url + "/api/create", json={"model": "mine", "from": "small:1b", "stream": False})
    assert (answer.status_code, answer.headers["x-herd-node"]) == (200, "olla"), answer.text


def test_a_name_in_other_letters_is_the_same_model_as_it_is_for_ollama(lonely):
    """`Llama3.2` works with Ollama itself, so it must not be unknown to herd."""
    lonely.join(OLLAMA)
    answer = post(lonely.url, "/api/chat", model="SMALL:1b", messages=TALK, stream=False)
    assert (answer.status_code, answer.json().get("model")) == (200, "SMALL:1b")


def test_a_model_that_is_loaded_under_another_of_its_names_costs_no_second_load(tmp_path):
    """`m:latest` and `m:3b` are one model; on a node where neither is loaded it would take its memory twice."""
    machines = [
        SimConfig(name, models=(SMALL,), preload=("small:1b",) if name == "warm" else ()) for name in ("a", "warm")
    ]
    fleet = started(tmp_path / "names", *machines)
    for node_id in ("a", "warm"):
        body = {"source": "small:1b", "destination": "small"}
        httpx.post(f"{fleet.url}/api/copy?node_id={node_id}", json=body).raise_for_status()
    answer = httpx.post(fleet.url + "/api/chat", json={"model": "small", "messages": TALK, "stream": False}, timeout=20)
    fleet.nodes.stop()
    fleet.router.stop()
    (row,) = fleet.router.rows()
    assert (answer.json()["model"], row["node_id"], row["model"]) == ("small", "warm", "small:latest")
    assert json.loads(row["scores_breakdown"])["thermal"] == 0
    assert sum(node.state()["loads"] for node in fleet.nodes.nodes.values()) == 0
