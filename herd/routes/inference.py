"""The data plane's doors: what goes to a node passes here, before the framework that serves everything else."""

from collections.abc import Awaitable, Callable, Mapping

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from herd.dataplane.dialects import ENDPOINTS, Endpoint, dialect_of, error_document
from herd.dataplane.manage import Management
from herd.dataplane.serve import DataPlane

MANAGED: Mapping[str, tuple[str, ...]] = {
    "/api/show": ("POST",),
    "/api/pull": ("POST",),
    "/api/create": ("POST",),
    "/api/copy": ("POST",),
    "/api/push": ("POST",),
    "/api/delete": ("DELETE",),
}
BLOBS = "/api/blobs/"
UNCOUNTED = frozenset({*ENDPOINTS, *MANAGED})  # they count their bodies themselves
Served = Callable[[Scope, Receive, Send], Awaitable[None]]
Paths = Mapping[tuple[str, str], Served]


class Front:
    """The ASGI application: a request that a node answers goes to the data plane, all others to the control plane."""

    def __init__(self, paths: Paths, control_plane: ASGIApp) -> None:
        self._paths = paths
        self._control_plane = control_plane
        self._methods: dict[str, str] = {}
        for method, path in paths:
            self._methods[path] = ", ".join(filter(None, (self._methods.get(path), method)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or run the control plane's lifespan."""
        if scope["type"] == "http":
            path = BLOBS if scope["path"].startswith(BLOBS) else scope["path"]
            if served := self._paths.get((scope["method"], path)):
                await served(scope, receive, send)
                return
            if allowed := self._methods.get(path):
                await _not_allowed(scope, send, allowed)
                return
        await self._control_plane(scope, receive, send)


def paths(plane: DataPlane, management: Management) -> Paths:
    """Whose bytes go to a node, by method and path."""
    found: dict[tuple[str, str], Served] = {}
    found |= {("POST", path): _inference(plane, endpoint) for path, endpoint in ENDPOINTS.items()}
    for path, methods in MANAGED.items():
        found |= {(method, path): _managed(management, path) for method in methods}
    found |= {(method, BLOBS): _managed(management, "/api/blobs") for method in ("HEAD", "POST")}
    return found


def _inference(plane: DataPlane, endpoint: Endpoint) -> Served:
    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        await plane.serve(endpoint, scope, receive, send)

    return served


def _managed(management: Management, endpoint: str) -> Served:
    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        await management.serve(endpoint, scope, receive, send)

    return served


async def _not_allowed(scope: Scope, send: Send, allowed: str) -> None:
    path = scope["path"]
    text = f"Method Not Allowed: {scope['method']} {path}"
    document = error_document(dialect_of(path), 405, text, "method_not_allowed")
    await JSONResponse(document, 405, {"allow": allowed})(scope, _nothing, send)


async def _nothing() -> Message:
    return {"type": "http.disconnect"}
