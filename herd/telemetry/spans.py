"""A request's spans, made from its event after it ended, in a thread of their own: nothing of this is on its path.

The ids are those that the request was given at its start, so row, log line, exemplar and span name the same trace.
"""

import time
from collections import deque
from dataclasses import replace

from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Decision as Sampling
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)

from herd import __version__
from herd.core.events import Attempt, Event, Finished, Managed, TraceIds
from herd.core.routing import Decision
from herd.dataplane import trace_ids
from herd.telemetry import semconv, span_fields
from herd.telemetry.backlog import Backlog
from herd.telemetry.counts import SpanStats
from herd.telemetry.export import SHUTDOWN_S, Provider, make_provider
from herd.telemetry.labels import clean
from herd.telemetry.span_fields import Fields, Traced, span_count


class SpanSink:
    """Turns ended requests into spans and sends them to `endpoint`, else to where the `OTEL_*` variables say.

    Where neither names one, `provider` is None, events are let pass, and only ids are made.
    """

    def __init__(
        self, endpoint: str = "", version: str = __version__, capacity: int = 10_000, instance: str = ""
    ) -> None:
        provider = self.provider = make_provider(endpoint, version, instance)
        self._tree = SpanTree(provider) if provider else None
        # For each event that was worked off: how many spans had been admitted by then.
        self._marks: deque[int] = deque()
        self._disposed = self._lost = 0
        self._backlog = Backlog("herd-spans", self._make, weight=_weight, capacity=capacity) if provider else None

    def take(self, event: Event) -> None:
        """Have the spans of a request made."""
        if self._backlog is not None and isinstance(event, (Finished, Managed)):
            self._backlog.put(event)

    def lose(self) -> None:
        """Count a request whose spans cannot be made, in its place; as one span, for nobody knows how many it had."""
        if self._backlog is not None:
            self._backlog.put(None)

    def new_ids(self, traceparent: str | None = None) -> TraceIds:
        """A request's ids, marked as the configured sampler will decide; without an exporter, as the caller did."""
        ids = trace_ids.new_ids(traceparent)
        if self.provider is None:
            return ids
        sampler, trace_id = self.provider.sdk.sampler, int(ids.trace_id, 16)
        sampled = sampler.should_sample(_parent(ids), trace_id, "request", SpanKind.SERVER).decision
        return replace(ids, sampled=sampled is Sampling.RECORD_AND_SAMPLE)

    def stats(self) -> SpanStats:
        """Spans exported and lost so far. For one thread only."""
        if self.provider is None or self._backlog is None:
            return SpanStats()
        exported, dropped, settled = self.provider.ledger.counts()
        while self._marks and self._marks[0] <= settled:
            self._marks.popleft()
            self._disposed += 1
        return SpanStats(exported, dropped + self._backlog.dropped + self._lost, self._disposed)

    def flush(self, timeout: float) -> bool:
        """Make and send everything taken so far; False where `timeout` seconds were not enough. Blocks."""
        if self.provider is None or self._backlog is None:
            return True
        return self._backlog.flush(timeout) and self.provider.flush(timeout)

    def close(self, timeout: float = SHUTDOWN_S) -> bool:
        """Send what waits and end; False where `timeout` seconds were not enough. Blocks no longer than that."""
        if self.provider is None or self._backlog is None:
            return True
        deadline = time.monotonic() + timeout
        made = self._backlog.close(timeout)
        return self.provider.shutdown(max(0.0, deadline - time.monotonic())) and made

    def _make(self, event: Traced | None) -> None:
        assert self.provider is not None
        assert self._tree is not None
        try:
            if event is None:
                self._lost += 1
            else:
                self._tree.make(event)
        finally:
            self._marks.append(self.provider.ledger.admitted)


class SpanTree:
    """Makes the spans of one event with explicit times and the ids that they were promised."""

    def __init__(self, provider: Provider) -> None:
        self._ids = provider.ids
        self._tracer = provider.sdk.get_tracer("herd", schema_url=semconv.SCHEMA_URL)

    def make(self, event: Traced) -> None:
        """All spans of an event; none where the sampler leaves the trace out."""
        if isinstance(event, Managed):
            self._managed(event)
            return
        server = self._server(event, f"POST {event.endpoint}", span_fields.server_fields(event))
        if server.is_recording():
            inside = set_span_in_context(server, Context())
            if event.decision is not None:
                self._route(event, event.decision, inside)
            if event.queue_s > 0:
                self._queue(event, inside)
            for attempt in event.attempts:
                self._attempt(event, attempt, inside)
        _end(server, event.finished_at, event.error_message, span_fields.is_error(event))

    def _managed(self, event: Managed) -> None:
        name, attempt = f"{event.method} {span_fields.managed_route(event)}", event.attempt
        server = self._server(event, name, span_fields.managed_fields(event))
        if attempt is not None and server.is_recording():
            self._ids.preset(attempt.span_id)
            inside, found = set_span_in_context(server, Context()), span_fields.called_fields(event, attempt)
            call = self._tracer.start_span(name, inside, SpanKind.CLIENT, found, start_time=_ns(attempt.started_at))
            _end(call, attempt.ended_at, attempt.error_message, semconv.ERROR_TYPE in found)
        _end(server, event.finished_at, event.error_message, event.http_status >= 500)

    def _server(self, event: Traced, name: str, found: Fields) -> Span:
        self._ids.preset(event.ids.span_id, event.ids.trace_id)
        return self._tracer.start_span(
            clean(name), _parent(event.ids), SpanKind.SERVER, found, start_time=_ns(event.received_at)
        )

    def _route(self, event: Finished, decision: Decision, inside: Context) -> None:
        ended_at = event.queued_at or (event.attempts[0].started_at if event.attempts else event.finished_at)
        started_at = max(event.received_at, ended_at - (event.decision_s or 0.0))
        found = span_fields.route_fields(event, decision)
        span = self._tracer.start_span("herd.route", inside, attributes=found, start_time=_ns(started_at))
        for candidate in span_fields.candidate_fields(decision):
            span.add_event("candidate", candidate, _ns(ended_at))
        span.end(_ns(ended_at))

    def _queue(self, event: Finished, inside: Context) -> None:
        started_at = event.queued_at or event.received_at
        self._tracer.start_span("herd.queue", inside, start_time=_ns(started_at)).end(_ns(started_at + event.queue_s))

    def _attempt(self, event: Finished, attempt: Attempt, inside: Context) -> None:
        self._ids.preset(attempt.span_id)
        span = self._tracer.start_span(
            clean(f"{span_fields.operation(event)} {attempt.model}"),
            inside,
            SpanKind.CLIENT,
            span_fields.attempt_fields(event, attempt),
            start_time=_ns(attempt.started_at),
        )
        span.set_attributes(span_fields.outcome_fields(event, attempt))
        if attempt.first_content_at is not None:
            span.add_event("first token", timestamp=_ns(attempt.first_content_at))
        _end(span, attempt.ended_at, attempt.error_message, attempt.error_type is not None)


def _weight(event: Traced | None) -> int:
    return 1 if event is None else span_count(event)


def _parent(ids: TraceIds) -> Context:
    """A context that holds the caller's span, if it named one, and nothing of this thread's."""
    if ids.parent_span_id is None:
        return Context()
    flags = TraceFlags(TraceFlags.SAMPLED if ids.sampled else TraceFlags.DEFAULT)
    remote = SpanContext(int(ids.trace_id, 16), int(ids.parent_span_id, 16), is_remote=True, trace_flags=flags)
    return set_span_in_context(NonRecordingSpan(remote), Context())


def _end(span: Span, at: float, message: str | None, is_error: bool) -> None:
    if is_error:
        span.set_status(StatusCode.ERROR, clean(message) if message else None)
    span.end(_ns(at))


def _ns(seconds: float) -> int:
    return int(seconds * 1_000_000_000)
