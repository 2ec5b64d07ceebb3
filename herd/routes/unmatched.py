"""What no route takes: a path that is not there, a method that it does not take, a slash too many.

Answers are in the dialect of the path; a redirection is relative, since a proxy may have put the router anywhere.
"""

from collections.abc import Iterator

from fastapi import Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match
from starlette.types import Scope

from herd.core.dialects import dialect_of, error_document

METHODS = ("GET", "HEAD", "POST", "DELETE")


async def in_dialect(request: Request, error: Exception) -> Response:
    """An error of the framework's as the path's dialect has errors; 405 names all methods that the path takes."""
    assert isinstance(error, HTTPException)
    path, headers = request.url.path, error.headers
    if error.status_code == 404 and path.endswith("/") and (slim := _without_slash(request)):
        return Response(status_code=307, headers={"location": slim})
    if error.status_code == 405:
        headers = {"allow": ", ".join(_taken(request))}
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "error")
    text = f"{error.detail}: {request.method} {path}" if error.status_code in {404, 405} else str(error.detail)
    document = error_document(dialect_of(path), error.status_code, text, code)
    return JSONResponse(document, error.status_code, headers)


def _without_slash(request: Request) -> str | None:
    """The address beside this one without its last slash, if anything is there."""
    path = request.url.path.rstrip("/")
    last = path.rpartition("/")[2]
    scope = {**request.scope, "path": path}
    if not last or not any(route.matches(scope)[0] is not Match.NONE for route in _routes(request)):
        return None
    raw = str((request.scope.get("raw_path") or path.encode()), "latin-1").rstrip("/").rpartition("/")[2]
    return f"../{raw}" + (f"?{request.url.query}" if request.url.query else "")


def _taken(request: Request) -> Iterator[str]:
    for method in METHODS:
        scope: Scope = {**request.scope, "method": method}
        if any(route.matches(scope)[0] is Match.FULL for route in _routes(request)):
            yield method


def _routes(request: Request) -> list[BaseRoute]:
    routes: list[BaseRoute] = request.app.router.routes
    return routes
