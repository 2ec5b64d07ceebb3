"""HTTP/1.1 from the side that asks: a request's bytes, and one connection that reads the answer to one at a time.

It knows a socket's bytes and when the next ones are due; no node, no pool, no error of the tree. Whoever waits asks
`arrival` for a future, and looks at the connection's fields when it is done: what has come, then `error`, then
`complete`. The grammar is llhttp's, strict; what is added here are limits, where a body ends, and what may be kept.
"""

import asyncio
import math
import re
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Sequence
from functools import lru_cache
from socket import IPPROTO_TCP, TCP_NODELAY
from typing import NamedTuple, cast
from urllib.parse import urlsplit

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

Headers = Sequence[tuple[bytes, bytes]]
ROOM = 64 * 1024  # bytes of a head with its interim answers, of framing without content, of a body that nobody reads
MOST_LINES = 100
ONE_WRITE = 64 * 1024  # a body that is copied behind its head; a larger one is written beside it
CLOCK_S = 0.001  # uvloop's clock moves in milliseconds
EXPECTED_TO_HAVE_A_BODY = frozenset({"POST", "PUT", "PATCH"})
DEFAULT_PORTS = {"http": 80, "https": 443}


class Broken(Exception):
    """The answer will not come, or will not come whole."""


class Lost(Broken):
    """The connection ended first."""


class NotHttp(Broken):
    """What came is not HTTP, or more than is taken."""


class Late(Broken):
    """Nothing came until it was due."""


class Address(NamedTuple):
    """Where a connection goes."""

    tls: bool
    host: str
    port: int


class Target(NamedTuple):
    """A URL as it is used: where to connect, and what follows the method in the request, up to its Host line."""

    address: Address
    lines: bytes


@lru_cache(maxsize=512)
def target_of(url: str) -> Target:
    """Read scheme://host:port/path; ValueError where there is no address in it. The path is sent byte for byte."""
    scheme, _, rest = url.partition("://")
    authority, _, path = rest.partition("/")
    parts = urlsplit(f"{scheme}://{authority}")
    if scheme not in DEFAULT_PORTS or not parts.hostname:
        raise ValueError(f"{url!r} is no address of a node")
    port = DEFAULT_PORTS[scheme] if parts.port is None else parts.port
    host = parts.hostname.partition("%")[0]  # an IPv6 zone is this machine's own word
    named = f"[{host}]".encode() if ":" in host else host.encode("ascii" if host.isascii() else "idna")
    if port != DEFAULT_PORTS[scheme]:
        named += b":%d" % port
    sent = re.sub(rb"[\x00-\x20\x7f]", lambda found: b"%%%02X" % ord(found[0]), path.encode("latin-1"))
    return Target(Address(scheme == "https", parts.hostname, port), b" /%b HTTP/1.1\r\nhost: %b\r\n" % (sent, named))


def head_of(method: str, target: Target, headers: Headers, body: bytes | AsyncIterable[bytes] | None) -> bytes:
    """The bytes of a request up to its body; ValueError for a header that would be more than one line."""
    lines = b"".join([b"%b: %b\r\n" % header for header in headers])
    if lines.count(b"\n") != len(headers) or lines.count(b"\r") != len(headers) or b"\0" in lines:
        raise ValueError("a header to a node has a line break or a NUL in it")
    if body is None:
        framing = b"content-length: 0\r\n" if method in EXPECTED_TO_HAVE_A_BODY else b""
    elif isinstance(body, bytes):
        framing = b"content-length: %d\r\n" % len(body)
    else:
        framing = b"transfer-encoding: chunked\r\n"
    return b"%b%b%b%b\r\n" % (method.encode(), target.lines, lines, framing)


class Connection(asyncio.Protocol):
    """One connection; `begin` sends a request, the fields tell of its answer, `rest` makes it ready for the next.

    `status` is 0 until the final head is there; `pieces` are what came of the body and was not taken; `received` says
    that the node has said anything at all; `complete` that the answer has come to its end. `idle_since` is its owner's.
    """

    __slots__ = (
        "_bodiless", "_chunked", "_drained", "_due_at", "_ended", "_interim", "_loop", "_parser", "_paused",
        "_rings_at", "_sent", "_size", "_timer", "_transport", "_waiter", "address", "closing", "complete",
        "content_length", "error", "headers", "idle", "idle_since", "keep_alive", "on_body", "pieces", "received",
        "status",
    )  # fmt: skip

    def __init__(
        self, loop: asyncio.AbstractEventLoop, address: Address, ended: "Callable[[Connection], None]"
    ) -> None:
        self.address = address
        self.closing = True  # until there is a transport
        self.idle = False
        self.idle_since = 0.0
        self.pieces: list[bytes] = []
        self.on_body = self.pieces.append  # the parser's callback; a frame of Python for each piece would cost more
        self._loop = loop
        self._ended = ended
        self._transport: asyncio.Transport
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = self._due_at = math.inf
        self._waiter: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._paused = self._bodiless = False
        self._sent = True
        self._parser = HttpResponseParser(self)
        self._clear()

    def _clear(self) -> None:
        self.status = self._size = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.content_length: int | None = None
        self.error: Exception | None = None
        self.received = self.complete = self.keep_alive = self._chunked = self._interim = False

    # What its user does

    def begin(self, head: bytes, body: bytes | None, *, bodiless: bool, chunks_follow: bool) -> None:
        """Send a request, whose chunks `send_chunks` will send if they follow. `bodiless`: it is a HEAD request."""
        self.idle, self._bodiless, self._sent = False, bodiless, not chunks_follow
        if self.closing:
            return
        if not body:
            self._transport.write(head)
        elif len(body) <= ONE_WRITE:
            self._transport.write(head + body)
        else:
            self._transport.write(head)
            self._transport.write(body)

    async def send_chunks(self, body: AsyncIterable[bytes]) -> None:
        """Send a body as it comes, no faster than the other side takes it; `body` is closed in the end."""
        try:
            async for piece in body:
                if self._drained is not None:
                    await self._drained
                if self.closing:
                    return
                if piece:
                    self._transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            if not self.closing:
                self._transport.write(b"0\r\n\r\n")
                self._sent = True
        finally:
            if isinstance(body, AsyncGenerator):
                await body.aclose()

    def arrival(self, due_at: float) -> "asyncio.Future[None]":
        """What is done when there is more to see; after `due_at`, by the loop's clock, that is a `Late` error."""
        self._due_at = due_at
        if due_at < self._rings_at:
            self._ring_at(due_at)
        self._waiter = waiter = self._loop.create_future()
        return waiter

    def take(self) -> bytes:
        """All of the body that is here."""
        pieces = self.pieces
        taken = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._size = 0
        if self._paused:
            self._paused = False
            if not self.closing:
                self._transport.resume_reading()
        return taken

    def reusable(self) -> bool:
        """Whether another request may follow: both messages came to their ends, and both sides want to go on."""
        return (
            self.complete and self.keep_alive and self._sent and self._drained is None
            and not (self.pieces or self.closing or self._transport.is_closing())
        )  # fmt: skip

    def rest(self) -> None:
        """Wait for the next `begin`; whatever comes until then ends the connection."""
        self.idle = True
        self._clear()
        if self._bodiless:  # the parser still waits for the body that the head spoke of
            self._parser = HttpResponseParser(self)

    def abort(self) -> None:
        """End the connection now."""
        if not self.closing:
            self.closing = True
            self._transport.abort()

    def fail(self, error: Exception) -> None:
        """End the connection, and have this seen as the reason."""
        if not (self.complete or self.error):
            self.error = error
        self.abort()
        self._wake()

    # What the transport says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.closing = False
        if (socket := transport.get_extra_info("socket")) is not None:
            socket.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        if self.idle:
            self.abort()
            return
        self.received = True
        self._size += len(data)
        try:
            self._parser.feed_data(data if self._size <= ROOM or self.status else self._within_room(data))
        except NotHttp as error:
            self.fail(error)
        except (HttpParserError, HttpParserUpgrade) as error:
            own = error.__context__  # what a callback here raised
            self.fail(own if isinstance(own, NotHttp) else NotHttp(str(error)))
        if self._bodiless and self.pieces:
            self.pieces.clear()
            self.abort()
        if self._size > ROOM and not (self.complete or self.closing):
            self._hold_back()
        if self.status and self._waiter is not None:
            self._wake()

    def _within_room(self, data: bytes) -> bytes:
        """Feed what the head may still have; the rest, which is the body's. Where it is cut so makes no difference."""
        room = len(data) - (self._size - ROOM)
        self._parser.feed_data(data[:room])
        if not self.status:
            raise NotHttp(f"its head is over {ROOM // 1024} KiB")
        return data[room:]

    def _hold_back(self) -> None:
        if not self.pieces:
            self.fail(NotHttp(f"over {ROOM // 1024} KiB came without content"))
        elif self._waiter is None and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def eof_received(self) -> None:
        self._input_ended(None)
        self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closing = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._input_ended(exc)
        self.resume_writing()
        del self._parser  # which holds this object
        self._ended(self)

    def _input_ended(self, exc: Exception | None) -> None:
        if not (self.complete or self.error):
            if exc is None and self.status and self.content_length is None and not self._chunked:
                self.complete = True  # such a body ends with its connection
            else:
                self.error = Lost(str(exc) if exc else "it closed the connection")
        self._wake()

    def pause_writing(self) -> None:
        self._drained = self._loop.create_future()

    def resume_writing(self) -> None:
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    # What the parser says

    def on_message_begin(self) -> None:
        if self.complete:
            raise NotHttp("more data than expected")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.status:
            return  # a trailer, of no use to anybody here
        if len(self.headers) == MOST_LINES:
            raise NotHttp(f"its head has over {MOST_LINES} header lines")
        name = name.lower()
        self.headers.append((name, value))
        if name == b"content-length":
            self.content_length = int(value)
        elif name == b"transfer-encoding":
            if value.lower() != b"chunked":
                raise NotHttp(f"its transfer encoding is {value[:40]!r}")
            self._chunked = True

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status >= 200:
            self.status = status
            self._size = 0
            if self._bodiless:
                self.on_message_complete()
        elif status < 100 or status == 101 or self.content_length or self._chunked:
            raise NotHttp(f"unexpected response with status {status}")
        else:
            self._interim = True

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim = False
            self.headers = []
            self.content_length = None
        elif not self.complete:
            self.keep_alive = self._parser.should_keep_alive()
            self.complete = True

    # Whoever waits

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _ring_at(self, moment: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._rings_at = self._loop.call_at(moment, self._ring), moment

    def _ring(self) -> None:
        # Set for what was due when it was made; nobody made another when that moved, or when the answer was there.
        self._timer, self._rings_at = None, math.inf
        if self._waiter is None or self._due_at == math.inf:
            return
        if self._due_at > self._loop.time() + CLOCK_S:
            self._ring_at(self._due_at)
        else:
            self.fail(Late())
