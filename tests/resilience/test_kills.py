"""kill -9 of an engine, a whole node, an agent and the router, each under 64 streams: what must hold afterwards."""

import asyncio
import itertools
import json
import sqlite3
from contextlib import closing, contextmanager

import httpx
import pytest

from tests.harness import Router, free_port, until
from tests.resilience.processes import Module, footprint
from tests.resilience.streams import Stream, at_once

COUNT = 64
MEMORY = 16 * 2**20
# Long enough that no node is lost by chance: it would come back with a single slot.
QUICK = {"HERD_HEARTBEAT_DEGRADED_S": "3", "HERD_HEARTBEAT_OFFLINE_S": "4"}
PACE = ("--slots", "100", "--tokens-per-s", "30", "--load-bytes-per-s", "0", "--memory-gb", "64")
PARTS = {"box": ("engine", "agent"), "sim": ("sim",)}
NUMBERS = itertools.count()


class Fleet:
    """A router, an engine with its agent beside it (`box`), and a node that is one process (`sim`)."""

    def __init__(self, home) -> None:
        self.router = Router(home / "router", free_port(), **QUICK)
        self.ports = {"box": free_port(), "sim": free_port()}
        engine = ("herd.sim", "--node-id", "box", "--port", str(self.ports["box"]), "--model", "box:1b=1", *PACE)
        node = ("herd.sim", "--node-id", "sim", "--port", str(self.ports["sim"]), "--model", "sim:1b=1", *PACE,
                "--router", self.router.url, "--interval", "0.3",
                "--router-home", str(self.router.data_dir))  # fmt: skip
        agent = ("node", "--node-id", "box", "--router-url", self.router.url, "--interval", "0.3",
                 "--ollama-host", self.url("box"), "--data-dir", str(home / "agent"), "--slots", "100")  # fmt: skip
        self.processes = {
            name: Module(home / f"{name}.txt", *command, HERD_JOIN_FILE=str(self.router.data_dir / "local.code"))
            for name, command in {"engine": engine, "sim": node, "agent": agent}.items()
        }

    def start(self) -> None:
        self.router.start()
        for process in self.processes.values():
            process.start()
        until(lambda: self.there("box") and self.there("sim"), "both nodes are online")

    def stop(self) -> None:
        for process in self.processes.values():
            process.kill()
        self.router.stop()

    def url(self, name):
        return f"http://127.0.0.1:{self.ports[name]}"

    def there(self, node_id):
        """Whether a node takes requests: its agent is heard and its engine lists its model."""
        nodes = {node["node_id"]: node for node in self.router.get("/fleet/status")["nodes"]}
        found = nodes.get(node_id)
        return bool(found and found["status"] == "online" and found["ollama"]["models_available"])

    def busy(self, name):
        return sum(httpx.get(self.url(name) + "/sim/state", timeout=10).json()["in_flight"].values())

    def streams(self, model, count, words=lambda _: 90):
        return [Stream(f"s{next(NUMBERS)}", model, words(number)) for number in range(count)]

    def play(self, streams, meanwhile=lambda: None):
        asyncio.run(at_once(self.router.url, streams, meanwhile))

    def rows(self, streams):
        wanted = {stream.request_id for stream in streams}

        def found():
            return {row["request_id"]: row for row in self.router.rows() if row["request_id"] in wanted}

        return until(lambda: len(rows := found()) == len(wanted) and rows, "every request has its row")

    def events(self, node_id):
        return [line["event"] for line in self.router.lines(None) if line.get("node_id") == node_id]

    def rejoin(self, node_id):
        """Let a node join as a new one: one that comes back from the dead is given work by and by."""
        for name in PARTS[node_id]:
            self.processes[name].kill()
        until(lambda: node_id in self.lost(), "the node is lost")
        assert httpx.delete(f"{self.router.url}/fleet/nodes/{node_id}", timeout=10).status_code == 200
        for name in PARTS[node_id]:
            self.processes[name].start()
        until(lambda: self.there(node_id), "it is back")

    def lost(self):
        return {node["node_id"] for node in self.router.get("/fleet/status")["nodes"] if node["status"] == "offline"}

    @contextmanager
    def as_before(self):
        """Whatever happens inside, the router holds no more afterwards than it did after a load without trouble."""
        self.play([*self.streams("sim:1b", COUNT // 2, lambda _: 3), *self.streams("box:1b", COUNT // 2, lambda _: 3)])
        self.at_rest()
        before = footprint(self.router, *self.ports.values())
        yield
        self.at_rest()
        found = []

        def fits():
            found[:] = [footprint(self.router, *self.ports.values())]
            return found[0].fits(before, MEMORY)

        until(fits, f"the router is as it was: {before}, now {found}")

    def at_rest(self):
        active = self.router.get
        until(lambda: active("/fleet/status")["fleet"]["requests_active"] == 0, "nothing is in flight")
        assert self.router.metric("herd_requests_in_flight") == 0
        until(lambda: not self.busy("box") and not self.busy("sim"), "no node works on anything")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    """One for all: whoever is killed is there again at the end of the test."""
    running = Fleet(tmp_path_factory.mktemp("kills"))
    try:
        running.start()
        yield running
    finally:
        running.stop()


@pytest.mark.parametrize(("name", "node_id"), [("sim", "sim"), ("engine", "box")])
def test_a_killed_node_costs_its_own_streams_each_with_a_word_and_no_other(fleet, name, node_id):
    """Half an answer must never pass for a whole one, and the other machine's clients notice nothing."""
    lost = fleet.streams(f"{node_id}:1b", COUNT - 4, lambda _: 900)  # none may be over before the kill
    kept = fleet.streams("box:1b" if node_id == "sim" else "sim:1b", 4)
    with fleet.as_before():
        fleet.play([*lost, *kept], fleet.processes[name].kill)
        rows = fleet.rows([*lost, *kept])
        assert {(rows[stream.request_id]["status"], stream.whole) for stream in kept} == {("completed", True)}
        for stream in lost:
            row = rows[stream.request_id]
            assert (row["status"], row["error_type"], stream.broken) == ("incomplete", "stream_aborted", False)
            assert node_id in stream.last["error"]
        until(lambda: not fleet.there(node_id), "the fleet knows")
        until(lambda: {"node_lost", "engine_lost"} & {*fleet.events(node_id)}, "the log tells")
        fleet.rejoin(node_id)
    told = [line["event"] for line in fleet.router.told(lost[0].request_id)]
    assert told == ["attempt_failed", f"Stream error from {node_id}: stream_aborted", "request_finished"]
    until(lambda: _whole(fleet, f"{node_id}:1b"), "it serves again")


def _whole(fleet, model):
    (stream,) = streams = fleet.streams(model, 1, lambda _: 2)
    body = {"model": model, "messages": [{"role": "user", "content": "Write 2 words."}]}
    answer = httpx.post(f"{fleet.router.url}/api/chat", json=body, headers={"X-Request-Id": stream.request_id})
    return answer.status_code == 200 and bool(fleet.rows(streams))


def test_a_killed_agent_costs_no_stream_only_new_requests_until_it_is_back(fleet):
    """The agent tells about a node; what its engine is answering does not pass through it."""
    streams = fleet.streams("box:1b", COUNT)

    def kill_and_wait():
        fleet.processes["agent"].kill()
        until(lambda: "box" in fleet.lost(), "nobody vouches for the node any more")

    with fleet.as_before():
        fleet.play(streams, kill_and_wait)
        assert all(stream.whole for stream in streams)
        assert {row["status"] for row in fleet.rows(streams).values()} == {"completed"}
        refused = httpx.post(fleet.router.url + "/api/generate", json={"model": "box:1b", "prompt": "x"})
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")
        assert "box: offline" in refused.json()["error"]
        fleet.rejoin("box")


def test_a_killed_router_keeps_every_row_that_could_be_read_and_leaves_no_gap(fleet):
    """What was once shown to an operator is never taken back, and only the last moment may be missing."""
    streams = [*fleet.streams("sim:1b", 32, lambda n: 5 + 4 * n), *fleet.streams("box:1b", 32, lambda n: 5 + 4 * n)]
    read = []

    def kill_in_the_middle():
        until(lambda: sum(row["request_id"] in names for row in fleet.router.rows()) >= 20, "a third is done")
        read.extend(fleet.router.rows())
        fleet.router.process.kill()
        fleet.router.process.wait(10)

    names = {stream.request_id for stream in streams}
    fleet.play(streams, kill_in_the_middle)
    with closing(sqlite3.connect(fleet.router.database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    rows = fleet.router.rows()
    assert rows[: len(read)] == read
    kept = [row["request_id"] for row in rows]
    said = [line["request_id"] for line in fleet.router.lines()]
    shared = min(len(kept), len(said))
    assert kept[:shared] == said[:shared], "rows and lines are written in the order of the ends"
    assert all(stream.broken for stream in streams if not stream.whole), "no end that looks like a proper one"
    assert sum(stream.broken for stream in streams) >= 10
    _come_back(fleet, rows)


def _come_back(fleet, rows):
    """The next start serves with the fleet back, nothing in flight, and the old rows where they were."""
    with fleet.router.log.open("ab") as log:
        log.write(b'{"timestamp": "2026-01-01T00:00:00')  # where the kill cut a line
    fleet.router.start()
    until(lambda: fleet.there("box") and fleet.there("sim"), "the fleet is back")
    fleet.at_rest()
    with fleet.as_before():
        assert _whole(fleet, "sim:1b")
        assert _whole(fleet, "box:1b")
    assert fleet.router.rows()[: len(rows)] == rows
    lines = fleet.router.log.read_bytes().splitlines()
    (half,) = [line for line in lines if not line.endswith(b"}")]
    assert half.startswith(b'{"timestamp": "2026-01-01')
    assert all(json.loads(line) for line in lines if line != half), "the next start begins a line of its own"
    fleet.router.log.write_bytes(b"".join(line + b"\n" for line in lines if line != half))
