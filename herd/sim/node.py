"""A simulated node: its socket, its server, its engine and its agent's heartbeats, started and stopped as one."""

import asyncio
import json
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

from aiohttp import web

from herd.sim.config import SimConfig
from herd.sim.control import Tally, control
from herd.sim.engine import BUSY, Engine, PinnedEngine, Refusal
from herd.sim.faults import Fault, FaultKind, Script
from herd.sim.heartbeat import Hardware, Reporter
from herd.sim.inference import NOT_FOUND
from herd.sim.reply import Broken, Reply, Sent, closed, kept, reply_for, reset
from herd.sim.servers import Exchange, LlamaServer, OllamaServer, Server

BACKLOG = 1024
STOP_S = 2.0
IDLE_S = {"ollama": 3600.0, "llamacpp": 5.0}  # how long each server lets a connection idle
DIED = (
    "model runner has unexpectedly stopped, this may be due to resource limitations or an internal error, "
    "check ollama server logs for details"
)


class SimNode:
    """One node. `async with SimNode(config) as node:` or `start` and `stop`; `kill` is a crash."""

    def __init__(self, config: SimConfig) -> None:
        self.config = config
        self.node_id = config.node_id
        self.port = config.port
        self.tally = Tally()
        self.engine: Engine = PinnedEngine(config) if config.engine == "llamacpp" else Engine(config)
        self.hardware = Hardware(config, self.engine)
        self._script = Script(config.seed)
        self._listener: asyncio.Server | None = None
        self._http: web.Server | None = None
        self._server: Server = self._make_server()
        self._reporter: Reporter | None = None
        self._seen: dict[object, bool] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._running = False

    def _make_server(self) -> Server:
        if isinstance(self.engine, PinnedEngine):
            return LlamaServer(self.config, self.engine, self._script)
        return OllamaServer(self.config, self.engine, self._script)

    @property
    def url(self) -> str:
        """Where the engine listens."""
        return f"http://{self.config.host}:{self.port}"

    async def start(self) -> None:
        """Listen, load what is to be loaded, begin to report. OSError when the port is taken."""
        self._http = web.Server(
            self._handle, handler_cancellation=True, access_log=None, keepalive_timeout=IDLE_S[self.config.engine]
        )
        self._running = True
        await self._listen()
        if isinstance(self.engine, PinnedEngine):
            self._background(self.engine.boot())
        for name in self.config.preload:
            model = self.engine.find(name)
            if model:
                self.engine.put_in_memory(model)
        if self.config.router_url:
            url = self.config.advertised_url or self.url
            self._reporter = Reporter(self.config, self.engine, self.hardware, url)
            self._reporter.start()

    async def stop(self) -> None:
        """Leave in order: tell the router, then close; as in Ollama, requests under way are cut off."""
        await self._close(leaving=True, crash=False)

    async def kill(self) -> None:
        """Crash: every connection is reset, nothing is said to anyone."""
        await self._close(leaving=False, crash=True)

    async def _close(self, *, leaving: bool, crash: bool) -> None:
        if not self._running or self._http is None:
            return
        self._running = False
        if self._reporter:
            await self._reporter.stop(leaving=leaving)
        self._stop_listening()
        for connection in self._http.connections:
            transport = connection.transport
            if isinstance(transport, asyncio.Transport) and crash:
                reset(transport)
            elif transport:
                transport.close()
        await self._http.shutdown(STOP_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.engine.close()

    def _stop_listening(self) -> None:
        if self._listener:
            self._listener.close()
            self._listener = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def script(self, *faults: Fault) -> None:
        """Set faults; `refused` strikes at once."""
        for fault in faults:
            if fault.kind is FaultKind.REFUSED:
                self._refuse_connections(fault)
            else:
                self._script.add(fault)

    async def clear(self) -> None:
        """Forget all faults, let go what hangs, and listen again."""
        self._script.clear()
        await self._listen()

    async def report(self) -> bool:
        """Send a heartbeat now; False when the router is away or does not take it."""
        return await self._reporter.send() if self._reporter else False

    def state(self) -> dict[str, Any]:
        """What the node is doing, as `/sim/state` shows it."""
        loaded = [
            {
                "name": each.model.key, "context": each.context, "loading": each.loading, "working": each.working,
                "waiting": each.waiting, "expires_at": each.expires_at,
            }
            for each in self.engine
        ]  # fmt: skip
        return {
            "node_id": self.node_id, "url": self.url, "engine": self.config.engine, **self.tally.as_json(),
            "loaded": loaded, "loads": self.engine.loads, "pending": self.engine.pending,
            "models": list(self.engine.models), "faults": self._script.describe(),
            "faults_applied": self._script.applied, "listening": self._listener is not None,
            "connections": len(self._http.connections) if self._http else 0,
            "heartbeats": {"sent": self._reporter.sent, "failed": self._reporter.failed} if self._reporter else None,
        }  # fmt: skip

    async def _listen(self) -> None:
        if self._listener is None and self._running and self._http is not None:
            loop = asyncio.get_running_loop()
            self._listener = await loop.create_server(self._http, self.config.host, self.port, backlog=BACKLOG)
            self.port = self._listener.sockets[0].getsockname()[1]

    def _refuse_connections(self, fault: Fault) -> None:
        self._stop_listening()
        for connection in self._http.connections if self._http else ():
            if not self._seen.get(connection) and connection.transport:
                connection.transport.close()
        if fault.seconds is not None:
            loop = asyncio.get_running_loop()
            loop.call_later(fault.seconds, lambda: self._background(self._listen()))

    def _background(self, work: Any) -> None:
        if not self._running:
            work.close()
            return
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _handle(self, request: web.BaseRequest) -> Sent:
        """One request on one connection, from its first byte to the last of its answer."""
        connection = request.protocol
        reused = connection in self._seen
        self._seen[connection] = True
        path = request.raw_path.partition("?")[0]
        path = unquote(path) if "%" in path else path
        self.tally.add("in_flight", path)
        reply: Reply | None = None
        try:
            if request.headers.get("Expect") and request.transport:
                request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = await request.content.read() if request.can_read_body else b""
            fault = self._fault(path, body, reused=reused)
            reply = reply_for(request, fault, self._script)
            reply.dated = self.config.engine == "ollama"
            await self._answer(request, path, body, reply, fault)
        except Broken:
            self.tally.add("faulted", path)
            return closed()
        except ConnectionError:
            self.tally.add("aborted", path)
            return closed()
        except asyncio.CancelledError:
            self.tally.add("aborted", path)
            raise
        finally:
            self.tally.add("in_flight", path, -1)
            self._forget(connection)
        return kept() if reply.keep else closed()

    def _forget(self, connection: object) -> None:
        """Mark a connection as idle; those that are gone are dropped now and then."""
        self._seen[connection] = False
        if len(self._seen) > 2 * BACKLOG and self._http:
            alive = set(self._http.connections)
            self._seen = {each: busy for each, busy in self._seen.items() if each in alive}

    def _fault(self, path: str, body: bytes, *, reused: bool) -> Fault | None:
        if not self._script or path.startswith("/sim/"):
            return None
        inference = path in self._server.surfaces
        return self._script.take(path, _model_in(body), inference=inference, reused=reused)

    async def _answer(
        self, request: web.BaseRequest, path: str, body: bytes, reply: Reply, fault: Fault | None
    ) -> None:
        if path.startswith("/sim/"):
            await self._control(request.method, path, body, reply)
            return
        headers = request.headers
        exchange = Exchange(
            request.method, path, headers.get("Host", ""), headers.get("Origin", ""), body, reply, fault
        )
        if fault and await self._preempt(exchange, fault):
            self.tally.add("faulted", path)
            return
        served = await self._server.handle(exchange)
        self.tally.add("served" if served else "refused", path)

    async def _control(self, method: str, path: str, body: bytes, reply: Reply) -> None:
        try:
            await control(self, method, path, body, reply)
        except Refusal as refusal:
            text = json.dumps({"error": refusal.message}).encode()
            await reply.whole(refusal.status, (("Content-Type", "application/json"),), text)

    async def _preempt(self, exchange: Exchange, fault: Fault) -> bool:
        """Carry out a fault that comes before any answer; True when there is nothing left to do."""
        match fault.kind:
            case FaultKind.RESET:
                reset(exchange.reply.transport)
                raise Broken
            case FaultKind.CLOSE_IDLE:
                exchange.reply.transport.close()
                raise Broken
            case FaultKind.HANG_BEFORE_HEADERS:
                await self._script.hang(fault)
                return False
            case FaultKind.HTTP_500:
                await self._server.refuse(exchange, Refusal(500, f"{DIED} ({self.config.node_id})"))  # its own end
            case FaultKind.BUSY_503:
                await self._server.refuse(exchange, Refusal(503, BUSY))
            case FaultKind.HTTP_404_MODEL:
                name = _model_in(exchange.body) or ""
                await self._server.refuse(exchange, Refusal(404, NOT_FOUND["chat"].format(name)))
            case _:
                return False
        return True


def _model_in(body: bytes) -> str | None:
    """The model that a body names, if it does."""
    try:
        value = json.loads(body)
    except ValueError:
        return None
    name = value.get("model") or value.get("name") if isinstance(value, dict) else None
    return name if isinstance(name, str) else None
