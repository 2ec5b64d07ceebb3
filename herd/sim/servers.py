"""The two servers: which endpoint is answered by what. Each takes an `Exchange` and answers it."""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from herd.sim import listings
from herd.sim.config import SimConfig
from herd.sim.engine import Engine, PinnedEngine, Refusal, Stage
from herd.sim.faults import Fault, Script
from herd.sim.golang import GoError, parse
from herd.sim.inference import VALID_NAME, Inference, not_found
from herd.sim.llamacpp_voice import ERROR_HEADERS, JSON_HEADERS, SERVER, write
from herd.sim.reply import Headers, Reply
from herd.sim.storage import Storage
from herd.sim.surfaces import LLAMACPP, OLLAMA, Surface, llama_refusal, ollama_refusal, openai_refusal
from herd.sim.voice import JSON_GIN, JSON_PLAIN, Stamp

TEXT_UTF8 = (("Content-Type", "text/plain; charset=utf-8"),)
TEXT = (("Content-Type", "text/plain"),)
CORS = (
    *SERVER,
    ("Access-Control-Allow-Credentials", "true"),
    ("Access-Control-Allow-Methods", "GET, POST, DELETE, OPTIONS"),
    ("Access-Control-Allow-Headers", "*"),
    ("Content-Type", "text/html"),
    ("Keep-Alive", "timeout=5, max=100"),
)
LOCAL_HOST = re.compile(
    r"(localhost|.*\.(localhost|local|internal)|127\.\d+\.\d+\.\d+|10\.\d+\.\d+\.\d+|192\.168\.\d+\.\d+"
    r"|172\.(1[6-9]|2\d|3[01])\.\d+\.\d+|0\.0\.0\.0|\[?::1?\]?|)(:\d+)?",
    re.IGNORECASE,
)
LOCAL_ORIGIN = re.compile(
    r"https?://(localhost|127\.0\.0\.1|0\.0\.0\.0)(:.*)?|(app|file|tauri|vscode-webview|vscode-file)://.*"
)


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request with what it takes to answer it."""

    method: str
    path: str
    host: str
    origin: str
    body: bytes
    reply: Reply
    fault: Fault | None = None


Handler = Callable[[Exchange], Awaitable[None]]


class Server(Protocol):
    """What a node needs of its engine's server."""

    surfaces: Mapping[str, Surface]

    async def handle(self, exchange: Exchange) -> bool:
        """Answer; False when the request was refused."""

    async def refuse(self, exchange: Exchange, refusal: Refusal) -> None:
        """Answer with an error in the endpoint's own form."""


class OllamaServer:
    """Ollama's endpoints."""

    surfaces = OLLAMA

    def __init__(self, config: SimConfig, engine: Engine, script: Script) -> None:
        self._config = config
        self._engine = engine
        self._inference = Inference(config, engine, script)
        self._storage = Storage(config, engine)
        root, version, tags = self._root, self._version, self._tags
        self._routes: dict[str, dict[str, Handler]] = {
            "/": {"GET": root, "HEAD": root},
            "/api/version": {"GET": version, "HEAD": version},
            "/api/status": {"GET": self._status},
            "/api/tags": {"GET": tags, "HEAD": tags},
            "/api/ps": {"GET": self._ps},
            "/api/show": {"POST": self._show},
            "/api/delete": {"DELETE": lambda x: self._storage.delete(x.body, x.reply)},
            "/api/pull": {"POST": lambda x: self._storage.pull(x.body, x.reply)},
            "/api/push": {"POST": lambda x: self._storage.push(x.body, x.reply)},
            "/api/create": {"POST": lambda x: self._storage.create(x.body, x.reply)},
            "/api/copy": {"POST": lambda x: self._storage.copy(x.body, x.reply)},
            "/api/blobs/": {"HEAD": self._has_blob, "POST": self._put_blob},
            "/v1/models": {"GET": self._models},
            "/v1/models/": {"GET": self._model},
        }

    async def handle(self, exchange: Exchange) -> bool:
        """Answer; False when the request was refused."""
        if not self._allowed(exchange):
            await exchange.reply.whole(403, (), b"")
            return False
        if exchange.origin:
            exchange.reply.first = (("Access-Control-Allow-Origin", exchange.origin),)
            exchange.reply.last = (("Vary", "Origin"),)
        surface = OLLAMA.get(exchange.path)
        if surface and exchange.method == "POST":
            return await self._inference.answer(surface, exchange.body, exchange.reply, exchange.fault)
        methods = self._routes.get(_stem(exchange.path), {"POST": self._root} if surface else {})
        handler = methods.get(exchange.method)
        if handler is None:
            await self._no_route(exchange, methods)
            return False
        try:
            await handler(exchange)
        except Refusal as refusal:
            await self.refuse(exchange, refusal)
            return False
        return True

    async def refuse(self, exchange: Exchange, refusal: Refusal) -> None:
        """Answer with an error in the endpoint's own form."""
        surface = OLLAMA.get(exchange.path)
        if surface:
            await self._inference.refuse(surface, refusal, exchange.body, exchange.reply)
            return
        form = openai_refusal if exchange.path.startswith("/v1/") else ollama_refusal
        status, headers, body = form(refusal, Stamp(0, frozen=self._config.frozen_time))
        late = refusal.stage is Stage.RUNNER
        await exchange.reply.whole(status, headers, body, **({"chunk_over": 0} if late else {}))

    def _allowed(self, exchange: Exchange) -> bool:
        """Bound to loopback, Ollama answers local hosts and origins only."""
        if not LOCAL_HOST.fullmatch(exchange.host):
            return False
        return not exchange.origin or bool(LOCAL_ORIGIN.fullmatch(exchange.origin))

    async def _no_route(self, exchange: Exchange, methods: Mapping[str, Handler]) -> None:
        if methods:
            allow = ("Allow", ", ".join(sorted(methods)))
            await self._send(exchange, 405, (allow, *TEXT), b"405 method not allowed")
        else:
            await self._send(exchange, 404, TEXT, b"404 page not found")

    async def _send(self, exchange: Exchange, status: int, headers: Headers, body: bytes) -> None:
        await exchange.reply.whole(status, headers, body)

    async def _json(self, exchange: Exchange, value: Any, headers: Headers = JSON_GIN, end: bytes = b"") -> None:
        await self._send(exchange, 200, headers, listings.as_bytes(value) + end)

    async def _root(self, exchange: Exchange) -> None:
        await self._send(exchange, 200, TEXT_UTF8, b"Ollama is running")

    async def _version(self, exchange: Exchange) -> None:
        await self._json(exchange, {"version": self._config.engine_version})

    async def _status(self, exchange: Exchange) -> None:
        await self._json(exchange, {"cloud": {"disabled": True, "source": "env"}})

    async def _tags(self, exchange: Exchange) -> None:
        await self._json(exchange, listings.tags(self._engine))

    async def _ps(self, exchange: Exchange) -> None:
        await self._json(exchange, listings.ps(self._engine))

    async def _show(self, exchange: Exchange) -> None:
        try:
            value = parse(exchange.body, "ShowRequest")
        except GoError as error:
            raise Refusal(400, str(error)) from None
        name = value.get("model") or value.get("name") or ""
        if not name:
            raise Refusal(400, "model is required")
        if not VALID_NAME.fullmatch(name):
            raise Refusal(500, f"unqualified name: registry.ollama.ai/library/{name}:latest")
        model = self._engine.find(name)
        if model is None:
            raise not_found(name)
        await self._json(exchange, listings.show(self._engine, model))

    async def _models(self, exchange: Exchange) -> None:
        await self._json(exchange, listings.openai_models(self._engine), JSON_PLAIN, b"\n")

    async def _model(self, exchange: Exchange) -> None:
        name = exchange.path.removeprefix("/v1/models/")
        model = self._engine.find(name)
        if model is None:
            raise not_found(name)
        await self._json(exchange, listings.openai_model(self._engine, model, name), JSON_PLAIN, b"\n")

    async def _has_blob(self, exchange: Exchange) -> None:
        await self._storage.has_blob(exchange.path.rpartition("/")[2], exchange.reply)

    async def _put_blob(self, exchange: Exchange) -> None:
        await self._storage.put_blob(exchange.path.rpartition("/")[2], exchange.body, exchange.reply)


def _stem(path: str) -> str:
    """The route of a path: itself, or the part before its parameter."""
    for stem in ("/v1/models/", "/api/blobs/"):
        if path.startswith(stem) and len(path) > len(stem):
            return stem
    return path


class LlamaServer:
    """The endpoints of llama.cpp's server."""

    surfaces = LLAMACPP

    def __init__(self, config: SimConfig, engine: PinnedEngine, script: Script) -> None:
        self._config = config
        self._engine = engine
        self._inference = Inference(config, engine, script)

    async def handle(self, exchange: Exchange) -> bool:
        """Answer; False when the request was refused. While the model loads every endpoint is 503."""
        if exchange.method == "OPTIONS":
            await exchange.reply.whole(200, CORS, b"")
            return True
        if exchange.path == "/":
            await self.refuse(exchange, Refusal(404, "File Not Found"))
            return False
        if not self._engine.ready:
            await self.refuse(exchange, Refusal(503, "Loading model"))
            return False
        surface = LLAMACPP.get(exchange.path)
        if surface and exchange.method == "POST":
            return await self._inference.answer(surface, exchange.body, exchange.reply, exchange.fault)
        value = self._look(exchange)
        if value is None:
            await self.refuse(exchange, Refusal(404, "File Not Found"))
            return False
        await exchange.reply.whole(200, JSON_HEADERS, write(value).encode(), chunk_over=None)
        return True

    def _look(self, exchange: Exchange) -> Any:
        """What a GET shows; None for what is not there."""
        if exchange.method not in ("GET", "HEAD"):
            return None
        looks: dict[str, Callable[[], Any]] = {
            "/health": lambda: {"status": "ok"},
            "/v1/health": lambda: {"status": "ok"},
            "/props": lambda: listings.llama_props(self._engine),
            "/slots": lambda: listings.llama_slots(self._engine),
            "/v1/models": lambda: listings.llama_models(self._engine),
            "/models": lambda: listings.llama_models(self._engine),
        }
        return looks.get(exchange.path, lambda: None)()

    async def refuse(self, exchange: Exchange, refusal: Refusal) -> None:
        """Answer with an error; all have one form."""
        status, headers, body = llama_refusal(refusal, Stamp(0, frozen=True))
        await exchange.reply.whole(status, headers or ERROR_HEADERS, body, chunk_over=None)
