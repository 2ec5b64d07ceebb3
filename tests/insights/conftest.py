"""The store's fixtures, and a database with some days of traffic that is made once."""

import random
from pathlib import Path

import pytest

from benchmarks.make_database import make
from benchmarks.month import Month
from herd.store import rollups, schema
from tests.store.conftest import database, keep, reader, writer

__all__ = ["database", "keep", "reader", "writer"]

END = 1_767_794_580.0  # a Wednesday, 14:03 UTC: neither an hour nor a day begins there
DAYS = 4


def month(rows: int = 2_500, seed: int = 5) -> Month:
    """Four days of traffic on four nodes."""
    return Month(rows, nodes=4, models=6, tags=7, days=DAYS, end=END, seed=seed)


@pytest.fixture(scope="session")
def days(tmp_path_factory) -> Path:
    """A database with those four days, rolled up but for its last rows."""
    path = tmp_path_factory.mktemp("days") / "latency.db"
    make(path, month(), lean=True)
    connection = schema.open_for_writing(path)
    connection.execute("UPDATE request_traces SET timestamp = timestamp - 90000 WHERE id % 501 = 0")  # long ones
    connection.execute("DELETE FROM rollup_state")
    while rollups.rolled_through(connection) < 2_000:
        rollups.step(connection, 1_000)
    connection.close()
    return path


@pytest.fixture
def dice() -> random.Random:
    """The same throws each time."""
    return random.Random(20)
