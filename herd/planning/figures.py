"""What requests came to, seen or simulated, in the same figures; and how far the simulation of the past is off.

The error of a figure is that of the back-test: the recorded window is cut into slices, and in each the simulated
figure is held against the one that was seen.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Final

from herd.planning.arrivals import Arrival
from herd.planning.simulate import Result, Served
from herd.store.recorded import Past

SECONDS: Final = ("ttft_p50_s", "ttft_p95_s", "answer_p50_s", "answer_p95_s")
MOST_SLICES: Final = 6
LEAST_SLICE: Final = 20  # requests: fewer have no 95th percentile


@dataclass(frozen=True, slots=True)
class Figures:
    """Requests, and what came of them; None where none of them says it. First tokens are those of streams."""

    requests: int = 0
    refused: int = 0
    loads: int = 0
    ttft_p50_s: float | None = None
    ttft_p95_s: float | None = None
    answer_p50_s: float | None = None
    answer_p95_s: float | None = None


def seen(past: Iterable[Past]) -> Figures:
    """Of recorded requests."""
    rows = list(past)
    whole = [each for each in rows if each.status == "completed"]
    first = [each.ttft_s for each in whole if each.ttft_s is not None]
    refused, loads = sum(each.status == "rejected" for each in rows), sum(each.cold for each in rows)
    return _figures(len(rows), refused, loads, first, [each.latency_s for each in whole])


def simulated(served: Iterable[Served], refused: Iterable[Arrival] = ()) -> Figures:
    """Of a simulation's requests."""
    fates, gone = list(served), sum(1 for _ in refused)
    first = [each.ttft_s for each in fates if each.arrival.stream]
    loads = sum(each.cold for each in fates)
    return _figures(len(fates) + gone, gone, loads, first, [each.latency_s for each in fates])


def by(result: Result, name_of: Callable[[Arrival], str]) -> dict[str, Figures]:
    """Of each group of a simulation's requests, the largest first."""
    groups: dict[str, tuple[list[Served], list[Arrival]]] = {}
    for fate in result.served:
        groups.setdefault(name_of(fate.arrival), ([], []))[0].append(fate)
    for arrival in result.refused:
        groups.setdefault(name_of(arrival), ([], []))[1].append(arrival)
    told = {name: simulated(served, refused) for name, (served, refused) in groups.items()}
    return dict(sorted(told.items(), key=lambda pair: (-pair[1].requests, pair[0])))


def errors(past: Sequence[Past], result: Result, which: Callable[[Past], bool] = lambda _: True) -> dict[str, float]:
    """By figure: how far a simulation of these requests was off in the slices, as a share of the figure seen.

    A figure is missing where fewer than two slices have it: then nothing is known of its error.
    """
    fates = {fate.arrival.row: fate for fate in result.served}
    rows = [(each, fates[row]) for row, each in enumerate(past)
            if row in fates and each.status == "completed" and which(each)]  # fmt: skip
    slices = min(MOST_SLICES, len(rows) // LEAST_SLICE)
    gaps: dict[str, list[float]] = {name: [] for name in SECONDS}
    for number in range(slices):
        part = rows[len(rows) * number // slices : len(rows) * (number + 1) // slices]
        was, would = seen(each for each, _ in part), simulated(fate for _, fate in part)
        for name in SECONDS:
            real, made = getattr(was, name), getattr(would, name)
            if real is not None and made is not None:
                gaps[name].append(made - real)
    whole = seen(each for each, _ in rows)
    found = {name: sqrt(sum(gap**2 for gap in each) / len(each)) / getattr(whole, name)
             for name, each in gaps.items() if len(each) > 1 and getattr(whole, name)}  # fmt: skip
    cold = sum(each.cold for each, _ in rows)
    if slices > 1 and cold:
        found["loads"] = abs(sum(fate.cold for _, fate in rows) / cold - 1)
    return found


def bias(past: Sequence[Past], result: Result) -> Mapping[str, float]:
    """By figure: the simulated one over the one seen, of all completed requests; 1 is right."""
    fates = {fate.arrival.row: fate for fate in result.served}
    rows = [(each, fates[row]) for row, each in enumerate(past) if row in fates and each.status == "completed"]
    was, would = seen(each for each, _ in rows), simulated(fate for _, fate in rows)
    pairs = ((name, getattr(was, name), getattr(would, name)) for name in SECONDS)
    return {name: made / real for name, real, made in pairs if real and made is not None}


def quantile(values: Sequence[float], share: float) -> float | None:
    """That quantile; None of nothing."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(len(ranked) * share))] if ranked else None


def _figures(requests: int, refused: int, loads: int, first: Sequence[float], whole: Sequence[float]) -> Figures:
    return Figures(requests, refused, loads, quantile(first, 0.5), quantile(first, 0.95), quantile(whole, 0.5),
                   quantile(whole, 0.95))  # fmt: skip
