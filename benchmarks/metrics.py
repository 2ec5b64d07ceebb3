"""What counting one event costs, and what a scrape does: `python -m benchmarks.metrics` prints a Markdown table.

The client library's own increments are measured in the same rounds, in turn, so that a line can be judged by its ratio
to them on any machine. Each figure is the best of all rounds, by the processor time of this thread.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

from herd.core.events import Finished, Usage
from herd.telemetry.catalog.buckets import DURATIONS
from herd.telemetry.metrics import OPENMETRICS, MetricsSink
from tests.store import builders
from tests.telemetry.exposition import full_view

NODES: Final = [f"node-{number}" for number in range(10)]
MODELS: Final = [f"model-{number}:latest" for number in range(20)]
MODEL: Final = MODELS[3]
NODE: Final = NODES[4]
USAGE: Final = Usage(20, 40, 8, 16, "reported", "stop", load_s=0.01, prompt_eval_s=0.2, eval_s=1.0)
Work = dict[str, Callable[[], object]]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    asked = parser.parse_args()
    counted = best(counting(), asked.rounds, repeat=500)
    unit = counted["client library: increment of a kept counter"]
    print("| one | µs | in increments |\n| --- | ---: | ---: |")
    for name, seconds in counted.items():
        print(f"| {name} | {seconds * 1e6:.1f} | {seconds / unit:.0f} |")
    lines = sink().render("", full_view())[0].count(b"\n")
    print(f"\n| scrape of {lines} lines | ms | µs a line |\n| --- | ---: | ---: |")
    for name, seconds in best(scraping(), max(3, asked.rounds // 10), repeat=1).items():
        print(f"| {name} | {seconds * 1e3:.0f} | {seconds / lines * 1e6:.1f} |")


def best(work: Work, rounds: int, repeat: int) -> dict[str, float]:
    """Seconds of each work, the best of so many rounds in turn."""
    found = dict.fromkeys(work, float("inf"))
    for _ in range(rounds):
        for name, function in work.items():
            begun = time.thread_time()
            for _ in range(repeat):
                function()
            found[name] = min(found[name], (time.thread_time() - begun) / repeat)
    return found


def sink() -> MetricsSink:
    """The sink of a router with ten nodes that all have twenty models."""
    made = MetricsSink("1.2.3")
    made.set_known(dict.fromkeys(NODES, MODELS))
    return made


def finished(stream: bool, attempts: int = 1) -> Finished:
    """A request that was answered by the fleet."""
    asked = builders.request(MODEL, stream=stream)
    made = builders.finished(model=MODEL, node_id=NODE, asked=asked, usage=USAGE, attempts=attempts)
    return replace(made, attempts=tuple(replace(attempt, node_id=NODE) for attempt in made.attempts))


def counting() -> Work:
    """One event each, and the client library beside it."""
    take = sink().take
    stream, whole, retried, refused = finished(True), finished(False), finished(True, 2), builders.refused()
    registry = CollectorRegistry()
    counter = Counter("increments", "Kept.", ["model"], registry=registry)
    histogram = Histogram("observations_seconds", "Kept.", ["model"], registry=registry, buckets=DURATIONS)
    kept, kept_histogram = counter.labels(MODEL), histogram.labels(MODEL)
    return {
        "client library: increment of a kept counter": kept.inc,
        "client library: increment by way of labels()": lambda: counter.labels(MODEL).inc(),
        "client library: observation of a kept histogram": lambda: kept_histogram.observe(1.5),
        "`Finished`, a stream": lambda: take(stream),
        "`Finished`, a whole answer": lambda: take(whole),
        "`Finished`, a stream at the second attempt": lambda: take(retried),
        "`Finished`, refused before anything was decided": lambda: take(refused),
    }


def scraping() -> Work:
    """One scrape each."""
    made, view = sink(), full_view()
    return {"Prometheus text": lambda: made.render("", view), "OpenMetrics": lambda: made.render(OPENMETRICS, view)}


if __name__ == "__main__":
    main()
