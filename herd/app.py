"""The composition root: the only file that knows all the others. It builds, starts and ends the router."""

import asyncio
import gc
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import Request

from herd import __version__
from herd.core.clock import moment
from herd.core.events import AccessRefused, FleetChanged
from herd.core.room import Room
from herd.core.routing import ready
from herd.dataplane.exchange import Upstream
from herd.dataplane.manage import Management
from herd.dataplane.request_ids import RequestIds
from herd.dataplane.serve import DataPlane
from herd.fleet.advertise import Advertisement
from herd.fleet.cell import Cell
from herd.fleet.entry import Patience
from herd.fleet.keeper import Keeper
from herd.fleet.targets import TargetsFile
from herd.insights.machines import on_paper
from herd.jobs.health_facts import Lost
from herd.jobs.health_watch import HealthWatch, Records
from herd.jobs.history import History
from herd.jobs.planner import Planner
from herd.jobs.preloads import Preloads
from herd.jobs.pulls import Pulls
from herd.recorder.recorder import Kept, Recorder
from herd.routes import (
    dashboard,
    dashboard_api,
    fleet,
    health,
    inference,
    merged,
    operations,
    plan,
    recommendations,
    runbook,
    unmatched,
)
from herd.routes import settings as settings_routes
from herd.routes.inference import Front
from herd.routes.openapi import describe
from herd.routes.surface import Surface
from herd.security.access import Access
from herd.security.allowances import Allowances
from herd.security.credentials import Credentials
from herd.security.doors import ClosedDoors
from herd.security.gate import Gate
from herd.security.names import Names
from herd.security.node_door import NodeDoor
from herd.security.node_watch import NodeWatch
from herd.security.refusals import Refusals
from herd.security.watch import AccessWatch
from herd.settings.changes import Switchboard
from herd.settings.values import Settings
from herd.store.aside import Aside
from herd.store.queries import Reader
from herd.telemetry.canary import EventLoopCanary
from herd.telemetry.emit import Emitter
from herd.telemetry.feed import Feed
from herd.telemetry.metrics import MetricsSink
from herd.telemetry.scrape import NodeSeen, ScrapeView
from herd.wire.identity import Identity, made

FLUSH_S = 3.0
STORE_OPEN_S = 2.0
GARBAGE = 10_000  # objects between two looks for circles: a request makes hundreds, and none of them
SURFACES = (
    merged, fleet, operations, dashboard_api, health, recommendations, plan, settings_routes, dashboard, runbook
)  # fmt: skip


class Router:
    """Everything the router is made of; `asgi` is what a server serves, `drain` ends its requests in order."""

    def __init__(self, settings: Settings, local_code: str = "", identity: Identity | None = None) -> None:
        self.settings = settings
        access = Access(settings.data_dir)
        self.credentials, self.allowances = Credentials(access, local_code), Allowances()
        self.credentials.refresh()
        self.recorder = Recorder(_kept(settings))
        self.metrics = MetricsSink(
            __version__, max_tags=settings.count("metric_tags"), spans_exported=self.recorder.tracing.exports
        )
        self._aside = Aside(settings.database)
        self.reader = Reader(settings.database, self._aside)
        self.recorder.on_commit, self.recorder.on_let_go = self.metrics.observe_commit, self._let_go
        self.feed = Feed()
        self.emit = Emitter((self.metrics, self.recorder, self.feed, self.allowances))
        self.keeper = Keeper(Cell(*_cell_limits(settings), on_paper), self.emit, settings.number("queue_timeout_s"))
        own = identity or made("herd")
        self.door = NodeDoor(access, own, local_code, lambda: settings.text("auth"), self._is_alive)
        self.node_watch = NodeWatch(self.door, self.keeper)
        self._me = f"herd-{own.id[:12]}".encode()
        self.upstream = Upstream(settings.number("connect_timeout_s"), via=self._me)
        ids, new_ids = RequestIds(), self.recorder.tracing.new_ids
        asked = (settings, self.keeper, self.upstream, self.emit, new_ids, ids)
        self.refusals = Refusals(self.emit, new_ids, ids.take)
        room = Room.of(memory_bytes(), lambda: self.emit(AccessRefused("body", "no_room")))
        self.plane, self.management = DataPlane(*asked, room=room), Management(*asked, room=room)
        self.pulls = Pulls(settings, self.keeper.cell, self.upstream, self.emit)
        self.plane.supply = self.pulls.supply
        self.keeper.on_tick = self.plane.reap
        self.keeper.on_change = lambda: self.metrics.set_known(self.keeper.cell.models())
        records = Records(self.recorder.store_stats, self._lost)
        self.health = HealthWatch(self.keeper.cell, self.reader, settings, records, self.emit)
        self.history = History(self.keeper, self.reader)
        self.preloads = Preloads(settings, self.keeper, self.upstream, self.reader, self.emit)
        self.targets = TargetsFile(self.keeper.cell, settings.data_dir / "prometheus" / "agents.json")
        self.switchboard = Switchboard(settings, self.emit, self._follow)
        paths = inference.paths(self.plane, self.management)
        self.access = AccessWatch(self.credentials, self.plane.flights.strike)
        names = _names(settings)
        self.asgi = ClosedDoors(
            Front(paths, self._control_plane(paths)),
            names=names,
            gate=Gate(settings, names, self.credentials, self.allowances),
            asking=inference.ASKING,
            uncounted=inference.UNCOUNTED,
            report=self.refusals,
            me=self._me,
        )

    async def drain(self, grace_s: float, cause: str = "shutdown") -> None:
        """Take no more requests, let the running ones end, and after `grace_s` end those that are left."""
        if not self.plane.stopping:
            self.emit(_lived("router_stopping", signal=cause, in_flight=len(self.plane.flights)))
        await asyncio.gather(self.plane.drain(grace_s), self.management.drain(grace_s))

    def _control_plane(self, paths: inference.Paths) -> FastAPI:
        app = FastAPI(title="Herd", version=__version__, lifespan=self._running, docs_url=None, redoc_url=None)
        app.state.surface = Surface(
            settings=self.settings, keeper=self.keeper, flights=self.plane.flights, reader=self.reader,
            metrics=self.metrics, switchboard=self.switchboard, feed=self.feed, health=self.health,
            planner=Planner(self.settings.data_dir),
            pulls=self.pulls.view, quarantine=self.plane.quarantine, settled=self.recorder.settled,
            scrape_view=self._scrape_view, door=self.door, report=self.refusals,
            stopping=lambda: self.plane.stopping, credentials=self.credentials, allowances=self.allowances,
        )  # fmt: skip
        app.router.routes.extend(inference.routes(paths))
        for module in SURFACES:
            app.include_router(module.router)
        app.router.redirect_slashes = False  # its redirections are absolute; `unmatched` has relative ones
        describe(app)
        app.add_exception_handler(HTTPException, unmatched.in_dialect)
        app.add_exception_handler(RequestValidationError, _naming_the_field)
        self.recorder.tracing.instrument(app)
        return app

    @asynccontextmanager
    async def _running(self, _: FastAPI) -> AsyncIterator[None]:
        """Start what has a thread, a task or a socket, and end it in order."""
        canary, advertisement = EventLoopCanary(self.metrics.observe_lag), Advertisement(self.settings)
        self._aside.start()  # while the recorder and the rest start, as the first question comes soon
        # Who finds the port open finds the tables; a store that cannot be opened holds nobody up for long.
        await self.recorder.start(STORE_OPEN_S)
        await self.history.restore()
        canary.start()
        jobs = (self.keeper, self.history, self.preloads, self.health, self.health.webhook, self.targets)
        running = [asyncio.create_task(job.run()) for job in (*jobs, self.node_watch, self.access)]
        await advertisement.start()
        gc.collect()
        gc.set_threshold(GARBAGE)
        gc.freeze()  # what is loaded by now stays: looking through all of it again would halt every stream for 50 ms
        self.emit(_lived("router_started", pid=os.getpid()))
        try:
            yield
        finally:
            self.plane.stopping = self.management.stopping = True
            for job in running:
                job.cancel()
            await advertisement.stop()
            await canary.stop()
            await self.pulls.close()
            await self.upstream.close()
            # Who closes a database last brings its log in, and only the writer may.
            await asyncio.to_thread(self.reader.let_go)
            await self.recorder.close(FLUSH_S)
            self.reader.close()

    def _is_alive(self, node_id: str) -> bool:
        """Whether a node is heard of now, so that nobody else may have its name."""
        entry = self.keeper.cell.entries.get(node_id)
        return entry is not None and entry.node.status == "online" and not entry.left

    def _let_go(self) -> None:
        """The writer has left the database's file, which may be another now."""
        asyncio.get_running_loop().run_in_executor(None, self.reader.let_go)

    def _follow(self) -> None:
        """Hand changed settings to those who hold a copy of them."""
        settings = self.settings
        self.recorder.set_level(settings.text("log_level"))
        self.keeper.set_limits(*_cell_limits(settings), settings.number("queue_timeout_s"))
        self.upstream.set_connect_timeout(settings.number("connect_timeout_s"))
        self.recorder.set_retention(settings.count("retention_days"), settings.count("store_limit_mb") * 2**20)

    def _scrape_view(self) -> ScrapeView:
        """What a scrape reads, at this moment; called on the event loop, whose tasks it counts."""
        cell, now = self.keeper.cell, moment()
        in_flight = cell.slots.in_flight()
        nodes = tuple(
            NodeSeen(entry.heartbeat, entry.node.status != "offline", ready(entry.node), entry.node.draining,
                      entry.last_seen, sum(in_flight.get(name, {}).values()), entry.breaker(now).value)
            for name, entry in cell.entries.items()
        )  # fmt: skip
        return ScrapeView(
            nodes,
            cell.slots.depths(),
            self.plane.flights.oldest(),
            tasks=len(asyncio.all_tasks()),
            store=self.recorder.store_stats(),
            log=self.recorder.log_stats(),
            spans=self.recorder.span_stats(),
            sink_failures=self.emit.failures,
            health=self.health.view(),
        )

    def _lost(self) -> Lost:
        """What the records lost since the start."""
        recorder, store = self.recorder, self.recorder.store_stats()
        rows = store.dropped + store.failed + store.others_lost
        return Lost(rows, recorder.log_stats().dropped, recorder.span_stats().dropped, self.emit.failures)


def _lived(kind: str, **data: str | int) -> FleetChanged:
    """A start or a stop of this router."""
    return FleetChanged(time.time(), kind, data={"version": __version__, **data})


def memory_bytes() -> int:
    """The machine's memory; 0 where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return 0


def _kept(settings: Settings) -> Kept:
    return Kept(
        database=settings.database,
        log_dir=settings.log_dir,
        log_level=settings.text("log_level"),
        log_files=settings.count("log_files_kept"),
        retention_days=settings.count("retention_days"),
        limit_bytes=settings.count("store_limit_mb") * 2**20,
        endpoint=settings.text("otlp_endpoint"),
    )


def _cell_limits(settings: Settings) -> tuple[Patience, int, float]:
    patience = Patience(settings.number("heartbeat_degraded_s"), settings.number("heartbeat_offline_s"))
    return patience, settings.count("queue_limit"), settings.number("swap_patience_s")


def _names(settings: Settings) -> Names:
    hosts, origins = (settings.text(name).split(",") for name in ("allowed_hosts", "allowed_origins"))
    return Names([socket.gethostname()], hosts, origins)


async def _naming_the_field(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = [{"field": str(item["loc"][-1]), "message": item["msg"]} for item in error.errors()]
    text = "; ".join(f"{item['field']}: {item['message']}" for item in found)
    return JSONResponse({"error": text, "fields": found}, 422)
