"""What the writer keeps of each event, and what its counters say."""

import json
import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest

from herd.core.events import (
    AttemptFailed,
    ContextAction,
    ContextProtected,
    FleetChanged,
    Managed,
    NodeKnown,
    Status,
    StreamBroken,
    TraceIds,
    Usage,
)
from herd.store.writer import Writer
from tests.harness import until
from tests.store import builders
from tests.store.conftest import FOR_EVER
from tests.store.waiting import written

IDS = TraceIds("a" * 32, "b" * 16)


def stored(database, query):
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    try:
        return [dict(row) for row in connection.execute(query)]
    finally:
        connection.close()


def events(database):
    return [{**row, "data": json.loads(row["data"])} for row in stored(database, "SELECT * FROM fleet_events")]


def test_a_finished_request_is_one_row_with_its_fields(keep, database):
    """The row is what operators query for weeks after."""
    keep(builders.finished("r-1", tags=("prod", "code-review"), latency_s=2.0, ttft_s=0.5, tokens=(7, 11)))
    (row,) = stored(database, "SELECT * FROM request_traces")
    told = {name: row[name] for name in ("request_id", "node_id", "status", "latency_ms", "stream", "fallback_used")}
    assert told == {
        "request_id": "r-1", "node_id": "ada", "status": "completed", "latency_ms": 2000.0, "stream": 1,
        "fallback_used": 0,
    }  # fmt: skip
    assert (row["time_to_first_token_ms"], row["prompt_tokens"], row["completion_tokens"]) == (500.0, 7, 11)
    assert json.loads(row["tags"]) == ["prod", "code-review"]
    assert len(json.loads(row["scores_breakdown"])) == 8


def test_cached_and_reasoning_tokens_have_their_columns(keep, database):
    """Whether a conversation found its cache is asked of the rows."""
    told = Usage(20, 40, cached_tokens=16, reasoning_tokens=30, source="reported")
    keep(builders.finished("r-1", usage=told), builders.finished("r-2"))
    rows = stored(database, "SELECT cached_tokens, reasoning_tokens FROM request_traces ORDER BY request_id")
    assert [tuple(row.values()) for row in rows] == [(16, 30), (None, None)]


def test_every_status_leaves_a_row(keep, database):
    """Failures above all: a record of successes only is no record."""
    keep(*(builders.finished(status.value, status=status) for status in Status))
    assert {row["status"] for row in stored(database, "SELECT status FROM request_traces")} == set(Status)


def test_a_request_that_was_never_understood_has_its_row_too(keep, database):
    """It has no model, no node and no decision, and those are NULL rather than empty words."""
    keep(builders.refused("bad"))
    (row,) = stored(database, "SELECT model, node_id, score, tags, decision, error_type FROM request_traces")
    assert row == {"model": None, "node_id": None, "score": None, "tags": None, "decision": None,
                   "error_type": "bad_request"}  # fmt: skip


def test_each_attempt_is_a_row_of_its_own(keep, database):
    """The nodes that failed a request do not show in the row of the one that answered."""
    keep(builders.finished("r", attempts=3))
    rows = stored(database, "SELECT number, node_id, error_type FROM request_attempts WHERE request_id = 'r'")
    assert [(row["number"], row["node_id"], row["error_type"]) for row in rows] == [
        (1, "lost1", "connect"), (2, "lost2", "connect"), (3, "ada", None),
    ]  # fmt: skip


def test_a_fallback_leaves_an_event_beside_its_row(keep, database):
    """The health check that counts fallbacks reads events, not rows."""
    keep(builders.finished("r", model="big:70b", served="small:7b"), builders.finished("plain"))
    (event,) = events(database)
    assert (event["kind"], event["node_id"], event["model"]) == ("fallback", "ada", "small:7b")
    assert (event["data"]["request_id"], event["data"]["from_model"]) == ("r", "big:70b")


def test_fleet_changes_samples_management_and_context_protection_are_kept(keep, database):
    """They are the history from which health and availability are told."""
    keep(
        FleetChanged(1.0, "node_joined", "ada", data={"engine": "ollama"}),
        builders.sample("ada", 60.0),
        Managed("r", IDS, "/api/pull", "m:latest", "ada", 200, 2.0, 3.5),
        ContextProtected("r", IDS.trace_id, ContextAction("stripped", "ada", "m:latest", 4096, 8192)),
    )
    kinds = {event["kind"]: event for event in events(database)}
    assert set(kinds) == {"node_joined", "managed", "context_protection"}
    assert kinds["managed"]["data"]["latency_ms"] == 1500.0
    assert kinds["context_protection"]["data"]["asked"] == 4096
    assert kinds["context_protection"]["at"] > builders.NOON - 1e9
    assert [row["node_id"] for row in stored(database, "SELECT * FROM node_samples")] == ["ada"]


def test_a_node_is_kept_as_it_last_was_until_it_is_struck_off(keep, reader, database):
    """A restarted router begins with these; two rows of one node would be two nodes."""
    ada, bob = (NodeKnown(name, {"node_id": name, "odd": "\ud800"}, 1.0) for name in ("ada", "bob"))
    keep(ada, bob, replace(ada, heartbeat={"node_id": "ada"}, last_seen=2.0, left=True, drained=True))
    assert [(each.node_id, each.last_seen) for each in reader.known_nodes()] == [("ada", 2.0), ("bob", 1.0)]
    assert reader.known_nodes()[0] == NodeKnown("ada", {"node_id": "ada"}, 2.0, left=True, drained=True)
    keep(FleetChanged(3.0, "node_lost", "ada"), FleetChanged(3.0, "node_forgotten", "bob"))
    assert [each.node_id for each in reader.known_nodes()] == ["ada"]
    with closing(sqlite3.connect(database)) as other, other:
        other.execute("UPDATE nodes SET heartbeat = '{'")
    assert reader.known_nodes() == []


def test_events_that_are_part_of_a_request_leave_nothing_of_their_own(keep, database, writer):
    """A failed attempt is written with its request; twice would be twice counted."""
    attempt = builders.finished(attempts=2).attempts[0]
    keep(AttemptFailed("r", "t", attempt, True), StreamBroken("r", "t", "ada", "m", "stream_aborted", "cut"))
    assert not stored(database, "SELECT * FROM request_attempts")
    assert not events(database)
    assert writer.stats().written == 0


def test_two_requests_under_one_id_are_two_rows(keep, database):
    """A caller may send one X-Request-Id twice; neither request may vanish, nor take the other's attempts."""
    keep(builders.finished("same"), builders.finished("same", attempts=2), builders.finished("same"))
    rows = stored(database, "SELECT request_id, span_id FROM request_traces ORDER BY id")
    assert rows[0]["request_id"] == "same"
    assert [row["request_id"] for row in rows[1:]] == [f"same.{row['span_id']}" for row in rows[1:]]
    assert len(stored(database, "SELECT * FROM request_attempts WHERE request_id = 'same'")) == 1


def test_strange_words_and_numbers_from_a_request_are_stored(keep, database, writer):
    """A lone surrogate or an integer over 64 bits is refused by SQLite, and both can come from outside."""
    odd = builders.finished("odd", model="\ud800mo\x00del", tags=("caf\u00e9",), tokens=(10**30, None))
    keep(builders.finished("before"), odd, builders.failed("last", error_message="\udfff \U0001f600 ' \" \\ %"))
    assert writer.stats().written == 3
    rows = {row["request_id"]: row for row in stored(database, "SELECT * FROM request_traces")}
    assert rows["odd"]["prompt_tokens"] == 2**63 - 1
    assert rows["odd"]["tags"] == '["caf\u00e9"]'
    assert rows["last"]["error_message"] == "\\udfff \U0001f600 ' \" \\ %"


def test_an_event_that_cannot_be_a_row_harms_no_other(database, writer):
    """One defect in one record must not stop the records behind it."""
    for event in (builders.finished("a"), builders.finished("broken", usage=None), builders.finished("b")):
        writer.take(event)
    written(writer)
    assert (writer.stats().written, writer.stats().failed) == (2, 1)


def test_a_row_that_the_database_refuses_harms_no_other(database, writer):
    """A batch is one transaction; a wrong row in it must not take the right ones along."""
    odd = builders.finished("odd", endpoint=None)
    for event in (builders.finished("a"), odd, builders.finished("b")):
        writer.take(event)
    written(writer)
    assert (writer.stats().written, writer.stats().failed, writer.stats().up) == (2, 1, True)


def test_each_commit_is_counted_and_measured(database):
    """The length of a commit is the first sign of a disk that fails."""
    seen = []
    writer = Writer(database, retention_days=FOR_EVER, on_commit=seen.append)
    writer.start()
    writer.take(builders.finished())
    assert written(writer)
    stats = writer.stats()
    assert writer.close(20)
    assert (stats.commits, stats.written, stats.commit_seconds_sum) == (1, 1, *seen)
    assert seen[0] > 0


def test_many_requests_share_a_commit(database, writer):
    """A commit for each row would be a hundred rows a second."""
    for _ in range(1200):
        writer.take(builders.finished())
    assert written(writer)
    assert writer.stats().written == 1200
    assert writer.stats().commits < 100


def test_the_size_on_disk_is_told_and_grows(keep, writer):
    """A disk that fills up has to be seen before it is full."""
    until(lambda: writer.stats().up, "the database is open")
    before = writer.stats().bytes
    keep(*(builders.finished() for _ in range(200)))
    until(lambda: writer.stats().bytes > before, "the size is measured")


def test_the_database_is_there_before_the_first_request(database, writer):
    """An operator's first query should say that there are no rows, not that there is no table."""
    until(lambda: writer.stats().up, "the database is open")
    assert stored(database, "SELECT * FROM request_traces") == []


def test_closing_writes_what_still_waits(database):
    """A router that is stopped in order loses nothing."""
    writer = Writer(database, retention_days=FOR_EVER)
    for number in range(700):
        writer.take(builders.finished(f"r{number}"))
    writer.start()
    assert writer.close(20)
    assert len(stored(database, "SELECT id FROM request_traces")) == 700
    assert writer.stats().waiting == 0


def test_after_the_end_events_are_counted_and_not_kept(database, writer):
    """Whoever emits too late must not fail, and must not believe either that it is on record."""
    assert writer.close(20)
    writer.take(builders.finished())
    assert (writer.stats().dropped, writer.stats().up) == (1, False)


def test_the_write_ahead_log_is_cut_when_it_is_large(database, keep):
    """A reader keeps it from being reused; once the reader is gone it must not stay as large as it grew."""
    keep(builders.finished())
    holding = sqlite3.connect(database, isolation_level=None)
    holding.execute("BEGIN")
    holding.execute("SELECT * FROM request_traces").fetchall()
    log = database.with_name("latency.db-wal")
    long = builders.failed(error_message="x" * 100_000)
    for number in range(200):
        keep(builders.failed(f"long{number}", error_message=long.error_message))
    assert log.stat().st_size > 16 * 2**20
    holding.rollback()
    holding.close()
    until(lambda: log.stat().st_size < 2**20, "the log is cut")


@pytest.mark.parametrize("capacity", [1, 7])
def test_a_full_queue_drops_the_newest_and_counts_them(database, capacity):
    """Memory is bounded whatever the disk does, and what is lost is known."""
    writer = Writer(database, retention_days=FOR_EVER, capacity=capacity)
    for number in range(10):
        writer.take(builders.finished(f"r{number}"))
    writer.take(builders.sample())
    assert (writer.stats().waiting, writer.stats().dropped, writer.stats().others_lost) == (capacity, 10 - capacity, 1)
    writer.start()
    assert writer.close(20)
    assert writer.stats().written == capacity
