"""Health of a real fleet in which all that can be provoked goes wrong at once, and of one in which nothing does."""

import json
import socket
import sqlite3
import threading
import time
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from herd.core.health.checks import CHECKS
from herd.sim import Fault, FaultKind, SimConfig, SimModel
from herd.store.schema import LATEST
from tests.e2e.conftest import started
from tests.e2e.traffic import HELLO
from tests.harness import free_port, until

NAMES = ("ok", "fail", "retry", "hang", "cut", "slow", "comes-and-goes")
MODELS = tuple(SimModel(f"{name}:1b", size_gb=1.0, tokens_per_s=20 if name == "slow" else None) for name in NAMES)
WIDE = SimModel("wide:1b", size_gb=1.0, loaded_context=131_072)
QUICK = {"tokens_per_s": 3000, "load_bytes_per_s": 0, "prefill_tokens_per_s": 0, "interval_s": 0.5}
LIMITS = {
    "HERD_HEARTBEAT_DEGRADED_S": "2", "HERD_HEARTBEAT_OFFLINE_S": "2",
    "HERD_HEALTH_MIN_REQUESTS": "5", "HERD_HEALTH_RESOLVE_AFTER_S": "0.5",
    "HERD_HEALTH_IDLE_H": "0", "HERD_HEALTH_RETRY_INFO": "0.01", "HERD_HEALTH_RETRY_WARNING": "0.02",
    "HERD_HEALTH_FALLBACK_WARNING_PCT": "1", "HERD_RETRIES": "1",
}  # fmt: skip


def chat(fleet, model, **body):
    body = {"model": model, "messages": HELLO, "stream": False, **body}
    return httpx.post(f"{fleet.url}/api/chat", json=body, timeout=20)


def leave(fleet, model):
    """Ask for a stream and go away after its first bytes."""
    body = {"model": model, "messages": HELLO}
    with httpx.stream("POST", f"{fleet.url}/api/chat", json=body, timeout=20) as answer:
        next(answer.iter_raw())


def loaded(fleet, model):
    return model in json.dumps(fleet.router.get("/api/ps"))


def health(fleet):
    return fleet.router.get("/dashboard/api/health")


def findings(fleet, check_id):
    return [entry for entry in health(fleet)["recommendations"] if entry["check_id"] == check_id]


def post(fleet, path, **body):
    return httpx.post(f"{fleet.url}/dashboard/api/{path}", json=body, timeout=10)


def machine(name, *models, **changes):
    return SimConfig(name, models=models or MODELS[:1], max_loaded=12, slots=4, **{**QUICK, **changes})


@pytest.fixture(scope="module")
def ill(tmp_path_factory):
    """One machine that serves, three with an illness each, one that nobody asks, and a day's worth of bad requests."""
    keen = {"preload": tuple(model.name for model in (*MODELS, WIDE))}
    nowhere = {"HERD_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}", "OTEL_BSP_SCHEDULE_DELAY": "100"}
    well = machine("well", *MODELS, WIDE, memory_gb=112, **keen)
    fleet = started(tmp_path_factory.mktemp("ill"), well, **LIMITS, **nowhere)
    fleet.join(machine("idle"), machine("old", MODELS[2], preload=("retry:1b",)), machine("pressed"), machine("silent"))
    nodes = fleet.nodes.nodes
    _misbehave(fleet)
    nodes["old"].hardware.set(agent_version="0.0.1", disk_free_gb=5)
    nodes["pressed"].hardware.set(pressure="critical", memory_available_gb=1)
    nodes["silent"].hardware.set(silent=True)
    nodes["idle"].hardware.set(agent_version="", clock_ahead_s=60)
    until(lambda: findings(fleet, "node_offline") and findings(fleet, "incomplete_streams"), "health sees the worst")
    until(lambda: health(fleet)["health_score"] == 0, "nothing is well")
    yield fleet
    fleet.nodes.stop()
    fleet.router.stop()


def _misbehave(fleet):
    for node_id, kind, model in (("well", FaultKind.HTTP_500, "fail:1b"), ("well", FaultKind.HTTP_500, "retry:1b"),
                                 ("well", FaultKind.HANG_BEFORE_HEADERS, "hang:1b")):  # fmt: skip
        fleet.nodes.script(node_id, Fault(kind, times=5 if model != "retry:1b" else 1, model=model))
    fleet.nodes.script("old", Fault(FaultKind.HTTP_500, times=1, model="retry:1b"))
    fleet.nodes.script("well", Fault(FaultKind.CUT, after=300, model="cut:1b"))
    post(fleet, "settings", first_byte_timeout_s=0.3, load_timeout_s=0)
    for _ in range(5):
        chat(fleet, "hang:1b", stream=True)
    post(fleet, "settings", first_byte_timeout_s=300, load_timeout_s=600)
    for _ in range(6):
        chat(fleet, "fail:1b")
        chat(fleet, "wide:1b")
    for body in ({}, {}, {"options": {"num_ctx": 2048}}, {"options": {"num_ctx": 65_536}}):
        chat(fleet, "ok:1b", **body)
    chat(fleet, "retry:1b")
    chat(fleet, "cut:1b", stream=True)
    chat(fleet, "absent:1b", fallback_models=["ok:1b"])
    leave(fleet, "slow:1b")
    for _ in range(4):
        httpx.post(f"{fleet.url}/api/generate", json={"model": "comes-and-goes:1b", "keep_alive": 0}, timeout=10)
        until(lambda: not loaded(fleet, "comes-and-goes:1b"), "the model is unloaded")
        chat(fleet, "comes-and-goes:1b")
        until(lambda: loaded(fleet, "comes-and-goes:1b"), "the model is loaded")


@pytest.mark.parametrize(
    ("check_id", "severity", "subject"),
    [
        ("node_offline", "critical", ("silent", None)),
        ("node_degraded", "warning", ("pressed", None)),
        ("memory_pressure", "critical", ("pressed", None)),
        ("underutilized_node", "info", ("idle", None)),
        ("vram_fallback", "warning", (None, None)),
        ("version_mismatch", "warning", ("old", None)),
        ("context_protection", "warning", (None, None)),
        ("model_thrashing", "warning", ("well", "comes-and-goes:1b")),
        ("request_timeouts", "warning", (None, "hang:1b")),
        ("error_rate", "critical", (None, "fail:1b")),
        ("kv_cache_bloat", "warning", ("well", "wide:1b")),
        ("retry_rate", "warning", (None, None)),
        ("client_disconnects", "warning", (None, None)),
        ("incomplete_streams", "warning", (None, None)),
        ("telemetry_dropping", "warning", (None, None)),
        ("breaker_open", "warning", ("well", "fail:1b")),
        ("context_waste", "info", ("well", "wide:1b")),
        ("clock_skew", "warning", ("idle", None)),
        ("node_version_unknown", "info", ("idle", None)),
        ("slo_burn", "critical", (None, None)),
        ("disk_low", "critical", ("old", None)),
    ],
)
def test_what_goes_wrong_in_a_real_fleet_is_found(ill, check_id, severity, subject):
    """From a real node's fault through the records to the finding."""
    entry = until(lambda: _about(ill, check_id, subject), "health sees it")
    assert (entry["severity"], entry["runbook"]) == (severity, f"docs/runbook.md#{check_id}"), entry
    assert entry["description"]
    assert entry["fix"]


def _about(fleet, check_id, subject):
    single = [part for each in findings(fleet, check_id) for part in each["parts"] or [each]]
    return next((each for each in single if (each["node_id"], each["model"]) == subject), None)


def test_the_document_has_the_shape_of_the_contract(ill):
    """Scripts and the page go by these names."""
    document = health(ill)
    assert {"vitals", "health_score", "recommendations", "checks", "checked_at"} <= document.keys()
    for entry in document["recommendations"]:
        assert entry.keys() >= {"check_id", "severity", "title", "description", "fix", "node_id", "model", "data"}
    ranks = [("critical", "warning", "info").index(entry["severity"]) for entry in document["recommendations"]]
    assert ranks == sorted(ranks)
    assert document["health_score"] == 0


def test_every_check_is_listed_with_whether_it_passes(ill):
    """Silence should mean that it was looked at."""
    rows = {row["check_id"]: row for row in health(ill)["checks"]}
    assert list(rows) == [check.check_id for check in CHECKS]
    assert (rows["node_offline"]["status"], rows["node_offline"]["severity"]) == ("fail", "critical")
    assert (rows["zombie_reaper"]["status"], rows["zombie_reaper"]["severity"]) == ("pass", None)


def test_the_vitals_are_the_fleets(ill):
    """The numbers beside the score must be those of the other surfaces."""
    until(lambda: health(ill)["vitals"]["requests_24h"] == len(ill.router.rows()), "health has seen every row")
    vitals, status = health(ill)["vitals"], ill.router.get("/fleet/status")["fleet"]
    assert (vitals["nodes_total"], vitals["nodes_online"]) == (status["nodes_total"], status["nodes_online"]) == (5, 4)
    assert vitals["by_status_24h"]["incomplete"] == 1


def test_the_metrics_say_what_the_page_says(ill):
    """An alert on the metric and the page must not contradict each other."""
    assert ill.router.metric("herd_health_score") == health(ill)["health_score"]
    assert ill.router.metric("herd_health_findings", check_id="node_offline", severity="critical") == 1
    assert ill.router.metric("herd_health_findings", check_id="zombie_reaper", severity="warning") == 0


def test_a_threshold_that_is_changed_holds_with_the_next_look(ill):
    """Whoever runs a machine full on purpose says so once."""
    try:
        post(ill, "settings", health_kv_critical_pct=35)
        until(lambda: {e["severity"] for e in findings(ill, "kv_cache_bloat")} == {"critical"}, "it is critical now")
    finally:
        post(ill, "settings", health_kv_critical_pct=50.0)
    until(lambda: {e["severity"] for e in findings(ill, "kv_cache_bloat")} == {"warning"}, "it is a warning again")


def test_an_acknowledged_finding_says_by_which_note_and_still_costs_its_points(ill):
    """Known is not mended."""
    (entry,) = findings(ill, "version_mismatch")
    answer = post(ill, f"health/findings/{entry['id']}/acknowledge", note="upgrade on Monday")
    assert answer.json()["acknowledged"]["note"] == "upgrade on Monday"
    (entry,) = findings(ill, "version_mismatch")
    assert entry["acknowledged"]["note"] == "upgrade on Monday"
    assert next(row["status"] for row in health(ill)["checks"] if row["check_id"] == "version_mismatch") == "fail"


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("nope/acknowledge", {}, 404),
        ("nope/silence", {"hours": 1}, 404),
        ("nope/silence", {}, 422),
        ("nope/silence", {"hours": "8"}, 422),
        ("nope/silence", {"hours": True}, 422),
        ("nope/silence", {"hours": -1}, 422),
        ("nope/silence", {"hours": 10**9}, 422),
        ("nope/acknowledge", {"note": 1}, 422),
        ("nope/acknowledge", {"note": "x" * 1001}, 422),
        ("nope/acknowledge", [], 422),
    ],
)
def test_a_wrong_id_note_or_time_is_refused(ill, path, body, status):
    """With a sentence, and nothing changed."""
    answer = httpx.post(f"{ill.url}/dashboard/api/health/findings/{path}", json=body)
    assert answer.status_code == status
    assert answer.json()["error"]


@pytest.fixture
def hook():
    """A webhook on loopback; `got` is what it was told."""

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(self.server.status)
            self.end_headers()

        def log_message(self, *_):
            pass

    got = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    server.got, server.status = got, 204
    yield server
    server.shutdown()
    server.server_close()
    thread.join(10)


@pytest.fixture
def small(tmp_path):
    """One healthy node and quick limits."""
    fleet = started(tmp_path / "small", machine("ada"), **LIMITS)
    yield fleet
    fleet.nodes.stop()
    fleet.router.stop()


def test_a_healthy_fleet_has_a_hundred_points_and_every_check_passes(small):
    """The first thing that a newcomer sees."""
    chat(small, "ok:1b")
    document = health(small)
    assert (document["health_score"], document["recommendations"]) == (100, [])
    assert {row["status"] for row in document["checks"]} == {"pass"}


def test_a_lost_node_is_told_to_the_webhook_and_so_is_its_return(small, hook):
    """Once each; and the history has it afterwards, with its times."""
    post(small, "settings", webhook_url=f"http://127.0.0.1:{hook.server_address[1]}/hook")
    small.nodes.nodes["ada"].hardware.set(silent=True)
    until(lambda: findings(small, "node_offline") and _offline(hook.got), "the loss is told")
    small.nodes.nodes["ada"].hardware.set(silent=None)
    until(lambda: health(small)["health_score"] == 100 and len(_offline(hook.got)) > 1, "the return is told")
    assert [(told["status"], told["check_id"], told["node_id"]) for told in _offline(hook.got)] == [
        ("firing", "node_offline", "ada"), ("resolved", "node_offline", "ada")]  # fmt: skip
    past = "/dashboard/api/health/findings?state=resolved"
    (kept,) = until(lambda: _offline(small.router.get(past)["findings"]), "the history has it")
    assert kept["first_seen"] <= kept["last_seen"] < kept["resolved_at"]
    until(lambda: small.router.get(past.replace("resolved", "open")) == {"findings": []}, "nothing is open")
    assert len(until(lambda: _offline(small.router.lines("finding_resolved")), "the log tells")) == 1


def _offline(told):
    """Those of lost nodes; on its way out a node can be late for a moment, which is a finding of its own."""
    return [each for each in told if each["check_id"] == "node_offline"]


def test_a_webhook_that_never_answers_holds_up_neither_requests_nor_health(small):
    """The pager's trouble must not become the fleet's."""
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        silent.settimeout(20)
        post(small, "settings", webhook_url=f"http://127.0.0.1:{silent.getsockname()[1]}/hook")
        small.nodes.nodes["ada"].hardware.set(disk_free_gb=5)
        until(lambda: findings(small, "disk_low"), "the finding is there")
        with closing(silent.accept()[0]):
            assert chat(small, "ok:1b").status_code == 200
            small.nodes.nodes["ada"].hardware.set(agent_version="0.0.1")
            until(lambda: findings(small, "version_mismatch"), "health goes on looking")


def test_a_silenced_finding_costs_nothing_and_all_that_was_said_outlives_a_restart(small):
    """A restart must not wake the one who went to bed."""
    small.nodes.nodes["ada"].hardware.set(agent_version="0.0.1")
    entry = until(lambda: findings(small, "version_mismatch"), "the finding is there")[0]
    post(small, f"health/findings/{entry['id']}/acknowledge", note="known")
    post(small, f"health/findings/{entry['id']}/silence", hours=2)
    for restart in (False, True):
        if restart:
            small.router.stop()
            small.router.start()
        document = until(lambda: _with(small, "version_mismatch"), "it is found again")
        (again,) = document["recommendations"]
        assert (again["id"], again["first_seen"]) == (entry["id"], entry["first_seen"])
        assert again["acknowledged"]["note"] == "known"
        assert again["silenced_until"] > time.time() + 7000
        assert document["health_score"] == 100
        assert next(row["status"] for row in document["checks"] if row["check_id"] == "version_mismatch") == "silenced"


def _with(fleet, check_id):
    document = health(fleet)
    return document if any(entry["check_id"] == check_id for entry in document["recommendations"]) else None


def test_a_store_that_cannot_be_written_is_critical_until_it_can(small):
    """A newer herd's database is left alone, and somebody must know that nothing is recorded."""

    def version(set_to=None):
        with closing(sqlite3.connect(small.router.database, timeout=10)) as connection:
            if set_to is not None:
                connection.execute(f"PRAGMA user_version = {set_to}")
            return connection.execute("PRAGMA user_version").fetchone()[0]

    until(lambda: version() == LATEST, "the database is made")
    version(LATEST + 1)
    chat(small, "ok:1b")
    entry = until(lambda: findings(small, "trace_store_failing"), "the store fails")[0]
    assert (entry["severity"], "newer herd" in entry["description"]) == ("critical", True)
    version(LATEST)
    until(lambda: not findings(small, "trace_store_failing"), "the store works again")


def restart(fleet):
    fleet.router.stop()
    fleet.router.start()


def nodes(fleet):
    return {node["node_id"]: node for node in fleet.router.get("/fleet/status")["nodes"]}


def test_a_node_that_is_lost_stays_lost_over_a_restart_of_the_router_until_it_returns(small, hook):
    """The pager must not say that it is over because the router was restarted."""
    post(small, "settings", webhook_url=f"http://127.0.0.1:{hook.server_address[1]}/hook")
    small.nodes.call(small.nodes.nodes["ada"].kill())
    until(lambda: _kept(small) == [("node_offline", 1)], "the pager knows, and that is kept")
    (before,) = findings(small, "node_offline")
    seen = small.router.metric("herd_node_last_seen_timestamp_seconds", node="ada")
    restart(small)
    assert (nodes(small)["ada"]["status"], small.router.metric("herd_node_up", node="ada")) == ("offline", 0)
    assert small.router.metric("herd_node_last_seen_timestamp_seconds", node="ada") == pytest.approx(seen)
    until(lambda: len(small.router.lines("node_lost")) == 2, "it had its time to report")
    (after,) = findings(small, "node_offline")
    assert (after["id"], after["first_seen"]) == (before["id"], before["first_seen"])
    assert [told["status"] for told in _offline(hook.got)] == ["firing"]
    small.join(machine("ada"))
    until(lambda: not findings(small, "node_offline") and len(_offline(hook.got)) > 1, "its return is told")
    assert [told["status"] for told in _offline(hook.got)] == ["firing", "resolved"]


def _kept(fleet):
    """The findings of lost nodes in the store after a look at health, each with whether the webhook was told."""
    health(fleet)
    with closing(sqlite3.connect(f"file:{fleet.router.database}?mode=ro", uri=True)) as database:
        return database.execute(
            "SELECT check_id, alerted FROM health_findings WHERE check_id = 'node_offline'"
        ).fetchall()


def test_an_alert_that_the_webhook_did_not_take_goes_out_after_a_restart(small, hook):
    """A pager that was away for a minute must not miss the night's one alarm."""
    hook.status = 500
    post(small, "settings", webhook_url=f"http://127.0.0.1:{hook.server_address[1]}/hook")
    small.nodes.call(small.nodes.nodes["ada"].kill())
    until(lambda: _kept(small) == [("node_offline", 0)] and _offline(hook.got), "it was tried")
    assert small.router.stop() == 0
    hook.got.clear()
    hook.status = 204
    small.router.start()
    until(lambda: _kept(small) == [("node_offline", 1)], "the pager knows")
    assert [told["status"] for told in _offline(hook.got)] == ["firing"]
    assert {told["check_id"] for told in hook.got} == {"node_offline", "no_node_ready"}


def test_a_node_that_stays_away_after_a_restart_is_missed_and_one_that_left_before_it_is_not(small):
    """After a power cut somebody must come and look; after an orderly evening nobody."""
    small.join(machine("bob"))
    for end in (small.nodes.nodes["ada"].kill(), small.nodes.nodes["bob"].stop()):
        small.nodes.call(end)
    restart(small)
    assert [(name, node["status"], node["left"]) for name, node in sorted(nodes(small).items())] == [
        ("ada", "offline", False), ("bob", "offline", True)]  # fmt: skip
    found = until(lambda: findings(small, "node_offline"), "the node is missed")
    assert [entry["node_id"] for entry in found] == ["ada"]
    assert {line["node_id"] for line in until(lambda: small.router.lines("node_lost"), "the log tells")} == {"ada"}


def test_a_drain_outlives_a_restart_and_a_node_that_is_struck_off_does_not(small):
    """What the operator said of a node holds until the operator says otherwise."""
    assert httpx.post(f"{small.url}/fleet/nodes/ada/drain").json()["draining"] is True
    restart(small)
    until(lambda: nodes(small)["ada"]["status"] == "online", "the node reports again")
    assert nodes(small)["ada"]["draining"] is True
    small.nodes.call(small.nodes.nodes["ada"].kill())
    until(lambda: httpx.delete(f"{small.url}/fleet/nodes/ada").status_code == 200, "the node is struck off")
    restart(small)
    assert (nodes(small), small.router.metric("herd_node_up", node="ada")) == ({}, 0)
    assert httpx.delete(f"{small.url}/fleet/nodes/ada").status_code == 404
