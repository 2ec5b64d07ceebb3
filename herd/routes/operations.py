"""What machines ask of the router: metrics, liveness, readiness."""

import asyncio

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from herd import __version__

router = APIRouter()


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """Prometheus text or OpenMetrics, as Accept asks; rendered in a thread, so that no stream waits for it."""
    sink, view = request.app.state.metrics, request.app.state.upkeep.scrape_view()
    body, content_type = await asyncio.to_thread(sink.render, request.headers.get("accept", ""), view)
    return Response(body, media_type=None, headers={"content-type": content_type})


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process is alive; `service` lets an agent know that it found a router."""
    return {"status": "ok", "service": "herd", "version": __version__}


@router.get("/readyz")
async def readyz(request: Request) -> Response:
    """200 while requests are taken, 503 once the router is stopping."""
    stopping = request.app.state.plane.stopping
    return JSONResponse({"status": "stopping" if stopping else "ready"}, status_code=503 if stopping else 200)
