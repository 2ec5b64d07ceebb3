"""How much a page that reads a month without pause moves the latency of requests: one client with and without it."""

import time
from pathlib import Path
from typing import Final

from benchmarks.clients import Clients
from benchmarks.contenders import Stage
from benchmarks.load import Round
from benchmarks.make_database import ROWS, make
from benchmarks.month import Month

API: Final = "/dashboard/api"
PATHS: Final = tuple(
    f"{API}/{path}"
    for path in ("apps?days=30", "apps/daily?days=30", "usage?days=30", "models?days=30", "trends?hours=720",
                 "latency?hours=720", "traces?limit=1000", "traces?limit=50&q=nothing-is-like-this")
)  # fmt: skip


def page_rounds(stage: Stage, load: Clients, database: Path, rounds: int, seconds: float) -> list[tuple[float, float]]:
    """The p99 in ms of one client, alone and beside a reader, round by round; makes the database where there is none.

    The router works on a copy.
    """
    if not database.exists():
        make(database, Month(ROWS, end=time.time()))
    router = stage.herd("herd-page", stage.scripted_node("page-node"), database)
    found = []
    with Clients(stage) as reader:
        for _ in range(rounds):
            load.begin(Round(router.port, 1, seconds))
            alone = load.outcome().p99_ms
            router.settle()
            reader.begin(Round(router.port, 1, seconds + 1.5, paths=PATHS))
            load.begin(Round(router.port, 1, seconds, warm_s=0.7))
            beside = load.outcome().p99_ms
            reader.outcome()
            router.settle()
            found.append((alone, beside))
    return found
