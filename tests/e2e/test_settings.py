"""Settings at run time: seen and changed over HTTP, in force with the next request, there again after a restart."""

import asyncio
import json
import signal
import sqlite3
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import httpx
import pytest

from herd.settings.table import TABLE
from herd.sim import Fault, FaultKind, SimConfig, SimModel
from tests.e2e.conftest import started
from tests.e2e.traffic import HELLO, ask, send
from tests.harness import Router, free_port, until

MODEL, OTHER = SimModel("llama3.2:3b"), SimModel("qwen3:8b")
SLOW = SimModel("slow:1b", size_gb=1.0)
PACE = {"tokens_per_s": 2000, "load_bytes_per_s": 0, "prefill_tokens_per_s": 0}
DAY_S = 86_400.0


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two equal nodes; `OTHER` is on disk only."""
    warm = ("tight", "ample", "strip", "warn", "off")  # each for one test, since it leaves its model otherwise
    models = (MODEL, OTHER, SLOW, *(SimModel(f"{name}:1b") for name in (*warm, "cold-a", "cold-b")))
    loaded = {"preload": ("llama3.2:3b", *(f"{name}:1b" for name in warm)), "max_loaded": 99, "memory_gb": 512}
    machines = [SimConfig(name, models=models, slots=8, interval_s=0.5, **loaded, **PACE) for name in "ab"]
    running = started(tmp_path_factory.mktemp("settings"), *machines)
    yield running
    running.nodes.stop()
    running.router.stop()


@pytest.fixture
def change(pair):
    """Changes settings, and puts them back at the end."""
    defaults = {}

    def changed(**wanted):
        answer = httpx.post(f"{pair.url}/dashboard/api/settings", json=wanted)
        assert answer.status_code == 200, answer.text
        for name, told in answer.json()["changed"].items():
            defaults.setdefault(name, told["before"])
        return answer.json()["changed"]

    yield changed
    changed(**defaults)
    pair.nodes.clear()


def chat(fleet, model="llama3.2:3b", **body):
    body = {"model": model, "messages": HELLO, "stream": False, **body}
    return httpx.post(f"{fleet.url}/api/chat", json=body, timeout=30)


def both(fleet, fault):
    for node_id in fleet.nodes.nodes:
        fleet.nodes.script(node_id, fault)


def held(fleet, asks, enough):
    """The statuses of requests that are sent at once, to nodes whose faults are cleared when this is true."""
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(lambda: asyncio.run(send(fleet.url, asks, len(asks))))
        try:
            until(enough, "what was to be seen")
        finally:
            fleet.nodes.clear()
        return [seen.status for seen in asked.result()]


def setting(fleet, name):
    return next(row for row in fleet.router.get("/dashboard/api/settings")["settings"] if row["name"] == name)


def refused(fleet, content):
    answer = httpx.post(f"{fleet.url}/dashboard/api/settings", content=content)
    assert answer.status_code == 422
    return answer.json()


def test_all_settings_are_listed_with_value_default_and_source(pair):
    """Where a value comes from is the second question after what it is."""
    rows = pair.router.get("/dashboard/api/settings")["settings"]
    assert [row["name"] for row in rows] == [row.name for row in TABLE]
    port, advertise = setting(pair, "port"), setting(pair, "advertise")
    assert (port["value"], port["default"], port["source"]) == (pair.router.port, 11435, "environment")
    assert (advertise["value"], advertise["source"], advertise["type"]) == (True, "default", "boolean")
    assert (port["runtime"], setting(pair, "retries")["runtime"]) == (False, True)
    assert setting(pair, "context_protection")["choices"] == ["strip", "warn", "off"]


def test_the_operators_command_changes_a_setting_as_printed(pair, change):
    """`curl -d` sends JSON under the type of a form, and it is JSON all the same."""
    command = (
        "curl -s -X POST http://localhost:11435/dashboard/api/settings "
        '-H "Content-Type: application/json" -d \'{"loaded_fallback": false}\''
    )
    for here in (command, command.replace('-H "Content-Type: application/json" ', "").replace("false", "true")):
        printed = subprocess.check_output(["bash", "-c", here.replace("11435", str(pair.router.port))])
        assert "loaded_fallback" in json.loads(printed)["changed"]
    assert setting(pair, "loaded_fallback")["value"] is True


def test_a_change_is_a_log_line_and_an_event(pair, change):
    """Who asks why the router behaves differently since noon finds the answer in both."""
    change(stall_timeout_s=77)
    told = {"name": "stall_timeout_s", "before": 120.0, "value": 77.0, "by": "127.0.0.1"}
    until(lambda: told in [line["data"] for line in pair.router.lines("setting_changed")], "the change is in the log")
    query = "SELECT data FROM fleet_events WHERE kind = 'setting_changed' AND data LIKE '%stall_timeout_s%'"
    with closing(sqlite3.connect(pair.router.database)) as connection:
        until(lambda: told in [json.loads(row[0]) for row in connection.execute(query)], "the change is an event")


@pytest.mark.parametrize(
    ("content", "fields"),
    [
        ('{"auto_pul": false, "retries": 1}', ["auto_pul"]),
        ('{"loaded_fallback": "false", "retries": 1}', ["loaded_fallback"]),
        ('{"port": 1, "retries": "1"}', ["port", "retries"]),
        (r'{"\ud800": 1}', ["\ud800"]),
        ("{", []),
        ("[]", []),
        ("[" * 100_000, []),
        (b"\xff", []),
        ("", []),
    ],
)
def test_a_wrong_name_or_type_is_a_422_that_names_it_and_changes_nothing(pair, content, fields):
    """`"false"` once switched a setting on."""
    before = pair.router.get("/dashboard/api/settings")
    told = refused(pair, content)
    assert [entry["field"] for entry in told["fields"]] == fields
    assert told["error"]
    assert pair.router.get("/dashboard/api/settings") == before


def test_a_page_of_another_origin_cannot_change_a_setting(pair):
    """A foreign page's form needs no permission to be sent."""
    url, headers = f"{pair.url}/dashboard/api/settings", {"Origin": "https://evil.example"}
    before = setting(pair, "retries")["value"]
    assert before != 0
    assert httpx.post(url, content='{"retries": 0}', headers=headers).status_code == 403
    assert setting(pair, "retries")["value"] == before


def test_a_change_outlives_the_router(tmp_path):
    """And the user's own file is still theirs."""
    router = Router(tmp_path / "home", free_port(), HERD_QUEUE_LIMIT="5")
    router.data_dir.mkdir(parents=True)
    (router.data_dir / "config.toml").write_text("# three are enough\nretries = 3\n")
    for expected, source in ((3, "file"), (1, "file")):
        router.start()
        found = {row["name"]: row for row in router.get("/dashboard/api/settings")["settings"]}
        assert (found["retries"]["value"], found["retries"]["source"]) == (expected, source)
        told = httpx.post(f"{router.url}/dashboard/api/settings", json={"retries": 1, "queue_limit": 6}).json()
        router.stop()
    assert told["changed"]["queue_limit"]["kept"] is False
    assert (router.data_dir / "config.toml").read_text().startswith("# three are enough\nretries = 1\n")


def test_retries_zero_is_one_try(pair, change):
    """Each node fails once; with a retry the second would have answered."""
    change(retries=0)
    both(pair, Fault(FaultKind.HTTP_500))
    answer = chat(pair)
    assert answer.status_code == 502
    assert pair.router.row(answer.headers["x-request-id"])["retry_count"] == 0


@pytest.mark.parametrize(("pct", "model", "will_retry"), [(0, "tight:1b", [False]), (100, "ample:1b", [True] * 4)])
def test_retry_budget_pct_bounds_the_retries_under_way(pair, change, pct, model, will_retry):
    """When everything fails, retries must not multiply the load."""
    change(retry_budget_pct=pct)
    # One node fails at once; the other keeps all that it gets until the log tells enough.
    pair.nodes.script("a", Fault(FaultKind.HTTP_500, times=None))
    pair.nodes.script("b", Fault(FaultKind.HANG_BEFORE_HEADERS, times=None))

    def told():
        lines = [line["will_retry"] for line in pair.router.lines("attempt_failed") if line["model"] == model]
        return [each for each in lines if each is will_retry[0]]

    asks = [ask("/api/chat", model=model, messages=HELLO, stream=False) for _ in range(12)]
    answered = held(pair, asks, lambda: len(told()) >= len(will_retry))
    assert (answered.count(200) < 12) is (will_retry == [False])


def test_first_byte_timeout_s_ends_a_silent_attempt(pair, change):
    """With the default this would take five minutes."""
    change(first_byte_timeout_s=0.2, retries=0)
    both(pair, Fault(FaultKind.HANG_BEFORE_HEADERS))
    answer = chat(pair, stream=True)
    assert answer.status_code == 504
    assert pair.router.row(answer.headers["x-request-id"])["error_type"] == "first_byte_timeout"


def test_load_timeout_s_is_what_a_cold_model_has_beside(pair, change):
    """With the default this would take ten minutes more."""
    change(first_byte_timeout_s=0.1, load_timeout_s=0.1, retries=0)
    both(pair, Fault(FaultKind.HANG_BEFORE_HEADERS))
    assert chat(pair, model="qwen3:8b", stream=True).status_code == 504


def test_stall_timeout_s_ends_an_answer_that_stopped(pair, change):
    """With the default this would take two minutes."""
    change(stall_timeout_s=0.2)
    both(pair, Fault(FaultKind.HANG_MID_STREAM))
    answer = chat(pair, stream=True)
    assert pair.router.row(answer.headers["x-request-id"])["error_type"] == "stall_timeout"


def test_total_timeout_s_ends_an_attempt_that_does_not_stream(pair, change):
    """With the default this would take an hour."""
    change(total_timeout_s=1, retries=0)
    both(pair, Fault(FaultKind.HANG_BEFORE_HEADERS))
    assert chat(pair).status_code == 504


def test_body_limit_mb_is_the_largest_body(pair, change):
    """Two megabytes pass before and not after."""
    large = [{"role": "user", "content": "x" * 2 * 2**20}]
    assert chat(pair, messages=large).status_code == 200
    change(body_limit_mb=1)
    assert chat(pair, messages=large).status_code == 413


def test_queue_limit_and_queue_timeout_s_bound_who_waits(pair, change):
    """Sixteen slots, one place to wait: the eighteenth is refused, the seventeenth waits in vain."""
    change(queue_limit=1, queue_timeout_s=0.3)
    both(pair, Fault(FaultKind.HANG_BEFORE_HEADERS, times=None))
    asks = [ask("/api/chat", model="slow:1b", messages=HELLO) for _ in range(24)]

    def refused():
        return {row["error_type"] for row in pair.router.rows("status = 'rejected' AND original_model = 'slow:1b'")}

    assert {200, 429, 503} == set(held(pair, asks, lambda: refused() == {"queue_full", "queue_timeout"}))


@pytest.mark.parametrize(("mode", "actions"), [("strip", ["stripped"]), ("warn", ["warned"]), ("off", [])])
def test_context_protection_follows_its_mode(pair, change, mode, actions):
    """Whoever debugs a num_ctx turns it off for one request, not for a restart."""
    change(context_protection=mode)
    answer = chat(pair, f"{mode}:1b", options={"num_ctx": 2048})
    lines = pair.router.told(answer.headers["x-request-id"])
    assert [line["action"] for line in lines if line["event"].startswith("Context protection")] == actions


@pytest.mark.parametrize(
    ("on", "cold", "served"), [(True, "cold-a:1b", "llama3.2:3b"), (False, "cold-b:1b", "cold-b:1b")]
)
def test_loaded_fallback_decides_between_a_cold_model_and_a_warm_one(pair, change, on, cold, served):
    """The decision's policy is that of the moment, and the row keeps it."""
    change(loaded_fallback=on)
    answer = chat(pair, model=cold, fallback_models=["llama3.2:3b"])
    assert answer.headers["x-herd-model"] == served
    row = pair.router.row(answer.headers["x-request-id"])
    assert json.loads(row["decision"])["policy"] == {"loaded_fallback": on}


@pytest.mark.parametrize(("on", "source"), [(True, "reported"), (False, "counted")])
def test_usage_in_streams_is_asked_for_or_not(pair, change, on, source):
    """Some engines refuse the option; then it goes without a restart."""
    change(usage_in_streams=on)
    body = {"model": "llama3.2:3b", "messages": HELLO, "stream": True}
    answer = httpx.post(f"{pair.url}/v1/chat/completions", json=body)
    assert pair.router.row(answer.headers["x-request-id"])["tokens_source"] == source


def test_heartbeat_degraded_s_and_heartbeat_offline_s_are_the_patience_with_a_silent_node(pair, change):
    """A fleet on a bad network needs more of it, a fast failover less."""
    pair.nodes.nodes["b"].hardware.set(silent=True)
    change(heartbeat_degraded_s=1, heartbeat_offline_s=60)
    until(lambda: _status(pair, "b") == "degraded", "b is degraded")
    change(heartbeat_offline_s=1)
    until(lambda: _status(pair, "b") == "offline", "b is offline")
    pair.nodes.nodes["b"].hardware.set(silent=None)
    until(lambda: pair.router.online() == 2, "b is back")


def _status(fleet, node_id):
    return next(n["status"] for n in fleet.router.get("/fleet/status")["nodes"] if n["node_id"] == node_id)


def test_log_level_holds_for_the_next_line(pair, change):
    """Debugging begins without losing what is being debugged."""
    change(log_level="ERROR", retries=1)  # so that both are put back
    _have_it_warn(pair, retries=3)
    change(log_level="WARNING")
    _have_it_warn(pair, retries=4)
    until(lambda: _warnings(pair), "the router's warning is in the log")
    assert len(_warnings(pair)) == 1


def _have_it_warn(fleet, retries):
    """Have the router read a setting that needs a start: it has warned when it took over the one beside it."""
    path = fleet.router.data_dir / "config.toml"
    kept = [line for line in path.read_text().splitlines() if not line.startswith(("retries", "log_files_kept"))]
    path.write_text("\n".join([f"retries = {retries}", "log_files_kept = 5", *kept]))
    fleet.router.process.send_signal(signal.SIGHUP)
    until(lambda: _value(fleet, "retries") == retries, "the file was read again")


def _value(fleet, name):
    rows = fleet.router.get("/dashboard/api/settings")["settings"]
    return next(row["value"] for row in rows if row["name"] == name)


def _warnings(fleet):
    return [line for line in fleet.router.lines(None) if "log_files_kept changed in" in line["event"]]


def test_retention_days_is_taken_over_by_the_writer(pair, change):
    """Shortening it must free the disk today."""
    _plant(pair, "old", time.time() - 5 * DAY_S, "x")
    change(retention_days=1)
    until(lambda: not pair.router.rows("request_id = 'old'"), "the old row is gone")


def test_store_limit_mb_is_taken_over_by_the_writer(pair, change):
    """As above, by size."""
    for number in range(20):
        _plant(pair, f"big{number}", 1000.0 + time.time() - DAY_S, "x" * 2**20)
    change(store_limit_mb=16)
    until(lambda: len(pair.router.rows("request_id LIKE 'big%'")) < 16, "the largest rows are gone")


def _plant(fleet, request_id, at, decision):
    with closing(sqlite3.connect(fleet.router.database, timeout=20)) as connection, connection:
        connection.execute(
            """INSERT INTO request_traces (request_id, trace_id, span_id, timestamp, finished_at, endpoint,
                   original_format, status, http_status, stream, latency_ms, retry_count, fallback_used, decision)
               VALUES (?, '', '', ?, ?, '/api/chat', 'ollama', 'completed', 200, 0, 1, 0, 0, ?)""",
            (request_id, at, at, decision),
        )
