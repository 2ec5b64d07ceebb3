"""Keys at a running router, from outside: who is let in, who is told why not, and where it is on record."""

import json
import sqlite3
import subprocess
import sys

import httpx
import pytest

from herd.sim import SimConfig, SimModel
from tests.e2e.conftest import started
from tests.harness import until

AFAR = {"X-Forwarded-For": "203.0.113.7"}  # what a proxy on this machine adds to anybody's request
ASK = {"model": "tiny:1b", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5}
NODE = SimConfig("one", tokens_per_s=20, load_bytes_per_s=0, slots=8, models=(SimModel("tiny:1b"), SimModel("big:7b")))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """A router with one node that answers slowly."""
    running = started(tmp_path_factory.mktemp("keys"), NODE)
    yield running
    running.nodes.stop()
    running.router.stop()


@pytest.fixture(scope="module")
def key(fleet):
    """Makes a key by the command line, and waits until the router knows it."""

    def make(name, *options):
        text = herd(fleet, "key", "create", name, *options).stdout.strip()
        headers = {**AFAR, "Authorization": f"Bearer {text}"}
        until(lambda: httpx.get(fleet.url + "/v1/models", headers=headers).status_code == 200, f"{name} is known")
        return text

    return make


def herd(fleet, *arguments):
    """A command in the router's home."""
    command = [sys.executable, "-m", "herd", *arguments]
    environment = fleet.router.environment()
    return subprocess.run(command, env=environment, check=False, capture_output=True, text=True, timeout=60)


def post(fleet, path, body, text="", **headers):
    """A request from afar, with a key or without."""
    shown = {"Authorization": f"Bearer {text}"} if text else {}
    return httpx.post(fleet.url + path, json=body, headers={**AFAR, **shown, **headers}, timeout=30)


def test_without_a_key_the_door_is_closed_in_every_dialect_and_on_record(fleet):
    """The client's own error class says what to do; the operator finds the request."""
    openai = post(fleet, "/v1/chat/completions", ASK)
    anthropic = post(fleet, "/v1/messages", ASK)
    ollama = post(fleet, "/api/chat", ASK)
    assert [answer.status_code for answer in (openai, anthropic, ollama)] == [401] * 3
    assert openai.headers["www-authenticate"] == "Bearer"
    assert (openai.json()["error"]["type"], anthropic.json()["error"]["type"]) == ("authentication_error",) * 2
    assert "herd key create NAME" in ollama.json()["error"]
    row = fleet.router.row(openai.headers["x-request-id"])
    assert (row["status"], row["error_type"], row["api_key_id"]) == ("rejected", "unauthorized", None)
    assert fleet.router.metric("herd_access_refused_total", door="key", reason="no_credential") >= 3
    assert httpx.get(fleet.url + "/dashboard/api/traces", headers=AFAR).status_code == 401
    told = until(lambda: fleet.router.lines("door_closed"), "a line")
    assert {line["data"]["door"] for line in told} == {"key"}
    assert [httpx.get(fleet.url + path, headers=AFAR).status_code for path in ("/healthz", "/readyz")] == [200, 200]


def test_a_key_opens_its_scope_and_its_id_is_in_the_row_and_the_line(fleet, key):
    """Who asked is known for any request ever served."""
    text = key("app")
    answer = post(fleet, "/v1/chat/completions", ASK, text)
    assert answer.status_code == 200
    row = fleet.router.row(answer.headers["x-request-id"])
    assert row["api_key_id"] == text[5:13]
    assert fleet.router.told(row["request_id"])[-1]["api_key_id"] == text[5:13]
    refused = post(fleet, "/dashboard/api/settings", {"retries": 1}, text)
    assert (refused.status_code, refused.json()["error"]) == (
        403,
        'the key "app" may do inference, not changes (scope admin)',
    )
    until(lambda: "app" in {line["data"].get("key_name") for line in fleet.router.lines("door_closed")}, "its line")
    listed = json.loads(herd(fleet, "key", "list", "--json").stdout)["keys"]
    assert next(each for each in listed if each["name"] == "app")["scope"] == "inference"


def test_a_key_for_some_models_is_for_no_others_by_whatever_name(fleet, key):
    """A second `model` in the body, or a fallback, would be a way around it."""
    text = key("some", "--models", "tiny:*")
    assert post(fleet, "/v1/chat/completions", ASK, text).status_code == 200
    other = post(fleet, "/v1/chat/completions", {**ASK, "model": "big:7b"}, text)
    assert (other.status_code, "may not use 'big:7b', only tiny:*" in other.json()["error"]["message"]) == (403, True)
    assert post(fleet, "/v1/chat/completions", {**ASK, "fallback_models": ["big:7b"]}, text).status_code == 403
    both = post(fleet, "/v1/chat/completions", {**ASK, "Model": "big:7b"}, text)
    assert (both.status_code, "twice" in both.json()["error"]["message"]) == (400, True)
    assert fleet.router.row(other.headers["x-request-id"])["api_key_id"] == text[5:13]


def test_a_key_with_few_requests_a_minute_is_told_when_the_next_begins(fleet, key):
    """An SDK waits by itself where it is told how long."""
    text = key("slow", "--rpm", "1")
    answers = [post(fleet, "/api/chat", {**ASK, "stream": False}, text) for _ in range(3)]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert refused
    assert '"slow" has used 1 requests this minute' in refused[0].json()["error"]
    assert 1 <= int(refused[0].headers["retry-after"]) <= 60
    assert fleet.router.row(refused[0].headers["x-request-id"])["error_type"] == "key_limit"


def test_a_key_that_is_revoked_ends_its_stream_and_opens_nothing_more(fleet, key):
    """A leaked key must not go on to the end of a long answer."""
    text = key("leaked")
    body = {**ASK, "max_tokens": 4000, "stream": True}
    headers = {**AFAR, "Authorization": f"Bearer {text}"}
    with httpx.stream("POST", fleet.url + "/v1/chat/completions", json=body, headers=headers, timeout=60) as answer:
        lines = answer.iter_lines()
        assert next(lines)
        assert herd(fleet, "key", "revoke", text).returncode == 0
        assert "was revoked on" in "\n".join(lines)
    again = post(fleet, "/v1/chat/completions", ASK, text)
    assert (again.status_code, f"herd_{text[5:13]} was revoked" in again.json()["error"]["message"]) == (401, True)
    row = fleet.router.row(answer.headers["x-request-id"])
    assert (row["status"], row["error_type"]) == ("incomplete", "unauthorized")
    assert row["completion_tokens"] is None or row["completion_tokens"] < 4000


def test_what_decides_who_is_let_in_is_changed_on_the_machine_only(fleet, key):
    """An admin key that leaked must not send findings, spans or names elsewhere."""
    text = key("admin", "--scope", "admin")
    assert post(fleet, "/dashboard/api/settings", {"retries": 1}, text).status_code == 200
    for name, value in (("webhook_url", "https://evil.example/x"), ("trace_url", ""), ("auth", "off")):
        refused = post(fleet, "/dashboard/api/settings", {"retries": 3, name: value}, text)
        assert (refused.status_code, refused.json()["fields"][0]["field"]) == (403, name)
    rows = {row["name"]: row["value"] for row in fleet.router.get("/dashboard/api/settings")["settings"]}
    assert (rows["retries"], rows["auth"]) == (1, "auto")
    here = httpx.post(fleet.url + "/dashboard/api/settings", json={"trace_url": "http://x.example/{trace_id}"})
    assert here.status_code == 200, here.text


def test_observe_refuses_nobody_and_counts_whom_it_would(fleet):
    """The way to upgrade: look first, then close."""
    change = lambda mode: httpx.post(fleet.url + "/dashboard/api/settings", json={"auth": mode})  # noqa: E731
    before = fleet.router.metric("herd_access_refused_total", door="key")
    assert change("observe").status_code == 200
    try:
        assert post(fleet, "/api/chat", {**ASK, "stream": False}).status_code == 200
        assert httpx.get(fleet.url + "/dashboard/api/traces", headers=AFAR).status_code == 200
        told = until(lambda: fleet.router.lines("door_would_close"), "a line")
        assert told[0]["data"]["client"] == "127.0.0.1"
        assert fleet.router.metric("herd_access_refused_total", door="key") == before + 2
    finally:
        assert change("auto").status_code == 200


def test_no_secret_of_a_key_is_in_any_file_log_metric_or_answer(fleet, key):
    """A key that works, one that is misspelt, and one of another service."""
    text = key("canary")
    wrong, foreign = text[:-1] + ("0" if text[-1] != "0" else "1"), "sk-canary-of-another-service"
    for shown in (text, wrong, foreign):
        post(fleet, "/v1/chat/completions", ASK, shown)
        httpx.get(fleet.url + "/dashboard/api/traces", headers={**AFAR, "X-Api-Key": shown})
    done = post(fleet, "/v1/chat/completions", ASK, text)
    fleet.router.row(done.headers["x-request-id"])
    with sqlite3.connect(fleet.router.database) as database:
        database.execute("PRAGMA wal_checkpoint")
    secrets = (text[14:57].encode(), foreign.encode())
    files = [path for path in fleet.router.home.rglob("*") if path.is_file()]
    assert not [path for path in files for secret in secrets if secret in path.read_bytes()]
    pages = ("/metrics", "/dashboard/api/traces?limit=100", "/dashboard/api/settings", "/fleet/status")
    assert not [page for page in pages for secret in secrets if secret in httpx.get(fleet.url + page).content]
