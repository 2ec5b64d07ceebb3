"""Routers to compare with: four that look at counts at most, and one that foresees everything but what is yet to come."""

from collections.abc import Sequence
from random import Random

from herd.planning.arrivals import Arrival
from herd.planning.engine import Engine, Happened, Job
from herd.planning.simulate import Give


class AtOnce:
    """A router that hands each request on in the moment in which it comes."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self.engines = engines
        self.holders: dict[str, list[int]] = {}
        for place, engine in enumerate(engines):
            for model in engine.machine.models:
                self.holders.setdefault(model, []).append(place)

    def choose(self, arrival: Arrival, job: Job, now: float, holders: list[int]) -> int:
        raise NotImplementedError

    def arrived(self, arrival: Arrival, job: Job, now: float) -> list[Give]:
        return [Give(job, self.choose(arrival, job, now, self.holders[arrival.model]))]

    def happened(self, place: int, event: Happened) -> list[Give]:
        return []

    def tick(self, now: float) -> list[Give]:
        return []


class Chance(AtOnce):
    def __init__(self, engines: Sequence[Engine], seed: int = 1) -> None:
        super().__init__(engines)
        self.random = Random(seed)

    def choose(self, arrival, job, now, holders):
        return self.random.choice(holders)


class RoundRobin(AtOnce):
    def __init__(self, engines: Sequence[Engine]) -> None:
        super().__init__(engines)
        self.turn = {}

    def choose(self, arrival, job, now, holders):
        turn = self.turn[arrival.model] = self.turn.get(arrival.model, -1) + 1
        return holders[turn % len(holders)]


class LeastLoaded(AtOnce):
    def choose(self, arrival, job, now, holders):
        return min(holders, key=lambda place: self.engines[place].in_flight)


class PowerOfTwo(Chance):
    def choose(self, arrival, job, now, holders):
        two = self.random.sample(holders, min(2, len(holders)))
        return min(two, key=lambda place: self.engines[place].in_flight)


class Clairvoyant(AtOnce):
    """Runs a copy of each engine ahead, all lengths known, and takes the soonest first token."""

    def choose(self, arrival, job, now, holders):
        return min(holders, key=lambda place: self.first_token(place, job, now))

    def first_token(self, place: int, job: Job, now: float) -> float:
        engine = self.engines[place].copied()
        engine._move(now)
        trial = Job(job.number, job.model, job.prompt_tokens, job.answer_tokens)
        engine.give(trial)
        while not trial.first_at:
            engine.run(engine.next_at())
        return trial.first_at
