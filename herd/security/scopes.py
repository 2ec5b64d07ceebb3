"""What each path asks of its caller: a table by path and method, as the OpenAPI document spells them.

A path that is not in the table has nothing behind it; a test holds that every path of the document is here. What a
client may do to models is `admin`, as it changes what others use.
"""

import re
from functools import lru_cache
from typing import Final

from herd.core.access import Need
from herd.core.dialects import ENDPOINTS, PASSED

SAFE: Final = frozenset({"GET", "HEAD"})
EVERY: Final = "GET HEAD POST DELETE"
TABLE: Final[tuple[tuple[Need, str, tuple[str, ...]], ...]] = (
    (Need.OPEN, "GET HEAD", ("/", "/healthz", "/readyz", "/dashboard", "/dashboard/static/{path}",
                             "/dashboard/runbook", "/login")),
    (Need.OPEN, "POST", ("/login", "/logout")),
    (Need.NODE, "POST", ("/heartbeat", "/fleet/join")),
    (Need.LIST, "GET HEAD", ("/api/version", "/api/tags", "/api/ps", "/v1/models", "/v1/models/", "/v1/models/{name}")),
    (Need.LIST, "POST", ("/api/show",)),
    (Need.INFERENCE, "POST", (*ENDPOINTS, *(path for path, method in PASSED.items() if method == "POST"))),
    (Need.LIST, "GET", tuple(path for path, method in PASSED.items() if method == "GET")),
    (Need.READ, "GET HEAD", (
        "/metrics", "/fleet/status", "/fleet/requests", "/openapi.json", "/dashboard/events",
        "/dashboard/api/events", "/dashboard/api/traces",
        "/dashboard/api/traces/{request_id}", "/dashboard/api/apps", "/dashboard/api/apps/daily",
        "/dashboard/api/usage", "/dashboard/api/models", "/dashboard/api/trends", "/dashboard/api/latency",
        "/dashboard/api/recommendations", "/dashboard/api/health", "/dashboard/api/health/findings",
        "/dashboard/api/settings", "/dashboard/api/events", "/dashboard/api/calibration", "/dashboard/api/plan",
        "/fleet/requests",
    )),
    (Need.ADMIN, "POST", (
        "/api/pull", "/api/create", "/api/copy", "/api/push", "/dashboard/api/settings",
        "/fleet/requests/{request_id}/cancel", "/fleet/nodes/{node_id}/drain",
        "/fleet/requests/{request_id}/cancel",
        "/dashboard/api/health/findings/{finding_id}/acknowledge",
        "/dashboard/api/health/findings/{finding_id}/silence",
    )),
    (Need.ADMIN, "DELETE", ("/api/delete", "/fleet/nodes/{node_id}")),
    (Need.ADMIN, "HEAD POST", ("/api/blobs/{digest}",)),
)  # fmt: skip
# Their last part may be anything, slashes included.
BEYOND: Final = {"/dashboard/static/{path}", "/v1/models/{name}", "/api/blobs/{digest}"}
EXACT: Final = {(method, path): need for need, methods, paths in TABLE for method in methods.split() for path in paths}
PATTERNS: Final = tuple(
    (re.compile(re.sub(r"\\{\w+\\}", ".*" if path in BEYOND else "[^/]+", re.escape(path)), re.DOTALL), method, need)
    for (method, path), need in EXACT.items()
    if "{" in path
)


def need_of(method: str, path: str) -> Need | None:
    """What a request asks for; None where no path of ours is meant, whatever is answered there."""
    found = EXACT.get((method, path))
    return found or _by_pattern(method, path)


@lru_cache(maxsize=1024)
def _by_pattern(method: str, path: str) -> Need | None:
    return next((need for form, verb, need in PATTERNS if verb == method and form.fullmatch(path)), None)
