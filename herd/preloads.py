"""Models loaded ahead of the requests for them, where the setting `preload` says so: looks what was asked for, loads.

What to load is `core.preload`'s to say. A load holds a slot like a request, so that requests for the model wait for it.
"""

import asyncio
import time
from contextlib import suppress
from typing import Any

from herd import errors
from herd.core.admission import Place
from herd.core.events import FleetChanged
from herd.core.prediction import Job
from herd.core.preload import ENDPOINT, Load, asked_about, to_keep, to_load
from herd.dataplane.dialects import dump
from herd.dataplane.serve import DataPlane
from herd.dataplane.upstream import CLIENT_ERRORS, ERROR_BODY_LIMIT, as_attempt_error, status_error
from herd.store.queries import Reader, StoreUnreadable

TICK_S = 1.0
LOAD_WITHIN_S = 600.0
LOOK_EVERY_S, HEARD_LOOKS = 0.05, 300  # some heartbeats
KEEP_ALIVE = "1h"  # long enough to outlast the gaps in a working day's traffic
AVOID_S = 1800.0  # a model that did not load on a node is left alone there for so long
MOST_MODELS = 20
EMBED = "/api/embed"  # without a text it loads, and it takes the models that generate nothing


class Preloads:
    """Looks every `preload_interval_s` whether a model that is asked for could be warm, and loads it."""

    def __init__(self, plane: DataPlane, reader: Reader) -> None:
        self._plane = plane
        self._reader = reader
        self._avoid: dict[tuple[str, str], float] = {}

    async def run(self) -> None:
        """Look until cancelled; first after one interval, when a restarted router has heard all its nodes."""
        settings, looked = self._plane.settings, time.monotonic()
        while True:
            await asyncio.sleep(TICK_S)
            due = time.monotonic() - looked >= settings.number("preload_interval_s")
            if due and settings.flag("preload") and not self._plane.stopping:
                looked = time.monotonic()
                with suppress(StoreUnreadable):  # the trace store tells of its own troubles
                    await self.look()

    async def look(self) -> None:
        """Load what lately was asked for, where it fits; ends when the loads have. Raises StoreUnreadable."""
        demand = await asyncio.to_thread(self._reader.demand, time.time())
        most = dict(sorted(demand.items(), key=lambda item: -item[1])[:MOST_MODELS])
        if not most:
            return
        now = time.time()
        fleet = self._plane.roster.snapshot(asked_about(tuple(most)), now)
        self._avoid = {pair: until for pair, until in self._avoid.items() if until > now}
        loads = to_load(fleet, most, frozenset(self._avoid))
        keeps = to_keep(fleet, most, 2 * self._plane.settings.number("preload_interval_s"))
        await asyncio.gather(*map(self._load, loads), *map(self._keep, keeps))

    async def _load(self, load: Load) -> None:
        place, slots, began = Place(load.node.node_id, load.model), self._plane.slots, time.time()
        if not slots.any_free((place,)):
            return
        await slots.acquire(load.model, "preload", (place,), lambda: (place,))
        self._plane.roster.begun(load.node.node_id, Job(_ticket(load), load.model, 0.0, 0.0, load_s=1.0), began)
        try:
            if await self._load_now(load) and load.node.slots > 1:
                await self._heard(load)
        finally:
            self._plane.roster.ended(load.node.node_id, _ticket(load), time.time())
            slots.release(place, time.time() - began)

    async def _load_now(self, load: Load) -> bool:
        """Load, and tell how that went; whether the model is loaded now."""
        began, reason = time.time(), "the router stopped"
        try:
            await self._ask(load)
            reason = ""
        except errors.AttemptError as error:
            reason = error.message
        finally:
            self._tell(load, time.time() - began, reason)
        return not reason

    async def _heard(self, load: Load) -> None:
        """Wait for the heartbeat that names the model: until then requests would take another node, and load there."""
        entry = self._plane.roster.entries.get(load.node.node_id)
        for _ in range(HEARD_LOOKS):
            if entry is None or entry.node.in_memory(load.model):
                return
            await asyncio.sleep(LOOK_EVERY_S)

    async def _keep(self, load: Load) -> None:
        with suppress(errors.AttemptError):  # then the engine unloads it, and the next look loads it where it can
            await self._ask(load)

    async def _ask(self, load: Load) -> None:
        """Have the node load the model, or keep it; raises AttemptError where it does not."""
        try:
            await self._post(load, ENDPOINT, {"stream": False})
        except errors.Upstream4xx as error:
            if "does not support" not in error.message:
                raise
            await self._post(load, EMBED, {"input": []})

    async def _post(self, load: Load, endpoint: str, more: dict[str, Any]) -> None:
        url, body = load.node.url + endpoint, dump({"model": load.model, "keep_alive": KEEP_ALIVE, **more})
        try:
            async with asyncio.timeout(LOAD_WITHIN_S):
                opened = await self._plane.upstream.open("POST", url, {"content-type": "application/json"}, body)
                try:
                    answer = await opened.response.content.read(ERROR_BODY_LIMIT)
                finally:
                    opened.response.close()
        except CLIENT_ERRORS as error:
            raise as_attempt_error(error, content_seen=False, answered=False) from error
        if opened.response.status >= 400:
            raise status_error(opened.response.status, answer.decode(errors="replace")[:500])

    def _tell(self, load: Load, seconds: float, reason: str) -> None:
        node_id, data = load.node.node_id, {"demand": round(load.demand, 1), "seconds": round(seconds, 3)}
        if reason:
            self._avoid[node_id, load.model] = time.time() + AVOID_S
        kind, told = ("preload_failed", {"reason": reason}) if reason else ("preload", {})
        self._plane.emit(FleetChanged(time.time(), kind, node_id, load.model, {**data, **told}))


def _ticket(load: Load) -> str:
    return f"preload {load.model}"
