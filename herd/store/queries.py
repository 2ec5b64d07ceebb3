"""The store's reading side: every question that the rest of herd asks it.

How the database is reached, by this process or by another, is the source's to know. A store in which nothing was kept
yet, or whose file is gone, answers as an empty one.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from herd.core.events import NodeKnown
from herd.core.finding import Episode
from herd.core.health.report import History
from herd.core.learning import Observation
from herd.store import audit, fleet_events, health_queries, history, reports, schema, traces
from herd.store.audit import Ended, Kept
from herd.store.connections import Connections, Question, Source
from herd.store.connections import StoreUnreadable as StoreUnreadable  # noqa: PLC0414 - whoever asks gets it from here
from herd.store.fleet_events import EventFilter
from herd.store.recorded import Recorded, recorded
from herd.store.reports import Query, Report
from herd.store.rollups import DAY_S
from herd.store.traces import Document, Page, StoredTrace, TraceFilter
from herd.store.windows import EVERYTHING, Scope

THREADS: Final = 2
P = ParamSpec("P")
T = TypeVar("T")


class Reader:
    """Answers from the database at `path`; any thread may ask, and `ask` does it off the event loop.

    Every method raises StoreUnreadable where the file is there but cannot be read.
    """

    def __init__(self, path: Path, source: Source | None = None) -> None:
        self.path = path
        self._source = source or Connections(path)
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="herd-store-read")

    async def ask(self, question: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call one of the methods below on a thread of the reader's own."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: question(*args, **kwargs))

    def traces(self, which: TraceFilter = TraceFilter(), cursor: str | None = None, limit: int = 100) -> Page:  # noqa: B008 - frozen
        """A page of traces, newest first. ValueError for a cursor that is not one."""
        return self._read(Page(), traces.page, which, cursor, limit)

    def trace(self, request_id: str) -> StoredTrace | None:
        """One request with its attempts and its decision; None where there is no such row."""
        return self._read(None, traces.one, request_id)

    def events(self, which: EventFilter, limit: int = 100) -> list[Document]:
        """The latest events of the fleet that pass a filter, the latest first."""
        return self._read([], fleet_events.page, which, limit)

    def ids(self, prefix: str, limit: int = 10) -> list[str]:
        """The first request ids that begin with a prefix."""
        return self._read([], traces.ids, prefix, limit)

    def report(self, table: Query, since: float, scope: Scope = EVERYTHING) -> Report:
        """One of the tables of `reports`, of the requests received since then (unix s)."""
        return self.answer(table, since, scope)

    def asked(self, days: float, now: float | None = None) -> list[Document]:
        """How often each model was asked for over the last days, whichever one answered."""
        return self.answer(reports.asked, _since(days, now)).data

    def ended(self, since: float = 0.0, until: float = float("inf")) -> Iterator[Ended]:
        """Each request that ended in that window, in the order of the ends; read in chunks, so others may write."""
        position = (since, 0)
        while True:
            found, position = self._read(([], position), audit.chunk, position, until)
            if not found:
                return
            yield from found

    def kept(self) -> Kept:
        """From when on there are rows."""
        return self._read(Kept(), audit.kept)

    def availability(self, now: float) -> dict[str, float]:
        """By node: the share of the last day that it was there."""
        return self._read({}, history.availability, now)

    def known_nodes(self) -> list[NodeKnown]:
        """The nodes that were not removed, each in its last stored state."""
        return self._read([], history.known_nodes)

    def recent_answers(self, now: float) -> dict[tuple[str, str], list[Observation]]:
        """By node and model: what the latest streams say of its speeds, the oldest first."""
        return self._read({}, history.recent_answers, now)

    def recorded(self, since: float, until: float, most: int) -> Recorded:
        """The latest so many requests of a window (unix s), as a simulation needs them."""
        return self._read(Recorded(), recorded, since, until, most)

    def demand(self, now: float) -> dict[str, float]:
        """By model: how much it was asked for in the last week, recent requests counting most."""
        return self._read({}, history.demand, now)

    def health(self, now: float, limits_s: Mapping[str, tuple[float, float]]) -> History:
        """What the health checks want to know of the last day; see `health_queries.history`."""
        return self._read(History(), health_queries.history, now, limits_s)

    def usual_latency(self) -> dict[str, float]:
        """By model: seconds that 95 of 100 completed requests stayed under."""
        return self._read({}, health_queries.usual_latency)

    def episodes(self, state: str = "all", limit: int = 100) -> list[Episode]:
        """Health findings, the latest first; `state` is `open`, `resolved` or `all`."""
        return self._read([], health_queries.episodes, state, limit)

    def answer(self, question: Question[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What a function of a connection makes of the database; of an empty one where nothing was stored."""
        found = self._read(None, question, *args, **kwargs)
        if found is not None:
            return found
        with closing(schema.empty()) as nothing:
            return question(nothing, *args, **kwargs)

    def let_go(self) -> None:
        """Close every connection, those in use as soon as they are not; the next question opens a new one."""
        self._source.let_go()

    def close(self) -> None:
        """Close the file and stop the threads, after answering pending queries."""
        self._pool.shutdown()
        self._source.close()

    def _read(self, empty: T, query: Question[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a query within one snapshot of the database."""
        return self._source.read(empty, query, *args, **kwargs)


def _since(days: float, now: float | None) -> float:
    return (time.time() if now is None else now) - days * DAY_S
