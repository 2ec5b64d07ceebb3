"""One request, one event, four records: rows, log lines, metrics and spans agree, under load and under faults."""

import asyncio
import subprocess
import sys
from collections import Counter

import pytest

from herd.sim import Fault, FaultKind
from tests.e2e.conftest import MACHINES, SLOW, started
from tests.e2e.traffic import mixed, send
from tests.harness import until
from tests.telemetry.otlp import OtlpReceiver

REQUESTS, AT_ONCE = 2000, 32
FAULTS = (
    Fault(FaultKind.HTTP_500, times=None, probability=0.01),
    Fault(FaultKind.RESET, times=None, probability=0.01),
    Fault(FaultKind.CUT, times=None, probability=0.01),
    Fault(FaultKind.ERROR_LINE, times=None, probability=0.01, after=2),
    Fault(FaultKind.NO_DONE, times=None, probability=0.01),
    Fault(FaultKind.BUSY_503, times=None, probability=0.01),
    Fault(FaultKind.MALFORMED_JSON, times=None, probability=0.005),
)


@pytest.fixture(scope="module")
def collector():
    """A real OTLP receiver."""
    with OtlpReceiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def storm(tmp_path_factory, collector):
    """A fleet that 2,000 mixed requests went through, 32 at a time, on nodes that fail now and then."""
    batch = {"OTEL_BSP_MAX_QUEUE_SIZE": "50000", "OTEL_BSP_SCHEDULE_DELAY": "200"}
    home = tmp_path_factory.mktemp("storm")
    fleet = started(home, *MACHINES, SLOW, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, HERD_RETRIES="2", **batch)
    for node_id in fleet.nodes.nodes:
        fleet.nodes.script(node_id, *FAULTS)
    fleet.seen = asyncio.run(send(fleet.url, mixed(REQUESTS, seed=7), AT_ONCE))
    until(lambda: len(fleet.router.rows()) >= REQUESTS, "every request has its row", 60)
    until(lambda: len(fleet.router.lines()) >= REQUESTS, "every request has its line", 60)
    yield fleet
    fleet.nodes.stop()
    fleet.router.stop()


def counted(entries, *keys):
    return Counter(tuple(entry[key] for key in keys) for entry in entries)


def test_every_request_has_exactly_one_row_and_one_canonical_line(storm):
    """What is missing from the records did not happen, as far as an operator can tell."""
    wanted = Counter(f"r{number}" for number in range(REQUESTS))
    assert Counter(row["request_id"] for row in storm.router.rows()) == wanted
    assert Counter(line["request_id"] for line in storm.router.lines()) == wanted


def test_the_storm_had_every_kind_of_end(storm):
    """Otherwise the agreement below would prove little."""
    statuses = counted(storm.router.rows(), "status")
    for status in ("completed", "failed", "incomplete", "rejected", "client_disconnected"):
        assert statuses[(status,)] > 0, statuses
    assert any(row["retry_count"] for row in storm.router.rows())
    assert any(row["fallback_used"] for row in storm.router.rows())


def test_rows_and_lines_agree_in_every_field(storm):
    """Both are made from one event, so a field that differs is a second truth."""
    lines = {line["request_id"]: line for line in storm.router.lines()}
    for row in storm.router.rows():
        line = lines[row["request_id"]]
        for key in ("trace_id", "status", "model", "original_model", "node_id", "http_status", "error_type", "endpoint",
                    "latency_ms", "prompt_tokens", "completion_tokens", "retry_count", "score"):  # fmt: skip
            assert row[key] == line[key], (row["request_id"], key)


def test_the_clients_saw_what_the_rows_say(storm):
    """A row that says completed while the client got an error is a lie."""
    rows = {row["request_id"]: row for row in storm.router.rows()}
    for seen in storm.seen:
        row = rows[seen.request_id]
        if seen.status:
            assert seen.status == row["http_status"], row
            assert row["status"] != "client_disconnected"
        else:
            assert row["status"] in {"client_disconnected", "completed", "incomplete"}, row


def test_metrics_agree_with_rows_by_status_model_and_tokens(storm):
    """Dashboards and SQL must give the same numbers."""
    rows = storm.router.rows()
    for (status,), number in counted(rows, "status").items():
        assert storm.router.metric("herd_requests_total", status=status) == number
    known = {"llama3.2:3b", "qwen3:8b", "nomic-embed-text:latest"}
    for (model, status), number in counted(rows, "model", "status").items():
        if model in known:
            assert storm.router.metric("herd_requests_total", status=status, model=model) == number
    for kind, column in (("input", "prompt_tokens"), ("output", "completion_tokens")):
        assert storm.router.metric("herd_tokens_total", type=kind) == sum(row[column] or 0 for row in rows)
        for (node,) in counted(rows, "node_id"):
            if node:
                of_node = sum(row[column] or 0 for row in rows if row["node_id"] == node)
                assert storm.router.metric("herd_tokens_total", type=kind, node=node) == of_node
    assert storm.router.metric("herd_retries_total") == sum(row["retry_count"] for row in rows)


def test_every_request_ended_one_server_span_in_its_trace(storm, collector):
    """From any record to the trace and back."""
    rows = {row["trace_id"]: row for row in storm.router.rows()}
    until(lambda: len(servers(collector)) >= REQUESTS, "every span arrived", 60)
    spans = servers(collector)
    assert Counter(span.trace_id for span in spans) == Counter(rows.keys())
    assert {span.span_id for span in spans} == {row["span_id"] for row in rows.values()}
    assert counted(rows.values(), "status") == Counter((span.attributes["herd.status"],) for span in spans)


def servers(collector):
    return [span for span in collector.spans if span.kind == "SERVER" and "herd.status" in span.attributes]


def test_nothing_is_in_flight_at_rest(storm):
    """A slot that leaks is capacity lost until a restart."""
    status = storm.router.get("/fleet/status")
    assert status["fleet"]["requests_active"] == 0
    assert all(node["ollama"]["requests_active"] == 0 for node in status["nodes"])
    assert storm.router.metric("herd_requests_in_flight") == 0
    nodes = storm.nodes.nodes.values()
    until(lambda: not any(sum(node.state()["in_flight"].values()) for node in nodes), "the nodes are idle")


def audit(storm):
    command = [sys.executable, "-m", "herd", "audit", "--url", storm.url, "--data-dir", str(storm.router.data_dir)]
    environment = storm.router.environment()
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_audit_says_that_the_records_agree_and_notices_a_row_deleted_by_hand(storm):
    """An audit that cannot fail proves nothing."""
    agreed = audit(storm)
    assert agreed.returncode == 0, agreed.stdout + agreed.stderr
    database = str(storm.router.database)
    saved = subprocess.run(["sqlite3", database, ".mode insert request_traces",
                            "SELECT * FROM request_traces WHERE request_id='r42'"],
                           capture_output=True, text=True, check=True).stdout  # fmt: skip
    subprocess.run(["sqlite3", database, "DELETE FROM request_traces WHERE request_id='r42'"], check=True)
    try:
        differs = audit(storm)
        assert differs.returncode == 1
        assert "r42" in differs.stdout
    finally:
        subprocess.run(["sqlite3", database], input=saved, text=True, check=True)
