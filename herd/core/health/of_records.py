"""Checks of Herd's own records: whether rows are written, and whether log lines, spans or events are lost."""

from collections.abc import Iterator

from herd.core.finding import Finding, Severity
from herd.core.health.amounts import many, sentence
from herd.core.health.report import HealthReport


def trace_store_failing(report: HealthReport) -> Iterator[Finding]:
    """The trace store cannot be written or read, or has lost rows."""
    records = report.telemetry
    readable = records.readable
    if records.store_up and readable and not records.rows_lost:
        return
    told = [] if records.store_up else [f"rows cannot be written ({records.store_error or 'reason unknown'})"]
    told += [] if readable else ["the database cannot be read"]
    told += [f"{many(records.rows_lost, 'row')} lost in the last hour"] if records.rows_lost else []
    told += [f"{records.store_waiting:,} waiting"] if records.store_waiting and not records.store_up else []
    yield Finding(
        "trace_store_failing",
        Severity.WARNING if records.store_up and readable else Severity.CRITICAL,
        "The trace store has lost rows" if records.store_up and readable else "The trace store is failing",
        f"{sentence('; '.join(told))} Requests are not affected, and the log still has every request.",
        f"{_remedy(records.store_error or '')} Writing then resumes by itself.",
        data={"error": records.store_error, "rows_lost": records.rows_lost, "waiting": records.store_waiting},
    )


def telemetry_dropping(report: HealthReport) -> Iterator[Finding]:
    """Log lines, spans or events were lost in the last hour."""
    records = report.telemetry
    lost = {"log line": records.log_lines_lost, "span": records.spans_lost, "event": records.sink_failures}
    told = [many(count, name) for name, count in lost.items() if count]
    if not told:
        return
    yield Finding(
        "telemetry_dropping",
        Severity.WARNING,
        "Telemetry is being dropped",
        f"{', '.join(told)} lost in the last hour.",
        "For log lines, check the free disk space of `logs` in the data directory. For spans, check that the collector "
        "at `otlp_endpoint` answers, and fast enough. For events, the log has the error that lost them.",
        data={"log_lines": records.log_lines_lost, "spans": records.spans_lost, "events": records.sink_failures},
    )


def _remedy(error: str) -> str:
    if "not a database" in error or "malformed" in error:
        return "Move `latency.db` and its `-wal` and `-shm` files out of the data directory; a new database is created."
    return "Free disk space, or restore owner and permissions of `latency.db` in the data directory (`ls -l`)."
