"""A database in a folder of its own, a writer and a reader on it, and a small way to fill it."""

from pathlib import Path

import pytest

from herd.core.events import Event
from herd.store.queries import Reader
from herd.store.writer import Writer
from tests.store.waiting import written

PATIENCE_S = 20.0
FOR_EVER = 36_500.0  # days: the builders' requests are of a fixed date


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Where the database is, or will be."""
    return tmp_path / ".fleet-manager" / "latency.db"


@pytest.fixture
def writer(database):
    """A running writer on it."""
    started = Writer(database, retention_days=FOR_EVER)
    started.start()
    yield started
    assert started.close(PATIENCE_S)


@pytest.fixture
def reader(database):
    """A reader on it."""
    made = Reader(database)
    yield made
    made.close()


@pytest.fixture
def keep(writer):
    """Writes events and returns once they are committed."""

    def kept(*events: Event) -> None:
        for event in events:
            writer.take(event)
        assert written(writer), writer.stats()

    return kept
