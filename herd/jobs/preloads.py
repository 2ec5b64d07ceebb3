"""Models loaded ahead of the requests for them, where the setting `preload` says so: looks what was asked for, loads.

What to load is `core.preload`'s to say. A load holds a slot like a request, so that requests for the model wait for it.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from herd.core import errors
from herd.core.admission import Place
from herd.core.clock import moment
from herd.core.dialects import dump
from herd.core.events import Event, FleetChanged
from herd.core.preload import ENDPOINT, Load, asked_about, to_keep, to_load
from herd.dataplane.exchange import ERROR_BODY_LIMIT, Call, Upstream, status_error
from herd.dataplane.frames import told_in
from herd.dataplane.headers import JSON
from herd.fleet.keeper import Keeper
from herd.settings.values import Settings
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

    def __init__(
        self, settings: Settings, keeper: Keeper, upstream: Upstream, reader: Reader, emit: Callable[[Event], None]
    ) -> None:
        self._settings = settings
        self._keeper = keeper
        self._upstream = upstream
        self._reader = reader
        self._emit = emit
        self._avoid: dict[tuple[str, str], float] = {}

    async def run(self) -> None:
        """Look until cancelled; first after one interval, when a restarted router has heard all its nodes."""
        looked = _now()
        while True:
            await asyncio.sleep(TICK_S)
            due = _now() - looked >= self._settings.number("preload_interval_s")
            if due and self._settings.flag("preload"):
                looked = _now()
                with suppress(StoreUnreadable):  # the trace store tells of its own troubles
                    await self.look()

    async def look(self) -> None:
        """Load recently requested models where they fit; returns when they are loaded. Raises StoreUnreadable."""
        demand = await asyncio.to_thread(self._reader.demand, time.time())
        most = dict(sorted(demand.items(), key=lambda item: -item[1])[:MOST_MODELS])
        if not most:
            return
        fleet = self._keeper.cell.snapshot(asked_about(tuple(most)), moment())
        self._avoid = {pair: until for pair, until in self._avoid.items() if until > _now()}
        loads = to_load(fleet, most, frozenset(self._avoid))
        keeps = to_keep(fleet, most, 2 * self._settings.number("preload_interval_s"))
        await asyncio.gather(*map(self._load, loads), *map(self._keep, keeps))

    async def _load(self, load: Load) -> None:
        with self._keeper.only_at(Place(load.node.node_id, load.model)) as taken:
            if taken and await self._load_now(load) and load.node.slots > 1:
                await self._heard(load)

    async def _load_now(self, load: Load) -> bool:
        """Load, and tell how that went; whether the model is loaded now."""
        began, reason = _now(), "the router stopped"
        try:
            await self._ask(load)
            reason = ""
        except errors.AttemptError as error:
            reason = error.message
        finally:
            self._tell(load, _now() - began, reason)
        return not reason

    async def _heard(self, load: Load) -> None:
        """Wait for the heartbeat that names the model: until then requests would take another node, and load there."""
        entry = self._keeper.cell.entries.get(load.node.node_id)
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
        body = dump({"model": load.model, "keep_alive": KEEP_ALIVE, **more})
        call = Call("POST", load.node.url + endpoint, (JSON,), body)
        async with self._upstream.exchange(call, _now() + LOAD_WITHIN_S) as answer:
            said, _ = await answer.read_limited(ERROR_BODY_LIMIT)
            if answer.status >= 400:
                raise status_error(answer.status, told_in(said)[:500])

    def _tell(self, load: Load, seconds: float, reason: str) -> None:
        node_id, data = load.node.node_id, {"demand": round(load.demand, 1), "seconds": round(seconds, 3)}
        if reason:
            self._avoid[node_id, load.model] = _now() + AVOID_S
        kind, told = ("preload_failed", {"reason": reason}) if reason else ("preload", {})
        self._emit(FleetChanged(time.time(), kind, node_id, load.model, {**data, **told}))


def _now() -> float:
    """The event loop's time, by which loads are measured and planned: the wall clock jumps."""
    return asyncio.get_running_loop().time()
