"""The data plane's doors: raw ASGI endpoints, so that no framework stands between a client's bytes and a node's."""

from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from herd.dataplane.dialects import ENDPOINTS, Endpoint
from herd.dataplane.manage import Management
from herd.dataplane.serve import DataPlane

MANAGED = {
    "/api/show": ["POST"],
    "/api/pull": ["POST"],
    "/api/create": ["POST"],
    "/api/copy": ["POST"],
    "/api/push": ["POST"],
    "/api/delete": ["DELETE"],
}
ASKING = frozenset({*ENDPOINTS, "/api/show"})  # a POST there changes nothing
UNCOUNTED = frozenset({*ENDPOINTS, *MANAGED})  # they count their bodies themselves


class InferenceEndpoint:
    """One inference path as an ASGI application."""

    def __init__(self, plane: DataPlane, endpoint: Endpoint) -> None:
        self._plane = plane
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        await self._plane.serve(self._endpoint, scope, receive, send)


class ManagedEndpoint:
    """One management path as an ASGI application."""

    def __init__(self, management: Management, endpoint: str) -> None:
        self._management = management
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        await self._management.serve(self._endpoint, scope, receive, send)


def routes(plane: DataPlane) -> list[BaseRoute]:
    """All paths whose bytes go to a node."""
    management = Management(plane)
    inference = [Route(path, InferenceEndpoint(plane, known), methods=["POST"]) for path, known in ENDPOINTS.items()]
    managed = [Route(path, ManagedEndpoint(management, path), methods=methods) for path, methods in MANAGED.items()]
    blobs = Route("/api/blobs/{digest}", ManagedEndpoint(management, "/api/blobs"), methods=["HEAD", "POST"])
    return [*inference, *managed, blobs]
