"""Virtual time: arrivals go to a router, the router gives jobs to engines, and what engines do is told back to it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import inf
from typing import Protocol

from herd.planning.arrivals import Arrival
from herd.planning.engine import Engine, Happened, Job, Machine


class Give:
    """A job goes to the engine of this place in the fleet."""

    __slots__ = ("job", "place")

    def __init__(self, job: Job, place: int) -> None:
        self.job, self.place = job, place


class Router(Protocol):
    """Who decides. Each method is told the moment, and answers with the jobs that go to engines now."""

    def arrived(self, arrival: Arrival, job: Job, now: float) -> list[Give]: ...

    def happened(self, place: int, event: Happened) -> list[Give]: ...

    def tick(self, now: float) -> list[Give]: ...


@dataclass(frozen=True, slots=True)
class Served:
    """One request's fate."""

    arrival: Arrival
    place: int
    ttft_s: float
    latency_s: float


@dataclass(slots=True)
class Result:
    """What a run gave."""

    served: list[Served] = field(default_factory=list)
    loads: int = 0
    seconds: float = 0.0
    unserved: int = 0
    work: list[float] = field(default_factory=list)


class Simulation:
    def __init__(self, machines: Sequence[Machine], router_of, tick_s: float = 0.0) -> None:
        self.engines = [Engine(machine) for machine in machines]
        self.router: Router = router_of(self.engines)
        self.tick_s = tick_s
        self.now = 0.0
        self._due: list[tuple[float, int, int]] = []
        self._version = [0] * len(machines)
        self._open: dict[int, tuple[Arrival, float]] = {}
        self.result = Result()

    def run(self, arrivals: Iterable[Arrival]) -> Result:
        coming = iter(arrivals)
        following = next(coming, None)
        number = 0
        tick = self.tick_s or inf
        while following or self._due:
            engine_at = self._due[0][0] if self._due else inf
            at = following.at if following else inf
            if tick <= min(engine_at, at):
                self.now = tick
                tick += self.tick_s
                self._give(self.router.tick(self.now))
            elif engine_at <= at:
                _, version, place = heappop(self._due)
                if version == self._version[place]:
                    self._step(place, engine_at)
            else:
                assert following
                self.now = at
                job = Job(number, following.model, following.prompt_tokens, following.answer_tokens)
                self._open[number] = (following, at)
                number += 1
                self._give(self.router.arrived(following, job, at))
                following = next(coming, None)
        self.result.loads = sum(engine.loads for engine in self.engines)
        self.result.seconds = self.now
        self.result.unserved = len(self._open)
        self.result.work = [engine.busy for engine in self.engines]
        return self.result

    def _step(self, place: int, at: float) -> None:
        self.now = max(self.now, at)
        self._tell(place, self.engines[place].run(self.now))

    def _tell(self, place: int, events: list[Happened]) -> None:
        self._schedule(place)
        for event in events:
            if event.kind == "ended" and event.job:
                arrival, _ = self._open.pop(event.job.number)
                job = event.job
                self.result.served.append(Served(arrival, place, job.first_at - arrival.at, job.ended_at - arrival.at))
            self._give(self.router.happened(place, event))

    def _give(self, gifts: list[Give]) -> None:
        for gift in gifts:
            engine = self.engines[gift.place]
            engine.run(self.now) if engine.next_at() > self.now else None
            if engine.now < self.now:
                engine._move(self.now)
            self._tell(gift.place, engine.give(gift.job))

    def _schedule(self, place: int) -> None:
        self._version[place] += 1
        at = self.engines[place].next_at()
        if at < inf:
            heappush(self._due, (at, self._version[place], place))
