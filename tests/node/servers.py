"""Real loopback servers for the agent to talk to: a router's endpoint that keeps what it hears, and two engines."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aiohttp import web
from pydantic import ValidationError

from herd import wire
from tests.harness import free_port

DEADLINE_S = 30.0


async def until(condition: Callable[[], Any], seconds: float = DEADLINE_S) -> Any:
    """Wait for a condition; its value when it holds."""
    async with asyncio.timeout(seconds):
        while not (value := condition()):  # noqa: ASYNC110 - what is waited for is often in another process
            await asyncio.sleep(0.02)
    return value


class Server:
    """An aiohttp application on a loopback port that stays the same over stop and start."""

    def __init__(self) -> None:
        self.port = free_port()
        self._runner: web.AppRunner | None = None

    def routes(self) -> list[web.RouteDef]:
        raise NotImplementedError

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        application = web.Application()
        application.add_routes(self.routes())
        self._runner = web.AppRunner(application, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()

    async def stop(self) -> None:
        if self._runner:
            await self._runner.cleanup()
            self._runner = None


class Router(Server):
    """Takes heartbeats as the router does; `refuse` is a 422's body, `hang_on_leaving` never answers a farewell."""

    def __init__(self) -> None:
        super().__init__()
        self.heartbeats: list[wire.Heartbeat] = []
        self.malformed: list[str] = []
        self.traceparents: list[str] = []
        self.refuse: dict[str, Any] | None = None
        self.hang_on_leaving = False
        self.service = "herd"
        self.reply = wire.HeartbeatReply(router_version="0.0.9")

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/heartbeat", self._heartbeat), web.get("/healthz", self._healthz)]

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "service": self.service})

    async def _heartbeat(self, request: web.Request) -> web.Response:
        try:
            heartbeat = wire.Heartbeat.model_validate_json(await request.read())
        except ValidationError as error:
            self.malformed.append(str(error))
            return web.json_response({"error": str(error)}, status=422)
        self.heartbeats.append(heartbeat)
        self.traceparents.append(request.headers.get("traceparent", ""))
        if self.hang_on_leaving and heartbeat.leaving:
            await asyncio.Event().wait()
        if self.refuse is not None:
            return web.json_response(self.refuse, status=422)
        return web.json_response(self.reply.model_dump())

    async def heard(self, wanted: Callable[[wire.Heartbeat], Any] = bool, after: int = 0) -> wire.Heartbeat:
        """The first heartbeat that is wanted, among those that came after so many."""
        return await until(lambda: next((beat for beat in self.heartbeats[after:] if wanted(beat)), None))


class Ollama(Server):
    """Answers what Ollama answers to the agent's questions, in Ollama's fields."""

    def __init__(self) -> None:
        super().__init__()
        self.models = [listed("tiny:latest", "d1", 700)]
        self.loaded: list[dict[str, Any]] = []
        self.shown: list[str] = []
        self.polls = 0
        self.raw_tags: str | None = None

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/api/version", self._version),
            web.get("/api/tags", self._tags),
            web.get("/api/ps", self._ps),
            web.post("/api/show", self._show),
        ]

    async def _version(self, _request: web.Request) -> web.Response:
        return web.json_response({"version": "0.17.4"})

    async def _tags(self, _request: web.Request) -> web.Response:
        if self.raw_tags is not None:
            return web.Response(text=self.raw_tags, content_type="application/json")
        return web.json_response({"models": self.models})

    async def _ps(self, _request: web.Request) -> web.Response:
        self.polls += 1
        return web.json_response({"models": self.loaded})

    async def _show(self, request: web.Request) -> web.Response:
        name = (await request.json())["model"]
        self.shown.append(name)
        if name.startswith("broken"):
            return web.json_response({"error": "unreadable"}, status=500)
        return web.json_response({"model_info": {"general.architecture": "llama", "llama.context_length": 8192}})

    def load(self, name: str, expires_at: str = "2026-11-23T09:01:33.214083939Z") -> None:
        self.loaded = [*self.loaded, running(name, expires_at)]


class LlamaCpp(Server):
    """Answers what llama.cpp's server answers; `answers` maps a path to (status, document)."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        entry = {
            "id": "tiny",
            "owned_by": "llamacpp",
            "aliases": ["tiny", "wee"],
            "object": "model",
            "meta": {"n_ctx_train": 8192, "size": 700},
        }
        self.answers: dict[str, tuple[int, Any]] = {
            "/health": (200, {"status": "ok"}),
            "/v1/models": (200, {"object": "list", "data": [entry]}),
            "/props": (200, {
                "default_generation_settings": {"n_ctx": 2048}, "total_slots": 2, "build_info": "b1-abc",
                "model_path": "/models/tiny.gguf", "is_sleeping": False,
            }),
            "/slots": (200, [{"id": 0}, {"id": 1}, {"id": 2}]),
        }  # fmt: skip

    def routes(self) -> list[web.RouteDef]:
        return [web.get("/{path:.*}", self._answer)]

    async def _answer(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        status, document = self.answers.get(request.path, (404, {"error": {"message": "File Not Found"}}))
        return web.json_response(document, status=status)


def listed(name: str, digest: str, size: int) -> dict[str, Any]:
    """An entry of /api/tags."""
    return {"name": name, "model": name, "modified_at": "2026-11-23T08:56:08Z", "size": size, "digest": digest}


def running(name: str, expires_at: str) -> dict[str, Any]:
    """An entry of /api/ps."""
    return {
        "name": name,
        "model": name,
        "size": 1000,
        "size_vram": 600,
        "expires_at": expires_at,
        "context_length": 2048,
    }


class Agent:
    """A `python -m node` process with its log and error stream."""

    def __init__(self, process: asyncio.subprocess.Process, folder: Path) -> None:
        self.process = process
        self._folder = folder

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log_text.splitlines(keepends=True) if line.endswith("\n")]

    @property
    def log_text(self) -> str:
        path = self._folder / "logs" / "herd-node.jsonl"
        return path.read_text(encoding="ascii") if path.exists() else ""

    @property
    def stderr(self) -> str:
        return (self._folder / "stderr").read_text()

    async def logged(self, event: str) -> dict[str, Any]:
        """The first log line of an event."""
        return await until(lambda: next((line for line in self.log if line["event"] == event), None))

    async def ends_with(self, number: int) -> int:
        """Its exit status after a signal."""
        self.process.send_signal(number)
        async with asyncio.timeout(DEADLINE_S):
            return await self.process.wait()
