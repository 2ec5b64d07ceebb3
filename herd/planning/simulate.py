"""Virtual time: arrivals go to a router, the router gives jobs to engines, and what engines do is told back to it.

It decides nothing and draws nothing, so that one trace, one fleet and one router always give the same result.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from math import inf
from typing import Final, NamedTuple, Protocol

from herd.planning.arrivals import Arrival
from herd.planning.engine import Engine, Happened, Job, Machine

REFUSED: Final = -1


class Give(NamedTuple):
    """A job goes to the engine of this place in the fleet, or is `REFUSED`."""

    job: Job
    place: int


class Router(Protocol):
    """Who decides. Each method is told what happened now, and answers with the jobs that go to engines."""

    def arrived(self, job: Job, now: float) -> list[Give]:
        """A request came."""
        ...

    def happened(self, place: int, event: Happened) -> list[Give]:
        """An engine did something."""
        ...

    def tick(self, now: float) -> list[Give]:
        """A second went by."""
        ...


@dataclass(frozen=True, slots=True)
class Served:
    """One request's fate: where it was answered, and after how many seconds its first token came and its last.

    `cold`: its model was loaded for it.
    """

    arrival: Arrival
    place: int
    ttft_s: float
    latency_s: float
    cold: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """What a run gave: every request's fate in the order of their ends, and how often models were loaded.

    `refused` are those that nobody served; `busy` is the share of the time in which each machine was at work.
    """

    served: tuple[Served, ...]
    loads: int
    seconds: float
    refused: tuple[Arrival, ...] = ()
    busy: tuple[float, ...] = ()

    @property
    def mean_s(self) -> float:
        """The mean time to the first token."""
        return sum(each.ttft_s for each in self.served) / max(1, len(self.served))

    def quantile_s(self, share: float) -> float:
        """That quantile of the time to the first token."""
        times = sorted(each.ttft_s for each in self.served)
        return times[min(len(times) - 1, int(len(times) * share))] if times else 0.0

    @property
    def loads_per_1000(self) -> float:
        """Loads for a thousand requests."""
        return 1000 * self.loads / max(1, len(self.served))


class Simulation:
    """One run of one router over one fleet."""

    def __init__(
        self, machines: Sequence[Machine], router_of: Callable[[Sequence[Engine]], Router], tick_s: float = 1.0
    ) -> None:
        self.engines = [Engine(machine) for machine in machines]
        self.router = router_of(self.engines)
        self.tick_s = tick_s
        self.now = 0.0
        self._due: list[tuple[float, int, int]] = []  # when an engine's next moment is, unless it was moved since
        self._versions = [0] * len(machines)
        self._open: dict[int, int] = {}
        self._served: list[Served] = []
        self._refused: list[Arrival] = []

    def run(self, arrivals: Iterable[Arrival]) -> Result:
        """Serve all arrivals, which come in the order of time, to their ends."""
        coming = iter(arrivals)
        following = next(coming, None)
        number, tick = 0, self.tick_s
        while following or self._open:
            engine_at = self._due[0][0] if self._due else inf
            at = following.at if following else inf
            if min(engine_at, at) == inf and not self.tick_s:
                break
            if self.tick_s and tick <= min(engine_at, at):
                self.now, tick = tick, tick + self.tick_s
                self._give(self.router.tick(self.now))
            elif engine_at <= at:
                self._step()
            elif following:
                self.now = at
                for engine in self.engines:
                    engine.wait(at)
                self._open[number] = number
                self._give(self.router.arrived(Job(number, following), at))
                number, following = number + 1, next(coming, None)
        busy = tuple(engine.worked_s / self.now if self.now else 0.0 for engine in self.engines)
        loads = sum(engine.loads for engine in self.engines)
        return Result(tuple(self._served), loads, self.now, tuple(self._refused), busy)

    def _step(self) -> None:
        at, version, place = heappop(self._due)
        if version == self._versions[place]:
            self.now = max(self.now, at)
            self._tell(place, self.engines[place].step())

    def _tell(self, place: int, events: list[Happened]) -> None:
        self._versions[place] += 1
        at = self.engines[place].next_at()
        if at < inf:
            heappush(self._due, (at, self._versions[place], place))
        for event in events:
            if event.kind == "ended" and event.job:
                job, since = event.job, event.job.arrival.at
                del self._open[job.number]
                fate = Served(job.arrival, place, job.first_at - since, job.ended_at - since, job.load_s > 0)
                self._served.append(fate)
            self._give(self.router.happened(place, event))

    def _give(self, gifts: list[Give]) -> None:
        for job, place in gifts:
            if place == REFUSED:
                del self._open[job.number]
                self._refused.append(job.arrival)
                continue
            engine = self.engines[place]
            engine.wait(self.now)
            self._tell(place, engine.give(job))
