"""The seam to the spans: what the agent calls, and what stands there where nobody named an endpoint for them.

It imports nothing of OpenTelemetry: the SDK takes time and memory, which are spent only where spans are wanted.
"""

import os
from collections.abc import Mapping
from importlib import import_module
from typing import Final, Protocol

ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


class Span(Protocol):
    """What has begun; a span that is never ended is never exported."""

    @property
    def headers(self) -> Mapping[str, str]:
        """What hands the trace on to whoever is asked, as HTTP headers."""

    def end(self, error_type: str | None = None, message: str = "", status: int | None = None) -> None:
        """End it: with the kind of error and its words, if there was one, and with the HTTP status of an answer."""


class Spans(Protocol):
    """Begins spans, and sends them."""

    def heartbeat(self, router_url: str) -> Span:
        """A heartbeat on its way to the router."""

    def look(self, engine: str, url: str) -> Span:
        """A look at an engine of this kind."""

    def close(self) -> None:
        """Send what waits, for as long as an agent that is to end can wait. Blocks."""


class NoSpan:
    """A span that is not recorded."""

    headers: Mapping[str, str] = {}

    def end(self, error_type: str | None = None, message: str = "", status: int | None = None) -> None:
        """See Span."""


class NoSpans:
    """Makes none."""

    def heartbeat(self, router_url: str) -> Span:  # noqa: ARG002
        """See Spans."""
        return NoSpan()

    def look(self, engine: str, url: str) -> Span:  # noqa: ARG002
        """See Spans."""
        return NoSpan()

    def close(self) -> None:
        """See Spans."""


def wanted(environment: Mapping[str, str]) -> bool:
    """Whether the standard's variables ask for spans."""
    values = {name: value.strip() for name, value in environment.items() if name.startswith("OTEL_")}
    off = values.get("OTEL_SDK_DISABLED", "").lower() == "true" or values.get("OTEL_TRACES_EXPORTER") == "none"
    return any(values.get(name) for name in ENDPOINTS) and not off


def make_spans(node_id: str, version: str | None) -> Spans:
    """Spans to where the `OTEL_*` variables say; none where they name no endpoint."""
    if not wanted(os.environ):
        return NoSpans()
    spans: Spans = import_module(f"{__package__}.export").make_spans(node_id, version or "")
    return spans
