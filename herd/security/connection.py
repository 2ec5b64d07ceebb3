"""One connection's HTTP/1.1: how long and how slow a head may be, and that nothing of a body is taken for a request.

A subclass of uvicorn's protocol on httptools. It knows bytes and frames, and no path; what it lets through is the
doors' and the routes' to judge.
"""

import asyncio
from asyncio import TimerHandle
from dataclasses import dataclass
from typing import Any, ClassVar, cast
from urllib.parse import urlsplit

import httptools
from uvicorn import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from herd.core.dialects import dialect_of, error_body
from herd.core.errors import BadRequest, HeadTimeout, HeadTooLarge, HerdError, Refused, TooManyConnections, UrlTooLong
from herd.security.crowd import Crowd
from herd.security.joined import Joined
from herd.security.refusals import Refusal, Report, unrecorded

# What a client offered that herd does not speak; the request itself is HTTP/1.1 and complete.
OFFERS = frozenset({b"upgrade", b"http2-settings"})
FRAMING = frozenset({b"transfer-encoding", b"expect"})
VERSIONS = frozenset({"1.0", "1.1"})
LINGER_S = 2.0  # a close with unread bytes resets the connection, and the client never reads why
MOST_PIPELINED = 32  # no client of ours pipelines; each would be held until those before it are answered


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection, and one address, may ask for; sizes in bytes."""

    head_bytes: int = 64 * 2**10
    head_lines: int = 100
    url_bytes: int = 16 * 2**10
    head_s: float = 15.0
    connections: int = 256


def connection_type(limits: Limits, report: Report = unrecorded) -> "type[Connection]":
    """The protocol of one server: uvicorn makes one of this type for each connection, and they share one count."""

    class LimitedConnection(Connection):
        """A connection of this server."""

    LimitedConnection.limits = limits
    LimitedConnection.report = staticmethod(report)
    LimitedConnection.crowd = Crowd(limits.connections, idle_until)
    return LimitedConnection


class Connection(HttpToolsProtocol):
    """Reads requests within `limits`, ignores offers of other protocols, and answers what it refuses in words."""

    limits: ClassVar[Limits]
    crowd: "ClassVar[Crowd[Connection]]"
    report: ClassVar[Report]

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.url = b""
        self._running: RequestResponseCycle | None = None
        self._offer: tuple[bytes, str] | None = None
        self._late: TimerHandle | None = None
        self._most_lines = self.limits.head_lines
        self._size = self._unmoved_bytes = self._trailers = 0
        self._in_head = self._moved = self._deaf = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection if its address has room; one that says nothing is as idle as one that has had its say."""
        super().connection_made(transport)
        self.transport = cast(asyncio.Transport, Joined(transport, self.loop))
        admitted, shed = self.crowd.admit(self._address, self)
        if shed is not None:
            shed.transport.close()
        if admitted:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
        else:
            text = f"{self._address} has {self.limits.connections} connections that are all at work"
            self._refuse(TooManyConnections(f"{text}; the setting connections_per_address allows more", 1))

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self.crowd.leave(self._address, self)
        self._stop_the_clock()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on; after a refusal, or the last request, whatever comes is thrown away."""
        if not self._deaf:
            while data := self._read(data):
                pass

    def _read(self, data: bytes) -> bytes:
        """Feed the parser; returns what has to be read again because it took that for another protocol."""
        self._moved, self._size = False, len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as end:
            return self._without_offer(data[end.args[0] :])
        except httptools.HttpParserError as error:
            if not self._deaf:
                cause = error.__context__
                refusal = cause if isinstance(cause, HerdError) else BadRequest(f"this is no HTTP/1.1 request: {error}")
                self._refuse(refusal)
            return b""
        self._unmoved_bytes = 0 if self._moved else self._unmoved_bytes + self._size
        if self._unmoved_bytes > self.limits.head_bytes:  # one endless line, which the parser keeps to itself
            self._refuse(self._too_large())
        elif self._in_head and self._late is None:
            self._late = self.loop.call_later(self.limits.head_s, self._too_late)
        return b""

    def _without_offer(self, rest: bytes) -> bytes:
        """The same request without its offer, and what follows: a server that does not upgrade answers in HTTP/1.1.

        httptools reads no body after an offer, and RFC 9110, section 7.8, lets a server ignore one.
        """
        assert self._offer is not None
        (method, version), self._offer = self._offer, None
        lines = [b"%b: %b\r\n" % line for line in self.headers if line[0] not in OFFERS]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        return b"".join((method, b" ", self.url, b" HTTP/", version.encode(), b"\r\n", *lines, b"\r\n", rest))

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        if self.timeout_keep_alive_task is not None:
            self._unset_keepalive_if_required()
        self._in_head = self._moved = True
        self._trailers = 0

    def on_url(self, url: bytes) -> None:
        """A piece of the target came."""
        self.url += url
        if len(self.url) > self.limits.url_bytes:
            raise UrlTooLong(f"the URL is over the limit of {self.limits.url_bytes // 1024} KiB")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A line of the head, or after the body, where it is counted and means nothing: the request was judged."""
        if not self._in_head:
            self._trailers += 1
        else:
            name = name.lower()
            if name in FRAMING:
                self._check_framing(name, value.lower())
            self.headers.append((name, value))
        if len(self.headers) + self._trailers > self._most_lines:
            raise self._too_large()

    def on_headers_complete(self) -> None:
        """The head is whole: begin the request, unless it is to be read again without an offer."""
        self._in_head = False
        if self._late is not None:
            self._stop_the_clock()
        if self.timeout_keep_alive_task is not None:  # the answer before it ended while it came
            self._unset_keepalive_if_required()
        if self._unmoved_bytes + self._size > self.limits.head_bytes and self._head_bytes() > self.limits.head_bytes:
            raise self._too_large()
        version = self.parser.get_http_version()
        if version not in VERSIONS:
            raise BadRequest(f"HTTP/{version} is not spoken here, only HTTP/1.1")
        if self.parser.should_upgrade():
            self._offer = self.parser.get_method(), version
            if self._offer[0] == b"CONNECT":
                raise BadRequest("CONNECT asks for a proxy, and this is none")
            return
        if not self.url.startswith(b"/"):
            self._take_absolute_form()
        super().on_headers_complete()
        if not self.pipeline:
            self._running = self.cycle
        elif len(self.pipeline) > MOST_PIPELINED:
            raise BadRequest(f"more than {MOST_PIPELINED} requests are sent ahead of their answers")

    def on_body(self, body: bytes) -> None:
        """A piece of the body came."""
        self._moved = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole; after the last one that the client announced, nothing is listened to."""
        self._moved = True
        if self._offer is None:
            super().on_message_complete()
            self._deaf = not self.cycle.keep_alive

    def on_response_complete(self) -> None:
        """An answer is whole: the request that was sent ahead begins, if there is one."""
        if self.pipeline:
            self._running = self.pipeline[-1][0]
        super().on_response_complete()

    @property
    def _address(self) -> str:
        return self.client[0] if self.client else ""

    def _head_bytes(self) -> int:
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _check_framing(self, name: bytes, value: bytes) -> None:
        if name == b"expect":
            self.expect_100_continue = value == b"100-continue"
        elif value != b"chunked":
            raise BadRequest("Transfer-Encoding may be chunked and nothing else")
        elif self.parser.get_http_version() == "1.0":
            raise BadRequest("HTTP/1.0 knows no Transfer-Encoding")

    def _take_absolute_form(self) -> None:
        """`GET http://host/path`: the host stands for the Host header's (RFC 9112, section 3.2.2)."""
        try:
            target = urlsplit(self.url)
        except ValueError:
            target = urlsplit(b"")
        if target.scheme.lower() not in {b"http", b"https"} or not target.netloc:
            raise BadRequest("the request target is neither a path nor an http URL")
        self.headers[:] = [(b"host", target.netloc), *(line for line in self.headers if line[0] != b"host")]
        self.url = (target.path or b"/") + (b"?" + target.query if target.query else b"")

    def _too_large(self) -> HeadTooLarge:
        size, lines = self.limits.head_bytes // 1024, self.limits.head_lines
        return HeadTooLarge(f"the head of the request is over the limit of {size} KiB or {lines} lines")

    def _stop_the_clock(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _too_late(self) -> None:
        self._late = None
        if self._in_head and not self._deaf:
            self._refuse(HeadTimeout(f"the head of the request took over {self.limits.head_s:g} s"))

    def _refuse(self, error: HerdError) -> None:
        """Hear no more, and say why, if that cannot be taken for the answer to the request before."""
        self._deaf = True
        self.pipeline.clear()
        door = "connections" if isinstance(error, TooManyConnections) else "head"
        self.report(Refusal(door, error, self._address, path=self.url.decode("latin-1")))
        running = None if self._running is None or self._running.response_complete else self._running
        if running is not None and not running.more_body:
            running.keep_alive = False
            return
        if running is not None:
            running.disconnected = True
            running.message_event.set()
        if running is None or not running.response_started:
            self._answer(error)
        self.loop.call_later(LINGER_S, self.transport.close)

    def _answer(self, error: HerdError) -> None:
        body = error_body(dialect_of(self.url.decode("latin-1")), error)
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n" % len(body)
        if isinstance(error, Refused) and error.retry_after_s is not None:
            head += b"retry-after: %d\r\n" % error.retry_after_s
        self.transport.write(STATUS_LINE[error.status] + head + b"\r\n" + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()


def idle_until(connection: Connection) -> float | None:
    """When the server would close an idle connection by itself; None for one that is at work."""
    timer = connection.timeout_keep_alive_task
    return None if timer is None else timer.when()
