"""A real router process for tests, and the patience to wait for what it does."""

import asyncio
import json
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import httpx

from herd.security.local_code import found
from herd.sim import Fault, SimConfig, SimNode

T = TypeVar("T")
DEADLINE_S = 60.0
POLL_S = 0.02
# Below those that systems give to outgoing connections, which could take a port before whoever it is meant for.
PORTS = range(20_000, 32_000)
DICE = random.SystemRandom()  # processes that test side by side seed the usual one alike


def free_port() -> int:
    """A port on loopback that nobody listens on, and that nobody is given who asks for any."""
    while True:
        port = DICE.choice(PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def until(condition: Callable[[], T], what: str, deadline_s: float = DEADLINE_S) -> T:
    """What the condition gives once it is true; fails with `what` at the deadline."""
    end = time.monotonic() + deadline_s
    waiter = socket.socketpair()
    try:
        waiter[0].settimeout(POLL_S)
        while not (found := condition()):
            assert time.monotonic() < end, f"not within {deadline_s:g} s: {what}"
            try:
                waiter[0].recv(1)
            except TimeoutError:
                continue
        return found
    finally:
        for end_point in waiter:
            end_point.close()


async def eventually(condition: Callable[[], T], what: str, deadline_s: float = DEADLINE_S) -> T:
    """The same within an event loop that has other work, such as simulated nodes."""
    end = time.monotonic() + deadline_s
    while not (found := await asyncio.to_thread(condition)):
        assert time.monotonic() < end, f"not within {deadline_s:g} s: {what}"
        await asyncio.sleep(POLL_S)
    return found


def _sum(exposition: str, name: str, labels: dict[str, str]) -> float:
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    lines = [line for line in exposition.splitlines() if line.startswith((name + "{", name + " "))]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if all(item in line for item in wanted))


HOMES: dict[str, Path] = {}  # the data directory of each router that a test made, by its URL


class Router:
    """One `python -m herd` with a home of its own; `data_dir` is `<home>/.fleet-manager`."""

    def __init__(self, home: Path, port: int, **environment: str) -> None:
        self.home, self.port = home, port
        self.data_dir = home / ".fleet-manager"
        self.url = f"http://127.0.0.1:{port}"
        self.database = self.data_dir / "latency.db"
        self.log = self.data_dir / "logs" / "herd.jsonl"
        HOMES[self.url] = self.data_dir
        self._environment = environment
        self.command = [sys.executable, "-m", "herd"]
        self.process: subprocess.Popen[bytes] | None = None

    def environment(self) -> dict[str, str]:
        """The environment of the process and of commands about it."""
        own = {"HOME": str(self.home), "HERD_PORT": str(self.port), "PYTHONWARNINGS": "ignore"}
        return {**os.environ, **own, **self._environment}

    def start(self) -> None:
        """Start, and wait until it is ready."""
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / "stderr.txt").open("ab") as stderr:
            self.process = subprocess.Popen(self.command, env=self.environment(), stderr=stderr, stdout=stderr)
        until(self._ready, f"the router is ready; it said: {self.stderr()[-2000:]}")

    def stop(self, kind: signal.Signals = signal.SIGTERM) -> int:
        """End it by its process id; returns the exit code."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(kind)
        try:
            code = self.process.wait(45)
        finally:
            self.process.kill()
            self.process = None
        return code

    def stderr(self) -> str:
        """What the process said on its terminal."""
        path = self.home / "stderr.txt"
        return path.read_text(errors="replace") if path.exists() else ""

    def get(self, path: str) -> Any:
        """The JSON of a GET."""
        return httpx.get(self.url + path, timeout=10).raise_for_status().json()

    def rows(self, where: str = "1=1", *values: object) -> list[dict[str, Any]]:
        """The rows of request_traces, oldest first."""
        if not self.database.exists():
            return []
        connection = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True)
        connection.row_factory = sqlite3.Row
        try:
            found = connection.execute(f"SELECT * FROM request_traces WHERE {where} ORDER BY id", values)
            return [dict(row) for row in found]
        finally:
            connection.close()

    def lines(self, event: str | None = "request_finished") -> list[dict[str, Any]]:
        """The lines of herd.jsonl, by event; all with None."""
        text = self.log.read_text() if self.log.exists() else ""
        found = [json.loads(line) for line in text.splitlines() if line.strip()]
        return [line for line in found if event is None or line["event"] == event]

    def told(self, request_id: str) -> list[dict[str, Any]]:
        """All lines of a request that is over, its last one waited for: rows and lines are written side by side."""

        def found() -> list[dict[str, Any]]:
            return [line for line in self.lines(None) if line.get("request_id") == request_id]

        until(lambda: [line for line in found() if line["event"] == "request_finished"], f"a line of {request_id}")
        return found()

    def row(self, request_id: str) -> dict[str, Any]:
        """The row of a request, waited for."""
        return until(lambda: self.rows("request_id = ?", request_id), f"a row of {request_id}")[0]

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry these labels."""
        return _sum(httpx.get(self.url + "/metrics", timeout=10).text, name, labels)

    def beat(self, content: str | bytes) -> httpx.Response:
        """Post a heartbeat as a program of this user may for nodes that have no key: with the router's local code."""
        headers = {"Authorization": f"Bearer {found(self.data_dir)}"}
        return httpx.post(f"{self.url}/heartbeat", content=content, headers=headers, timeout=20)

    def online(self) -> int:
        """How many nodes are online."""
        return sum(node["status"] == "online" for node in self.get("/fleet/status")["nodes"])

    def _ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"the router ended: {self.stderr()[-2000:]}"
        try:
            return httpx.get(self.url + "/readyz", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False


class Agent:
    """One `herd-node` with a home of its own, beside an engine; `metrics` is where it serves them."""

    def __init__(self, home: Path, node_id: str, engine: str, router: str, *options: str, **environment: str) -> None:
        self.home = home
        self.metrics = f"127.0.0.1:{free_port()}"
        self._options = (
            "--node-id", node_id, "--ollama-host", engine, "--router-url", router, "--data-dir", str(home),
            "--interval", "0.3", "--metrics-bind", self.metrics, *options,
        )  # fmt: skip
        code = {"HERD_JOIN_FILE": str(HOMES[router] / "local.code")} if router in HOMES else {}
        self._environment = {**os.environ, **code, **environment}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start; it joins the fleet by itself."""
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / "said.txt").open("ab") as said:
            command = [sys.executable, "-m", "node", *self._options]
            self.process = subprocess.Popen(command, env=self._environment, stdout=said, stderr=said)

    def stop(self, kind: signal.Signals = signal.SIGTERM) -> int:
        """End it by its process id; returns the exit code."""
        if self.process is None:
            return 0
        self.process.send_signal(kind)
        try:
            return self.process.wait(20)
        finally:
            self.process.kill()
            self.process = None

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that carry these labels."""
        return _sum(self.exposition(), name, labels)

    def exposition(self) -> str:
        """What it serves."""
        return httpx.get(f"http://{self.metrics}/metrics", timeout=10).text


class Nodes:
    """Simulated nodes on an event loop in a thread of its own, so that plain tests may talk to them."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.nodes: dict[str, SimNode] = {}

    def start(self, config: SimConfig) -> SimNode:
        """Start a node; with `router_url` in its config it reports there."""
        node = SimNode(replace(config, router_home=HOMES.get(config.router_url or "")))
        self.call(node.start())
        self.nodes[config.node_id] = node
        return node

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the nodes' loop and give what it gives."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(DEADLINE_S)

    def script(self, node_id: str, *faults: Fault) -> None:
        """Have a node fail as scripted."""

        async def on_its_loop() -> None:
            self.nodes[node_id].script(*faults)

        self.call(on_its_loop())

    def clear(self) -> None:
        """All nodes are well again."""
        for node in self.nodes.values():
            self.call(node.clear())

    def stop(self) -> None:
        """Stop all nodes, then the loop."""
        for node in self.nodes.values():
            self.call(node.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE_S)
        self._loop.close()
