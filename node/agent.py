"""The agent: one task watches the engine, one sends heartbeats; on shutdown it notifies the router.

Neither waits for the other: a hanging engine delays no heartbeat, a router that is away no look at the engine.
"""

import asyncio
import logging
import time
from contextlib import suppress

from herd import wire

from .addresses import host_of
from .advertise import Advertiser, as_advertised, facing_address, metrics_address
from .changes import essence, told
from .engines import EngineProbe
from .logs import fields
from .probe import Machine, MachineState
from .router import RouterLink
from .settings import Settings
from .telemetry import Telemetry

POLL_S = 1.0
MEASURE_S = 2.0  # a driver or network disk that hangs costs this much of a heartbeat, not the heartbeat

logger = logging.getLogger(__name__)


class Agent:
    """Tells the router about one engine and the machine it runs on."""

    def __init__(
        self,
        settings: Settings,
        engine: EngineProbe,
        machine: Machine,
        router: RouterLink,
        version: str | None,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._settings = settings
        self._probe = engine
        self._machine = machine
        self._router = router
        self._version = version
        self._telemetry = telemetry or Telemetry()
        self._advertiser = Advertiser(engine, settings.advertise_url)
        self._engine: wire.Engine | None = None
        self._news = asyncio.Event()
        self._measuring: asyncio.Task[MachineState] | None = None
        self._measured: MachineState | None = None
        self._last: wire.Heartbeat | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set, then shut down cleanly. An exception in either task ends the agent."""
        tasks = [asyncio.create_task(work) for work in (self._watch(), self._beat(), stop.wait())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._leave()
        for task in done:
            task.result()

    async def _watch(self) -> None:
        """Look at the engine about once a second; raise `_news` when the router should hear of it."""
        while True:
            engine = await self._look()
            before, self._engine = self._engine, engine
            if before is None or essence(before) != essence(engine):
                self._news.set()
            for event, what in told(before, engine):
                logger.log(logging.INFO if engine.reachable else logging.WARNING, event, extra=fields(**what))
            await asyncio.sleep(min(POLL_S, self._settings.interval_s))

    async def _look(self) -> wire.Engine:
        span, began = self._telemetry.spans.look(self._settings.engine, self._probe.url), time.perf_counter()
        engine = await self._probe.snapshot()
        self._telemetry.metrics.looked(engine, time.perf_counter() - began)
        span.end(None if engine.reachable else "engine_away", engine.error or "")
        return engine

    async def _beat(self) -> None:
        """Send a heartbeat every interval and at once when there is news; wait longer when the router is away."""
        await self._news.wait()
        while True:
            self._news.clear()
            machine = await self._measure()  # without a router too: the agent's own metrics tell of it
            url = await self._router.locate()
            if url and await self._router.send(await self._heartbeat(url, machine)):
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._settings.interval_s):
                        await self._news.wait()
            else:
                await asyncio.sleep(self._router.pause_s())

    async def _heartbeat(self, router_url: str, machine: MachineState) -> wire.Heartbeat:
        engine = self._engine
        assert engine is not None  # `_beat` waits for the first look
        advertised = await self._advertiser.toward(router_url, engine.reachable)
        self._last = wire.Heartbeat(
            node_id=self._settings.node_id,
            agent_version=self._version,
            sent_at=time.time(),
            interval_s=self._settings.interval_s,
            cpu=machine.cpu,
            memory=machine.memory,
            disk=machine.disk,
            gpus=list(machine.gpus),
            engine=as_advertised(engine, advertised),
            metrics_address=await self._metrics_address(router_url),
        )
        return self._last

    async def _metrics_address(self, router_url: str) -> str | None:
        bound, given = self._settings.metrics_bind, self._settings.advertise_url
        if bound is None:
            return None
        return metrics_address(bound, router_url, host_of(given) if given else await facing_address(router_url))

    async def _measure(self) -> MachineState:
        """The machine now; its last known state while a measurement hangs, and never two measurements at once."""
        if self._measuring is None:
            self._measuring = asyncio.create_task(asyncio.to_thread(self._machine.read, self._probe.models_folder))
        await asyncio.wait({self._measuring}, timeout=MEASURE_S if self._measured else None)
        if self._measuring.done():
            self._measured, self._measuring = self._measuring.result(), None
            self._telemetry.metrics.measured(self._measured)
        assert self._measured is not None
        return self._measured

    async def _leave(self) -> None:
        if self._last is None:
            return  # the router has never heard of this node
        await self._router.farewell(self._last.model_copy(update={"leaving": True, "sent_at": time.time()}))
        logger.info("Left")
