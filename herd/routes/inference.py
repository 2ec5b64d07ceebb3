"""The data plane's doors: what goes to a node passes here, before the framework that serves everything else."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from herd.core.dialects import ENDPOINTS, PASSED, Endpoint
from herd.dataplane.manage import Management
from herd.dataplane.serve import DataPlane

MANAGED: Mapping[str, tuple[str, ...]] = {
    "/api/show": ("POST",),
    "/api/pull": ("POST",),
    "/api/create": ("POST",),
    "/api/copy": ("POST",),
    "/api/push": ("POST",),
    "/api/delete": ("DELETE",),
    **{path: (method,) for path, method in PASSED.items()},
}
BLOBS = "/api/blobs/"
ASKING = frozenset({*ENDPOINTS, "/api/show", *PASSED})  # a POST there changes nothing
UNCOUNTED = frozenset({*ENDPOINTS, *MANAGED})  # they count their bodies themselves
Paths = Mapping[tuple[str, str], ASGIApp]


class Passing:
    """One path as an ASGI application that hands each request on, with what is known of its endpoint."""

    def __init__(self, serve: Callable[[Any, Scope, Receive, Send], Awaitable[None]], endpoint: Endpoint | str) -> None:
        self._serve = serve
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        await self._serve(self._endpoint, scope, receive, send)


class Front:
    """The ASGI application: a request that a node answers goes to the data plane, all others to the control plane."""

    def __init__(self, paths: Paths, control_plane: ASGIApp) -> None:
        self._paths = paths
        self._control_plane = control_plane

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or run the control plane's lifespan."""
        if scope["type"] == "http":
            path = BLOBS if scope["path"].startswith(BLOBS) else scope["path"]
            if found := self._paths.get((scope["method"], path)):
                await found(scope, receive, send)
                return
        await self._control_plane(scope, receive, send)


def paths(plane: DataPlane, management: Management) -> Paths:
    """Whose bytes go to a node, by method and path; all blobs under one."""
    found: dict[tuple[str, str], ASGIApp] = {}
    for path, endpoint in ENDPOINTS.items():
        found["POST", path] = Passing(plane.serve, endpoint)
    for path, methods in MANAGED.items():
        found |= {(method, path): Passing(management.serve, path) for method in methods}
    return found | {(method, BLOBS): Passing(management.serve, "/api/blobs") for method in ("HEAD", "POST")}


def routes(paths: Paths) -> list[BaseRoute]:
    """The same as the framework knows them: it says of wrong methods and paths what the right ones are."""
    return [
        Route(f"{BLOBS}{{digest}}" if path == BLOBS else path, found, methods=[method])
        for (method, path), found in paths.items()
    ]
