"""Minutes of mixed traffic under random faults, what the router holds before and after: `python -m benchmarks.soak`.

Ends with 1 where something does not come back to where it was, where a client's connection broke, or where rows, log
and metrics do not agree. The faults are those of `tests/resilience`; those that lose records on purpose (a full log
disk, a deleted database) are left to its tests, as the records could not agree afterwards.
"""

import argparse
import asyncio
import random
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import httpx

from herd.core.events import Status
from herd.sim import Fault, FaultKind, SimConfig, SimModel
from tests.e2e.conftest import MACHINES, SLOW
from tests.e2e.traffic import Ask, mixed
from tests.harness import free_port, until
from tests.resilience.processes import Footprint, Module, footprint
from tests.resilience.proxy import FLOW, Proxy, Rule
from tests.resilience.records import MODEL, Records

WARM_UP_S = 15.0
LOOKS = 6  # at memory under way: a leak grows in each, caches in the first
SETTLE_S = 90.0
MIB = 2**20
AT_ONCE = 16
MORE_FDS = 4  # a connection to the collector, or one of a database that is just being read
MORE_THREADS = 8  # pools fill as they are used
SETTINGS = {
    "HERD_FIRST_BYTE_TIMEOUT_S": "4", "HERD_STALL_TIMEOUT_S": "3", "HERD_TOTAL_TIMEOUT_S": "15",
    "HERD_LOAD_TIMEOUT_S": "4", "HERD_QUEUE_TIMEOUT_S": "5", "HERD_HEARTBEAT_DEGRADED_S": "3",
    "HERD_HEARTBEAT_OFFLINE_S": "5",
}  # fmt: skip
KINDS = (
    FaultKind.HTTP_500, FaultKind.BUSY_503, FaultKind.RESET, FaultKind.CLOSE_IDLE, FaultKind.CUT, FaultKind.HALF_CLOSE,
    FaultKind.ERROR_LINE, FaultKind.NO_DONE, FaultKind.MALFORMED_JSON, FaultKind.WRONG_CONTENT_LENGTH,
    FaultKind.HANG_BEFORE_HEADERS, FaultKind.HANG_MID_STREAM, FaultKind.HTTP_404_MODEL, FaultKind.SLOW_DRIP,
)  # fmt: skip


@dataclass
class Tally:
    """What clients saw: answers by status, those that they left, and connections that the router broke."""

    answers: Counter[int] = field(default_factory=Counter)
    left: int = 0
    broken: int = 0

    @property
    def requests(self) -> int:
        """All of them."""
        return self.answers.total() + self.left + self.broken

    def told(self) -> str:
        """The figures as one line."""
        by_status = ", ".join(f"{count:,} {status}" for status, count in sorted(self.answers.items()))
        return f"{self.requests:,} requests: {by_status}; left by their client {self.left:,}; broken {self.broken}"


class Stage:
    """A router with its collector, six nodes of which one is behind a faulty wire, and an engine with an agent."""

    def __init__(self, home: Path, seed: int) -> None:
        self.dice = random.Random(seed)
        self.records = Records(home / "router", **SETTINGS)
        self.router, self.nodes = self.records.router, self.records.fleet.nodes
        self.proxy = Proxy()
        self.memory: list[int] = []
        self._engine_port = free_port()
        url = f"http://127.0.0.1:{self._engine_port}"
        engine = ("herd.sim", "--node-id", "box", "--port", str(self._engine_port), "--model", "llama3.2:3b=2",
                  "--model", "qwen3:8b=5", "--tokens-per-s", "500", "--load-bytes-per-s", "0")  # fmt: skip
        agent = ("node", "--node-id", "box", "--router-url", self.router.url, "--interval", "1", "--ollama-host", url,
                 "--data-dir", str(home / "agent"))  # fmt: skip
        self.modules = {
            "engine": Module(home / "engine.txt", *engine),
            "agent": Module(home / "agent.txt", *agent, HERD_JOIN_FILE=str(self.router.data_dir / "local.code")),
        }

    def start(self) -> None:
        """Start everything, and wait until all nodes are there."""
        self.records.start()
        self.proxy.start()
        wired = SimConfig("wired", models=(MODEL, SimModel("qwen3:8b", 5.2)), advertised_url=self.proxy.url)
        self.records.fleet.join(*MACHINES, SLOW, wired)
        self.proxy.target = self.nodes.nodes["wired"].port
        for module in self.modules.values():
            module.start()
        until(lambda: self.router.online() == len(self.nodes.nodes) + 1, "all nodes are online")

    def stop(self) -> int:
        """End everything; returns the router's exit code."""
        for module in self.modules.values():
            module.kill()
        code = self.router.stop()
        self.records.stop()
        self.proxy.stop()
        return code

    def footprint(self) -> Footprint:
        """What the router holds now."""
        ports = [node.port for node in self.nodes.nodes.values()]
        return footprint(self.router, self._engine_port, self.proxy.port, *ports)

    def troubles(self) -> dict[str, Callable[[], AbstractContextManager[None]]]:
        """Everything that may go wrong, by its name; each is over when its context is left."""
        return {
            "a node fails some of its requests": self._failing,
            "a node refuses connections": self._refusing,
            "a node crashes and comes back": self._crash,
            "an engine is killed (kill -9)": lambda: self._killed("engine"),
            "an agent is killed (kill -9)": lambda: self._killed("agent"),
            "a wire resets": lambda: self._wire(Rule("reset", 1000)),
            "a wire is cut": lambda: self._wire(Rule("cut", 600)),
            "a wire closes one way": lambda: self._wire(Rule("half_close", 600)),
            "a wire passes nothing": lambda: self._wire(Rule("partition", 300)),
            "a node is drained": self._drained,
            "the database is locked": self.records.locked,
            "the database is of a newer herd": self.records.of_a_newer_herd,
            "the collector refuses": self.records.collector_refuses,
            "the collector hangs": self.records.collector_hangs,
            "the collector answers 500": self.records.collector_answers_500,
        }

    def _any_node(self) -> str:
        return self.dice.choice(sorted(self.nodes.nodes))

    @contextmanager
    def _failing(self) -> Iterator[None]:
        kinds = self.dice.sample(KINDS, 4)
        name = self._any_node()
        self.nodes.script(name, *(Fault(kind, times=None, probability=0.1, seconds=5) for kind in kinds))
        yield
        self.nodes.call(self.nodes.nodes[name].clear())

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        name = self._any_node()
        self.nodes.script(name, Fault(FaultKind.REFUSED))
        yield
        self.nodes.call(self.nodes.nodes[name].clear())

    @contextmanager
    def _crash(self) -> Iterator[None]:
        node = self.nodes.nodes[self._any_node()]
        self.nodes.call(node.kill())
        yield
        values = {name: getattr(node.config, name) for name in node.config.__slots__}
        self.nodes.start(SimConfig(**{**values, "port": node.port}))

    @contextmanager
    def _killed(self, name: str) -> Iterator[None]:
        self.modules[name].kill()
        yield
        self.modules[name].start()

    @contextmanager
    def _wire(self, rule: Rule) -> Iterator[None]:
        self.proxy.set(rule)
        yield
        self.proxy.set(FLOW)

    @contextmanager
    def _drained(self) -> Iterator[None]:
        drain = f"{self.router.url}/fleet/nodes/{self._any_node()}/drain"
        httpx.post(drain, timeout=10).raise_for_status()
        yield
        httpx.post(drain, params={"draining": "false"}, timeout=10).raise_for_status()


class Traffic:
    """Clients that send requests without a pause until they are stopped."""

    def __init__(self, url: str, seed: int) -> None:
        self._url = url
        self._seed = seed
        self._waiting: list[Ask] = []
        self.tally = Tally()

    async def run(self, until_s: float) -> None:
        """Ask until the monotonic clock says so, and then read the last answers to their end."""
        timeout = aiohttp.ClientTimeout(total=60)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
            await asyncio.gather(*(self._client(session, until_s) for _ in range(AT_ONCE)))

    async def _client(self, session: aiohttp.ClientSession, until_s: float) -> None:
        while time.monotonic() < until_s:
            if not self._waiting:
                self._seed += 1
                self._waiting = mixed(1000, self._seed)
            await self._one(session, self._waiting.pop())

    async def _one(self, session: aiohttp.ClientSession, ask: Ask) -> None:
        try:
            async with session.post(self._url + ask.path, data=ask.body, headers=ask.headers) as answer:
                if ask.leave and answer.status == 200:
                    await answer.content.readany()
                    answer.close()
                    self.tally.left += 1
                else:
                    await answer.read()
                    self.tally.answers[answer.status] += 1
        except (aiohttp.ClientError, TimeoutError):
            self.tally.broken += 1


def trouble(stage: Stage, until_s: float) -> Counter[str]:
    """One fault after the other, each for some seconds and some of them two at a time; returns how often which."""
    played: Counter[str] = Counter()
    troubles = stage.troubles()
    while time.monotonic() < until_s:
        first, second = stage.dice.sample(sorted(troubles), 2)
        with troubles[first]():
            time.sleep(stage.dice.uniform(0.5, 3))
            played[first] += 1
            if {first, second}.isdisjoint({"the database is locked", "the database is of a newer herd"}):
                with troubles[second]():
                    time.sleep(stage.dice.uniform(0.5, 3))
                    played[second] += 1
        stage.records.collector.spans.clear()
        time.sleep(stage.dice.uniform(0, 1))
    return played


async def soak(stage: Stage, seconds: float, seed: int) -> tuple[Footprint, Tally, Tally, Counter[str]]:
    """Warm up, measure, let go wrong what may; returns what was before, what clients saw, and what went wrong."""
    warm = Traffic(stage.router.url, seed)
    await warm.run(time.monotonic() + WARM_UP_S)
    before = await asyncio.to_thread(settled, stage, None, 0)
    traffic, until_s = Traffic(stage.router.url, seed + 1_000_000), time.monotonic() + seconds
    _, played, _ = await asyncio.gather(
        traffic.run(until_s), asyncio.to_thread(trouble, stage, until_s), watch(stage, seconds)
    )
    return before, warm.tally, traffic.tally, played


async def watch(stage: Stage, seconds: float) -> None:
    """Note the router's memory now and then."""
    for _ in range(LOOKS):
        await asyncio.sleep(seconds / LOOKS)
        stage.memory.append((await asyncio.to_thread(stage.footprint)).memory)


def settled(stage: Stage, before: Footprint | None, memory: int) -> Footprint:
    """The footprint once nothing flies and it is back where it was; else the one at the end of the patience."""
    end = time.monotonic() + (SETTLE_S if before else SETTLE_S / 6)
    while True:
        found = stage.footprint()
        resting = found.in_flight == 0
        if time.monotonic() >= end or (before and resting and not too_much(before, found, memory)):
            return found
        time.sleep(1)


def too_much(before: Footprint, after: Footprint, memory: int) -> list[str]:
    """What did not come back, in words."""
    limits = {
        "memory": before.memory + memory, "fds": before.fds + MORE_FDS, "tasks": before.tasks,
        "threads": before.threads + MORE_THREADS, "in_flight": 0,
    }  # fmt: skip
    return [f"{name}: {getattr(after, name):,}, limit {most:,}" for name, most in limits.items()
            if getattr(after, name) > most]  # fmt: skip


def by_status(stage: Stage) -> Counter[str]:
    """How many rows there are of each status."""
    return Counter(str(row["status"]) for row in stage.router.rows())


def by_metric(stage: Stage) -> Counter[str]:
    """The same as the counter says it, which `herd audit` does not compare for a database of this size."""
    counted = {status.value: int(stage.router.metric("herd_requests_total", status=status.value)) for status in Status}
    return Counter({status: count for status, count in counted.items() if count})


def show(before: Footprint, after: Footprint, stage: Stage, tallies: list[Tally], played: Counter[str]) -> None:
    """Print the figures of before and after."""
    print(f"{'':18}{'before':>12}{'after':>12}")
    print(f"{'memory, MiB':18}{before.memory / MIB:>12.1f}{after.memory / MIB:>12.1f}")
    for name, title in (("fds", "file descriptors"), ("tasks", "tasks"), ("threads", "threads"),
                        ("in_flight", "in flight")):  # fmt: skip
        print(f"{title:18}{getattr(before, name):>12}{getattr(after, name):>12}")
    print()
    say("memory under way, MiB", (f"{memory / MIB:.1f}" for memory in stage.memory))
    say("faults played", (f"{name} {count}" for name, count in sorted(played.items())))
    for title, tally in zip(("before them", "under them"), tallies, strict=True):
        say(title, [tally.told()])
    for title, counts in (("rows", by_status(stage)), ("metrics", by_metric(stage))):
        say(title, (f"{status} {count:,}" for status, count in sorted(counts.items())))
    names = ("herd_retries_total", "herd_breaker_transitions_total", "herd_zombies_reaped_total",
             "herd_spans_dropped_total", "herd_log_dropped_total", "herd_sink_failures_total")  # fmt: skip
    say("counters", (f"{name} {stage.router.metric(name):,.0f}" for name in names))


def say(title: str, figures: Iterable[str]) -> None:
    """Print figures behind their title, in lines that fit a page."""
    print(textwrap.fill(f"{title}: {', '.join(figures)}", 110, subsequent_indent="  "))


def wrong(stage: Stage, before: Footprint, after: Footprint, memory: int, tallies: list[Tally]) -> list[str]:
    """Everything that is not as it should be; runs the audit and prints what it says."""
    found = too_much(before, after, memory)
    command = [sys.executable, "-m", "herd", "audit", "--url", stage.router.url, "--data-dir"]
    audit = subprocess.run(
        [*command, str(stage.router.data_dir)], env=stage.router.environment(), capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    print(f"\nherd audit:\n{(audit.stdout + audit.stderr).strip()}\n")
    if audit.returncode:
        found.append("rows, log and metrics do not agree")
    requests, rows = sum(tally.requests for tally in tallies), len(stage.router.rows())
    if requests != rows:
        found.append(f"rows: {rows:,} for {requests:,} requests")
    if by_status(stage) != by_metric(stage):
        found.append("rows and herd_requests_total do not agree")
    found += [f"{tally.broken} connections broke" for tally in tallies if tally.broken]
    found += [name for name in ("herd_log_dropped_total", "herd_sink_failures_total") if stage.router.metric(name)]
    return found + (["a traceback in the log"] if '"exception"' in stage.router.log.read_text() else [])


def main(argv: list[str] | None = None) -> int:
    """Play, print, judge; 0 where everything came back to where it was."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600, help="how long faults are played (default: 600)")
    parser.add_argument("--seed", type=int, default=1, help="which faults and requests (default: 1)")
    parser.add_argument("--memory-mb", type=int, default=64, help="growth that is no leak (default: 64)")
    chosen = parser.parse_args(argv)
    memory = chosen.memory_mb * MIB
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(Path(folder), chosen.seed)
        try:
            stage.start()
            before, *seen, played = asyncio.run(soak(stage, chosen.seconds, chosen.seed))
            after = settled(stage, before, memory)
            print(f"{chosen.seconds:g} s of random faults, {AT_ONCE} clients, seed {chosen.seed}\n")
            show(before, after, stage, list(seen), played)
            found = wrong(stage, before, after, memory, list(seen))
        finally:
            code = stage.stop()
    found += [f"the router ended with {code}"] if code else []
    print("\n".join(["NOT as before:", *found]) if found else "everything is as it was")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
