"""`herd demo --observe`: Prometheus beside the demo, with the pack's rules, and gone with it."""

import os
import re
import socket
import subprocess
import sys

import httpx
import pytest

from herd.commands import observe
from otel.alerts import alerts
from tests.harness import free_port, until
from tests.pack.contents import RULES


def start(home, *options, **environment):
    """The demo as a process of its own; what it says goes to a file."""
    command = [sys.executable, "-m", "herd", "demo", "--port", str(free_port()), "--data-dir", str(home / "data")]
    with (home / "said.txt").open("wb") as said:
        return subprocess.Popen(
            [*command, *options], stdout=said, stderr=said, start_new_session=True,
            env={**os.environ, "HOME": str(home), "PYTHONWARNINGS": "ignore", **environment},
        )  # fmt: skip


def test_the_demo_can_be_seen_in_prometheus_and_leaves_nothing_behind(tmp_path):
    """The pack without Docker: one command, and the alerts are there."""
    demo = start(tmp_path, "--observe")
    try:
        said = tmp_path / "said.txt"
        until(lambda: "Ctrl-C stops it." in said.read_text() or demo.poll() is not None, "the demo runs", 60)
        url, page = re.search(r"alerts +(http://localhost:\d+)(/\S+)", said.read_text()).groups()
        url = url.replace("localhost", "127.0.0.1")
        assert httpx.get(url + page).status_code == 200
        rules = httpx.get(f"{url}/api/v1/rules").json()["data"]["groups"]
        assert {alert.name for alert in alerts()} <= {rule["name"] for group in rules for rule in group["rules"]}
        agents = tmp_path / "data" / "prometheus" / "agents.json"  # of the demo's router, for who joins a real agent
        assert str(agents) in httpx.get(f"{url}/api/v1/status/config").json()["data"]["yaml"]
        assert agents.exists()
        asked = {"query": "herd_node_up"}
        until(lambda: httpx.get(f"{url}/api/v1/query", params=asked).json()["data"]["result"], "it is scraped", 30)
    finally:
        demo.terminate()
        assert demo.wait(60) == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/-/ready")


def test_without_prometheus_the_demo_says_what_to_do_and_starts_nothing(tmp_path):
    """Half of what was asked for would be a puzzle."""
    demo = start(tmp_path, "--observe", PATH=str(tmp_path))
    assert demo.wait(30) == 1
    said = (tmp_path / "said.txt").read_text()
    assert said.count("\n") == 1
    assert "prometheus" in said
    assert not (tmp_path / "data" / "latency.db").exists()


def test_another_port_is_taken_where_the_usual_one_is_in_use():
    """Somebody's own Prometheus is not in the way."""
    usual = free_port()
    with socket.socket() as somebody:
        somebody.bind(("127.0.0.1", usual))
        somebody.listen()
        assert observe.free_port(usual) != usual
    assert observe.free_port(usual) == usual


def test_the_rules_are_those_of_the_pack():
    """What the demo shows is what an operator gets."""
    assert sorted(path.read_text() for path in observe.rule_files()) == sorted(path.read_text() for path in RULES)
