"""Lists of traces, their filters and pages, and one trace with all that is known of it."""

import sqlite3
from contextlib import closing

import pytest

from herd.core.events import Status
from herd.store.decision import agrees
from herd.store.traces import TraceFilter
from tests.store import builders

NOON = builders.NOON


def found(reader, **which):
    return {row["request_id"] for row in reader.traces(TraceFilter(**which)).traces}


@pytest.fixture
def mixed(keep):
    """Five requests that differ in everything that can be asked for."""
    keep(
        builders.finished("plain", at=NOON, tags=("prod",), latency_s=1.0),
        builders.finished("slow", at=NOON + 10, node_id="bob", tags=("prod", "batch"), latency_s=60.0),
        builders.finished("other", at=NOON + 20, model="qwen3:8b", tags=("production",), latency_s=2.0),
        builders.failed("lost", at=NOON + 30, error_message="100% of bob_s memory\\swap is gone"),
        builders.refused("bad", at=NOON + 40),
    )


def test_a_failed_attempt_is_found_by_its_node_though_another_answered(keep, reader):
    """A node that eats every other request is invisible in a list of failed requests."""
    keep(builders.finished("plain", at=NOON), builders.finished("saved", at=NOON + 1, attempts=2))
    assert found(reader, tried="lost1") == {"saved"}
    assert found(reader, retried=True) == {"saved"}
    assert found(reader, retried=False) == {"plain"}
    assert found(reader, tried="ada") == found(reader, status="failed") == set()


@pytest.mark.parametrize(
    ("which", "expected"),
    [
        ({}, {"plain", "slow", "other", "lost", "bad"}),
        ({"status": "failed"}, {"lost"}),
        ({"status": "incomplete"}, set()),
        ({"status": "errors"}, {"lost"}),
        ({"model": "qwen3:8b"}, {"other"}),
        ({"model": "QWEN3:8B"}, {"other"}),
        ({"model": "qwen3"}, set()),
        ({"node_id": "bob"}, {"slow"}),
        ({"tag": "prod"}, {"plain", "slow"}),
        ({"tag": "batch"}, {"slow"}),
        ({"tag": "pro"}, set()),
        ({"tag": '","'}, set()),
        ({"since": NOON + 20}, {"other", "lost", "bad"}),
        ({"until": NOON + 20}, {"plain", "slow"}),
        ({"since": NOON + 10, "until": NOON + 30}, {"slow", "other"}),
        ({"min_latency_ms": 2000.0}, {"slow", "other"}),
        ({"tag": "prod", "min_latency_ms": 2000.0}, {"slow"}),
        ({"q": "QWEN"}, {"other"}),
        ({"q": "plai"}, {"plain"}),
        ({"q": "lain"}, set()),
        ({"q": '","'}, set()),
        ({"q": '["prod'}, set()),
        ({"q": "Plain"}, set()),
        ({"q": "batc"}, {"slow"}),
        ({"q": "memory"}, {"lost"}),
        ({"q": "100%"}, {"lost"}),
        ({"q": "1%0"}, set()),
        ({"q": "bob_s"}, {"lost"}),
        ({"q": "b_b"}, set()),
        ({"q": "y\\s"}, {"lost"}),
        ({"q": "'; DROP TABLE request_traces; --"}, set()),
    ],
)
def test_a_filter_finds_what_it_says_and_no_more(reader, mixed, which, expected):
    """Whoever filters must be able to trust what is not shown."""
    assert found(reader, **which) == expected


def test_a_models_short_name_is_its_latest(reader, keep):
    """`m` is `m:latest` everywhere in herd."""
    keep(builders.finished("r", model="mistral:latest"))
    assert found(reader, model="mistral") == found(reader, model="mistral:latest") == {"r"}


def test_traces_come_newest_first_by_the_time_of_receipt(reader, keep):
    """A long request is written late and belongs where it began."""
    keep(*(builders.finished(f"r{second}", at=NOON + second) for second in (3, 1, 2)))
    assert [row["request_id"] for row in reader.traces().traces] == ["r3", "r2", "r1"]


def test_a_row_speaks_json(reader, keep):
    """Lists, objects and booleans are such, and the decision is not dragged along in lists."""
    keep(builders.finished("r", tags=("prod",), attempts=2))
    (row,) = reader.traces().traces
    assert row["tags"] == ["prod"]
    assert row["excluded_nodes"] == ["lost1"]
    assert row["scores_breakdown"]["total"] == -row["score"]
    assert (row["stream"], row["fallback_used"]) == (True, False)
    assert not {"id", "decision"} & row.keys()


def test_pages_join_without_gap_or_repetition(reader, keep):
    """Even where a whole second's requests have one timestamp."""
    keep(*(builders.finished(f"r{number}", at=NOON + number // 7) for number in range(45)))
    everything = [row["request_id"] for row in reader.traces(limit=1000).traces]
    pages, cursor = [], None
    while True:
        page = reader.traces(cursor=cursor, limit=4)
        pages += [row["request_id"] for row in page.traces]
        if (cursor := page.next_cursor) is None:
            break
    assert pages == everything
    assert len(pages) == 45


def test_requests_that_end_meanwhile_move_no_page(reader, keep):
    """A page that is turned on a busy router must not show rows again, nor skip any."""
    keep(*(builders.finished(f"r{number}", at=NOON + number) for number in range(10)))
    first = reader.traces(limit=5)
    keep(*(builders.finished(f"new{number}", at=NOON + 100 + number) for number in range(10)))
    second = reader.traces(cursor=first.next_cursor, limit=5)
    assert [row["request_id"] for row in second.traces] == ["r4", "r3", "r2", "r1", "r0"]
    assert second.next_cursor is None


def test_a_page_keeps_its_filter(reader, keep):
    """The second page of the failures is failures too."""
    keep(*(builders.failed(f"f{number}", at=NOON + number) for number in range(4)))
    keep(*(builders.finished(at=NOON + number) for number in range(4)))
    which = TraceFilter(status="failed")
    first = reader.traces(which, limit=3)
    assert [row["request_id"] for row in reader.traces(which, first.next_cursor, 3).traces] == ["f0"]


@pytest.mark.parametrize(
    "cursor", ["", "x", "1", "1_", "_1", "nan_1", "inf_1", "1e999_1", "1_1; DROP", "--_1", "1_1_1"]
)
def test_a_cursor_that_is_none_is_refused(reader, keep, cursor):
    """A page from nowhere would look like an end, or like all there is."""
    keep(builders.finished())
    with pytest.raises(ValueError, match="not a cursor"):
        reader.traces(cursor=cursor)


def test_one_trace_has_its_attempts_in_order_and_its_decision(reader, keep):
    """This is what an explanation of a request is made of."""
    event = builders.finished("r", attempts=3)
    keep(event, builders.finished("another"))
    trace = reader.trace("r")
    assert trace.row["request_id"] == "r"
    assert [attempt["node_id"] for attempt in trace.attempts] == ["lost1", "lost2", "ada"]
    assert (trace.attempts[0]["reconnected"], trace.attempts[0]["error_type"]) == (False, "connect")
    assert trace.decision.decision == event.decision
    assert agrees(trace.decision)


def test_a_trace_without_a_decision_says_why(reader, keep):
    """An explanation that is missing must not look like a defect."""
    keep(builders.refused("bad"))
    trace = reader.trace("bad")
    assert (trace.decision, trace.attempts) == (None, ())
    assert "before anything was decided" in trace.unreadable


def test_a_decision_of_a_later_version_leaves_the_rest_readable(reader, keep, database):
    """An older herd may be asked about a newer one's rows."""
    keep(builders.finished("r"))
    with closing(sqlite3.connect(database)) as other, other:
        other.execute("UPDATE request_traces SET decision = json_set(decision, '$.version', 3)")
    trace = reader.trace("r")
    assert trace.row["status"] == Status.COMPLETED
    assert "version 3" in trace.unreadable


def test_there_is_no_trace_of_a_request_that_never_was(reader, keep):
    """Nor of one that is only the beginning of another's id."""
    keep(builders.finished("abc"))
    assert reader.trace("ab") is None
    assert reader.trace("") is None
