"""Closed doors: which Host names are answered, which Origins may change something, and how large a body may be.

Pure ASGI around everything, so that it holds for every path. Loopback needs no credential.
"""

import ipaddress
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from herd.dataplane.dialects import dialect_of, error_body
from herd.errors import BadRequest, BodyTooLarge, Forbidden, HerdError

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
CONTROL_BODY_LIMIT = 8 * 2**20  # heartbeats and settings; the data plane counts for itself


class ClosedDoors:
    """The middleware. `allowed_hosts` are names beside loopback, literal addresses and the machine's own name."""

    def __init__(self, app: ASGIApp, allowed_hosts: Iterable[str], uncounted: frozenset[str]) -> None:
        self._app = app
        named = {host.strip().lower() for host in allowed_hosts if host.strip()}
        self._any_host = "*" in named
        self._hosts = named | {"localhost", socket.gethostname().lower()}
        self._uncounted = uncounted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 400, 403 or 413, or pass on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host, origin = headers.get(b"host", ""), headers.get(b"origin")
        welcome = self.origin_allowed(origin, host)
        if origin and welcome:
            send = _telling(origin, send)
        if b"host" not in headers and scope["http_version"] == "1.1":
            await _answer(scope, send, BadRequest("HTTP/1.1 asks for a Host header"))
        elif not self.host_allowed(host):
            error = Forbidden(f"Host {host[:100]!r} is not answered here; the setting allowed_hosts adds names")
            await _answer(scope, send, error)
        elif scope["method"] not in SAFE_METHODS and not welcome:
            await _answer(scope, send, Forbidden("a page of another origin may not do this"))
        elif scope["method"] == "OPTIONS" and b"access-control-request-method" in headers and welcome:
            await _preflight(headers.get(b"access-control-request-headers", "content-type"), send)
        elif scope["path"] in self._uncounted or scope["path"].startswith("/api/blobs/"):
            await self._app(scope, receive, send)
        else:
            await self._counted(scope, receive, send, headers.get(b"content-length", "0"))

    def host_allowed(self, host: str) -> bool:
        """Whether a Host header names this machine in a way that a foreign page cannot arrange by DNS."""
        name = _host_name(f"//{host}")
        local = name in self._hosts or name.endswith((".localhost", ".local"))
        return self._any_host or not host or local or _is_address(name)

    def origin_allowed(self, origin: str | None, host: str) -> bool:
        """Whether a page may change something: its own address, a page on this machine, or an allowed name."""
        if origin is None:
            return True
        name = _host_name(origin)
        loopback = _is_address(name) and ipaddress.ip_address(name).is_loopback
        return origin.partition("://")[2].lower() == host.lower() or loopback or name in self._hosts

    async def _counted(self, scope: Scope, receive: Receive, send: Send, length: str) -> None:
        if length.isdigit() and int(length) > CONTROL_BODY_LIMIT:
            await _answer(scope, send, BodyTooLarge(f"the body is over the limit of {CONTROL_BODY_LIMIT} bytes"))
            return
        seen = 0

        async def counting() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            return message if seen <= CONTROL_BODY_LIMIT else {"type": "http.disconnect"}

        await self._app(scope, counting, send)


def _host_name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:  # a bracket that is not closed
        return "?"


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _telling(origin: str, send: Send) -> Send:
    """Tell a welcome page's browser that it may read the answer, as Ollama does for pages on the same machine."""
    told = [(b"access-control-allow-origin", origin.encode("latin-1")), (b"vary", b"origin"),
            (b"access-control-expose-headers", b"*")]  # fmt: skip

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *told]}
        await send(message)

    return sending


async def _preflight(wanted: str, send: Send) -> None:
    headers = [
        (b"access-control-allow-methods", b"GET, POST, DELETE, HEAD"),
        (b"access-control-allow-headers", wanted.encode("latin-1")),
        (b"access-control-max-age", b"600"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


async def _answer(scope: Scope, send: Send, error: HerdError) -> None:
    body = error_body(dialect_of(scope["path"]), error)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
