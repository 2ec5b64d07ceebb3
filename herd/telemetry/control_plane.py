"""The control plane's own spans, made by the instrumentation of its framework; loaded only where spans are exported."""

import os
import re
from collections.abc import MutableMapping
from typing import Any

from fastapi import FastAPI
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.trace import Span

from herd.telemetry import semconv
from herd.telemetry.spans import SpanSink

# Matched against the URL without its query: inference, management, probes, scrapes, heartbeats, the page and its files.
LEFT_OUT = r"^\w+://[^/]*/(?:$|v1/|api/|metrics$|healthz$|readyz$|heartbeat$|dashboard$|dashboard/(?:events$|runbook$|static/))"
PORT = re.compile(r":[0-9]+$")


def instrument_control_plane(app: FastAPI, spans: SpanSink) -> None:
    """Give every request of the application's own routes a SERVER span; call before the application starts.

    The data plane stays out: the instrumentation would make a span of every chunk of a stream.
    """
    if spans.provider is None:
        return
    # The instrumentation still speaks the HTTP names of years ago unless it is told otherwise.
    os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")
    FastAPIInstrumentor.instrument_app(
        app, tracer_provider=spans.provider.sdk, excluded_urls=LEFT_OUT, exclude_spans=["send", "receive"],
        server_request_hook=_tidy,
    )  # fmt: skip


def _tidy(span: Span, scope: MutableMapping[str, Any]) -> None:
    """Keep of a query its names alone (somebody searched for the values), and of the Host header the name."""
    if query := scope.get("query_string"):
        names = (part.partition("=")[0] for part in query.decode("latin-1").split("&"))
        span.set_attribute(semconv.URL_QUERY, "&".join(f"{name}=REDACTED" for name in names))
    host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
    if host:
        span.set_attribute(semconv.SERVER_ADDRESS, PORT.sub("", host))
