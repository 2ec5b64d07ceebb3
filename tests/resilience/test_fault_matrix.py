"""Every fault, streaming and not, in every dialect, with one node and with two: all records say what the table says."""

import json
from collections import Counter
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.resilience import dialects
from tests.resilience.faults import FAULTS, FINAL, OUTCOMES
from tests.resilience.page import tables
from tests.resilience.play import CELLS, WELL, Matrix, servers

PAGE = Path(__file__).parent.parent.parent / "docs" / "resilience.md"
NEVER = (
    "herd_sink_failures_total", "herd_spans_dropped_total", "herd_log_dropped_total", "herd_breaker_transitions_total",
    "herd_zombies_reaped_total", "herd_usage_missing_total",
)  # fmt: skip


@pytest.fixture(scope="module")
def matrix(tmp_path_factory):
    """The whole matrix, played once."""
    played = Matrix(tmp_path_factory.mktemp("matrix"))
    try:
        played.play()
        yield played
    finally:
        played.stop()


@pytest.fixture(scope="module")
def records(matrix):
    """Rows, and lines in their order, by request id."""
    rows = {row["request_id"]: row for row in matrix.fleet.router.rows()}
    lines = {}
    for line in matrix.fleet.router.lines(None):
        lines.setdefault(line.get("request_id"), []).append(line)
    return rows, lines


@pytest.fixture(scope="module")
def counted(matrix):
    """Every counter's samples over zero: (labels, value) by name."""
    found = {}
    text = httpx.get(matrix.fleet.url + "/metrics").text
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name.endswith("_total") and sample.value:
                found.setdefault(sample.name, Counter())[frozenset(sample.labels.items())] += int(sample.value)
    return found


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_the_client_sees_what_the_table_says(matrix, cell):
    """A status, an error in its own dialect said once, or the whole answer; never half an answer as a whole one."""
    seen, (status, view) = matrix.seen[cell], cell.stated.client
    assert seen.status == status
    if view == "error":
        assert cell.fault in dialects.error_message(cell.dialect, seen.body), "the failing node is named"
        assert (seen.headers["x-should-retry"], seen.headers["content-type"]) == ("false", "application/json")
    elif view == "broken":
        assert len(dialects.error_frames(cell.dialect, seen.body)) == 1
        assert dialects.ends_with_error(cell.dialect, seen.body)
    else:
        assert dialects.is_whole(cell.dialect, cell.stream, seen.body)
        assert b'"error"' not in seen.body
    assert seen.headers["x-herd-node"] == (WELL if cell.tried_again else cell.fault)
    assert seen.headers["x-herd-retries"] == str(int(cell.tried_again))


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_the_row_says_what_the_table_says(matrix, records, cell):
    """Who looks for failures in SQL must find these, under these names."""
    row = records[0][matrix.seen[cell].request_id]
    status, error_type = cell.stated.row
    assert (row["status"], row["error_type"], row["http_status"]) == (status, error_type, cell.stated.client[0])
    assert bool(row["error_message"]) == bool(error_type)
    assert (row["model"], row["original_model"], bool(row["stream"])) == (cell.model, cell.model, cell.stream)
    assert (row["endpoint"], row["original_format"]) == (dialects.PATHS[cell.dialect], cell.dialect)
    assert row["node_id"] == (WELL if cell.tried_again else cell.fault)
    assert row["retry_count"] == int(cell.tried_again)
    failed = [cell.fault] if cell.attempt.row[1] else None
    assert json.loads(row["excluded_nodes"] or "null") == failed
    seen_by_client = status in {"completed", "incomplete"}
    assert (row["time_to_first_token_ms"] is not None) == (cell.stream and seen_by_client)
    assert seen_by_client == bool(row["completion_tokens"])


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_the_log_says_what_the_table_says(matrix, records, cell):
    """Each line at its level, in order, and no line more: `grep ERROR` is somebody's alarm."""
    lines = records[1][matrix.seen[cell].request_id]
    stated = [(level, event.format(node=cell.fault)) for level, event in cell.stated.log]
    assert [(line["level"], line["event"]) for line in lines] == stated
    assert len({line["trace_id"] for line in lines}) == 1
    for line in lines:
        if line["event"] == "attempt_failed":
            told = (line["node_id"], line["error_type"], line["http_status"], line["will_retry"])
            assert told == (cell.fault, cell.attempt.row[1], cell.attempt.node_status, cell.tried_again)


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_the_spans_say_what_the_table_says(matrix, records, cell):
    """An attempt that failed is red; the request is red only if its client suffered."""
    row = records[0][matrix.seen[cell].request_id]
    spans = matrix.spans[row["trace_id"]]
    (server,) = [span for span in spans if span.kind == "SERVER"]
    attempts = sorted((span for span in spans if span.kind == "CLIENT"), key=lambda span: span.started_at)
    status, error_type = cell.stated.row
    said = server.attributes
    assert (said["herd.status"], said["http.response.status_code"]) == (status, cell.stated.client[0])
    assert (server.is_error, said.get("error.type")) == (cell.stated.span_error, error_type)
    assert {span.parent for span in attempts} == {server.span_id}
    first = attempts[0].attributes
    assert (first["herd.node"], first.get("error.type")) == (cell.fault, cell.attempt.row[1])
    assert first.get("http.response.status_code") == cell.attempt.node_status
    assert attempts[0].is_error == (cell.attempt.row[1] is not None)
    assert [(span.attributes["herd.node"], span.is_error) for span in attempts[1:]] == [
        (WELL, False)
    ] * cell.tried_again


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_the_requests_own_counter_says_what_the_table_says(counted, cell):
    """One request, one increment, under the status of its row."""
    found = {
        labels: value for labels, value in counted["herd_requests_total"].items() if ("model", cell.model) in labels
    }
    stated = {
        "endpoint": dialects.PATHS[cell.dialect],
        "model": cell.model,
        **cell.stated.counters["herd_requests_total"],
    }
    assert found == {frozenset(stated.items()): 1}


@pytest.mark.parametrize("name", ["herd_request_errors_total", "herd_upstream_requests_total"])
def test_a_nodes_counters_are_what_the_table_adds_up_to(counted, name):
    """The failing node is blamed for its own failures, the other for none."""
    stated = Counter()
    for cell in CELLS:
        upstream = name == "herd_upstream_requests_total"
        labels = (cell.attempt if upstream else cell.stated).counters.get(name)
        if labels:
            stated[frozenset({"node": cell.fault, **labels}.items())] += 1
        if upstream and cell.tried_again:
            stated[frozenset({"node": WELL, **OUTCOMES["well"].counters[name]}.items())] += 1
    assert counted[name] == stated


def test_retries_and_those_that_were_used_up_are_counted_by_their_reason(counted):
    """A fleet that lives on retries looks well to its clients; only these counters tell."""
    retried, exhausted = Counter(), Counter()
    for cell in CELLS:
        reason = cell.attempt.row[1]
        if cell.tried_again:
            retried[frozenset({("reason", reason)})] += 1
        elif labels := cell.stated.counters.get("herd_retries_exhausted_total"):
            exhausted[frozenset(labels.items())] += 1
    assert counted["herd_retries_total"] == retried
    assert counted["herd_retries_exhausted_total"] == exhausted


def test_nothing_else_went_wrong(matrix, counted):
    """No sink failed, no record was dropped, no breaker opened over one failure of each model, nothing is left."""
    for name in NEVER:
        assert name not in counted, name
    assert matrix.fleet.router.get("/fleet/status")["fleet"]["requests_active"] == 0
    assert matrix.fleet.router.metric("herd_requests_in_flight") == 0
    assert len(servers(matrix.collector)) == len(CELLS)
    assert "Traceback" not in matrix.fleet.router.stderr()


def test_the_table_has_every_fault_and_every_end():
    """A fault that nobody states is a fault that nobody knows."""
    ends = {end for faulty in FAULTS.values() for end in (faulty.stream, faulty.whole)}
    assert ends == OUTCOMES.keys() >= FINAL
    assert len(CELLS) == len(FAULTS) * 2 * 3 * 2


def test_operators_read_the_same_tables():
    """What is documented is what is tested, word for word."""
    for table in tables().split("\n\n"):
        assert table in PAGE.read_text(encoding="utf-8"), f"docs/resilience.md should have:\n{table}"
