"""Which models the fleet should have: nodes from the roster, traffic from the store, handed to `insights.recommend`."""

import time
from collections.abc import Iterable, Iterator
from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import Response

from herd.fleet.entry import Entry
from herd.insights.machines import Accelerator, Machine
from herd.insights.recommend import Traffic, recommend
from herd.routes.parameters import only_known
from herd.routes.surface import surface_of
from herd.routes.tables import AsciiJSON, Document, Format, as_csv
from herd.store import reports
from herd.store.queries import Reader, StoreUnreadable
from herd.store.rollups import DAY_S

router = APIRouter(prefix="/dashboard/api", dependencies=[only_known])
COLUMNS: Final = (
    "kind", "node_id", "model", "display_name", "category", "priority", "already_available", "ram_gb", "quality_score",
    "tokens_per_s", "speed_source", "best_for", "requests", "size_gb", "reason",
)  # fmt: skip

WINDOW_DAYS = 7
MEASURED_FROM = 10  # requests from which on a measured speed is one


@router.get("/recommendations")
async def recommendations(request: Request, format: Format = "json") -> Response:
    """Per node and for the fleet: models that fit, are requested, are missing or are not needed.

    With CSV, each is a line whose `kind` is `recommended`, `drop` or `missing`.
    """
    surface = surface_of(request)
    reader = surface.reader
    machines = [machine_of(entry) for entry in surface.keeper.cell.entries.values()]
    try:
        return await reader.ask(_answer, reader, machines, time.time(), format)
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


def _answer(reader: Reader, machines: Iterable[Machine], now: float, format: str) -> Response:
    found = recommend(list(machines), traffic_of(reader, now), now)
    return AsciiJSON(found) if format == "json" else as_csv("recommendations", _lines(found), COLUMNS)


def _lines(found: Document) -> Iterator[Document]:
    for node in found["nodes"]:
        for kind, rows in (("recommended", node["recommended_models"]), ("drop", node["drop"])):
            yield from ({"kind": kind, "node_id": node["node_id"], **row} for row in rows)
    yield from ({"kind": "missing", **row} for row in found["fleet"]["missing"])


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
