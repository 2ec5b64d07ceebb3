"""Plays every cell of the fault matrix once, all at the same time, and keeps what was seen."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import aiohttp

from herd.sim import SimConfig, SimModel
from tests.e2e.conftest import Fleet
from tests.harness import Nodes, Router, free_port, until
from tests.resilience.dialects import PATHS, ask
from tests.resilience.faults import FAULTS, FINAL, OUTCOMES, Faulty, Outcome
from tests.resilience.proxy import Proxy
from tests.telemetry.otlp import OtlpReceiver, ReceivedSpan

WELL = "well"  # the second node, which holds the models of the cells that may be tried again
AT_ONCE = 12
QUICK = {
    "HERD_FIRST_BYTE_TIMEOUT_S": "2.5",
    "HERD_STALL_TIMEOUT_S": "2.5",
    "HERD_TOTAL_TIMEOUT_S": "4",
    "HERD_LOAD_TIMEOUT_S": "2.5",
    "HERD_RETRIES": "1",
    "HERD_RETRY_BUDGET_PCT": "100",  # those that time out do so at the same moment
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One request of the matrix; `nodes` is how many could answer it."""

    fault: str
    asked: str
    dialect: str
    nodes: int

    @property
    def stream(self) -> bool:
        """Whether it streams."""
        return self.asked == "stream"

    @property
    def model(self) -> str:
        """A model for this cell alone, so that its counters and its breaker are its own."""
        return f"{self.fault}-{self.asked}-{self.dialect}-{self.nodes}:1b"

    @property
    def end(self) -> str:
        """How the table says that the attempt at the failing node ends."""
        faulty = FAULTS[self.fault]
        if not self.stream:
            return faulty.whole
        return faulty.stream if self.dialect == "ollama" else faulty.v1_stream or faulty.stream

    @property
    def tried_again(self) -> bool:
        """Whether the second node answers in the end."""
        return self.nodes == 2 and self.end not in FINAL

    @property
    def attempt(self) -> Outcome:
        """What the table says of the attempt at the failing node."""
        return OUTCOMES[self.end]

    @property
    def stated(self) -> Outcome:
        """What the table says of the request."""
        if not self.tried_again:
            return self.attempt
        return replace(OUTCOMES["well"], log=(("WARNING", "attempt_failed"), *OUTCOMES["well"].log))

    def __str__(self) -> str:
        return f"{self.fault}-{self.asked}-{self.dialect}-{self.nodes}"


CELLS = [Cell(*cell) for cell in product(FAULTS, ("stream", "whole"), PATHS, (1, 2))]


@dataclass(frozen=True, slots=True)
class Seen:
    """What the client saw, and how to find the rest."""

    request_id: str
    status: int
    headers: dict[str, str]
    body: bytes


class Matrix:
    """A router, a node for every fault, one that is well, and a collector; `seen` has every cell's answer."""

    def __init__(self, home: Path) -> None:
        self.collector = OtlpReceiver()
        self.collector.start()
        batch = {"OTEL_BSP_MAX_QUEUE_SIZE": "50000", "OTEL_BSP_SCHEDULE_DELAY": "200"}
        router = Router(home, free_port(), OTEL_EXPORTER_OTLP_ENDPOINT=self.collector.url, **QUICK, **batch)
        self.fleet = Fleet(router, Nodes())
        self.proxies: dict[str, Proxy] = {}
        self.seen: dict[Cell, Seen] = {}
        self.spans: dict[str, list[ReceivedSpan]] = {}

    def play(self) -> None:
        """Send all requests, and wait for their rows and spans."""
        self.fleet.router.start()
        self.fleet.join(*self._machines())
        for name, proxy in self.proxies.items():
            proxy.target = self.fleet.nodes.nodes[name].port
        for name, faulty in FAULTS.items():
            if faulty.played:
                self.fleet.nodes.script(name, faulty.played)
        asyncio.run(self._ask_all())
        until(lambda: len(self.fleet.router.rows()) == len(CELLS), "every request has its row", 30)
        until(lambda: len(self.fleet.router.lines()) == len(CELLS), "every request has its line", 30)
        assert self.collector.wait_for(lambda found: len(servers(found)) == len(CELLS), 30), "every request has a span"
        for span in self.collector.spans:
            self.spans.setdefault(span.trace_id, []).append(span)

    def stop(self) -> None:
        """End everything."""
        self.fleet.nodes.stop()
        self.fleet.router.stop()
        for proxy in self.proxies.values():
            proxy.stop()
        self.collector.stop()

    def _machines(self) -> Iterator[SimConfig]:
        for name, faulty in FAULTS.items():
            models = tuple(SimModel(cell.model, size_gb=0.1) for cell in CELLS if cell.fault == name)
            yield SimConfig(
                name, memory_gb=512, slots=64, max_loaded=99, models=models,
                preload=tuple(model.name for model in models), advertised_url=self._wired(name, faulty),
            )  # fmt: skip
        # Heavy on paper and quick to load in fact: the loaded, failing node is predicted to be first.
        models = tuple(SimModel(cell.model, size_gb=40) for cell in CELLS if cell.nodes == 2)
        yield SimConfig(WELL, memory_gb=65536, slots=64, max_loaded=999, models=models, load_bytes_per_s=0)

    def _wired(self, name: str, faulty: Faulty) -> str | None:
        if faulty.wire is None:
            return None
        proxy = self.proxies[name] = Proxy(faulty.wire).start()
        if faulty.refuses:
            proxy.refuse()
        return proxy.url

    async def _ask_all(self) -> None:
        room = asyncio.Semaphore(AT_ONCE)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            await asyncio.gather(*(self._ask(session, cell, room) for cell in CELLS))

    async def _ask(self, session: aiohttp.ClientSession, cell: Cell, room: asyncio.Semaphore) -> None:
        hangs = cell.end in {"silent", "silent after its headers", "stalled"}  # and needs nothing meanwhile
        path, body = ask(cell.dialect, cell.model, cell.stream)
        places = asyncio.Semaphore() if hangs else room
        async with places, session.post(self.fleet.url + path, data=body) as answer:
            text = await answer.content.readany()
            if cell.fault in self.proxies:
                self.proxies[cell.fault].proceed(cell.model.encode())
            text += await answer.read()
            headers = {name.lower(): value for name, value in answer.headers.items()}
            self.seen[cell] = Seen(headers["x-request-id"], answer.status, headers, text)


def servers(collector: OtlpReceiver) -> list[ReceivedSpan]:
    """The spans of whole requests."""
    return [span for span in collector.spans if span.kind == "SERVER" and "herd.status" in span.attributes]
