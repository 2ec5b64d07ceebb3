"""One answer's bytes on its way out: heads, chunks, and the ways in which they can break. Knows no dialect.

Bytes go to the transport as they are, because a fault must be able to stop between any two of them.
"""

import asyncio
import socket
import struct
import time
from collections.abc import Sequence
from email.utils import formatdate
from functools import lru_cache
from http import HTTPStatus

from aiohttp import HttpVersion11, web

from herd.sim.faults import Fault, FaultKind, Script

Headers = Sequence[tuple[str, str]]
PHRASES = {status.value: status.phrase for status in HTTPStatus}
NO_BODY = (204, 304)
ABOUT_CONNECTION = ("Keep-Alive", "Connection")
BUFFERED = 2048  # Go's server announces a length only for bodies that fit its buffer
MISSING_BYTES = 64
DRIP_BYTES = 7


class Broken(Exception):
    """The answer was broken on purpose, and the connection with it; nothing is left to send."""


@lru_cache(maxsize=2)
def _date(unix: int) -> str:
    return formatdate(unix, usegmt=True)


def _head(version: str, status: int, headers: Headers) -> bytes:
    phrase = PHRASES.get(status, f"status code {status}")
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"HTTP/{version} {status} {phrase}\r\n{lines}\r\n".encode("latin-1", "replace")


def reset(transport: asyncio.Transport) -> None:
    """Close a connection with a TCP reset."""
    raw = transport.get_extra_info("socket")
    if raw is not None and not transport.is_closing():
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


class Reply:
    """The answer to one request: `whole`, or `begin`, `frame`… and `end`. ConnectionResetError when the client is gone.

    Go's server puts a date into every head, llama.cpp's into none.
    """

    def __init__(self, request: web.BaseRequest) -> None:
        self.request = request
        self.dated = True
        self.first: Headers = ()
        self.last: Headers = ()
        self.head_only = request.method == "HEAD"
        self.version = "1.0" if request.version < HttpVersion11 else "1.1"
        self.chunked = self.version == "1.1"
        self.keep = request.keep_alive
        self.started = False
        self._unsent = b""

    @property
    def transport(self) -> asyncio.Transport:
        """The connection; ConnectionResetError when it is gone."""
        transport = self.request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has left")
        return transport

    async def whole(self, status: int, headers: Headers, body: bytes, *, chunk_over: int | None = BUFFERED) -> None:
        """A body at once; over `chunk_over` bytes it is sent in chunks, without a length, as Go's server does."""
        if chunk_over is not None and len(body) > chunk_over and not self.head_only and self.chunked:
            self._start(status, headers, ("Transfer-Encoding", "chunked"))
            await self.frame(body)
            await self.end()
            return
        length = [] if status in NO_BODY else [("Content-Length", str(self._announced(len(body))))]
        self._start(status, headers, *length)
        await self._send(b"" if self.head_only else body)

    async def begin(self, status: int, headers: Headers, *, at_once: bool = False) -> None:
        """A stream's head: sent with the first frame, or at once."""
        framing = [("Transfer-Encoding", "chunked")] if self.chunked else []
        self.keep = self.keep and self.chunked
        self._start(status, headers, *framing)
        if at_once:
            self._flush()

    async def frame(self, data: bytes) -> None:
        """One piece of a stream, as one chunk."""
        if self.chunked:
            await self._send(data, before=b"%x\r\n" % len(data), after=b"\r\n")
        else:
            await self._send(data)

    async def end(self) -> None:
        """The end of a stream."""
        self._put(b"0\r\n\r\n" if self.chunked else b"")

    def _start(self, status: int, headers: Headers, *framing: tuple[str, str]) -> None:
        self.started = True
        if ("Connection", "close") in headers:
            self.keep = False
        tail: list[tuple[str, str]] = [("Date", _date(int(time.time()))), *framing]
        if not self.dated:  # llama.cpp's server says last what it says about the connection
            tail = [*framing, *(each for each in headers if each[0] in ABOUT_CONNECTION)]
            headers = [each for each in headers if each[0] not in ABOUT_CONNECTION]
        self._unsent = _head(self.version, status, [*self.first, *headers, *self.last, *tail])

    def _announced(self, length: int) -> int:
        return length

    def _flush(self) -> None:
        self._put(b"")

    def _put(self, data: bytes) -> None:
        if self._unsent:
            data, self._unsent = self._unsent + data, b""
        if data:
            self.transport.write(data)

    async def _send(self, data: bytes, before: bytes = b"", after: bytes = b"") -> None:
        self._put(before + data + after)
        await self.request.writer.drain()


class CutReply(Reply):
    """Stops after so many bytes of body: closed, or closed on the sending side only."""

    def __init__(self, request: web.BaseRequest, fault: Fault, script: Script) -> None:
        super().__init__(request)
        self._left = fault.position
        self._fault = fault
        self._script = script

    async def _send(self, data: bytes, before: bytes = b"", after: bytes = b"") -> None:
        if len(data) <= self._left:
            self._left -= len(data)
            await super()._send(data, before, after)
            return
        self._put(before + data[: self._left])
        await self._break()

    async def end(self) -> None:
        """A body shorter than the cut is cut at its end: its terminating chunk never comes."""
        await self._break()

    async def _break(self) -> None:
        self._flush()
        if self._fault.kind is FaultKind.HALF_CLOSE:
            self.transport.write_eof()
            await self._script.hang(self._fault)
        self.transport.close()
        raise Broken


class ShortReply(Reply):
    """Announces more bytes than it sends, then closes; a stream gets a length instead of chunks."""

    def _announced(self, length: int) -> int:
        return length + MISSING_BYTES

    async def whole(self, status: int, headers: Headers, body: bytes, *, chunk_over: int | None = None) -> None:
        """The body, less than was announced of it."""
        await super().whole(status, headers, body, chunk_over=chunk_over)
        await self.end()

    async def begin(self, status: int, headers: Headers, *, at_once: bool = False) -> None:
        """A head with a length that the frames will not reach."""
        self.chunked = self.keep = False
        self._start(status, headers, ("Content-Length", str(2**20)))
        if at_once:
            self._flush()

    async def end(self) -> None:
        """Close before the announced length is reached."""
        self.transport.close()
        raise Broken


class DripReply(Reply):
    """A few bytes at a time, with pauses: frames arrive torn."""

    def __init__(self, request: web.BaseRequest, fault: Fault) -> None:
        super().__init__(request)
        self._pause_s = 0.002 if fault.seconds is None else fault.seconds
        self._bytes = fault.position or DRIP_BYTES

    async def _send(self, data: bytes, before: bytes = b"", after: bytes = b"") -> None:
        whole = before + data + after
        for start in range(0, len(whole), self._bytes):
            await super()._send(whole[start : start + self._bytes])
            await asyncio.sleep(self._pause_s)


def reply_for(request: web.BaseRequest, fault: Fault | None, script: Script) -> Reply:
    """The reply that has the fault, where it is one of bytes."""
    if fault is None:
        return Reply(request)
    if fault.kind in (FaultKind.CUT, FaultKind.HALF_CLOSE):
        return CutReply(request, fault, script)
    if fault.kind is FaultKind.WRONG_CONTENT_LENGTH:
        return ShortReply(request)
    return DripReply(request, fault) if fault.kind is FaultKind.SLOW_DRIP else Reply(request)


class Sent(web.StreamResponse):
    """What the server gets back from a handler that has written its answer itself."""

    def __init__(self, *, keep: bool) -> None:
        super().__init__()
        self._keep = keep

    @property
    def keep_alive(self) -> bool:
        """Whether the connection takes another request."""
        return self._keep

    async def prepare(self, request: web.BaseRequest) -> None:
        """Nothing is left to prepare."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to write."""


def kept() -> Sent:
    """The response that keeps the connection open."""
    return Sent(keep=True)


def closed() -> Sent:
    """The response after which the connection is closed."""
    return Sent(keep=False)
