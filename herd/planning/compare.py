"""Policies side by side: the same arrivals on the same fleet under each, held against the clairvoyant.

The table of policies, the rates at which made fleets are neither idle nor drowned, and the targets stand here.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from herd.planning.arrivals import Lengths, at_rate, for_models, made
from herd.planning.engine import Engine
from herd.planning.fleets import MODELS, fleet
from herd.planning.live import Herd, Options
from herd.planning.policies import Chance, Clairvoyant, LeastLoaded, PowerOfTwo, RoundRobin
from herd.planning.simulate import Result, Router, Simulation

CLAIRVOYANT: Final = "clairvoyant"
HERD: Final = "herd"
SIMPLE: Final = ("random", "round robin", "least loaded", "power of two")
SPLIT: Final = ("herd, fresh", "herd, fresh, speeds", "herd, all known")
POLICIES: Final[Mapping[str, Callable[[Sequence[Engine]], Router]]] = {
    "random": Chance,
    "round robin": RoundRobin,
    "least loaded": LeastLoaded,
    "power of two": PowerOfTwo,
    CLAIRVOYANT: Clairvoyant,
    HERD: Herd,
    "herd, fresh": partial(Herd, options=Options(always_fresh=True)),
    "herd, fresh, speeds": partial(Herd, options=Options(always_fresh=True, speeds_known=True)),
    "herd, all known": partial(Herd, options=Options(always_fresh=True, speeds_known=True, lengths_known=True)),
}
# Requests a second for the fleet of five; half of it for three machines, twice of it for ten.
LOADS: Final[Mapping[str, tuple[float, float, float]]] = {
    "conversation": (0.3, 0.5, 0.7),
    "code": (0.3, 0.6, 0.9),
    "long": (0.07, 0.11, 0.15),
}
SCALE: Final[Mapping[int, float]] = {3: 0.5, 5: 1.0, 10: 2.0}
LONG_PROMPT: Final = 4000  # a trace whose prompts are longer on average has the loads of long conversations
MOST_P95, MOST_MEAN = 1.10, 1.05  # the targets, against the clairvoyant
# Made traffic: median tokens of prompt and answer, and their spread.
MADE: Final[Mapping[str, tuple[float, float, float]]] = {
    "conversation": (700.0, 150.0, 0.8),
    "code": (1500.0, 25.0, 0.6),
    "long": (7000.0, 250.0, 0.9),
}


@dataclass(frozen=True, slots=True)
class Cell:
    """One trace at one rate on one made fleet."""

    trace: str
    machines: int
    rate: float


def made_trace(name: str, seed: int, count: int = 4000) -> list[Lengths]:
    """Traffic of a kind, where no trace is at hand."""
    prompt, answer, spread = MADE[name]
    return list(made(count, prompt, answer, seed, spread))


def loads_of(trace: str, lengths: Sequence[Lengths]) -> tuple[float, float, float]:
    """The three rates for a trace: by its name, else by the length of its prompts."""
    long = sum(each.prompt_tokens for each in lengths) / len(lengths) > LONG_PROMPT
    return LOADS.get(trace) or LOADS["long" if long else "conversation"]


def cells(traces: Mapping[str, Sequence[Lengths]], fleets: Sequence[int]) -> Iterator[Cell]:
    """Every trace at its three rates on every fleet."""
    for machines in fleets:
        for name, lengths in traces.items():
            for rate in loads_of(name, lengths):
                yield Cell(name, machines, rate * SCALE.get(machines, machines / 5))


def run(cell: Cell, lengths: Sequence[Lengths], policy: str, requests: int, seed: int) -> Result:
    """One policy's result in one cell."""
    arrivals = for_models(at_rate(lengths, cell.rate, requests, seed), list(MODELS), seed)
    return Simulation(fleet(cell.machines), POLICIES[policy]).run(arrivals)


def misses(results: Mapping[str, Result]) -> list[str]:
    """Where Herd misses a target in a cell, in words."""
    ours, best = results[HERD], results[CLAIRVOYANT]
    found = []
    if ours.quantile_s(0.95) > MOST_P95 * best.quantile_s(0.95):
        found.append(f"p95 {ours.quantile_s(0.95) / best.quantile_s(0.95):.2f} times the clairvoyant's")
    if ours.mean_s > MOST_MEAN * best.mean_s:
        found.append(f"mean {ours.mean_s / best.mean_s:.2f} times the clairvoyant's")
    for name in SIMPLE:
        if (there := results.get(name)) and ours.quantile_s(0.95) > there.quantile_s(0.95):
            found.append(f"p95 worse than {name}")
        if there and ours.mean_s > there.mean_s:
            found.append(f"mean worse than {name}")
    return found
