"""`herd simulate`: traffic on a made fleet in virtual time, under Herd's routing and under others, side by side.

It asks no router and opens no database; what it decides with is the code that decides live.
"""

import argparse
from collections.abc import Iterator, Mapping

from herd.commands import CommandError
from herd.commands.output import cell, show, show_json, table
from herd.planning.arrivals import Lengths, read
from herd.planning.compare import CLAIRVOYANT, POLICIES, Cell, loads_of, made_trace
from herd.planning.compare import SCALE as SCALES
from herd.planning.compare import run as serve
from herd.planning.fleets import FLEETS
from herd.planning.simulate import Result

HEADS = ("POLICY", "P50", "P95", "P99", "MEAN", "TO THE END", "LOADS\nPER 1,000", "P95\n×", "MEAN\n×")


def run(arguments: argparse.Namespace) -> int:
    """Print each policy's times; 0 always: this measures and does not judge."""
    lengths = _lengths(arguments)
    rate = arguments.rate or loads_of(arguments.traffic, lengths)[1] * SCALES[arguments.machines]
    asked = Cell(arguments.trace.stem if arguments.trace else arguments.traffic, arguments.machines, rate)
    names = dict.fromkeys([*(arguments.policy or POLICIES), CLAIRVOYANT])
    results = {name: serve(asked, lengths, name, arguments.requests, arguments.seed) for name in names}
    if arguments.json:
        show_json({"trace": asked.trace, "machines": asked.machines, "rate": rate, "policies": _figures(results)})
        return 0
    show(
        cell(f"{arguments.requests} requests of {asked.trace}, {rate:g} a second on {asked.machines} machines", "bold"),
        f"{', '.join(FLEETS[asked.machines])}; seconds to the first token; × is against the clairvoyant\n",
        table(HEADS, list(_rows(results)), HEADS[1:]),
    )
    return 0


def _lengths(arguments: argparse.Namespace) -> list[Lengths]:
    if not arguments.trace:
        return made_trace(arguments.traffic, arguments.seed)
    try:
        return read(arguments.trace)
    except (OSError, ValueError) as error:
        raise CommandError(f"cannot read the trace: {error}") from error


def _rows(results: Mapping[str, Result]) -> Iterator[tuple[str, ...]]:
    for name, each in _figures(results).items():
        yield (name, *(f"{each[key]:.2f}" for key in ("p50_s", "p95_s", "p99_s", "mean_s", "mean_latency_s")),
               f"{each['loads_per_1000']:.0f}", f"{each['p95_ratio']:.2f}", f"{each['mean_ratio']:.2f}")  # fmt: skip


def _figures(results: Mapping[str, Result]) -> dict[str, dict[str, float]]:
    best = results[CLAIRVOYANT]
    return {
        name: {
            "p50_s": each.quantile_s(0.5), "p95_s": each.quantile_s(0.95), "p99_s": each.quantile_s(0.99),
            "mean_s": each.mean_s,
            "mean_latency_s": sum(one.latency_s for one in each.served) / max(1, len(each.served)),
            "loads_per_1000": each.loads_per_1000,
            "p95_ratio": each.quantile_s(0.95) / (best.quantile_s(0.95) or 1.0),
            "mean_ratio": each.mean_s / (best.mean_s or 1.0),
        }
        for name, each in results.items()
    }  # fmt: skip
