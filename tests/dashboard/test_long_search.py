"""A search that is too long for one answer says how far it has come, and goes on where it is asked to."""

import time
from contextlib import closing

import pytest

from herd.store import schema
from herd.store.traces import LOOKED_THROUGH
from tests.e2e.conftest import started


@pytest.fixture
def busy(tmp_path):
    """A router with one request more than a page looks through, the first of them slow."""
    database = tmp_path / "home" / ".fleet-manager" / "latency.db"
    with closing(schema.open_for_writing(database)) as connection:
        connection.execute(
            """WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < :most)
               INSERT INTO request_traces (request_id, trace_id, span_id, timestamp, finished_at, endpoint, model,
                   original_model, original_format, status, http_status, stream, latency_ms, retry_count, fallback_used)
               SELECT 'r' || n, 't' || n, '', :now - n, :now - n, '/api/chat', 'm:1b', 'm:1b', 'ollama', 'completed',
                   200, 0, CASE n WHEN :most THEN 90000 ELSE 1 END, 0, 0 FROM numbers""",
            {"most": LOOKED_THROUGH, "now": time.time()},
        )
    fleet = started(tmp_path / "home")
    yield fleet
    fleet.nodes.stop()
    fleet.router.stop()


def test_a_search_that_stopped_is_not_taken_for_one_that_found_nothing(visit, busy):
    """Who reads that nothing matches looks elsewhere, while the request is a page further back."""
    page = visit(busy).go("#/traces?min_latency_ms=60000")
    page.get_by_text("Searched back to").wait_for()
    page.get_by_text("Nothing found so far").wait_for()
    page.get_by_role("link", name="Continue").click()
    page.get_by_role("link", name=f"r{LOOKED_THROUGH}").wait_for()
    assert page.get_by_text("Searched back to").count() == 0
