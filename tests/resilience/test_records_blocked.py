"""A router whose database, log or collector fails: requests go on, health and counters say so, it mends itself.

The same faults, one layer at a time: `tests/store/test_writer_faults.py`, `tests/telemetry/test_log_file.py`,
`tests/telemetry/test_export.py`.
"""

import os
import resource
import time
from pathlib import Path

import pytest

from herd.store.writer import Writer
from tests.harness import until
from tests.resilience.records import OVERFLOW, Records, superuser_can_be_anybody
from tests.store import builders

STORE, TELEMETRY = "trace_store_failing", "telemetry_dropping"


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One router for all faults that leave nothing behind."""
    running = Records(tmp_path_factory.mktemp("records"))
    try:
        running.start()
        yield running
    finally:
        running.stop()


@pytest.fixture
def records(shared):
    """That router, in order before the test and after it."""
    shared.in_order()
    yield shared
    shared.in_order()
    assert shared.router.metric("herd_sink_failures_total") == 0
    assert shared.router.get("/fleet/status")["fleet"]["requests_active"] == 0


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("locked", "locked"),
        ("of_a_newer_herd", "schema version 999"),
        ("no_database_but_a_folder", "unable to open"),
    ],
)
def test_a_database_that_cannot_be_written_delays_rows_and_no_request(records, fault, reason):
    """The rows wait in memory; health and the metric say so at once, and nobody has to restart anything."""
    with getattr(records, fault)():
        names = records.serve()
        finding = until(lambda: records.finding(STORE), "health says so")
        assert (finding["severity"], reason in finding["data"]["error"]) == ("critical", True), finding
        assert finding["data"]["waiting"] >= len(names)
        assert records.router.metric("herd_trace_store_up") == 0
        until(lambda: names <= records.written(), "what is not in the database is in the log")
    until(lambda: names <= records.kept(), "the rows come as soon as they can")
    until(lambda: records.router.metric("herd_trace_store_up") == 1, "the store is up")
    assert records.router.metric("herd_trace_rows_total", outcome="dropped") == 0
    assert records.router.metric("herd_trace_rows_total", outcome="failed") == 0


@pytest.mark.parametrize("pattern", ["latency.db", "latency.db*"])
def test_a_deleted_database_is_made_anew_and_only_the_deleted_rows_are_gone(records, pattern):
    """`rm` under a running router is a way to begin anew, not a way to lose what comes."""
    before, index = records.kept(), records.router.database.with_name("latency.db-shm")
    with index.open("rb") as held:
        for path in records.router.data_dir.glob(pattern):
            path.unlink()
        names = records.serve()
        until(lambda: names <= records.kept(), "the rows are in a new file")
        # Readers may still map what they knew of the old file. Were it shared with the new one, SQLite's locks on it
        # would be lost, and the next process to open the database could end the router.
        assert not os.path.samestat(os.fstat(held.fileno()), index.stat())
    assert not before & records.kept()
    assert records.finding(STORE) is None


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="only Linux limits another process's files")
def test_a_full_disk_costs_log_lines_and_no_request_and_no_row(records):
    """The commonest accident of all: models, database and log share one disk."""
    lost = records.router.metric("herd_log_dropped_total")
    with records.full_disk():
        names = records.serve()
        until(lambda: records.data(STORE).get("waiting", 0) >= len(names), "health says that rows wait")
        until(
            lambda: records.router.metric("herd_log_dropped_total") >= lost + len(names), "the lost lines are counted"
        )
        until(lambda: records.data(TELEMETRY).get("log_lines", 0) >= len(names), "and health says so")
    until(lambda: names <= records.kept(), "no row is lost")
    assert not names & records.written()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_log_disk_costs_lines_and_nothing_else(records):
    """The loss is a number in the metric and a line in the log once there is room; rows and spans are all there."""
    lost = records.router.metric("herd_log_dropped_total")
    with records.full_log_disk():
        names = records.serve()
        until(
            lambda: records.router.metric("herd_log_dropped_total") >= lost + len(names), "the lost lines are counted"
        )
        until(lambda: records.data(TELEMETRY).get("log_lines", 0) >= len(names), "health says so")
        until(lambda: names <= records.kept() and records.spans_of(names), "rows and spans come as ever")
        assert records.router.get("/readyz")["status"] == "ready"
    later = records.serve()
    until(lambda: later <= records.written(), "lines are written again")
    notes = [line["count"] for line in records.router.lines("log_lines_dropped")]
    assert notes[-1] >= len(names)


@pytest.mark.parametrize("fault", ["collector_refuses", "collector_hangs", "collector_answers_500"])
def test_a_collector_that_fails_costs_spans_and_nothing_else(records, fault):
    """Tracing is the least of the records and must never be what a request waits for."""
    lost = records.router.metric("herd_spans_dropped_total")
    with getattr(records, fault)():
        names = records.serve()
        until(lambda: names <= records.kept() and names <= records.written(), "rows and lines come as ever")
        until(lambda: records.router.metric("herd_spans_dropped_total") >= lost + len(names), "the loss is counted", 30)
        until(lambda: records.data(TELEMETRY).get("spans", 0) >= len(names), "health says so")
    exported = records.router.metric("herd_spans_exported_total")
    later = records.serve()
    until(lambda: records.spans_of(later), "spans are sent again")
    until(lambda: records.router.metric("herd_spans_exported_total") >= exported + len(later), "and counted")
    assert not records.spans_of(names)


def test_a_router_that_starts_on_a_read_only_database_serves_counts_what_it_loses_and_mends_itself(tmp_path):
    """After a restore by another user: rows wait, beyond ten thousand they are counted, `chmod` is all it takes."""
    if os.geteuid() == 0 and not superuser_can_be_anybody():
        pytest.skip("the superuser may write everything, and cannot be made anybody here")
    records = Records(tmp_path / "home")
    try:
        _restore(records.router.database)
        records.start()
        _play_read_only(records)
    finally:
        records.stop()


def _restore(database):
    """A database with one row, whose files nobody may write."""
    writer = Writer(database)
    writer.start()
    writer.take(builders.finished("old", at=time.time()))
    assert writer.close(20)
    database.chmod(0o400)


def _play_read_only(records):
    names = records.serve()
    finding = until(lambda: records.finding(STORE), "health says so")
    assert (finding["severity"], "readonly" in finding["data"]["error"]) == ("critical", True), finding
    records.overflow()
    until(lambda: records.told() >= OVERFLOW, "the log has come so far")
    lost = records.serve()
    dropped = until(lambda: records.router.metric("herd_trace_rows_total", outcome="dropped"), "the loss is counted")
    assert dropped == len(lost)
    until(lambda: records.data(STORE).get("rows_lost", 0) > len(lost), "health says so")
    until(lambda: lost <= records.written(), "what is lost in the database is in the log")
    for path in records.router.data_dir.glob("latency.db*"):
        path.chmod(0o600)
    until(lambda: names <= records.kept(), "what waited is written", 60)
    assert "old" in records.kept()
    assert not lost & records.kept()
    # It writes again, and the loss is not forgotten.
    until(lambda: (records.finding(STORE) or {}).get("severity") == "warning", "health says what was lost")
