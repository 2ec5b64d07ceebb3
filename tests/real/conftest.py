"""A fleet of real engines: Ollama and two llama.cpp servers, an agent beside each, one router.

`solo` is on Ollama alone, `cpp` and `slowcpp` on llama.cpp alone, `tiny` on both kinds. The slow ones are slow enough
that something can happen in the middle of an answer.
"""

import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import pytest

from tests.harness import Router, free_port, until
from tests.real.engines import ENGINES, TINY, Agent, LlamaServer, Ollama, Server

AUDIT = "test_the_four_records_agree_about_all_that_the_real_engines_served"
GENERATOR = Path(__file__).parents[2] / "scripts" / "make_tiny_gguf.py"
ONE_THREAD = "PARAMETER num_thread 1"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """The audit comes last, whatever the order of the others: it is about all of them."""
    items.sort(key=lambda item: item.name == AUDIT)


class Fleet:
    """A router, engines by node_id, and their agents."""

    def __init__(self, home: Path, **environment: str) -> None:
        self.home = home
        self.router = Router(home / "router", free_port(), **environment)
        self.url = self.router.url
        self.ollama = Ollama(home / "ollama")
        self.tiny = TINY
        self.llamas: dict[str, LlamaServer] = {}
        self.agents: dict[str, Agent] = {}

    def llama(self, node_id: str) -> LlamaServer:
        """A new llama.cpp server with a folder of its own; the caller starts it."""
        self.llamas[node_id] = LlamaServer(self.home / node_id)
        return self.llamas[node_id]

    def join(self, *options: str) -> None:
        """Start an agent with these options beside each engine, and wait until all are online."""
        self._join({"olla": self.ollama, **self.llamas}, *options)

    def join_llamas(self) -> None:
        """The same where there is no Ollama."""
        self._join(self.llamas)

    def _join(self, servers: Mapping[str, Server], *options: str) -> None:
        for node_id, server in servers.items():
            self.agents[node_id] = Agent(self.home / f"agent-{node_id}", node_id)
            self.agents[node_id].start(self.url, server, *options)
        until(lambda: self.router.online() == len(self.agents), "all nodes are online")

    def node(self, node_id: str) -> dict:
        """What the router says of a node."""
        return next(node for node in self.router.get("/fleet/status")["nodes"] if node["node_id"] == node_id)

    def events(self, kind: str) -> list[dict]:
        """The fleet events of a kind, oldest first."""
        with closing(sqlite3.connect(f"file:{self.router.database}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            found = connection.execute("SELECT * FROM fleet_events WHERE kind = ? ORDER BY id", (kind,))
            return [dict(row) for row in found]

    def audit(self) -> subprocess.CompletedProcess[str]:
        """`herd audit` of all that has happened, once nothing is in flight."""
        until(self.at_rest, "nothing is in flight")
        command = [sys.executable, "-m", "herd", "audit", "--url", self.url, "--data-dir", str(self.router.data_dir)]
        return subprocess.run(
            command, env=self.router.environment(), capture_output=True, text=True, timeout=60, check=False
        )

    def at_rest(self) -> bool:
        """Whether nothing is in flight and nothing waits."""
        status = self.router.get("/fleet/status")
        busy = [node["ollama"]["requests_active"] for node in status["nodes"]]
        return status["fleet"]["requests_active"] == 0 and not any(busy) and status["queues"] == {}

    def stop(self) -> None:
        """Stop everything that was started: agents, router, engines."""
        for process in self.agents.values():
            process.stop()
        self.router.stop()
        for server in (self.ollama, *self.llamas.values()):
            server.stop()


@pytest.fixture(scope="session")
def slow_model(tmp_path_factory):
    """A model that takes its time for a word, and whose answers only a limit ends."""
    assert TINY.exists(), f"no engines in {ENGINES}: run `make real`, or `bash scripts/build_engines.sh .engines`"
    path = tmp_path_factory.mktemp("models") / "slow.gguf"
    shape = ("--blocks", "16", "--width", "512", "--mean-length", "0")
    subprocess.run([ENGINES / "venv" / "bin" / "python", GENERATOR, path, *shape], check=True, timeout=60)
    return path


@pytest.fixture(scope="session")
def fleet(tmp_path_factory, slow_model):
    """Three nodes that no test breaks."""
    # An agent's regular heartbeat comes after all deadlines of the tests: what the router learns in time came at once.
    running = Fleet(tmp_path_factory.mktemp("real"), HERD_HEARTBEAT_DEGRADED_S="600", HERD_HEARTBEAT_OFFLINE_S="900")
    try:
        running.ollama.start(OLLAMA_NUM_PARALLEL="2")
        running.ollama.create("tiny", TINY, ONE_THREAD)
        running.ollama.create("solo", TINY, ONE_THREAD, "PARAMETER num_ctx 2048")
        running.ollama.create("slow", slow_model, ONE_THREAD, "PARAMETER num_ctx 2048")
        running.llama("cpp").start(TINY, "cpp", "tiny:latest", options=("--embeddings", "--pooling", "mean"))
        running.llama("slowcpp").start(slow_model, "slowcpp")
        running.router.start()
        running.join("--interval", "300")
        yield running
    finally:
        running.stop()
