"""What the doors refuse is on record: a row for an inference request, an event now and then for the rest."""

import itertools
import socket

import httpx
import pytest

from herd.core.errors import Forbidden
from herd.core.events import AccessRefused, Finished, FleetChanged, Status, TraceIds
from herd.security.refusals import REPEAT_S, Refusal, Refusals
from tests.harness import until

CLOSED = Forbidden("not you")


@pytest.fixture
def heard():
    """The events."""
    return []


@pytest.fixture
def clock():
    """Seconds that the test sets."""
    return [0.0]


@pytest.fixture
def refusals(heard, clock):
    """Refusals that go there."""
    numbers = map(str, itertools.count(1))
    return Refusals(
        heard.append, lambda _: TraceIds("t" * 32, "s" * 16), lambda asked: asked or next(numbers), lambda: clock[0]
    )


def test_an_inference_request_at_a_closed_door_is_a_rejected_request(refusals, heard):
    """It is a request like any other; its client asks the operator what became of it."""
    named = {"x-request-id": "mine"}
    assert refusals(Refusal("host", CLOSED, "10.0.0.9", "POST", "/v1/messages", named)) == "mine"
    counted, event = heard
    assert counted == AccessRefused("host", "not_allowed")
    assert isinstance(event, Finished)
    assert (event.status, event.http_status, event.error_type) == (Status.REJECTED, 403, "unauthorized")
    assert (event.endpoint, event.original_format, event.client_ip) == ("/v1/messages", "anthropic", "10.0.0.9")


def test_whoever_knocks_again_and_again_is_told_once_in_a_while_with_the_number(refusals, heard, clock):
    """A flood at a door must not become a flood in the log."""
    knock = Refusal("origin", CLOSED, "10.0.0.9", "POST", "/fleet/nodes/a/drain")
    for _ in range(500):
        assert refusals(knock) is None
    refusals(Refusal("host", CLOSED, "10.0.0.9", "GET", "/api/tags"))
    refusals(Refusal("origin", CLOSED, "10.0.0.10", "GET", "/" + "x" * 1000))
    clock[0] = REPEAT_S
    refusals(knock)
    assert [event for event in heard if isinstance(event, AccessRefused)] == [
        *(AccessRefused(door, "not_allowed") for door in [*["origin"] * 500, "host", "origin", "origin"])
    ]
    told = [event for event in heard if isinstance(event, FleetChanged)]
    assert [(event.data["door"], event.data["client"], event.data["times"]) for event in told] == [
        ("origin", "10.0.0.9", 1), ("host", "10.0.0.9", 1), ("origin", "10.0.0.10", 1), ("origin", "10.0.0.9", 500),
    ]  # fmt: skip
    assert max(len(str(event.data["path"])) for event in told) <= 256


def test_what_a_running_router_refuses_is_in_its_log_and_its_database(router):
    """With Ollama's default names a container's 403 was invisible: no row, no line, and the counter at 0."""
    foreign = {"Host": "evil.example:11435"}
    ask = {"model": "m:1", "prompt": "hi"}
    counted = router.metric("herd_request_errors_total", error_type="unauthorized")
    closed = router.metric("herd_access_refused_total", door="host", reason="not_allowed")
    answer = httpx.post(router.url + "/api/generate", json=ask, headers=foreign)
    assert (answer.status_code, "allowed_hosts" in answer.json()["error"]) == (403, True)
    row = router.row(answer.headers["x-request-id"])
    assert (row["status"], row["http_status"], row["error_type"]) == ("rejected", 403, "unauthorized")
    assert (row["endpoint"], row["error_message"]) == ("/api/generate", answer.json()["error"])
    assert router.told(answer.headers["x-request-id"])[0]["error_type"] == "unauthorized"
    assert router.metric("herd_request_errors_total", error_type="unauthorized") == counted + 1
    assert router.metric("herd_access_refused_total", door="host", reason="not_allowed") == closed + 1
    page = httpx.post(router.url + "/v1/chat/completions", json=ask, headers={"Origin": "https://evil.example"})
    assert "allowed_origins" in page.json()["error"]["message"]
    changed = httpx.post(router.url + "/dashboard/api/settings", json={}, headers={"Origin": "http://localhost:3000"})
    assert changed.status_code == 403
    told = until(lambda: router.lines("door_closed"), "a line of the door")[0]
    assert (told["data"]["door"], told["data"]["path"]) == ("origin", "/dashboard/api/settings")


def test_near_names_and_installed_programs_use_the_fleet_and_change_nothing(router):
    """What Ollama allows by default, from outside: a container, an editor, a page that was pointed here."""
    near = {"Host": f"host.docker.internal:{router.port}"}
    assert httpx.get(router.url + "/api/tags", headers=near).status_code == 200
    editor = {"Origin": "vscode-webview://1ab2c3", "Access-Control-Request-Method": "POST"}
    asked = httpx.options(router.url + "/api/chat", headers=editor)
    assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (204, editor["Origin"])
    settings = router.url + "/dashboard/api/settings"
    assert httpx.options(settings, headers=editor).status_code == 403
    rebound = {"Host": f"evil.local:{router.port}", "Origin": f"http://evil.local:{router.port}"}
    assert httpx.post(settings, json={"retries": 1}, headers=rebound).status_code == 403
    own = {"Origin": router.url, "Sec-Fetch-Site": "same-origin"}
    assert httpx.post(settings, json={"retries": 1}, headers=own).status_code == 200
    assert httpx.post(settings, json={"retries": 1}, headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    with socket.create_connection(("127.0.0.1", router.port), timeout=10) as client:
        client.sendall(b"GET /api/tags HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 400 ")
