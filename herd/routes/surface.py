"""What the control plane's routes may ask of the router: one frozen value, made by the composition root."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from herd.core.access import NOBODY, Caller
from herd.core.quarantine import Quarantine
from herd.dataplane.flights import Flights
from herd.fleet.keeper import Keeper
from herd.jobs.health_watch import HealthWatch
from herd.jobs.planner import Planner
from herd.security.allowances import Allowances
from herd.security.credentials import Credentials
from herd.security.node_door import NodeDoor
from herd.security.refusals import Report
from herd.settings.changes import Switchboard
from herd.settings.values import Settings
from herd.store.queries import Reader
from herd.telemetry.feed import Feed
from herd.telemetry.metrics import MetricsSink
from herd.telemetry.scrape import ScrapeView


@dataclass(frozen=True, slots=True)
class Surface:
    """The router as its routes see it."""

    settings: Settings
    keeper: Keeper
    flights: Flights
    reader: Reader
    metrics: MetricsSink
    switchboard: Switchboard
    feed: Feed
    health: HealthWatch
    planner: Planner
    pulls: Callable[[], list[dict[str, Any]]]
    quarantine: Quarantine
    settled: Callable[[float], Awaitable[object]]
    scrape_view: Callable[[], ScrapeView]
    door: NodeDoor
    report: Report
    stopping: Callable[[], bool]
    credentials: Credentials
    allowances: Allowances


def caller_of(request: Request) -> Caller:
    """Who makes a request, as far as that is proven."""
    caller: Caller = request.scope.get("herd.caller", NOBODY)
    return caller


def surface_of(request: Request) -> Surface:
    """The router that a request reached."""
    surface: Surface = request.app.state.surface
    return surface
