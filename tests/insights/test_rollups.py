"""What the rollups say is what the rows say: counts and sums exactly, percentiles within the documented error."""

import itertools
import shutil
import sqlite3
from contextlib import closing

import pytest

from herd.store import reports, rollups, schema
from herd.store.cells import COUNTERS, MEASURES, PERCENTS
from herd.store.histogram import LEAST, RELATIVE_ERROR
from herd.store.retention import Retention, sweep
from herd.store.rollups import DAY_S, HOUR_S
from herd.store.windows import Scope, read
from herd.store.writer import ROLL_ROWS
from tests.harness import until
from tests.insights.conftest import DAYS, END, month
from tests.store import builders

ALL_ROWS = 10**9
SINCES = (END - DAYS * DAY_S + 1234.5, END - 2 * DAY_S - END % DAY_S, 0.0)
GROUPS = ((), ("model",), ("node_id",), ("node_id", "model"), ("tag",), ("hour",), ("day", "node_id", "model"),
          ("day", "tag"))  # fmt: skip


@pytest.fixture
def rolled(days, tmp_path):
    """A copy of the four days with all but some rows rolled up."""
    path = tmp_path / "latency.db"
    shutil.copy(days, path)
    connection = schema.open_for_writing(path)
    yield connection
    connection.close()


def scopes(connection):
    """Nothing asked for, and every combination of a tag, a model and a node that were seen together."""
    tag, model, node_id = connection.execute(
        "SELECT value, model, node_id FROM request_traces, json_each(tags) WHERE node_id IS NOT NULL LIMIT 1"
    ).fetchone()
    for chosen in itertools.product((None, tag), (None, model), (None, node_id)):
        yield Scope(*chosen)


def near(told, exact):
    if exact is None:
        return told is None
    return abs(told - exact) <= max(exact * (RELATIVE_ERROR + 1e-5), LEAST)


def same(told, exact):
    """Whether two cells tell the same requests, with percentiles as near as is promised."""
    assert (told.first_seen, told.last_seen) == (exact.first_seen, exact.last_seen)
    assert dict(zip(COUNTERS, told.counters, strict=True)) == dict(zip(COUNTERS, exact.counters, strict=True))
    for name in MEASURES:
        mine, theirs = told.measure(name), exact.measure(name)
        assert (mine.count, mine.total_us) == (theirs.count, theirs.total_us), name
        pairs = zip(mine.quantiles(PERCENTS), theirs.quantiles(PERCENTS), strict=True)
        assert all(near(*pair) for pair in pairs), name


@pytest.mark.parametrize("by", GROUPS, ids=lambda by: "-".join(by) or "all")
def test_rollups_say_what_the_rows_say_in_every_window_and_for_every_filter(rolled, by):
    """A month is read from sums; if one of them is off, nobody would see it."""
    for since, scope in itertools.product(SINCES, scopes(rolled)):
        told = read(rolled, since, by, scope, exact=0)
        exact = read(rolled, since, by, scope, exact=ALL_ROWS)
        assert (told.relative_error, exact.relative_error) == (RELATIVE_ERROR, 0.0)
        assert told.groups.keys() == exact.groups.keys()
        for group, cell in told.groups.items():
            same(cell, exact.groups[group])


@pytest.mark.parametrize("exact", [0, ALL_ROWS])
def test_a_model_is_found_in_any_case_of_its_name(rolled, exact):
    """Engines do not mind it, so a table that is empty for it would be taken for a model that nobody used."""
    model, since = next(scope.model for scope in scopes(rolled) if scope.model), SINCES[0]
    told = read(rolled, since, ("node_id", "model"), Scope(model=model.upper()), exact=exact).groups
    wanted = read(rolled, since, ("node_id", "model"), Scope(model=model), exact=exact).groups
    assert model != model.upper()
    assert {group: cell.counters for group, cell in told.items()} == {
        group: cell.counters for group, cell in wanted.items()
    }
    assert wanted


def test_what_was_asked_for_is_rolled_up_by_the_model_asked_for(rolled):
    """Demand for a model that is never loaded shows only there."""
    told, exact = (read(rolled, END - 3 * DAY_S, ("asked",), exact=limit).groups for limit in (0, ALL_ROWS))
    assert told.keys() == exact.keys()
    assert all(told[model].counters == exact[model].counters for model in told)
    assert ("model-00:70b",) in told, "a model that only ever fell back"


@pytest.mark.parametrize("by", GROUPS, ids=lambda by: "-".join(by) or "all")
def test_a_window_does_not_read_the_sums_of_the_time_before_it(rolled, by):
    """Daily sums stay a year longer than their rows, and a page of a week must not be slower for that."""
    asked = []
    rolled.set_trace_callback(asked.append)
    for scope in scopes(rolled):
        read(rolled, END - 2 * DAY_S, by, scope, exact=0)
    rolled.set_trace_callback(None)
    sums = [text for text in asked if "FROM rollups" in text and "kind" in text]
    plans = [row[3] for text in sums for row in rolled.execute(f"EXPLAIN QUERY PLAN {text}")]
    assert len(plans) >= 8
    assert [step for step in plans if step.startswith(("SCAN", "SEARCH")) and "start" not in step] == []


def test_a_short_window_is_told_exactly(rolled):
    """Where few requests are asked about, there is no reason to estimate."""
    found = read(rolled, END - 2 * HOUR_S, ("model",))
    assert (found.relative_error, sum(cell.requests for cell in found.groups.values()) > 10) == (0.0, True)


def cells(connection):
    return [
        tuple(row)
        for row in connection.execute("SELECT * FROM rollups ORDER BY kind, span, tag, start, node_id, model")
    ]


@pytest.mark.parametrize("rows", [500, 777, 100_000])
def test_the_size_of_a_step_changes_nothing(days, tmp_path, rolled, rows):
    """The rows come in portions of whatever size the traffic makes."""
    while rollups.step(rolled, 2_000):
        pass
    shutil.copy(days, tmp_path / "other.db")
    with closing(schema.open_for_writing(tmp_path / "other.db")) as other:
        other.execute("DELETE FROM rollup_state")
        while rollups.step(other, rows):
            pass
        assert cells(other) == cells(rolled)


def test_a_step_that_breaks_off_counts_nothing_twice(rolled):
    """A power cut between a row and its sum must not be seen in the sum."""
    before = rollups.rolled_through(rolled)
    rolled.set_progress_handler(lambda: 1, 20_000)  # SQLite gives up in the middle of the step
    with pytest.raises(sqlite3.OperationalError, match="interrupted"):
        rollups.step(rolled)
    rolled.set_progress_handler(None, 0)
    assert rollups.rolled_through(rolled) == before
    while rollups.step(rolled):
        pass
    total = read(rolled, 0.0, (), exact=0).groups[()].requests
    assert total == rolled.execute("SELECT COUNT(*) FROM request_traces").fetchone()[0]


@pytest.mark.parametrize(
    "broken",
    [
        "DELETE FROM rollup_state",
        "UPDATE rollup_state SET format = 0",
        "DELETE FROM request_traces WHERE id > 1500",
    ],
)
def test_rollups_that_do_not_fit_the_rows_are_made_anew(rolled, broken):
    """A format changes, a person deletes rows by hand: sums of something else are no sums."""
    rolled.execute("UPDATE rollups SET completed_count = 9999")
    rolled.execute(broken)
    while rollups.step(rolled):
        pass
    told, exact = (read(rolled, 0.0, ("node_id",), exact=limit).groups for limit in (0, ALL_ROWS))
    assert {group: cell.requests for group, cell in told.items()} == {
        group: cell.requests for group, cell in exact.items()
    }


def test_where_there_are_no_rollups_the_rows_are_read(rolled):
    """An older database is read before a writer has brought it up to date."""
    exact = read(rolled, 0.0, ("model",), exact=ALL_ROWS)
    rolled.execute("DROP TABLE rollups")
    rolled.execute("DROP TABLE rollup_state")
    assert read(rolled, 0.0, ("model",), exact=0).groups.keys() == exact.groups.keys()


def test_the_writer_rolls_up_by_itself(database, keep, reader):
    """Nobody runs a job by hand."""
    keep(*(builders.finished(at=builders.NOON - number, tags=("a",)) for number in range(2 * ROLL_ROWS + 50)))
    with closing(schema.open_for_reading(database)) as connection:
        until(lambda: rollups.rolled_through(connection) >= ROLL_ROWS, "rolled up")
        assert read(connection, 0.0, ("tag",), exact=0).groups[("a",)].requests == 2 * ROLL_ROWS + 50


def test_a_request_that_ends_late_counts_in_the_hour_of_its_receipt(rolled):
    """A row is written when a request ends, an hour after others that were received later."""
    moved = rolled.execute("SELECT timestamp FROM request_traces WHERE id = 1503").fetchone()[0]
    hour = int(moved // HOUR_S) * HOUR_S
    told, exact = (read(rolled, hour, ("hour",), exact=limit).groups[(hour,)].requests for limit in (0, ALL_ROWS))
    assert told == exact


def rolled_up(path):
    connection = schema.open_for_writing(path)
    while rollups.step(connection):
        pass
    return connection


def test_days_are_told_after_their_rows_are_gone(database, keep, reader, writer):
    """Thirty days of rows, but a year of sums."""
    keep(*(builders.finished(at=builders.NOON - 60 * DAY_S, tags=("old",)) for _ in range(3)), builders.finished())
    with closing(rolled_up(database)) as connection:
        while sweep(connection, Retention(days=30), builders.NOON):
            pass
        assert connection.execute("SELECT COUNT(*) FROM request_traces").fetchone()[0] == 1
        assert not connection.execute(
            "SELECT 1 FROM rollups WHERE span = 3600 AND start < ?", (builders.NOON - DAY_S,)
        ).fetchall()
    report = reader.report(reports.apps, builders.NOON - 90 * DAY_S)
    assert [(row["tag"], row["request_count"]) for row in report.data] == [("old", 3)]
    while sweep(connection := schema.open_for_writing(database), Retention(days=30), builders.NOON + 400 * DAY_S):
        connection.close()
    assert not connection.execute("SELECT 1 FROM rollups").fetchall()
    connection.close()


def test_row_numbers_that_are_given_again_are_rolled_up_again(database, keep, writer):
    """SQLite counts from one again once a table is empty; the rows after that are new ones."""
    keep(*(builders.finished(at=1.0) for _ in range(5)))
    with closing(rolled_up(database)) as connection:
        while sweep(connection, Retention(days=30), builders.NOON):
            pass
        keep(*(builders.finished() for _ in range(3)))
        while rollups.step(connection):
            pass
        assert read(connection, builders.NOON - 60, (), exact=0).groups[()].requests == 3


def test_rollups_that_cannot_be_written_hold_up_no_row(database, keep, writer):
    """Sums can be made later; a row that is not written is gone."""
    keep(builders.finished("before"))
    with closing(sqlite3.connect(database)) as other:
        other.execute("DROP TABLE rollups")
        keep(*(builders.finished() for _ in range(ROLL_ROWS + 50)))
        keep(builders.finished("after"))
        assert other.execute("SELECT COUNT(*) FROM request_traces").fetchone()[0] == ROLL_ROWS + 52
    assert writer.stats().up


def test_the_same_numbers_give_the_same_month():
    """A figure that was measured on chance cannot be measured again."""
    one, two, other = (list(month(300, seed).requests()) for seed in (5, 5, 6))
    assert one == two != other
    assert [row["timestamp"] for row in one] == sorted(row["timestamp"] for row in one)
