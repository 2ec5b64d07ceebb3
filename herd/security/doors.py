"""Closed doors: whom a request may ask by Host, which pages may use the fleet or change it, how large a body may be.

Pure ASGI around everything, so that it holds for every path. What a request must show is the gate's to say.
"""

import asyncio
from collections.abc import Callable, Iterator

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from herd.core.access import NOBODY
from herd.core.dialects import dialect_of, error_body
from herd.core.errors import BadRequest, BodyTooLarge, Forbidden, HerdError, LoopDetected, Refused, Unauthorized
from herd.security.gate import LET_IN, Gate, Verdict, settled
from herd.security.names import Names, is_host
from herd.security.peer import Address, is_same_user
from herd.security.refusals import Refusal, Report

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
Headers = dict[bytes, bytes]
CONTROL_BODY_LIMIT = 8 * 2**20  # settings and the like; the data plane counts for itself


class ClosedDoors:
    """The middleware. On the paths `asking` a POST changes nothing; `uncounted` ones count their bodies.

    `me` is what this router calls itself in the Via header of whatever it sends to nodes.
    """

    def __init__(
        self,
        app: ASGIApp,
        names: Names,
        gate: Gate,
        asking: frozenset[str],
        uncounted: frozenset[str],
        report: Report,
        me: bytes = b"",
        is_own_user: Callable[[Address, Address], bool] = is_same_user,
    ) -> None:
        self._app = app
        self._names = names
        self._gate = gate
        self._is_own_user = is_own_user
        self._asking = asking
        self._uncounted = uncounted
        self._report = report
        self._me = me

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 400, 401, 403, 413 or 429, or pass on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: Headers = dict(scope["headers"])
        host, origin = headers.get(b"host", b"").decode("latin-1"), _text(headers.get(b"origin"))
        if origin and self._names.may_ask(origin, host):
            send = _telling(origin, send)
        for door, error in self._closed(scope, headers, host, origin):
            await self._refuse(scope, headers, send, Verdict(error=error), door)
            return
        verdict = self._gate.judge(scope, headers, host)
        if verdict.ask_system:
            verdict = await self._ask_system(scope, verdict)
        if verdict.error is not None and not verdict.observed:
            await self._refuse(scope, headers, send, verdict)
            return
        if verdict is not LET_IN:
            self._take(scope, headers, verdict)
        if origin and scope["method"] == "OPTIONS" and b"access-control-request-method" in headers:
            await _preflight(headers.get(b"access-control-request-headers", b"content-type"), send)
        elif scope["path"] in self._uncounted or scope["path"].startswith("/api/blobs/"):
            await self._app(scope, receive, send)
        else:
            await self._counted(scope, receive, send, headers)

    async def _ask_system(self, scope: Scope, verdict: Verdict) -> Verdict:
        client, server = scope.get("client"), scope.get("server")
        if not client or not server or server[1] is None:
            return verdict
        own = await asyncio.to_thread(self._is_own_user, tuple(client), tuple(server))
        return settled(verdict, own)

    def _take(self, scope: Scope, headers: Headers, verdict: Verdict) -> None:
        """Let the routes know who asks; what would have been refused is counted."""
        if verdict.error is not None:
            self._report(_refusal(scope, headers, "key", verdict))
        if verdict.caller is not NOBODY:
            scope["herd.caller"] = verdict.caller

    def _closed(self, scope: Scope, headers: Headers, host: str, origin: str | None) -> Iterator[tuple[str, HerdError]]:
        """The doors that are closed to a request, each with its reason."""
        if b"host" not in headers and scope["http_version"] == "1.1":
            yield "host", BadRequest("HTTP/1.1 asks for a Host header")
        if not is_host(host) or [name for name, _ in scope["headers"]].count(b"host") > 1:
            yield "host", BadRequest("the Host header is to be one name or address, with or without a port")
        if not self._names.may_be_called(host):
            text = f"Host {host[:100]!r} is not answered here; the setting allowed_hosts adds names"
            yield "host", Forbidden(text)
        if self._me and any(name == b"via" and self._me in value for name, value in scope["headers"]):
            yield "loop", LoopDetected("this request has passed through this router before: a node leads back to it")
        method = scope["method"]
        if method == "OPTIONS" and origin is not None:
            method = _text(headers.get(b"access-control-request-method")) or method
        if method not in SAFE_METHODS and (why := self._not_welcome(scope["path"], headers, host, origin)):
            yield "origin", Forbidden(why)

    def _not_welcome(self, path: str, headers: Headers, host: str, origin: str | None) -> str:
        """Why a page may not do this; empty where it may, or where it is no page."""
        page = f"a page of {origin[:100]!r}" if origin else "a page of another origin"
        if path.rstrip("/") in self._asking:
            welcome = self._names.may_ask(origin, host)
            return "" if welcome else f"{page} may not use this fleet; the setting allowed_origins adds pages"
        # What a preflight says of the fetch is about itself.
        said = None if b"access-control-request-method" in headers else _text(headers.get(b"sec-fetch-site"))
        if self._names.may_change(origin, host, said or ""):
            return "" if origin is None or _has_json(headers) else "a page sends its changes as application/json"
        return f"{page} may not change anything here, only the router's own; allowed_hosts adds names that it has"

    async def _counted(self, scope: Scope, receive: Receive, send: Send, headers: Headers) -> None:
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > CONTROL_BODY_LIMIT:
            error = BodyTooLarge(f"the body is over the limit of {CONTROL_BODY_LIMIT} bytes")
            await self._refuse(scope, headers, send, Verdict(error=error), "body")
            return
        seen = 0

        async def counting() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            return message if seen <= CONTROL_BODY_LIMIT else {"type": "http.disconnect"}

        await self._app(scope, counting, send)

    async def _refuse(self, scope: Scope, headers: Headers, send: Send, verdict: Verdict, door: str = "key") -> None:
        error = verdict.error
        assert error is not None
        request_id = self._report(_refusal(scope, headers, door, verdict))
        body = error_body(dialect_of(scope["path"]), error)
        told = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        if request_id is not None:
            told.append((b"x-request-id", request_id.encode()))
        if isinstance(error, Unauthorized):
            told.append((b"www-authenticate", b"Bearer"))
        if isinstance(error, Refused) and error.retry_after_s is not None:
            told.append((b"retry-after", str(error.retry_after_s).encode()))
        await send({"type": "http.response.start", "status": error.status, "headers": told})
        await send({"type": "http.response.body", "body": body})


def _refusal(scope: Scope, headers: Headers, door: str, verdict: Verdict) -> Refusal:
    client = scope["client"][0] if scope.get("client") else ""
    named = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers.items()}
    assert verdict.error is not None
    return Refusal(
        door, verdict.error, client, scope["method"], scope["path"], named, verdict.reason, verdict.caller,
        verdict.observed,
    )  # fmt: skip


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")


def _has_json(headers: Headers) -> bool:
    """Whether a body, if there is one, is of the type that no form can send."""
    kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    preflight = b"access-control-request-method" in headers
    return preflight or kind == b"application/json" or (not kind and headers.get(b"content-length", b"0") == b"0")


def _telling(origin: str, send: Send) -> Send:
    """Tell a welcome page's browser that it may read the answer, as Ollama does for pages on the same machine."""
    told = [(b"access-control-allow-origin", origin.encode("latin-1")), (b"vary", b"origin"),
            (b"access-control-expose-headers", b"*")]  # fmt: skip

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", ()), *told]}
        await send(message)

    return sending


async def _preflight(wanted: bytes, send: Send) -> None:
    headers = [
        (b"access-control-allow-methods", b"GET, POST, DELETE, HEAD"),
        (b"access-control-allow-headers", wanted),
        (b"access-control-max-age", b"600"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
