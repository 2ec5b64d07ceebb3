"""Agents under a real Prometheus that finds them by the router's file: they come, tell, leave, and are missed."""

import signal

import pytest

from herd.sim import SimConfig
from tests.harness import Agent, until
from tests.pack.conftest import COLD, Observed
from tests.pack.contents import RULES


@pytest.fixture
def fleet(tmp_path):
    """A router and one agent, scraped."""
    running = Observed(tmp_path, (), RULES)
    yield running
    running.stop()


def ups(fleet):
    """Which agents answer, by node, as Prometheus sees it now."""
    found = fleet.prometheus.query('up{job="herd-agents"}')
    return {sample["metric"]["node"]: sample["value"][1] == "1" for sample in found}


def test_agents_come_and_go_by_the_router_s_file_and_one_that_dies_is_missed(fleet, tmp_path):
    """No hand is laid on Prometheus; and with the router gone the agents still tell of their machines."""
    engine = fleet.nodes.start(SimConfig("second-engine", models=(COLD,)))
    second = Agent(tmp_path / "second", "second", engine.url, fleet.url)
    second.start()
    try:
        until(lambda: ups(fleet) == {"watched": True, "second": True}, "both are scraped", 30)
        assert second.stop() == 0
        until(lambda: ups(fleet) == {"watched": True}, "who left in order is no target", 30)
        second.start()
        until(lambda: ups(fleet) == {"watched": True, "second": True}, "it is back", 30)
        second.stop(signal.SIGKILL)
        until(lambda: ups(fleet) == {"watched": True, "second": False}, "who died is missed", 30)
    finally:
        second.stop(signal.SIGKILL)
    fleet.router.stop()
    lost = 'herd_agent_heartbeats_total{node="watched", outcome="failed"}'
    until(lambda: fleet.prometheus.value(lost), "the agent tells that the router is away", 30)
    until(lambda: fleet.prometheus.value('up{job="herd"}') == 0, "the router is away")
    assert ups(fleet)["watched"]
