"""A fleet for the tests of the whole: one router process and three simulated nodes."""

import pytest

from herd.sim import SimConfig, SimModel
from tests.harness import Nodes, Router, free_port, until

LLAMA = SimModel("llama3.2:3b", size_gb=2.0)
QWEN = SimModel("qwen3:8b", size_gb=5.2, family="qwen3", capabilities=("completion", "tools", "thinking"))
VISION = SimModel("gemma3:4b", size_gb=3.3, family="gemma3", capabilities=("completion", "vision"))
EMBED = SimModel("nomic-embed-text", size_gb=0.27, family="nomic-bert", capabilities=("embedding",))
LARGE = SimModel("llama3.3:70b", size_gb=43.0)
MACHINES = (
    SimConfig("studio", memory_gb=192, models=(LARGE, LLAMA, QWEN, EMBED), preload=("llama3.3:70b", "llama3.2:3b")),
    SimConfig("gpu-box", memory_gb=64, vram_gb=24, models=(LLAMA, QWEN, VISION), preload=("qwen3:8b",)),
    SimConfig("mini", memory_gb=16, models=(LLAMA, EMBED), preload=("llama3.2:3b", "nomic-embed-text")),
)
# Slow enough that a client can leave in the middle of an answer.
SLOW = SimConfig("slow", memory_gb=16, tokens_per_s=100, load_bytes_per_s=0, models=(SimModel("slow:1b", size_gb=1.0),))


class Fleet:
    """A router and its nodes."""

    def __init__(self, router: Router, nodes: Nodes) -> None:
        self.router = router
        self.nodes = nodes
        self.url = router.url

    def join(self, *machines: SimConfig) -> None:
        """Let these machines join, and wait until they are online."""
        for machine in machines:
            values = {name: getattr(machine, name) for name in machine.__slots__}
            # What is loaded stays, however long a module of tests takes.
            fixed = {"router_url": self.url, "frozen_time": True, "keep_alive_s": 1e9}
            self.nodes.start(SimConfig(**{**values, **fixed}))
        until(lambda: self.router.online() == len(self.nodes.nodes), "all nodes are online")


def started(home, *machines, **environment):
    """A fleet with these machines."""
    fleet = Fleet(Router(home, free_port(), **environment), Nodes())
    fleet.router.start()
    fleet.join(*machines)
    return fleet


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """Three machines for a whole module of tests."""
    running = started(tmp_path_factory.mktemp("fleet"), *MACHINES)
    yield running
    running.nodes.stop()
    running.router.stop()


@pytest.fixture
def lonely(tmp_path):
    """A router that no node has joined; tests let some join."""
    running = started(tmp_path / "lonely")
    yield running
    running.nodes.stop()
    running.router.stop()
