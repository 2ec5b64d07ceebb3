"""`herd demo`: a router with three simulated nodes and mixed traffic, started and ended as one.

The router is a process of its own, as in life; nodes and clients live here. It touches no data but its own.
"""

import asyncio
import os
import random
import shlex
import shutil
import signal
import socket
import sys
import tempfile
import time
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import aiohttp

from herd.commands import CommandError
from herd.commands.children import child, last_words
from herd.commands.observe import program as prometheus_program
from herd.commands.observe import prometheus
from herd.commands.places import data_dir as users_data_dir
from herd.sim import Fault, FaultKind, SimConfig, SimModel, SimNode
from herd.sim.traffic import Traffic

PORT: Final = 11435  # the router's own
READY_S: Final = 30.0
ONLINE_S: Final = 15.0
STOP_S: Final = 45.0  # longer than the router's own grace for requests under way
STATUS_EVERY_S: Final = 10.0
FAULT_EVERY_S: Final = 7.0
REQUESTS_PER_S: Final = 3.0
POLL_S: Final = 0.05
ENDINGS: Final = ("answered", "refused", "broken", "left")

TOOLS: Final = ("completion", "tools")
THINKING: Final = ("completion", "tools", "thinking")
VISION: Final = ("completion", "vision")
EMBED: Final = SimModel(
    "nomic-embed-text", 0.27, 2048, 2048, "nomic-bert", "137M", "F16", ("embedding",), tokens_per_s=5000
)


def llama_70b(speed: float) -> SimModel:
    """The largest node; token rates differ between machines."""
    return SimModel("llama3.3:70b", 42.5, 131_072, 4096, "llama", "70.6B", "Q4_K_M", TOOLS, 8192, speed)


def llama_3b(speed: float) -> SimModel:
    """The one that every machine has."""
    return SimModel("llama3.2:3b", 2.0, 131_072, 4096, "llama", "3.2B", "Q4_K_M", TOOLS, 3072, speed)


def qwen_8b(speed: float) -> SimModel:
    """One that thinks first."""
    return SimModel("qwen3:8b", 5.2, 40_960, 4096, "qwen3", "8.2B", "Q4_K_M", THINKING, 4096, speed)


def vision_11b(speed: float) -> SimModel:
    """One that sees."""
    return SimModel("llama3.2-vision:11b", 7.8, 131_072, 4096, "mllama", "10.7B", "Q4_K_M", VISION, 4096, speed)


MACHINES: Final = (
    SimConfig(
        "mac-studio", memory_gb=192, unified=True, gpu_name="Apple M2 Ultra", cores=24,
        tokens_per_s=60, load_bytes_per_s=5e9, max_loaded=6,
        models=(llama_70b(16), llama_3b(130), qwen_8b(75), vision_11b(45), EMBED),
        preload=("llama3.3:70b", "llama3.2:3b", "nomic-embed-text"),
    ),
    SimConfig(
        "gpu-box", memory_gb=64, vram_gb=24, gpu_name="NVIDIA GeForce RTX 4090", cores=16,
        tokens_per_s=95, load_bytes_per_s=3e9,
        models=(llama_3b(190), qwen_8b(110), vision_11b(80), EMBED), preload=("qwen3:8b",),
    ),
    SimConfig(
        "mini", memory_gb=16, unified=True, gpu_name="Apple M4", cores=8, tokens_per_s=30, load_bytes_per_s=1.5e9,
        models=(llama_3b(60), qwen_8b(24), EMBED), preload=("llama3.2:3b",),
    ),
)  # fmt: skip
MISHAPS: Final = (
    Fault(FaultKind.HTTP_500), Fault(FaultKind.HTTP_500), Fault(FaultKind.BUSY_503), Fault(FaultKind.RESET),
    Fault(FaultKind.CLOSE_IDLE), Fault(FaultKind.CUT, after=700), Fault(FaultKind.ERROR_LINE, after=4),
    Fault(FaultKind.NO_DONE), Fault(FaultKind.HANG_BEFORE_HEADERS, seconds=2.0),
)  # fmt: skip


class RouterDied(CommandError):
    """The router process exited unexpectedly."""


def run_demo(port: int, data_dir: str | Path | None, seconds: float | None, observe: bool = False) -> int:
    """Run until Ctrl-C, SIGTERM or `seconds` are over, then end everything; returns 0. `observe` adds Prometheus.

    Raises CommandError where the port or the directory cannot be had, and where the router dies.
    """
    own = "herd-demo" if port == PORT else f"herd-demo-{port}"
    _check_port(port)
    home = (
        Path(data_dir).expanduser() if data_dir else Path(tempfile.mkdtemp(prefix=f"{own}-"))
    )  # nobody knows its name
    _check_home(home)
    if observe:
        prometheus_program()  # a demo that cannot be what was asked for should not begin
    asyncio.run(_Demo(port, home, seconds, observe).run())
    return 0


def _check_home(home: Path) -> None:
    if home.resolve() == users_data_dir(None).resolve():
        raise CommandError(f"{home} holds your own records; choose another --data-dir for the demo")
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"cannot create {home} ({error.strerror}): choose another --data-dir") from error
    if not os.access(home, os.W_OK | os.X_OK):
        raise CommandError(f"{home} is not writable: choose another --data-dir")


def _check_port(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            message = f"port {port} is in use, perhaps by a running router: stop it, or choose another port"
            raise CommandError(f"{message}, such as `herd demo --port {_other(port)}`") from None


def _other(port: int) -> int:
    return port + 100 if port + 100 <= 65535 else port - 100


class _Demo:
    """One run of the demo."""

    def __init__(self, port: int, home: Path, seconds: float | None, observe: bool) -> None:
        self._home = home
        self._observe = observe
        self._port = port
        self._seconds = seconds
        self._url = f"http://127.0.0.1:{port}"
        self._shown_url = f"http://localhost:{port}"
        told: dict[str, Any] = {"router_url": self._url, "router_home": home, "interval_s": 2.0}
        self._nodes = [SimNode(replace(machine, **told)) for machine in MACHINES]
        self._traffic = Traffic(self._url, REQUESTS_PER_S)
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Start in order, stay, end in the order that loses nothing: clients, nodes, router."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self._ended.set)
        async with AsyncExitStack() as stack:
            router = await stack.enter_async_context(self._router())
            session = await stack.enter_async_context(aiohttp.ClientSession())
            watch = asyncio.create_task(router.wait())
            stack.callback(watch.cancel)
            if not await self._until(self._is_ready(session), watch, READY_S, "the router is not ready"):
                return
            watcher = prometheus(self._home, f"127.0.0.1:{self._port}") if self._observe else None
            seen_at = await stack.enter_async_context(watcher) if watcher else None
            for node in self._nodes:
                await stack.enter_async_context(node)
            if not await self._until(self._are_online(session), watch, ONLINE_S, "the nodes do not come online"):
                return
            await stack.enter_async_context(_background(self._traffic.run()))
            await stack.enter_async_context(_background(self._mishaps()))
            has_page = await _status_of(session, f"{self._url}/dashboard") == 200
            print(self._block(has_page, seen_at), flush=True)
            await self._stay(session, watch)
            print("\nStopping clients, nodes, router …", flush=True)

    def _router(self) -> AbstractAsyncContextManager[Process]:
        """The router, whatever settings of the user's own are in the environment."""
        command = (sys.executable, "-m", "herd", "--port", str(self._port), "--data-dir", str(self._home))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HERD_")}
        environment["HERD_METRIC_TAGS"] = "20"  # so that the dashboards' panels of tags have something to show
        return child(command, self._said, STOP_S, environment)

    @property
    def _said(self) -> Path:
        """What the router says on its terminal."""
        return self._home / "router.out"

    async def _until(
        self, coming: Coroutine[Any, Any, None], watch: asyncio.Task[int], deadline_s: float, otherwise: str
    ) -> bool:
        """Wait for something; False when the demo ends first. CommandError at the deadline, or when the router dies."""
        ended = asyncio.create_task(self._ended.wait())
        work = asyncio.create_task(coming)
        try:
            await asyncio.wait({work, ended, watch}, timeout=deadline_s, return_when=asyncio.FIRST_COMPLETED)
            if watch.done():
                raise RouterDied(self._obituary(watch.result()))
            if not work.done() and not ended.done():
                raise CommandError(f"{otherwise} after {deadline_s:.0f} s; its output is in {self._said}")
            return work.done()
        finally:
            for task in (work, ended):
                task.cancel()
            await asyncio.gather(work, ended, return_exceptions=True)

    def _obituary(self, code: int) -> str:
        last = last_words(self._said).removeprefix("herd: ")
        return f"the router exited with code {code}: {last} (its output is in {self._said})"

    async def _is_ready(self, session: aiohttp.ClientSession) -> None:
        while await _status_of(session, f"{self._url}/readyz") != 200:  # noqa: ASYNC110 - another process's state
            await asyncio.sleep(POLL_S)

    async def _are_online(self, session: aiohttp.ClientSession) -> None:
        while (await self._fleet(session)).get("nodes_online") != len(self._nodes):  # noqa: ASYNC110 - as above
            await asyncio.sleep(POLL_S)

    async def _fleet(self, session: aiohttp.ClientSession) -> dict[str, Any]:
        with suppress(aiohttp.ClientError, TimeoutError, ValueError):
            async with session.get(f"{self._url}/fleet/status") as answer:
                return dict((await answer.json())["fleet"])
        return {}

    async def _mishaps(self) -> None:
        """Something goes wrong now and then, on one node or the other."""
        dice = random.Random(1)
        while True:
            await asyncio.sleep(dice.expovariate(1 / FAULT_EVERY_S))
            dice.choice(self._nodes).script(dice.choice(MISHAPS))

    async def _stay(self, session: aiohttp.ClientSession, watch: asyncio.Task[int]) -> None:
        end = None if self._seconds is None else time.monotonic() + self._seconds
        while end is None or time.monotonic() < end:
            pause = STATUS_EVERY_S if end is None else min(STATUS_EVERY_S, max(0.0, end - time.monotonic()))
            ended = asyncio.create_task(self._ended.wait())
            await asyncio.wait({ended, watch}, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            ended.cancel()
            if self._ended.is_set():
                return
            if watch.done():
                raise RouterDied(self._obituary(watch.result()))
            print(self._line(await self._fleet(session)), flush=True)

    def _line(self, fleet: dict[str, Any]) -> str:
        seen = self._traffic.seen
        counts = ", ".join(f"{seen[name]} {name}" for name in ENDINGS)
        online = f"{fleet.get('nodes_online', '?')}/{len(self._nodes)} nodes online"
        return f"{time.strftime('%H:%M:%S')}  {counts}; {fleet.get('requests_active', '?')} in progress, {online}"

    def _block(self, has_page: bool, seen_at: str | None) -> str:
        url, herd = self._shown_url, _herd_command()
        look = ("page", f"{url}/dashboard") if has_page else ("fleet", f"{url}/fleet/status")
        database = shlex.quote(str(self._home / "latency.db"))
        query = "SELECT tags, count(*), avg(latency_ms) FROM request_traces GROUP BY tags ORDER BY 2 DESC LIMIT 5"
        lines = [
            f"\nherd demo: a router, {len(self._nodes)} simulated nodes, about {REQUESTS_PER_S:g} requests per second. "
            "Ctrl-C stops it.\n",
            f"  {look[0]:<9} {look[1]}",
            f"  metrics   {url}/metrics",
            *([f"  alerts    {seen_at} (Prometheus, with herd's rules)"] if seen_at else []),
            f"  database  {self._home / 'latency.db'}",
            f"  log       {self._home / 'logs' / 'herd.jsonl'}",
            "\nTo try in a second terminal:\n",
            f"  {herd} status --url {url}",
            f"  {herd} traces --url {url}",
            f'  sqlite3 {database} "{query}"',
            "",
        ]
        return "\n".join(lines)


@asynccontextmanager
async def _background(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Something that goes on beside, and is cancelled at the end."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _status_of(session: aiohttp.ClientSession, url: str) -> int:
    """The HTTP status at an address; 0 where nobody answers."""
    try:
        async with session.get(url) as answer:
            return answer.status
    except (aiohttp.ClientError, TimeoutError):
        return 0


def _herd_command() -> str:
    """How `herd` is called from another terminal, where this environment may not be active."""
    if shutil.which("herd"):
        return "herd"
    script = Path(sys.executable).with_name("herd")
    return shlex.quote(str(script)) if script.exists() else f"{shlex.quote(sys.executable)} -m herd"
