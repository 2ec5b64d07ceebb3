"""One exchange with a node: a request out, an answer in, over connections that are kept; the only user of `http1`.

Every failure leaves here as an AttemptError of the tree, and is made one nowhere else. What a request's own body raises
while it is read, and CancelledError, pass through as they are.
"""

import asyncio
import errno
import ssl
from collections.abc import AsyncIterable
from types import TracebackType
from typing import NoReturn

from herd.core import errors
from herd.core.value import value
from herd.dataplane.http1 import Address, Broken, Connection, Headers, Late, Lost, head_of, target_of

IDLE_S = 30.0
STALE_S = 1.0  # a kept connection that ends later than this after a request was not closed before it: the node worked
ERROR_BODY_LIMIT = 64 * 1024
# What engines call a failure of their own, with 500, and is none: one client would close a node to all others.
CLIENTS_MISTAKES = (
    "must be of type", "invalid format:", "unqualified name",  # Ollama
    "json.exception.", "Failed to parse messages", "' is required", "is too large to process",  # llama.cpp
)  # fmt: skip
LOST = "the node's connection was lost before it answered"
CANNOT = ("missing data required for image input", "image input is not supported")

Body = bytes | AsyncIterable[bytes] | None


@value
class Call:
    """What is sent to a node.

    `url` is scheme://host:port/path; `headers` are without Host, Content-Length and Transfer-Encoding, which are added.
    A body that is an AsyncIterable goes out in chunks, and never twice.
    """

    method: str
    url: str
    headers: Headers = ()
    body: Body = None

    def whole(self) -> bool:
        """Whether all of the body is here."""
        return self.body is None or isinstance(self.body, bytes)


class Answer:
    """A node's answer from its headers on; `headers` have names in lower case, in the order received.

    `due_at` is the event loop's time by which the next bytes must be here: whoever reads moves it as it likes, before
    it reads. `content_seen` is the reader's to set: silence after content is another failure than silence before it.
    `reconnected` says that a kept connection was found closed, and the request went once more.
    """

    __slots__ = ("_connection", "content_length", "content_seen", "due_at", "headers", "reconnected", "status")

    def __init__(self, connection: Connection, due_at: float, reconnected: bool) -> None:
        self._connection = connection
        self.status = connection.status
        self.headers = connection.headers
        self.content_length = connection.content_length
        self.reconnected = reconnected
        self.due_at = due_at
        self.content_seen = False

    def header(self, name: bytes) -> bytes | None:
        """The value of the first header of that name, in lower case."""
        return next((value for found, value in self.headers if found == name), None)

    async def read(self) -> bytes:
        """All of the body that is here, or that comes next; nothing at its proper end. Raises AttemptError."""
        connection = self._connection
        while not connection.pieces:
            if connection.error is not None:
                _raise_as_failure(connection.error, answered=True, content_seen=self.content_seen)
            if connection.complete:
                return b""
            await connection.arrival(self.due_at)
        return connection.take()

    async def read_limited(self, limit: int) -> tuple[bytes, bool]:
        """The body until it is over a limit, and whether that is all of it."""
        chunks: list[bytes] = []
        size = 0
        while size <= limit:
            chunk = await self.read()
            if not chunk:
                return b"".join(chunks), True
            chunks.append(chunk)
            size += len(chunk)
        return b"".join(chunks), False


class Exchange:
    """One request and its answer: `async with upstream.exchange(call, due_at) as answer`.

    A connection goes back to the pool once its answer was read to the end, and is closed at once in any other case.
    """

    __slots__ = ("_call", "_connection", "_due_at", "_sender", "_upstream")

    def __init__(self, upstream: "Upstream", call: Call, due_at: float) -> None:
        self._upstream = upstream
        self._call = call
        self._due_at = due_at
        self._connection: Connection
        self._sender: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Answer:
        """Send the request, and wait for the headers.

        A kept connection may have been closed by the node while the request was on its way: nothing was received, so it
        goes once more, on a fresh connection. Where that is not to be had, the request was the end of the node.
        """
        call = self._call
        try:
            target = target_of(call.url)
        except ValueError as error:
            raise errors.ConnectFailed(f"the node could not be reached: {error}") from error
        head = head_of(call.method, target, (*call.headers, *self._upstream.via), call.body)
        # A body that is read as it is sent cannot go twice.
        kept = self._upstream.take(target.address) if call.whole() else None
        if kept is not None and await self._ask(kept, head, kept=True):
            return Answer(kept, self._due_at, reconnected=False)
        try:
            fresh = await self._upstream.connect(target.address, self._due_at)
        except errors.ConnectFailed as error:
            if kept is None:
                raise
            raise errors.ConnectionLost(f"{LOST} ({error.message})") from error
        await self._ask(fresh, head, kept=False)
        return Answer(fresh, self._due_at, reconnected=kept is not None)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        connection = self._connection
        try:
            if self._sender is not None:
                await self._end_sender(self._sender)
        finally:
            if connection.reusable():
                self._upstream.keep(connection)
            else:
                connection.abort()

    async def _ask(self, connection: Connection, head: bytes, kept: bool) -> bool:
        """Send the request and wait for the answer's headers; False where a kept connection proves to be closed."""
        self._connection, call, body, answered = connection, self._call, self._call.body, False
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            if body is None or isinstance(body, bytes):
                connection.begin(head, body, bodiless=call.method == "HEAD", chunks_follow=False)
            else:
                connection.begin(head, None, bodiless=call.method == "HEAD", chunks_follow=True)
                self._sender = asyncio.create_task(connection.send_chunks(body))
                self._sender.add_done_callback(self._sender_ended)
            while not connection.status:
                if isinstance(connection.error, Lost) and not connection.received:
                    worked_s = clock() - began
                    if kept and worked_s < STALE_S:
                        return False
                    text = f", {worked_s:.0f} s after the request" if worked_s >= STALE_S else ""
                    raise errors.ConnectionLost(f"{LOST}{text}: {connection.error}") from connection.error
                if connection.error is not None:
                    _raise_as_failure(connection.error, answered=False)
                await connection.arrival(self._due_at)
            answered = True
        finally:
            if not answered:
                await self._abandon()
        return True

    async def _abandon(self) -> None:
        self._connection.abort()
        if self._sender is not None:
            await self._end_sender(self._sender)

    @staticmethod
    async def _end_sender(sender: "asyncio.Task[None]") -> None:
        """Have a body that is still being sent end here; a node may answer before it has read all of it."""
        if not sender.done():
            sender.cancel()
            await asyncio.wait([sender])

    def _sender_ended(self, sender: "asyncio.Task[None]") -> None:
        if not sender.cancelled() and (error := sender.exception()) is not None:
            self._connection.fail(error if isinstance(error, Exception) else Lost(type(error).__name__))


class Upstream:
    """Connections to the nodes: those in use, and those that wait for the next request, the last one used first."""

    def __init__(
        self, connect_timeout_s: float, *, idle_s: float = IDLE_S, tls: ssl.SSLContext | None = None, via: bytes = b""
    ) -> None:
        """`tls` says which certificates are trusted, where that is not the system's choice; `via` who passes on."""
        self.via: Headers = ((b"via", b"1.1 " + via),) if via else ()
        self.set_connect_timeout(connect_timeout_s)
        self._idle_s = idle_s
        self._tls = tls
        self._open: set[Connection] = set()
        self._idle: dict[Address, list[Connection]] = {}
        self._sweeping: asyncio.TimerHandle | None = None
        self._emptied: asyncio.Future[None] | None = None
        self._closed = False

    def set_connect_timeout(self, seconds: float) -> None:
        """Wait so long for a node to take a connection from now on."""
        self._connect_timeout_s = seconds

    async def lives(self, url: str, within_s: float) -> bool:
        """Whether a node takes a connection: one that lost all of them and takes none any more is dead."""
        try:
            connection = await self.connect(target_of(url).address, asyncio.get_running_loop().time() + within_s)
        except (errors.AttemptError, ValueError):
            return False
        connection.abort()
        return True

    def exchange(self, call: Call, due_at: float) -> Exchange:
        """Ask a node; its headers must be here by `due_at`, in the event loop's time. Enter it to do so."""
        return Exchange(self, call, due_at)

    @property
    def connections(self) -> int:
        """How many are open: in use, and waiting for a request."""
        return len(self._open)

    @property
    def idle(self) -> int:
        """How many of them wait for a request."""
        return sum(map(len, self._idle.values()))

    async def close(self) -> None:
        """Close all connections; exchanges under way fail."""
        self._closed = True
        if self._sweeping is not None:
            self._sweeping.cancel()
        for connection in tuple(self._open):
            connection.abort()
        if self._open:
            self._emptied = asyncio.get_running_loop().create_future()
            await self._emptied

    # For exchanges

    def take(self, address: Address) -> Connection | None:
        """A connection there that waits for a request."""
        idle = self._idle.get(address)
        while idle:
            connection = idle.pop()
            if not connection.closing:
                return connection
        return None

    def keep(self, connection: Connection) -> None:
        """Have a connection wait for the next request."""
        loop = asyncio.get_running_loop()
        connection.rest()
        connection.idle_since = loop.time()
        self._idle.setdefault(connection.address, []).append(connection)
        if self._sweeping is None:
            self._sweeping = loop.call_later(self._idle_s, self._sweep)

    async def connect(self, address: Address, due_at: float) -> Connection:
        """A new connection; raises AttemptError."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + self._connect_timeout_s
        connection = Connection(loop, address, self._ended)
        try:
            async with asyncio.timeout_at(min(give_up_at, due_at)):
                tls = await self._tls_context() if address.tls else None
                await loop.create_connection(lambda: connection, address.host, address.port, ssl=tls)
        except TimeoutError as error:
            if due_at < give_up_at:
                raise _failure(Late(), answered=False, content_seen=False) from error
            raise errors.ConnectTimeout("the node did not accept the connection in time") from error
        except (OSError, UnicodeError) as error:
            raise _unreachable(error) from error
        if self._closed:
            connection.abort()
        if not connection.closing:
            self._open.add(connection)
        return connection

    async def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:  # made when it is needed: it reads all of the system's certificates
            self._tls = await asyncio.to_thread(ssl.create_default_context)
        return self._tls

    def _ended(self, connection: Connection) -> None:
        self._open.discard(connection)
        idle = self._idle.get(connection.address)
        if connection.idle and idle is not None:
            if connection in idle:
                idle.remove(connection)
            if not idle:
                del self._idle[connection.address]
        if self._emptied is not None and not self._open and not self._emptied.done():
            self._emptied.set_result(None)

    def _sweep(self) -> None:
        """Close what has waited for too long, and look again when the next will have."""
        loop, self._sweeping = asyncio.get_running_loop(), None
        self._idle = {address: idle for address, idle in self._idle.items() if idle}
        waiting = [connection for idle in self._idle.values() for connection in idle if not connection.closing]
        until = loop.time() - self._idle_s
        for connection in waiting:
            if connection.idle_since <= until:
                connection.abort()
        left = [connection.idle_since for connection in waiting if not connection.closing]
        if left:
            self._sweeping = loop.call_at(min(left) + self._idle_s, self._sweep)


def status_error(status: int, message: str) -> errors.AttemptError:
    """The error of the tree for a status of 400 or more that a node answered."""
    if status == 404 and "not found" in message and "model" in message:
        return errors.NodeLacksModel(message, status)
    if status in {429, 503}:
        return errors.UpstreamBusy(message, status)
    if status == 501 or (status == 500 and any(words in message for words in CANNOT)):
        return errors.NodeCannot(message, status)
    if status == 500 and any(words in message for words in CLIENTS_MISTAKES):
        return errors.Upstream4xx(message, status)
    if status >= 500:
        return errors.Upstream5xx(message, status)
    return errors.Upstream4xx(message, status)


def _raise_as_failure(error: Exception, answered: bool, content_seen: bool = False) -> NoReturn:
    """Raise the error of the tree for what ended an exchange; what a request's own body raised stays as it is."""
    if not isinstance(error, Broken):
        raise error
    raise _failure(error, answered, content_seen) from error


def _failure(error: Broken, answered: bool, content_seen: bool) -> errors.AttemptError:
    """The error of the tree by how far the answer had come: headers, or content."""
    if isinstance(error, Late):
        if content_seen:
            return errors.StallTimeout("the node went silent in the middle of its answer")
        return errors.FirstByteTimeout("the node sent no content in time")
    if answered:
        lost = isinstance(error, Lost)
        text = "its connection closed before the end" if lost else str(error)
        failure = errors.StreamAborted(f"the node's answer broke off: {text}")
        failure.died = lost
        return failure
    if isinstance(error, Lost):
        return errors.ConnectionLost(f"{LOST}: {error}")
    return errors.BadResponse(f"the node's answer is not HTTP: {error}")


def _unreachable(error: OSError | UnicodeError) -> errors.AttemptError:
    if isinstance(error, OSError) and error.errno in {errno.EMFILE, errno.ENFILE}:
        return errors.OutOfFiles("herd has too many files open to reach a node; `ulimit -n` where it starts is too low")
    return errors.ConnectFailed(f"the node could not be reached: {str(error) or type(error).__name__}")
