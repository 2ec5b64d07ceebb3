"""Looking for few requests among many: a search leaves out what the sums rule out, and still finds every one."""

import sqlite3
from contextlib import closing
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.make_database import make
from benchmarks.month import Month
from herd.store import rollups, rows, schema, stretches, traces
from herd.store.queries import Reader
from herd.store.rollups import HOUR_S
from herd.store.traces import TraceFilter

ROWS = 900
END = 1_767_794_580.0  # neither an hour nor a day begins there
PLAIN = {
    "status": "(status = :status OR (:status = 'errors' AND status IN ('failed', 'incomplete')))",
    "model": "lower(model) = lower(:model)",
    "node_id": "node_id = :node_id",
    "tag": "EXISTS (SELECT 1 FROM json_each(tags) WHERE value = :tag)",
    "since": "timestamp >= :since",
    "until": "timestamp < :until",
    "min_latency_ms": "latency_ms >= :min_latency_ms",
    "q": """(substr(request_id, 1, length(:q)) = :q OR trace_id = :q OR model LIKE :pattern ESCAPE '!'
             OR node_id LIKE :pattern ESCAPE '!' OR error_message LIKE :pattern ESCAPE '!'
             OR EXISTS (SELECT 1 FROM json_each(tags) WHERE value LIKE :pattern ESCAPE '!'))""",
}
MOMENTS = st.floats(END - 6 * 86_400, END + 10) | st.sampled_from([END - 86_400 - END % 86_400, END - END % HOUR_S])
PIECES = ["refused", "NODE-0", "model-0", "app-0", "team", "a", "o", "0", "zz", "disk", "caf\u00e9", '","', '"', "[",
          "%", "_", "10%", "b_b", "\\", "rare:1b", "batch/7"]  # fmt: skip


def plain(connection, which):
    """The ids of all rows that pass, by reading every row."""
    wanted = {name: value for name, value in asdict(which).items() if value is not None}
    where = " AND ".join(PLAIN[name] for name in wanted) or "1"
    for mark in "!%_":
        wanted["pattern"] = wanted.get("pattern", wanted.get("q", "")).replace(mark, f"!{mark}")
    found = connection.execute(
        f"SELECT request_id FROM request_traces NOT INDEXED WHERE {where} ORDER BY timestamp DESC, id DESC",
        {**wanted, "pattern": f"%{wanted['pattern']}%"},
    )
    return [row["request_id"] for row in found]


def paged(connection, which, limit, looked_through, step):
    """The ids of all pages, and how often a page says that it stopped before it was full."""
    found, stops, cursor = [], 0, None
    while True:
        page = traces.page(connection, which, cursor, limit, looked_through, step)
        assert len(page.traces) <= limit
        if page.searched_until is not None:
            stops += 1
            assert page.next_cursor
            assert all(row["timestamp"] >= page.searched_until for row in page.traces)
        found += [row["request_id"] for row in page.traces]
        if (cursor := page.next_cursor) is None:
            return found, stops


def made(path, rolled):
    """Five days of traffic with some odd ones in it, of which the sums hold a part."""
    make(path, Month(ROWS, nodes=4, models=5, tags=6, days=5, end=END, seed=3), lean=True)
    with closing(schema.open_for_writing(path)) as connection:
        for number, (column, value) in enumerate(
            (("model", "rare:1b"), ("tags", '["caf\u00e9","batch/7"]'), ("error_message", "10% of b_b\\disk is left"),
             ("request_id", "step%1"), ("model", None), ("node_id", None), ("timestamp", END - 400_000.0))
        ):  # fmt: skip
            connection.execute(f"UPDATE request_traces SET {column} = ? WHERE id = ?", (value, 101 + 97 * number))
        connection.execute("UPDATE request_traces SET timestamp = CAST(timestamp / 300 AS INTEGER) * 300.0")
        connection.execute("DELETE FROM rollup_state")
        while rolled and rollups.rolled_through(connection) < rolled and rollups.step(connection, 100):
            pass


@pytest.fixture(scope="module", params=[0, 500, ROWS], ids=["no-sums", "some-sums", "all-sums"])
def connection(request, tmp_path_factory):
    """A reader's connection to such a database."""
    path = tmp_path_factory.mktemp("searched") / "latency.db"
    made(path, request.param)
    with closing(schema.open_for_reading(path)) as opened:
        yield opened


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    limit=st.integers(1, 60),
    looked_through=st.integers(1, ROWS),
    step=st.integers(1, 300),
)
def test_a_search_finds_exactly_what_reading_every_row_finds(connection, data, limit, looked_through, step):
    """In order, without gap or repetition, wherever it stops: what is not shown must not be there."""
    ids = connection.execute("SELECT request_id, trace_id FROM request_traces WHERE id % 50 = 1").fetchall()
    begin = [row["request_id"][:length] for row in ids for length in (3, 9, 32)]
    optional = lambda *values: st.none() | st.none() | st.sampled_from(values)  # noqa: E731 - one line says it
    which = data.draw(
        st.builds(
            TraceFilter,
            status=optional("completed", "failed", "rejected", "errors", "nonsense"),
            model=optional("model-00:70b", "rare:1b", "RARE:1b", "nope:1b"),
            node_id=optional("node-00", "node-03", "nope"),
            tag=optional("app-01", "team-a", "caf\u00e9", "nope"),
            since=st.none() | MOMENTS,
            until=st.none() | MOMENTS,
            min_latency_ms=optional(0.0, 3000.0, 1e12),
            q=st.none() | st.sampled_from([*PIECES, *begin, *(row["trace_id"] for row in ids)]),
        )
    )
    assert paged(connection, which, limit, looked_through, step)[0] == plain(connection, which)


@pytest.mark.parametrize("q", ["rare:1b", "batch/7", "b_b\\disk", "step%1", "nothing at all"])
def test_what_is_rare_is_found_at_once(tmp_path, q):
    """However few rows a page may look through: the hours without it are left out."""
    made(tmp_path / "latency.db", ROWS)
    with closing(schema.open_for_reading(tmp_path / "latency.db")) as connection:
        found, stops = paged(connection, TraceFilter(q=q), 10, looked_through=60, step=20)
        assert (found, stops) == (plain(connection, TraceFilter(q=q)), 0)
        _, stops = paged(connection, TraceFilter(min_latency_ms=1e12), 10, looked_through=60, step=20)
        assert stops > 5, "a search that no sum narrows"


def test_a_trace_is_found_by_its_trace_id(connection):
    """A trace viewer shows that one, and the way back to the request must not be SQL."""
    row = connection.execute("SELECT request_id, trace_id FROM request_traces WHERE id = 5").fetchone()
    assert paged(connection, TraceFilter(q=row["trace_id"]), 10, 50, 50)[0] == [row["request_id"]]
    assert paged(connection, TraceFilter(q=row["trace_id"][:31]), 10, 50, 50)[0] == []


def test_a_database_from_before_the_later_indexes_and_columns_is_searched_all_the_same(tmp_path):
    """While the router makes them, and where a command reads a file that no newer router has opened."""
    path = tmp_path / "latency.db"
    made(path, ROWS)
    with closing(sqlite3.connect(path)) as older:
        older.execute("DROP INDEX traces_by_trace")
        older.execute("DROP INDEX traces_with_error")
        for later in rows.TRACE_COLUMNS[rows.TRACE_COLUMNS.index("cached_tokens") :]:
            older.execute(f"ALTER TABLE request_traces DROP COLUMN {later}")
        older.execute("PRAGMA user_version = 4")
        older.commit()
    reader = Reader(path)
    try:
        assert len(reader.traces(TraceFilter(q="refused"), limit=1000).traces) > 3
        (row,) = reader.traces(TraceFilter(q="rare")).traces
        assert (row["model"], row["cached_tokens"]) == ("rare:1b", None)
        assert reader.trace(row["request_id"]).row["cached_tokens"] is None
    finally:
        reader.close()
    schema.open_for_writing(path).close()
    with closing(schema.open_for_reading(path)) as newer:
        assert schema.version_of(newer) == schema.LATEST
        wanted = {"q": "rare", "pattern": "%rare%", "q_end": "rare~"}
        assert len(list(stretches.stretches(newer, wanted, 0.0, END))) == 1
