"""What the router itself does for traces: the ids of a request, and the control plane's own spans.

OpenTelemetry is loaded only where spans are exported; a request's spans are made by whoever records it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final, cast

from fastapi import FastAPI

from herd.core.events import TraceIds
from herd.dataplane import trace_ids
from herd.telemetry.counts import NO_SPANS, SpanStats
from herd.telemetry.endpoint import target_of

if TYPE_CHECKING:
    from herd.telemetry.spans import SpanSink

SPANS: Final = "herd.telemetry.spans"
CONTROL_PLANE: Final = "herd.telemetry.control_plane"


class Tracing:
    """`exports`: whether there is somewhere for spans to go; `instance` is what all processes of this router share."""

    def __init__(self, endpoint: str, version: str, instance: str) -> None:
        self._spans: SpanSink | None = None
        if target_of(endpoint):
            made = import_module(SPANS).SpanSink(endpoint, version, instance=instance)
            self._spans = cast("SpanSink", made) if made.provider is not None else None

    @property
    def exports(self) -> bool:
        """Whether there is somewhere for spans to go."""
        return self._spans is not None

    def new_ids(self, traceparent: str | None = None) -> TraceIds:
        """A request's ids, marked as the configured sampler will decide; without an exporter, as the caller did."""
        return self._spans.new_ids(traceparent) if self._spans else trace_ids.new_ids(traceparent)

    def instrument(self, app: FastAPI) -> None:
        """Give the application's own routes spans; call before it starts."""
        if self._spans is not None:
            import_module(CONTROL_PLANE).instrument_control_plane(app, self._spans)

    def stats(self) -> SpanStats:
        """The control plane's spans."""
        return self._spans.stats() if self._spans else NO_SPANS

    def close(self, timeout: float) -> bool:
        """Send what waits; False where `timeout` seconds were not enough. Blocks."""
        return self._spans.close(timeout) if self._spans else True
