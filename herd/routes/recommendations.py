"""Which models the fleet should have: nodes from the roster, traffic from the store, handed to `insights.recommend`."""

import time
from collections.abc import Iterable

from fastapi import APIRouter, Request
from fastapi.responses import Response

from herd.insights.machines import Accelerator, Machine
from herd.insights.recommend import Traffic, recommend
from herd.roster import Entry
from herd.routes.tables import AsciiJSON
from herd.store import reports
from herd.store.queries import Reader, StoreUnreadable
from herd.store.rollups import DAY_S

router = APIRouter(prefix="/dashboard/api")

WINDOW_DAYS = 7
MEASURED_FROM = 10  # requests from which on a measured speed is one


@router.get("/recommendations")
async def recommendations(request: Request) -> Response:
    """By node and for the fleet: the models that fit, are asked for, are missing, or are not needed."""
    reader: Reader = request.app.state.reader
    machines = [machine_of(entry) for entry in request.app.state.roster.entries.values()]
    try:
        return await reader.ask(_answer, reader, machines, time.time())
    except StoreUnreadable as error:
        return AsciiJSON({"error": str(error)}, 503)


def machine_of(entry: Entry) -> Machine:
    """A node as a place for models."""
    beat, node = entry.heartbeat, entry.node
    sizes = {name: node.size_of(name) for name in {*node.models, *node.loaded}}
    accelerators = tuple(Accelerator(gpu.name, gpu.kind, gpu.memory_total_bytes) for gpu in beat.gpus)
    return Machine(
        node.node_id,
        beat.memory.total_bytes,
        accelerators,
        sizes,
        frozenset(node.loaded),
        node.status,
        node.draining,
        node.engine,
    )


def _answer(reader: Reader, machines: Iterable[Machine], now: float) -> Response:
    return AsciiJSON(recommend(list(machines), traffic_of(reader, now), now))


def traffic_of(reader: Reader, now: float) -> Traffic:
    """What was asked for and how fast it was answered. Raises StoreUnreadable."""
    since = now - WINDOW_DAYS * DAY_S
    began = reader.kept().began
    speeds = reader.report(reports.speeds, since).data
    asked = {row["asked"]: row["request_count"] for row in reader.asked(WINDOW_DAYS, now) if row["asked"]}
    served = {(row["node_id"], row["model"]): row for row in speeds if row["node_id"] and row["model"]}
    return Traffic(
        days=WINDOW_DAYS,
        asked=asked,
        served={pair: row["request_count"] for pair, row in served.items()},
        tokens_per_s={
            pair: round(1000 / row["p50_time_per_output_token_ms"], 1)
            for pair, row in served.items()
            if row["request_count"] >= MEASURED_FROM and row["p50_time_per_output_token_ms"]
        },
        complete=began is not None and began <= since,
    )
