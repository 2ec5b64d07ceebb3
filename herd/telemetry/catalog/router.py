"""Metrics of the router itself: queue, health, event loop, and losses of its records.

State of other threads and of the composition root is read at scrape time; durations are counted as they happen.
"""

from typing import Final

from herd.core.doors import DOORS
from herd.core.events import AccessRefused
from herd.core.health.checks import CHECKS
from herd.telemetry.catalog.buckets import COMMITS, LAGS
from herd.telemetry.catalog.labels import (
    CHECK,
    DOOR,
    LEVEL,
    LEVELS,
    MAX_MODELS,
    MAX_NODES,
    MODEL,
    OUTCOME,
    OVERFLOWN,
    REFUSED_FOR,
    SEVERITY,
    UNKNOWN,
    VERSION,
)
from herd.telemetry.catalog.shapes import Metric, Of
from herd.telemetry.measured import Committed, LoopDelayed, Overflown
from herd.telemetry.scrape import ScrapeView

STALL_S: Final = 0.1  # an event loop delayed longer than this has stalled

METRICS: Final = (
    Metric("herd_queue_depth", "gauge", "Requests waiting for a slot.", (MODEL,),
           reads=Of(ScrapeView, lambda view: [((model,), waiting) for model, waiting in view.queue_depth.items()])),
    Metric("herd_oldest_request_timestamp_seconds", "gauge",
           "When the oldest request in progress was received; no sample if there is none.",
           reads=Of(ScrapeView, lambda view: [((), view.oldest_request_at)])),
    Metric("herd_event_loop_lag_seconds", "histogram", "Event loop delay, measured by a 10 ms timer.", (), LAGS,
           counts=Of(LoopDelayed, lambda delay: [((), delay.seconds)])),
    Metric("herd_event_loop_stalls_total", "counter", f"Event loop delays over {STALL_S * 1000:g} ms.",
           counts=Of(LoopDelayed, lambda delay: [((), 1)] if delay.seconds > STALL_S else [])),
    Metric("herd_event_loop_tasks", "gauge", "Tasks on the event loop. An idle router whose number grows has a leak.",
           reads=Of(ScrapeView, lambda view: [((), view.tasks)]), spare=True),
    Metric("herd_trace_rows_total", "counter", "Rows sent to the trace store, by outcome.", (OUTCOME,),
           reads=Of(ScrapeView, lambda view: [
               (("written",), view.store.written if view.store else 0),
               (("dropped",), view.store.dropped if view.store else 0),
               (("failed",), view.store.failed if view.store else 0)])),
    Metric("herd_trace_store_commit_seconds", "histogram", "Duration of one commit.", (), COMMITS,
           counts=Of(Committed, lambda commit: [((), commit.seconds)])),
    Metric("herd_trace_store_bytes", "gauge", "Size of the database files.",
           reads=Of(ScrapeView, lambda view: [((), view.store.bytes)] if view.store else [])),
    Metric("herd_trace_store_up", "gauge", "1 while rows can be written.",
           reads=Of(ScrapeView, lambda view: [((), bool(view.store and view.store.up))])),
    Metric("herd_spans_exported_total", "counter", "Spans accepted by the collector.",
           reads=Of(ScrapeView, lambda view: [((), view.spans.exported)])),
    Metric("herd_spans_dropped_total", "counter", "Spans lost: queue full, or not accepted by the collector.",
           reads=Of(ScrapeView, lambda view: [((), view.spans.dropped)])),
    Metric("herd_log_lines_total", "counter", "Lines written to the log file.", (LEVEL,),
           reads=Of(ScrapeView, lambda view: [((level,), view.log.lines.get(level, 0)) for level in LEVELS])),
    Metric("herd_log_dropped_total", "counter", "Log lines lost: queue full, or file not writable.",
           reads=Of(ScrapeView, lambda view: [((), view.log.dropped)])),
    Metric("herd_sink_failures_total", "counter", "Events lost to an exception in a telemetry sink (a bug in Herd).",
           reads=Of(ScrapeView, lambda view: [((), view.sink_failures)])),
    Metric("herd_label_overflow_total", "counter",
           f"Uses of label values beyond the cap ({MAX_MODELS} models, {MAX_NODES} nodes), counted as `{UNKNOWN}`.",
           (OVERFLOWN,), counts=Of(Overflown, lambda use: [((use.label,), 1)])),
    Metric("herd_access_refused_total", "counter", "Requests refused by access control, by door.", (DOOR, REFUSED_FOR),
           counts=Of(AccessRefused, lambda refused: [((refused.door, refused.reason), 1)]), spare=True,
           series=tuple((door, reason) for door, reasons in DOORS.items() for reason in reasons)),
    Metric("herd_health_findings", "gauge", "Open health findings, without silenced ones.",
           (CHECK, SEVERITY), reads=Of(ScrapeView, lambda view: [] if view.health is None else [
               ((check.check_id, severity), view.health.findings.get((check.check_id, severity), 0))
               for check in CHECKS for severity in check.severities])),
    Metric("herd_health_score", "gauge",
           "100 minus, per check, 60 (critical) or 20 (warning) times the affected share.",
           reads=Of(ScrapeView, lambda view: [((), view.health.score)] if view.health else [])),
    Metric("herd_build_info", "info", "Version of the router.", (VERSION,),
           reads=Of(ScrapeView, lambda view: [((view.version,), 1)])),
    Metric("herd_start_time_seconds", "gauge", "When the counters were last reset.",
           reads=Of(ScrapeView, lambda view: [((), view.started_at)])),
)  # fmt: skip
