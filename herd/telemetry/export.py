"""Export of spans: OTLP over HTTP, in batches, with exact counts of exported and lost spans.

Without an endpoint there is none of it. A collector that is away costs spans, never a request and never the shutdown.
"""

import logging
import os
import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator

from herd.telemetry import semconv
from herd.telemetry.endpoint import target_of, variable

logger = logging.getLogger(__name__)

EXPORT_TIMEOUT_S = 2.0
SHUTDOWN_S = 3.0
QUEUE_SIZE = 2048
PROTOCOL_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
TIMEOUT_VARIABLES = ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT")


class PresetIds(IdGenerator):
    """Generates ids: those reserved for this thread's next span, else random ones."""

    def __init__(self) -> None:
        self._random = RandomIdGenerator()
        self._next = threading.local()

    def preset(self, span_id: str, trace_id: str | None = None) -> None:
        """Reserve ids for the next span that this thread starts."""
        self._next.span_id = int(span_id, 16)
        self._next.trace_id = int(trace_id, 16) if trace_id else 0

    def generate_span_id(self) -> int:
        span_id: int = getattr(self._next, "span_id", 0)
        self._next.span_id = 0
        return span_id or self._random.generate_span_id()

    def generate_trace_id(self) -> int:
        trace_id: int = getattr(self._next, "trace_id", 0)
        self._next.trace_id = 0
        return trace_id or self._random.generate_trace_id()


class Ledger:
    """Counts of ended spans: each is waiting, being exported, exported or dropped."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._lock = threading.Lock()
        self._closed = False
        self._waiting = 0
        self._on_the_way = 0
        self.exported = 0
        self.dropped = 0
        self.admitted = 0
        self._settled = 0

    def admit(self) -> bool:
        """Admit an ended span; False if the queue is full."""
        with self._lock:
            if self._closed or self._waiting >= self._room:
                self.dropped += 1
                return False
            self._waiting += 1
            self.admitted += 1
            return True

    def handed_over(self, count: int) -> None:
        """The exporter has taken spans out of the queue."""
        with self._lock:
            self._waiting -= count
            self._on_the_way += count

    def settle(self, count: int, arrived: bool) -> None:
        """Spans were accepted by the collector, or not."""
        with self._lock:
            if not self._closed:
                self._on_the_way -= count
                self._settled += count
                self.exported += count if arrived else 0
                self.dropped += 0 if arrived else count

    def counts(self) -> tuple[int, int, int]:
        """Spans exported, dropped, and how many of those that were admitted, in their order, are one or the other."""
        with self._lock:
            return self.exported, self.dropped, self._settled

    def close(self) -> None:
        """Give up: all waiting and all further spans are dropped."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._settled = self.admitted
                self.dropped += self._waiting + self._on_the_way


class CountedExporter(SpanExporter):
    """An exporter whose batches are entered in a ledger."""

    def __init__(self, inner: SpanExporter, ledger: Ledger) -> None:
        self._inner = inner
        self._ledger = ledger

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self._ledger.handed_over(len(spans))
        result = SpanExportResult.FAILURE
        try:
            result = self._inner.export(spans)
        finally:
            self._ledger.settle(len(spans), result is SpanExportResult.SUCCESS)
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._inner.force_flush(timeout_millis)


class CountedProcessor(BatchSpanProcessor):
    """The SDK's batches, with the queue's bound kept here: the SDK drops from a full queue without saying how many."""

    def __init__(self, exporter: SpanExporter, ledger: Ledger, room: int) -> None:
        super().__init__(exporter, max_queue_size=room)
        self._ledger = ledger

    def on_end(self, span: ReadableSpan) -> None:
        if span.context is not None and span.context.trace_flags.sampled and self._ledger.admit():
            super().on_end(span)


@dataclass(frozen=True, slots=True)
class Provider:
    """The objects that create and export spans."""

    sdk: TracerProvider
    ids: PresetIds
    ledger: Ledger
    _closing: threading.Event = field(default_factory=threading.Event)

    def flush(self, timeout: float) -> bool:
        """Export waiting spans; False after `timeout` seconds."""
        return _bounded(self.sdk.force_flush, "span-flush", timeout)

    def shutdown(self, timeout: float = SHUTDOWN_S) -> bool:
        """Export waiting spans and close; False if it was given up after `timeout` seconds."""
        if self._closing.is_set():
            return True
        self._closing.set()
        in_time = _bounded(self.sdk.shutdown, "span-shutdown", timeout)
        self.ledger.close()
        return in_time


def make_provider(endpoint: str = "", version: str = "", instance: str = "") -> Provider | None:
    """A provider that exports to `endpoint` (base URL), else as the `OTEL_*` variables say; None without an endpoint.

    Processes of one router share an `instance`.
    """
    target = target_of(endpoint)
    if not target:
        return None
    protocol = variable(PROTOCOL_VARIABLES)
    if protocol and protocol != "http/protobuf":
        logger.warning("Spans go out as http/protobuf; OTEL_EXPORTER_OTLP_PROTOCOL=%s is not spoken here", protocol)
    room = _whole_number("OTEL_BSP_MAX_QUEUE_SIZE", QUEUE_SIZE)
    ledger, ids = Ledger(room), PresetIds()
    timeout = None if variable(TIMEOUT_VARIABLES) else EXPORT_TIMEOUT_S
    if not target.startswith(("http://", "https://")):
        logger.error("Spans are not exported: %s does not begin with http:// or https://", target)
        return None
    try:
        exporter = OTLPSpanExporter(endpoint=_traces_url(endpoint), timeout=timeout)
        processor = CountedProcessor(CountedExporter(exporter, ledger), ledger, room)
    except ValueError as error:
        logger.error("Spans are not exported: %s", error)
        return None
    sdk = TracerProvider(resource=_resource(version, instance), shutdown_on_exit=False, id_generator=ids)
    sdk.add_span_processor(processor)
    return Provider(sdk, ids, ledger)


def _traces_url(endpoint: str) -> str | None:
    base = endpoint.strip().rstrip("/")
    return base if not base or base.endswith("/v1/traces") else f"{base}/v1/traces"


def _resource(version: str, instance: str) -> Resource:
    own = {
        semconv.SERVICE_NAME: "herd",
        semconv.SERVICE_VERSION: version,
        semconv.SERVICE_INSTANCE_ID: instance or str(uuid.uuid4()),
    }
    return Resource.create(own).merge(OTELResourceDetector().detect())


def _whole_number(name: str, default: int) -> int:
    try:
        return max(1, int(os.environ.get(name, default)))
    except ValueError:
        return default


def _bounded(work: Callable[[], object], name: str, timeout: float) -> bool:
    """Run a call that may block longer than its own timeout; True if it returned in time."""
    thread = threading.Thread(target=work, name=name, daemon=True)
    thread.start()
    thread.join(timeout)
    return not thread.is_alive()
