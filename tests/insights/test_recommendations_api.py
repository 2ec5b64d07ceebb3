"""The operator's command for recommendations, as printed, against a real router: empty, and with nodes and requests."""

import csv
import io
import json
import subprocess
import sys

import httpx
import pytest

from herd.sim import SimConfig
from tests.harness import Nodes, until


@pytest.fixture
def asked(router):
    """What the operator's command prints, as JSON."""

    def answer():
        command = (
            f"devops_recommendations=$(curl -s {router.url}/dashboard/api/recommendations)\n"
            f'echo "$devops_recommendations" | {sys.executable} -m json.tool'
        )
        done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=20, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        return json.loads(done.stdout)

    return answer


def test_a_router_without_nodes_and_requests_answers_all_the_same(asked):
    """It is the first thing that somebody tries."""
    document = asked()
    assert document["nodes"] == []
    assert set(document["fleet"]["coverage"]) >= {"general", "code", "embedding"}


def lines(router):
    """The recommendations as a spreadsheet reads them."""
    answer = httpx.get(f"{router.url}/dashboard/api/recommendations?format=csv", timeout=20)
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    return list(csv.DictReader(io.StringIO(answer.text)))


def test_a_fleet_is_told_what_it_has_what_it_needs_and_how_fast_it_was(router, asked):
    """From heartbeats and rows alone, without a word of configuration."""
    nodes = Nodes()
    try:
        model = nodes.start(SimConfig(node_id="ada", router_url=router.url)).config.models[0].name
        until(lambda: router.online() == 1, "the node joined")
        for name in (*([model] * 12), "nobodys:7b"):
            body = {"model": name, "messages": [{"role": "user", "content": "Hello"}]}
            httpx.post(f"{router.url}/api/chat", json=body, timeout=20)
        until(lambda: len(router.rows()) == 13, "all rows")
        document = asked()
        table = lines(router)
        wrong = httpx.get(f"{router.url}/dashboard/api/recommendations?days=3", timeout=20)
    finally:
        nodes.stop()
    (ada,) = document["nodes"]
    held = {row["model"]: row for row in ada["current_models"]}[model]
    assert (held["request_count"], held["speed_source"]) == (12, "measured")
    assert [row["model"] for row in document["fleet"]["mix"]] == [model]
    assert document["fleet"]["mix"][0]["already_available"] is True
    assert [row["model"] for row in document["fleet"]["missing"]] == ["nobodys:7b"]
    recommended = [(row["node_id"], row["model"]) for row in table if row["kind"] == "recommended"]
    assert recommended == [("ada", row["model"]) for row in ada["recommended_models"]]
    assert [row["model"] for row in table if row["kind"] == "missing"] == ["nobodys:7b"]
    assert all(row["reason"] for row in table)
    assert (wrong.status_code, wrong.json()["fields"][0]["field"]) == (422, "days")
