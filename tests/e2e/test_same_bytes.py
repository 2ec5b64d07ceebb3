"""Bytes pass through: what a client receives by way of the router is what the node sent."""

import json

import httpx
import pytest

from tests.e2e.conftest import MACHINES

HELLO = [{"role": "user", "content": "Say hello to the herd, in two sentences \u2028 please."}]
TOOL = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
BODIES = [
    ("/api/chat", {"messages": HELLO}),
    ("/api/chat", {"messages": HELLO, "stream": False}),
    ("/api/chat", {"messages": HELLO, "tools": [TOOL]}),
    ("/api/chat", {"messages": HELLO, "format": "json", "stream": False}),
    ("/api/chat", {"messages": HELLO, "options": {"num_predict": 3}}),
    ("/api/generate", {"prompt": "Once upon a time"}),
    ("/api/generate", {"prompt": "Once upon a time", "stream": False}),
    ("/v1/chat/completions", {"messages": HELLO}),
    ("/v1/chat/completions", {"messages": HELLO, "stream": True}),
    ("/v1/chat/completions", {"messages": HELLO, "stream": True, "stream_options": {"include_usage": True}}),
    ("/v1/completions", {"prompt": "Once"}),
    ("/v1/completions", {"prompt": "Once", "stream": True}),
    ("/v1/responses", {"input": "Hello"}),
    ("/v1/responses", {"input": "Hello", "stream": True}),
    ("/v1/messages", {"messages": HELLO, "max_tokens": 50}),
    ("/v1/messages", {"messages": HELLO, "max_tokens": 50, "stream": True}),
]


def raw(url, path, body):
    answer = httpx.post(url + path, content=json.dumps({"model": "qwen3:8b", **body}), timeout=20)
    return answer.status_code, answer.headers["content-type"], answer.content


@pytest.mark.parametrize(("path", "body"), BODIES, ids=lambda value: value if isinstance(value, str) else None)
def test_an_answer_by_way_of_the_router_is_byte_for_byte_the_nodes(fleet, path, body):
    """Nothing dropped, nothing translated: that is the whole promise to a client."""
    node = fleet.nodes.nodes["gpu-box"]
    direct = raw(node.url, path, body)
    assert direct[0] == 200
    assert raw(fleet.url, path, body) == direct


def test_embeddings_by_way_of_the_router_are_byte_for_byte_the_nodes(fleet):
    """Vectors must not change in their last digit."""
    node = fleet.nodes.nodes["mini"]
    for path, body in (
        ("/api/embed", {"input": ["a", "b"]}),
        ("/api/embeddings", {"prompt": "a"}),
        ("/v1/embeddings", {"input": "a"}),
    ):
        asked = {"model": "nomic-embed-text", **body}
        assert raw(fleet.url, path, asked) == raw(node.url, path, asked)


def test_a_nodes_own_refusal_reaches_the_client_as_it_is(fleet):
    """Only the node knows why it refuses, so its words stay."""
    body = {"model": "nomic-embed-text", "messages": HELLO, "stream": False}
    direct = raw(fleet.nodes.nodes["mini"].url, "/api/chat", body)
    assert direct[0] == 400
    assert raw(fleet.url, "/api/chat", body) == direct


def test_the_headers_tell_where_the_answer_came_from(fleet):
    """A developer sees the decision without asking anyone."""
    sent = {"X-Request-Id": "my.request-1", "traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"}
    body = json.dumps({"model": "llama3.3:70b", "messages": HELLO})
    headers = httpx.post(fleet.url + "/api/chat", content=body, headers=sent, timeout=20).headers
    assert headers["x-request-id"] == "my.request-1"
    assert (headers["x-herd-node"], headers["x-herd-model"]) == ("studio", "llama3.3:70b")
    assert (headers["x-herd-fallback"], headers["x-herd-retries"]) == ("false", "0")
    assert -60 < float(headers["x-herd-score"]) <= 0
    assert headers["traceresponse"].split("-")[1] == "a" * 32
    assert headers["x-accel-buffering"] == "no"


def test_an_unfit_request_id_is_replaced_rather_than_stored(fleet):
    """It ends up in SQL, logs and headers."""
    body = json.dumps({"model": "llama3.2:3b", "messages": HELLO})
    answer = httpx.post(fleet.url + "/api/chat", content=body, headers={"X-Request-Id": "a b'; --"}, timeout=20)
    assert len(answer.headers["x-request-id"]) == 32


def test_the_fleets_tags_are_the_union_in_ollamas_own_fields_with_the_nodes(fleet):
    """One list for the client, and where each model is for the operator."""
    models = {model["name"]: model for model in httpx.get(fleet.url + "/api/tags").json()["models"]}
    assert set(models) == {"llama3.3:70b", "llama3.2:3b", "qwen3:8b", "gemma3:4b", "nomic-embed-text:latest"}
    assert sorted(models["llama3.2:3b"]["nodes"]) == sorted(machine.node_id for machine in MACHINES)
    direct = httpx.get(fleet.nodes.nodes["studio"].url + "/api/tags").json()["models"]
    for listed in direct:
        known = {key: value for key, value in models[listed["name"]].items() if key != "nodes"}
        assert known.keys() == listed.keys()


def test_the_fleets_ps_is_the_union_of_what_is_loaded(fleet):
    """What is warm decides where a request goes, so it must be visible."""
    names = {model["name"] for model in httpx.get(fleet.url + "/api/ps").json()["models"]}
    assert {"llama3.3:70b", "qwen3:8b"} <= names


def test_openais_model_list_and_single_model_cover_the_fleet(fleet):
    """Clients list models before they ask."""
    listed = httpx.get(fleet.url + "/v1/models").json()
    assert "qwen3:8b" in [model["id"] for model in listed["data"]]
    assert httpx.get(fleet.url + "/v1/models/qwen3:8b").json()["object"] == "model"
    missing = httpx.get(fleet.url + "/v1/models/nope")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_missing")


def test_the_root_answers_as_ollama_does(fleet):
    """Clients look for these words to know that a server is there."""
    assert httpx.get(fleet.url + "/").text == "Ollama is running"
    assert httpx.head(fleet.url + "/").status_code == 200
    assert httpx.get(fleet.url + "/api/version").json()["version"]
