"""What goes, what stays, and in which order."""

import time

import pytest

from herd.core.events import FleetChanged
from herd.store import schema
from herd.store.retention import DAY_S, STEP_ROWS, Retention, sizes, sweep
from herd.store.writer import Writer
from tests.harness import until
from tests.store import builders

NOW = builders.NOON
MONTH = Retention(days=30)


@pytest.fixture
def opened(database):
    connection = schema.open_for_writing(database)
    yield connection
    connection.close()


def count(connection, table):
    return connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0]


def swept(connection, keep, now=NOW):
    """How many steps it took until there was nothing more to do."""
    steps = 0
    while sweep(connection, keep, now):
        steps += 1
        assert steps < 1000
    return steps


def test_rows_over_their_age_go_and_younger_ones_stay(keep, opened):
    """Thirty days are promised: not twenty-nine, and not for ever."""
    for age in (29.9, 30.1, 400):
        at = NOW - age * DAY_S
        keep(builders.finished(f"{age}", at=at, attempts=2), builders.sample(at=at), FleetChanged(at, "node_joined"))
    swept(opened, MONTH)
    assert opened.execute("SELECT request_id FROM request_traces").fetchall() == [("29.9",)]
    assert [count(opened, table) for table in ("request_attempts", "node_samples", "fleet_events")] == [2, 1, 1]


def test_one_step_deletes_few_rows(keep, opened):
    """The thread that deletes is the one that writes; a month's rows at once would hold it up for seconds."""
    keep(*(builders.finished(at=1.0) for _ in range(STEP_ROWS + 50)))
    assert sweep(opened, MONTH, NOW)
    assert count(opened, "request_traces") == 50
    assert sweep(opened, MONTH, NOW)
    assert swept(opened, MONTH, NOW) <= 1, "only the rollups that lost their last row may be left"


def test_nothing_goes_while_there_is_room_and_nothing_is_old(keep, opened):
    """Retention that is too eager is data loss."""
    keep(*(builders.finished() for _ in range(20)))
    assert not sweep(opened, MONTH, NOW)
    assert not sweep(opened, MONTH, NOW, full=True), "a full disk is no reason to delete where the limit is far"
    assert count(opened, "request_traces") == 20


def test_over_the_limit_the_oldest_go_until_it_holds_again(keep, opened):
    """Disk is a promise too; what is newest is what an operator still needs."""
    keep(*(builders.finished(f"r{number}", at=NOW - number) for number in range(1500)))
    limit = sizes(opened)[1] * 2 // 3
    swept(opened, Retention(30, limit))
    size, used = sizes(opened)
    assert used <= size <= limit
    left = [row[0] for row in opened.execute("SELECT request_id FROM request_traces ORDER BY timestamp DESC")]
    assert left == [f"r{number}" for number in range(len(left))]
    assert 250 <= len(left) < 1500
    assert count(opened, "request_attempts") == len(left)


def test_where_traces_are_not_what_fills_the_file_other_history_goes(keep, opened):
    """A router that serves little still writes a sample a minute."""
    keep(*(FleetChanged(NOW - number, "node_back", "ada", data={"word": "x" * 200}) for number in range(3000)))
    limit = sizes(opened)[1] // 2
    swept(opened, Retention(30, limit))
    assert sizes(opened)[0] <= limit
    assert 0 < count(opened, "fleet_events") < 3000


def test_an_impossible_limit_does_not_sweep_without_end(opened):
    """The empty tables alone are larger than this."""
    assert swept(opened, Retention(30, 1000)) < 20


def test_the_writer_sweeps_by_itself(database):
    """Nobody runs a cleaner by hand."""
    writer = Writer(database, retention_days=30)
    writer.start()
    writer.take(builders.finished("old", at=time.time() - 31 * DAY_S))
    writer.take(builders.finished("new", at=time.time()))
    assert writer.close(20)
    again = Writer(database, retention_days=30)
    again.start()
    connection = schema.open_for_reading(database)
    until(lambda: [row[0] for row in connection.execute("SELECT request_id FROM request_traces")] == ["new"], "swept")
    connection.close()
    assert again.close(20)
