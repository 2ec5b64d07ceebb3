"""The command line as a user has it: a process with a home of its own, and a router with some history to ask about."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from herd.cli import main
from herd.sim import Fault, FaultKind, SimConfig, SimModel
from tests.harness import Nodes, Router, free_port, until

ROOT = Path(__file__).parents[2]
HELLO = [{"role": "user", "content": "Hello"}]
LLAMA, QWEN = SimModel("llama3.2:3b"), SimModel("qwen3:8b", size_gb=5.2)
UGLY = "bad[red]word[/bold]"


@dataclass
class Herd:
    """Runs `python -m herd` in a home where nothing is, with a port at which nothing answers unless a test says so."""

    home: Path
    port: int

    @property
    def data_dir(self):
        return self.home / ".fleet-manager"

    def environment(self, **extra):
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("HERD_")}
        own = {"HOME": str(self.home), "HERD_PORT": str(self.port), "PYTHONWARNINGS": "ignore", "NO_COLOR": ""}
        return {**inherited, **own, **extra}

    def start(self, *arguments, **extra):
        """A process that is not waited for."""
        command = [sys.executable, "-m", "herd", *arguments]
        environment = self.environment(**extra)
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def __call__(self, *arguments, **extra):
        """A process that has ended."""
        process = self.start(*arguments, **extra)
        out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture
def inside(capsys):
    """The command line called in this process: the same code without the price of a process."""

    def run(*arguments):
        code = main(arguments)
        said = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, said.out, said.err)

    return run


@pytest.fixture
def herd(tmp_path):
    """The command line of somebody who has started nothing yet."""
    return Herd(tmp_path / "home", free_port())


@dataclass
class Served:
    """A router with two nodes and a history; `herd` is the command line on its machine."""

    router: Router
    nodes: Nodes
    herd: Herd

    @property
    def url(self):
        return self.router.url

    def ask(self, request_id, model="llama3.2:3b", **body):
        """One chat that is not streamed unless the body says so."""
        headers = {"X-Request-Id": request_id} if request_id else {}
        body = {"model": model, "messages": HELLO, "stream": False, **body}
        return httpx.post(f"{self.url}/api/chat", json=body, headers=headers, timeout=20)


@pytest.fixture(scope="session")
def served(tmp_path_factory):
    """A fleet with a request of each kind on record; tests of the command line only read it."""
    home = tmp_path_factory.mktemp("served")
    router = Router(home, free_port())
    router.start()
    fleet = Served(router, Nodes(), Herd(home, router.port))
    for name, models, loaded in (("big", (LLAMA, QWEN), ("llama3.2:3b",)), ("small", (LLAMA,), ())):
        fleet.nodes.start(SimConfig(name, models=models, preload=loaded, keep_alive_s=1e9, router_url=fleet.url))
    until(lambda: router.online() == 2, "both nodes are online")
    make_history(fleet)
    yield fleet
    fleet.nodes.stop()
    router.stop()


def make_history(fleet):
    """Eleven requests: completed, streamed, fallen back, retried, failed, rejected."""
    nodes = fleet.nodes.nodes
    fleet.ask(None)
    for number in range(4):
        fleet.ask(f"chat-{number}", stream=number > 1, metadata={"tags": ["prod", "review"]})
    fleet.ask("qwen-1", model="qwen3:8b")
    fleet.ask("fallback-1", model="absent:1b", fallback_models=["llama3.2:3b"])
    fleet.ask("unknown-1", model="nope:1b")
    fleet.ask("ugly-1", model=UGLY)
    nodes["big"].script(Fault(FaultKind.HTTP_500, times=1))
    fleet.ask("retried-1")
    for node in nodes.values():
        node.script(Fault(FaultKind.HTTP_500, times=1))
    fleet.ask("failed-1")
    for node in nodes.values():
        fleet.nodes.call(node.clear())
    until(lambda: len(fleet.router.rows()) == 11, "eleven rows are there")
    until(lambda: len(fleet.router.lines()) == 11, "eleven lines are there")
