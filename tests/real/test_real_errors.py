"""What is wrong is told in the caller's dialect: in the engine's own words where it found it, in herd's otherwise."""

import json

import httpx
import pytest

from tests.real.asks import NODE_OF, TALK, comparable, post

pytestmark = pytest.mark.real
WORDS_OF = {
    "/api/": lambda body: body["error"],
    "/v1/messages": lambda body: body.get("type") in {"error", None} and body["error"]["message"],
    "/v1/": lambda body: body["error"]["message"],
}
HERDS_OWN = [
    (b"", 400, "missing request body"),
    (b"{nope", 400, "not valid JSON"),
    (b'{"messages": []}', 400, "model is required"),
    (b'{"model": "none:1b"}', 404, "model 'none:1b' not found"),
    (b'{"model": "solo", "stream": "yes"}', 400, "stream must be a boolean"),
]
CPP_MESSAGES = {"messages": [{"role": "user", "content": "x" * 9000}]}
THE_ENGINES = [
    ("solo", "/api/chat", {"messages": "hi"}, 400, "cannot unmarshal string"),
    ("solo", "/api/chat", {"messages": TALK, "think": True}, 400, "does not support thinking"),
    ("solo", "/api/chat", {"messages": TALK, "keep_alive": "xx"}, 400, "invalid duration"),
    ("solo", "/api/embed", {"input": 5}, 400, "invalid input type"),
    ("solo", "/api/chat", {"messages": TALK * 200, "truncate": False}, 400, "exceeds the context length"),
    ("solo", "/v1/chat/completions", {}, 400, "'messages'"),
    ("solo", "/v1/embeddings", {}, 400, "invalid input"),
    ("solo", "/v1/messages", {"messages": TALK}, 400, "max_tokens is required"),
    ("solo", "/v1/messages", {"max_tokens": 3}, 400, "messages is required"),
    ("cpp", "/v1/chat/completions", {}, 400, "'messages' is required"),
    ("cpp", "/v1/chat/completions", {"messages": TALK, "max_tokens": "many"}, 400, "type must be number"),
    ("cpp", "/v1/chat/completions", CPP_MESSAGES, 400, "exceeds the available context size"),
    ("cpp", "/v1/chat/completions", {**CPP_MESSAGES, "stream": True}, 400, "exceeds the available context size"),
    ("cpp", "/v1/completions", {}, 400, "key 'prompt' not found"),
    ("cpp", "/v1/responses", {}, 400, "'input' is required"),
]
# A client's mistake that the engine answers with 500, as if it were its own.
MISTAKES_AS_500 = [
    ("solo", "/api/chat", {"messages": TALK, "options": {"num_predict": "x"}}, "must be of type integer"),
    ("solo", "/api/chat", {"messages": TALK, "format": "yaml"}, "invalid format"),
    ("cpp", "/v1/chat/completions", {"messages": [{"content": "x"}]}, "Missing 'role' in message"),
    ("cpp", "/v1/messages", {"max_tokens": 3}, "'messages' is required"),
    ("cpp", "/v1/embeddings", {"input": "x" * 3000}, "too large to process"),
]


def told(path, answer):
    """The message of an error, out of the shape that its path's dialect has."""
    return next(words for start, words in WORDS_OF.items() if path.startswith(start))(answer.json())


@pytest.mark.parametrize(("body", "status", "words"), HERDS_OWN, ids=range(len(HERDS_OWN)))
@pytest.mark.parametrize("path", ["/api/chat", "/api/generate", "/v1/chat/completions", "/v1/messages"])
def test_what_herd_finds_wrong_never_reaches_an_engine(fleet, path, body, status, words):
    """llama.cpp would answer bad JSON with a 500 and any model's name with its own model."""
    answer = httpx.post(fleet.url + path, content=body, timeout=20)
    assert (answer.status_code, words in told(path, answer)) == (status, True), answer.text
    row = fleet.router.row(answer.headers["x-request-id"])
    assert (row["status"], row["node_id"]) == ("rejected", None)


@pytest.mark.parametrize(("model", "path", "body", "status", "words"), THE_ENGINES)
def test_what_the_engine_finds_wrong_is_told_in_its_own_bytes(fleet, model, path, body, status, words):
    """Only the engine knows its limits, and clients match on its words."""
    server = fleet.ollama if NODE_OF[model] == "olla" else fleet.llamas[NODE_OF[model]]
    direct, routed = post(server.url, path, model, **body), post(fleet.url, path, model, **body)
    assert (direct.status_code, routed.status_code) == (status, status), direct.text
    assert comparable(routed.content) == comparable(direct.content)
    assert words in told(path, routed)
    row = fleet.router.row(routed.headers["x-request-id"])
    assert (row["status"], row["http_status"], row["error_type"]) == ("failed", status, "upstream_4xx")
    assert (row["node_id"], row["retry_count"]) == (NODE_OF[model], 0)


@pytest.mark.parametrize(("model", "path", "body", "words"), MISTAKES_AS_500)
def test_a_mistake_that_the_engine_calls_its_own_is_told_in_its_words(fleet, model, path, body, words):
    """The client must learn what to mend, in its dialect, whoever is to blame."""
    answer = post(fleet.url, path, model, **body)
    assert answer.status_code >= 400
    assert words in told(path, answer)
    assert fleet.router.row(answer.headers["x-request-id"])["status"] == "failed"


def test_embeddings_that_one_server_cannot_make_are_made_by_another(fleet):
    """llama.cpp's server makes them only if it was started for it, and says so with a 501."""
    direct = post(fleet.llamas["slowcpp"].url, "/v1/embeddings", "slow", input="a sheep")
    assert direct.status_code == 501
    refused = post(fleet.url, "/v1/embeddings", "slowcpp", input="a sheep")
    assert "does not support embeddings" in told("/v1/", refused)
    answer = post(fleet.url, "/v1/embeddings", "slowcpp", input="a sheep", fallback_models=["solo"])
    assert (answer.status_code, answer.headers["x-herd-node"]) == (200, "olla")
    assert json.loads(fleet.router.row(answer.headers["x-request-id"])["excluded_nodes"]) == ["slowcpp"]
