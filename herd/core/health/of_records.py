"""The checks that look at herd's own records: are rows written, is anything lost on its way to log or collector."""

from collections.abc import Iterator

from herd.core.finding import Finding, Severity
from herd.core.health.amounts import many, sentence
from herd.core.health.report import HealthReport


def trace_store_failing(report: HealthReport) -> Iterator[Finding]:
    """Whether the database takes rows and can be read."""
    records = report.telemetry
    readable = records.readable
    if records.store_up and readable and not records.rows_lost:
        return
    told = [] if records.store_up else [f"rows cannot be written ({records.store_error or 'no reason known'})"]
    told += [] if readable else ["the database cannot be read"]
    told += [f"{many(records.rows_lost, 'row')} lost in the last hour"] if records.rows_lost else []
    told += [f"{records.store_waiting:,} waiting"] if records.store_waiting and not records.store_up else []
    yield Finding(
        "trace_store_failing",
        Severity.WARNING if records.store_up and readable else Severity.CRITICAL,
        "The trace store loses rows" if records.store_up and readable else "The trace store fails",
        f"{sentence('; '.join(told))} Requests go on; what is lost here is in the log.",
        f"{_remedy(records.store_error or '')} Writing begins again by itself.",
        data={"error": records.store_error, "rows_lost": records.rows_lost, "waiting": records.store_waiting},
    )


def telemetry_dropping(report: HealthReport) -> Iterator[Finding]:
    """Whether log lines, spans or events were lost within the last hour."""
    records = report.telemetry
    lost = {"log line": records.log_lines_lost, "span": records.spans_lost, "event": records.sink_failures}
    told = [many(count, name) for name, count in lost.items() if count]
    if not told:
        return
    yield Finding(
        "telemetry_dropping",
        Severity.WARNING,
        "Telemetry is lost",
        f"{', '.join(told)} lost in the last hour.",
        "Lines: is there room on the disk of `logs` in the data directory? Spans: does the collector at "
        "`otlp_endpoint` answer, and fast enough? Events: the log has the defect that lost them.",
        data={"log_lines": records.log_lines_lost, "spans": records.spans_lost, "events": records.sink_failures},
    )


def _remedy(error: str) -> str:
    if "not a database" in error or "malformed" in error:
        return "Move `latency.db` and its `-wal` and `-shm` out of the data directory: a new one is made."
    return "Make room on the disk, or give `latency.db` in the data directory its owner and rights back (`ls -l`)."
