"""What happens when the router, a node or a client's patience ends in the middle of work."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading

import httpx
import pytest

from herd.sim import Fault, FaultKind, SimConfig, SimModel
from tests.e2e.conftest import started
from tests.harness import until

TEXT = [{"role": "user", "content": "Hello, tell me something."}]
SLOW = SimModel("slow:1b", size_gb=1.0)
PACE = {"load_bytes_per_s": 0, "prefill_tokens_per_s": 0}


@pytest.fixture
def slow_fleet(tmp_path):
    """One node whose first answer stops in its middle, until its faults are cleared."""
    config = SimConfig("only", models=(SLOW,), preload=("slow:1b",), slots=80, tokens_per_s=30, **PACE)
    fleet = started(tmp_path / "slow", config, HERD_SHUTDOWN_GRACE_S="40")
    fleet.nodes.script("only", Fault(FaultKind.HANG_MID_STREAM))
    yield fleet
    fleet.nodes.stop()
    fleet.router.stop()


def chat(fleet, path="/api/chat", **more):
    body = {"model": "slow:1b", "messages": TEXT, "stream": True, **more}
    return httpx.post(fleet.url + path, json=body, timeout=30)


def in_background(work):
    found = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    return thread, found


def active(fleet):
    return fleet.router.get("/fleet/status")["fleet"]["requests_active"]


def deaf(fleet):
    """A client that asks for a long stream and never reads of it."""
    body = json.dumps({"model": "slow:1b", "prompt": "Write 99999 words."})
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    client.connect(("127.0.0.1", fleet.router.port))
    head = f"POST /api/generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    client.sendall((head + body).encode())
    return client


def test_a_stopping_router_finishes_what_flies_and_takes_nothing_new(slow_fleet):
    """A restart must cost nobody an answer."""
    thread, found = in_background(lambda: chat(slow_fleet))
    until(lambda: active(slow_fleet) == 1, "the stream is under way")
    slow_fleet.router.process.send_signal(signal.SIGTERM)
    until(lambda: httpx.get(slow_fleet.url + "/readyz").status_code == 503, "it is not ready any more")
    refused = chat(slow_fleet, "/v1/chat/completions")
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
    assert "stopping" in refused.json()["error"]["message"]
    slow_fleet.nodes.clear()
    thread.join(30)
    assert json.loads(found[0].content.splitlines()[-1])["done"] is True
    assert slow_fleet.router.process.wait(15) == 0
    assert sorted(row["status"] for row in slow_fleet.router.rows()) == ["completed", "rejected"]


def test_who_waits_for_a_slot_when_the_grace_is_over_is_told_to_come_back(tmp_path):
    """No node has had that request, so it is no failure of the router's."""
    config = SimConfig("only", models=(SLOW,), preload=("slow:1b",), slots=1, tokens_per_s=5, **PACE)
    fleet = started(tmp_path / "slow", config, HERD_SHUTDOWN_GRACE_S="0.5")
    asked = [in_background(lambda: chat(fleet, stream=False)) for _ in range(2)]
    until(lambda: active(fleet) == 2, "one runs and one waits")
    assert fleet.router.stop() == 0
    for thread, _ in asked:
        thread.join(30)
    fleet.nodes.stop()
    assert sorted((found[0].status_code, found[0].headers.get("retry-after")) for _, found in asked) == [
        (500, None), (503, "5"),
    ]  # fmt: skip
    assert sorted(row["status"] for row in fleet.router.rows()) == ["failed", "rejected"]


def stopped_while_it_pulls(home, bytes_per_s, grace_s):
    """A fleet whose router was stopped in the middle of a client's pull, and the last line that the client got."""
    config = SimConfig("only", models=(SLOW,), pull_bytes_per_s=bytes_per_s)
    fleet = started(home, config, HERD_SHUTDOWN_GRACE_S=grace_s)
    thread, found = in_background(lambda: httpx.post(f"{fleet.url}/api/pull", json={"model": "new:1b"}, timeout=30))
    until(lambda: fleet.nodes.nodes["only"].state()["in_flight"].get("/api/pull"), "the node pulls")
    assert fleet.router.stop() == 0
    thread.join(30)
    fleet.nodes.stop()
    return fleet, json.loads(found[0].content.splitlines()[-1])


def test_a_pull_under_way_is_waited_for(tmp_path):
    """Half a download is begun anew by hand, and its client has been told nothing."""
    _, last = stopped_while_it_pulls(tmp_path / "pulls", 5e8, "20")
    assert last == {"status": "success"}


def test_a_pull_beyond_the_grace_is_told_that_it_was_ended(tmp_path):
    """`ollama pull` would take a cut for a network error and begin again at once."""
    fleet, last = stopped_while_it_pulls(tmp_path / "pulls", 1e6, "0.5")
    assert "router stopped" in last["error"]
    assert "Traceback" not in fleet.router.stderr() + fleet.router.log.read_text()


def test_a_client_with_half_its_body_sent_is_told_to_come_back(tmp_path):
    """Nothing was begun for it; and a stop in order leaves no traceback in the log."""
    fleet = started(tmp_path / "half", SimConfig("only", models=(SLOW,)), HERD_SHUTDOWN_GRACE_S="0.5")
    with socket.create_connection(("127.0.0.1", fleet.router.port), timeout=20) as client:
        client.sendall(b'POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n{"model":')
        until(lambda: active(fleet) == 1, "the router reads")
        assert fleet.router.stop() == 0
        assert client.recv(4096).startswith(b"HTTP/1.1 503 ")
    fleet.nodes.stop()
    (row,) = fleet.router.rows()
    assert (row["status"], row["error_type"]) == ("rejected", "no_node")
    assert "Traceback" not in fleet.router.stderr() + fleet.router.log.read_text()


def test_a_stream_beyond_the_grace_is_ended_in_its_dialect_and_recorded(tmp_path):
    """The deadline holds, and still nobody is left with half an answer that passes for a whole one."""
    config = SimConfig("only", models=(SLOW,), preload=("slow:1b",), tokens_per_s=5, **PACE)
    fleet = started(tmp_path / "slow", config, HERD_SHUTDOWN_GRACE_S="0.5")
    thread, found = in_background(lambda: chat(fleet))
    node = fleet.nodes.nodes["only"]
    until(lambda: sum(node.state()["in_flight"].values()) == 1 and active(fleet) == 1, "the stream is under way")
    until(lambda: found or fleet.router.metric("herd_requests_in_flight") == 1, "it has its slot")
    code = fleet.router.stop()
    thread.join(10)
    fleet.nodes.stop()
    assert code == 0
    (row,) = fleet.router.rows()
    assert (row["status"], row["error_type"]) in {("incomplete", "internal"), ("failed", "internal")}
    assert "router stopped" in json.loads(found[0].content.splitlines()[-1])["error"]


def test_a_hanging_collector_does_not_hold_up_the_stop(tmp_path):
    """The exporter would wait half a minute if nobody told it otherwise."""
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        config = SimConfig("only", models=(SLOW,), **PACE)
        fleet = started(tmp_path / "deaf", config, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint)
        for _ in range(20):
            assert chat(fleet).status_code == 200
        fleet.router.process.send_signal(signal.SIGTERM)
        assert fleet.router.process.wait(12) == 0
        fleet.nodes.stop()
    assert len(fleet.router.rows()) == len(fleet.router.lines()) == 20


def test_a_client_that_reads_nothing_is_reaped_and_its_slot_comes_back(tmp_path):
    """A stuck browser tab must not hold a slot until the machine is restarted."""
    config = SimConfig("only", models=(SLOW,), preload=("slow:1b",))
    fleet = started(tmp_path / "fast", config, HERD_STALL_TIMEOUT_S="0.5")
    try:
        with deaf(fleet):
            (row,) = until(fleet.router.rows, "the request was ended", 60)
        assert (row["status"], row["error_type"]) == ("incomplete", "stall_timeout")
        until(lambda: active(fleet) == 0, "nothing is in flight")
        until(lambda: fleet.router.metric("herd_zombies_reaped_total", node="only") == 1, "it is counted")
        until(lambda: fleet.router.lines("zombie_reaped"), "the log tells")
    finally:
        fleet.nodes.stop()
        fleet.router.stop()


def reaper(fleet):
    """What health says of stuck requests: severity, description and numbers; and the state of the check."""
    document = fleet.router.get("/dashboard/api/health")
    (check,) = (each for each in document["checks"] if each["check_id"] == "zombie_reaper")
    found = [each for each in document["recommendations"] if each["check_id"] == "zombie_reaper"]
    return check["status"], [(each["severity"], each["description"], each["data"]) for each in found]


def test_health_tells_how_many_requests_were_reaped_and_where(tmp_path):
    """The slots come back by themselves, so that nobody would look for the engine or the client that hangs."""
    both = [SimConfig(name, models=(SLOW,), preload=("slow:1b",), slots=1) for name in ("ada", "bob")]
    fleet = started(tmp_path / "reaped", *both, HERD_STALL_TIMEOUT_S="0.5", HERD_HEALTH_ZOMBIES_CRITICAL="1")
    clients = []
    try:
        assert reaper(fleet) == ("pass", [])
        for number in (1, 2):
            clients.append(deaf(fleet))
            until(lambda: active(fleet) == number, "it has its slot")  # noqa: B023 - asked at once
        rows = until(lambda: len(fleet.router.rows()) == 2 and fleet.router.rows(), "both were ended", 60)
        assert {row["node_id"] for row in rows} == {"ada", "bob"}
        words = "2 requests in 24 h made no progress within any time limit and were ended: ada 1, bob 1."
        expected = ("critical", words, {"reaped": 2, "nodes": {"ada": 1, "bob": 1}})
        until(lambda: reaper(fleet) == ("fail", [expected]), "health tells both")
        httpx.post(f"{fleet.url}/dashboard/api/settings", json={"health_zombies_critical": 2}).raise_for_status()
        until(lambda: reaper(fleet) == ("fail", [("warning", *expected[1:])]), "two are not over the limit of two")
    finally:
        for client in clients:
            client.close()
        fleet.nodes.stop()
        fleet.router.stop()


def test_the_agents_sigterm_takes_its_node_out_in_order(tmp_path):
    """An orderly stop is no loss, and no alarm."""
    fleet = started(tmp_path / "agents")
    node = fleet.nodes.start(SimConfig("engine", models=(SLOW,), **PACE))
    command = ["-m", "node", "--node-id", "box", "--router-url", fleet.url, "--ollama-host", node.url]
    agent = subprocess.Popen(
        [sys.executable, *command, "--data-dir", str(tmp_path / "agent")],
        stderr=subprocess.DEVNULL,
        env={**os.environ, "HERD_JOIN_FILE": str(fleet.router.data_dir / "local.code")},
    )
    try:
        until(lambda: fleet.router.online() == 1, "the agent has joined")
        assert chat(fleet).status_code == 200
        agent.send_signal(signal.SIGTERM)
        assert agent.wait(20) == 0
        (found,) = fleet.router.get("/fleet/status")["nodes"]
        assert (found["node_id"], found["status"], found["left"]) == ("box", "offline", True)
        until(lambda: fleet.router.lines("node_left"), "the log tells")
    finally:
        agent.kill()
        agent.wait()
        fleet.nodes.stop()
        fleet.router.stop()
