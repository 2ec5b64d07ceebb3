"""The agent's spans by OTLP over HTTP, in batches, as the standard's `OTEL_*` variables say: where to, which, whose.

The one module that imports OpenTelemetry; `spans` imports it where an endpoint is named. A collector that is away costs
spans, never a heartbeat and never the agent's end.
"""

import logging
import os
import threading
from collections.abc import Mapping
from typing import Final

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ..addresses import host_of, port_of
from .spans import NoSpans, Spans

EXPORT_TIMEOUT_S: Final = 2.0
SHUTDOWN_S: Final = 2.0  # the SDK itself would wait for thirty seconds, whatever it is told
TIMEOUTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT")
PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.41.0"  # of the names below

logger = logging.getLogger(__name__)


class OpenSpan:
    """See spans.Span."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    @property
    def headers(self) -> Mapping[str, str]:
        """See spans.Span."""
        carrier: dict[str, str] = {}
        TraceContextTextMapPropagator().inject(carrier, set_span_in_context(self._span, Context()))
        return carrier

    def end(self, error_type: str | None = None, message: str = "", status: int | None = None) -> None:
        """See spans.Span."""
        if status is not None:
            self._span.set_attribute("http.response.status_code", status)
        if error_type is not None:
            self._span.set_attribute("error.type", error_type)
            self._span.set_status(StatusCode.ERROR, message or None)
        self._span.end()


class ExportedSpans:
    """See spans.Spans."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("herd-node", schema_url=SCHEMA_URL)

    def heartbeat(self, router_url: str) -> OpenSpan:
        """See spans.Spans."""
        attributes = {"http.request.method": "POST", "url.full": f"{router_url}/heartbeat", **_server(router_url)}
        return OpenSpan(self._tracer.start_span("POST /heartbeat", Context(), SpanKind.CLIENT, attributes))

    def look(self, engine: str, url: str) -> OpenSpan:
        """See spans.Spans."""
        attributes = {"herd.engine": engine, **_server(url)}
        return OpenSpan(self._tracer.start_span("herd.look", Context(), SpanKind.INTERNAL, attributes))

    def close(self) -> None:
        """See spans.Spans."""
        closing = threading.Thread(target=self._provider.shutdown, name="span-shutdown", daemon=True)
        closing.start()
        closing.join(SHUTDOWN_S)


def make_spans(node_id: str, version: str) -> Spans:
    """Spans that are exported; none, and a line in the log, where a variable makes no sense."""
    protocol = _variable(PROTOCOLS)
    if protocol and protocol != "http/protobuf":
        logger.warning("Spans go out as http/protobuf; OTEL_EXPORTER_OTLP_PROTOCOL=%s is not spoken here", protocol)
    own = {"service.name": "herd-node", "service.version": version, "service.instance.id": node_id}
    provider = TracerProvider(
        resource=Resource.create(own).merge(OTELResourceDetector().detect()), shutdown_on_exit=False
    )
    try:
        exporter = OTLPSpanExporter(timeout=None if _variable(TIMEOUTS) else EXPORT_TIMEOUT_S)
        provider.add_span_processor(BatchSpanProcessor(exporter))
    except ValueError as error:
        logger.error("Spans are not exported: %s", error)
        return NoSpans()
    return ExportedSpans(provider)


def _server(url: str) -> dict[str, str | int]:
    return {"server.address": host_of(url), "server.port": port_of(url)}


def _variable(names: tuple[str, ...]) -> str:
    return next((value for name in names if (value := os.environ.get(name, "").strip())), "")
