"""A TCP proxy on loopback that breaks connections as wires and machines do, where a simulated node cannot.

It knows bytes and connections, no HTTP: each burst of bytes from the client side begins a new answer, whose bytes are
counted from zero.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from tests.harness import free_port

T = TypeVar("T")
Act = Literal["flow", "reset", "cut", "half_close", "partition"]
HOST = "127.0.0.1"
ROOM = 65_536
PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens to an answer after `at` bytes of it.

    `flow` lets the rest through, `reset` sends a TCP reset, `cut` closes both sides, `half_close` ends what is sent and
    goes on listening, `partition` passes nothing more and closes nothing. Where the request contains `hold`, the act
    waits until `Proxy.proceed` names it. `delay_s` comes before each burst of the answer.
    """

    act: Act = "flow"
    at: int = 0
    hold: bytes | None = None
    delay_s: float = 0.0


FLOW = Rule()


class Proxy:
    """Listens on a port of its own from `start` on; `target` is the port that it forwards to, and may be set later."""

    def __init__(self, rule: Rule = FLOW, target: int = 0) -> None:
        self.rule = rule
        self.target = target
        self.port = free_port()
        self._proceeding: set[bytes] = set()
        self._links: set[Link] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._server: asyncio.Server | None = None
        self._changed: asyncio.Event = asyncio.Event()

    @property
    def url(self) -> str:
        """What a heartbeat should name as its engine's address."""
        return f"http://{HOST}:{self.port}"

    def start(self) -> "Proxy":
        """Listen."""
        self._thread.start()
        self._call(self._listen())
        return self

    def stop(self) -> None:
        """Close everything and end the thread."""
        self._call(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()

    def refuse(self) -> None:
        """Take no more connections, and reset those that there are."""
        self._call(self._close())

    def accept(self) -> None:
        """Take connections again, on the same port."""
        self._call(self._listen())

    def set(self, rule: Rule) -> None:
        """From now on this happens, to answers under way as well."""

        async def change() -> None:
            self.rule = rule
            self._wake()

        self._call(change())

    def proceed(self, mark: bytes) -> None:
        """Let go the held answers whose request contains this, those to come as well."""

        async def release() -> None:
            self._proceeding.add(mark)
            self._wake()

        self._call(release())

    def links(self) -> int:
        """How many connections are open."""
        return len(self._links)

    def _call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(PATIENCE_S)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._take, HOST, self.port)

    async def _close(self) -> None:
        if self._server:
            self._server.close()
        for link in tuple(self._links):
            link.reset()
        while self._links:
            await self._pause()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(HOST, self.target)
        except OSError:
            writer.close()
            return
        link = Link(self, reader, writer, far_reader, far_writer)
        self._links.add(link)
        try:
            await link.run()
        finally:
            self._links.discard(link)
            self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _pause(self) -> None:
        """Wait until a rule, a mark or a connection has changed."""
        await self._changed.wait()

    async def held(self, rule: Rule, asked: bytes) -> None:
        """Wait while an answer to this request is held."""
        while rule.hold and rule.hold in asked and not any(mark in asked for mark in self._proceeding):
            await self._pause()

    async def partitioned(self) -> None:
        """Wait while nothing passes."""
        while self.rule.act == "partition":
            await self._pause()


class Link:
    """One connection of the client side, and the one to the target that belongs to it."""

    def __init__(
        self,
        proxy: Proxy,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        far_reader: asyncio.StreamReader,
        far_writer: asyncio.StreamWriter,
    ) -> None:
        self._proxy = proxy
        self._near = (reader, writer)
        self._far = (far_reader, far_writer)
        self._asked = b""
        self._passed = 0
        self._work: tuple[asyncio.Task[None], ...] = ()

    async def run(self) -> None:
        """Carry bytes both ways until either side ends it or the rule does."""
        self._work = (asyncio.create_task(self._ask()), asyncio.create_task(self._answer()))
        try:
            await asyncio.wait(self._work, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in self._work:
                task.cancel()
            await asyncio.gather(*self._work, return_exceptions=True)
            for _, writer in (self._near, self._far):
                writer.close()

    def reset(self) -> None:
        """End the client's side with a TCP reset."""
        raw = self._near[1].get_extra_info("socket")
        if raw.fileno() >= 0:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._near[1].transport.abort()
        for task in self._work:
            task.cancel()

    async def _ask(self) -> None:
        with suppress(ConnectionError):
            while data := await self._near[0].read(ROOM):
                self._asked, self._passed = (self._asked if not self._passed else b"") + data, 0
                self._far[1].write(data)
                await self._far[1].drain()

    async def _answer(self) -> None:
        with suppress(ConnectionError):
            while data := await self._far[0].read(ROOM):
                rule = self._proxy.rule
                if rule.delay_s:
                    await asyncio.sleep(rule.delay_s)
                room = max(0, rule.at - self._passed)
                await self._pass_on(data[:room])
                if len(data) <= room:
                    continue
                await self._proxy.held(rule, self._asked)
                if rule.act == "partition":
                    await self._proxy.partitioned()
                elif rule.act != "flow":
                    await self._end(rule.act)
                    return
                await self._pass_on(data[room:])

    async def _pass_on(self, data: bytes) -> None:
        if data:
            self._passed += len(data)
            self._near[1].write(data)
            await self._near[1].drain()

    async def _end(self, act: Act) -> None:
        if act == "reset":
            self.reset()
        elif act == "half_close":
            self._near[1].write_eof()
            await self._work[0]  # until the client has had enough
