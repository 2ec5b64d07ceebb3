"""What a simulated node says about itself to a router, and when: the agent's part, played.

The hardware is made up from the work that the engine does, unless told otherwise.
"""

import asyncio
import contextlib
import json
import logging
import time
from typing import Any

import aiohttp

from herd import __version__, wire
from herd.security.local_code import found
from herd.sim import listings
from herd.sim.config import GIB, SimConfig
from herd.sim.engine import Engine

logger = logging.getLogger(__name__)
IDLE_CPU, BUSY_CPU = 0.03, 0.62
WARN_AT, CRITICAL_AT = 0.94, 0.98
TIMEOUT_S = 5.0
TEMPERATURE_C = 41.0


class Hardware:
    """The node's sensors. What `set` names is reported as set; the rest follows the engine's work."""

    FIELDS = frozenset({
        "agent_version", "clock_ahead_s", "cpu", "disk_free_gb", "draining", "interval_s", "memory_available_gb",
        "memory_used_gb", "pressure", "reachable", "silent", "swap_used_gb", "temperature_c", "throttled",
        "vram_used_gb",
    })  # fmt: skip

    def __init__(self, config: SimConfig, engine: Engine) -> None:
        self._config = config
        self._engine = engine
        self._set: dict[str, Any] = {}

    def set(self, **values: Any) -> None:
        """Report these from now on; None lets a value follow the work again. ValueError for an unknown name."""
        unknown = sorted(set(values) - self.FIELDS)
        if unknown:
            raise ValueError(f"unknown field {unknown[0]!r}; known: {', '.join(sorted(self.FIELDS))}")
        self._set = {name: value for name, value in {**self._set, **values}.items() if value is not None}
        self._engine.changed.set()

    def get(self, name: str, otherwise: Any) -> Any:
        """What is set, or else the given value."""
        return self._set.get(name, otherwise)

    @property
    def load(self) -> float:
        """The share of slots at work, 0..1."""
        return min(1.0, self._engine.busy / max(1, self._config.slots))

    def cpu(self) -> wire.Cpu:
        """The processor: busy as the slots are."""
        return wire.Cpu(
            cores=self._config.cores,
            utilization=self.get("cpu", IDLE_CPU + BUSY_CPU * self.load),
            temperature_c=self.get("temperature_c", TEMPERATURE_C + 30 * self.load),
            throttled=self.get("throttled", False),
        )

    def memory(self) -> wire.Memory:
        """Main memory: the machine's own share and the models."""
        total = int(self._config.memory_gb * GIB)
        used = min(total, self._bytes("memory_used_gb", self._engine.memory_used))
        share = used / total
        pressure = "critical" if share >= CRITICAL_AT else "warn" if share >= WARN_AT else "normal"
        return wire.Memory(
            total_bytes=total,
            used_bytes=used,
            available_bytes=self._bytes("memory_available_gb", total - used),
            swap_used_bytes=self._bytes("swap_used_gb", 0),
            pressure=self.get("pressure", pressure),
        )

    def gpus(self) -> list[wire.Gpu]:
        """One GPU, where there is one: of its own memory, or sharing the machine's."""
        total = int((self._config.vram_gb or self._config.memory_gb * self._config.unified) * GIB)
        if not total:
            return []
        own = {"name": self._config.gpu_name or "Simulated RTX", "kind": "nvidia"}
        shared = {"name": self._config.gpu_name or "Simulated Apple GPU", "kind": "apple"}
        used = self._bytes("vram_used_gb", self._engine.vram_used)
        return [
            wire.Gpu.model_validate(
                {
                    **(own if self._config.vram_gb else shared),
                    "memory_total_bytes": total,
                    "memory_used_bytes": min(total, used),
                    "utilization": self.load,
                    "temperature_c": TEMPERATURE_C + 35 * self.load,
                }
            )
        ]

    def disk(self) -> wire.Disk:
        """The disk with the models on it."""
        models = sum(model.size_bytes for model in self._engine.models.values())
        total = 1024 * GIB
        return wire.Disk(total_bytes=total, free_bytes=self._bytes("disk_free_gb", max(0, total // 2 - models)))

    def _bytes(self, name: str, otherwise: int) -> int:
        value = self._set.get(name)
        return otherwise if value is None else int(value * GIB)


def describe_engine(config: SimConfig, engine: Engine, hardware: Hardware, url: str) -> wire.Engine:
    """The engine as the agent beside it would report it."""
    reachable = bool(hardware.get("reachable", True))
    ollama = config.engine == "ollama"
    models = [
        wire.Model(
            name=model.key, size_bytes=model.size_bytes, context_length=model.context_length,
            entry=listings.tag(engine, model) if ollama else {},
        )
        for model in engine.models.values()
    ]  # fmt: skip
    loaded = [
        wire.LoadedModel(
            name=each.model.key, size_bytes=each.size, vram_bytes=each.vram, context_length=each.context,
            expires_at=each.expires_at, entry=listings.running(each) if ollama else {},
        )
        for each in engine
        if not each.loading
    ]  # fmt: skip
    return wire.Engine(
        kind=config.engine, url=url, reachable=reachable, version=config.engine_version,
        error=None if reachable else "connection refused",
        endpoints=list(wire.OLLAMA_ENDPOINTS if ollama else wire.LLAMACPP_ENDPOINTS), slots=config.slots,
        models=models if reachable else [], loaded=loaded if reachable else [],
    )  # fmt: skip


class Reporter:
    """Sends heartbeats to a router: every interval, at once when something changes, and a last one when leaving."""

    def __init__(self, config: SimConfig, engine: Engine, hardware: Hardware, url: str) -> None:
        self._config = config
        self._engine = engine
        self._hardware = hardware
        self._url = url
        self._session: aiohttp.ClientSession | None = None
        self._task: asyncio.Task[None] | None = None
        self.sent = 0
        self.failed = 0

    def heartbeat(self, *, leaving: bool = False) -> wire.Heartbeat:
        """What the node says now."""
        hardware = self._hardware
        return wire.Heartbeat(
            node_id=self._config.node_id,
            agent_version=hardware.get("agent_version", self._config.agent_version or __version__) or None,
            sent_at=time.time() + hardware.get("clock_ahead_s", 0.0),
            interval_s=hardware.get("interval_s", self._config.interval_s),
            leaving=leaving,
            draining=hardware.get("draining", False),
            cpu=hardware.cpu(),
            memory=hardware.memory(),
            disk=hardware.disk(),
            gpus=hardware.gpus(),
            engine=describe_engine(self._config, self._engine, hardware, self._url),
        )

    def start(self) -> None:
        """Begin to report."""
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S))
        self._task = asyncio.create_task(self._run())

    async def stop(self, *, leaving: bool) -> None:
        """Stop reporting, with a last word when the node leaves in order."""
        if self._task is None or self._session is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        if leaving:
            await self.send(leaving=True)
        await self._session.close()
        self._task = self._session = None

    async def send(self, *, leaving: bool = False) -> bool:
        """Send one heartbeat; False when the router is away or does not take it."""
        if self._session is None or self._hardware.get("silent", False):
            return False
        body = self.heartbeat(leaving=leaving).model_dump_json().encode()
        headers = {"Content-Type": "application/json"}
        if self._config.router_home and (code := found(self._config.router_home)):  # another one at each start
            headers["Authorization"] = f"Bearer {code}"
        try:
            async with self._session.post(f"{self._config.router_url}/heartbeat", data=body, headers=headers) as answer:
                text = await answer.text()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self.failed += 1
            logger.debug("Router %s is away: %s", self._config.router_url, error)
            return False
        if answer.status != 200:
            self.failed += 1
            logger.warning("Router refused a heartbeat: %s %s", answer.status, text[:500])
            return False
        self.sent += 1
        return json.loads(text) is not None

    async def _run(self) -> None:
        interval = self._config.interval_s
        while True:
            self._engine.changed.clear()
            taken = await self.send()
            pause = self._hardware.get("interval_s", interval) if taken else min(interval, 1.0)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._engine.changed.wait()
