"""The composition root: the only file that knows all the others. It builds, starts and ends the router."""

import asyncio
import dataclasses
import gc
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
from herd.health.facts import Lost
from herd.health.watch import HealthWatch, Records
from herd.insights.machines import on_paper
from herd.preloads import Preloads
from herd.roster import Roster
from herd.routes import dashboard, dashboard_api, fleet, health, inference, merged, operations, recommendations, runbook
from herd.routes import settings as settings_routes
from herd.security import ClosedDoors
from herd.store.queries import Reader
from herd.store.writer import Writer
from herd.switchboard import Switchboard
from herd.targets import TargetsFile
from herd.telemetry.canary import EventLoopCanary
from herd.telemetry.emit import Emitter
from herd.telemetry.feed import Feed
from herd.telemetry.log import configure_logging
from herd.telemetry.metrics import MetricsSink
from herd.telemetry.scrape import ScrapeView
from herd.telemetry.spans import SpanSink, instrument_control_plane
from herd.upkeep import Upkeep

FLUSH_S = 3.0
STORE_OPEN_S = 2.0


class Parts:
    """Everything the router is made of, not yet started."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.log = configure_logging(settings.log_dir, settings.text("log_level"), settings.count("log_files_kept"))
        self.spans = SpanSink(settings.text("otlp_endpoint"))
        self.metrics = MetricsSink(
            __version__, max_tags=settings.count("metric_tags"), spans_exported=self.spans.provider is not None
        )
        self.reader = Reader(settings.database)
        self.writer = Writer(
            settings.database,
            retention_days=settings.count("retention_days"),
            limit_bytes=settings.count("store_limit_mb") * 2**20,
            on_commit=self.metrics.observe_commit,
            on_close=self.reader.let_go,
        )
        self.feed = Feed()
        self.emit = Emitter((self.metrics, self.spans, self.log, self.writer, self.feed))
        self.roster = Roster(settings.number("heartbeat_degraded_s"), settings.number("heartbeat_offline_s"), on_paper)
        slots = Slots(settings.count("queue_limit"), settings.number("queue_timeout_s"))
        upstream = Upstream(settings.number("connect_timeout_s"))
        self.plane = DataPlane(settings, self.roster, slots, upstream, self.emit, self.spans.new_ids)
        self.health = HealthWatch(self.plane, self.reader, settings, Records(self.writer.stats, self._lost))
        self.upkeep = Upkeep(self.plane, self.reader, self.metrics, self._with_sinks)
        self.preloads = Preloads(self.plane, self.reader)
        self.targets = TargetsFile(self.roster, settings.data_dir / "prometheus" / "agents.json")
        self.switchboard = Switchboard(settings, self.emit, self._follow)

    @asynccontextmanager
    async def running(self, _: FastAPI) -> AsyncIterator[None]:
        """Start what has a thread, a task or a socket, and end it in order."""
        canary, advertisement = EventLoopCanary(self.metrics.observe_lag), Advertisement(self.settings)
        self.writer.start()
        # Who finds the port open finds the tables; a store that cannot be opened holds nobody up for long.
        await asyncio.to_thread(self.writer.flush, STORE_OPEN_S)
        await self.upkeep.restore()
        await self.plane.upstream.start()
        canary.start()
        keeping = (self.upkeep, self.preloads, self.health, self.health.webhook, self.targets)
        keepers = [asyncio.create_task(each.run()) for each in keeping]
        await advertisement.start()
        gc.collect()
        gc.freeze()  # what is loaded by now stays: looking through all of it again would halt every stream for 50 ms
        try:
            yield
        finally:
            self.plane.stopping = True
            for keeper in keepers:
                keeper.cancel()
            await advertisement.stop()
            await canary.stop()
            await self.plane.pulls.close()
            await self.plane.upstream.close()
            self.reader.let_go()  # who closes a database last brings its log in, and only the writer may
            # Side by side, each within its own bound, so that a hanging collector delays no row and no line.
            sinks = (self.writer, self.spans, self.log)
            await asyncio.gather(*(asyncio.to_thread(sink.close, FLUSH_S) for sink in sinks))
            self.reader.close()

    def _follow(self) -> None:
        """Hand changed settings to those who hold a copy of them."""
        settings = self.settings
        self.log.set_level(settings.text("log_level"))
        self.roster.set_patience(settings.number("heartbeat_degraded_s"), settings.number("heartbeat_offline_s"))
        self.plane.slots.set_limits(settings.count("queue_limit"), settings.number("queue_timeout_s"))
        self.plane.upstream.set_connect_timeout(settings.number("connect_timeout_s"))
        self.writer.set_retention(settings.count("retention_days"), settings.count("store_limit_mb") * 2**20)

    def _with_sinks(self, view: ScrapeView) -> ScrapeView:
        return dataclasses.replace(
            view,
            store=self.writer.stats(),
            log=self.log.stats(),
            spans=self.spans.stats(),
            sink_failures=self.emit.failures,
            health=self.health.view(),
        )

    def _lost(self) -> Lost:
        """What the records lost since the start."""
        store = self.writer.stats()
        rows = store.dropped + store.failed + store.others_lost
        return Lost(rows, self.log.stats().dropped, self.spans.stats().dropped, self.emit.failures)


def build(settings: Settings) -> FastAPI:
    """The router as an application; nothing runs before its lifespan begins."""
    parts = Parts(settings)
    app = FastAPI(title="Herd", version=__version__, lifespan=parts.running, docs_url=None, redoc_url=None)
    app.state.roster, app.state.plane, app.state.reader = parts.roster, parts.plane, parts.reader
    app.state.upkeep, app.state.metrics, app.state.settings = parts.upkeep, parts.metrics, settings
    app.state.switchboard, app.state.feed, app.state.health = parts.switchboard, parts.feed, parts.health
    app.router.routes.extend(inference.routes(parts.plane))
    asked = (merged, fleet, operations, dashboard_api, health, recommendations, settings_routes, dashboard, runbook)
    for module in asked:
        app.include_router(module.router)
    app.add_exception_handler(HTTPException, _in_dialect)
    app.add_exception_handler(RequestValidationError, _naming_the_field)
    hosts = settings.text("allowed_hosts").split(",")
    app.add_middleware(ClosedDoors, allowed_hosts=hosts, uncounted=inference.UNCOUNTED)
    instrument_control_plane(app, parts.spans)
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
