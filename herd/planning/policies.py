"""Routers to compare with: four that look at counts at most, and one that foresees all but what is yet to come."""

from collections.abc import Sequence
from random import Random

from herd.planning.engine import Engine, Happened, Job
from herd.planning.simulate import REFUSED, Give


class AtOnce:
    """A router that hands each request on in the moment in which it comes; `choose` says where to."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self.engines = engines
        self.holders: dict[str, list[int]] = {}
        for place, engine in enumerate(engines):
            for model in engine.machine.models:
                self.holders.setdefault(model, []).append(place)

    def choose(self, job: Job, holders: list[int]) -> int:
        """The place of one of the engines that hold the job's model."""
        raise NotImplementedError

    def arrived(self, job: Job, now: float) -> list[Give]:  # noqa: ARG002 - the protocol tells the moment
        """A request came."""
        holders = self.holders.get(job.model)
        return [Give(job, self.choose(job, holders) if holders else REFUSED)]

    def happened(self, place: int, event: Happened) -> list[Give]:  # noqa: ARG002 - it learns nothing
        """An engine did something."""
        return []

    def tick(self, now: float) -> list[Give]:  # noqa: ARG002 - nobody waits here
        """Time went on."""
        return []


class Chance(AtOnce):
    """Any node that holds the model."""

    def __init__(self, engines: Sequence[Engine], seed: int = 1) -> None:
        super().__init__(engines)
        self.random = Random(seed)

    def choose(self, job: Job, holders: list[int]) -> int:  # noqa: ARG002
        """By chance."""
        return self.random.choice(holders)


class RoundRobin(AtOnce):
    """Each node that holds the model in its turn."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        super().__init__(engines)
        self.turns: dict[str, int] = {}

    def choose(self, job: Job, holders: list[int]) -> int:
        """The next."""
        turn = self.turns[job.model] = self.turns.get(job.model, -1) + 1
        return holders[turn % len(holders)]


class LeastLoaded(AtOnce):
    """The node with the fewest requests in flight."""

    def choose(self, job: Job, holders: list[int]) -> int:  # noqa: ARG002
        """The first of those with the fewest."""
        return min(holders, key=lambda place: self.engines[place].in_flight)


class PowerOfTwo(Chance):
    """The less busy one of two that chance draws."""

    def choose(self, job: Job, holders: list[int]) -> int:  # noqa: ARG002
        """Of two."""
        two = self.random.sample(holders, min(2, len(holders)))
        return min(two, key=lambda place: self.engines[place].in_flight)


class Clairvoyant(AtOnce):
    """Runs a copy of each engine ahead, all lengths and speeds known, and takes the soonest first token."""

    def choose(self, job: Job, holders: list[int]) -> int:
        """The soonest."""
        return min(holders, key=lambda place: self.first_token(place, job))

    def first_token(self, place: int, job: Job) -> float:
        """When the job's first token would come from there, if nothing else came."""
        engine, trial = self.engines[place].copied(), job.afresh()
        engine.give(trial)
        while not trial.first_at:
            engine.step()
        return trial.first_at
