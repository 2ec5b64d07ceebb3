"""How well are waits predicted? Two real llama.cpp servers with different thread counts, a router, and its own rows.

    python -m benchmarks.calibration [--requests 300] [--clients 2]

The engines come from `scripts/build_engines.sh .engines` (or stand where REAL_ENGINES says). The router learns each
node's speeds from the first half of the requests; the predictions for the second half are compared with what was seen.
"""

import argparse
import random
import sqlite3
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx

from tests.harness import until
from tests.real.conftest import GENERATOR, Fleet
from tests.real.engines import ENGINES

MODEL = "slow"
SHAPE = ("--blocks", "16", "--width", "512", "--mean-length", "0")
THREADS = {"one": 1, "two": 2}
SEED = 1
Row = tuple[str, float, float]


def ask(url: str, number: int, rng: random.Random) -> None:
    """One streamed chat; no two prompts share a beginning, so that no cache answers instead of the engine."""
    words = " ".join(f"w{rng.randrange(10**6)}" for _ in range(rng.choice((5, 20, 60, 150))))
    asked = {"model": MODEL, "stream": True, "max_tokens": rng.choice((4, 16, 48)),
             "messages": [{"role": "user", "content": f"{number} {words}"}]}  # fmt: skip
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=asked, timeout=300) as answer:
        answer.raise_for_status()
        for _ in answer.iter_raw():
            pass


def rows(database: Path) -> list[Row]:
    """Node, predicted and seen milliseconds to the first token of every completed request, oldest first."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return connection.execute(
            "SELECT node_id, predicted_ttft_ms, time_to_first_token_ms FROM request_traces"
            " WHERE status = 'completed' AND predicted_ttft_ms IS NOT NULL AND time_to_first_token_ms IS NOT NULL"
            " ORDER BY timestamp"
        ).fetchall()


def line(name: str, found: Sequence[Row]) -> str:
    """A row of the table: how many, the median of what was seen, and the relative error: median, p90, bias."""
    errors = sorted(abs(predicted - seen) / seen for _, predicted, seen in found if seen > 0)
    if len(errors) < 2:
        return f"| {name} | {len(errors)} | | | | |"
    deciles = statistics.quantiles(errors, n=10)
    bias = statistics.median((predicted - seen) / seen for _, predicted, seen in found if seen > 0)
    seen = statistics.median(seen for _, _, seen in found)
    return f"| {name} | {len(errors)} | {seen:.0f} | {statistics.median(errors):.0%} | {deciles[8]:.0%} | {bias:+.0%} |"


def run(home: Path, requests: int, clients: int) -> list[Row]:
    """The rows of a run."""
    model = home / "slow.gguf"
    subprocess.run([ENGINES / "venv" / "bin" / "python", GENERATOR, model, *SHAPE], check=True)
    fleet = Fleet(home)
    try:
        fleet.router.start()
        for node_id, threads in THREADS.items():
            count = str(threads)
            fleet.llama(node_id).start(model, MODEL, options=("-t", count, "-tb", count, "--cache-ram", "0"))
        fleet.join_llamas()
        with ThreadPoolExecutor(clients) as pool:
            list(pool.map(lambda number: ask(fleet.url, number, random.Random(SEED + number)), range(requests)))
        until(lambda: len(rows(fleet.router.database)) >= requests, "rows are written")
        return rows(fleet.router.database)
    finally:
        fleet.stop()


def main() -> None:
    """Run, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--clients", type=int, default=2)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        found = run(Path(home), asked.requests, asked.clients)
    first, second = found[: len(found) // 2], found[len(found) // 2 :]
    print("| requests | count | seen, median ms | error, median | error, p90 | bias |")
    print("|---|---|---|---|---|---|")
    print(line("first half (learning)", first))
    print(line("second half", second))
    for node_id in THREADS:
        print(line(f"second half, {node_id}", [row for row in second if row[0] == node_id]))


if __name__ == "__main__":
    main()
