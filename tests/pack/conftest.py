"""A fleet under observation: a router, simulated nodes that have all that a node can have, a real agent that serves its
own metrics, a collector, Prometheus.
"""

import asyncio
import dataclasses
import shutil
import threading
import time

import pytest

from herd.sim import Fault, FaultKind, SimConfig, SimModel
from tests.e2e.conftest import EMBED, LARGE, LLAMA, QWEN, SLOW, VISION, Fleet
from tests.e2e.traffic import HELLO, ask, mixed, send
from tests.harness import Agent, Nodes, Router, free_port, until
from tests.pack.contents import RULES
from tests.pack.prometheus import Prometheus
from tests.telemetry.otlp import OtlpReceiver

COLD = SimModel("cold:3b", size_gb=3.0)
MACHINES = (
    SimConfig("studio", memory_gb=192, unified=True, models=(LARGE, LLAMA, QWEN, EMBED), preload=("llama3.2:3b",)),
    SimConfig("gpu-box", memory_gb=64, vram_gb=24, models=(LLAMA, QWEN, VISION), preload=("qwen3:8b",)),
    # Reading from disk takes 0.6 s here, which is a cold load; tokens take time, so that streams have a pace.
    dataclasses.replace(SLOW, node_id="mini", models=(COLD, *SLOW.models), load_bytes_per_s=5e9),
)


class Observed(Fleet):
    """The fleet, and who watches it."""

    def __init__(self, home, machines, rules, **environment):
        self.collector = OtlpReceiver()
        self.collector.start()
        settings = {"OTEL_EXPORTER_OTLP_ENDPOINT": self.collector.url, "OTEL_BSP_SCHEDULE_DELAY": "300", **environment}
        super().__init__(Router(home / "home", free_port(), **settings), Nodes())
        targets = self.router.data_dir / "prometheus" / "agents.json"
        collector = self.collector.url.removeprefix("http://")
        router = f"127.0.0.1:{self.router.port}"
        self.prometheus = Prometheus(home / "prometheus", [router], targets, rules, collector)
        engine = self.nodes.start(SimConfig("engine", models=(SimModel("agents:1b", size_gb=0.1),)))
        self.agent = Agent(home / "agent", "watched", engine.url, self.url)
        try:
            self.router.start()
            self.agent.start()
            self.join(*machines)
            self.prometheus.start()
            until(lambda: self.prometheus.query('up{job="herd-agents", node="watched"} == 1'), "the agent is scraped")
        except BaseException:
            self.stop()
            raise

    def join(self, *machines):
        """Let these join with times of their own, and wait until they are online."""
        for machine in machines:
            self.nodes.start(dataclasses.replace(machine, router_url=self.url, interval_s=0.3, keep_alive_s=1e9))
        until(lambda: self.router.online() == len(self.nodes.nodes), "all nodes are online")

    def send(self, asks, at_once=8):
        """Send requests and wait for their ends."""
        return asyncio.run(send(self.url, asks, at_once))

    def stop(self):
        """End everything, in the order that loses nothing."""
        self.prometheus.stop()
        self.agent.stop()
        self.nodes.stop()
        self.router.stop()
        self.collector.stop()


def a_mixed_morning(seed):
    """Requests of every kind, with loads, fallbacks, mistakes and clients that leave among them."""
    loads = [
        ask("/api/chat", model="cold:3b", messages=HELLO, keep_alive=0, headers={"X-Herd-Tags": "prod"}),
        ask("/v1/chat/completions", model="slow:1b", messages=HELLO, stream=True),
    ]
    return [*mixed(120, seed), *loads]


@pytest.fixture(scope="module")
def observed(tmp_path_factory):
    """Three machines under mixed traffic with faults, long enough that every rate has its samples."""
    assert shutil.which("prometheus"), "Debian's package prometheus is needed: `make tools`"
    environment = {"HERD_METRIC_TAGS": "20"}
    fleet = Observed(tmp_path_factory.mktemp("observed"), MACHINES, RULES, **environment)
    for seed in range(2):
        for node in ("studio", "gpu-box"):
            fleet.nodes.script(node, Fault(FaultKind.HTTP_500), Fault(FaultKind.CUT), Fault(FaultKind.BUSY_503))
        fleet.send(a_mixed_morning(seed))
        fleet.prometheus.scraped()
    # One request runs on while the panels are looked at, so that those about running requests have one.
    fleet.nodes.script("gpu-box", Fault(FaultKind.HANG_BEFORE_HEADERS, model="gemma3:4b"))
    running = threading.Thread(target=fleet.send, args=([ask("/api/chat", model="gemma3:4b", messages=HELLO)],))
    running.start()
    until(lambda: fleet.prometheus.query("sum(herd_requests_in_flight) > 0"), "a running request")
    fleet.at = time.time()  # panels are looked at as they were now, however long the tests take
    yield fleet
    fleet.nodes.clear()
    running.join(20)
    fleet.stop()
