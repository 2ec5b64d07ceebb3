"""How well requests are routed: `python -m benchmarks.routing` prints each policy's time to the first token.

In virtual time, over the code that decides live. Without `--trace` the traffic is made. Public traces: Azure's LLM
inference trace of 2023 (github.com/Azure/AzurePublicDataset, AzureLLMInferenceTrace_conv.csv and _code.csv) and those
of Mooncake (github.com/kvcache-ai/Mooncake, FAST25-release/traces/*.jsonl).
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from herd.planning.arrivals import Lengths, read
from herd.planning.compare import CLAIRVOYANT, HERD, MADE, POLICIES, SIMPLE, SPLIT, Cell, cells, made_trace, misses, run
from herd.planning.simulate import Result


def main() -> int:
    """Print the table; 1 where a target is missed."""
    told = _arguments()
    traces = _traces(told.trace, told.made, told.seed)
    names = [*SIMPLE, HERD, *(SPLIT if told.split else ()), CLAIRVOYANT]
    print("Time to the first token in seconds, p95 / mean (loads per 1,000 requests); × is against the clairvoyant.\n")
    print("| trace, requests/s | machines |", " | ".join(names), "| herd: p95 × | mean × |")
    print("| --- | --- |", " | ".join("---" for _ in names), "| --- | --- |")
    missed: list[str] = []
    began, decided = time.perf_counter(), 0
    for cell in cells(traces, told.fleet):
        results = {name: run(cell, traces[cell.trace], name, told.requests, told.seed) for name in names}
        decided += told.requests * len(names)
        print(_row(cell, results), flush=True)
        missed += (f"{cell.trace} {cell.rate:g}/s on {cell.machines}: {miss}" for miss in misses(results))
    print(f"\n{decided} requests in {time.perf_counter() - began:.0f} s.")
    print("All targets are met." if not missed else "Missed:\n" + "\n".join(f"  {miss}" for miss in missed))
    return 1 if missed else 0


def _row(cell: Cell, results: Mapping[str, Result]) -> str:
    best, ours = results[CLAIRVOYANT], results[HERD]
    told = (f"{r.quantile_s(0.95):.1f} / {r.mean_s:.2f} ({r.loads_per_1000:.0f})" for r in results.values())
    against = f"{ours.quantile_s(0.95) / best.quantile_s(0.95):.2f} | {ours.mean_s / best.mean_s:.2f}"
    return f"| {cell.trace}, {cell.rate:g} | {cell.machines} | {' | '.join(told)} | {against} |"


def _traces(paths: Sequence[Path], kinds: Sequence[str], seed: int) -> dict[str, list[Lengths]]:
    names = kinds or (() if paths else tuple(MADE))
    return {**{path.stem: read(path) for path in paths}, **{name: made_trace(name, seed) for name in names}}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trace", type=Path, action="append", default=[], help="a trace; may be given several times")
    parser.add_argument("--made", action="append", default=[], choices=tuple(MADE), help="made traffic of a kind")
    parser.add_argument("--fleet", type=int, action="append", choices=(3, 5, 10), help="machines (default: 3, 5, 10)")
    parser.add_argument("--requests", type=int, default=3000, help="in each cell (default: 3000)")
    parser.add_argument("--seed", type=int, default=1, help="for models and thinning (default: 1)")
    parser.add_argument("--split", action="store_true", help="also Herd with less ignorance: fresh, speeds, lengths")
    told = parser.parse_args()
    told.fleet = told.fleet or [3, 5, 10]
    return told


if __name__ == "__main__":
    assert set(SIMPLE) < set(POLICIES)
    sys.exit(main())
