"""Write a database with a month of traffic, through the store's own schema: `python -m benchmarks.make_database PATH`.

The same arguments give the same rows. It writes without waiting for the disk, so only a finished file is a good one.
"""

import argparse
import json
import random
import sqlite3
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Final

from benchmarks.month import GIB, HOUR_S, Month
from herd.store import rollups, schema
from herd.store.rows import ATTEMPT_COLUMNS, EVENT_COLUMNS, SAMPLE_COLUMNS, TRACE_COLUMNS

BATCH: Final = 20_000
ROWS: Final = 1_000_000
TRACE: Final = (*TRACE_COLUMNS, "decision")


def main() -> None:
    """Read the arguments, write, and say how long it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path, help="the file to make; it must not be there yet")
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--nodes", type=int, default=10)
    parser.add_argument("--models", type=int, default=30)
    parser.add_argument("--tags", type=int, default=50)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--end", type=float, default=None, help="unix seconds of the last request (default: now)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--lean", action="store_true", help="leave the decisions out: a fifth of the bytes")
    asked = parser.parse_args()
    if asked.path.exists():
        parser.error(f"{asked.path} is there already")
    end = time.time() if asked.end is None else asked.end
    begun = time.monotonic()
    make(asked.path, Month(asked.rows, asked.nodes, asked.models, asked.tags, asked.days, end, asked.seed), asked.lean)
    size_mb = asked.path.stat().st_size / 2**20
    print(f"{asked.rows} rows, {size_mb:.0f} MiB, {time.monotonic() - begun:.0f} s: {asked.path}")


def make(path: Path, month: Month, lean: bool = False) -> None:
    """Write the month's requests, attempts, samples and events, and roll them up."""
    connection = schema.open_for_writing(path)
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA cache_size = -262144")
    try:
        for batch in _batches(month.requests()):
            if lean:
                batch = [{**row, "decision": None} for row in batch]  # noqa: PLW2901 - the same batch without its weight
            with _Transaction(connection):
                _insert(connection, "request_traces", TRACE, ([row[name] for name in TRACE] for row in batch))
                _insert(connection, "request_attempts", ATTEMPT_COLUMNS, _attempts(batch))
                _insert(connection, "fleet_events", EVENT_COLUMNS, _fallbacks(batch))
        with _Transaction(connection):
            _insert(connection, "node_samples", SAMPLE_COLUMNS, _samples(month))
        while rollups.step(connection):
            pass
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        connection.close()


class _Transaction:
    """All or nothing."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN")

    def __exit__(self, kind: object, *_: object) -> None:
        self._connection.execute("ROLLBACK" if kind else "COMMIT")


def _batches(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while batch := list(islice(rows, BATCH)):
        yield batch


def _insert(connection: sqlite3.Connection, table: str, columns: tuple[str, ...], rows: Iterator[Any]) -> None:
    places = ", ".join("?" * len(columns))
    connection.executemany(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})", rows)


def _attempts(batch: list[dict[str, Any]]) -> Iterator[tuple[Any, ...]]:
    for row in batch:
        if row["node_id"]:
            begun = row["timestamp"] + row["queue_ms"] / 1000
            first = row["time_to_first_token_ms"]
            yield (
                row["request_id"], 1, row["node_id"], row["model"], f"http://{row['node_id']}:11434", row["span_id"],
                begun, row["finished_at"], row["http_status"],
                None if first is None else row["timestamp"] + first / 1000, row["error_type"], row["error_message"], 0,
            )  # fmt: skip


def _fallbacks(batch: list[dict[str, Any]]) -> Iterator[tuple[Any, ...]]:
    for row in batch:
        if row["fallback_used"]:
            told = {"from_model": row["original_model"], "request_id": row["request_id"], "to_model": row["model"]}
            yield row["finished_at"], "fallback", row["node_id"], row["model"], json.dumps(told)


def _samples(month: Month) -> Iterator[tuple[Any, ...]]:
    dice = random.Random(month.seed)
    first = month.end - month.days * 24 * HOUR_S
    for minute in range(month.days * 24 * 60):
        for name in month.node_names():
            used = int(dice.uniform(0.3, 0.9) * 64 * GIB)
            yield (
                name, first + 60 * minute, "online", dice.random(), used, 64 * GIB, "normal", '["model-00:8b"]',
                dice.randrange(5), 4,
            )  # fmt: skip


if __name__ == "__main__":
    main()
