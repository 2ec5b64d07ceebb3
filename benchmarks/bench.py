"""What herd costs beside nginx and a bare proxy: `python -m benchmarks.bench`, or `make bench`.

It starts everything itself, on loopback. Rounds are interleaved: each asks every contender in turn, so that what else
runs on the machine meets all of them; compare figures within one run only. Exit status 1 where an answer was wrong.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from benchmarks.clients import Clients
from benchmarks.contenders import Contender, Stage, same_answers
from benchmarks.load import Round
from benchmarks.page import page_rounds
from benchmarks.report import Results, markdown
from benchmarks.workloads import TITLES, WORKLOADS, Figures, Workload

QUICK: Final = (1, 0.4)  # rounds, and seconds of each


def measure(load: Clients, contender: Contender, work: Workload, seconds: float) -> Figures:
    """One round. Records that are written behind an answer count: CPU runs from rest to rest, over all requests.

    Of paced streams it runs from the window's begin to its end, where nothing but tokens is relayed.
    """
    before = contender.cpu_s()
    load.begin(Round(contender.port, work.clients, seconds, stream=work.stream, paced=work.paced))
    load.next_line()
    at_begin = contender.cpu_s()
    load.next_line()
    at_end = contender.cpu_s()
    outcome = load.outcome()
    contender.settle()
    if work.paced:
        cpu_us = (at_end - at_begin) / max(1, outcome.tokens) * 1e6
    else:
        cpu_us = (contender.cpu_s() - before) / outcome.all_requests * 1e6
    return Figures(
        outcome.requests / outcome.window_s, outcome.p50_ms, outcome.p99_ms, cpu_us, outcome.delay_p50_ms,
        outcome.delay_p99_ms,
    )  # fmt: skip


def start(stage: Stage, wanted: Sequence[str]) -> tuple[dict[str, Contender], dict[str, str]]:
    """The contenders by name, in the table's order, and why others are missing."""
    node = stage.scripted_node()
    starts = {
        "direct": lambda: Contender("direct", node),
        "nginx": lambda: stage.nginx(node),
        "bare": lambda: stage.bare(node),
        "herd": lambda: stage.herd("herd", node),
        "herd-otlp": lambda: stage.herd(
            "herd-otlp", node, HERD_OTLP_ENDPOINT=f"http://127.0.0.1:{stage.scripted_node('receiver')}"
        ),
    }
    found, missing = {}, {}
    for name in (name for name in starts if name in wanted):
        try:
            found[name] = starts[name]()
        except FileNotFoundError as error:
            missing[name] = str(error)
    return found, missing


def run(asked: argparse.Namespace, folder: Path) -> Results:
    """Everything that was asked for."""
    with Stage(folder, asked.pin) as stage, Clients(stage) as load:
        contenders, missing = start(stage, asked.contenders)
        if "direct" in contenders:
            same_answers(contenders)
        results = Results(tuple(contenders), missing, {}, {})
        works = [work for work in WORKLOADS if work.name in asked.only]
        for number in range(asked.rounds):
            for work in works:
                _one_of_each(load, results, contenders, work, asked.seconds, number)
        if asked.page:
            results.page_p99_ms = page_rounds(stage, load, asked.page, asked.rounds, asked.seconds)
    return results


def _one_of_each(
    load: Clients, results: Results, contenders: dict[str, Contender], work: Workload, seconds: float, number: int
) -> None:
    """A round of a workload: every contender once, another one first each time."""
    names = list(contenders)
    first = number % len(names)
    for name in (*names[first:], *names[:first]):
        figures = measure(load, contenders[name], work, seconds)
        results.rounds.setdefault(work.name, {}).setdefault(name, []).append(figures)
        if contenders[name].process:
            held, most = contenders[name].footprint(), results.memory.get(name)
            if most is None or (held.pss_mib or held.rss_mib) > (most.pss_mib or most.rss_mib):
                results.memory[name] = held
        print(f"round {number + 1}, {work.title}, {TITLES[name]}: {_line(figures, work)}", file=sys.stderr, flush=True)


def _line(figures: Figures, work: Workload) -> str:
    if work.paced:
        return f"CPU {figures.cpu_us:.1f} µs a token, p99 of its way {figures.delay_p99_ms:.2f} ms"
    return f"{figures.requests_s:,.0f}/s, p99 {figures.p99_ms:.2f} ms, CPU {figures.cpu_us:.0f} µs"


def head(asked: argparse.Namespace) -> str:
    """What the figures belong to."""
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores, Python {platform.python_version()}, load at the begin {load:.1f}; median of "
        f"{asked.rounds} interleaved rounds of {asked.seconds:g} s; 16 tokens an answer"
    ) + ("; node and clients on the first core, contenders on the second." if asked.pin else ".")


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """What was asked for."""
    names = [work.name for work in WORKLOADS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0, help="the length of a round")
    parser.add_argument("--quick", action="store_true", help="one short round, none of 256 clients: less than a minute")
    parser.add_argument("--only", type=_of(names), metavar="NAME,…", help=f"of {', '.join(names)}")
    parser.add_argument("--contenders", type=_of(list(TITLES)), default=list(TITLES), metavar="NAME,…",
                        help=f"of {', '.join(TITLES)}")  # fmt: skip
    page = "also one client beside a reader of the page, of this database; it is made where it is not there"
    parser.add_argument("--page", type=Path, metavar="FILE", help=page)
    parser.add_argument("--pin", action="store_true", help="node and clients on one core, contenders on the other")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the report there as well")
    asked = parser.parse_args(argv)
    if asked.quick:
        asked.rounds, asked.seconds = QUICK
    quickly = [work.name for work in WORKLOADS if work.clients < 256]
    asked.only = asked.only or (quickly if asked.quick else names)
    return asked


def _of(names: list[str]) -> Callable[[str], list[str]]:
    def chosen(text: str) -> list[str]:
        found = [name for name in text.split(",") if name]
        if wrong := [name for name in found if name not in names]:
            raise argparse.ArgumentTypeError(f"{wrong[0]!r} is none of {', '.join(names)}")
        return found

    return chosen


def main() -> None:
    """Measure and print."""
    asked = arguments()
    begun, title = time.monotonic(), head(asked)
    with tempfile.TemporaryDirectory(prefix="herd-bench-") as folder:
        text = markdown(run(asked, Path(folder)), title)
    print(text)
    if asked.markdown:
        asked.markdown.write_text(text, encoding="utf-8")
    print(f"{time.monotonic() - begun:.0f} s, load at the end {os.getloadavg()[0]:.1f}", file=sys.stderr)


if __name__ == "__main__":
    main()
