"""The client's side of one exchange: its body, its going away, and what it is sent. It knows ASGI and no node."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from herd.core.access import NOBODY, Caller
from herd.core.errors import BadRequest, BodyTooLarge, HerdError
from herd.core.room import Room

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
BODY_SILENCE_S = 60.0  # a client that sends no more of its body holds a request open for nothing
RawHeaders = list[tuple[bytes, bytes]]


class ClientGone(Exception):
    """The client left before its answer was whole."""


class Client:
    """One client for the length of one request.

    `started` says that a status went out, so no other node can answer any more; `finished` that the answer is whole.
    `broken_line`: what was sent ends within a line; `last_words`: what ends the answer in place of an error frame.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, room: Room | None = None) -> None:
        self._room = room
        self._held = 0
        self._receive = receive
        self._send = send
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query: bytes = scope.get("query_string", b"")
        self.raw_path: str = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
        self.headers: RawHeaders = scope["headers"]  # names in lower case, as ASGI has them
        self.named = {name.decode("latin-1"): value.decode("latin-1") for name, value in self.headers}
        self.address: str = scope["client"][0] if scope.get("client") else ""
        self.caller: Caller = scope.get("herd.caller", NOBODY)
        self.gone = False
        self.started = False
        self.finished = False
        self.broken_line = False
        self.last_words: bytes | None = None
        self.ended_by: HerdError | None = None
        self._task: asyncio.Task[object] | None = None
        self._owed: int | None = None

    def end(self, error: HerdError) -> bool:
        """End the request from outside with this error, wherever it waits; False where it is ending already."""
        if self._task is None or self.gone or self.finished or self.ended_by:
            return False
        self.ended_by = error
        self._task.cancel()
        return True

    def hold(self, size: int) -> None:
        """So many bytes of this request's body are in memory until its end; raises NoRoom where that is too many."""
        if self._room is not None:
            self._room.take(size)
            self._held += size

    def let_go(self) -> None:
        """The request has ended, and its body with it."""
        if self._room is not None:
            self._room.give_back(self._held)
            self._held = 0

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes in; raises ClientGone."""
        more = True
        while more:
            message = await self._next_part()
            more = self._more_follows(message)
            yield message.get("body", b"")

    def _more_follows(self, message: MutableMapping[str, Any]) -> bool:
        if message["type"] == "http.disconnect":
            self.gone = True
            raise ClientGone
        more: bool = message.get("more_body", False)
        return more

    def _too_silent(self) -> None:
        self.end(_silent())

    async def _next_part(self) -> MutableMapping[str, Any]:
        try:
            async with asyncio.timeout(BODY_SILENCE_S):
                return await self._receive()
        except TimeoutError:
            raise _silent() from None

    async def body(self, limit: int) -> bytes:
        """The whole body, which is held until `let_go`.

        Raises NoRoom, or BodyTooLarge over the limit, before it is all read where its length is given.
        """
        self._check_length(limit)
        parts, size, more = [], 0, True
        loop = asyncio.get_running_loop()
        with self.endable():
            while more:
                # As `asyncio.timeout` ends a wait, for a third of its price: every request has this one.
                timer = loop.call_later(BODY_SILENCE_S, self._too_silent)
                try:
                    message = await self._receive()
                finally:
                    timer.cancel()
                more = self._more_follows(message)
                part = message.get("body", b"")
                parts.append(part)
                size += len(part)
                if size > limit:
                    raise BodyTooLarge(_too_large(limit))
                self.hold(len(part))
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def watched(self) -> "Watched":
        """Cancel what happens inside as soon as the client leaves; raises ClientGone then. The body is read before.

        What `end` was called with is raised instead, if that came first.
        """
        return Watched(self)

    def endable(self) -> "Endable":
        """Let `end` reach what happens inside; its error is raised here."""
        return Endable(self)

    async def start(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Send the status and the headers."""
        headers = list(headers)
        self.started = True
        self._owed = next((int(value) for name, value in headers if name == b"content-length"), None)
        self._pay(0)
        await self._say({"type": "http.response.start", "status": status, "headers": headers})

    async def answer(self, status: int, headers: RawHeaders, body: bytes) -> None:
        """Send a whole answer; its length is added to the headers."""
        self.started, self._owed, self.finished = True, len(body), not body
        headers = [*headers, (b"content-length", b"%d" % len(body))]
        await self._say({"type": "http.response.start", "status": status, "headers": headers})
        await self.finish(body)

    async def write(self, chunk: bytes) -> None:
        """Send a part of the body; waits while the client is slow."""
        if chunk:
            if self._owed is not None:
                self._pay(len(chunk))
            await self._say({"type": "http.response.body", "body": chunk, "more_body": True})

    async def finish(self, chunk: bytes = b"") -> None:
        """Send the last part of the body."""
        self.finished = True
        await self._say({"type": "http.response.body", "body": chunk, "more_body": False})

    @property
    def promised(self) -> bool:
        """Whether the answer began with its length, so that nothing may be added."""
        return self._owed is not None

    def _pay(self, size: int) -> None:
        """Who has as many bytes as the answer said may leave: the answer is whole, though nobody ended it yet."""
        if self._owed is not None:
            self._owed -= size
            self.finished = self._owed <= 0

    async def _say(self, message: MutableMapping[str, Any]) -> None:
        try:
            await self._send(message)
        except RuntimeError as error:
            if "closed" not in str(error):
                raise
            if self._owed is not None and self._owed <= 0:
                return  # it has the whole answer, and only did not wait for its end
            # The second of two pipelined requests is never told that its client left; writing to it is how one learns.
            self.gone = True
            raise ClientGone from error

    def _check_length(self, limit: int) -> None:
        length = self.named.get("content-length", "0")
        if not length.isdigit():
            raise BadRequest("Content-Length is not a number")
        if int(length) > limit:
            raise BodyTooLarge(_too_large(limit))

    async def _watch(self, task: "asyncio.Task[object]") -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self.finished and self.ended_by is None:
            self.gone = True
            task.cancel()


class Endable:
    """The part of a request's life in which it can be ended from outside; written out, since every request has one."""

    __slots__ = ("client",)

    def __init__(self, client: Client) -> None:
        self.client = client

    def __enter__(self) -> "asyncio.Task[object]":
        task = self.client._task = asyncio.current_task()
        assert task is not None
        return task

    def __exit__(self, kind: object, error: BaseException | None, _: object) -> None:
        client = self.client
        task, client._task = client._task, None
        if isinstance(error, asyncio.CancelledError) and (client.ended_by is not None or client.gone):
            assert task is not None
            task.uncancel()
            raise client.ended_by or ClientGone from None


class Watched(Endable):
    """The same, with the client watched meanwhile."""

    __slots__ = ("_watcher",)

    async def __aenter__(self) -> None:
        self._watcher = asyncio.create_task(self.client._watch(self.__enter__()))

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._watcher.cancel()
        self.__exit__(kind, error, trace)


def _silent() -> BadRequest:
    return BadRequest(f"the request body stalled for {BODY_SILENCE_S:g} s")


def _too_large(limit: int) -> str:
    return f"the request body is over the limit of {limit // 2**20} MiB (setting body_limit_mb)"
