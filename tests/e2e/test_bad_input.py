"""What is wrong is said in the caller's dialect, recorded where a request was understood, and hurts no one else."""

import json
import socket
from functools import partial

import httpx
import pytest

from tests.e2e.conftest import SLOW
from tests.harness import until

HELLO = [{"role": "user", "content": "Hello"}]
PATHS = {
    "/api/chat": lambda body: body["error"],
    "/api/generate": lambda body: body["error"],
    "/v1/chat/completions": lambda body: (body["error"]["message"], body["error"]["type"], body["error"]["code"])[0],
    "/v1/embeddings": lambda body: body["error"]["message"],
    "/v1/messages": lambda body: body["type"] == "error" and body["error"]["message"],
}
WRONG = [
    (b"", 400, "missing request body"),
    (b"{nope", 400, "not valid JSON"),
    (b"[]", 400, "must be a JSON object"),
    (b"null", 400, "must be a JSON object, not null"),
    (b"{}", 400, "model is required"),
    (b'{"model":["m"]}', 400, "model must be a string"),
    (b'{"model":"m","stream":1}', 400, "stream must be a boolean"),
    (b'{"model":"m","metadata":{"tags":7}}', 400, "metadata.tags must be a list of strings"),
    (b'{"model":"m","fallback_models":["q"' + b',"q"' * 16 + b"]}", 400, "fallback_models names more than 16 models"),
    (b'{"model":"m\\nX-Evil: 1"}', 400, "model must be printable"),
    (b'{"model":"m","options":{"num_ctx":1e400}}', 400, "a number in the request body is too large"),
    (b'{"model":"m","messages":[1' + b",1" * 800_000 + b"]}", 400, "more than 750000 values"),
    (b'{"model":"m","fallback_models":{}}', 400, "fallback_models must be a list of strings"),
    (b'{"model":"not-there:1b"}', 404, "not found"),
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(("body", "status", "words"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_body_gets_a_clear_error_in_its_dialect_and_a_row(fleet, path, body, status, words):
    """Never a bare 500, and never a request that nobody can find again."""
    answer = httpx.post(fleet.url + path, content=body, timeout=10)
    assert answer.status_code == status
    assert words in PATHS[path](answer.json())
    row = fleet.router.row(answer.headers["x-request-id"])
    assert (row["status"], row["http_status"], row["endpoint"]) == ("rejected", status, path)
    assert row["error_type"] == ("model_missing" if status == 404 else "bad_request")


def test_a_body_over_the_limit_is_refused_with_413_and_a_row(fleet):
    """101 MiB of base64 must not become the router's memory."""
    answer = httpx.post(fleet.url + "/api/chat", content=b"x" * (101 * 2**20), timeout=30)
    assert answer.status_code == 413
    assert "limit of 100 MiB" in answer.json()["error"]
    assert fleet.router.row(answer.headers["x-request-id"])["http_status"] == 413


def test_a_body_over_the_limit_that_does_not_say_its_length_is_refused_too(fleet):
    """Chunked uploads have no Content-Length."""

    def endless():
        for _ in range(101):
            yield b"x" * 2**20

    answer = httpx.post(fleet.url + "/v1/chat/completions", content=endless(), timeout=30)
    assert answer.status_code == 413


def test_one_request_with_many_fallbacks_does_not_hold_up_the_others(fleet):
    """Sixteen are tried as asked; what it takes to rank them grows with their number, not with its square."""
    names = [f"q{number}" for number in range(15)]
    body = {"model": "nope", "messages": HELLO, "stream": False, "fallback_models": [*names, "llama3.2:3b"]}
    answer = httpx.post(fleet.url + "/api/chat", json=body, timeout=10)
    assert (answer.status_code, answer.headers["x-herd-model"]) == (200, "llama3.2:3b")


def test_an_id_that_comes_again_is_made_another_in_all_records(fleet):
    """Clients that try again under one id would have two requests which no record can tell apart."""
    body = {"model": "llama3.2:3b", "messages": HELLO, "stream": False}
    ask = partial(httpx.post, fleet.url + "/api/chat", json=body, headers={"X-Request-Id": "mine"}, timeout=10)
    first, second = (ask().headers["x-request-id"] for _ in range(2))
    assert (first, second[:5], len(second)) == ("mine", "mine.", 21)
    assert fleet.router.row(second)["status"] == "completed"
    until(lambda: {first, second} <= {line["request_id"] for line in fleet.router.lines()}, "both have a line")


def test_a_client_that_pipelines_and_leaves_is_a_client_that_left(lonely):
    """Of its second request the server is never told that nobody waits for it any more."""
    lonely.join(SLOW)
    body = json.dumps({"model": "slow:1b", "messages": HELLO, "stream": False, "options": {"num_predict": 20}}).encode()
    with socket.create_connection(("127.0.0.1", lonely.router.port)) as client:
        head = f"POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        client.sendall((head.encode() + body) * 20)
        assert client.recv(10)
    until(lonely.router.rows, "the first has a row")
    until(lambda: lonely.router.get("/fleet/status")["fleet"]["requests_active"] == 0, "nothing is in flight")
    chat = httpx.post(lonely.url + "/api/chat", content=body, timeout=10)
    assert lonely.router.row(chat.headers["x-request-id"])["status"] == "completed"
    assert {row["error_type"] for row in lonely.router.rows()} == {None}
    assert "defect" not in lonely.router.log.read_text()


def test_a_client_that_offers_h2c_is_served_over_http_1_1_and_has_one_row(fleet):
    """Every HttpClient of Java does so by default; its body was lost, or read as another request."""
    body = json.dumps({"model": "llama3.2:3b", "messages": HELLO, "stream": False}).encode()
    inner = b"GET /api/version HTTP/1.1\r\nHost: localhost\r\n\r\n"
    offer = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk"
    for content, status in ((body, 200), (inner, 400)):
        head = f"POST /api/chat HTTP/1.1\r\nHost: localhost\r\n{offer}\r\nContent-Length: {len(content)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", fleet.router.port), timeout=10) as client:
            client.sendall(head.encode())
            client.sendall(content + b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            answers = b"".join(iter(partial(client.recv, 65536), b""))
        assert answers.count(b"HTTP/1.1 ") == 2
        assert answers.startswith(b"HTTP/1.1 %d " % status)
        assert answers.endswith(b"Ollama is running")


def test_images_of_several_megabytes_pass(fleet):
    """The limit is for accidents, not for pictures."""
    message = {"role": "user", "content": "?", "images": ["A" * 8_000_000]}
    body = {"model": "gemma3:4b", "stream": False, "messages": [message]}
    assert httpx.post(fleet.url + "/api/chat", json=body, timeout=30).status_code == 200


def test_unknown_paths_and_methods_are_answered_in_the_dialect_of_their_path(fleet):
    """A typo in a URL must not look like a crash."""
    assert "GET /api/nope" in httpx.get(fleet.url + "/api/nope").json()["error"]
    missing = httpx.get(fleet.url + "/v1/nope")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
    wrong = httpx.get(fleet.url + "/api/chat")
    assert wrong.status_code == 405
    assert wrong.json()["error"]


def test_a_malformed_heartbeat_is_refused_by_the_name_of_its_field(fleet):
    """Whoever writes an agent needs the field, not a stack trace."""
    answer = httpx.post(fleet.url + "/heartbeat", content=json.dumps({"node_id": "x y"}))
    assert answer.status_code == 422
    fields = {item["field"] for item in answer.json()["fields"]}
    assert {"node_id", "cpu", "memory", "engine"} <= fields
    assert httpx.post(fleet.url + "/heartbeat", content=b"{").status_code == 422
    assert len(fleet.router.get("/fleet/status")["nodes"]) == 3


def test_wrong_parameters_of_the_read_api_are_named(fleet):
    """A silent default would show the wrong data."""
    for query in ("limit=0", "limit=1001", "limit=x", "status=fine", "cursor=%00"):
        answer = httpx.get(f"{fleet.url}/dashboard/api/traces?{query}")
        assert answer.status_code == 422, query
        assert query.split("=")[0] in answer.text


def test_a_foreign_host_name_is_not_answered(fleet):
    """A page whose DNS name points at this machine must not reach the fleet."""
    answer = httpx.get(fleet.url + "/api/tags", headers={"Host": "evil.example"})
    assert answer.status_code == 403
    assert "allowed_hosts" in answer.json()["error"]
    assert httpx.get(fleet.url + "/api/tags", headers={"Host": "localhost"}).status_code == 200


def test_a_request_of_http_1_1_without_a_host_is_refused(fleet):
    """RFC 9112 asks for it; and what names no host cannot be on the list of those that are answered."""
    for head, status in ((b"GET /api/version HTTP/1.1\r\n\r\n", b" 400 "), (b"GET / HTTP/1.0\r\n\r\n", b" 200 ")):
        with socket.create_connection(("127.0.0.1", fleet.router.port), timeout=10) as client:
            client.sendall(head)
            assert status in client.recv(4096).split(b"\r\n")[0]


def test_a_foreign_origin_may_not_change_anything_and_a_local_page_may(fleet):
    """A web page elsewhere once deleted a model by a text/plain POST."""
    foreign, local = {"Origin": "https://evil.example"}, {"Origin": "http://localhost:3000"}
    body = json.dumps({"model": "llama3.2:3b", "messages": HELLO, "stream": False})
    for path in ("/api/chat", "/heartbeat", "/fleet/nodes/mini/drain"):
        assert httpx.post(fleet.url + path, content=body, headers=foreign).status_code == 403
    assert httpx.request("DELETE", fleet.url + "/api/delete", content=body, headers=foreign).status_code == 403
    assert httpx.post(fleet.url + "/api/chat", content=body, headers=local, timeout=10).status_code == 200
    assert httpx.get(fleet.url + "/api/tags", headers=foreign).status_code == 200


def test_a_page_on_this_machine_may_read_answers_and_a_foreign_one_may_not(fleet):
    """Browser applications beside the router work as they do with Ollama; a page elsewhere reads nothing."""
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type, x-herd-tags"}
    local, foreign = ({"Origin": origin} for origin in ("http://localhost:3000", "https://evil.example"))
    allowed = httpx.options(fleet.url + "/api/chat", headers={**asks, **local})
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (204, local["Origin"])
    assert "x-herd-tags" in allowed.headers["access-control-allow-headers"]
    read = httpx.get(fleet.url + "/api/tags", headers=local).headers
    assert (read["access-control-allow-origin"], read["vary"]) == (local["Origin"], "origin")
    for refused in (httpx.options(fleet.url + "/api/chat", headers={**asks, **foreign}),
                    httpx.get(fleet.url + "/api/tags", headers=foreign)):  # fmt: skip
        assert "access-control-allow-origin" not in refused.headers


def test_nobody_else_notices_what_was_wrong(fleet):
    """After all of the above the fleet answers as before and nothing is in flight."""
    body = {"model": "llama3.2:3b", "messages": HELLO, "stream": False}
    assert httpx.post(fleet.url + "/api/chat", json=body, timeout=10).status_code == 200
    until(lambda: fleet.router.get("/fleet/status")["fleet"]["requests_active"] == 0, "nothing is in flight")
    assert fleet.router.metric("herd_sink_failures_total") == 0
