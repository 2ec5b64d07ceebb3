"""A real OTLP/HTTP receiver on loopback, with a thread and event loop of its own, so that any test may wait for it."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

Mode = Literal["ok", "500", "hanging"]


@dataclass(frozen=True, slots=True)
class ReceivedSpan:
    """One span as it came over the wire; ids in hexadecimal, times in unix seconds, `parent` empty for a root."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent: str
    started_at: float
    ended_at: float
    is_error: bool
    message: str
    attributes: dict[str, Any]
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    resource: dict[str, Any] = field(default_factory=dict)


class OtlpReceiver:
    """Listens on a free port from `start()` (or `with`) on; `mode` may change at any time.

    Prometheus may scrape it as the collector that it stands for: `given_up` spans could not be handed on.
    """

    def __init__(self, mode: Mode = "ok") -> None:
        self.mode = mode
        self.spans: list[ReceivedSpan] = []
        self.requests = 0
        self.given_up = 0
        self.url = ""
        self._changed = threading.Condition()
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="otlp-receiver", daemon=True)

    def start(self) -> None:
        """Listen; `url` is the endpoint to export to."""
        self._thread.start()
        assert self._ready.wait(10), "the receiver did not start"

    def stop(self) -> None:
        """End, hanging requests included; once more does nothing."""
        if self._ready.is_set() and not self._thread.is_alive():
            return
        assert self._loop is not None
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive(), "the receiver did not stop"

    def wait_for(self, enough: Callable[["OtlpReceiver"], object], timeout: float = 15.0) -> bool:
        """Block until a condition on the receiver holds; False if it does not within `timeout` seconds."""
        with self._changed:
            return bool(self._changed.wait_for(lambda: bool(enough(self)), timeout))

    def named(self, name: str) -> list[ReceivedSpan]:
        """The received spans with this name."""
        return [span for span in self.spans if span.name == name]

    def __enter__(self) -> "OtlpReceiver":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application()
        app.router.add_post("/v1/traces", self._take)
        app.router.add_get("/metrics", self._metrics)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        self._ready.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _metrics(self, _: web.Request) -> web.Response:
        name = "otelcol_exporter_send_failed_spans_total"
        return web.Response(text=f'# TYPE {name} counter\n{name}{{exporter="otlp_http/tempo"}} {self.given_up}\n')

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        with self._changed:
            self.requests += 1
            self._changed.notify_all()
        if self.mode == "hanging":
            assert self._stop is not None
            await self._stop.wait()
        if self.mode != "ok":
            return web.Response(status=500)
        with self._changed:
            self.spans.extend(decode(body))
            self._changed.notify_all()
        answer = ExportTraceServiceResponse().SerializeToString()
        return web.Response(body=answer, content_type="application/x-protobuf")


def decode(body: bytes) -> list[ReceivedSpan]:
    """The spans of one export request."""
    message = ExportTraceServiceRequest.FromString(body)
    return [
        _span(span, _attributes(group.resource.attributes))
        for group in message.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]


def _span(span: Span, resource: dict[str, Any]) -> ReceivedSpan:
    return ReceivedSpan(
        name=span.name,
        kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        started_at=span.start_time_unix_nano / 1e9,
        ended_at=span.end_time_unix_nano / 1e9,
        is_error=span.status.code == 2,
        message=span.status.message,
        attributes=_attributes(span.attributes),
        events=[(event.name, _attributes(event.attributes)) for event in span.events],
        resource=resource,
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    found: list[KeyValue] = list(pairs)
    return {pair.key: _value(pair.value) for pair in found}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, kind) if kind else None
