"""What the control plane's routes may ask of the router: one frozen value, made by the composition root."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from herd.core.quarantine import Quarantine
from herd.dataplane.flights import Flights
from herd.fleet.keeper import Keeper
from herd.jobs.health_watch import HealthWatch
from herd.jobs.planner import Planner
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


def surface_of(request: Request) -> Surface:
    """The router that a request reached."""
    surface: Surface = request.app.state.surface
    return surface
