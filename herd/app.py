"""The composition root: the only file that knows all the others. It builds, starts and ends the router."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import Request

from herd import __version__
from herd.advertise import Advertisement
from herd.config import Settings
from herd.dataplane.dialects import dialect_of, error_document
from herd.dataplane.serve import DataPlane
from herd.dataplane.slots import Slots
from herd.dataplane.upstream import Upstream
from herd.roster import Roster
from herd.routes import dashboard_api, fleet, inference, merged, operations
from herd.security import ClosedDoors
from herd.store.queries import Reader
from herd.store.writer import Writer
from herd.telemetry.canary import EventLoopCanary
from herd.telemetry.emit import Emitter
from herd.telemetry.log import configure_logging
from herd.telemetry.metrics import MetricsSink
from herd.telemetry.scrape import ScrapeView
from herd.telemetry.spans import SpanSink, instrument_control_plane
from herd.upkeep import Upkeep

FLUSH_S = 3.0


def build(settings: Settings) -> FastAPI:
    """The router as an application; everything with a thread or a socket starts in its lifespan."""
    log = configure_logging(settings.log_dir, settings.text("log_level"), settings.count("log_files_kept"))
    metrics = MetricsSink(__version__)
    writer = Writer(
        settings.database,
        retention_days=settings.count("retention_days"),
        limit_bytes=settings.count("store_limit_mb") * 2**20,
        on_commit=metrics.observe_commit,
    )
    spans = SpanSink(settings.text("otlp_endpoint"))
    emit = Emitter((metrics, spans, log, writer))
    roster = Roster(settings.number("heartbeat_degraded_s"), settings.number("heartbeat_offline_s"))
    slots = Slots(settings.count("queue_limit"), settings.number("queue_timeout_s"))
    plane = DataPlane(settings, roster, slots, Upstream(settings.number("connect_timeout_s")), emit)
    reader = Reader(settings.database)

    def extras(view: ScrapeView) -> ScrapeView:
        return dataclasses.replace(
            view, store=writer.stats(), log=log.stats(), spans=spans.stats(), sink_failures=emit.failures
        )

    upkeep = Upkeep(plane, reader, metrics, extras)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        writer.start()
        await plane.upstream.start()
        canary = EventLoopCanary(metrics.observe_lag)
        canary.start()
        housekeeping = asyncio.create_task(upkeep.run())
        advertisement = Advertisement(settings)
        await advertisement.start()
        try:
            yield
        finally:
            upkeep.stopping = True
            housekeeping.cancel()
            await advertisement.stop()
            await canary.stop()
            await plane.upstream.close()
            # Three sinks end side by side, each within its own bound, so that a hanging collector delays no row.
            await asyncio.gather(*(asyncio.to_thread(sink.close, FLUSH_S) for sink in (writer, spans, log)))
            reader.close()

    app = FastAPI(title="Herd", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.roster, app.state.plane, app.state.reader = roster, plane, reader
    app.state.upkeep, app.state.metrics, app.state.settings = upkeep, metrics, settings
    app.router.routes.extend(inference.routes(plane))
    for module in (merged, fleet, operations, dashboard_api):
        app.include_router(module.router)
    app.add_exception_handler(HTTPException, _in_dialect)
    app.add_exception_handler(RequestValidationError, _naming_the_field)
    app.add_middleware(
        ClosedDoors, allowed_hosts=settings.text("allowed_hosts").split(","), uncounted=inference.UNCOUNTED
    )
    instrument_control_plane(app)
    return app


async def _in_dialect(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "error")
    text = f"{error.detail}: {request.method} {path}" if error.status_code in {404, 405} else str(error.detail)
    document = error_document(dialect_of(path), error.status_code, text, code)
    return JSONResponse(document, error.status_code, error.headers)


async def _naming_the_field(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = [{"field": str(item["loc"][-1]), "message": item["msg"]} for item in error.errors()]
    text = "; ".join(f"{item['field']}: {item['message']}" for item in found)
    return JSONResponse({"error": text, "fields": found}, 422)
