"""What machines ask of the router: metrics, liveness, readiness."""

import asyncio
import gzip
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from herd import __version__
from herd.routes.surface import surface_of
from herd.telemetry.metrics import MetricsSink, takes_gzip
from herd.telemetry.scrape import ScrapeView

GZIP_LEVEL: Final = 1  # label names repeat in every line: a fifteenth of the size for a millisecond
SETTLED_S: Final = 0.1
router = APIRouter()


@router.head("/metrics", include_in_schema=False)
@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Metrics as Prometheus text or OpenMetrics, depending on Accept; rendered in a thread, so streams do not wait.

    Requests that ended before the scrape are included, with their rows and log lines.
    """
    surface = surface_of(request)
    await surface.settled(SETTLED_S)
    sink, view = surface.metrics, surface.scrape_view()
    accept, encodings = request.headers.get("accept", ""), request.headers.get("accept-encoding", "")
    body, headers = await asyncio.to_thread(_exposition, sink, view, accept, takes_gzip(encodings))
    return Response(body, media_type=None, headers=headers)


def _exposition(sink: MetricsSink, view: ScrapeView, accept: str, gzipped: bool) -> tuple[bytes, dict[str, str]]:
    """The exposition with its headers, as it goes out."""
    body, content_type = sink.render(accept, view)
    headers = {"content-type": content_type, "vary": "Accept, Accept-Encoding"}
    if not gzipped:
        return body, headers
    return gzip.compress(body, GZIP_LEVEL), {**headers, "content-encoding": "gzip"}


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """Liveness; `service` tells an agent that it has found a router."""
    return {"status": "ok", "service": "herd", "version": __version__}


@router.get("/readyz")
async def readyz(request: Request) -> Response:
    """Readiness: 200 while requests are accepted, 503 while the router is stopping."""
    stopping = surface_of(request).stopping()
    return JSONResponse({"status": "stopping" if stopping else "ready"}, status_code=503 if stopping else 200)
