"""What keeps the router in step with its fleet: takes heartbeats in, and once a second looks who fell silent.

It connects the roster with the slots, the metrics and the emitter; it decides nothing.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from pydantic import ValidationError

from herd import wire
from herd.core.events import FleetChanged
from herd.core.routing import ready
from herd.dataplane.serve import DataPlane
from herd.store.queries import Reader, StoreUnreadable
from herd.telemetry.metrics import MetricsSink
from herd.telemetry.scrape import ScrapeView, node_view

logger = logging.getLogger(__name__)

TICK_S = 1.0
SAMPLE_EVERY_S = 60.0
HISTORY_EVERY_S = 300.0
# Changes after which a restarted router must know the node otherwise than before; what is struck off, the store knows.
KEPT_AFTER = frozenset({"node_joined", "node_left", "node_lost", "node_back", "drain_changed"})


class Upkeep:
    """The router's housekeeping; `extras` adds to a scrape what only the composition root knows."""

    def __init__(
        self, plane: DataPlane, reader: Reader, metrics: MetricsSink, extras: Callable[[ScrapeView], ScrapeView]
    ) -> None:
        self._plane = plane
        self._roster = plane.roster
        self._reader = reader
        plane.on_change = lambda: metrics.set_known(plane.roster.models())
        self._extras = extras

    async def restore(self) -> None:
        """Begin with the nodes that the store knows; one that cannot be read holds nobody up."""
        try:
            known = await self._reader.ask(self._reader.known_nodes)
        except StoreUnreadable as error:
            logger.warning("The nodes from before the start are not known: %s", error)
            return
        for each in known:
            try:
                self._roster.restore(wire.Heartbeat.model_validate(each.heartbeat), each, time.time())
            except ValidationError as error:
                logger.warning("What was kept of node %s is no heartbeat of this version: %s", each.node_id, error)
        self._plane.on_change()

    def heard(self, heartbeat: wire.Heartbeat) -> None:
        """Take a heartbeat in."""
        self._changed(self._roster.apply(heartbeat, time.time()))

    def drain(self, node_id: str, draining: bool) -> None:
        """The operator drains a node, or ends its drain. KeyError if there is no such node."""
        self._changed(self._roster.drain(node_id, draining, time.time()))

    def forget(self, node_id: str) -> None:
        """Strike a departed node off. KeyError or ValueError as the roster says."""
        self._changed(self._roster.forget(node_id, time.time()))

    def scrape_view(self) -> ScrapeView:
        """What a scrape reads, at this moment; called on the event loop, whose tasks it counts."""
        in_flight, now = self._plane.slots.in_flight(), time.time()
        nodes = tuple(
            node_view(entry.heartbeat, entry.node.status != "offline", ready(entry.node), entry.node.draining,
                      entry.last_seen, sum(in_flight.get(name, {}).values()),
                      self._roster.breaker_state(name, now).value)
            for name, entry in self._roster.entries.items()
        )  # fmt: skip
        oldest = min((life.received_at for life in self._plane.flights), default=None)
        tasks = len(asyncio.all_tasks())
        return self._extras(ScrapeView(nodes, self._plane.slots.depths(), oldest, tasks=tasks))

    async def run(self) -> None:
        """Tick until cancelled: every second the silent, every minute a sample, every five minutes the history."""
        next_sample = next_history = 0.0
        while True:
            now = time.time()
            self._changed(self._roster.expire(now))
            self._plane.reap()
            self._plane.slots.replan()  # what was learned since may open a place to those who wait
            if now >= next_sample:
                next_sample = now + SAMPLE_EVERY_S
                for sample in self._roster.samples(self._plane.slots.in_flight(), now):
                    self._plane.emit(sample)
                for known in self._roster.known():
                    self._plane.emit(known)
            if now >= next_history and self._roster.entries:
                next_history = now + HISTORY_EVERY_S
                await self._learn_history(now)
            await asyncio.sleep(TICK_S)

    async def _learn_history(self, now: float) -> None:
        try:
            self._roster.set_history(await asyncio.to_thread(self._reader.availability, now))
        except StoreUnreadable as error:
            logger.warning("The nodes' history is not known: %s", error)

    def _changed(self, changes: Sequence[FleetChanged]) -> None:
        self._plane.changed(changes)
        for node_id in {change.node_id for change in changes if change.kind in KEPT_AFTER and change.node_id}:
            self._plane.emit(self._roster.known_of(node_id))
