"""Events that come again, because the recorder that had them died: nothing is there twice, and nothing is missing."""

import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest

from herd.core.events import FleetChanged
from tests.store import builders
from tests.store.waiting import written

TABLES = ("request_traces", "request_attempts", "fleet_events", "node_samples")


def counted(database):
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return {table: connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in TABLES}


@pytest.mark.parametrize("rounds", [2, 3])
def test_an_event_that_comes_again_leaves_what_it_left_before(writer, database, rounds):
    """A commit that nobody was told of, because kill -9 came between: the row is there, and it comes again."""
    events = [
        builders.finished("r1", served="other:1b", attempts=2),
        FleetChanged(builders.NOON, "node_lost", "ada", data={"why": "silent"}),
        FleetChanged(builders.NOON, "node_lost", None, "m:1b"),
        builders.sample(),
    ]
    for event in events:
        writer.take(event, builders.NOON)
    assert written(writer)
    before = counted(database)
    for _ in range(rounds - 1):
        for event in events:
            writer.take(event, builders.NOON, repeat=True)
        assert written(writer)
    assert counted(database) == before == dict(zip(TABLES, (1, 2, 3, 1), strict=True))


def test_events_that_are_alike_but_not_the_same_are_all_kept(writer, database):
    """Two nodes lost in one moment are two."""
    for number in range(2):
        writer.take(FleetChanged(builders.NOON, "node_lost", f"n{number}"), repeat=True)
        writer.take(FleetChanged(builders.NOON + number, "node_back", "ada"), repeat=True)
    assert written(writer)
    assert counted(database)["fleet_events"] == 4


def test_two_requests_with_one_id_are_two_and_each_comes_again_as_itself(writer, database):
    """The caller chooses ids, and may send one twice; the span tells the requests apart."""
    first, second = builders.finished("same", attempts=2), builders.finished("same")
    for event in (first, second, first, second):
        writer.take(event, repeat=True)
    assert written(writer)
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        found = dict(connection.execute("SELECT request_id, span_id FROM request_traces"))
    assert found == {"same": first.ids.span_id, f"same.{second.ids.span_id}": second.ids.span_id}
    assert counted(database)["request_attempts"] == 3


def test_what_is_disposed_of_is_counted_in_order_also_where_an_event_makes_no_rows(writer):
    """What is said to be done is never sent again: one too many would lose the event before it."""
    assert writer.stats().disposed == 0
    for event in (builders.finished(), replace(builders.finished(), usage=None), builders.sample()):
        writer.take(event)
    assert written(writer) is False, "one was lost"
    stats = writer.stats()
    assert (stats.disposed, stats.written, stats.failed) == (3, 1, 1)
