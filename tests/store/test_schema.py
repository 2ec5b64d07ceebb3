"""How the database comes to be, and when it is left alone."""

import sqlite3
from contextlib import closing

import pytest

from herd.core.record import record
from herd.store import rows, schema
from herd.store.queries import StoreUnreadable
from tests.store import builders
from tests.store.tables import usage

CONTRACT = (
    "id", "request_id", "trace_id", "span_id", "timestamp", "finished_at", "endpoint", "original_format", "model",
    "original_model", "node_id", "score", "scores_breakdown", "status", "http_status", "error_type", "error_message",
    "finish_reason", "stream", "latency_ms", "time_to_first_token_ms", "time_per_output_token_ms", "queue_ms",
    "decision_ms", "overhead_ms", "load_ms", "predicted_ttft_ms", "prompt_tokens", "completion_tokens",
    "tokens_source", "retry_count", "fallback_used", "fallback_reason", "excluded_nodes", "tags", "client_ip",
    "api_key_id", "decision", "cached_tokens", "reasoning_tokens", "prefill_ms", "decode_ms", "predicted_queue_ms",
    "predicted_load_ms", "predicted_prefill_ms", "predicted_decode_ms",
)  # fmt: skip


def columns(connection, table):
    return [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]


def dump(path):
    connection = sqlite3.connect(path)
    try:
        return list(connection.iterdump()), connection.execute("PRAGMA user_version").fetchone()
    finally:
        connection.close()


@pytest.fixture
def opened(database):
    connection = schema.open_for_writing(database)
    yield connection
    connection.close()


def test_a_trace_has_the_columns_of_the_contract_in_their_order(opened):
    """Operators' queries name them; what came later stands at the end, where SQLite puts it."""
    assert columns(opened, "request_traces") == list(CONTRACT)


def test_the_fields_of_a_record_are_the_columns_of_a_row(opened):
    """Row and log line are made from one function; a field without a column would be in one of them only."""
    told = set(record(builders.finished()))
    assert told == set(columns(opened, "request_traces")) - {"id", "decision"} == set(rows.TRACE_COLUMNS)


@pytest.mark.parametrize(
    ("table", "names"),
    [
        ("request_attempts", rows.ATTEMPT_COLUMNS),
        ("node_samples", rows.SAMPLE_COLUMNS),
        ("nodes", rows.NODE_COLUMNS),
        ("fleet_events", ("id", *rows.EVENT_COLUMNS)),
    ],
)
def test_the_other_tables_have_the_columns_that_are_written(opened, table, names):
    """A list of columns that is kept in two places must be the same in both."""
    assert columns(opened, table) == list(names)


def test_a_new_database_is_of_the_latest_version_in_wal_mode(opened):
    """Readers with the sqlite3 command line must never wait for the writer."""
    assert schema.version_of(opened) == schema.LATEST
    assert opened.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert opened.execute("PRAGMA synchronous").fetchone() == (1,)


def test_opening_again_changes_nothing(database):
    """Every start of the router opens the database; only the first may make it."""
    schema.open_for_writing(database).close()
    before = dump(database)
    schema.open_for_writing(database).close()
    assert dump(database) == before


def test_a_database_from_before_the_nodes_were_kept_gets_their_table_and_loses_nothing(database, reader):
    """Whoever upgrades keeps the records, and the fleet is known from the next minute on."""
    database.parent.mkdir()
    with closing(sqlite3.connect(database)) as older:
        for statement in (each for step in schema.MIGRATIONS[:3] for each in step):
            older.execute(statement)
        older.execute("INSERT INTO fleet_events (at, kind, node_id, data) VALUES (1, 'node_joined', 'ada', '{}')")
        older.execute("PRAGMA user_version = 3")
        older.commit()
    with pytest.raises(StoreUnreadable, match="nodes"):
        reader.known_nodes()
    with closing(schema.open_for_writing(database)) as newer:
        assert newer.execute("SELECT node_id FROM fleet_events").fetchall() == [("ada",)]
        assert columns(newer, "nodes") == list(rows.NODE_COLUMNS)
    assert reader.known_nodes() == []


def test_a_migration_that_breaks_off_leaves_the_version_before(database):
    """A half-made schema under a finished version number would never be repaired."""
    database.parent.mkdir()
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("CREATE TABLE node_samples (in_the_way)")
    with pytest.raises(sqlite3.OperationalError, match="node_samples"):
        schema.migrate(connection)
    assert schema.version_of(connection) == 0
    assert not connection.execute("SELECT * FROM sqlite_master WHERE name = 'request_traces'").fetchall()
    connection.close()


def test_a_newer_database_is_not_opened_for_writing_and_not_changed(database, opened):
    """Two herds of different age may meet at one file; the older one must not damage it."""
    opened.execute("CREATE TABLE of_the_future (word)")
    opened.execute(f"PRAGMA user_version = {schema.LATEST + 1}")
    before = dump(database)
    with pytest.raises(schema.StoreNewer, match=r"schema version .* left untouched"):
        schema.open_for_writing(database)
    assert dump(database) == before


def test_a_newer_database_is_still_read(opened, database, reader):
    """What an older herd understands of it, it may show."""
    opened.execute("ALTER TABLE fleet_events ADD COLUMN of_the_future TEXT")
    opened.execute(f"PRAGMA user_version = {schema.LATEST + 1}")
    assert reader.traces().traces == ()
    assert usage(reader, 7) == []


def test_another_programs_database_is_not_touched(database):
    """Something else may have kept its traces in a file of this name."""
    database.parent.mkdir()
    with sqlite3.connect(database) as theirs:
        theirs.execute("CREATE TABLE request_traces (whatever)")
    theirs.close()
    before = database.read_bytes()
    with pytest.raises(schema.StoreForeign, match="move the file away"):
        schema.open_for_writing(database)
    assert database.read_bytes() == before


def test_a_reading_connection_cannot_write(opened, database):
    """Nothing but the writer may change a record."""
    connection = schema.open_for_reading(database)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.execute("DELETE FROM request_traces")
    connection.close()


@pytest.mark.parametrize("made", ["nothing", "an empty file", "a folder"])
def test_where_nothing_was_stored_there_is_nothing_to_open(tmp_path, made):
    """A router that has just started has no rows, which is no error."""
    path = tmp_path / "latency.db"
    if made == "an empty file":
        path.touch()
    elif made == "a folder":
        path.mkdir()
    assert schema.open_for_reading(path) is None
