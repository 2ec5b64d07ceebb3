"""The web page, its files, and the live feed that keeps it fresh. It knows files and frames, not their content.

All files are read once; a name that is not of them is a 404, whatever is on the disk.
"""

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastapi import APIRouter, HTTPException, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from herd import __version__
from herd.routes.surface import surface_of
from herd.telemetry.feed import Feed, Listener, frame

router = APIRouter(prefix="/dashboard")

HOME: Final = Path(__file__).parent.parent / "dashboard"
TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; frame-ancestors 'none'; form-action 'none'"
)
GUARDS: Final = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",  # kept, and asked about each time: a page of two versions would be a puzzle
}
TICK_S: Final = 0.25  # frames go out together; a fleet that answers thousands a second must not wake a page as often
ALIVE_EVERY_S: Final = 15.0  # less than what proxies take for the end of a silent stream


@dataclass(frozen=True, slots=True)
class File:
    """One file of the page, as it is sent."""

    body: bytes
    media_type: str
    etag: str


def read_files(home: Path) -> dict[str, File]:
    """The files of a page by their path below `home`, those of the known types."""
    found = sorted(path for path in home.rglob("*") if path.suffix in TYPES)
    return {path.relative_to(home).as_posix(): made(path.read_bytes(), path.suffix) for path in found}


def made(body: bytes, suffix: str) -> File:
    """A file of a type that its name's ending says."""
    return File(body, TYPES[suffix], f'"{hashlib.sha256(body).hexdigest()[:20]}"')


FILES: Final = read_files(HOME)
EDITION: Final = hashlib.sha256("".join(file.etag for file in FILES.values()).encode()).hexdigest()[:12]


@router.head("", include_in_schema=False)
@router.get("")
async def page(request: Request) -> Response:
    """The web page: fleet, trends, latency, usage, models, apps, traces, health, recommendations, settings."""
    return sent(request, FILES["index.html"])


@router.head("/static/{path:path}", include_in_schema=False)
@router.get("/static/{path:path}")
async def static(request: Request, path: str) -> Response:
    """A static file of the page, revalidated by ETag."""
    if path not in FILES:
        raise HTTPException(404, "Not Found")
    return sent(request, FILES[path])


@router.get("/events")
async def events(request: Request) -> Response:
    """Server-sent events: `hello`, `fleet` (a change), `request` (one ended), `finding`, `dropped` (lost frames)."""
    surface = surface_of(request)
    feed = surface.feed
    listener = feed.join()
    if listener is None:
        text = f"{len(feed)} listeners are there already; ask again later, or poll"
        return JSONResponse({"error": text}, 503, {"retry-after": "30"})
    return EventStream(feed, listener, surface.stopping)


class EventStream(StreamingResponse):
    """What one listener is sent until it leaves or the router stops."""

    def __init__(self, feed: Feed, listener: Listener, stopping: Callable[[], bool]) -> None:
        headers = {"cache-control": "no-store", "x-accel-buffering": "no", "x-content-type-options": "nosniff"}
        super().__init__(_frames(listener, stopping), media_type="text/event-stream", headers=headers)
        self._feed, self._listener = feed, listener

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the client leaves or the router stops."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._feed.leave(self._listener)


async def _frames(listener: Listener, stopping: Callable[[], bool]) -> AsyncIterator[bytes]:
    yield b"retry: 2000\n" + frame("hello", {"version": __version__, "edition": EDITION})
    last = time.monotonic()
    while not stopping():
        await asyncio.sleep(TICK_S)
        found = listener.taken()
        if not found and time.monotonic() - last < ALIVE_EVERY_S:
            continue
        last = time.monotonic()
        yield found or b": alive\n\n"


def sent(request: Request, file: File) -> Response:
    """The file with the page's security headers; 304 if the client has it."""
    headers = {**GUARDS, "etag": file.etag}
    known = request.headers.get("if-none-match", "")
    if file.etag in {each.strip().removeprefix("W/") for each in known.split(",")}:
        return Response(status_code=304, headers=headers)
    return Response(file.body, media_type=file.media_type, headers=headers)
